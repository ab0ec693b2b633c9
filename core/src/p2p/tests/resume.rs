//! Streams that go on over another connection at the byte where they stopped.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;

use bytes::{Bytes, BytesMut};
use malai_model::wire::frame::{Head, Lane, encode};
use malai_model::wire::{LaneState, Request, ResumeStream, ResumeToken};
use tokio::sync::mpsc;

use super::super::stream::RawHalves;
use super::streams::{Random, drain, pattern, seed};
use super::*;

pub(super) const LINGER: Duration = Duration::from_secs(600);

fn token(n: u8) -> ResumeToken {
    ResumeToken::from_random([n; 16])
}

/// Two endpoints in memory; the server keeps its streams.
pub(super) struct Resuming {
    pub(super) scope: Scope,
    pub(super) network: memory::Network,
    caller: Arc<Endpoint>,
    server: Arc<Endpoint>,
    resumables: Resumables,
    accepted: tokio::sync::Mutex<mpsc::UnboundedReceiver<(Stream, Option<Kept>)>>,
    /// What the server said to those who wanted to go on.
    answers: Arc<Mutex<Vec<Option<&'static str>>>>,
    held: Arc<Mutex<Vec<Connection>>>,
}

impl Resuming {
    pub(super) async fn new(linger: Duration) -> Self {
        let (Two { scope, caller, server }, network) = Two::memory().await;
        let (caller, server) = (Arc::new(caller), Arc::new(server));
        let (resumables, answers) = (Resumables::default(), Arc::default());
        let (accept, accepted) = mpsc::unbounded_channel();
        let serving =
            Serving { linger, resumables: resumables.clone(), accept, answers: Arc::clone(&answers) };
        let (inner, listening) = (scope.clone(), Arc::clone(&server));
        scope.spawn_until_stop("accept", async move {
            while let Some(connection) = listening.accept().await {
                let serving = serving.clone();
                inner.spawn_until_stop("serve", async move { serving.connection(connection).await });
            }
        });
        let accepted = tokio::sync::Mutex::new(accepted);
        Self { scope, network, caller, server, resumables, accepted, answers, held: Arc::default() }
    }

    pub(super) fn ids(&self) -> (Id52, Id52) {
        (self.caller.id52(), self.server.id52())
    }

    pub(super) fn cut(&self) {
        let (a, b) = self.ids();
        self.network.cut(a, b);
    }

    async fn fresh(&self) -> Stream {
        let connection = self.caller.connect(self.server.id52(), Protocol::Member, &[], PATIENCE);
        let connection = soon(connection).await.expect("connects");
        let stream = soon(connection.open_stream()).await.expect("opens");
        // As a pool would: the connection outlives its streams.
        self.held.lock().expect("is not poisoned").push(connection);
        stream
    }

    /// Both ends of a stream that the server keeps as `token(n)`; nobody redials.
    pub(super) async fn stream(&self, n: u8) -> (Stream, ResumeHandle, Stream, Kept) {
        let mut opened = self.fresh().await;
        let first = Request::Resume(ResumeStream { token: token(n), lanes: [LaneState::default(); 3] });
        // A first message of another sort, which only says what the stream is called.
        soon(opened.sender.send_message(&("open", &first))).await.expect("sends");
        let (theirs, kept) =
            soon(async { self.accepted.lock().await.recv().await }).await.expect("is accepted");
        soon(theirs.sender.send_message("kept")).await.expect("sends");
        let kept_word = soon(opened.receiver.message::<String>()).await.expect("receives");
        assert_eq!(kept_word.as_deref(), Some("kept"));
        let handle = opened.resumable(LINGER);
        (opened, handle, theirs, kept.expect("there is room"))
    }

    /// As [`Self::stream`], and the caller redials; every new connection breaks after what `budget` says.
    pub(super) async fn redialled(
        &self,
        n: u8,
        budget: impl Fn() -> Option<usize> + Send + Sync + 'static,
    ) -> (Stream, Stream, Kept) {
        let (opened, handle, theirs, kept) = self.stream(n).await;
        let redial = TestRedial {
            network: self.network.clone(),
            caller: Arc::clone(&self.caller),
            server: self.server.id52(),
            held: Arc::clone(&self.held),
            budget,
        };
        keep_resumed(&self.scope, handle, token(n), Arc::new(redial));
        (opened, theirs, kept)
    }

