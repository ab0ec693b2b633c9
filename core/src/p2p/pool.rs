//! One warm connection for each peer.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use malai_model::id::Id52;
use tokio::time::Instant;

use super::connection::{CloseReason, Connection, ConnectionStats, PathView};
use super::endpoint::Endpoint;
use super::error::P2pError;
use super::health::{LOOK_EVERY, Pulse};
use super::options::Protocol;
use super::redial::jittered;
use crate::task::Scope;
use crate::timeouts;

/// The pause after an attempt by which nobody could be reached, and the longest one after several.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Keeps connections open for the next call: setting one up costs more than the call.
///
/// Cloning gives another handle.
#[derive(Debug, Clone)]
pub struct Pool {
    endpoint: Arc<Endpoint>,
    slots: Arc<Mutex<HashMap<Id52, Slot>>>,
}

/// A peer's place.
type Slot = Arc<Place>;

#[derive(Debug, Default)]
struct Place {
    /// Whoever holds it asks or connects; others wait for what comes of it. In it: what came of it last, if nothing.
    dialling: tokio::sync::Mutex<Option<Failed>>,
    /// Readable meanwhile.
    warm: Mutex<Option<Warm>>,
}

/// Attempts in a row by which nobody could be reached.
#[derive(Debug)]
struct Failed {
    /// When the last of them ended.
    at: Instant,
    error: P2pError,
    times: u32,
    /// Where it was looked for beside what is found out.
    hints: Vec<String>,
}

impl Failed {
    /// What an attempt leaves behind: only that nobody could be reached counts.
    fn after(before: Option<&Self>, error: P2pError, hints: &[String]) -> Option<Self> {
        let times = before.map_or(1, |failed| failed.times.saturating_add(1));
        let is_unreachable = matches!(error, P2pError::Unreachable { .. });
        is_unreachable.then(|| Self { at: Instant::now(), error, times, hints: hints.to_vec() })
    }

    /// Whether it answers a call, too: one that has waited for it, and that knows of no other place to look.
    fn answers(&self, begun: Instant, hints: &[String]) -> bool {
        self.at > begun && hints.iter().all(|hint| self.hints.contains(hint))
    }

    /// For how long no further attempt begins: a script that asks again and again keeps neither this device nor the
    /// network busy, and a person notices nothing.
    fn pause(&self) -> Duration {
        let pause = PAUSES.0 * 2_u32.saturating_pow(self.times.saturating_sub(1).min(8));
        (self.at + jittered(pause.min(PAUSES.1))).saturating_duration_since(Instant::now())
    }
}

impl Place {
    fn warm(&self) -> MutexGuard<'_, Option<Warm>> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Option<Connection> {
        let warm = self.warm();
        let connection = &warm.as_ref()?.connection;
        (!connection.is_closed()).then(|| connection.clone())
    }

    fn keep(&self, connection: &Connection) {
        let pulse = Pulse::of(connection);
        let (connection, used) = (connection.clone(), Instant::now());
        *self.warm() = Some(Warm { connection, used, pulse, watched: Watched::No });
    }

    /// Whether a connection is the one that is handed out.
    fn has(&self, connection: &Connection) -> bool {
        self.open().is_some_and(|open| open.is_same(connection))
    }

    /// Does something with a connection's entry, if it is still here.
    fn with<T>(&self, connection: &Connection, act: impl FnOnce(&mut Warm) -> T) -> Option<T> {
        self.warm().as_mut().filter(|warm| warm.connection.is_same(connection)).map(act)
    }
}

#[derive(Debug)]
struct Warm {
    connection: Connection,
    used: Instant,
    pulse: Pulse,
    /// Whether somebody watches whether it lives, after it was handed out unasked.
    watched: Watched,
}

/// Whether it is found out beside whether a connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    No,
    Once,
    /// And once more when that is done: somebody took it up meanwhile.
    OnceMore,
}

impl Watched {
    /// One watch is over.
    fn next(&mut self) -> Self {
        *self = if *self == Self::OnceMore { Self::Once } else { Self::No };
        *self
    }
}

