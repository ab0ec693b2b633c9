//! What is recorded.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::code::ErrorCode;
use crate::id::Id52;
use crate::name::{ClusterAlias, GroupName, MachineName, ServiceName};
use crate::wire::{AttachMode, CommandEnd, SessionId};

/// The version of the lines' form. Within it fields and events are only added.
pub const SCHEMA: u32 = 1;

/// The longest word of a peer that is recorded, in bytes.
pub const WORD_LIMIT: usize = 128;

/// A line: what happened, when, in which cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When.
    pub time: Timestamp,
    /// The cluster that it concerns; absent: the device as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterAlias>,
    /// What.
    #[serde(flatten)]
    pub event: AuditEvent,
}

/// Who asked, as the connection proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// The identity.
    pub peer: Id52,
    /// The machine's name, if the rules in force have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<MachineName>,
    /// It was the user of this very device.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub here: bool,
}

/// What somebody wanted who was denied it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// To connect at all: unknown here, or without any right.
    Connection,
    /// To have a request served: there were too many.
    Request,
    /// To run a program.
    Command,
    /// To open or attach to a shell.
    Shell,
    /// To run a program in a session, or to attach to one.
    Session,
    /// To reach a service.
    Service,
    /// To hand a config over.
    Config,
    /// To join by an invite.
    Join,
}

/// How something ended that was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// By itself, with a status.
    Exited,
    /// A signal ended it.
    Killed,
    /// Its caller was gone, so it was hung up.
    CallerLost,
    /// The right was taken away.
    Revoked,
    /// Its owner ended it.
    Asked,
    /// The client left; the session goes on.
    Left,
    /// It was closed, as connections are.
    Closed,
    /// It could not be done, or not to its end: `code` says why.
    Failed,
    /// This device stopped before it had ended.
    Stopped,
}

/// Where a config that is in force came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigOrigin {
    /// It was on disk when the daemon started.
    Start,
    /// This device's user put it in force.
    Rescan,
    /// The manager sent it, or was asked for it.
    Manager,
    /// A machine joined.
    Join,
}

/// Which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// The root that names a cluster.
    ClusterRoot,
    /// This device's identity as a machine of a cluster.
    Machine,
    /// An invite's.
    Invite,
}