    fn answered(&self) -> Vec<Option<&'static str>> {
        self.answers.lock().expect("is not poisoned").clone()
    }

    pub(super) async fn end(self) {
        self.held.lock().expect("is not poisoned").clear();
        self.caller.close().await;
        self.server.close().await;
        assert_eq!(self.scope.shutdown(PATIENCE).await, crate::task::ShutdownOutcome::Drained);
    }
}

#[derive(Clone)]
struct Serving {
    linger: Duration,
    resumables: Resumables,
    accept: mpsc::UnboundedSender<(Stream, Option<Kept>)>,
    answers: Arc<Mutex<Vec<Option<&'static str>>>>,
}

impl Serving {
    async fn connection(&self, connection: Connection) {
        while let Ok(mut stream) = connection.accept_stream().await {
            let Ok(Some(first)) = stream.receiver.message::<serde_json::Value>().await else { continue };
            if let Ok(("open", Request::Resume(open))) = serde_json::from_value(first.clone())
                .as_ref()
                .map(|(word, request): &(String, Request)| (word.as_str(), request))
            {
                let kept = self.resumables.keep(connection.peer(), open.token.clone(), &stream, self.linger);
                let kept = kept.expect("is no late one");
                self.accept.send((stream, kept)).expect("the test goes on");
            } else if let Ok(Request::Resume(resume)) = serde_json::from_value(first) {
                let answer = self.resumables.resume(&connection.peer(), &resume.token, stream, &resume.lanes);
                let told = answer.err().map(|error| error.code().as_str());
                self.answers.lock().expect("is not poisoned").push(told);
            }
        }
    }
}

struct TestRedial<F> {
    network: memory::Network,
    caller: Arc<Endpoint>,
    server: Id52,
    held: Arc<Mutex<Vec<Connection>>>,
    budget: F,
}

impl<F: Fn() -> Option<usize> + Send + Sync + 'static> Redial for TestRedial<F> {
    fn redial(&self) -> Redialling {
        if let Some(bytes) = (self.budget)() {
            self.network.cut_after(self.caller.id52(), self.server, bytes);
        }
        let (caller, server, held) = (Arc::clone(&self.caller), self.server, Arc::clone(&self.held));
        Box::pin(async move {
            let connection = caller.connect(server, Protocol::Member, &[], PATIENCE).await?;
            let stream = connection.open_stream().await;
            // As a pool would.
            held.lock().expect("is not poisoned").push(connection);
            stream
        })
    }
}

/// One thing to send.
#[derive(Debug, Clone, PartialEq)]
enum Sent {
    Message(String),
    Data(Channel, Bytes),
    End(Channel),
}

/// A random script for one end.
fn script(random: &mut Random, length: usize) -> Vec<Sent> {
    let mut script: Vec<Sent> = (0..length)
        .map(|n| {
            let bound = [10, 200, 3000, 100_000][random.below(4)];
            let size = 1 + random.below(bound);
            match random.below(5) {
                0 => Sent::Message(format!("{n}{}", "x".repeat(size.min(60_000)))),
                1 | 2 => Sent::Data(Channel::Stderr, pattern(size, n)),
                _ => Sent::Data(Channel::Main, pattern(size, n)),
            }
        })
        .collect();
    // One of the channels ends early.
    let (at, ended) = (random.below(length), [Channel::Main, Channel::Stderr][random.below(2)]);
    let mut place = 0;
    script.retain(|sent| {
        place += 1;
        place <= at || !matches!(sent, Sent::Data(channel, _) if *channel == ended)
    });
    let at = at.min(script.len());
    script.insert(at, Sent::End(ended));
    script
}

/// How far an end came: what is known of one that hangs.
#[derive(Debug, Default)]
struct Steps {
    /// Steps of its script.
    sent: AtomicUsize,
    finished: AtomicBool,
    /// Things that came.
    taken: AtomicUsize,
    ended: AtomicBool,
}

