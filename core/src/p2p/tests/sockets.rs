//! Streams over a socket, within a process and carried on to a peer.

use bytes::{Bytes, BytesMut};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::streams::{drain, pattern};
use super::*;
use crate::p2p::socket::{BridgeEnd, bridge};

fn path() -> PathView {
    PathView { address: "a test".to_owned(), relayed: false, rtt: Duration::ZERO }
}

/// A connection between two endpoints, and streams that reach its one end through a socket.
struct Carried {
    two: Two,
    ours: Connection,
    theirs: Connection,
}

type Ended = tokio::task::JoinHandle<Option<Result<BridgeEnd, P2pError>>>;

impl Carried {
    async fn over(two: Two) -> Self {
        let (ours, theirs) = two.connected().await;
        Self { two, ours, theirs }
    }

    /// The process' end of a socket whose other end is carried on to the server.
    async fn socket(&self, cancel: CancellationToken) -> (UnixStream, Ended) {
        let (process, daemon) = UnixStream::pair().expect("makes a pair");
        let stream = soon(self.ours.open_stream()).await.expect("opens");
        let scope = self.two.scope.clone();
        let carrying = async move { bridge(stream, daemon, BytesMut::new(), cancel, &scope).await };
        (process, self.two.scope.spawn("bridge", carrying))
    }

    /// Both ends of a stream; "hello" has passed.
    async fn stream(&self) -> (Stream, Stream, Ended) {
        let (process, ended) = self.socket(CancellationToken::new()).await;
        let peer = self.ours.peer();
        let opened = Stream::over_socket(process, BytesMut::new(), peer, path(), &self.two.scope)
            .expect("is waited for");
        soon(opened.sender.send_message("hello")).await.expect("sends");
        let mut accepted = soon(self.theirs.accept_stream()).await.expect("accepts");
        let hello = soon(accepted.receiver.message::<String>()).await.expect("receives");
        assert_eq!(hello.as_deref(), Some("hello"));
        (opened, accepted, ended)
    }

    async fn end(self) {
        drop((self.ours, self.theirs));
        self.two.end().await;
    }
}

async fn bridge_end(ended: Ended) -> BridgeEnd {
    soon(ended).await.expect("does not panic").expect("is not dropped").expect("was fresh")
}

