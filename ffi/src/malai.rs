//! The object that an app begins with.

use std::str::FromStr;
use std::sync::Arc;

use malai_core::api::{Client, JoinClusterRequest, JoinVia};
use malai_core::model::name::NameProblem;

use crate::engine::Engine;
use crate::{
    Cluster, CommandHandle, HomeInfo, Invite, InviteOptions, JoinedCluster, MalaiError, MalaiOptions,
    NewInvite, RescanOutcome, SyncOutcome,
};

/// A home: this device's identities and clusters, and the way to other machines.
///
/// Open one for each home directory and keep it: its connections are reused. Several homes may be open in one
/// process. All calls may come from any thread, several at once. Cancelling a call that changes something
/// does not undo or stop it; cancelling any other call ends it.
#[derive(uniffi::Object)]
pub struct Malai {
    engine: Arc<Engine>,
}

#[uniffi::export]
impl Malai {
    /// Opens a home directory, which is made, for this user alone, if it is not there. Nothing is sent yet.
    ///
    /// Throws `Storage` or `Denied` when the directory cannot be used.
    #[uniffi::constructor]
    pub async fn open(home: String, options: MalaiOptions) -> Result<Self, MalaiError> {
        Ok(Self { engine: Arc::new(Engine::open(options.for_home(home)?).await?) })
    }

    /// Describes this home.
    pub async fn info(&self) -> Result<HomeInfo, MalaiError> {
        self.engine.ask("info", |client| async move { Ok(client.info().await?.into()) }).await
    }

    /// Lists the clusters of this home, by alias.
    pub async fn clusters(&self) -> Result<Vec<Cluster>, MalaiError> {
        Ok(self.info().await?.clusters)
    }

    /// Runs a program on a machine and returns at once: the handle tells how it goes.
    ///
    /// `address` is `machine.cluster` or an alias of this home's `malai.toml`; `argv` is the program and its
    /// arguments, which reach it exactly as they are. No shell sees them.
    pub fn run(&self, address: String, argv: Vec<String>) -> CommandHandle {
        CommandHandle::start(Arc::clone(&self.engine), address, argv)
    }

    /// Makes a cluster that this device manages. `cluster_name` is what it calls itself; absent: the alias.
    ///
    /// Throws `Conflict` when the alias is taken.
    #[uniffi::method(default(cluster_name = None))]
    pub async fn init_cluster(
        &self,
        alias: String,
        cluster_name: Option<String>,
    ) -> Result<Cluster, MalaiError> {
        let alias = parse_name(&alias)?;
        let make =
            |client: Arc<Client>| async move { Ok(client.init_cluster(alias, cluster_name).await?.into()) };
        self.engine.change("init_cluster", make).await
    }

    /// Makes an invite for new machines. Throws `Denied` when this device is not the cluster's manager, or
    /// when a rule of the cluster says `*` and the options do not accept that.
    pub async fn create_invite(
        &self,
        cluster: String,
        options: InviteOptions,
    ) -> Result<NewInvite, MalaiError> {
        let request = options.for_cluster(&cluster)?;
        let make = |client: Arc<Client>| async move { Ok(client.create_invite(request).await?.into()) };
        self.engine.change("create_invite", make).await
    }

    /// Lists a cluster's invites, oldest first. Throws `Denied` when this device is not its manager.
    pub async fn list_invites(&self, cluster: String) -> Result<Vec<Invite>, MalaiError> {
        let cluster = parse_name(&cluster)?;
        let list = |client: Arc<Client>| async move { client.list_invites(cluster).await };
        Ok(self.engine.ask("list_invites", list).await?.into_iter().map(Invite::from).collect())
    }

    /// Ends the invites with this word, id52 or label, and returns them. Throws `Denied` when this device is
    /// not the cluster's manager, and when there are none.
    pub async fn revoke_invite(&self, cluster: String, invite: String) -> Result<Vec<Invite>, MalaiError> {
        let cluster = parse_name(&cluster)?;
        let revoke = |client: Arc<Client>| async move { client.revoke_invite(cluster, invite).await };
        Ok(self.engine.change("revoke_invite", revoke).await?.into_iter().map(Invite::from).collect())
    }

    /// Makes this device a machine of the cluster that an invite is from. `alias` is what this device calls
    /// the cluster, `name` what it would like to be called. It has no rights until the manager gives it some.
    ///
    /// A manager that does not answer is no error: see `waiting`. Throws `Denied` when the manager refuses,
    /// `Conflict` when the alias is taken.
    #[uniffi::method(default(name = None))]
    pub async fn join(
        &self,
        invite: String,
        alias: String,
        name: Option<String>,
    ) -> Result<JoinedCluster, MalaiError> {
        let name = name.map(|name| parse_name(&name)).transpose()?;
        let request = JoinClusterRequest { via: JoinVia::Invite(invite), alias: parse_name(&alias)?, name };
        let join = |client: Arc<Client>| async move { Ok(client.join(request).await?.into()) };
        self.engine.change("join", join).await
    }

    /// Checks all config files of this home, without changing anything. Throws `InvalidInput` when one has
    /// errors.
    pub async fn check_config(&self) -> Result<RescanOutcome, MalaiError> {
        self.engine.ask("check_config", |client| async move { Ok(client.rescan(true).await?.into()) }).await
    }

    /// Has the daemon of this home put its config files in force, all or nothing, and distribute them.
    ///
    /// Throws `InvalidInput` when a file has errors; then what was in force still is.
    pub async fn rescan(&self) -> Result<RescanOutcome, MalaiError> {
        self.engine.change("rescan", |client| async move { Ok(client.rescan(false).await?.into()) }).await
    }

    /// Asks the managers for this device's config; `cluster` absent: all of them. What each answered is in
    /// the result.
    #[uniffi::method(default(cluster = None))]
    pub async fn sync(&self, cluster: Option<String>) -> Result<Vec<SyncOutcome>, MalaiError> {
        let cluster = cluster.map(|cluster| parse_name(&cluster)).transpose()?;
        let sync = |client: Arc<Client>| async move { client.sync(cluster).await };
        Ok(self.engine.change("sync", sync).await?.into_iter().map(SyncOutcome::from).collect())
    }

    /// Ends everything of this home in this process: commands are hung up, connections closed. Calls that
    /// wait throw `Cancelled`, and so do later ones; changes under way get a moment to end. Files and a
    /// daemon stay. Without this call it happens when the last object is gone.
    pub async fn shutdown(&self) -> Result<(), MalaiError> {
        self.engine.shutdown().await
    }
}

pub(crate) fn parse_name<N: FromStr<Err = NameProblem>>(text: &str) -> Result<N, MalaiError> {
    text.parse().map_err(|problem| MalaiError::no_name(text, &problem))
}
