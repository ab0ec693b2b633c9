//! Putting files in force, and authorising again what is open.

use std::sync::Arc;

use malai_model::name::ClusterAlias;

use super::{Member, Node, NodeError, load_device};
use crate::cluster::{self, ClusterError, LoadedCluster, Received};
use crate::home::{ClusterDir, Role};
use crate::p2p::CloseReason;
use crate::timeouts;
use malai_model::wire::local::RescanView;

impl Node {
    /// Reads and compiles everything, puts it in force, listens, and starts what runs by itself.
    pub(super) async fn serve_all(&self) -> Result<(), NodeError> {
        let loaded = self.blocking(Self::load_all).await?;
        for cluster in loaded {
            let member = self.adopt(cluster);
            self.begin(&member).await?;
        }
        self.keep_peers();
        Ok(())
    }

    /// Starts listening for a cluster and doing what its role asks for.
    pub(super) async fn begin(&self, member: &Arc<Member>) -> Result<(), NodeError> {
        self.listen(member).await?;
        let (node, cluster) = (self.clone(), Arc::clone(member));
        match member.loaded().role {
            Role::Manager => {
                self.refresh_invites(member).await;
                member.scope.spawn_until_stop("distribute", async move { node.distribute(cluster).await });
            }
            Role::Machine | Role::Waiting => {
                member.scope.spawn_until_stop("sync", async move { node.keep_in_sync(cluster).await });
            }
        }
        Ok(())
    }

    /// Loads every cluster of the home; managers' edits are applied. All problems of all files are reported at once, and
    /// then nothing has changed.
    fn load_all(&self) -> Result<Vec<LoadedCluster>, ClusterError> {
        let dirs = self.home().clusters()?;
        self.check_all(&dirs)?;
        let guard = self.home().lock_for_writing_blocking()?;
        let mut all = Vec::new();
        for dir in &dirs {
            all.push(match dir.role {
                Role::Manager => {
                    cluster::apply(self.home(), self.keys().as_ref(), &guard, &dir.alias, self.now())?.loaded
                }
                Role::Machine | Role::Waiting => LoadedCluster::load(self.home(), self.keys().as_ref(), dir)?,
            });
        }
        Ok(all)
    }

    /// Validates every cluster's files. Problems of several files become one error.
    fn check_all(&self, dirs: &[ClusterDir]) -> Result<Vec<LoadedCluster>, ClusterError> {
        let mut all = Vec::new();
        let mut problems = None;
        for dir in dirs {
            let loaded = match dir.role {
                // What was distributed is needed behind the point of no return.
                Role::Manager => cluster::load_state(self.home(), &dir.alias)
                    .and_then(|_| cluster::check(self.home(), self.keys().as_ref(), &dir.alias)),
                Role::Machine | Role::Waiting => LoadedCluster::load(self.home(), self.keys().as_ref(), dir),
            };
            match loaded {
                Ok(loaded) => all.push(loaded),
                Err(error) => problems = Some(ClusterError::join(problems, error)),
            }
        }
        match problems {
            Some(problems) => Err(problems),
            None => Ok(all),
        }
    }

