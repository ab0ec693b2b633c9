//! The end of a connection: closing it, why it was closed, and whether it is lost.

use std::sync::atomic::Ordering;

use iroh::endpoint::{ConnectionError, VarInt};
use malai_model::id::Id52;

use super::{Connection, Link};
use crate::p2p::error::{CLOSE_CROWDED, CLOSE_NORMAL, CLOSE_NOT_ADMITTED, CLOSE_SILENT, P2pError};

/// What is said of a connection on which nothing comes any more.
const SILENT: &str = "the peer did not answer any more";

/// Why a connection was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// What whoever closed it gave as a number; 0 for good order, and for what is no decision of anybody's.
    pub code: u32,
    /// In words. May be the peer's: show it escaped.
    pub text: String,
}

impl Connection {
    /// Closes the connection with all its streams, at once: what the peer has not acknowledged is lost.
    pub fn close(&self, reason: CloseReason) {
        match &self.0.link {
            Link::Quic(connection) => connection.close(VarInt::from_u32(reason.code), reason.text.as_bytes()),
            #[cfg(unix)]
            Link::Socket(link) => link.close(&reason),
            #[cfg(any(test, feature = "testing"))]
            Link::Memory(link) => link.close(reason),
        }
    }

    /// Closes a connection of which nothing is heard, as the transport would after its idle time: it is lost.
    pub(in crate::p2p) fn give_up(&self) {
        self.0.given_up.store(true, Ordering::Release);
        self.close(CloseReason { code: CLOSE_SILENT, text: SILENT.to_owned() });
    }

    fn is_given_up(&self) -> bool {
        self.0.given_up.load(Ordering::Acquire)
    }

    /// Resolves when the connection is closed, by whomever. Cancel safe.
    pub async fn closed(&self) -> CloseReason {
        match &self.0.link {
            Link::Quic(connection) => CloseReason::of(&connection.closed().await),
            #[cfg(unix)]
            Link::Socket(link) => link.closed().await,
            #[cfg(any(test, feature = "testing"))]
            Link::Memory(link) => link.closed().await,
        }
    }

    /// Says whether the connection is closed.
    pub fn is_closed(&self) -> bool {
        match &self.0.link {
            Link::Quic(connection) => connection.close_reason().is_some(),
            #[cfg(unix)]
            Link::Socket(link) => link.close_reason().is_some(),
            #[cfg(any(test, feature = "testing"))]
            Link::Memory(link) => link.close_reason().is_some(),
        }
    }

    /// Why a stream of it failed.
    pub(in crate::p2p) fn failure(&self) -> P2pError {
        if self.is_given_up() {
            return P2pError::lost(SILENT);
        }
        match &self.0.link {
            Link::Quic(connection) => match connection.close_reason() {
                Some(error) => self.describe(&error),
                None => P2pError::lost("its streams ended"),
            },
            #[cfg(unix)]
            Link::Socket(link) => link.failure(self.0.peer),
            #[cfg(any(test, feature = "testing"))]
            Link::Memory(link) => match link.close_reason() {
                Some(reason) if reason.code == CLOSE_NOT_ADMITTED => {
                    P2pError::NotAdmitted { peer: self.0.peer }
                }
                Some(reason) => P2pError::Lost { reason: reason.text },
                None => P2pError::lost("its streams ended"),
            },
        }
    }

    /// Says whether the connection ended without anybody wanting it: then a stream may go on over another one.
    pub(in crate::p2p) fn is_lost(&self) -> bool {
        if self.is_given_up() {
            return true;
        }
        match &self.0.link {
            Link::Quic(connection) => match connection.close_reason() {
                // The peer took it for dead: it comes back.
                Some(ConnectionError::ApplicationClosed(close)) => {
                    close.error_code == VarInt::from_u32(CLOSE_SILENT)
                }
                Some(ConnectionError::LocallyClosed | ConnectionError::VersionMismatch) | None => false,
                Some(error) => matches!(self.describe(&error), P2pError::Lost { .. }),
            },
            #[cfg(unix)]
            Link::Socket(link) => link.is_lost(),
            #[cfg(any(test, feature = "testing"))]
            Link::Memory(link) => {
                link.is_lost() || link.close_reason().is_some_and(|reason| reason.code == CLOSE_SILENT)
            }
        }
    }

    pub(super) fn describe(&self, error: &ConnectionError) -> P2pError {
        describe(self.0.peer, error)
    }
}

/// Says what a connection's end means.
pub(in crate::p2p) fn describe(peer: Id52, error: &ConnectionError) -> P2pError {
    /// TLS alert `no_application_protocol` as a QUIC transport error.
    const NO_COMMON_ALPN: u64 = 0x178;
    match error {
        ConnectionError::ApplicationClosed(close)
            if close.error_code == VarInt::from_u32(CLOSE_NOT_ADMITTED) =>
        {
            P2pError::NotAdmitted { peer }
        }
        ConnectionError::VersionMismatch => P2pError::Incompatible { peer },
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == NO_COMMON_ALPN => {
            P2pError::Incompatible { peer }
        }
        ConnectionError::TransportError(error) if u64::from(error.code) == NO_COMMON_ALPN => {
            P2pError::Incompatible { peer }
        }
        other => P2pError::Lost { reason: CloseReason::of(other).text },
    }
}

impl CloseReason {
    /// The reason of an end in good order.
    pub fn normal() -> Self {
        Self { code: CLOSE_NORMAL, text: "closed".to_owned() }
    }

    /// The reason given to a peer that has no rights any more; it reports [`P2pError::NotAdmitted`].
    pub fn not_admitted() -> Self {
        Self { code: CLOSE_NOT_ADMITTED, text: "not admitted".to_owned() }
    }

    /// The reason given to a peer for which there is no room now.
    pub(crate) fn crowded() -> Self {
        Self { code: CLOSE_CROWDED, text: "too many callers at once".to_owned() }
    }

    fn of(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self {
                code: u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX),
                text: if close.reason.is_empty() {
                    "closed by the peer".to_owned()
                } else {
                    String::from_utf8_lossy(&close.reason).into_owned()
                },
            },
            ConnectionError::LocallyClosed => {
                Self { code: CLOSE_NORMAL, text: "closed on this side".to_owned() }
            }
            ConnectionError::TimedOut => Self { code: CLOSE_NORMAL, text: SILENT.to_owned() },
            ConnectionError::Reset => Self { code: CLOSE_NORMAL, text: "the peer has restarted".to_owned() },
            other => Self { code: CLOSE_NORMAL, text: other.to_string() },
        }
    }
}
