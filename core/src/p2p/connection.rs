//! A connection to one peer, whose identity the handshake proved.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use iroh::TransportAddr;
use iroh::endpoint::{ConnectionError, VarInt};
use malai_model::id::Id52;
use tokio::time::Instant;

use super::Protocol;
use super::error::{CLOSE_CROWDED, CLOSE_NORMAL, CLOSE_NOT_ADMITTED, CLOSE_SILENT, P2pError, stream_code};
#[cfg(any(test, feature = "testing"))]
use super::memory;
use super::raw::{RawRecv, RawSend};
#[cfg(unix)]
use super::socket::SocketLink;
use super::stream::Stream;
use crate::task::Scope;

/// What is said of a connection on which nothing comes any more.
const SILENT: &str = "the peer did not answer any more";

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

/// Why a connection was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// What whoever closed it gave as a number; 0 for good order, and for what is no decision of anybody's.
    pub code: u32,
    /// In words. May be the peer's: show it escaped.
    pub text: String,
}

/// How the bytes of a connection travel now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathView {
    /// The peer's IP address and port, or the relay's URL.
    pub address: String,
    /// Whether a relay carries it.
    pub relayed: bool,
    /// The present estimate of the round trip.
    pub rtt: Duration,
}

/// What a connection has carried, and carries now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionStats {
    /// Bytes sent, as packets; 0 where nothing counts them.
    pub bytes_sent: u64,
    /// Bytes received, as packets; 0 where nothing counts them.
    pub bytes_received: u64,
    /// Streams that are open.
    pub streams: u64,
    /// For how long the connection has been open.
    pub age: Duration,
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

/// How often peers of an endpoint broke the rules.
#[derive(Debug, Default)]
pub struct Counters {
    malformed: AtomicU64,
    credit: AtomicU64,
    refused: AtomicU64,
}

impl Counters {
    /// Streams ended for a frame that is none or is out of place.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Streams ended for more than their credit.
    pub fn credit_exceeded(&self) -> u64 {
        self.credit.load(Ordering::Relaxed)
    }

    /// Connections refused at the handshake.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, code: u32) {
        let counter = if code == stream_code::CREDIT { &self.credit } else { &self.malformed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
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
    pub(super) fn give_up(&self) {
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

    /// Returns how its bytes travel now.
    pub fn path(&self) -> PathView {
        match &self.0.link {
            Link::Quic(connection) => {
                let paths = connection.paths();
                let path = paths.iter().find(|path| path.is_selected()).or_else(|| paths.iter().next());
                path.map_or_else(PathView::unknown, |path| PathView {
                    address: match path.remote_addr() {
                        TransportAddr::Ip(address) => address.to_string(),
                        TransportAddr::Relay(url) => url.to_string(),
                        other => format!("{other:?}"),
                    },
                    relayed: path.is_relay(),
                    rtt: path.rtt(),
                })
            }
            #[cfg(unix)]
            Link::Socket(link) => link.path(),
            #[cfg(any(test, feature = "testing"))]
            Link::Memory(link) => PathView { address: "memory".to_owned(), relayed: false, rtt: link.rtt() },
        }
    }

    /// Returns what it has carried.
    pub fn stats(&self) -> ConnectionStats {
        let (streams, age) = (self.0.streams.load(Ordering::Relaxed), self.0.opened.elapsed());
        match &self.0.link {
            Link::Quic(connection) => {
                let stats = connection.stats();
                ConnectionStats {
                    bytes_sent: stats.udp_tx.bytes,
                    bytes_received: stats.udp_rx.bytes,
                    streams,
                    age,
                }
            }
            #[cfg(unix)]
            Link::Socket(_) => ConnectionStats { streams, age, ..ConnectionStats::default() },
            #[cfg(any(test, feature = "testing"))]
            Link::Memory(_) => ConnectionStats { streams, age, ..ConnectionStats::default() },
        }
    }

    /// Notes that a stream uses it.
    pub(super) fn enter(&self) -> InUse {
        InUse::new(self.clone())
    }

    /// Returns the peer's IP address, unless a relay carries the connection.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.path().address.parse().ok()
    }

    /// What came of the peer, as far as the transport counts it: more of it is a sign of life. Only what could be
    /// decrypted counts, not datagrams: a machine that was started anew answers each packet of a connection that it does
    /// not know, and anybody can send some.
    pub(super) fn received(&self) -> u64 {
        match &self.0.link {
            Link::Quic(connection) => {
                let frames = connection.stats().frame_rx;
                [frames.acks, frames.path_acks, frames.ping, frames.stream, frames.path_response]
                    .iter()
                    .fold(0, |sum, count| sum.saturating_add(*count))
            }
            #[cfg(unix)]
            Link::Socket(_) => 0,
            #[cfg(any(test, feature = "testing"))]
            Link::Memory(_) => 0,
        }
    }

    pub(super) fn rtt(&self) -> Duration {
        self.path().rtt
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

    /// Why a stream of it failed.
    pub(super) fn failure(&self) -> P2pError {
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
    pub(super) fn is_lost(&self) -> bool {
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

    fn describe(&self, error: &ConnectionError) -> P2pError {
        describe(self.0.peer, error)
    }
}

/// Says what a connection's end means.
pub(super) fn describe(peer: Id52, error: &ConnectionError) -> P2pError {
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

impl PathView {
    /// The way of this device to itself.
    pub(crate) fn here() -> Self {
        Self { address: "this device".to_owned(), relayed: false, rtt: Duration::ZERO }
    }

    fn unknown() -> Self {
        Self { address: "unknown".to_owned(), relayed: false, rtt: Duration::ZERO }
    }
}
