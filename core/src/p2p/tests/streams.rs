//! Two honest ends that pause, cancel, give up, and a network that fails between them.

use bytes::Bytes;

use super::*;

/// Both ends of a stream; the first has sent "hello".
async fn stream(ours: &Connection, theirs: &Connection) -> (Stream, Stream) {
    soon(async {
        let opened = ours.open_stream().await.expect("opens");
        opened.sender.send_message("hello").await.expect("sends");
        let mut accepted = theirs.accept_stream().await.expect("accepts");
        assert_eq!(accepted.receiver.message::<String>().await.expect("receives").as_deref(), Some("hello"));
        (opened, accepted)
    })
    .await
}

/// Takes a channel to its end.
pub(super) async fn drain(receiver: &mut StreamReceiver, channel: Channel) -> Result<Vec<u8>, P2pError> {
    let mut all = Vec::new();
    while let Some(bytes) = receiver.data(channel).await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

pub(super) fn pattern(length: usize, seed: usize) -> Bytes {
    (0..length).map(|n| ((n * 31 + seed * 7) % 251) as u8).collect::<Vec<u8>>().into()
}

#[tokio::test]
async fn a_reader_that_pauses_on_many_small_writes_costs_neither_the_stream_nor_another() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    let (paused_out, mut paused_in) = stream(&ours, &theirs).await;
    let (busy_out, mut busy_in) = stream(&ours, &theirs).await;
    let writes = 30_000;
    let total = writes * 100;
    let (resume, resumed) = tokio::sync::oneshot::channel::<()>();
    let small = async {
        for _ in 0..writes {
            paused_out.sender.send(Channel::Main, Bytes::from_static(&[b'x'; 100])).await.expect("sends");
            tokio::task::yield_now().await;
        }
        paused_out.sender.finish().await.expect("finishes");
    };
    let pauses = async {
        resumed.await.expect("is resumed");
        drain(&mut paused_in.receiver, Channel::Main).await.expect("receives")
    };
    let busy = async {
        let body = pattern(16 << 20, 1);
        let send = async {
            busy_out.sender.send(Channel::Main, body.clone()).await.expect("sends");
            busy_out.sender.finish().await.expect("finishes");
        };
        let ((), got) = tokio::join!(send, drain(&mut busy_in.receiver, Channel::Main));
        assert!(got.expect("receives") == body, "the other stream's bytes");
        resume.send(()).expect("somebody pauses");
    };
    let ((), got, ()) = soon(async { tokio::join!(small, pauses, busy) }).await;
    assert_eq!(got.len(), total);
    drop((ours, theirs, paused_in, busy_in));
    two.end().await;
}

#[tokio::test]
async fn a_reader_that_pauses_stops_its_writer_and_holds_no_more_than_the_window() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    let (out, mut into) = stream(&ours, &theirs).await;
    let body = pattern(8 << 20, 3);
    let mut send = Box::pin(out.sender.send(Channel::Main, body.clone()));
    let blocked = tokio::time::timeout(Duration::from_millis(300), &mut send).await;
    assert!(blocked.is_err(), "nobody takes it");
    drop(send);
    let accepted = out.sender.sent_offset(Channel::Main);
    assert!(accepted <= 128 * 1024, "{accepted}");
    // A cancelled call has sent a prefix, and the stream goes on from there.
    let rest = body.slice(usize::try_from(accepted).expect("fits")..);
    let finish = async {
        out.sender.send(Channel::Main, rest).await.expect("sends");
        out.sender.finish().await.expect("finishes");
    };
    let ((), got) = soon(async { tokio::join!(finish, drain(&mut into.receiver, Channel::Main)) }).await;
    assert!(got.expect("receives") == body);
    drop((ours, theirs, into));
    two.end().await;
}

#[tokio::test]
async fn either_end_may_finish_first_and_the_other_direction_goes_on() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    for swap in [false, true] {
        let (mut first, mut second) = stream(&ours, &theirs).await;
        if swap {
            std::mem::swap(&mut first, &mut second);
        }
        let body = pattern(3 << 20, 5);
        soon(first.sender.finish()).await.expect("finishes");
        assert!(soon(drain(&mut second.receiver, Channel::Main)).await.expect("receives").is_empty());
        // The finished end still grants.
        let send = async {
            second.sender.send(Channel::Stderr, body.clone()).await.expect("sends");
            second.sender.finish().await.expect("finishes, acknowledged");
        };
        let ((), got) = soon(async { tokio::join!(send, drain(&mut first.receiver, Channel::Stderr)) }).await;
        assert!(got.expect("receives") == body);
    }
    drop((ours, theirs));
    two.end().await;
}