/// What happened.
///
/// `started` is the number of the record that told of the beginning; absent, if that could not be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuditEvent {
    /// The daemon runs. What began before and has no end recorded was cut off.
    DaemonStarted {
        /// Its version.
        version: String,
        /// Its process.
        pid: u32,
    },
    /// The daemon ended in order.
    DaemonStopped {},
    /// A program is about to be started for a peer.
    CommandStarted {
        /// For whom.
        #[serde(flatten)]
        by: By,
        /// The word by which the rule was found.
        command: String,
        /// The user that it runs as.
        user: String,
    },
    /// It ended.
    CommandEnded {
        /// Whose it was.
        #[serde(flatten)]
        by: By,
        /// The word.
        command: String,
        /// The record of its start.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started: Option<u64>,
        /// How.
        outcome: Outcome,
        /// The status as a shell has it: 128 and the signal's number for one that was killed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u8>,
        /// Why it could not be run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<ErrorCode>,
        /// From start to end, in milliseconds.
        duration_ms: u64,
    },
    /// A session is about to be started.
    SessionStarted {
        /// For whom.
        #[serde(flatten)]
        by: By,
        /// The word by which the rule was found; absent: a shell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
        /// The user that it runs as.
        user: String,
    },
    /// It runs, and has a name.
    SessionOpened {
        /// Whose it is.
        #[serde(flatten)]
        by: By,
        /// Its name.
        session: SessionId,
        /// The record of its start.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started: Option<u64>,
    },
    /// A client attached to a session that was there.
    SessionAttached {
        /// Who.
        #[serde(flatten)]
        by: By,
        /// Which.
        session: SessionId,
        /// To type, or to look on.
        mode: AttachMode,
    },
    /// A client's time at a session ended; or the session did not begin, and then it has no name.
    SessionEnded {
        /// Whose it was.
        #[serde(flatten)]
        by: By,
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
        /// The record of the beginning.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started: Option<u64>,
        /// How.
        outcome: Outcome,
        /// The status, if the program has ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u8>,
        /// Why it could not begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<ErrorCode>,
        /// How long that client was there, in milliseconds.
        duration_ms: u64,
    },
    /// A session's process is no more. Recorded once for each session, by whoever notices.
    SessionGone {
        /// Whose it was.
        #[serde(flatten)]
        by: By,
        /// Which.
        session: SessionId,
        /// How its program ended, as the session's process left it; absent if that was killed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcome: Option<Outcome>,
        /// The program's status.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u8>,
        /// How long it ran.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
    },
    /// A peer is about to be connected to a service.
    ServiceOpened {
        /// Who.
        #[serde(flatten)]
        by: By,
        /// Which.
        service: ServiceName,
    },
    /// Its connection ended.
    ServiceClosed {
        /// Whose it was.
        #[serde(flatten)]
        by: By,
        /// Which.
        service: ServiceName,
        /// The record of its beginning.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started: Option<u64>,
        /// How.
        outcome: Outcome,
        /// Why it could not be connected.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<ErrorCode>,
        /// How long it was open, in milliseconds.
        duration_ms: u64,
    },
    /// Somebody was denied something. The first of a second; those that follow in it are one more record.
    Denied {
        /// Who.
        #[serde(flatten)]
        by: By,
        /// What sort of thing.
        wanted: Wanted,
        /// Which: the word by which the rule was looked up, a service's name, a session's, an invite.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<String>,
        /// Why.
        reason: String,
    },
    /// More denials of the same peer, counted.
    DeniedAgain {
        /// Who; of strangers, who cost themselves nothing, the last one.
        #[serde(flatten)]
        by: By,
        /// What sort of thing.
        wanted: Wanted,
        /// Some of what was asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        asked: Vec<String>,
        /// How often, beside the one that was recorded.
        count: u64,
        /// In how long a time, in milliseconds.
        within_ms: u64,
    },
    /// Rules are in force.
    ConfigApplied {
        /// SHA-256 of the text in hex.
        digest: String,
        /// The serial; a machine's only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        serial: Option<u64>,
        /// Where they came from.
        origin: ConfigOrigin,
        /// Whose signature they carry: the manager's.
        author: Id52,
    },
    /// A config was refused.
    ConfigRefused {
        /// Who sent it.
        #[serde(flatten)]
        by: By,
        /// Why.
        code: ErrorCode,
    },
    /// A cluster is no longer this home's, or became another.
    ClusterGone {},
    /// An invite was made.
    InviteCreated {
        /// Its id52.
        invite: Id52,
        /// What the manager calls it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<String>,
        /// When it ends.
        expires: Timestamp,
        /// How many machines may join with it.
        max_uses: u32,
        /// The groups that they are added to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<GroupName>,
    },
    /// An invite was revoked.
    InviteRevoked {
        /// Its id52.
        invite: Id52,
    },
    /// A machine joined by an invite; at the manager.
    MachineJoined {
        /// The machine's identity.
        peer: Id52,
        /// The name that it got.
        name: MachineName,
        /// By which invite.
        invite: Id52,
    },
    /// This device joined a cluster.
    Joined {
        /// Whom it pinned, and so takes configs from.
        manager: Id52,
        /// What it is called there, if the manager said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<MachineName>,
    },
    /// A key was made on this device.
    KeyMade {
        /// Which.
        key: KeyKind,
        /// Its public half.
        id52: Id52,
    },
    /// Records that could not be written: the log has a gap here.
    RecordsLost {
        /// How many.
        count: u64,
    },
    /// The last line was cut off in the middle, by a crash or a full disk; what there was of it is removed.
    TornLine {
        /// How long that was.
        bytes: u64,
    },
}

impl AuditRecord {
    /// A record about a cluster.
    pub fn of_cluster(time: Timestamp, cluster: &ClusterAlias, event: AuditEvent) -> Self {
        Self { time, cluster: Some(cluster.clone()), event }
    }

    /// A record about the device.
    pub fn of_device(time: Timestamp, event: AuditEvent) -> Self {
        Self { time, cluster: None, event }
    }
}

impl Outcome {
    /// How a program ended, and its status as a shell has it.
    pub fn of_end(end: &CommandEnd) -> (Self, Option<u8>) {
        let outcome = match end {
            CommandEnd::Exited { .. } => Self::Exited,
            CommandEnd::Killed { .. } => Self::Killed,
        };
        (outcome, Some(end.shell_status()))
    }
}

/// A word of a peer's for a record: as it is, but short, or a member could turn the log over by a few denied requests.
/// What JSON makes longer counts as that.
pub fn bounded_word(word: &str) -> String {
    let mut length = 0;
    for (at, character) in word.char_indices() {
        length += match character {
            '"' | '\\' => 2,
            control if control.is_control() => 6,
            other => other.len_utf8(),
        };
        if length > WORD_LIMIT {
            return format!("{}… ({} bytes)", &word[..at], word.len());
        }
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_word_is_cut_between_characters_and_says_so() {
        assert_eq!(bounded_word("systemctl"), "systemctl");
        let cut = bounded_word(&"é".repeat(5_000));
        assert!(cut.len() < 200 && cut.ends_with("(10000 bytes)"), "{cut}");
        let controls = bounded_word(&"\u{1}".repeat(100));
        assert!(controls.ends_with("(100 bytes)"), "{controls:?}");
        assert!(serde_json::to_string(&controls).expect("is text").len() < 200);
        let uneven = bounded_word(&format!("a{}", "é".repeat(100)));
        assert!(uneven.starts_with("aé") && uneven.ends_with("(201 bytes)"), "{uneven}");
    }
}
