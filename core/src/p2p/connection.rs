//! A connection to one peer, whose identity the handshake proved.

mod counters;
mod end;
mod traffic;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use malai_model::id::Id52;
use tokio::time::Instant;

pub use self::counters::Counters;
pub use self::end::CloseReason;
pub(super) use self::end::describe;
pub use self::traffic::{ConnectionStats, PathView};
use super::Protocol;
use super::error::P2pError;
#[cfg(any(test, feature = "testing"))]
use super::memory;
use super::raw::{RawRecv, RawSend};
#[cfg(unix)]
use super::socket::SocketLink;
use super::stream::Stream;
use crate::task::Scope;

/// A connection. Cloning gives another handle; it closes when the last one and all streams are dropped.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Link,
    peer: Id52,
    protocol: Protocol,
    scope: Scope,
    counters: Arc<Counters>,
    /// How many streams are open.
    streams: AtomicU64,
    opened: Instant,
    /// Whether this side took it for dead.
    given_up: AtomicBool,
}

#[derive(Debug)]
pub(super) enum Link {
    Quic(iroh::endpoint::Connection),
    /// Another process carries one stream of a connection of its own.
    #[cfg(unix)]
    Socket(SocketLink),
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::Link),
}

/// A connection that this handle does not keep open.
#[derive(Debug, Clone)]
pub(crate) struct WeakConnection(std::sync::Weak<Inner>);

impl WeakConnection {
    /// Says whether somebody else still has the connection.
    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Closes the connection in good order, if somebody still has it.
    pub(crate) fn close(&self) {
        if let Some(inner) = self.0.upgrade() {
            Connection(inner).close(CloseReason::normal());
        }
    }
}

/// A connection in use by a stream.
#[derive(Debug)]
pub(super) struct InUse(Connection);

impl InUse {
    fn new(connection: Connection) -> Self {
        connection.0.streams.fetch_add(1, Ordering::Relaxed);
        Self(connection)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::ops::Deref for InUse {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Connection {
    pub(super) fn new(
        link: Link,
        peer: Id52,
        protocol: Protocol,
        scope: Scope,
        counters: Arc<Counters>,
    ) -> Self {
        let (streams, opened) = (AtomicU64::new(0), Instant::now());
        let given_up = AtomicBool::new(false);
        Self(Arc::new(Inner { link, peer, protocol, scope, counters, streams, opened, given_up }))
    }

    pub(super) fn downgrade(&self) -> WeakConnection {
        WeakConnection(Arc::downgrade(&self.0))
    }

    /// Returns who the peer is: it proved it.
    pub fn peer(&self) -> Id52 {
        self.0.peer
    }

    /// Returns the protocol that the two sides agreed on.
    pub fn protocol(&self) -> Protocol {
        self.0.protocol
    }

    /// Opens a stream; the peer learns of it with the first thing that is sent.
    ///
    /// # Errors
    /// What ended the connection.
    ///
    /// # Cancel safety
    /// A cancelled call opens nothing.
    pub async fn open_stream(&self) -> Result<Stream, P2pError> {
        let (send, recv) = match &self.0.link {
            Link::Quic(connection) => {
                let (send, recv) = connection.open_bi().await.map_err(|error| self.describe(&error))?;
                (RawSend::Quic(send), RawRecv::Quic(recv))
            }
            #[cfg(unix)]
            Link::Socket(_) => return Err(P2pError::Closed),
            #[cfg(any(test, feature = "testing"))]
            Link::Memory(link) => link.open().ok_or_else(|| self.failure())?,
        };
        Ok(Stream::new(self.clone(), send, recv))
    }

    /// Waits for the next stream that the peer opens.
    ///
    /// # Errors
    /// What ended the connection.
    ///
    /// # Cancel safety
    /// No stream is lost.
    pub async fn accept_stream(&self) -> Result<Stream, P2pError> {
        let (send, recv) = match &self.0.link {
            Link::Quic(connection) => {
                let (send, recv) = connection.accept_bi().await.map_err(|error| self.describe(&error))?;
                (RawSend::Quic(send), RawRecv::Quic(recv))
            }
            #[cfg(unix)]
            Link::Socket(_) => return Err(P2pError::Closed),
            #[cfg(any(test, feature = "testing"))]
            Link::Memory(link) => link.accept().await.ok_or_else(|| self.failure())?,
        };
        Ok(Stream::new(self.clone(), send, recv))
    }

    /// Notes that a stream uses it.
    pub(super) fn enter(&self) -> InUse {
        InUse::new(self.clone())
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.0.scope
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Says whether nothing but this handle uses the connection: no stream, no clone.
    pub(super) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}
