//! The client that every front holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use malai_model::name::ClusterAlias;

use super::{
    ApiReply, ApiRequest, ClusterView, CreateInviteRequest, InfoView, InviteView, JoinClusterRequest,
    JoinedView, NewInviteView, OpenRequest, Opened, PingView, RescanView, Route, RunRequest, ServiceView,
    SyncView,
};
use crate::clock::{SharedClock, SystemClock};
use crate::error::Error;
#[cfg(all(feature = "daemon", unix))]
use crate::error::SocketError;
use crate::exec::RunningCommand;
use crate::home::{Create, Home};
use crate::identity::{FileKeyStore, KeyStore};
use crate::node::NodeOptions;
use crate::p2p::Transport;
use crate::service::ServiceConnection;
use crate::task::Scope;
use crate::timeouts;

/// How a client is opened.
pub struct ClientOptions {
    /// The home directory; made if it is not there.
    pub home: PathBuf,
    /// Where processes of this user on this machine find each other; absent: they do not.
    pub runtime_dir: Option<PathBuf>,
    /// The socket of the daemon to use; absent: the home's own.
    #[cfg(all(feature = "daemon", unix))]
    pub socket: Option<PathBuf>,
    /// Where private keys are; absent: in files of the home.
    pub keys: Option<Arc<dyn KeyStore>>,
    /// What time it is.
    pub clock: SharedClock,
    /// How long reaching a machine may take.
    pub connect_timeout: Duration,
    /// How other machines are reached.
    pub transport: Transport,
    /// The malai program, for commands and sessions that are processes of malai's own; absent: this device has none.
    #[cfg(all(feature = "host", unix))]
    pub own_program: Option<crate::host::OwnProgram>,
}

impl ClientOptions {
    /// The usual options for a home.
    pub fn new(home: PathBuf) -> Self {
        Self {
            home,
            runtime_dir: None,
            #[cfg(all(feature = "daemon", unix))]
            socket: None,
            keys: None,
            clock: Arc::new(SystemClock),
            connect_timeout: timeouts::CONNECT,
            transport: Transport::Quic,
            #[cfg(all(feature = "host", unix))]
            own_program: None,
        }
    }

    /// Opens the home and makes what a node works with.
    pub(crate) fn into_node_options(self) -> Result<NodeOptions, Error> {
        let home = Home::open(self.home, Create::Yes)?;
        let keys = self.keys.unwrap_or_else(|| Arc::new(FileKeyStore::new(home.clone())));
        Ok(NodeOptions {
            home,
            keys,
            clock: self.clock,
            transport: self.transport,
            runtime_dir: self.runtime_dir,
            connect_timeout: self.connect_timeout,
            version: crate::VERSION,
            #[cfg(all(feature = "host", unix))]
            own_program: self.own_program,
        })
    }
}

/// A home's operations. With a daemon they are done by it, else in this process.
pub struct Client {
    route: Route,
    /// Owns the tasks of sessions.
    tasks: Scope,
}

impl Client {
    /// Opens a home, made if it is not there.
    ///
    /// # Errors
    /// When the home cannot be used.
    pub async fn open(options: ClientOptions) -> Result<Self, Error> {
        Ok(Self { route: Route::new(options)?, tasks: Scope::new() })
    }

    /// The way to machines: for everything that is more than a command.
    pub fn route(&self) -> &Route {
        &self.route
    }

    pub(super) fn tasks(&self) -> &Scope {
        &self.tasks
    }

    /// The home.
    pub fn home(&self) -> &Home {
        self.route.home()
    }

    /// Makes a cluster; this device becomes its manager.
    ///
    /// # Errors
    /// When the alias is taken or files cannot be written.
    pub async fn init_cluster(
        &self,
        alias: ClusterAlias,
        cluster_name: Option<String>,
    ) -> Result<ClusterView, Error> {
        match self.route.ask(ApiRequest::InitCluster { alias, cluster_name }).await? {
            ApiReply::Cluster(view) => Ok(view),
            other => Err(unexpected(other)),
        }
    }

