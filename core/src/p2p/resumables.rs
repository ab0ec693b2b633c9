//! The streams of this device that their callers may go on with after a lost connection.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use malai_model::id::Id52;
use malai_model::wire::{LaneState, ResumeToken};
use tokio::time::Instant;

use super::error::P2pError;
use super::stream::{ResumeHandle, Stream, refuse};

/// How many streams one peer may have kept: more than it may have requests.
const MOST_OF_A_PEER: usize = 1024;
/// For how long a name is remembered that a peer was told to be unknown: longer than its request can have been under way
/// on a connection that it took for lost.
const DISOWNED_FOR: Duration = Duration::from_secs(60);
/// How many such names are remembered of one peer: as many as it may have been under way with.
const MOST_DISOWNED: usize = MOST_OF_A_PEER;

/// The streams that are kept, by who opened them and what that peer calls them: nobody else can name them.
///
/// Cloning gives another handle.
#[derive(Clone, Default)]
pub struct Resumables(Arc<Mutex<HashMap<Id52, OfPeer>>>);

#[derive(Default)]
struct OfPeer {
    kept: HashMap<ResumeToken, ResumeHandle>,
    /// What the peer was told to be unknown here, oldest first, and until when that holds.
    disowned: VecDeque<(ResumeToken, Instant)>,
}

impl OfPeer {
    fn disown(&mut self, token: ResumeToken) {
        self.forget();
        if self.disowned.len() >= MOST_DISOWNED {
            self.disowned.pop_front();
        }
        self.disowned.push_back((token, Instant::now() + DISOWNED_FOR));
    }

    fn has_disowned(&mut self, token: &ResumeToken) -> bool {
        self.forget();
        self.disowned.iter().any(|(disowned, _)| disowned == token)
    }

    fn forget(&mut self) {
        let now = Instant::now();
        while self.disowned.front().is_some_and(|(_, until)| *until <= now) {
            self.disowned.pop_front();
        }
    }
}

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
    /// with its connection as ever, if the peer has a stream of that name already or too many, or `linger` is nothing.
    ///
    /// # Errors
    /// [`P2pError::StreamUnknown`] if the peer was told that just before: its request came late, and it has given up what
    /// it asked for. Nothing of that may begin any more.
    pub fn keep(
        &self,
        peer: Id52,
        token: ResumeToken,
        stream: &Stream,
        linger: Duration,
    ) -> Result<Option<Kept>, P2pError> {
        let mut all = self.lock();
        let of_peer = all.entry(peer).or_default();
        if of_peer.has_disowned(&token) {
            return Err(P2pError::StreamUnknown);
        }
        if linger.is_zero() || of_peer.kept.len() >= MOST_OF_A_PEER || of_peer.kept.contains_key(&token) {
            return Ok(None);
        }
        of_peer.kept.insert(token.clone(), stream.resumable(linger));
        Ok(Some(Kept { resumables: self.clone(), peer, token }))
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
        let handle = {
            let mut all = self.lock();
            let of_peer = all.entry(*peer).or_default();
            let handle = of_peer.kept.get(token).cloned();
            if handle.is_none() {
                of_peer.disown(token.clone());
            }
            handle
        };
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
        self.lock().get(peer).is_some_and(|of_peer| !of_peer.kept.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id52, OfPeer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut all = self.resumables.lock();
        if let Some(of_peer) = all.get_mut(&self.peer) {
            of_peer.kept.remove(&self.token);
            of_peer.forget();
            if of_peer.kept.is_empty() && of_peer.disowned.is_empty() {
                all.remove(&self.peer);
            }
        }
    }
}
