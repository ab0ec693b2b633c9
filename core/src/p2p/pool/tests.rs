use malai_model::wire::{Notice, Request};

use super::*;
use crate::p2p::memory::Network;
use crate::p2p::tests::{PATIENCE, Two, soon};

/// So far away, one way, that a connection is not asked as often as a near one.
const FAR: Duration = Duration::from_millis(40);

/// A pool that has a connection to a peer that answers pings.
struct Connected {
    pool: Pool,
    network: Network,
    us: Id52,
    peer: Id52,
    first: Connection,
    _scope: Scope,
}

impl Connected {
    /// The peer is so far away, one way.
    async fn at(distance: Duration) -> Self {
        let (two, network) = Two::memory().await;
        let Two { scope, caller, server } = two;
        let (us, peer) = (caller.id52(), server.id52());
        answer(&scope, server);
        network.delay(distance);
        let pool = Pool::new(Arc::new(caller), &scope);
        let first = pool.get(peer, &[], PATIENCE).await.expect("connects");
        Self { pool, network, us, peer, first, _scope: scope }
    }

    /// Nobody has used the connection for a while.
    async fn idle(distance: Duration) -> Self {
        let connected = Self::at(distance).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        connected
    }

    async fn get(&self) -> Connection {
        self.pool.get(self.peer, &[], PATIENCE).await.expect("is there, or connects")
    }

    fn slot(&self) -> Slot {
        self.pool.lock().get(&self.peer).expect("has a place").clone()
    }
}

/// Answers pings on every connection that is accepted.
fn answer(scope: &Scope, server: Endpoint) {
    let outer = scope.clone();
    let scope = scope.clone();
    outer.spawn_until_stop("server", async move {
        while let Some(connection) = server.accept().await {
            scope.spawn_until_stop("answers", async move {
                while let Ok(mut stream) = connection.accept_stream().await {
                    let asked = stream.receiver.message::<Request>().await;
                    // Whoever asked may have gone on to something else.
                    let Ok(Some(asked)) = asked else { continue };
                    assert_eq!(asked, Request::Ping {});
                    let version = "test".to_owned();
                    _ = stream.sender.finish_with(&Notice::Pong { version }).await;
                }
            });
        }
    });
}

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
    let calls =
        (pool.get(peer, &[], deadline), pool.get(peer, &[], deadline * 2), pool.get(peer, &[], deadline * 3));
    let (first, second, third) = tokio::join!(calls.0, calls.1, calls.2);
    for failed in [first, second, third] {
        assert!(matches!(failed, Err(P2pError::Unreachable { .. })), "{failed:?}");
    }
    assert!(begun.elapsed() < deadline + Duration::from_secs(1), "{:?}", begun.elapsed());
    network.heal(us, peer);
    soon(pool.get(peer, &[], deadline)).await.expect("connects");
    drop(server);
}