#[tokio::test]
async fn a_sender_that_is_dropped_is_no_clean_end() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    let (out, mut into) = stream(&ours, &theirs).await;
    out.sender.send(Channel::Main, Bytes::from_static(b"some")).await.expect("sends");
    let Stream { sender, receiver: _kept } = out;
    drop(sender);
    assert_eq!(
        soon(into.receiver.data(Channel::Main)).await.expect("receives").as_deref(),
        Some(&b"some"[..])
    );
    let error = soon(into.receiver.data(Channel::Main)).await.expect_err("is no end");
    assert!(matches!(error, P2pError::StreamReset { code: stream_code::CANCELLED }), "{error:?}");
    drop((ours, theirs, into));
    two.end().await;
}

#[tokio::test]
async fn a_stream_that_is_dropped_whole_ends_the_other_end_both_ways() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    let (out, mut into) = stream(&ours, &theirs).await;
    drop(out);
    assert!(soon(into.receiver.data(Channel::Main)).await.is_err());
    let error = soon(async {
        loop {
            if let Err(error) = into.sender.send(Channel::Main, pattern(1000, 1)).await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(error, P2pError::StreamReset { .. }), "{error:?}");
    drop((ours, theirs, into));
    two.end().await;
}

#[tokio::test]
async fn a_receiver_that_stops_ends_the_sender_while_its_own_direction_goes_on() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    let (out, mut into) = stream(&ours, &theirs).await;
    into.receiver.stop(77);
    let error = soon(async {
        loop {
            if let Err(error) = out.sender.send(Channel::Main, pattern(1000, 1)).await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(error, P2pError::StreamReset { code: 77 }), "{error:?}");
    let body = pattern(2 << 20, 9);
    let Stream { sender: _sender, mut receiver } = out;
    let send = async {
        into.sender.send(Channel::Main, body.clone()).await.expect("sends");
        into.sender.finish().await
    };
    let (sent, got) = soon(async { tokio::join!(send, drain(&mut receiver, Channel::Main)) }).await;
    sent.expect("finishes");
    assert!(got.expect("receives") == body);
    drop((ours, theirs));
    two.end().await;
}

#[tokio::test]
async fn messages_and_both_channels_keep_their_order_and_a_message_over_the_limit_is_refused() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    let (out, mut into) = stream(&ours, &theirs).await;
    let sent = soon(async {
        out.sender.send(Channel::Main, Bytes::from_static(b"out")).await?;
        out.sender.send(Channel::Stderr, Bytes::from_static(b"err")).await?;
        out.sender.send_message("note").await?;
        out.sender.end(Channel::Main).await?;
        let late = out.sender.send(Channel::Main, Bytes::from_static(b"late")).await;
        assert!(matches!(late, Err(P2pError::Ended)), "{late:?}");
        let large = out.sender.send_message(&"x".repeat(64 * 1024)).await.expect_err("is too large");
        assert_eq!(large.code().as_str(), "limit.reached");
        out.sender.send_message(&"x".repeat(64 * 1024 - 2)).await?;
        out.sender.finish().await
    });
    let take = async {
        let mut came = Vec::new();
        while let Some(incoming) = into.receiver.next().await.expect("receives") {
            came.push(incoming);
        }
        came
    };
    let (sent, came) = tokio::join!(sent, soon(take));
    sent.expect("sends");
    assert_eq!(came[0], Incoming::Data(Channel::Main, Bytes::from_static(b"out")));
    assert_eq!(came[1], Incoming::Data(Channel::Stderr, Bytes::from_static(b"err")));
    assert_eq!(came[2], Incoming::Message(Bytes::from_static(b"\"note\"")));
    assert_eq!(came[3], Incoming::End(Channel::Main));
    assert!(matches!(&came[4], Incoming::Message(large) if large.len() == 64 * 1024));
    assert_eq!(came[5..], [Incoming::End(Channel::Stderr)]);
    drop((ours, theirs, into));
    two.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_at_once_each_get_their_answer() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    let server = two.scope.clone();
    two.scope.spawn_until_stop("serve", async move {
        while let Ok(Stream { sender, mut receiver }) = theirs.accept_stream().await {
            server.spawn("answer", async move {
                let asked = receiver.message::<u32>().await.expect("receives");
                sender.finish_with(&asked).await
            });
        }
    });
    let mut asked = Vec::new();
    for n in 0..1000_u32 {
        let Stream { sender, receiver } = soon(ours.open_stream()).await.expect("opens");
        sender.send_message(&n).await.expect("sends");
        asked.push((n, sender, receiver));
    }
    for (n, _sender, mut receiver) in asked {
        assert_eq!(soon(receiver.message::<u32>()).await.expect("receives"), Some(n));
    }
    drop(ours);
    two.end().await;
}

/// A small generator of our own, so that a failure can be repeated from the printed seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_mixture_of_sizes_arrives_in_order_over_a_slow_network() {
    let seed = seed();
    for round in 0..12 {
        let (two, network) = Two::memory().await;
        let delay = Duration::from_millis(round % 4);
        network.delay(delay);
        mixture(two, seed ^ round).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_mixture_of_sizes_arrives_in_order_over_loopback() {
    let seed = seed();
    for round in 0..6 {
        mixture(Two::quic().await, seed ^ round).await;
    }
}

/// Several streams at once, each with writes of random sizes on both channels, messages between them, and a reader
/// that takes them in its own time; every end in a task of its own.
async fn mixture(two: Two, seed: u64) {
    let (ours, theirs) = two.connected().await;
    let mut ends = Vec::new();
    for n in 0..4 {
        let (out, into) = stream(&ours, &theirs).await;
        let mut random = Random(seed.wrapping_add(n << 32));
        let writes: Vec<(usize, Bytes)> = (0..400)
            .map(|n| {
                let bound = [10, 200, 3000, 200_000][random.below(4)];
                (random.below(2), pattern(1 + random.below(bound), n))
            })
            .collect();
        let mut expected = [Vec::new(), Vec::new()];
        for (which, body) in &writes {
            expected[*which].extend_from_slice(body);
        }
        let Stream { sender, receiver: answers } = out;
        let send = two.scope.spawn("send", async move {
            for (n, (which, body)) in writes.into_iter().enumerate() {
                sender.send([Channel::Main, Channel::Stderr][which], body).await.expect("sends");
                if n % 50 == 0 {
                    sender.send_message(&n).await.expect("sends");
                }
            }
            sender.finish().await.expect("finishes");
        });
        let take = two.scope.spawn("take", take_all(into));
        ends.push((send, take, expected, answers));
    }
    for (send, take, expected, mut answers) in ends {
        soon(send).await.expect("sends");
        let (got, notes) = soon(take).await.expect("takes").expect("is not dropped");
        assert!(got == expected, "seed {seed}");
        assert_eq!(notes, 8, "seed {seed}");
        let incoming = soon(answers.next()).await.expect("ends cleanly");
        assert_eq!(incoming, Some(Incoming::End(Channel::Main)), "seed {seed}");
    }
    drop((ours, theirs));
    two.end().await;
}

/// Takes everything, by channel, and counts the messages; then ends its own direction.
async fn take_all(stream: Stream) -> ([Vec<u8>; 2], usize) {
    let Stream { sender, mut receiver } = stream;
    let (mut got, mut notes) = ([Vec::new(), Vec::new()], 0);
    while let Some(incoming) = receiver.next().await.expect("receives") {
        match incoming {
            Incoming::Data(Channel::Main, bytes) => got[0].extend_from_slice(&bytes),
            Incoming::Data(Channel::Stderr, bytes) => got[1].extend_from_slice(&bytes),
            Incoming::Message(_) => notes += 1,
            Incoming::End(_) => {}
        }
        if notes % 3 == 1 {
            tokio::task::yield_now().await;
        }
    }
    sender.finish().await.expect("finishes");
    (got, notes)
}

/// A seed of its own for each run, shown by the harness when the test fails; `MALAI_SEED` repeats one.
#[expect(clippy::print_stderr, reason = "a failure must be repeatable")]
pub(super) fn seed() -> u64 {
    let given = std::env::var("MALAI_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        std::time::UNIX_EPOCH.elapsed().map_or(1, |since| u64::from(since.subsec_nanos()))
    });
    eprintln!("seed {seed}");
    seed
}

#[tokio::test]
async fn what_was_under_way_arrives_after_a_partition_heals() {
    let (two, network) = Two::memory().await;
    let (ours, theirs) = two.connected().await;
    let (out, mut into) = stream(&ours, &theirs).await;
    network.partition(two.caller.id52(), two.server.id52());
    out.sender.send(Channel::Main, Bytes::from_static(b"held up")).await.expect("sends");
    let nothing = tokio::time::timeout(Duration::from_millis(50), into.receiver.data(Channel::Main)).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let deadline = Duration::from_millis(50);
    let apart = two.caller.connect(two.server.id52(), Protocol::Member, &[], deadline).await;
    assert!(matches!(apart, Err(P2pError::Unreachable { .. })), "{apart:?}");
    network.heal(two.caller.id52(), two.server.id52());
    let got = soon(into.receiver.data(Channel::Main)).await.expect("receives");
    assert_eq!(got.as_deref(), Some(&b"held up"[..]));
    drop((ours, theirs, out, into));
    two.end().await;
}

#[tokio::test]
async fn a_cut_connection_ends_both_halves_at_both_ends() {
    let (two, network) = Two::memory().await;
    let (ours, theirs) = two.connected().await;
    let (mut out, mut into) = stream(&ours, &theirs).await;
    network.cut(two.caller.id52(), two.server.id52());
    for end in [&mut out, &mut into] {
        let lost = soon(end.receiver.data(Channel::Main)).await.expect_err("is lost");
        assert!(matches!(lost, P2pError::Lost { .. }), "{lost:?}");
        let lost = soon(end.sender.send(Channel::Main, pattern(10, 1))).await.expect_err("is lost");
        assert!(matches!(lost, P2pError::Lost { .. }), "{lost:?}");
    }
    assert!(ours.is_closed() && theirs.is_closed());
    drop((ours, theirs, out, into));
    two.end().await;
}

#[tokio::test]
async fn a_peer_that_stops_reading_holds_up_its_own_stream_until_it_goes_on() {
    let (two, network) = Two::memory().await;
    let (ours, theirs) = two.connected().await;
    let (out, mut into) = stream(&ours, &theirs).await;
    network.stall(two.server.id52());
    let body = pattern(4 << 20, 2);
    let mut send = Box::pin(async {
        out.sender.send(Channel::Main, body.clone()).await.expect("sends");
        out.sender.finish().await.expect("finishes");
    });
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut send).await.is_err());
    network.resume(two.server.id52());
    let ((), got) = soon(async { tokio::join!(send, drain(&mut into.receiver, Channel::Main)) }).await;
    assert!(got.expect("receives") == body);
    drop((ours, theirs, into));
    two.end().await;
}

