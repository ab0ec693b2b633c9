//! How the bytes of a connection travel, and how many there were.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use iroh::TransportAddr;

use super::{Connection, Link};

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

impl Connection {
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

    /// Returns the peer's IP address, unless a relay carries the connection.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.path().address.parse().ok()
    }

    /// What came of the peer, as far as the transport counts it: more of it is a sign of life. Only what could be
    /// decrypted counts, not datagrams: a machine that was started anew answers each packet of a connection that it does
    /// not know, and anybody can send some.
    pub(in crate::p2p) fn received(&self) -> u64 {
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

    pub(in crate::p2p) fn rtt(&self) -> Duration {
        self.path().rtt
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
