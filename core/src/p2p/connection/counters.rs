//! How often peers broke the rules.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::p2p::error::stream_code;

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

    pub(in crate::p2p) fn count(&self, code: u32) {
        let counter = if code == stream_code::CREDIT { &self.credit } else { &self.malformed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::p2p) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}
