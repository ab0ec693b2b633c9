//! How many sessions there may be: of a peer, and in all.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use malai_model::code::ErrorCode;
use malai_model::id::Id52;
use malai_model::wire::{SessionId, WireError};

use crate::node::Node;
use crate::terminal::{EndReason, SessionRecord, Sessions};

/// How many sessions whose program has ended are kept beyond those that may run, of a peer and in all.
const ENDED_KEPT: usize = 64;

/// Sessions that are about to start, by their owner: they count until they run.
#[derive(Debug, Default)]
pub(in crate::node) struct Opening(Mutex<HashMap<Id52, usize>>);

/// Room for a session that is about to start.
pub(super) struct Reserved<'a> {
    opening: &'a Opening,
    peer: Id52,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut opening = self.opening.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = opening.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                opening.remove(&self.peer);
            }
        }
    }
}

impl Node {
    /// Makes room for one more session of a peer. Sessions that nobody is attached to count as any others; those whose
    /// program has ended do not, as long as there are not too many of them, too.
    pub(super) async fn reserve(&self, sessions: &Sessions, peer: Id52) -> Result<Reserved<'_>, WireError> {
        if let Some(reserved) = self.try_reserve(sessions, peer, &BTreeMap::new()) {
            return Ok(reserved);
        }
        // Which have ended they alone know, so they are asked only where it matters.
        let ended = ended(sessions).await;
        let mut own = sessions.records();
        own.retain(|record| record.owner == peer && ended.contains_key(&record.session));
        own.sort_by_key(|record| ended.get(&record.session).copied());
        // Each that ended keeps a process and its screen for a while: the newest are those that somebody may come back to.
        // Another peer's are not this one's to end.
        for record in own.iter().rev().skip(ENDED_KEPT) {
            if let Err(error) = sessions.end(record, EndReason::Asked).await {
                tracing::warn!(session = %record.session, %error, "what is left of a session could not be cleared away");
            }
        }
        self.try_reserve(sessions, peer, &ended).ok_or_else(|| WireError {
            code: ErrorCode::LimitReached,
            message: "start another session: there are as many as may be".to_owned(),
            hint: Some("`malai sessions <machine>` lists yours, and --end ends one".to_owned()),
        })
    }

    fn try_reserve(
        &self,
        sessions: &Sessions,
        peer: Id52,
        ended: &BTreeMap<SessionId, Timestamp>,
    ) -> Option<Reserved<'_>> {
        let limits = &self.device().limits;
        let mut opening = self.inner.opening.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What is being started counts here until it is among those that run.
        let starting = opening.get(&peer).copied().unwrap_or(0);
        let in_all = opening.values().sum::<usize>();
        let records = sessions.records();
        let has_room = |records: &[&SessionRecord], starting: usize, limit: u32| {
            let running = records.iter().filter(|record| !ended.contains_key(&record.session)).count();
            let limit = limit as usize;
            starting + running < limit && starting + records.len() < limit + ENDED_KEPT.max(limit / 4)
        };
        let all: Vec<_> = records.iter().collect();
        let own: Vec<_> = records.iter().filter(|record| record.owner == peer).collect();
        if !has_room(&own, starting, limits.sessions_per_peer) || !has_room(&all, in_all, limits.sessions) {
            return None;
        }
        opening.insert(peer, starting + 1);
        Some(Reserved { opening: &self.inner.opening, peer })
    }
}

/// The sessions whose program has ended, and when they last showed anything.
async fn ended(sessions: &Sessions) -> BTreeMap<SessionId, Timestamp> {
    let mut owners: Vec<_> =
        sessions.records().into_iter().map(|record| (record.cluster, record.owner)).collect();
    owners.sort();
    owners.dedup();
    let mut ended = BTreeMap::new();
    for (cluster, owner) in owners {
        let infos = sessions.list(&cluster, &owner).await;
        ended.extend(
            infos.into_iter().filter(|info| info.ended.is_some()).map(|info| (info.session, info.active)),
        );
    }
    ended
}
