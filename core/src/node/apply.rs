//! Putting files in force, and authorising again what is open.

use std::sync::Arc;

use super::{Member, Mode, Node, NodeError, load_device};
use crate::cluster::{self, Checked, ClusterError, LoadedCluster, Received};
use crate::home::Role;
use crate::p2p::CloseReason;
use crate::timeouts;
use malai_model::audit::{AuditEvent, ConfigOrigin};
use malai_model::wire::local::RescanView;

impl Node {
    /// Reads and compiles everything, puts it in force, listens, and starts what runs by itself.
    pub(super) async fn serve_all(&self) -> Result<(), NodeError> {
        let loaded = self.blocking(Self::load_all).await?;
        #[cfg(all(feature = "host", unix))]
        self.find_sessions().await;
        for cluster in loaded {
            self.take_part(cluster, ConfigOrigin::Start).await?;
        }
        // What the rules took away while no daemon ran.
        #[cfg(all(feature = "host", unix))]
        {
            self.members().values().for_each(|member| self.authorise_sessions(member));
            self.end_foreign_sessions();
            self.keep_sessions();
        }
        self.keep_peers();
        Ok(())
    }

    /// Takes part in a cluster: listens for it and does what its role asks for. If that cannot begin the cluster is
    /// forgotten, so that the next attempt begins anew.
    pub(super) async fn take_part(
        &self,
        cluster: LoadedCluster,
        origin: ConfigOrigin,
    ) -> Result<(), NodeError> {
        self.record_config(&cluster, origin);
        let member = self.adopt(cluster);
        let Err(error) = self.begin(&member).await else { return Ok(()) };
        self.forget(member.alias());
        member.close().await;
        Err(error)
    }

    async fn begin(&self, member: &Arc<Member>) -> Result<(), NodeError> {
        self.listen(member).await?;
        let (node, cluster) = (self.clone(), Arc::clone(member));
        match member.loaded().role {
            Role::Manager => {
                self.refresh_invites(member).await;
                member.scope.keep("distribute", move || {
                    let (node, cluster) = (node.clone(), Arc::clone(&cluster));
                    async move { node.distribute(cluster).await }
                });
            }
            Role::Machine | Role::Waiting => {
                member.scope.keep("sync", move || {
                    let (node, cluster) = (node.clone(), Arc::clone(&cluster));
                    async move { node.keep_in_sync(cluster).await }
                });
            }
        }
        Ok(())
    }

    /// Loads every cluster of the home; managers' edits are applied. All problems of all clusters' files are reported at
    /// once, and then nothing has changed. Only a disk that fails between two writes leaves some clusters applied.
    fn load_all(&self) -> Result<Vec<LoadedCluster>, ClusterError> {
        // Held from the reading on: what another process receives meanwhile is neither missed nor undone.
        let guard = self.home().lock_for_writing_blocking()?;
        let mut all = Vec::new();
        for found in self.check_all()? {
            all.push(match found {
                Found::Managed(checked) => cluster::apply(self.home(), &guard, *checked, self.now())?,
                Found::Member(loaded) => *loaded,
            });
        }
        Ok(all)
    }

    /// Validates every cluster's files. Several problems become one error.
    fn check_all(&self) -> Result<Vec<Found>, ClusterError> {
        let (home, keys) = (self.home(), self.keys().as_ref());
        let survey = home.survey_clusters()?;
        let mut problems: Vec<ClusterError> = survey.problems.into_iter().map(ClusterError::from).collect();
        let mut all = Vec::new();
        for dir in &survey.clusters {
            let found = match dir.role {
                // What was distributed is needed behind the point of no return.
                Role::Manager => cluster::load_state(home, &dir.alias)
                    .and_then(|_| cluster::check(home, keys, &dir.alias))
                    .map(|checked| Found::Managed(Box::new(checked))),
                Role::Machine | Role::Waiting => {
                    LoadedCluster::load(home, keys, dir).map(|loaded| Found::Member(Box::new(loaded)))
                }
            };
            match found {
                Ok(found) => all.push(found),
                Err(error) => problems.push(error),
            }
        }
        match ClusterError::all(problems) {
            Some(problems) => Err(problems),
            None => Ok(all),
        }
    }

    /// Validates the files of this home and, unless `check`, puts them in force, all or nothing: clusters come, go and
    /// change; whatever is open and no longer allowed ends. A node that only dials listens no more than before.
    ///
    /// # Errors
    /// With everything that is wrong with the files; then what was in force still is. When a cluster that came cannot be
    /// listened for, or a manager's record of deliveries cannot be read: then the files are in force all the same.
    ///
    /// # Cancel safety
    /// Dropping the future ends the waiting alone: what was begun is done to its end.
    pub async fn rescan(&self, check: bool) -> Result<RescanView, NodeError> {
        let node = self.clone();
        self.to_its_end("rescan", async move {
            let _one_at_a_time = node.inner.changing.lock().await;
            if check { node.check_files().await } else { node.apply_files().await }
        })
        .await
    }