/// Many MiB both ways at once, in pieces of several sizes.
async fn bulk_both_ways(scope: &Scope, left: Stream, right: Stream) {
    let length = 64 << 20;
    let mut ends = Vec::new();
    for (n, stream) in [left, right].into_iter().enumerate() {
        ends.push(scope.spawn("end", async move {
            let Stream { sender, mut receiver } = stream;
            let body = pattern(length, n);
            let send = async {
                let mut rest = body;
                while !rest.is_empty() {
                    let piece = rest.split_to(rest.len().min(200_000));
                    sender.send(Channel::Main, piece).await.expect("sends");
                }
                sender.finish().await.expect("finishes");
            };
            let take = async {
                let (other, mut offset) = (pattern(length, 1 - n), 0);
                while let Some(bytes) = receiver.data(Channel::Main).await.expect("receives") {
                    assert!(bytes == other[offset..offset + bytes.len()], "end {n} at {offset}");
                    offset += bytes.len();
                }
                offset
            };
            let ((), taken) = tokio::join!(send, take);
            assert_eq!(taken, length);
        }));
    }
    for end in ends {
        tokio::time::timeout(PATIENCE * 4, end).await.expect("in time").expect("is exact").expect("ends");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_is_exact_both_ways_within_a_process() {
    let scope = Scope::new();
    let (a, b) = (key(1).id52(), key(2).id52());
    let (left, right) = Stream::pair(&scope, a, b).expect("makes a pair");
    bulk_both_ways(&scope, left, right).await;
    assert_eq!(scope.shutdown(PATIENCE).await, crate::task::ShutdownOutcome::Drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_is_exact_both_ways_through_a_bridge() {
    let carried = Carried::over(Two::quic().await).await;
    let (opened, accepted, ended) = carried.stream().await;
    bulk_both_ways(&carried.two.scope, opened, accepted).await;
    assert_eq!(bridge_end(ended).await, BridgeEnd::Complete);
    carried.end().await;
}

#[tokio::test]
async fn what_was_read_before_the_stream_is_part_of_it() {
    let scope = Scope::new();
    let (process, other) = UnixStream::pair().expect("makes a pair");
    let peer = key(2).id52();
    let left = Stream::over_socket(process, BytesMut::new(), peer, path(), &scope).expect("is waited for");
    soon(left.sender.send_message("a message of some length")).await.expect("sends");
    let mut leftover = BytesMut::with_capacity(17);
    while leftover.len() < 17 {
        soon(other.readable()).await.expect("is readable");
        use bytes::BufMut;
        let missing = 17 - leftover.len();
        _ = other.try_read_buf(&mut (&mut leftover).limit(missing));
    }
    let mut right = Stream::over_socket(other, leftover, peer, path(), &scope).expect("is waited for");
    let got = soon(right.receiver.message::<String>()).await.expect("receives");
    assert_eq!(got.as_deref(), Some("a message of some length"));
    drop((left, right));
    scope.shutdown(PATIENCE).await;
}

#[cfg(feature = "daemon")]
#[tokio::test]
async fn what_was_written_before_there_was_a_stream_is_its_beginning_and_nothing_else_is() {
    use crate::p2p::{chunk, first_frame};
    use tokio::io::AsyncWriteExt;
    let scope = Scope::new();
    let peer = key(2).id52();
    for as_foretold in [true, false] {
        let (mut process, other) = UnixStream::pair().expect("makes a pair");
        let first = first_frame("a message of some length").expect("is JSON");
        soon(process.write_all(&chunk(&first))).await.expect("is written");
        let left = Stream::over_socket_after(first, process, BytesMut::new(), peer, path(), &scope);
        let mut left = left.expect("is waited for");
        let mut right =
            Stream::over_socket(other, BytesMut::new(), peer, path(), &scope).expect("is waited for");
        if as_foretold {
            soon(left.sender.send_message("a message of some length")).await.expect("sends");
            soon(left.sender.send_message("a second one")).await.expect("sends");
        } else {
            _ = soon(left.sender.send_message("a message of more length")).await;
            _ = soon(left.sender.send_message("a second one")).await;
        }
        let got = soon(right.receiver.message::<String>()).await.expect("receives");
        assert_eq!(got.as_deref(), Some("a message of some length"));
        if as_foretold {
            let got = soon(right.receiver.message::<String>()).await.expect("receives");
            assert_eq!(got.as_deref(), Some("a second one"));
        } else {
            let answer = soon(left.receiver.message::<String>()).await;
            assert!(answer.is_err(), "no answer to the first one is taken for one to the other: {answer:?}");
            drop(left);
            let got = soon(right.receiver.message::<String>()).await;
            assert!(!matches!(got, Ok(Some(_))), "{got:?}");
        }
    }
    scope.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn codes_and_ends_pass_a_bridge_both_ways() {
    let carried = Carried::over(Two::quic().await).await;
    for swap in [false, true] {
        let (mut first, mut second, ended) = carried.stream().await;
        if swap {
            std::mem::swap(&mut first, &mut second);
        }
        first.sender.reset(71);
        let error = soon(second.receiver.data(Channel::Main)).await.expect_err("is reset");
        assert!(matches!(error, P2pError::StreamReset { code: 71 }), "{error:?}");
        first.receiver.stop(72);
        let error = soon(async {
            loop {
                if let Err(error) = second.sender.send(Channel::Main, pattern(1000, 1)).await {
                    return error;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(matches!(error, P2pError::StreamReset { code: 72 }), "{error:?}");
        drop((first, second));
        bridge_end(ended).await;
    }
    carried.end().await;
}

#[tokio::test]
async fn a_breach_of_the_peer_ends_its_stream_through_a_bridge() {
    let carried = Carried::over(Two::quic().await).await;
    let (process, ended) = carried.socket(CancellationToken::new()).await;
    let mut opened =
        Stream::over_socket(process, BytesMut::new(), carried.ours.peer(), path(), &carried.two.scope)
            .expect("is waited for");
    opened.sender.send_message("hello").await.expect("sends");
    let halves = soon(carried.theirs.accept_stream()).await.expect("accepts").into_raw().expect("is fresh");
    let (mut send, mut recv) = (halves.send, halves.recv);
    let mut nonsense = vec![Bytes::from_static(b"this is no frame")];
    soon(std::future::poll_fn(|cx| send.poll_write(cx, &mut nonsense))).await.expect("writes");
    let error = soon(opened.receiver.data(Channel::Main)).await.expect_err("is no frame");
    assert!(matches!(error, P2pError::Malformed { .. }), "{error:?}");
    // The peer is told with the code: it is stopped, and what came of the other direction is reset.
    let mut buffer = BytesMut::with_capacity(1000);
    let end = soon(async {
        loop {
            if let Err(end) = std::future::poll_fn(|cx| recv.poll_read(cx, &mut buffer)).await {
                return end;
            }
        }
    })
    .await;
    assert_eq!(end, crate::p2p::raw::RawEnd::Code(stream_code::MALFORMED));
    let stopped = soon(send.acknowledged()).await;
    assert_eq!(stopped, Err(crate::p2p::raw::RawEnd::Code(stream_code::MALFORMED)));
    drop(opened);
    bridge_end(ended).await;
    drop((send, recv, halves.connection));
    carried.end().await;
}

#[tokio::test]
async fn a_process_that_pauses_on_many_small_writes_does_not_hurt_another_stream() {
    let carried = Carried::over(Two::quic().await).await;
    let (mut paused, small, _small_ended) = carried.stream().await;
    let (mut busy, bulk, _bulk_ended) = carried.stream().await;
    let (resume, resumed) = tokio::sync::oneshot::channel::<()>();
    let writes = async {
        for _ in 0..20_000 {
            small.sender.send(Channel::Main, Bytes::from_static(&[b'x'; 100])).await.expect("sends");
            tokio::task::yield_now().await;
        }
        small.sender.finish().await.expect("finishes");
    };
    let pauses = async {
        resumed.await.expect("is resumed");
        drain(&mut paused.receiver, Channel::Main).await.expect("receives")
    };
    let other = async {
        let body = pattern(16 << 20, 1);
        let send = async {
            bulk.sender.send(Channel::Main, body.clone()).await.expect("sends");
            bulk.sender.finish().await.expect("finishes");
        };
        let ((), got) = tokio::join!(send, drain(&mut busy.receiver, Channel::Main));
        assert!(got.expect("receives") == body);
        resume.send(()).expect("somebody pauses");
    };
    let ((), got, ()) = soon(async { tokio::join!(writes, pauses, other) }).await;
    assert_eq!(got.len(), 2_000_000);
    drop((paused, busy));
    carried.end().await;
}

/// What a stopped process is to the daemon: it holds the socket and reads nothing.
#[tokio::test]
async fn a_process_that_reads_nothing_does_not_cost_the_connection() {
    let carried = Carried::over(Two::quic().await).await;
    let (process, _ended) = carried.socket(CancellationToken::new()).await;
    let first =
        Stream::over_socket(process, BytesMut::new(), carried.ours.peer(), path(), &carried.two.scope)
            .expect("is waited for");
    soon(first.sender.send_message("go")).await.expect("sends");
    let mut accepted = soon(carried.theirs.accept_stream()).await.expect("accepts");
    soon(accepted.receiver.message::<String>()).await.expect("receives");
    let mut refused = 0;
    for _ in 0..4000 {
        let send = accepted.sender.send(Channel::Main, Bytes::from_static(&[b'x'; 100]));
        // Its credit is spent soon; held back bytes then have no room.
        match tokio::time::timeout(Duration::from_millis(1), send).await {
            Ok(sent) => sent.expect("the stream holds"),
            Err(_) => refused += 1,
        }
        if refused > 20 {
            break;
        }
    }
    let (mut other, answer, _other_ended) = carried.stream().await;
    let sent = soon(answer.sender.send_message("still here")).await;
    sent.expect("the connection holds");
    let got = soon(other.receiver.message::<String>()).await.expect("receives");
    assert_eq!(got.as_deref(), Some("still here"));
    drop((first, accepted, other, answer));
    carried.end().await;
}

#[tokio::test]
async fn a_process_that_dies_ends_the_stream_as_cancelled() {
    let carried = Carried::over(Two::quic().await).await;
    let (process, ended) = carried.socket(CancellationToken::new()).await;
    // Some of a stream, and then no more: no finish, no stop.
    let mut bytes = BytesMut::from(&b"\0\0\0\x0f"[..]);
    malai_model::wire::frame::encode(
        &malai_model::wire::frame::Head::Data {
            lane: malai_model::wire::frame::Lane::Messages,
            offset: 0,
            length: 2,
        },
        &mut bytes,
    );
    bytes.extend_from_slice(b"\"\"");
    soon(process.writable()).await.expect("is writable");
    assert_eq!(process.try_write(&bytes).expect("writes"), 19);
    let mut accepted = soon(carried.theirs.accept_stream()).await.expect("accepts");
    soon(accepted.receiver.message::<String>()).await.expect("receives");
    drop(process);
    assert_eq!(bridge_end(ended).await, BridgeEnd::ProcessGone);
    let error = soon(accepted.receiver.data(Channel::Main)).await.expect_err("is cancelled");
    assert!(matches!(error, P2pError::StreamReset { code: stream_code::CANCELLED }), "{error:?}");
    let error = soon(async {
        loop {
            if let Err(error) = accepted.sender.send(Channel::Main, pattern(1000, 1)).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(matches!(error, P2pError::StreamReset { .. }), "{error:?}");
    drop(accepted);
    carried.end().await;
}

#[tokio::test]
async fn a_connection_that_is_lost_is_told_to_the_process_with_its_reason() {
    let (two, network) = Two::memory().await;
    let carried = Carried::over(two).await;
    let (mut opened, accepted, ended) = carried.stream().await;
    accepted.sender.send(Channel::Main, Bytes::from_static(b"before")).await.expect("sends");
    let got = soon(opened.receiver.data(Channel::Main)).await.expect("receives");
    assert_eq!(got.as_deref(), Some(&b"before"[..]));
    network.cut(carried.two.caller.id52(), carried.two.server.id52());
    assert_eq!(bridge_end(ended).await, BridgeEnd::PeerLost);
    let error = soon(opened.receiver.data(Channel::Main)).await.expect_err("is lost");
    assert_eq!(error.to_string(), "keep the connection: the peer did not answer any more");
    drop((opened, accepted));
    carried.end().await;
}

#[tokio::test]
async fn a_peer_that_does_not_admit_is_told_to_the_process_as_if_it_had_dialled() {
    let scope = Scope::new();
    let bind = |n, serve| {
        let options = EndpointOptions { secret: key(n), network: offline(), serve, preferred_port: None };
        Endpoint::bind(options, Transport::Quic, &scope)
    };
    let server = bind(2, serving(Vec::new())).await.expect("binds");
    let caller = bind(1, None).await.expect("binds");
    let hints: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let connecting = caller.connect(server.id52(), Protocol::Member, &hints, PATIENCE);
    let connection = soon(connecting).await.expect("is refused later");
    let (process, daemon) = UnixStream::pair().expect("makes a pair");
    let mut opened =
        Stream::over_socket(process, BytesMut::new(), server.id52(), path(), &scope).expect("is waited for");
    soon(opened.sender.send_message("hello")).await.expect("sends");
    // The refusal may come before the stream is opened: then there is nothing to carry.
    if let Ok(stream) = connection.open_stream().await {
        let ended = soon(bridge(stream, daemon, BytesMut::new(), CancellationToken::new(), &scope)).await;
        assert_eq!(ended.expect("is fresh"), BridgeEnd::PeerLost);
        let error = soon(opened.receiver.message::<String>()).await.expect_err("is refused");
        assert!(matches!(error, P2pError::NotAdmitted { peer } if peer == server.id52()), "{error:?}");
    }
    drop((opened, connection));
    caller.close().await;
    server.close().await;
    scope.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn a_daemon_that_dies_or_stops_is_an_error_in_the_process() {
    let carried = Carried::over(Two::quic().await).await;
    let scope = &carried.two.scope;
    let (process, daemon) = UnixStream::pair().expect("makes a pair");
    let mut opened = Stream::over_socket(process, BytesMut::new(), carried.ours.peer(), path(), scope)
        .expect("is waited for");
    drop(daemon);
    let error = soon(opened.receiver.data(Channel::Main)).await.expect_err("is gone");
    assert!(matches!(error, P2pError::Lost { .. }), "{error:?}");
    let error = soon(opened.sender.send(Channel::Main, pattern(10, 1))).await.expect_err("is gone");
    assert!(matches!(error, P2pError::Lost { .. }), "{error:?}");

    let cancel = CancellationToken::new();
    let (process, ended) = carried.socket(cancel.clone()).await;
    let mut opened = Stream::over_socket(process, BytesMut::new(), carried.ours.peer(), path(), scope)
        .expect("is waited for");
    soon(opened.sender.send_message("hello")).await.expect("sends");
    let mut accepted = soon(carried.theirs.accept_stream()).await.expect("accepts");
    soon(accepted.receiver.message::<String>()).await.expect("receives");
    cancel.cancel();
    assert_eq!(bridge_end(ended).await, BridgeEnd::Cancelled);
    let error = soon(opened.receiver.data(Channel::Main)).await.expect_err("is over");
    assert!(error.to_string().contains("the daemon of this device stops"), "{error}");
    assert!(soon(accepted.receiver.data(Channel::Main)).await.is_err());
    drop((opened, accepted));
    carried.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_ends_when_the_peer_stops_reading_first_and_the_process_leaves() {
    let carried = Carried::over(Two::quic().await).await;
    // As a command ends: the target says its last word and reads no more, whatever still comes.
    for sent in [0, 1, 60_000] {
        let (opened, accepted, ended) = carried.stream().await;
        let Stream { sender, mut receiver } = opened;
        if sent > 0 {
            soon(sender.send(Channel::Main, pattern(sent, 0))).await.expect("sends");
        }
        let Stream { sender: last_word, receiver: unread } = accepted;
        drop(unread);
        soon(last_word.finish_with("ended")).await.expect("finishes");
        let heard = soon(receiver.message::<String>()).await.expect("receives");
        assert_eq!(heard.as_deref(), Some("ended"));
        drop((sender, receiver));
        assert_eq!(bridge_end(ended).await, BridgeEnd::Complete, "{sent} bytes");
    }
    carried.end().await;
}
