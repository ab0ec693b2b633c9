//! What runs now for others: so that it can be counted, limited, and authorised again when the rules change.

use std::collections::HashMap;
#[cfg(all(feature = "host", unix))]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use malai_model::id::Id52;
use malai_model::name::ClusterAlias;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cluster::LoadedCluster;

/// Requests that a peer may have open beyond the limits to go on with those that lost their connection.
const RESUME_RESERVE: usize = 16;

/// Requests that a manager may have open beyond the limits: for its configs.
const MANAGER_RESERVE: usize = 16;

/// For what a request is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Whatever it wants.
    ForAnything,
    /// To go on with a request that is open already.
    ForResuming,
}

/// Whether an open request is still allowed under given rules.
pub(crate) type StillAllowed = Box<dyn Fn(&LoadedCluster) -> bool + Send + Sync>;

/// The requests that are open now.
pub(crate) struct OpenWork {
    entries: Mutex<Entries>,
    changed: Notify,
    per_peer: AtomicUsize,
    in_all: AtomicUsize,
}

#[derive(Default)]
struct Entries {
    next: u64,
    open: HashMap<u64, Entry>,
    by_peer: HashMap<Id52, usize>,
}

struct Entry {
    cluster: ClusterAlias,
    peer: Id52,
    revoked: CancellationToken,
    allowed: Option<StillAllowed>,
    /// Whether its caller comes back by itself when it ends: a stop does not wait for it.
    returns: bool,
}

/// What an open request was granted, once that is known.
#[cfg(all(feature = "host", unix))]
pub(crate) struct Granted<E>(Arc<OnceLock<E>>);

#[cfg(all(feature = "host", unix))]
impl super::Node {
    /// Notes what was decided by given rules.
    pub(super) fn was_granted<E>(
        &self,
        member: &super::Member,
        by: &Arc<LoadedCluster>,
        granted: &Granted<E>,
        effect: E,
    ) {
        granted.0.get_or_init(|| effect);
        let now = member.loaded();
        if !Arc::ptr_eq(by, &now) {
            // The rules changed before it was known what they granted, so nobody could compare.
            self.inner.work.authorise_again(&now);
        }
    }
}

/// An open request. Dropping it says that it is over.
pub(crate) struct Ticket {
    work: Arc<OpenWork>,
    number: u64,
    /// Cancelled when the right is taken away.
    #[cfg(all(feature = "host", unix))]
    pub(crate) revoked: CancellationToken,
}

impl OpenWork {
    pub(crate) fn new(per_peer: usize, in_all: usize) -> Self {
        Self {
            entries: Mutex::default(),
            changed: Notify::new(),
            per_peer: AtomicUsize::new(per_peer),
            in_all: AtomicUsize::new(in_all),
        }
    }

    /// Changes the limits; what is open stays.
    pub(crate) fn limit(&self, per_peer: usize, in_all: usize) {
        self.per_peer.store(per_peer, Ordering::Relaxed);
        self.in_all.store(in_all, Ordering::Relaxed);
    }