    async fn check_files(&self) -> Result<RescanView, NodeError> {
        let (_, mut warnings) = load_device(self.home())?;
        let checked = self.blocking(Self::check_all).await?;
        let mut deliveries = 0;
        let mut clusters = Vec::new();
        for found in &checked {
            let loaded = found.loaded();
            deliveries += self.count_deliveries(loaded)?;
            warnings.extend(loaded.warnings.clone());
            clusters.push(loaded.alias.clone());
        }
        Ok(RescanView { clusters, warnings, deliveries })
    }

    async fn apply_files(&self) -> Result<RescanView, NodeError> {
        let (device, mut warnings) = load_device(self.home())?;
        let loaded = self.blocking(Self::load_all).await?;
        self.inner.work.limit(device.limits.sessions_per_peer as usize, device.limits.sessions as usize);
        *self.inner.device.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(device);
        let mut view = RescanView { clusters: Vec::new(), warnings: Vec::new(), deliveries: 0 };
        let mut problems: Vec<NodeError> = Vec::new();
        let mut gone = self.members();
        let (mut stay, mut come) = (Vec::new(), Vec::new());
        // Rights first: what was taken away ends before anything that may fail or take its time.
        for cluster in loaded {
            view.clusters.push(cluster.alias.clone());
            warnings.extend(cluster.warnings.clone());
            match self.count_deliveries(&cluster) {
                Ok(count) => view.deliveries += count,
                Err(error) => problems.push(error.into()),
            }
            let same = |member: &Arc<Member>| {
                member.own_id() == cluster.own_id && member.loaded().role == cluster.role
            };
            match gone.get(&cluster.alias).is_some_and(same).then(|| gone.remove(&cluster.alias)).flatten() {
                Some(member) => {
                    self.install(&member, cluster, ConfigOrigin::Rescan);
                    stay.push(member);
                }
                None => come.push(cluster),
            }
        }
        view.warnings = warnings;
        for (alias, member) in gone {
            self.forget(&alias);
            member.close().await;
            self.record_event(&alias, AuditEvent::ClusterGone {});
            tracing::info!(cluster = %alias, "the cluster is gone from this home, or became another");
        }
        #[cfg(all(feature = "host", unix))]
        self.end_foreign_sessions();
        if self.inner.mode == Mode::Serve {
            for member in &stay {
                self.refresh_invites(member).await;
                if let Err(error) = self.retry_all(member).await {
                    problems.push(error.into());
                }
                member.wake.notify_one();
            }
            for cluster in come {
                if let Err(error) = self.take_part(cluster, ConfigOrigin::Rescan).await {
                    problems.push(error);
                }
            }
        }
        let mut problems = problems.into_iter();
        let Some(first) = problems.next() else { return Ok(view) };
        for further in problems {
            tracing::error!(error = %further, "the files are in force, but not everything began");
        }
        Err(first)
    }

    /// Puts rules in force and authorises again everything that is open under them.
    pub(super) fn install(&self, member: &Arc<Member>, loaded: LoadedCluster, origin: ConfigOrigin) {
        let changed = member.loaded().digest != loaded.digest;
        let loaded = member.install(loaded);
        if changed {
            self.record_config(&loaded, origin);
        }
        let ended = self.inner.work.authorise_again(&loaded);
        #[cfg(all(feature = "host", unix))]
        self.authorise_sessions(member);
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
            Received::Overtaken { loaded, refused } => {
                // In force first: then the answer shows the manager what to go on above.
                self.install(member, *loaded, ConfigOrigin::Manager);
                return Err(refused.into());
            }
        };
        let serial = loaded.serial().unwrap_or_default();
        for warning in &loaded.warnings {
            tracing::warn!(cluster = %loaded.alias, "{}", warning.message);
        }
        self.install(member, loaded, ConfigOrigin::Manager);
        tracing::info!(cluster = %member.alias(), role = "machine", serial, "a new config is in force");
        Ok(serial)
    }

    /// As [`Self::put_in_force`], off the network's threads, and one at a time, whether it was pushed or asked for: else
    /// of two that come at once the older could win. Returns the serial.
    pub(super) async fn take_config(&self, member: &Arc<Member>, text: String) -> Result<u64, ClusterError> {
        let (node, member) = (self.clone(), Arc::clone(member));
        self.to_its_end("take config", async move {
            let _one_at_a_time = node.inner.changing.lock().await;
            node.blocking(move |node| node.put_in_force(&member, &text)).await
        })
        .await
    }

    /// Runs a change in a task of the node's, to its end also when whoever asked for it waits no more: half done it would
    /// leave memory and disk apart, and the next change would not wait for the rest of it.
    pub(super) async fn to_its_end<T, E>(
        &self,
        name: &'static str,
        change: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<ClusterError> + Send + 'static,
    {
        match self.inner.scope.spawn(name, change).await {
            Ok(Some(done)) => done,
            Ok(None) => Err(ClusterError::Stopping.into()),
            Err(panic) => Err(ClusterError::Panicked(panic.to_string()).into()),
        }
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

/// A cluster whose files are good.
enum Found {
    Managed(Box<Checked>),
    Member(Box<LoadedCluster>),
}

impl Found {
    fn loaded(&self) -> &LoadedCluster {
        match self {
            Self::Managed(checked) => checked.loaded(),
            Self::Member(loaded) => loaded,
        }
    }
}
