//! Taking the raw bytes out of a stream of which nothing was used but, at most, a first message.

use bytes::Bytes;

use super::{Stream, lock};
use crate::p2p::connection::InUse;
use crate::p2p::error::P2pError;
use crate::p2p::raw::{RawRecv, RawSend};

/// What a stream ran over.
#[derive(Debug)]
pub(in crate::p2p) struct RawHalves {
    pub(in crate::p2p) connection: InUse,
    pub(in crate::p2p) send: RawSend,
    pub(in crate::p2p) recv: RawRecv,
    /// Framed, and to be written before anything else.
    pub(in crate::p2p) framed: Vec<Bytes>,
}

impl Stream {
    /// Takes the raw halves out. What the stream knew of offsets and credit is gone with it.
    ///
    /// # Errors
    /// What ended the stream before, or [`P2pError::Malformed`] if more came than was taken.
    pub(in crate::p2p) fn into_raw(self) -> Result<RawHalves, P2pError> {
        let shared = &self.sender.shared;
        let mut reader = lock(&shared.reader);
        let queue = lock(&shared.queue);
        let mut out = lock(&shared.out);
        if let Some(error) = queue.failed() {
            return Err(error);
        }
        out.check()?;
        if !reader.is_between_frames() || !queue.items.is_empty() {
            return Err(P2pError::Malformed { reason: "more came than belongs there".to_owned() });
        }
        drop(queue);
        Ok(RawHalves {
            connection: shared.connection().enter(),
            recv: reader.detach(),
            send: out.detach(),
            framed: out.take_framed(),
        })
    }
}
