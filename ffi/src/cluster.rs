//! Clusters and machines, as an app shows them.

use malai_core::api::{ClusterView, InfoView, JoinedView, MachineView, RescanView, RoleView, SyncView};
use malai_core::model::diagnostic::Diagnostic;

use crate::Failure;

/// What this device is in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum ClusterRole {
    /// It holds the cluster's root key and its config.
    Manager,
    /// It has the config that the manager made for it.
    Machine,
    /// It joined and waits for its first config.
    Waiting,
}

/// A cluster of a home.
#[derive(Debug, Clone, uniffi::Record)]
pub struct Cluster {
    /// What this device calls it: the part after the dot in `web01.company`.
    pub alias: String,
    /// What it calls itself, once known.
    pub cluster_name: Option<String>,
    /// What this device is in it.
    pub role: ClusterRole,
    /// This device's identity in it, an id52.
    pub id52: String,
    /// The manager's identity, once it is known.
    pub manager: Option<String>,
    /// This device's name in it, if it is a machine.
    pub machine: Option<String>,
    /// The number of the config in force; machines only. A later config has a higher one.
    pub serial: Option<u64>,
    /// What this device may reach, or, for the manager, all machines.
    pub machines: Vec<Machine>,
}

/// A machine of a cluster.
#[derive(Debug, Clone, uniffi::Record)]
pub struct Machine {
    /// Its name: the part before the dot in `web01.company`.
    pub name: String,
    /// Its identity, an id52.
    pub id52: String,
    /// Where its config stands: `success`, `pending` or `refused`; for the manager only.
    pub sync_status: Option<String>,
}

/// What a home holds.
#[derive(Debug, Clone, uniffi::Record)]
pub struct HomeInfo {
    /// The version of malai that answered: the daemon's, if one runs.
    pub version: String,
    /// The home's directory.
    pub home: String,
    /// The process id of its daemon, if one runs.
    pub daemon: Option<u32>,
    /// Its clusters, by alias.
    pub clusters: Vec<Cluster>,
}

/// How joining went.
#[derive(Debug, Clone, uniffi::Record)]
pub struct JoinedCluster {
    /// What this device calls the cluster.
    pub alias: String,
    /// This device's new identity in it, an id52.
    pub id52: String,
    /// The manager's identity, which is trusted from now on; absent while the manager has not answered.
    pub manager: Option<String>,
    /// The name that the manager gave to this device.
    pub machine: Option<String>,
    /// Why the manager did not answer. Identity and invite are kept: `sync` tries again.
    pub waiting: Option<Failure>,
}

/// What asking a manager for this device's config brought.
#[derive(Debug, Clone, uniffi::Record)]
pub struct SyncOutcome {
    /// Which cluster.
    pub alias: String,
    /// The number of the config in force now.
    pub serial: Option<u64>,
    /// Whether a new one came.
    pub changed: bool,
    /// Why not, if it failed.
    pub failure: Option<Failure>,
}

/// What reading the home's files anew found.
#[derive(Debug, Clone, uniffi::Record)]
pub struct RescanOutcome {
    /// Clusters whose files are in force now, or would be.
    pub clusters: Vec<String>,
    /// Warnings, each with its place, as plain text of several lines.
    pub warnings: Vec<String>,
    /// How many machines get a new config.
    pub deliveries: u64,
}

impl From<RoleView> for ClusterRole {
    fn from(role: RoleView) -> Self {
        match role {
            RoleView::Manager => Self::Manager,
            RoleView::Machine => Self::Machine,
            RoleView::Waiting => Self::Waiting,
        }
    }
}

impl From<ClusterView> for Cluster {
    fn from(view: ClusterView) -> Self {
        Self {
            alias: view.alias.to_string(),
            cluster_name: view.cluster_name,
            role: view.role.into(),
            id52: view.id52.to_string(),
            manager: view.manager.map(|id| id.to_string()),
            machine: view.machine.map(|name| name.to_string()),
            serial: view.serial,
            machines: view.machines.into_iter().map(Machine::from).collect(),
        }
    }
}

impl From<MachineView> for Machine {
    fn from(view: MachineView) -> Self {
        Self {
            name: view.name.to_string(),
            id52: view.id52.to_string(),
            sync_status: view.sync.map(|sync| sync.status),
        }
    }
}

impl From<InfoView> for HomeInfo {
    fn from(view: InfoView) -> Self {
        Self {
            version: view.version,
            home: view.home,
            daemon: view.daemon,
            clusters: view.clusters.into_iter().map(Cluster::from).collect(),
        }
    }
}

impl From<JoinedView> for JoinedCluster {
    fn from(view: JoinedView) -> Self {
        Self {
            alias: view.alias.to_string(),
            id52: view.id52.to_string(),
            manager: view.manager.map(|id| id.to_string()),
            machine: view.machine.map(|name| name.to_string()),
            waiting: view.waiting.map(Failure::from),
        }
    }
}

impl From<SyncView> for SyncOutcome {
    fn from(view: SyncView) -> Self {
        Self {
            alias: view.alias.to_string(),
            serial: view.serial,
            changed: view.changed,
            failure: view.error.map(Failure::from),
        }
    }
}

impl From<RescanView> for RescanOutcome {
    fn from(view: RescanView) -> Self {
        Self {
            clusters: view.clusters.iter().map(ToString::to_string).collect(),
            warnings: view.warnings.iter().map(Diagnostic::render).collect(),
            deliveries: view.deliveries as u64,
        }
    }
}
