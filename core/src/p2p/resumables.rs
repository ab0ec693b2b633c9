//! The streams of this device that their callers may go on with after a lost connection.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use malai_model::id::Id52;
use malai_model::wire::{LaneState, ResumeToken};

use super::error::P2pError;
use super::stream::{ResumeHandle, Stream, refuse};

/// How many streams one peer may have kept: more than it may have requests.
const MOST_OF_A_PEER: usize = 1024;

/// The streams that are kept, by who opened them and what that peer calls them: nobody else can name them.
///
/// Cloning gives another handle.
#[derive(Clone, Default)]
pub struct Resumables(Arc<Mutex<HashMap<Id52, HashMap<ResumeToken, ResumeHandle>>>>);

/// Keeps a stream's entry; dropping it makes the stream unknown to its caller.
pub struct Kept {
    resumables: Resumables,
    peer: Id52,
    token: ResumeToken,
}

impl fmt::Debug for Resumables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumables").finish_non_exhaustive()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Resumables {
    /// Makes a stream that a peer opened resumable, under the name that the peer gave it. `None`, and the stream ends
    /// with its connection as ever, if the peer has a stream of that name already or too many.
    pub fn keep(&self, peer: Id52, token: ResumeToken, stream: &Stream, linger: Duration) -> Option<Kept> {
        let mut all = self.lock();
        let of_peer = all.entry(peer).or_default();
        if of_peer.len() >= MOST_OF_A_PEER || of_peer.contains_key(&token) {
            return None;
        }
        of_peer.insert(token.clone(), stream.resumable(linger));
        Some(Kept { resumables: self.clone(), peer, token })
    }

    /// Goes on with a stream of this very peer over a fresh one, on which the peer has said how far it came. A peer
    /// that asks for what is not kept is told so.
    ///
    /// # Errors
    /// [`P2pError::StreamUnknown`], or [`P2pError::Malformed`] if the peer cannot have come so far: then the stream is
    /// over.
    pub fn resume(
        &self,
        peer: &Id52,
        token: &ResumeToken,
        fresh: Stream,
        lanes: &[LaneState; 3],
    ) -> Result<(), P2pError> {
        let handle = self.lock().get(peer).and_then(|of_peer| of_peer.get(token)).cloned();
        match handle {
            Some(handle) => handle.accept(fresh, lanes),
            None => {
                refuse(fresh);
                Err(P2pError::StreamUnknown)
            }
        }
    }

    /// Says whether a peer has a stream that it could go on with.
    pub fn has(&self, peer: &Id52) -> bool {
        self.lock().contains_key(peer)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id52, HashMap<ResumeToken, ResumeHandle>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut all = self.resumables.lock();
        if let Some(of_peer) = all.get_mut(&self.peer) {
            of_peer.remove(&self.token);
            if of_peer.is_empty() {
                all.remove(&self.peer);
            }
        }
    }
}
