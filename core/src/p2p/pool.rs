//! One warm connection for each peer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use malai_model::id::Id52;
use tokio::time::Instant;

use super::connection::{CloseReason, Connection, ConnectionStats, PathView};
use super::endpoint::Endpoint;
use super::error::P2pError;
use super::health::{LOOK_EVERY, Pulse};
use super::options::Protocol;
use crate::task::Scope;
use crate::timeouts;

/// Keeps connections open for the next call: setting one up costs more than the call.
///
/// Cloning gives another handle.
#[derive(Debug, Clone)]
pub struct Pool {
    endpoint: Arc<Endpoint>,
    slots: Arc<Mutex<HashMap<Id52, Slot>>>,
}

/// A peer's place. Whoever holds the lock connects; others wait for what comes of it.
type Slot = Arc<tokio::sync::Mutex<Place>>;

#[derive(Debug, Default)]
struct Place {
    warm: Option<Warm>,
    /// When and why nobody could be reached.
    failed: Option<(Instant, P2pError)>,
}

#[derive(Debug)]
struct Warm {
    connection: Connection,
    used: Instant,
    pulse: Pulse,
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
        let Ok(mut place) = tokio::time::timeout(deadline, slot.lock()).await else {
            let tried = vec!["another attempt, still under way".to_owned()];
            return Err(P2pError::Unreachable { peer, tried, after: deadline });
        };
        if let Some(warm) = place.warm.as_mut().filter(|warm| !warm.connection.is_closed())
            && (warm.pulse.is_fresh(&warm.connection) || Self::answers_in_time(warm).await)
        {
            warm.used = Instant::now();
            return Ok(warm.connection.clone());
        }
        if let Some((_, error)) = place.failed.as_ref().filter(|(at, _)| *at > begun) {
            return Err(error.clone());
        }
        let left = || deadline.saturating_sub(begun.elapsed());
        let connect = self.endpoint.connect(peer, Protocol::Member, hints, left());
        let connected = match place.warm.take().filter(|warm| !warm.connection.is_closed()) {
            None => connect.await,
            // It may be slow, or dead: whichever answers first.
            Some(slow) => tokio::select! {
                connected = connect => connected,
                connection = still_answers(&slow.connection) => Ok(connection),
            },
        };
        match connected {
            Ok(connection) => {
                let pulse = Pulse::of(&connection);
                let warm = Warm { connection: connection.clone(), used: Instant::now(), pulse };
                *place = Place { warm: Some(warm), failed: None };
                Ok(connection)
            }
            Err(error) => {
                place.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn answers_in_time(warm: &mut Warm) -> bool {
        let patience = warm.connection.patience();
        let answered =
            tokio::time::timeout(patience, warm.connection.answers()).await.is_ok_and(|alive| alive);
        if answered {
            warm.pulse.heard();
        }
        answered
    }

    /// Returns the connection to a peer that is open now, if there is one; never dials.
    pub fn open(&self, peer: &Id52) -> Option<Connection> {
        let slot = self.lock().get(peer)?.clone();
        let place = slot.try_lock().ok()?;
        let connection = &place.warm.as_ref()?.connection;
        (!connection.is_closed()).then(|| connection.clone())
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
                let place = slot.try_lock().ok()?;
                let connection = &place.warm.as_ref()?.connection;
                (!connection.is_closed()).then(|| ConnectionView {
                    peer: *peer,
                    path: connection.path(),
                    stats: connection.stats(),
                })
            })
            .collect();
        views.sort_by_key(|view| view.peer);
        views
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id52, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when the peer answers; never if the connection is over.
async fn still_answers(connection: &Connection) -> Connection {
    if !connection.answers().await {
        std::future::pending::<()>().await;
    }
    connection.clone()
}

/// Closes what nobody has used for so long, and forgets what is dead.
fn sweep(slots: &Mutex<HashMap<Id52, Slot>>, idle: Duration) {
    slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, slot| {
        // Locked: somebody is connecting.
        let Ok(mut place) = slot.try_lock() else { return true };
        let keep = place.warm.as_mut().is_some_and(|warm| {
            warm.pulse.look(&warm.connection);
            let used = !warm.connection.is_unused() || warm.used.elapsed() < idle;
            used && !warm.connection.is_closed()
        });
        if !keep && let Some(warm) = place.warm.take() {
            warm.connection.close(CloseReason::normal());
        }
        keep
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::p2p::tests::{PATIENCE, Two, soon};

    #[tokio::test]
    async fn a_connection_that_nobody_uses_expires_and_one_in_use_stays() {
        let (two, _network) = Two::memory().await;
        let Two { scope, caller, server } = two;
        let pool = Pool::new(Arc::new(caller), &scope);
        let held = soon(pool.get(server.id52(), &[], PATIENCE)).await.expect("connects");
        let theirs = soon(server.accept()).await.expect("accepts");
        sweep(&pool.slots, Duration::ZERO);
        assert_eq!(pool.connections().len(), 1, "a handle is out");
        let stream = held.open_stream().await.expect("opens");
        drop(held);
        sweep(&pool.slots, Duration::ZERO);
        assert_eq!(pool.connections().len(), 1, "a stream is open");
        assert_eq!(pool.connections()[0].stats.streams, 1);
        drop(stream);
        assert_eq!(pool.connections()[0].stats.streams, 0);
        sweep(&pool.slots, Duration::ZERO);
        assert!(pool.connections().is_empty());
        soon(theirs.closed()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_attempt_that_fails_shares_its_failure_and_a_later_call_tries_anew() {
        let (two, network) = Two::memory().await;
        let Two { scope, caller, server } = two;
        let (us, peer) = (caller.id52(), server.id52());
        network.partition(us, peer);
        let pool = Pool::new(Arc::new(caller), &scope);
        let deadline = Duration::from_secs(5);
        let begun = Instant::now();
        let calls = (
            pool.get(peer, &[], deadline),
            pool.get(peer, &[], deadline * 2),
            pool.get(peer, &[], deadline * 3),
        );
        let (first, second, third) = tokio::join!(calls.0, calls.1, calls.2);
        for failed in [first, second, third] {
            assert!(matches!(failed, Err(P2pError::Unreachable { .. })), "{failed:?}");
        }
        assert!(begun.elapsed() < deadline + Duration::from_secs(1), "{:?}", begun.elapsed());
        network.heal(us, peer);
        soon(pool.get(peer, &[], deadline)).await.expect("connects");
        drop(server);
    }

    /// Answers pings on every connection that is accepted.
    fn answer(scope: &Scope, server: Endpoint) {
        let outer = scope.clone();
        let scope = scope.clone();
        outer.spawn_until_stop("server", async move {
            while let Some(connection) = server.accept().await {
                scope.spawn_until_stop("answers", async move {
                    while let Ok(mut stream) = connection.accept_stream().await {
                        let asked = stream.receiver.message::<malai_model::wire::Request>().await;
                        assert!(matches!(asked, Ok(Some(malai_model::wire::Request::Ping {}))), "{asked:?}");
                        let version = "test".to_owned();
                        let pong = malai_model::wire::Notice::Pong { version };
                        stream.sender.finish_with(&pong).await.expect("answers");
                    }
                });
            }
        });
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_that_answers_is_kept_and_one_that_is_dead_is_replaced() {
        let (two, network) = Two::memory().await;
        let (caller, server) = (two.caller.id52(), two.server.id52());
        answer(&two.scope, two.server);
        let pool = Pool::new(Arc::new(two.caller), &two.scope);
        let get = || pool.get(server, &[], PATIENCE);
        let first = get().await.expect("connects");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let second = get().await.expect("is there");
        assert!(second.is_same(&first), "it answered");
        network.silence(caller, server);
        assert!(get().await.expect("is there").is_same(&first), "it was heard of just now");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let begun = Instant::now();
        let third = get().await.expect("connects again");
        assert!(!third.is_same(&first) && !first.is_closed());
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(get().await.expect("is there").is_same(&third));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_nobody_reaches_any_more_is_told_as_unreachable_in_time() {
        let (two, network) = Two::memory().await;
        let (caller, server) = (two.caller.id52(), two.server.id52());
        answer(&two.scope, two.server);
        let pool = Pool::new(Arc::new(two.caller), &two.scope);
        let first = pool.get(server, &[], PATIENCE).await.expect("connects");
        tokio::time::sleep(Duration::from_secs(5)).await;
        network.partition(caller, server);
        let begun = Instant::now();
        let deadline = Duration::from_secs(3);
        let error = pool.get(server, &[], deadline).await.expect_err("nothing passes");
        assert!(matches!(error, P2pError::Unreachable { .. }), "{error}");
        assert!(begun.elapsed() <= deadline + Duration::from_millis(10), "{:?}", begun.elapsed());
        network.heal(caller, server);
        let again = pool.get(server, &[], PATIENCE).await.expect("connects");
        assert!(!again.is_same(&first));
    }
}
