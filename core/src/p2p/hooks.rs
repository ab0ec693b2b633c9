//! Who is let in: decided when the handshake has proved who it is, before any stream is accepted.

use std::fmt;
use std::sync::Arc;

use iroh::endpoint::{AfterHandshakeOutcome, EndpointHooks, Side, VarInt};
use malai_model::id::Id52;

use super::connection::Counters;
use super::error::CLOSE_NOT_ADMITTED;
use super::{Admission, Protocol};

/// Asks the [`Admission`] about each incoming connection.
pub(super) struct Gate {
    pub(super) admission: Arc<dyn Admission>,
    pub(super) counters: Arc<Counters>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    pub(super) fn admits(&self, peer: Option<Id52>, protocol: Option<Protocol>) -> bool {
        let admitted = match (peer, protocol) {
            (Some(peer), Some(protocol)) => self.admission.admits(&peer, protocol),
            _ => false,
        };
        if !admitted {
            self.counters.count_refused();
            let peer = peer.map(|peer| peer.to_string());
            tracing::debug!(peer, "a connection was refused: unknown, or no rights here");
        }
        admitted
    }
}

impl EndpointHooks for Gate {
    async fn after_handshake(&self, connection: &iroh::endpoint::Connection) -> AfterHandshakeOutcome {
        if connection.side() == Side::Client {
            return AfterHandshakeOutcome::Accept;
        }
        let peer = Id52::from_bytes(*connection.remote_id().as_bytes()).ok();
        if self.admits(peer, Protocol::from_alpn(connection.alpn())) {
            return AfterHandshakeOutcome::Accept;
        }
        AfterHandshakeOutcome::Reject {
            error_code: VarInt::from_u32(CLOSE_NOT_ADMITTED),
            // Says nothing that a stranger could use.
            reason: b"not admitted".to_vec(),
        }
    }
}