/// A pooled connection, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionView {
    /// Who is on the other end.
    pub peer: Id52,
    /// How the bytes travel.
    pub path: PathView,
    /// What it has carried.
    pub stats: ConnectionStats,
}

impl Pool {
    /// Makes an empty pool; its sweeping task belongs to the scope.
    pub fn new(endpoint: Arc<Endpoint>, scope: &Scope) -> Self {
        let pool = Self { endpoint, slots: Arc::default() };
        let slots = Arc::downgrade(&pool.slots);
        scope.spawn_until_stop("pool", async move {
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            loop {
                ticks.tick().await;
                let Some(slots) = slots.upgrade() else { return };
                sweep(&slots, timeouts::POOL_IDLE);
            }
        });
        pool
    }

    /// Returns the connection to a member, making one if there is none alive. Many callers at once make one, and if
    /// the peer cannot be reached, whoever waited for that attempt gets its failure instead of trying again in turn.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    ///
    /// # Cancel safety
    /// A cancelled call leaves the next one to connect.
    pub async fn get(
        &self,
        peer: Id52,
        hints: &[String],
        deadline: Duration,
    ) -> Result<Connection, P2pError> {
        let slot = self.lock().entry(peer).or_default().clone();
        let begun = Instant::now();
        let Ok(mut failed) = tokio::time::timeout(deadline, slot.dialling.lock()).await else {
            let tried = vec!["another attempt, still under way".to_owned()];
            return Err(P2pError::Unreachable { peer, tried, after: deadline });
        };
        let left = || deadline.saturating_sub(begun.elapsed());
        let mut slow = None;
        if let Some(connection) = slot.open() {
            let fresh = slot.warm().as_mut().is_some_and(|warm| {
                let fresh = warm.pulse.is_fresh(&connection);
                if fresh {
                    warm.used = Instant::now();
                }
                fresh
            });
            if fresh {
                self.watch(peer, hints, &slot, &connection);
                return Ok(connection);
            }
            let patience = connection.patience().min(left());
            if answers_in_time(&connection, patience).await {
                slot.keep(&connection);
                return Ok(connection);
            }
            slow = Some(connection).filter(|slow| !slow.is_closed());
        }
        if let Some(failed) = failed.as_ref().filter(|failed| failed.answers(begun, hints)) {
            return Err(failed.error.clone());
        }
        if let Some(failed) = failed.as_ref() {
            // Not the failure of before: who asks anew may know that the machine is there now.
            tokio::time::sleep(failed.pause().min(left() / 2)).await;
        }
        let connect = self.endpoint.connect(peer, Protocol::Member, hints, left());
        let connected = match slow {
            None => connect.await,
            // It may be slow, or dead: whichever answers first.
            Some(slow) => either(connect, &slow, left).await,
        };
        match connected {
            Ok(connection) => {
                slot.keep(&connection);
                *failed = None;
                Ok(connection)
            }
            Err(error) => {
                *slot.warm() = None;
                *failed = Failed::after(failed.as_ref(), error.clone(), hints);
                Err(error)
            }
        }
    }

    /// Finds out beside whether a connection lives that was handed out unasked.
    fn watch(&self, peer: Id52, hints: &[String], slot: &Slot, connection: &Connection) {
        let begins = slot.with(connection, |warm| {
            warm.watched = if warm.watched == Watched::No { Watched::Once } else { Watched::OnceMore };
            warm.watched == Watched::Once
        });
        if begins != Some(true) {
            return;
        }
        let (pool, slot, connection, hints) =
            (self.clone(), slot.clone(), connection.clone(), hints.to_vec());
        connection.scope().clone().spawn_until_stop("watch", async move {
            let mut goes_on = true;
            while goes_on {
                if !connection.is_heard().await && !connection.is_closed() {
                    pool.replace_if_silent(peer, &hints, &slot, &connection).await;
                }
                // What was heard may have come before whoever took it up since had sent anything.
                goes_on = slot
                    .with(&connection, |warm| warm.watched.next())
                    .is_some_and(|next| next != Watched::No);
            }
        });
    }

