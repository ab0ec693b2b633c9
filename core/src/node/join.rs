//! A machine's standing work: join if that is still open, then keep the config current.

use std::sync::Arc;
use std::time::Duration;

use malai_model::audit::{ConfigOrigin, KeyKind};
use malai_model::cluster::Invite;
use malai_model::name::ClusterAlias;

use super::{Member, Mode, Node, NodeError};
use crate::cluster::{self, ClusterError, LoadedCluster, PendingJoin};
use crate::p2p::{Endpoint, EndpointOptions, jittered};
use malai_model::wire::local::{JoinClusterRequest, JoinVia, JoinedView};

/// How often a machine asks although nothing happened: a manager that could not reach it may have been away.
const ASK_AGAIN: Duration = Duration::from_secs(600);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(300);

impl Node {
    /// Makes this device a machine of a cluster.
    pub(crate) async fn join(&self, request: JoinClusterRequest) -> Result<JoinedView, NodeError> {
        let JoinClusterRequest { via, alias, name } = request;
        match via {
            JoinVia::Manager(manager) => {
                let (cluster, wanted) = (alias.clone(), name.clone());
                let id52 = self
                    .blocking(move |node| {
                        cluster::pin_manager(
                            node.home(),
                            node.keys().as_ref(),
                            &cluster,
                            &manager,
                            wanted.as_ref(),
                        )
                    })
                    .await?;
                self.record_key(&alias, KeyKind::Machine, id52);
                self.record_joined(&alias, manager, None);
                self.begin_joined(&alias).await?;
                let shown = name.as_ref().map_or("this-machine", |name| name.as_str());
                Ok(JoinedView {
                    alias,
                    id52,
                    manager: Some(manager),
                    machine: None,
                    paste: Some(format!("[machine.{shown}]\nid52 = \"{id52}\"\n")),
                    waiting: None,
                })
            }
            JoinVia::Invite(word) => {
                let invite: Invite = word.parse().map_err(ClusterError::NoInvite)?;
                self.join_by_invite(PendingJoin { alias, invite, name }).await
            }
        }
    }

    async fn join_by_invite(&self, join: PendingJoin) -> Result<JoinedView, NodeError> {
        let prepared = join.clone();
        let (id52, known) = self
            .blocking(move |node| {
                let key = crate::identity::KeyRef::Machine(prepared.alias.clone());
                let known = node.keys().load(&key)?.is_some();
                Ok((cluster::prepare_join(node.home(), node.keys().as_ref(), &prepared)?.id52(), known))
            })
            .await?;
        if !known {
            self.record_key(&join.alias, KeyKind::Machine, id52);
        }
        let waiting = JoinedView {
            alias: join.alias.clone(),
            id52,
            manager: None,
            machine: None,
            paste: None,
            waiting: None,
        };
        match self.dial_pending(&join).await {
            Ok(accepted) => {
                self.begin_joined(&join.alias).await?;
                Ok(JoinedView { manager: Some(accepted.manager), machine: Some(accepted.machine), ..waiting })
            }
            Err(error) if may_pass(&error) => {
                self.begin_joined(&join.alias).await?;
                Ok(JoinedView { waiting: Some(error.to_wire()), ..waiting })
            }
            Err(error) => {
                // Refused for good: nothing of it is kept, so that the alias is free for a better invite.
                let alias = join.alias.clone();
                let abandoned = self
                    .blocking(move |node| cluster::abandon_join(node.home(), node.keys().as_ref(), &join))
                    .await?;
                if abandoned && let Some(member) = self.forget(&alias) {
                    member.close().await;
                }
                Err(error)
            }
        }
    }

    /// Dials an invite once, with the identity that was made for it.
    async fn dial_pending(&self, join: &PendingJoin) -> Result<malai_model::wire::JoinAccepted, NodeError> {
        let deadline = self.inner.options.connect_timeout;
        // One identity is never open twice: a member that waits has an endpoint already.
        let waiting = self.members().get(&join.alias).cloned();
        let accepted = match waiting.as_ref().and_then(|member| member.network.get()) {
            Some(network) => cluster::dial_invite(&network.endpoint, join, deadline).await?,
            None => {
                let key = crate::identity::KeyRef::Machine(join.alias.clone());
                let secret = cluster::load_key(self.keys().as_ref(), key, &join.alias)?;
                let scope = self.inner.scope.child();
                let network = self.any_port();
                let options = EndpointOptions { secret, network, serve: None, preferred_port: None };
                let endpoint = Endpoint::bind(options, self.inner.options.transport.clone(), &scope).await?;
                let attempt = cluster::dial_invite(&endpoint, join, deadline).await;
                endpoint.close().await;
                attempt?
            }
        };
        for address in accepted.addresses.iter().filter_map(|address| address.parse().ok()) {
            self.inner.peers.remember(&accepted.manager, address, self.now());
        }
        let (alias, kept) = (join.alias.clone(), accepted.clone());
        self.blocking(move |node| {
            cluster::remember_accepted(node.home(), &alias, &kept)?;
            node.inner.peers.flush(node.home());
            Ok(())
        })
        .await?;
        self.record_joined(&join.alias, accepted.manager, Some(accepted.machine.clone()));
        Ok(accepted)
    }