/// As the call to a machine that has just said where it is, while somebody looks for it without knowing that.
#[tokio::test(start_paused = true)]
async fn who_knows_more_than_the_attempt_that_it_waits_for_does_not_share_its_failure() {
    let (two, network) = Two::memory().await;
    let Two { scope, caller, server } = two;
    let (us, peer) = (caller.id52(), server.id52());
    network.partition(us, peer);
    let pool = Pool::new(Arc::new(caller), &scope);
    let deadline = Duration::from_secs(5);
    let known = ["127.0.0.1:1".to_owned()];
    let heal = async {
        tokio::time::sleep(deadline + Duration::from_millis(1)).await;
        network.heal(us, peer);
    };
    let calls = (
        pool.get(peer, &[], deadline),
        pool.get(peer, &[], deadline * 2),
        pool.get(peer, &known, deadline * 3),
    );
    let (first, same, more, ()) = tokio::join!(calls.0, calls.1, calls.2, heal);
    for failed in [first, same] {
        assert!(matches!(failed, Err(P2pError::Unreachable { .. })), "{failed:?}");
    }
    more.expect("tries by itself");
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn attempts_that_fail_pause_longer_and_longer_and_one_that_succeeds_ends_that() {
    let (two, network) = Two::memory().await;
    let Two { scope, caller, server } = two;
    let (us, peer) = (caller.id52(), server.id52());
    answer(&scope, server);
    network.partition(us, peer);
    let pool = Pool::new(Arc::new(caller), &scope);
    let deadline = Duration::from_secs(3);
    let mut took = Vec::new();
    for _ in 0..6 {
        let begun = Instant::now();
        let error = pool.get(peer, &[], deadline).await.expect_err("nothing passes");
        assert!(matches!(error, P2pError::Unreachable { .. }), "{error}");
        let slot = pool.lock().get(&peer).expect("has a place").clone();
        let pause = slot.dialling.lock().await.as_ref().expect("failed").pause();
        took.push((begun.elapsed(), pause));
    }
    assert!(took.iter().all(|(took, _)| *took <= deadline + Duration::from_millis(10)), "{took:?}");
    let pauses: Vec<Duration> = took.iter().map(|(_, pause)| *pause).collect();
    assert!(pauses[0] <= PAUSES.0 * 5 / 4 && pauses[3] >= PAUSES.0 * 5, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= PAUSES.1 * 5 / 4), "{pauses:?}");
    network.heal(us, peer);
    let begun = Instant::now();
    pool.get(peer, &[], deadline).await.expect("connects");
    assert!(begun.elapsed() <= PAUSES.1 * 5 / 4, "{:?}", begun.elapsed());
    let slot = pool.lock().get(&peer).expect("has a place").clone();
    assert!(slot.dialling.lock().await.is_none(), "the next attempt does not wait");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_went_over_to_another_way_is_asked_before_it_is_used() {
    let connected = Connected::at(Duration::ZERO).await;
    let mut pulse = Pulse::of(&connected.first);
    assert!(pulse.is_fresh(&connected.first));
    pulse.pretend_way("192.0.2.1:7");
    assert!(!pulse.is_fresh(&connected.first), "it was heard of on another way");
}

#[tokio::test(start_paused = true)]
async fn a_near_connection_that_was_heard_just_now_is_handed_out_unasked() {
    let near = Connected::at(Duration::ZERO).await;
    // To ask would take its time now.
    near.network.partition(near.us, near.peer);
    let begun = Instant::now();
    assert!(near.get().await.is_same(&near.first));
    assert!(begun.elapsed().is_zero(), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_answers_is_kept_and_one_that_is_dead_is_replaced() {
    let connected = Connected::idle(Duration::ZERO).await;
    let first = &connected.first;
    assert!(connected.get().await.is_same(first), "it answered");
    tokio::time::sleep(Duration::from_secs(5)).await;
    connected.network.silence(connected.us, connected.peer);
    let begun = Instant::now();
    let third = connected.get().await;
    assert!(!third.is_same(first) && !first.is_closed());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(connected.get().await.is_same(&third));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_nobody_reaches_any_more_is_told_as_unreachable_in_time() {
    let connected = Connected::idle(Duration::ZERO).await;
    let Connected { pool, network, us, peer, first, .. } = &connected;
    network.partition(*us, *peer);
    let begun = Instant::now();
    let deadline = Duration::from_secs(3);
    let error = pool.get(*peer, &[], deadline).await.expect_err("nothing passes");
    assert!(matches!(error, P2pError::Unreachable { .. }), "{error}");
    assert!(begun.elapsed() <= deadline + Duration::from_millis(10), "{:?}", begun.elapsed());
    network.heal(*us, *peer);
    assert!(!connected.get().await.is_same(first));
}

#[tokio::test(start_paused = true)]
async fn a_slow_connection_is_shown_while_it_is_asked_and_taken_where_no_other_can_be_made() {
    let Connected { pool, network, us, peer, first, _scope } = Connected::idle(Duration::ZERO).await;
    network.delay(Duration::from_secs(1));
    network.refuse(us, peer);
    let begun = Instant::now();
    let looking = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(pool.open(&peer).is_some_and(|open| open.is_same(&first)), "while it is asked");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(pool.connections().len(), 1, "while another is tried");
    };
    let (again, ()) = tokio::join!(pool.get(peer, &[], Duration::from_secs(20)), looking);
    assert!(again.expect("answers in the end").is_same(&first));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn asking_takes_no_longer_than_the_caller_waits() {
    let connected = Connected::idle(Duration::ZERO).await;
    connected.network.partition(connected.us, connected.peer);
    let (begun, deadline) = (Instant::now(), Duration::from_millis(20));
    connected.pool.get(connected.peer, &[], deadline).await.expect_err("nothing passes");
    assert!(begun.elapsed() < deadline * 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_far_connection_that_is_dead_is_given_up_soon_after_it_was_handed_out() {
    let far = Connected::idle(FAR).await;
    let first = &far.first;
    assert!(far.get().await.is_same(first), "it is far, and was heard of");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!first.is_closed(), "it lives");
    far.network.silence(far.us, far.peer);
    let begun = Instant::now();
    let handed_out = far.get().await;
    assert!(handed_out.is_same(first) && begun.elapsed().is_zero(), "it is not asked first");
    let mut waiting = handed_out.open_stream().await.expect("opens");
    waiting.sender.send_message(&Request::Ping {}).await.expect("is sent");
    let lost = waiting.receiver.message::<Notice>().await;
    assert!(matches!(lost, Err(P2pError::Lost { .. })), "{lost:?}");
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert!(first.is_closed() && first.is_lost());
    let second = far.get().await;
    assert!(!second.is_same(first) && second.answers().await);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_kept_where_no_other_can_be_made_or_its_peer_answers_late() {
    for late in [false, true] {
        let far = Connected::idle(FAR).await;
        let (first, slot) = (&far.first, far.slot());
        far.network.partition(far.us, far.peer);
        assert!(far.get().await.is_same(first));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(slot.dialling.try_lock().is_err(), "another one is tried");
        if !late {
            tokio::time::sleep(Duration::from_secs(8)).await;
            let failed = slot.dialling.try_lock().expect("that is over");
            assert!(failed.is_some(), "no other could be made");
        }
        far.network.heal(far.us, far.peer);
        assert!(first.answers().await);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(!first.is_closed() && !first.is_lost(), "what runs over it goes on");
    }
}
