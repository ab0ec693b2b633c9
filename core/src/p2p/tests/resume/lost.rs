//! Streams that nobody resumes, in time or at all, and those that only one end knows to be lost.

use super::super::streams::drain;
use super::*;

#[tokio::test]
async fn a_stream_that_nobody_resumes_fails_as_lost_when_its_time_is_over() {
    let resuming = Resuming::new(Duration::from_millis(50)).await;
    let (opened, handle, mut theirs, kept) = resuming.stream(1).await;
    resuming.cut();
    let error = soon(theirs.receiver.data(Channel::Main)).await.expect_err("is lost");
    assert!(matches!(error, P2pError::Lost { .. }), "{error:?}");
    let error = soon(theirs.sender.send(Channel::Main, pattern(10, 1))).await.expect_err("is lost");
    assert!(matches!(error, P2pError::Lost { .. }), "{error:?}");
    assert!(soon(handle.lost()).await.is_some(), "the caller still waits");
    let late = soon(handle.resume_over(resuming.fresh().await, token(1))).await;
    assert!(matches!(late, Err(P2pError::StreamUnknown)), "{late:?}");
    assert_eq!(late.expect_err("fails").code().as_str(), "stream.unknown");
    drop((opened, theirs, kept));
    resuming.end().await;
}

#[tokio::test]
async fn a_stream_that_waits_already_takes_a_longer_time_to_wait() {
    let resuming = Resuming::new(LINGER).await;
    let (mut opened, handle, theirs, _kept) = resuming.stream(1).await;
    let short = Duration::from_millis(100);
    handle.set_linger(short);
    resuming.cut();
    soon(handle.lost()).await.expect("is lost");
    handle.set_linger(LINGER);
    let over = tokio::time::timeout(short * 3, opened.receiver.data(Channel::Main)).await;
    assert!(over.is_err(), "it waits no longer: {over:?}");
    soon(handle.resume_over(resuming.fresh().await, token(1))).await.expect("goes on");
    soon(theirs.sender.send_message("here")).await.expect("sends");
    let got = soon(opened.receiver.message::<String>()).await.expect("receives");
    assert_eq!(got.as_deref(), Some("here"));
    drop((opened, theirs));
    resuming.end().await;
}

#[tokio::test]
async fn a_stream_that_was_dropped_while_cut_off_is_unknown() {
    let resuming = Resuming::new(LINGER).await;
    let (mut opened, theirs, kept) = resuming.redialled(1, || None).await;
    let (a, b) = resuming.ids();
    resuming.network.partition(a, b);
    resuming.cut();
    drop((theirs, kept));
    resuming.network.heal(a, b);
    let error = soon(opened.receiver.data(Channel::Main)).await.expect_err("is gone");
    assert!(matches!(error, P2pError::StreamUnknown), "{error:?}");
    assert_eq!(resuming.answered(), [Some("stream.unknown")]);
    drop(opened);
    resuming.end().await;
}

#[tokio::test]
async fn a_connection_that_the_peer_closes_ends_its_streams_at_once() {
    let resuming = Resuming::new(LINGER).await;
    let (opened, handle, mut theirs, _kept) = resuming.stream(1).await;
    resuming.caller.close().await;
    let error = soon(theirs.receiver.data(Channel::Main)).await.expect_err("is over");
    assert!(matches!(error, P2pError::Lost { .. }), "{error:?}");
    drop((opened, handle, theirs));
    resuming.end().await;
}

#[tokio::test]
async fn a_caller_that_notices_first_goes_on_though_the_target_knows_of_no_loss() {
    let resuming = Resuming::new(LINGER).await;
    let (opened, handle, theirs, _kept) = resuming.stream(1).await;
    let (mut opened, mut theirs) = (opened, theirs);
    soon(opened.sender.send(Channel::Main, pattern(5000, 1))).await.expect("sends");
    // Only the caller's side hears that its connection is lost.
    let lost = opened.lose_for_test();
    assert!(lost);
    soon(handle.lost()).await.expect("is lost");
    soon(opened.sender.send(Channel::Main, pattern(5000, 2))).await.expect("is within the credit");
    soon(handle.resume_over(resuming.fresh().await, token(1))).await.expect("goes on");
    soon(opened.sender.end(Channel::Main)).await.expect("ends");
    let got = soon(drain(&mut theirs.receiver, Channel::Main)).await.expect("receives");
    assert!(got == [pattern(5000, 1), pattern(5000, 2)].concat());
    soon(theirs.sender.send_message("back")).await.expect("sends");
    let back = soon(opened.receiver.message::<String>()).await.expect("receives");
    assert_eq!(back.as_deref(), Some("back"));
    drop((opened, theirs));
    resuming.end().await;
}
