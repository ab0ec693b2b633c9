//! What a front is shown. These types are the schema of `--json` output and of the daemon's socket: fields are only
//! added, never renamed.

use crate::code::ErrorCode;
use crate::diagnostic::Diagnostic;
use crate::id::Id52;
use crate::name::{ClusterAlias, MachineName, ServiceName};
use crate::wire::WireError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of the `--json` schema and of the socket's messages.
pub const SCHEMA: u32 = 1;

/// The answer to an operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum ApiReply {
    /// A cluster.
    Cluster(ClusterView),
    /// A new invite, with its secret.
    Invite(NewInviteView),
    /// Invites.
    Invites {
        /// Oldest first.
        invites: Vec<InviteView>,
    },
    /// How joining went.
    Joined(JoinedView),
    /// What a rescan found.
    Rescanned(RescanView),
    /// What managers answered.
    Synced {
        /// A cluster each.
        clusters: Vec<SyncView>,
    },
    /// A service.
    Service(ServiceView),
    /// Services.
    Services {
        /// By address.
        services: Vec<ServiceView>,
    },
    /// This home.
    Info(InfoView),
    /// What runs.
    Status(StatusView),
    /// The machine is being dialled: the answer follows.
    Opening {},
    /// A stream is open.
    Opened(OpenedView),
    /// It failed.
    Failed(FailedView),
}

/// A stream to a machine: where it leads, and what is to be said there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedView {
    /// The cluster, as this device calls it.
    pub cluster: ClusterAlias,
    /// The machine's name there, if it is known by one.
    pub machine: Option<MachineName>,
    /// The machine's identity.
    pub id52: Id52,
    /// Whether it is this very device.
    pub place: Place,
    /// What stood behind the address: the program's words, an alias's first.
    #[serde(default)]
    pub argv: Vec<String>,
    /// Where the machine is: `ip:port`, or the URL of a relay.
    pub address: String,
    /// Whether a relay carries the stream.
    pub relayed: bool,
    /// The round trip in microseconds.
    pub rtt_us: u64,
}

/// Where a machine is, seen from this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// It is this device.
    Here,
    /// It is another one.
    Elsewhere,
}

impl OpenedView {
    /// The machine's address as a user knows it: `web01.company`.
    pub fn shown(&self) -> String {
        match &self.machine {
            Some(name) => format!("{name}.{}", self.cluster),
            None => format!("{}.{}", self.id52, self.cluster),
        }
    }

    /// An address that means this machine whatever it is called by now: `<id52>.company`.
    pub fn address_by_id(&self) -> String {
        format!("{}.{}", self.id52, self.cluster)
    }
}

/// A failure of an operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailedView {
    /// What, as on the wire: its message ends in those of the causes.
    #[serde(flatten)]
    pub error: WireError,
    /// What lies beneath, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What is wrong with files, if that is why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

impl FailedView {
    /// Takes an error apart.
    pub fn of(
        code: ErrorCode,
        error: &dyn std::error::Error,
        hint: Option<String>,
        diagnostics: Vec<Diagnostic>,
    ) -> Self {
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Self { error: WireError::of(code, error, hint), causes, diagnostics }
    }

    /// A request that whoever got it cannot take up: it is to be put in another way, or done without them.
    pub fn unsupported(message: String, hint: Option<String>) -> Self {
        let error = WireError { code: ErrorCode::WireUnsupported, message, hint };
        Self { error, causes: Vec::new(), diagnostics: Vec::new() }
    }

    /// The message without those of the causes.
    pub fn own_message(&self) -> &str {
        let folded: usize = self.causes.iter().map(|cause| 2 + cause.len()).sum();
        let message = &self.error.message;
        match message.len().checked_sub(folded).and_then(|end| message.split_at_checked(end)) {
            Some((own, rest)) if rest.ends_with(self.causes.last().map_or("", String::as_str)) => own,
            // Of a version that folds in another way.
            _ => message,
        }
    }
}

/// What this device is in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleView {
    /// It holds the root.
    Manager,
    /// It has a personalised config.
    Machine,
    /// It has a key and waits for its first config.
    Waiting,
}

