//! Peers that say what cannot be when a stream is to go on, or grant without end.

use bytes::BytesMut;
use malai_model::wire::frame::{Head, Lane, encode};

use super::*;
use crate::p2p::stream::RawHalves;

/// The raw target's end of a caller's stream that is cut off; the caller goes on over what this returns.
async fn answering(bytes: &[u8]) -> (Result<(), P2pError>, Stream, (RawHalves, Scope)) {
    let scope = Scope::new();
    let (a, b) = (key(1).id52(), key(2).id52());
    let (opened, first) = Stream::pair(&scope, a, b).expect("makes a pair");
    soon(opened.sender.send(Channel::Main, pattern(5000, 1))).await.expect("sends");
    let handle = opened.resumable(LINGER);
    soon(opened.sender.send(Channel::Main, pattern(5000, 2))).await.expect("sends");
    soon(opened.sender.send_message("a message")).await.expect("sends");
    soon(opened.sender.end(Channel::Stderr)).await.expect("ends");
    assert!(opened.lose_for_test());
    drop(first);
    soon(handle.lost()).await.expect("is lost");
    let (fresh, theirs) = Stream::pair(&scope, a, b).expect("makes a pair");
    let mut halves = theirs.into_raw().expect("is fresh");
    let mut out = vec![Bytes::copy_from_slice(bytes)];
    let answer = async {
        let mut asked = BytesMut::with_capacity(64 * 1024);
        std::future::poll_fn(|cx| halves.recv.poll_read(cx, &mut asked)).await.expect("is asked");
        std::future::poll_fn(|cx| halves.send.poll_write(cx, &mut out)).await.expect("answers");
    };
    let (outcome, ()) = soon(async { tokio::join!(handle.resume_over(fresh, token(1)), answer) }).await;
    (outcome, opened, (halves, scope))
}

fn resumed(change: impl FnOnce(&mut [LaneState; 3])) -> Vec<u8> {
    // As an honest target that has everything.
    let mut lanes = Lane::ALL.map(|lane| LaneState {
        received: 0,
        charged: 0,
        allowance: lane.initial_window(),
        window: u32::try_from(lane.initial_window()).expect("fits"),
        ended: false,
    });
    lanes[0].received = 11;
    lanes[0].charged = 2048;
    lanes[1].received = 10_000;
    lanes[1].charged = 10_000;
    change(&mut lanes);
    let mut bytes = Vec::new();
    encode(&Head::Resumed { lanes }, &mut bytes);
    bytes
}