/// Plays a script and takes what comes, to the end of both; returns what came by lane.
async fn play(
    stream: Stream,
    script: Vec<Sent>,
    mut random: Random,
    steps: Arc<[Steps; 2]>,
    end: usize,
) -> (Vec<String>, [Vec<u8>; 2]) {
    let Stream { sender, mut receiver } = stream;
    let steps = &steps[end];
    let send = async {
        for sent in script {
            match sent {
                Sent::Message(text) => sender.send_message(&text).await.expect("sends"),
                Sent::Data(channel, bytes) => sender.send(channel, bytes).await.expect("sends"),
                Sent::End(channel) => sender.end(channel).await.expect("ends"),
            }
            steps.sent.fetch_add(1, Ordering::Relaxed);
        }
        sender.finish().await.expect("finishes");
        steps.finished.store(true, Ordering::Relaxed);
    };
    let take = async {
        let (mut messages, mut data) = (Vec::new(), [Vec::new(), Vec::new()]);
        while let Some(incoming) = receiver.next().await.expect("receives") {
            match incoming {
                Incoming::Data(Channel::Main, bytes) => data[0].extend_from_slice(&bytes),
                Incoming::Data(Channel::Stderr, bytes) => data[1].extend_from_slice(&bytes),
                Incoming::Message(text) => messages.push(serde_json::from_slice(&text).expect("is a text")),
                Incoming::End(_) => {}
            }
            steps.taken.fetch_add(1, Ordering::Relaxed);
            if random.below(4) == 0 {
                tokio::task::yield_now().await;
            }
        }
        steps.ended.store(true, Ordering::Relaxed);
        (messages, data)
    };
    tokio::join!(send, take).1
}

fn expected(script: &[Sent]) -> (Vec<String>, [Vec<u8>; 2]) {
    let (mut messages, mut data) = (Vec::new(), [Vec::new(), Vec::new()]);
    for sent in script {
        match sent {
            Sent::Message(text) => messages.push(text.clone()),
            Sent::Data(channel, bytes) => {
                data[usize::from(*channel == Channel::Stderr)].extend_from_slice(bytes)
            }
            Sent::End(_) => {}
        }
    }
    (messages, data)
}