/// A cluster of this home.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterView {
    /// What this device calls it.
    pub alias: ClusterAlias,
    /// What it calls itself, once known.
    pub cluster_name: Option<String>,
    /// What this device is in it.
    pub role: RoleView,
    /// This device's identity in it.
    pub id52: Id52,
    /// The manager's identity, once it is pinned.
    pub manager: Option<Id52>,
    /// This device's name in it, if it is a machine.
    pub machine: Option<MachineName>,
    /// The serial of the config in force; machines only.
    pub serial: Option<u64>,
    /// What this device may reach, or, for the manager, all machines.
    pub machines: Vec<MachineView>,
    /// Warnings about the config in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Diagnostic>,
}

/// A machine, as this device knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineView {
    /// Its name.
    pub name: MachineName,
    /// Its identity.
    pub id52: Id52,
    /// Where its config stands; manager only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<MachineSyncView>,
}

/// A service of another machine, as this device knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceView {
    /// What to type: `ssh.web01.company`, `mysql.company`.
    pub address: String,
    /// The cluster, as this device calls it.
    pub cluster: ClusterAlias,
    /// The hosting machine's name, if it is known by one.
    pub machine: Option<MachineName>,
    /// The hosting machine.
    pub id52: Id52,
    /// The service's name.
    pub service: ServiceName,
    /// `tcp` or `http`, as far as this device knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

impl ServiceView {
    /// An address that means the hosting machine whatever it is called: `<id52>.company`.
    pub fn machine_by_id(&self) -> String {
        format!("{}.{}", self.id52, self.cluster)
    }
}

/// Where a machine's config stands, as its manager knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineSyncView {
    /// `success`, `pending` or `refused`.
    pub status: String,
    /// The serial that it has.
    pub serial: u64,
    /// When it took it.
    pub last_sync: Option<Timestamp>,
    /// Why the last try failed.
    pub last_error: Option<String>,
}

/// A new invite. The word holds the secret: it is shown once and kept nowhere.
#[derive(Clone, Serialize, Deserialize)]
pub struct NewInviteView {
    /// What to hand to the machine that shall join.
    pub invite: String,
    /// The rest.
    #[serde(flatten)]
    pub view: InviteView,
    /// Whether a daemon listens on it now.
    pub listening: bool,
}

impl std::fmt::Debug for NewInviteView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewInviteView").field("view", &self.view).finish_non_exhaustive()
    }
}

/// An invite, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InviteView {
    /// Its own identity.
    pub id52: Id52,
    /// What the manager calls it.
    pub label: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// How many machines joined with it.
    pub uses: u32,
    /// How many may.
    pub max_uses: u32,
    /// `open`, `expired`, `used-up` or `revoked`.
    pub state: String,
}

/// How joining went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinedView {
    /// What this device calls the cluster.
    pub alias: ClusterAlias,
    /// This device's new identity.
    pub id52: Id52,
    /// The manager that is pinned; absent while the manager has not answered yet.
    pub manager: Option<Id52>,
    /// The name that the manager gave; absent if nothing was registered.
    pub machine: Option<MachineName>,
    /// What the manager must add by hand, when nothing was registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paste: Option<String>,
    /// Why the manager did not answer: the identity and the invite are kept, and a daemon tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<WireError>,
}

/// What a rescan found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RescanView {
    /// Clusters whose files are in force now, or would be.
    pub clusters: Vec<ClusterAlias>,
    /// Warnings of all files.
    pub warnings: Vec<Diagnostic>,
    /// How many machines get a new config.
    pub deliveries: usize,
}

/// What a manager answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncView {
    /// Which cluster.
    pub alias: ClusterAlias,
    /// The serial in force now.
    pub serial: Option<u64>,
    /// Whether a new config came.
    pub changed: bool,
    /// Why not, if it failed.
    pub error: Option<WireError>,
}

