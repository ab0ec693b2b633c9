//! The messages of the member and invite protocols.
//!
//! The first message on a stream says what the opener wants; what follows depends on it. Bulk (a command's bytes, a
//! config's text) travels as data beside the messages, with credit, never inside them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::code::ErrorCode;
use crate::id::Id52;
use crate::name::{MachineName, ServiceName};
use crate::wire::session::{
    AttachSession, Attached, DetachReason, OpenSession, ResumeToken, SessionId, SessionInfo, WindowSize,
};

/// What the opener of a stream wants: the first message on it, under the member protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Request {
    /// Are you there? Answered by [`Notice::Pong`].
    Ping {},
    /// Run a command. Answered by [`Notice::Started`] or [`Notice::Failed`].
    Exec(ExecRequest),
    /// Start a session. Answered by [`Notice::Attached`] or, without a client, by [`Notice::Opened`].
    OpenSession(OpenSession),
    /// Attach to a session of one's own. Answered by [`Notice::Attached`].
    AttachSession(AttachSession),
    /// Which sessions of mine are here? Answered by [`Notice::Sessions`].
    ListSessions {},
    /// End a session of one's own. Answered by [`Notice::Ended`].
    EndSession {
        /// Which.
        session: SessionId,
    },
    /// Connect to a service that the machine hosts. Answered by [`Notice::Started`]; then its bytes are data of the
    /// main lane.
    Connect {
        /// Its name, cluster-wide or within the machine.
        service: ServiceName,
        /// What the caller will call this stream, should its connection be lost; absent: then it is over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<ResumeToken>,
    },
    /// Go on with a stream whose connection was lost, on this one. Answered by a frame, not a message.
    Resume(ResumeStream),
    /// Here is your config: its exact text follows as data. Answered by [`PushReply`]. Manager to machine.
    PushConfig {
        /// The text's length in bytes.
        length: u64,
    },
    /// What is my config? Answered by [`PullReply`]. Machine to manager.
    PullConfig {
        /// What the machine has already.
        have: Option<ConfigHave>,
        /// Whether the machine listens where it calls from: then the manager may remember the address.
        #[serde(default)]
        listening: bool,
    },
}

/// A command to run. Who asks is known from the connection and stands nowhere in here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The words; the first is the name that the rules are looked up by. Never empty.
    pub argv: Vec<String>,
    /// `TERM`, `LANG`, `LC_*` of the caller; anything else is ignored by the target.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What the caller will call this stream, should its connection be lost; absent: then it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<ResumeToken>,
}

/// Names a stream of the same caller whose connection was lost, and says how far it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeStream {
    /// What the caller called it.
    pub token: ResumeToken,
    /// What the caller has received: the lanes in their order.
    pub lanes: [LaneState; 3],
}

/// How far a receiver came on one lane of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LaneState {
    /// Bytes that came.
    pub received: u64,
    /// The sum of the charges of what came.
    pub charged: u64,
    /// The sum of charges that may be spent since the stream began.
    pub allowance: u64,
    /// The size of the window.
    pub window: u32,
    /// Whether its end came.
    pub ended: bool,
}

/// What a machine has: enough for the manager to know whether it needs more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigHave {
    /// The serial of its config.
    pub serial: u64,
    /// The digest of its exact text, hex SHA-256.
    pub digest: String,
}

/// What the target of a stream says about it, and what the opener says while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Notice {
    /// I am here.
    Pong {
        /// The version of malai that answers.
        version: String,
    },
    /// The command runs, or the service is connected.
    Started {
        /// So many milliseconds the stream is kept for its caller when the connection is lost; absent: it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume_ms: Option<u64>,
    },
    /// The caller is attached to a session.
    Attached(Attached),
    /// A session runs, and nobody is attached to it.
    Opened {
        /// Which.
        session: SessionId,
    },
    /// Sessions of the caller.
    Sessions {
        /// Oldest first.
        sessions: Vec<SessionInfo>,
        /// Whether another of these messages follows.
        #[serde(default)]
        more: bool,
    },
    /// The caller's terminal has another size now. Opener to target.
    Resize {
        /// Which.
        window: WindowSize,
    },
    /// Leave me, and go on. Opener to target; answered by [`Notice::Detached`].
    Detach {},
    /// The caller is no longer attached; the session goes on.
    Detached {
        /// Why.
        reason: DetachReason,
    },
    /// The command ended; no data follows.
    Ended(CommandEnd),
    /// Deliver a signal to the command's process group. Opener to target.
    Signal {
        /// Which.
        signal: Signal,
    },
    /// It was refused, or failed, or was ended by malai; nothing follows.
    Failed(WireError),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum CommandEnd {
    /// It exited.
    Exited {
        /// Its status, 0 to 255.
        status: u8,
    },
    /// A signal killed it.
    Killed {
        /// The signal's number on the target.
        signal: u8,
    },
}

impl CommandEnd {
    /// The status that a shell would show: the exit status, or 128 + N after death by signal N.
    pub fn shell_status(&self) -> u8 {
        match self {
            Self::Exited { status } => *status,
            Self::Killed { signal } => 128_u8.saturating_add(*signal),
        }
    }
}

/// A signal that a caller may send; by name, since numbers differ between systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    /// Ctrl-C.
    Int,
    /// Please end.
    Term,
    /// The terminal is gone.
    Hup,
    /// Ctrl-\.
    Quit,
    /// End at once.
    Kill,
    /// User-defined.
    Usr1,
    /// User-defined.
    Usr2,
}

/// A failure, as it crosses the wire and the daemon's socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// The stable code.
    pub code: ErrorCode,
    /// What failed, with which value. From a peer: show it escaped.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl WireError {
    /// Folds an error and what lies beneath it into one message, for a peer that cannot look beneath.
    pub fn of(code: ErrorCode, error: &dyn std::error::Error, hint: Option<String>) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self { code, message, hint }
    }
}

/// The answer to [`Request::PushConfig`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PushReply {
    /// The config is in force.
    Accepted {
        /// Its serial.
        serial: u64,
    },
    /// It is refused and the old one stays in force. With `config.stale` the signed config in force follows as data, so
    /// that a manager restored from a backup can go on above its serial.
    Refused {
        /// Why.
        error: WireError,
        /// The length of the text that follows as data; 0 if none does.
        #[serde(default)]
        length: u64,
    },
}

/// The answer to [`Request::PullConfig`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PullReply {
    /// What the machine has is what it should have.
    Current {},
    /// Its config follows as data.
    Config {
        /// The text's length in bytes.
        length: u64,
    },
    /// There is none for it, or not now.
    Failed(WireError),
}

/// The one request of the invite protocol. The machine that joins is the connection's peer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The invite's secret, 32 hex digits.
    pub token: String,
    /// The name that the machine would like to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<MachineName>,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest").field("token", &"…").field("name", &self.name).finish()
    }
}

/// The answer to a [`JoinRequest`] that succeeded; else a [`Notice::Failed`] comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAccepted {
    /// The cluster's root, to be pinned.
    pub manager: Id52,
    /// What the cluster calls itself.
    pub cluster_name: String,
    /// The name that the machine got.
    pub machine: MachineName,
    /// Digest of the next root's public key, hex SHA-256.
    pub next_root: String,
    /// Where the manager may be found, `host:port`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The root's signature over the invite's and the machine's id52 and all of the above but the addresses, so that
    /// whoever holds an invite's key cannot name somebody else's root: 128 hex digits. Made and checked by
    /// [`crate::cluster::accept_join`] and [`crate::cluster::verify_accepted`].
    pub proof: String,
}
