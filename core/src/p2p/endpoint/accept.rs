//! The accepting side of an endpoint: handshakes, and how many of them there may be at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use malai_model::id::Id52;
use tokio::sync::mpsc;

use crate::p2p::connection::{CloseReason, Connection, Counters, Link};
use crate::p2p::options::Protocol;
use crate::task::Scope;
use crate::timeouts;

/// Handshakes under way at once; beyond it, callers try again by themselves or time out.
const MAX_HANDSHAKES: usize = 128;
/// Handshakes under way at once of callers that have not shown that their address is theirs. Beyond it a caller has to
/// show it, which costs an honest one a round trip, and one that only sends first packets the whole attempt.
const MAX_UNPROVEN: usize = 32;
/// Handshakes under way at once from one address.
const MAX_FROM_ADDRESS: usize = 64;

/// Takes connections through their handshakes, each in a task of its own: a slow one holds up nobody, nor do many.
pub(super) struct Acceptor {
    quic: iroh::Endpoint,
    accepted: mpsc::Sender<Connection>,
    scope: Scope,
    counters: Arc<Counters>,
    handshakes: Arc<Handshakes>,
}

impl Acceptor {
    /// What is accepted goes to `accepted`; its tasks belong to the scope.
    pub(super) fn new(
        quic: iroh::Endpoint,
        accepted: mpsc::Sender<Connection>,
        scope: Scope,
        counters: Arc<Counters>,
    ) -> Self {
        Self { quic, accepted, scope, counters, handshakes: Arc::default() }
    }

    /// Takes callers until the endpoint is closed.
    pub(super) async fn run(self) {
        while let Some(incoming) = self.quic.accept().await {
            let Some(slot) = self.handshakes.begin(incoming.remote_addr()) else {
                // Without an answer an honest caller sends its first packet again, and may find room then.
                incoming.ignore();
                continue;
            };
            if self.handshakes.under_way() > MAX_UNPROVEN && !incoming.remote_addr_validated() {
                drop(slot);
                if let Err(error) = incoming.retry() {
                    tracing::debug!(%error, "a caller could not be asked to prove its address");
                }
                continue;
            }
            let (accepted, scope, counters) =
                (self.accepted.clone(), self.scope.clone(), self.counters.clone());
            self.scope.spawn_until_stop("handshake", async move {
                let handshake = tokio::time::timeout(timeouts::HANDSHAKE, incoming).await;
                drop(slot);
                match handshake {
                    Ok(Ok(connection)) => {
                        let peer = Id52::from_bytes(*connection.remote_id().as_bytes());
                        if let (Ok(peer), Some(protocol)) = (peer, Protocol::from_alpn(connection.alpn())) {
                            let connection =
                                Connection::new(Link::Quic(connection), peer, protocol, scope, counters);
                            // Full only where strangers crowd at an invite; closed when the endpoint is being dropped.
                            if let Err(left) = accepted.try_send(connection) {
                                let (mpsc::error::TrySendError::Full(left)
                                | mpsc::error::TrySendError::Closed(left)) = left;
                                left.close(CloseReason::crowded());
                            }
                        }
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
                    Err(_) => tracing::debug!("a handshake took too long"),
                }
            });
        }
    }
}

/// The handshakes under way, by where they come from.
#[derive(Debug, Default)]
struct Handshakes(Mutex<HashMap<Source, usize>>);

/// Where a handshake comes from. Callers through a relay are told apart by nothing that they could not invent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Ip(IpAddr),
    Elsewhere,
}

/// A handshake under way, until it is dropped.
#[derive(Debug)]
struct HandshakeSlot {
    handshakes: Arc<Handshakes>,
    source: Source,
}

impl Handshakes {
    /// Takes a slot; none if too many are under way, in all or from there.
    fn begin(self: &Arc<Self>, from: iroh::endpoint::IncomingAddr) -> Option<HandshakeSlot> {
        let source = match from {
            iroh::endpoint::IncomingAddr::Ip(address) => Source::Ip(address.ip()),
            _ => Source::Elsewhere,
        };
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, there) = (open.values().sum::<usize>(), open.get(&source).copied().unwrap_or(0));
        let most = if source == Source::Elsewhere { MAX_HANDSHAKES } else { MAX_FROM_ADDRESS };
        if all >= MAX_HANDSHAKES || there >= most {
            return None;
        }
        open.insert(source, there + 1);
        Some(HandshakeSlot { handshakes: Arc::clone(self), source })
    }

    fn under_way(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        let mut open = self.handshakes.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}