    /// When serving, a cluster that was made here is managed at once.
    pub(crate) async fn begin_managing(&self, loaded: LoadedCluster) -> Result<(), NodeError> {
        self.record_key(&loaded.alias, KeyKind::ClusterRoot, loaded.own_id);
        if self.inner.mode == Mode::Serve {
            let _one_at_a_time = self.inner.changing.lock().await;
            // A rescan may have found it meanwhile.
            if !self.members().contains_key(&loaded.alias) {
                self.take_part(loaded, ConfigOrigin::Rescan).await?;
            }
        }
        Ok(())
    }

    /// When serving, a cluster that was joined takes part at once.
    async fn begin_joined(&self, alias: &ClusterAlias) -> Result<(), NodeError> {
        if self.inner.mode != Mode::Serve {
            return Ok(());
        }
        let _one_at_a_time = self.inner.changing.lock().await;
        let loaded = self.load_joined(alias)?;
        let known = self.members().get(alias).cloned();
        match known {
            Some(member) => {
                // It waited: its tasks run already.
                self.install(&member, loaded, ConfigOrigin::Join);
                member.wake.notify_one();
                Ok(())
            }
            None => self.take_part(loaded, ConfigOrigin::Join).await,
        }
    }

    /// Puts in force what is on disk, in step with configs that come from the network meanwhile.
    async fn reload(&self, member: &Arc<Member>) -> Result<(), NodeError> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let loaded = self.load_joined(member.alias())?;
        self.install(member, loaded, ConfigOrigin::Join);
        Ok(())
    }

    fn load_joined(&self, alias: &ClusterAlias) -> Result<LoadedCluster, ClusterError> {
        LoadedCluster::load(self.home(), self.keys().as_ref(), &self.home().cluster(alias)?)
    }

    /// Runs until the member stops.
    pub(super) async fn keep_in_sync(&self, member: Arc<Member>) {
        let mut retry = FIRST_RETRY;
        loop {
            let wait = match self.sync_step(&member).await {
                Ok(()) => {
                    retry = FIRST_RETRY;
                    ASK_AGAIN
                }
                Err(error) => {
                    if may_pass(&error) {
                        tracing::debug!(cluster = %member.alias(), %error, "the manager could not be asked");
                    } else {
                        // Trying again helps nothing by itself: somebody has to do something.
                        tracing::warn!(cluster = %member.alias(), %error, "the manager refused to join or to tell");
                    }
                    let wait = retry;
                    retry = (retry * 2).min(LAST_RETRY);
                    wait
                }
            };
            tokio::select! {
                () = member.wake.notified() => {}
                () = tokio::time::sleep(jittered(wait)) => {}
                // A manager that restarts, or closes the connection since it could not reach this machine, has news.
                () = self.manager_gone(&member) => tokio::time::sleep(jittered(FIRST_RETRY)).await,
            }
        }
    }

    /// Resolves when the connection to the manager that is open now is closed; never, if none is.
    async fn manager_gone(&self, member: &Arc<Member>) {
        let open = match (member.loaded().manager, member.network.get()) {
            (Some(manager), Some(network)) => network.pool.open(&manager),
            _ => None,
        };
        match open {
            Some(connection) => _ = connection.closed().await,
            None => std::future::pending().await,
        }
    }

    async fn sync_step(&self, member: &Arc<Member>) -> Result<(), NodeError> {
        self.sync_or_join(member).await.map(|_new| ())
    }

    /// If a manager has not answered this machine's invite yet, asks again.
    pub(super) async fn join_if_pending(&self, member: &Arc<Member>) -> Result<(), NodeError> {
        if member.loaded().manager.is_some() {
            return Ok(());
        }
        let alias = member.alias().clone();
        let pending = self.blocking(move |node| cluster::load_pending(node.home(), &alias)).await?;
        let Some(join) = pending else { return Ok(()) };
        self.dial_pending(&join).await?;
        self.reload(member).await
    }
}

/// Whether trying again later may help: nobody answered, or the manager asks for patience.
fn may_pass(error: &NodeError) -> bool {
    use malai_model::code::ErrorKind;
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Busy)
}
