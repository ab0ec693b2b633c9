//! Streams that go on over another connection at the byte where they stopped.

mod hostile;
mod lost;
mod names;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;

use bytes::Bytes;
use malai_model::wire::{LaneState, Request, ResumeStream, ResumeToken};
use tokio::sync::mpsc;

use super::streams::{Random, pattern, seed};
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