/// Accepts more than a reader that pauses has given credit for: some of it waits on this side.
async fn send_more_than_granted(sender: &StreamSender) -> Vec<u8> {
    let mut all = pattern(100 * 1024, 5).to_vec();
    soon(sender.send(Channel::Main, Bytes::from(all.clone()))).await.expect("is accepted");
    for n in 0..600 {
        let piece = pattern(100, n);
        all.extend_from_slice(&piece);
        soon(sender.send(Channel::Main, piece)).await.expect("is accepted");
    }
    all
}

#[tokio::test(start_paused = true)]
async fn who_is_owed_data_may_take_any_time_unless_its_right_is_taken_away() {
    let (two, _network) = Two::memory().await;
    let (ours, theirs) = two.connected().await;
    let patience = Duration::from_secs(5);
    let (mut opened, accepted) = stream(&ours, &theirs).await;
    drop(accepted.receiver);
    let all = send_more_than_granted(&accepted.sender).await;
    let pauses = async {
        tokio::time::sleep(patience * 20).await;
        let data = soon(drain(&mut opened.receiver, Channel::Main)).await.expect("receives");
        let last = soon(opened.receiver.message::<String>()).await.expect("receives");
        (data, last)
    };
    let concluded = accepted.sender.conclude(Some("end"), patience, std::future::pending());
    let (concluded, (data, last)) = tokio::join!(concluded, pauses);
    concluded.expect("is taken in the end");
    assert!(data == all && last.as_deref() == Some("end"), "{} of {} bytes", data.len(), all.len());

    let (_opened, accepted) = stream(&ours, &theirs).await;
    drop(accepted.receiver);
    send_more_than_granted(&accepted.sender).await;
    let revoked = tokio::time::sleep(patience * 20);
    let begun = tokio::time::Instant::now();
    let given_up = accepted.sender.conclude(Some("end"), patience, revoked).await;
    assert!(matches!(given_up, Err(P2pError::StreamReset { code: stream_code::REVOKED })), "{given_up:?}");
    assert_eq!(begun.elapsed().as_secs(), 100);
}

#[tokio::test(start_paused = true)]
async fn who_is_owed_nothing_and_acknowledges_nothing_is_let_go_and_can_still_read_it() {
    let (two, network) = Two::memory().await;
    let (ours, theirs) = two.connected().await;
    let (mut opened, accepted) = stream(&ours, &theirs).await;
    drop(accepted.receiver);
    accepted.sender.send(Channel::Main, Bytes::from_static(b"few")).await.expect("is accepted");
    network.stall(two.caller.id52());
    let (begun, patience) = (tokio::time::Instant::now(), Duration::from_secs(5));
    let let_go = accepted.sender.conclude(Some("end"), patience, std::future::pending()).await;
    assert!(matches!(let_go, Err(P2pError::StreamReset { code: stream_code::STALLED })), "{let_go:?}");
    assert!(begun.elapsed() < patience * 2, "{:?}", begun.elapsed());
    network.resume(two.caller.id52());
    assert_eq!(soon(drain(&mut opened.receiver, Channel::Main)).await.expect("receives"), b"few");
    let last = soon(opened.receiver.message::<String>()).await.expect("receives");
    assert_eq!(last.as_deref(), Some("end"));
}
