//! Who finishes a stream that may be resumed: when it has, and what a lost connection does to that.

use std::task::Poll;

use bytes::BytesMut;
use malai_model::wire::frame::{Head, Lane, encode};

use super::resume::{LINGER, Resuming};
use super::streams::{drain, pattern};
use super::*;

#[tokio::test(start_paused = true)]
async fn what_was_finished_before_the_peer_ended_is_sent_again_though_all_of_the_peer_s_was_taken() {
    let resuming = Resuming::new(LINGER).await;
    let (opened, theirs, _kept) = resuming.redialled(1, || None).await;
    let (a, b) = resuming.ids();
    let body = pattern(60_000, 1);
    let (took, taken) = tokio::sync::oneshot::channel();
    // The server's machine is busy: nothing of what is under way to it has been read when the connection is lost.
    resuming.network.stall(b);
    let sent = body.clone();
    let ours = resuming.scope.spawn("ours", async move {
        let Stream { sender, mut receiver } = opened;
        let send = async {
            sender.send(Channel::Main, sent).await.expect("is within the credit");
            sender.finish().await.expect("finishes");
        };
        let take = async {
            drain(&mut receiver, Channel::Main).await.expect("receives");
            while receiver.next().await.expect("receives").is_some() {}
            took.send(()).expect("somebody waits");
        };
        tokio::join!(send, take);
    });
    let Stream { sender, mut receiver } = theirs;
    let answer = resuming.scope.spawn("theirs", async move { sender.finish().await });
    soon(taken).await.expect("takes all");
    tokio::task::yield_now().await;
    resuming.network.cut(a, b);
    resuming.network.resume(b);
    assert!(soon(drain(&mut receiver, Channel::Main)).await.expect("goes on") == body);
    while soon(receiver.next()).await.expect("goes on").is_some() {}
    soon(ours).await.expect("does not panic").expect("goes on");
    soon(answer).await.expect("does not panic").expect("goes on").expect("finishes");
    drop(receiver);
    resuming.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_has_everything_and_whose_peer_has_everything_needs_no_other_connection() {
    let resuming = Resuming::new(LINGER).await;
    let (opened, handle, theirs, kept) = resuming.stream(1).await;
    let (a, b) = resuming.ids();
    let Stream { sender, mut receiver } = opened;
    let Stream { sender: answer, receiver: mut there } = theirs;
    let answered = resuming.scope.spawn("answer", async move { answer.finish().await });
    while soon(receiver.next()).await.expect("receives").is_some() {}
    // From here on ours hear nothing any more: neither that the server has everything, nor that it ended.
    resuming.network.stall(a);
    let mut finish = Box::pin(sender.finish());
    assert!(std::future::poll_fn(|cx| Poll::Ready(finish.as_mut().poll(cx))).await.is_pending());
    while soon(there.next()).await.expect("receives").is_some() {}
    resuming.network.cut(a, b);
    soon(answered).await.expect("does not panic").expect("goes on").expect("finishes");
    drop((there, kept));
    let lost = tokio::time::timeout(Duration::from_secs(1), handle.lost()).await;
    assert!(lost.is_err(), "{lost:?}");
    soon(finish).await.expect("the peer has all of it");
    drop(receiver);
    resuming.end().await;
}

#[tokio::test]
async fn who_finishes_learns_the_end_also_if_the_peer_left_before_its_last_word_was_read() {
    let scope = Scope::new();
    let (opened, theirs) = Stream::pair(&scope, key(1).id52(), key(2).id52()).expect("makes a pair");
    let _handle = opened.resumable(LINGER);
    let Stream { sender, receiver: _receiver } = opened;
    let mut finish = Box::pin(sender.finish());
    let mut halves = theirs.into_raw().expect("is fresh");
    let mut ends = BytesMut::new();
    Lane::ALL.into_iter().for_each(|lane| encode(&Head::End { lane, offset: 0 }, &mut ends));
    let mut out = vec![ends.freeze()];
    soon(std::future::poll_fn(|cx| halves.send.poll_write(cx, &mut out))).await.expect("writes");
    halves.recv.stop(stream_code::MOVED);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut finish).await.is_err(), "it may go on");
    halves.send.finish();
    soon(finish).await.expect("the peer had everything");
    drop(halves);
    scope.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn who_finishes_while_cut_off_has_finished_when_the_stream_goes_on() {
    let resuming = Resuming::new(LINGER).await;
    let (opened, theirs, _kept) = resuming.redialled(1, || None).await;
    let (a, b) = resuming.ids();
    resuming.network.partition(a, b);
    resuming.cut();
    let body = pattern(60_000, 1);
    let Stream { sender, receiver: _receiver } = opened;
    let mut finish = Box::pin(async {
        sender.send(Channel::Main, body.clone()).await.expect("is within the credit");
        sender.finish().await
    });
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut finish).await.is_err(), "nobody answers");
    resuming.network.heal(a, b);
    let Stream { sender: answer, mut receiver } = theirs;
    let take = async {
        let got = drain(&mut receiver, Channel::Main).await;
        answer.finish().await.expect("finishes");
        got
    };
    let (finished, got) = soon(async { tokio::join!(finish, take) }).await;
    finished.expect("finishes");
    assert!(got.expect("receives") == body);
    resuming.end().await;
}
