//! What can go wrong between two endpoints.

use std::time::Duration;

use malai_model::code::ErrorCode;
use malai_model::id::Id52;
use malai_model::text::escape_control;

/// The code with which an endpoint closes the connection of a peer that it does not admit.
pub(crate) const CLOSE_NOT_ADMITTED: u32 = 0x4e41;
/// The code with which an endpoint closes a connection that it has no room for.
pub(crate) const CLOSE_CROWDED: u32 = 0x4352;
/// The code with which an endpoint closes a connection that it takes for dead: what runs over it goes on elsewhere.
pub(crate) const CLOSE_SILENT: u32 = 0x5349;
/// The code of an endpoint that closes in good order.
pub(crate) const CLOSE_NORMAL: u32 = 0;

/// Codes with which one stream is given up, by [`super::StreamSender::reset`] and
/// [`super::StreamReceiver::stop`].
pub mod stream_code {
    /// The half was dropped, or its user gave up.
    pub const CANCELLED: u32 = 0;
    /// The peer sent what is no frame, or a frame out of place.
    pub const MALFORMED: u32 = 1;
    /// The peer sent more than its credit.
    pub const CREDIT: u32 = 2;
    /// The peer took too long.
    pub const STALLED: u32 = 3;
    /// Too many streams at once, or the endpoint is about to stop.
    pub const BUSY: u32 = 4;
    /// The peer lost the rights that it was admitted for.
    pub const REVOKED: u32 = 5;
    /// The stream that was to go on is not here any more.
    pub const UNKNOWN: u32 = 6;
    /// The stream goes on, but not here.
    pub const MOVED: u32 = 7;
}

/// A failure of the network layer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum P2pError {
    /// The peer did not answer on any address.
    #[error("{}", unreachable_text(peer, tried, *after))]
    Unreachable {
        /// Who.
        peer: Id52,
        /// The addresses and look-ups that were tried.
        tried: Vec<String>,
        /// After how long it was given up.
        after: Duration,
    },
    /// The peer refused this identity.
    #[error("reach {peer}: unknown to this machine, or no rights on it")]
    NotAdmitted {
        /// Who refused.
        peer: Id52,
    },
    /// The peer speaks no common version of the protocol.
    #[error("talk to {peer}: it speaks no version of the protocol that this one speaks")]
    Incompatible {
        /// Who.
        peer: Id52,
    },
    /// A connection to oneself.
    #[error("reach {0}: it is this identity itself")]
    SelfConnect(Id52),
    /// The connection ended.
    #[error("keep the connection: {}", escape_control(reason))]
    Lost {
        /// Why, as far as it is known. May hold text of the peer, which is escaped when shown.
        reason: String,
    },
    /// The peer broke the protocol on one stream, which ended for it.
    #[error("read what the peer sent: {}", escape_control(reason))]
    Malformed {
        /// How.
        reason: String,
    },
    /// The peer gave up this stream, or wants no more of it.
    #[error("go on with a request: {}", stream_end_text(*code))]
    StreamReset {
        /// See [`stream_code`].
        code: u32,
    },
    /// The peer does not have the stream any more that was to go on.
    #[error("go on with a request: the peer does not have it any more")]
    StreamUnknown,
    /// This half of the stream was ended before.
    #[error("send more: this half of the stream was ended already")]
    Ended,
    /// A message over the limit.
    #[error("send a message of {length} bytes: {limit} is the most")]
    MessageTooLarge {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The endpoint could not be set up.
    #[error("set up the network on {address}")]
    Bind {
        /// The address that was asked for.
        address: String,
        /// Why.
        #[source]
        source: std::sync::Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The directory where processes of one user find each other cannot be used.
    #[error("use the runtime directory {path}: {reason}")]
    RuntimeDir {
        /// Which.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The endpoint is closed.
    #[error("use the network: it is closed")]
    Closed,
}

impl P2pError {
    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unreachable { .. } => ErrorCode::PeerUnreachable,
            Self::NotAdmitted { .. } => ErrorCode::PeerNotAdmitted,
            Self::Incompatible { .. } => ErrorCode::PeerIncompatible,
            Self::StreamReset { code: stream_code::BUSY } => ErrorCode::LimitReached,
            Self::StreamReset { code: stream_code::REVOKED } => ErrorCode::AclRevoked,
            Self::StreamUnknown => ErrorCode::StreamUnknown,
            Self::Lost { .. } | Self::StreamReset { .. } => ErrorCode::PeerLost,
            Self::Malformed { .. } => ErrorCode::WireMalformed,
            Self::MessageTooLarge { .. } => ErrorCode::LimitReached,
            Self::Bind { .. } => ErrorCode::PeerBind,
            Self::RuntimeDir { .. } => ErrorCode::HomeLoosePermissions,
            Self::SelfConnect(_) => ErrorCode::Usage,
            Self::Ended | Self::Closed => ErrorCode::Cancelled,
        }
    }

    /// Returns what to do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => Some(
                "is its daemon running, and is one of its addresses in the config reachable from here?"
                    .to_owned(),
            ),
            Self::NotAdmitted { .. } => {
                Some("ask the cluster's admin to let this machine in with an allow_from rule".to_owned())
            }
            Self::StreamReset { code: stream_code::BUSY } => {
                Some("try again in a moment; [limits] of that machine's malai.toml says how many".to_owned())
            }
            Self::StreamUnknown => {
                Some("its daemon was restarted, or reaching it again took too long".to_owned())
            }
            Self::Incompatible { .. } => Some("update malai on the older of the two machines".to_owned()),
            Self::RuntimeDir { path, .. } => Some(format!(
                "it must be a directory of your own with mode 0700: `chmod 700 {path}`, or remove it"
            )),
            _ => None,
        }
    }

    pub(crate) fn lost(reason: impl Into<String>) -> Self {
        Self::Lost { reason: reason.into() }
    }
}

fn stream_end_text(code: u32) -> &'static str {
    match code {
        stream_code::MALFORMED => "the peer could not read what was sent",
        stream_code::CREDIT => "the peer says that more was sent than it allowed",
        stream_code::STALLED => "the peer waited too long",
        stream_code::REVOKED => "the rights on that machine were taken away",
        stream_code::BUSY => "the peer has too many requests at once, or is about to stop",
        _ => "the peer gave it up",
    }
}

fn unreachable_text(peer: &Id52, tried: &[String], after: Duration) -> String {
    if tried.is_empty() {
        return format!("reach {peer}: no address of it is known, and no look-up knows one");
    }
    format!("reach {peer}: no answer within {:.1} s; tried {}", after.as_secs_f64(), tried.join(", "))
}