    /// Makes an invite for new machines.
    ///
    /// # Errors
    /// When this device is not the manager, or a rule says `*` and that is not accepted.
    pub async fn create_invite(&self, request: CreateInviteRequest) -> Result<NewInviteView, Error> {
        match self.route.ask(ApiRequest::CreateInvite(request)).await? {
            ApiReply::Invite(view) => Ok(view),
            other => Err(unexpected(other)),
        }
    }

    /// Lists a cluster's invites, oldest first.
    ///
    /// # Errors
    /// When this device is not the manager.
    pub async fn list_invites(&self, cluster: ClusterAlias) -> Result<Vec<InviteView>, Error> {
        match self.route.ask(ApiRequest::ListInvites { cluster }).await? {
            ApiReply::Invites { invites } => Ok(invites),
            other => Err(unexpected(other)),
        }
    }

    /// Ends an invite, named by its word, its id52 or its label. Returns what ended.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn revoke_invite(
        &self,
        cluster: ClusterAlias,
        invite: String,
    ) -> Result<Vec<InviteView>, Error> {
        match self.route.ask(ApiRequest::RevokeInvite { cluster, invite }).await? {
            ApiReply::Invites { invites } => Ok(invites),
            other => Err(unexpected(other)),
        }
    }

    /// Makes this device a machine of a cluster.
    ///
    /// # Errors
    /// When the manager refuses or the alias is taken. A manager that does not answer is no error: see
    /// [`JoinedView::waiting`].
    pub async fn join(&self, request: JoinClusterRequest) -> Result<JoinedView, Error> {
        match self.route.ask(ApiRequest::Join(request)).await? {
            ApiReply::Joined(view) => Ok(view),
            other => Err(unexpected(other)),
        }
    }

    /// Validates the files of this home (`check`), or has the daemon put them in force.
    ///
    /// # Errors
    /// With everything that is wrong; then what was in force still is. Without a daemon, only checking works.
    pub async fn rescan(&self, check: bool) -> Result<RescanView, Error> {
        #[cfg(all(feature = "daemon", unix))]
        if !check && !self.route.has_daemon().await? {
            return Err(SocketError::Absent { home: self.home().root().to_owned() }.into());
        }
        match self.route.ask(ApiRequest::Rescan { check }).await? {
            ApiReply::Rescanned(view) => Ok(view),
            other => Err(unexpected(other)),
        }
    }

    /// Asks managers for this device's config; `None`: all of them.
    ///
    /// # Errors
    /// When there is no such cluster. What a manager answered is in each view.
    pub async fn sync(&self, cluster: Option<ClusterAlias>) -> Result<Vec<SyncView>, Error> {
        match self.route.ask(ApiRequest::Sync { cluster }).await? {
            ApiReply::Synced { clusters } => Ok(clusters),
            other => Err(unexpected(other)),
        }
    }

    /// Describes this home.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub async fn info(&self) -> Result<InfoView, Error> {
        match self.route.ask(ApiRequest::Info {}).await? {
            ApiReply::Info(view) => Ok(view),
            other => Err(unexpected(other)),
        }
    }

    /// Describes what the daemon does now.
    ///
    /// # Errors
    /// When no daemon runs.
    #[cfg(all(feature = "daemon", unix))]
    pub async fn status(&self) -> Result<super::StatusView, Error> {
        if !self.route.has_daemon().await? {
            return Err(SocketError::Absent { home: self.home().root().to_owned() }.into());
        }
        match self.route.ask(ApiRequest::Status {}).await? {
            ApiReply::Status(view) => Ok(view),
            other => Err(unexpected(other)),
        }
    }

    /// Runs a program on a machine.
    ///
    /// # Errors
    /// When the address does not resolve, the machine cannot be reached, or it refuses.
    ///
    /// # Cancel safety
    /// Dropped, nothing runs, or what runs is hung up.
    pub async fn run(&self, request: RunRequest) -> Result<RunningCommand, Error> {
        Box::pin(self.route.run(request)).await
    }

    /// Asks a machine whether it is there, over a connection that is kept for what follows. `patience`: how long that may
    /// take, if not as long as reaching a machine may.
    ///
    /// # Errors
    /// When the address does not resolve, the machine cannot be reached, or it refuses.
    pub async fn ping(&self, address: String, patience: Option<Duration>) -> Result<PingView, Error> {
        Box::pin(super::ping::ping(&self.route, address, patience)).await
    }

    /// Connects to a service: `ssh.web01.company`, `mysql.company`, or a machine's own address, which means its `ssh`.
    ///
    /// # Errors
    /// When the address means no service that this device may reach, its machine cannot be reached, or it refuses.
    ///
    /// # Cancel safety
    /// Dropped, nothing is connected.
    pub async fn connect_service(&self, address: &str) -> Result<ServiceConnection, Error> {
        let found = match self.route.ask(ApiRequest::FindService { address: address.to_owned() }).await? {
            ApiReply::Service(found) => found,
            other => return Err(unexpected(other)),
        };
        let request = OpenRequest { words: vec![found.machine_by_id()], ..OpenRequest::default() };
        let Opened { stream, view } = Box::pin(self.route.open(&request)).await?;
        self.route.connect_service(found.service, stream, &view).await
    }

    /// Lists the services of other machines that this device may reach, by address; `None`: of all clusters.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub async fn list_services(&self, cluster: Option<ClusterAlias>) -> Result<Vec<ServiceView>, Error> {
        match self.route.ask(ApiRequest::ListServices { cluster }).await? {
            ApiReply::Services { services } => Ok(services),
            other => Err(unexpected(other)),
        }
    }

    /// Says that all that was asked is answered. [`Client::close`] then waits for nobody; else, where this process dialled
    /// by itself, it waits a round trip, so that what it cuts off hears of that.
    pub fn hurry(&self) {
        self.route.hurry();
    }

    /// Closes the network. Commands that still run are hung up, sessions are left and go on; further calls fail with
    /// [`Error::Closed`].
    pub async fn close(&self) {
        self.tasks.shutdown(Duration::ZERO).await;
        self.route.close().await;
    }
}