/// This home.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InfoView {
    /// The version of malai that answers.
    pub version: String,
    /// Where it is.
    pub home: String,
    /// The daemon's process id, if one runs.
    pub daemon: Option<u32>,
    /// Its clusters.
    pub clusters: Vec<ClusterView>,
}

/// What runs now in a daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusView {
    /// The version of malai that answers.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
    /// Where each identity listens.
    pub listening: Vec<ListenView>,
    /// Its live connections.
    pub connections: Vec<ConnectionView>,
    /// How many requests of others run now.
    pub running: usize,
    /// The streams to machines that it carries for commands of this user.
    #[serde(default)]
    pub carried: Vec<CarriedView>,
}

/// A stream to a machine that the daemon carries for a process of its user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CarriedView {
    /// Which cluster.
    pub cluster: ClusterAlias,
    /// The machine.
    pub peer: Id52,
    /// Its name in the cluster, if it is known by one.
    pub name: Option<MachineName>,
    /// The process, where the system tells.
    #[serde(default)]
    pub pid: Option<u32>,
    /// When it was opened.
    pub since: Timestamp,
}

/// Where an identity listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListenView {
    /// Which cluster.
    pub cluster: ClusterAlias,
    /// `member` or `invite`.
    pub purpose: String,
    /// Which identity.
    pub id52: Id52,
    /// Where, `ip:port`.
    pub addresses: Vec<String>,
}

/// A live connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectionView {
    /// Which cluster.
    pub cluster: ClusterAlias,
    /// Who.
    pub peer: Id52,
    /// Its name in the cluster, or `cluster-manager`.
    pub name: Option<String>,
    /// `in` or `out`: who opened it.
    pub direction: String,
    /// Where it is now.
    pub address: String,
    /// Whether its traffic goes through a relay.
    pub relayed: bool,
    /// The round trip in microseconds.
    pub rtt_us: u64,
    /// Bytes sent over it, the network's own included.
    #[serde(default)]
    pub sent: u64,
    /// Bytes that came over it, the network's own included.
    #[serde(default)]
    pub received: u64,
    /// How many streams are open on it.
    #[serde(default)]
    pub streams: u64,
    /// When it was made.
    #[serde(default)]
    pub since: Option<Timestamp>,
}

/// What a copy came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CopyView {
    /// Files and links that were written.
    pub files: u64,
    /// Files and links that were there already.
    pub skipped: u64,
    /// Bytes of files that went over the network.
    pub bytes: u64,
    /// Bytes that an earlier, unfinished copy had brought already.
    pub resumed_bytes: u64,
    /// What was deleted at the destination since the source does not have it.
    pub deleted: u64,
    /// How many things could not be copied or deleted.
    pub failed: u64,
    /// What they are; the first thousand.
    pub warnings: Vec<CopyProblemView>,
    /// How long it took.
    pub seconds: f64,
}

/// Something that could not be copied or deleted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CopyProblemView {
    /// The stable code.
    pub code: crate::code::ErrorCode,
    /// What, with its machine before it if it is on another.
    pub path: String,
    /// Why.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("reach web01.company")]
    struct Reach(#[source] Beneath);

    #[derive(Debug, thiserror::Error)]
    #[error("no answer: within 5 s")]
    struct Beneath;

    #[test]
    fn a_failure_crosses_the_socket_with_its_causes_apart() {
        let failed = FailedView::of(ErrorCode::PeerUnreachable, &Reach(Beneath), None, Vec::new());
        let line = serde_json::to_string(&failed).expect("is a text");
        let read: FailedView = serde_json::from_str(&line).expect("reads");
        assert_eq!(
            read.error.message, "reach web01.company: no answer: within 5 s",
            "for who knows no causes"
        );
        assert_eq!(read.own_message(), "reach web01.company");
        assert_eq!(read.causes, ["no answer: within 5 s"]);
    }

    #[test]
    fn a_failure_of_an_older_daemon_has_one_message() {
        let line = r#"{"code":"p2p.unreachable","message":"reach web01: no answer"}"#;
        let read: FailedView = serde_json::from_str(line).expect("reads");
        assert_eq!(read.own_message(), "reach web01: no answer");
    }
}