    /// Notes a request of a peer, before anything of it is read. `None` when a limit is reached.
    ///
    /// What members have open never keeps the manager out: the config that ends it would not arrive. Even the manager's
    /// own commands leave room for that.
    pub(crate) fn enter(self: &Arc<Self>, loaded: &LoadedCluster, peer: Id52, room: Room) -> Option<Ticket> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = entries.by_peer.get(&peer).copied().unwrap_or(0);
        let per_peer = self.per_peer.load(Ordering::Relaxed);
        let spare = if room == Room::ForResuming { RESUME_RESERVE } else { 0 };
        let in_all = self.in_all.load(Ordering::Relaxed);
        let fits = if loaded.manager == Some(peer) {
            of_peer < per_peer + MANAGER_RESERVE + spare
        } else {
            of_peer < per_peer + spare && entries.open.len() < in_all + spare
        };
        if !fits {
            return None;
        }
        let number = entries.next;
        entries.next += 1;
        let revoked = CancellationToken::new();
        let entry = Entry {
            cluster: loaded.alias.clone(),
            peer,
            revoked: revoked.clone(),
            allowed: None,
            returns: false,
        };
        entries.open.insert(number, entry);
        entries.by_peer.insert(peer, of_peer + 1);
        Some(Ticket {
            work: Arc::clone(self),
            number,
            #[cfg(all(feature = "host", unix))]
            revoked,
        })
    }

    /// Whether a peer has more requests open than it may have commands.
    #[cfg(all(feature = "host", unix))]
    pub(crate) fn is_over(&self, peer: &Id52) -> bool {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.by_peer.get(peer).copied().unwrap_or(0) > self.per_peer.load(Ordering::Relaxed)
            || entries.open.len() > self.in_all.load(Ordering::Relaxed)
    }

    /// Asks every open request of a cluster whether it is still allowed, and ends those that are not. Returns how many
    /// ended.
    pub(crate) fn authorise_again(&self, loaded: &LoadedCluster) -> usize {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended = 0;
        for entry in entries.open.values().filter(|entry| entry.cluster == loaded.alias) {
            let allowed =
                loaded.admits(&entry.peer) && entry.allowed.as_ref().is_none_or(|allowed| allowed(loaded));
            if !allowed {
                entry.revoked.cancel();
                ended += 1;
            }
        }
        ended
    }

    /// Whether a peer has nothing open.
    pub(crate) fn is_idle(&self, peer: &Id52) -> bool {
        !self.entries.lock().unwrap_or_else(PoisonError::into_inner).by_peer.contains_key(peer)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).open.len()
    }

    /// Waits until nothing is open but what comes back by itself, at most so long.
    pub(crate) async fn finished(&self, at_most: Duration) {
        self.settle(at_most, |entries| entries.open.values().all(|entry| entry.returns)).await;
    }

    /// Waits until nothing of a peer is open, at most so long.
    pub(crate) async fn idle_of(&self, peer: &Id52, at_most: Duration) {
        self.settle(at_most, |entries| !entries.by_peer.contains_key(peer)).await;
    }

    async fn settle(&self, at_most: Duration, done: impl Fn(&Entries) -> bool) {
        let settled = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                // From here on no change is missed.
                changed.as_mut().enable();
                if done(&self.entries.lock().unwrap_or_else(PoisonError::into_inner)) {
                    return;
                }
                changed.await;
            }
        };
        // Whether it ended by itself or not, the caller goes on.
        _ = tokio::time::timeout(at_most, settled).await;
    }
}

/// Only commands stay open for long enough to be authorised again.
#[cfg(all(feature = "host", unix))]
impl Ticket {
    /// Lets the request stay open as long as `decide` gives it what it was granted first, or what that may go on under.
    /// Call it *before* deciding by the rules in force: then a change that comes between is seen by one or the other.
    #[cfg(all(feature = "host", unix))]
    pub(crate) fn allow_as_granted<E: Send + Sync + 'static>(
        &self,
        decide: impl Fn(&LoadedCluster) -> Option<E> + Send + Sync + 'static,
        goes_on_under: fn(&E, &E) -> bool,
    ) -> Granted<E> {
        let granted = Arc::new(OnceLock::new());
        let first = Arc::clone(&granted);
        let allowed = move |loaded: &LoadedCluster| match (decide(loaded), first.get()) {
            (Some(now), Some(first)) => goes_on_under(first, &now),
            (now, None) => now.is_some(),
            (None, Some(_)) => false,
        };
        let mut entries = self.work.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.open.get_mut(&self.number) {
            entry.allowed = Some(Box::new(allowed));
        }
        Granted(granted)
    }

    /// Says that the caller comes back by itself when the request ends: a stop does not wait for it.
    pub(crate) fn returns(&self) {
        let mut entries = self.work.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.open.get_mut(&self.number) {
            entry.returns = true;
        }
        drop(entries);
        self.work.changed.notify_waiters();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut entries = self.work.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.open.remove(&self.number)
            && let Some(count) = entries.by_peer.get_mut(&entry.peer)
        {
            *count -= 1;
            if *count == 0 {
                entries.by_peer.remove(&entry.peer);
            }
        }
        drop(entries);
        self.work.changed.notify_waiters();
    }
}
