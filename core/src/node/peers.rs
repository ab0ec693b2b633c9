//! Last known addresses of peers: hints, kept in memory, written now and then, never trusted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use malai_model::id::Id52;

use crate::home::{Home, Peers};

/// `peers.json`, in memory.
pub(crate) struct PeerBook {
    peers: Mutex<Peers>,
    dirty: AtomicBool,
}

impl PeerBook {
    pub(crate) fn load(home: &Home) -> Self {
        Self { peers: Mutex::new(home.load_peers()), dirty: AtomicBool::new(false) }
    }

    /// Where a peer was last seen, `ip:port`.
    pub(crate) fn hints(&self, peer: &Id52) -> Vec<String> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers
            .hint(peer)
            .map(|hint| hint.addresses.iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    }

    pub(crate) fn remember(&self, peer: &Id52, address: SocketAddr, now: Timestamp) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.insert(*peer, &[address], now) {
            self.dirty.store(true, Ordering::Release);
        }
    }

    /// The port that one of our identities had last: taking it again keeps the hints of others true.
    pub(crate) fn own_port(&self, id52: &Id52) -> Option<u16> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).own_port(id52)
    }

    pub(crate) fn set_own_port(&self, id52: &Id52, port: u16) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.set_own_port(*id52, port) {
            self.dirty.store(true, Ordering::Release);
        }
    }

    /// Writes what is new. Failing costs only hints: it is logged.
    pub(crate) fn flush(&self, home: &Home) {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return;
        }
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Hints are not worth waiting for another process: what is not written now may be next time.
        let saved = home.try_lock_for_writing().and_then(|guard| match guard {
            Some(guard) => home.save_peers(&guard, &peers).map(|_| ()),
            None => {
                self.dirty.store(true, Ordering::Release);
                Ok(())
            }
        });
        if let Err(error) = saved {
            tracing::warn!(%error, "the last known addresses of peers could not be kept");
        }
    }
}