#[tokio::test]
async fn a_target_that_answers_what_cannot_be_loses_the_stream() {
    let (outcome, opened, (halves, scope)) = answering(&resumed(|_| {})).await;
    outcome.expect("an honest answer is taken");
    drop((opened, halves));
    scope.shutdown(PATIENCE).await;

    let mut data = Vec::new();
    encode(&Head::Data { lane: Lane::Main, offset: 0, length: 1 }, &mut data);
    let mut twice = resumed(|_| {});
    twice.extend_from_slice(&resumed(|_| {}));
    let cases: [(&str, Vec<u8>); 9] = [
        ("more than was sent", resumed(|lanes| lanes[1].received = 10_001)),
        ("less than it had before", resumed(|lanes| lanes[1].received = 4999)),
        ("more charges than were spent", resumed(|lanes| lanes[1].charged = 10_001)),
        ("fewer charges than bytes", resumed(|lanes| lanes[1].charged = 9_999)),
        ("within a message", resumed(|lanes| lanes[0].received = 5)),
        ("an end that was not sent", resumed(|lanes| lanes[1].ended = true)),
        ("an absurd allowance", resumed(|lanes| lanes[1].allowance = u64::MAX)),
        ("something else first", data),
        ("no frame", vec![0x42, 0, 0, 0]),
    ];
    for (case, bytes) in cases {
        let (outcome, mut opened, (halves, scope)) = answering(&bytes).await;
        assert!(matches!(outcome, Err(P2pError::Malformed { .. })), "{case}: {outcome:?}");
        let error = soon(opened.receiver.data(Channel::Main)).await.expect_err("is over");
        assert!(matches!(error, P2pError::Malformed { .. }), "{case}: {error:?}");
        drop((opened, halves));
        scope.shutdown(PATIENCE).await;
    }
    // The word comes once, and only to whom it was asked of.
    let (outcome, mut opened, (halves, scope)) = answering(&twice).await;
    assert!(matches!(outcome, Ok(()) | Err(P2pError::Malformed { .. })), "{outcome:?}");
    let error = soon(opened.receiver.data(Channel::Main)).await.expect_err("is over");
    assert!(matches!(error, P2pError::Malformed { .. }), "{error:?}");
    drop((opened, halves));
    scope.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn a_generous_allowance_does_not_lift_the_bound() {
    let (outcome, opened, (halves, scope)) = answering(&resumed(|lanes| lanes[1].allowance = 1 << 60)).await;
    outcome.expect("is taken for the most that it may be");
    let mut send = Box::pin(opened.sender.send(Channel::Main, pattern(8 << 20, 1)));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut send).await.is_err());
    drop(send);
    let sent = opened.sender.sent_offset(Channel::Main) - 10_000;
    assert!(sent <= Lane::Main.window(), "{sent}");
    drop((opened, halves));
    scope.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn a_receiver_that_grants_and_never_consumes_does_not_make_its_sender_keep_everything() {
    let (outcome, opened, (mut halves, scope)) = answering(&resumed(|_| {})).await;
    outcome.expect("an honest answer is taken");
    let reading = scope.spawn("reads all", async move {
        let mut taken = BytesMut::new();
        let mut allowance = 0_u64;
        loop {
            taken.clear();
            taken.reserve(64 * 1024);
            match std::future::poll_fn(|cx| halves.recv.poll_read(cx, &mut taken)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            allowance += 256 * 1024;
            let mut grant = BytesMut::new();
            encode(&Head::Window { lane: Lane::Main, consumed: 0, allowance, window: 1 << 20 }, &mut grant);
            let mut out = vec![grant.freeze()];
            if std::future::poll_fn(|cx| halves.send.poll_write(cx, &mut out)).await.is_err() {
                return;
            }
        }
    });
    let mut send = Box::pin(opened.sender.send(Channel::Main, pattern(32 << 20, 1)));
    assert!(tokio::time::timeout(Duration::from_secs(2), &mut send).await.is_err(), "all of it is kept");
    drop(send);
    let sent = opened.sender.sent_offset(Channel::Main);
    assert!(sent <= 4 * Lane::Main.window(), "{sent}");
    drop(opened);
    scope.shutdown(PATIENCE).await;
    drop(reading);
}

#[tokio::test]
async fn a_caller_that_says_what_cannot_be_loses_its_stream() {
    let changes: [fn(&mut [LaneState; 3]); 4] = [
        |lanes| lanes[0].received = 1 << 40,
        |lanes| lanes[0].received = 1,
        |lanes| lanes[2].ended = true,
        |lanes| lanes[0].charged = u64::MAX,
    ];
    for change in changes {
        let resuming = Resuming::new(LINGER).await;
        let (opened, handle, mut theirs, _kept) = resuming.stream(1).await;
        resuming.cut();
        soon(handle.lost()).await.expect("is lost");
        let mut lanes = [LaneState::default(); 3];
        change(&mut lanes);
        let fresh = resuming.fresh().await;
        let asked = Request::Resume(ResumeStream { token: token(1), lanes });
        soon(fresh.sender.send_message(&asked)).await.expect("sends");
        let error = soon(theirs.receiver.data(Channel::Main)).await.expect_err("is over");
        assert!(matches!(error, P2pError::Malformed { .. }), "{error:?}");
        assert_eq!(resuming.answered(), [Some("wire.malformed")]);
        drop((opened, theirs, fresh));
        resuming.end().await;
    }
}