fn unexpected(reply: ApiReply) -> Error {
    tracing::debug!(?reply, "an answer to something else");
    Error::OutOfTurn
}

#[cfg(test)]
mod tests {
    use malai_model::code::ErrorCode;

    use super::*;

    #[tokio::test]
    async fn a_client_that_failed_to_start_starts_once_the_cause_is_gone() {
        let dir = tempfile::tempdir().expect("makes a folder");
        let home = dir.path().join("home");
        let client = Client::open(ClientOptions::new(home.clone())).await.expect("opens");
        std::fs::write(home.join("malai.toml"), "[network\n").expect("writes");
        let error = client.info().await.expect_err("malai.toml is broken");
        assert_eq!(error.code(), ErrorCode::ConfigInvalid);
        std::fs::write(home.join("malai.toml"), "").expect("writes");
        client.info().await.expect("starts now");
    }

    #[tokio::test]
    async fn a_closed_client_says_so_to_every_call_and_closes_twice() {
        let dir = tempfile::tempdir().expect("makes a folder");
        let client = Client::open(ClientOptions::new(dir.path().join("home"))).await.expect("opens");
        client.info().await.expect("works");
        client.close().await;
        client.close().await;
        let error = client.info().await.expect_err("is closed");
        assert!(matches!(error, Error::Closed), "{error}");
        assert_eq!(error.code(), ErrorCode::Cancelled);
        let request =
            RunRequest { words: vec!["web01.company".into(), "true".into()], ..RunRequest::default() };
        assert!(matches!(client.run(request).await, Err(Error::Closed)));
    }
}