    /// Validates the files of this home and, unless `check`, puts them in force, all or nothing: clusters come, go and
    /// change; whatever is open and no longer allowed ends.
    ///
    /// # Errors
    /// With everything that is wrong; then what was in force still is.
    pub async fn rescan(&self, check: bool) -> Result<RescanView, NodeError> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let (device, mut warnings) = load_device(self.home())?;
        if check {
            let checked = self
                .blocking(|node| {
                    let dirs = node.home().clusters()?;
                    node.check_all(&dirs)
                })
                .await?;
            let mut deliveries = 0;
            for loaded in &checked {
                deliveries += self.count_deliveries(loaded)?;
            }
            warnings.extend(checked.iter().flat_map(|loaded| loaded.warnings.clone()));
            let clusters = checked.into_iter().map(|loaded| loaded.alias).collect();
            return Ok(RescanView { clusters, warnings, deliveries });
        }
        let loaded = self.blocking(Self::load_all).await?;
        self.inner.work.limit(device.limits.sessions_per_peer as usize, device.limits.sessions as usize);
        *self.inner.device.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(device);
        let aliases: Vec<ClusterAlias> = loaded.iter().map(|cluster| cluster.alias.clone()).collect();
        for (alias, member) in self.members() {
            if !aliases.contains(&alias) {
                self.forget(&alias);
                member.close().await;
                tracing::info!(cluster = %alias, "the cluster is gone from this home");
            }
        }
        let mut deliveries = 0;
        for cluster in loaded {
            warnings.extend(cluster.warnings.clone());
            deliveries += self.count_deliveries(&cluster)?;
            match self.members().get(&cluster.alias) {
                Some(member) if member.own_id() == cluster.own_id && member.loaded().role == cluster.role => {
                    self.install(member, cluster);
                    self.refresh_invites(member).await;
                    self.retry_all(member).await?;
                    member.wake.notify_one();
                }
                other => {
                    if let Some(changed) = other {
                        self.forget(&cluster.alias);
                        changed.close().await;
                    }
                    let member = self.adopt(cluster);
                    self.begin(&member).await?;
                }
            }
        }
        Ok(RescanView { clusters: aliases, warnings, deliveries })
    }

    /// Puts rules in force and authorises again everything that is open under them.
    pub(super) fn install(&self, member: &Arc<Member>, loaded: LoadedCluster) {
        let loaded = member.install(loaded);
        let ended = self.inner.work.authorise_again(&loaded);
        self.close_unadmitted(member);
        if ended > 0 {
            tracing::info!(cluster = %loaded.alias, "{ended} open requests ended: no longer allowed");
        }
    }

    /// Closes connections of peers that the rules in force no longer admit: they can ask for nothing from now on, and have
    /// a moment to hear why what they had open ended.
    fn close_unadmitted(&self, member: &Arc<Member>) {
        let loaded = member.loaded();
        for connection in member.inbound().into_iter().filter(|open| !loaded.admits(&open.peer())) {
            let (node, alias) = (self.clone(), member.alias().clone());
            member.scope.spawn("close unadmitted", async move {
                let peer = connection.peer();
                node.inner.work.idle_of(&peer, timeouts::LAST_WORD).await;
                tracing::info!(cluster = %alias, %peer, "closed a connection: no rights any more");
                connection.close(CloseReason::not_admitted());
            });
        }
    }

    /// Verifies a config from the network, writes it and puts it in force.
    fn put_in_force(&self, member: &Arc<Member>, text: &str) -> Result<u64, ClusterError> {
        let loaded = match cluster::receive_config(self.home(), &member.loaded(), text)? {
            Received::New(loaded) => *loaded,
            Received::Known { serial } => return Ok(serial),
        };
        let serial = loaded.serial().unwrap_or_default();
        for warning in &loaded.warnings {
            tracing::warn!(cluster = %loaded.alias, "{}", warning.message);
        }
        self.install(member, loaded);
        tracing::info!(cluster = %member.alias(), role = "machine", serial, "a new config is in force");
        Ok(serial)
    }

    /// As [`Self::put_in_force`], off the network's threads, and one at a time, whether it was pushed or asked for: else
    /// of two that come at once the older could win. Returns the serial.
    pub(super) async fn take_config(&self, member: &Arc<Member>, text: String) -> Result<u64, ClusterError> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let member = Arc::clone(member);
        self.blocking(move |node| node.put_in_force(&member, &text)).await
    }

    /// Writes `peers.json` now and then.
    fn keep_peers(&self) {
        let node = self.clone();
        self.inner.scope.spawn_until_stop("peers", async move {
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                let flushed = node.blocking(|node| {
                    node.inner.peers.flush(node.home());
                    Ok(())
                });
                if let Err(error) = flushed.await {
                    tracing::warn!(%error, "the last known addresses of peers could not be kept");
                }
            }
        });
    }
}