/// How many streams the randomised test plays; `MALAI_CASES` says otherwise.
fn cases() -> u64 {
    std::env::var("MALAI_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(100)
}

/// Plays a case on a thread and a runtime of its own, which is given up when the time outside is over: where the clock
/// stands still while anything runs, what spins comes to no deadline of its own. Who fails says which case it was.
fn in_time(mut runtime: tokio::runtime::Builder, seed: u64) {
    let steps = Arc::<[Steps; 2]>::default();
    let (told, ended) = std::sync::mpsc::channel();
    let (shown, case) = (Arc::clone(&steps), format!("MALAI_SEED={seed} MALAI_CASES=1"));
    let thread = std::thread::spawn(move || {
        runtime.enable_all().build().expect("starts").block_on(whatever_is_sent(seed, steps));
        told.send(()).expect("somebody waits");
    });
    match ended.recv_timeout(PATIENCE) {
        Ok(()) => thread.join().expect("has ended"),
        Err(RecvTimeoutError::Timeout) => panic!("{case} hangs: {shown:?}"),
        Err(RecvTimeoutError::Disconnected) => panic!("{case} fails: {shown:?}"),
    }
}

/// The receiver checks every frame against the credit that it gave: a replay that spent too much would end the stream.
#[test]
fn whatever_is_sent_both_ways_arrives_exactly_however_often_and_wherever_it_is_cut() {
    let seed = seed();
    for round in 0..cases() {
        // The clock stands still while anything runs: pauses between attempts cost nothing.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.start_paused(true);
        in_time(runtime, seed.wrapping_add(round << 32));
    }
}

#[test]
fn whatever_is_sent_both_ways_arrives_exactly_when_everything_runs_at_once() {
    let seed = seed();
    for round in 0..cases().div_ceil(4) {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(3);
        in_time(runtime, seed.wrapping_add(round << 32));
    }
}

async fn whatever_is_sent(seed: u64, steps: Arc<[Steps; 2]>) {
    let mut random = Random(seed);
    let resuming = Resuming::new(LINGER).await;
    let (a, b) = resuming.ids();
    let cuts = AtomicUsize::new(6 + random.below(10));
    let (spread, dice) = ([1_500, 5_000, 100_000, 1_000_000][random.below(4)], Mutex::new(Random(seed ^ 7)));
    let budget = move || {
        let left = cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.ok().map(|_| 1 + dice.lock().expect("is not poisoned").below(spread))
    };
    let (opened, theirs, kept) = resuming.redialled(1, budget).await;
    // Short ones too: where streams end is where most can go wrong.
    let length = [5, 20, 20, 150][random.below(4)];
    let scripts = [script(&mut random, length), script(&mut random, length)];
    resuming.network.cut_after(a, b, random.below(spread));
    let play = |n: usize, stream: Stream| {
        let played = play(stream, scripts[n].clone(), Random(seed ^ (n as u64 + 1)), Arc::clone(&steps), n);
        resuming.scope.spawn("end", played)
    };
    let (ours, others) = (play(0, opened), play(1, theirs));
    let both = async { tokio::try_join!(ours, others) };
    let both = tokio::time::timeout(LINGER / 2, both).await.expect("both ends come to an end");
    let (ours, others) = both.expect("neither end fails");
    assert!(ours.expect("goes on") == expected(&scripts[1]), "what came back");
    assert!(others.expect("goes on") == expected(&scripts[0]), "what arrived");
    drop(kept);
    resuming.end().await;
}

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

#[tokio::test(start_paused = true)]
async fn what_a_peer_was_told_to_be_unknown_does_not_begin_afterwards() {
    let scope = Scope::new();
    let (peer, other, own) = (key(1).id52(), key(3).id52(), key(2).id52());
    let resumables = Resumables::default();
    let (asking, asked) = Stream::pair(&scope, peer, own).expect("makes a pair");
    let unknown = resumables.resume(&peer, &token(1), asked, &[LaneState::default(); 3]);
    assert!(matches!(unknown, Err(P2pError::StreamUnknown)), "{unknown:?}");
    let (late, its) = Stream::pair(&scope, peer, own).expect("makes a pair");
    let keep = |of, name, linger| resumables.keep(of, token(name), &its, linger);
    for linger in [LINGER, Duration::ZERO] {
        assert!(matches!(keep(peer, 1, linger), Err(P2pError::StreamUnknown)));
    }
    // That name of that peer alone, and not for ever.
    assert!(keep(peer, 2, LINGER).expect("begins").is_some());
    assert!(keep(other, 1, LINGER).expect("begins").is_some());
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(keep(peer, 1, LINGER).expect("begins").is_some());
    for name in 0..=255 {
        let (_asking, asked) = Stream::pair(&scope, peer, own).expect("makes a pair");
        _ = resumables.resume(&peer, &token(name), asked, &[LaneState::default(); 3]);
    }
    assert!((0..=255).all(|name| keep(peer, name, LINGER).is_err()));
    assert!(!resumables.has(&peer) && !resumables.has(&other), "what is unknown is nothing to go on with");
    drop((asking, late, its));
    scope.shutdown(PATIENCE).await;
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
async fn another_peer_cannot_go_on_with_a_stream_though_it_knows_the_token() {
    let resuming = Resuming::new(LINGER).await;
    let (mut opened, handle, theirs, _kept) = resuming.stream(1).await;
    resuming.cut();
    soon(handle.lost()).await.expect("is lost");
    // The registry is what tells peers apart; the connection says who it is.
    let stranger = key(9).id52();
    let (mine, its) = Stream::pair(&resuming.scope, stranger, resuming.server.id52()).expect("makes a pair");
    let lanes = [LaneState::default(); 3];
    let refused = resuming.resumables.resume(&stranger, &token(1), its, &lanes);
    assert!(matches!(refused, Err(P2pError::StreamUnknown)), "{refused:?}");
    let Stream { sender: _sender, mut receiver } = mine;
    let told = soon(receiver.message::<String>()).await;
    assert!(matches!(told, Err(P2pError::StreamReset { code: stream_code::UNKNOWN })), "{told:?}");
    // Its owner can.
    soon(handle.resume_over(resuming.fresh().await, token(1))).await.expect("goes on");
    soon(theirs.sender.send_message("still yours")).await.expect("sends");
    let got = soon(opened.receiver.message::<String>()).await.expect("receives");
    assert_eq!(got.as_deref(), Some("still yours"));
    drop((opened, theirs));
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

#[tokio::test]
async fn a_peer_may_have_so_many_streams_kept_and_no_name_twice() {
    let scope = Scope::new();
    let (peer, own) = (key(1).id52(), key(2).id52());
    let resumables = Resumables::default();
    let (_mine, its) = Stream::pair(&scope, peer, own).expect("makes a pair");
    let kept: Vec<Option<Kept>> = (0..1025_u32)
        .map(|n| {
            let mut name = [0; 16];
            name[..4].copy_from_slice(&n.to_be_bytes());
            resumables.keep(peer, ResumeToken::from_random(name), &its, LINGER).expect("is no late one")
        })
        .collect();
    assert!(kept[..1024].iter().all(Option::is_some) && kept[1024].is_none());
    drop(kept);
    assert!(!resumables.has(&peer));
    let first = resumables.keep(peer, token(1), &its, LINGER).expect("is no late one");
    assert!(first.is_some());
    assert!(resumables.keep(peer, token(1), &its, LINGER).expect("is no late one").is_none());
    drop(first);
    drop((_mine, its));
    scope.shutdown(PATIENCE).await;
}
