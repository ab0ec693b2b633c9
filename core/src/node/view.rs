//! What a front is shown of a node.

use std::sync::{Arc, PoisonError};

use malai_model::cluster::SyncStatus;
use malai_model::id::Id52;

use super::{Member, Node, NodeError};
use crate::cluster::{self, ClusterError, LoadedCluster};
use crate::home::Role;
use crate::p2p::{ConnectionStats, PathView};
use malai_model::wire::local::{
    ClusterView, ConnectionView, InfoView, ListenView, MachineSyncView, MachineView, RoleView, StatusView,
};

impl Node {
    pub(crate) async fn info(&self) -> Result<InfoView, NodeError> {
        let mut clusters = Vec::new();
        for member in self.all_members()? {
            clusters.push(self.cluster_view(&member.loaded())?);
        }
        Ok(InfoView {
            version: self.inner.options.version.to_owned(),
            home: self.home().root().display().to_string(),
            daemon: self.home().daemon_pid(),
            clusters,
        })
    }

    pub(crate) fn cluster_view(&self, loaded: &LoadedCluster) -> Result<ClusterView, ClusterError> {
        let state = match loaded.role {
            Role::Manager => Some(cluster::load_state(self.home(), &loaded.alias)?),
            Role::Machine | Role::Waiting => None,
        };
        let machines = loaded.known_machines().into_iter().map(|(name, id52)| {
            let sync = state.as_ref().filter(|_| id52 != loaded.own_id).map(|state| {
                state.machine_states.get(&id52).map_or_else(
                    || MachineSyncView {
                        status: "pending".to_owned(),
                        serial: 0,
                        last_sync: None,
                        last_error: None,
                    },
                    |machine| MachineSyncView {
                        status: status_word(machine.sync_status).to_owned(),
                        serial: machine.serial,
                        last_sync: machine.last_sync,
                        last_error: machine.last_error.clone(),
                    },
                )
            });
            MachineView { name, id52, sync }
        });
        Ok(ClusterView {
            alias: loaded.alias.clone(),
            cluster_name: loaded.cluster_name.clone(),
            role: match loaded.role {
                Role::Manager => RoleView::Manager,
                Role::Machine => RoleView::Machine,
                Role::Waiting => RoleView::Waiting,
            },
            id52: loaded.own_id,
            manager: loaded.manager,
            machine: loaded.own_name.clone(),
            serial: loaded.serial(),
            machines: machines.collect(),
            warnings: loaded.warnings.clone(),
        })
    }

    pub(crate) fn status(&self) -> StatusView {
        let mut listening = Vec::new();
        let mut connections = Vec::new();
        for member in self.members().values() {
            let Some(network) = member.network.get() else { continue };
            let addresses = network.endpoint.addresses();
            listening.push(listen_view(
                member,
                "member",
                member.own_id(),
                addresses.iter().map(ToString::to_string),
            ));
            for (id52, listener) in member.invites.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                listening.push(listen_view(member, "invite", *id52, listener.addresses().into_iter()));
            }
            for connection in member.inbound() {
                connections.push(self.connection_view(
                    member,
                    connection.peer(),
                    connection.path(),
                    connection.stats(),
                    "in",
                ));
            }
            for view in network.pool.connections() {
                connections.push(self.connection_view(member, view.peer, view.path, view.stats, "out"));
            }
        }
        StatusView {
            version: self.inner.options.version.to_owned(),
            pid: std::process::id(),
            started: self.inner.started,
            listening,
            connections,
            running: self.inner.work.len(),
            #[cfg(all(feature = "daemon", unix))]
            carried: self.inner.carried.list(),
            #[cfg(not(all(feature = "daemon", unix)))]
            carried: Vec::new(),
        }
    }
}

impl Node {
    fn connection_view(
        &self,
        member: &Arc<Member>,
        peer: Id52,
        path: PathView,
        stats: ConnectionStats,
        direction: &str,
    ) -> ConnectionView {
        ConnectionView {
            cluster: member.alias().clone(),
            peer,
            name: match member.loaded().name_of(&peer) {
                Some(name) => Some(name.to_string()),
                None => (member.loaded().manager == Some(peer)).then(|| "cluster-manager".to_owned()),
            },
            direction: direction.to_owned(),
            address: path.address,
            relayed: path.relayed,
            rtt_us: u64::try_from(path.rtt.as_micros()).unwrap_or(u64::MAX),
            sent: stats.bytes_sent,
            received: stats.bytes_received,
            streams: stats.streams,
            since: self.now().checked_sub(stats.age).ok(),
        }
    }
}

fn listen_view(
    member: &Arc<Member>,
    purpose: &str,
    id52: malai_model::id::Id52,
    addresses: impl Iterator<Item = String>,
) -> ListenView {
    ListenView {
        cluster: member.alias().clone(),
        purpose: purpose.to_owned(),
        id52,
        addresses: addresses.collect(),
    }
}

fn status_word(status: SyncStatus) -> &'static str {
    match status {
        SyncStatus::Success => "success",
        SyncStatus::Refused => "refused",
        SyncStatus::Pending => "pending",
    }
}