    /// Asks a connection of which nothing is heard, and replaces it if it is silent. It is given up if another one could
    /// be made and its peer does not know it: else the way may be away for a moment, and the transport decides.
    async fn replace_if_silent(&self, peer: Id52, hints: &[String], slot: &Slot, silent: &Connection) {
        if answers_in_time(silent, silent.patience()).await {
            return;
        }
        tracing::debug!(%peer, "nothing is heard of a connection: another one is tried");
        slot.with(silent, |warm| warm.pulse.doubt());
        let mut failed = slot.dialling.lock().await;
        // Whoever was here before has made another one.
        if slot.has(silent) {
            let begun = Instant::now();
            let left = || timeouts::CONNECT.saturating_sub(begun.elapsed());
            let connect = self.endpoint.connect(peer, Protocol::Member, hints, timeouts::CONNECT);
            match either(connect, silent, left).await {
                Ok(connection) => slot.keep(&connection),
                Err(error) => {
                    tracing::debug!(%peer, %error, "no other connection can be made");
                    // Who waited for this attempt shares it.
                    *failed = Failed::after(failed.as_ref(), error, hints);
                    return;
                }
            }
            *failed = None;
        }
        drop(failed);
        // A peer that answers on one way and does not on the other has forgotten that. That there is no connection at all
        // says nothing of this one.
        let another = slot.warm().as_ref().is_some_and(|warm| !warm.connection.is_same(silent));
        if another && !answers_in_time(silent, silent.patience()).await && !silent.is_closed() {
            tracing::info!(%peer, "a connection is given up: its peer does not know it any more");
            silent.give_up();
        }
    }

    /// Returns the connection to a peer that is open now, if there is one; never dials.
    pub fn open(&self, peer: &Id52) -> Option<Connection> {
        let slot = self.lock().get(peer)?.clone();
        slot.open()
    }

    /// Drops a peer's connection, so that the next call makes a new one; streams that are open go on.
    pub fn forget(&self, peer: &Id52) {
        self.lock().remove(peer);
    }

    /// Lists the connections that are alive.
    pub fn connections(&self) -> Vec<ConnectionView> {
        let slots: Vec<(Id52, Slot)> = self.lock().iter().map(|(peer, slot)| (*peer, slot.clone())).collect();
        let mut views: Vec<ConnectionView> = slots
            .iter()
            .filter_map(|(peer, slot)| {
                let connection = slot.open()?;
                Some(ConnectionView { peer: *peer, path: connection.path(), stats: connection.stats() })
            })
            .collect();
        views.sort_by_key(|view| view.peer);
        views
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id52, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answers_in_time(connection: &Connection, patience: Duration) -> bool {
    tokio::time::timeout(patience, connection.answers()).await.is_ok_and(|alive| alive)
}

/// A new connection or the one that is slow, whichever comes first; where no new one can be made, as on a network that
/// is away for a moment, the slow one has the rest of the time.
async fn either(
    connect: impl Future<Output = Result<Connection, P2pError>>,
    slow: &Connection,
    left: impl Fn() -> Duration,
) -> Result<Connection, P2pError> {
    let (mut connect, mut answers) = (pin!(connect), pin!(slow.answers()));
    tokio::select! {
        connected = &mut connect => match connected {
            Err(error @ P2pError::Unreachable { .. }) => match tokio::time::timeout(left(), answers).await {
                Ok(true) => Ok(slow.clone()),
                Ok(false) | Err(_) => Err(error),
            },
            connected => connected,
        },
        alive = &mut answers => if alive { Ok(slow.clone()) } else { connect.await },
    }
}

/// Closes what nobody has used for so long, and forgets what is dead.
fn sweep(slots: &Mutex<HashMap<Id52, Slot>>, idle: Duration) {
    slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, slot| {
        // Locked: somebody is connecting.
        let Ok(_dialling) = slot.dialling.try_lock() else { return true };
        let mut place = slot.warm();
        let keep = place.as_mut().is_some_and(|warm| {
            warm.pulse.look(&warm.connection);
            let used = !warm.connection.is_unused() || warm.used.elapsed() < idle;
            used && !warm.connection.is_closed()
        });
        if !keep && let Some(warm) = place.take() {
            warm.connection.close(CloseReason::normal());
        }
        keep
    });
}

#[cfg(test)]
mod tests;
