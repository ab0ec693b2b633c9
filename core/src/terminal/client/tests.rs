//! The client beside a machine that does as each test says, over real streams.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use malai_model::code::ErrorCode;
use malai_model::id::Id52;
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::p2p::{Channel, stream_code};

const SOON: Duration = Duration::from_secs(20);

/// Where the client's streams come out.
struct Machine {
    scope: Scope,
    streams: mpsc::UnboundedReceiver<Stream>,
    way: Arc<Way>,
}

struct Way {
    scope: Scope,
    streams: mpsc::UnboundedSender<Stream>,
    down: AtomicBool,
    refused: Notify,
}

impl Way {
    fn open(&self) -> Stream {
        let (ours, theirs) = Stream::pair(&self.scope, id(1), id(2)).expect("makes a pair");
        self.streams.send(theirs).expect("the test goes on");
        ours
    }
}

impl Redial for Way {
    fn redial(&self) -> Pin<Box<dyn Future<Output = Result<Stream, WireError>> + Send + '_>> {
        Box::pin(async {
            if self.down.load(Ordering::SeqCst) {
                self.refused.notify_one();
                return Err(failed(ErrorCode::PeerUnreachable));
            }
            Ok(self.open())
        })
    }
}

fn id(number: u8) -> Id52 {
    let secret = fastn_id52::SecretKey::from_bytes(&[number; 32]);
    secret.id52().parse().expect("is an id52")
}

fn failed(code: ErrorCode) -> WireError {
    WireError { code, message: "do it".to_owned(), hint: None }
}

fn session() -> SessionId {
    SessionId::from_random([3; 8])
}

impl Machine {
    fn new() -> Self {
        let (sender, streams) = mpsc::unbounded_channel();
        let scope = Scope::new();
        let way = Way {
            scope: scope.clone(),
            streams: sender,
            down: AtomicBool::new(false),
            refused: Notify::new(),
        };
        Self { scope, streams, way: Arc::new(way) }
    }

    async fn stream(&mut self) -> Stream {
        within(self.streams.recv()).await.expect("a stream comes")
    }

    /// Opens a session, and returns the machine's end of its stream.
    async fn open(&mut self) -> (SessionClient, Stream, ResumeToken) {
        let way: Arc<dyn Redial> = self.way.clone();
        let first = self.way.open();
        let mut theirs = self.stream().await;
        let scope = self.scope.clone();
        let request = OpenSession {
            argv: None,
            env: Default::default(),
            window: WindowSize::default(),
            client: None,
            confirms: false,
        };
        let (opened, token) = tokio::join!(SessionClient::open(first, request, way, &scope), async {
            let asked = within(theirs.receiver.message::<Request>()).await.expect("reads");
            let Some(Request::OpenSession(OpenSession { client: Some(client), confirms: true, .. })) = asked
            else {
                panic!("{asked:?}");
            };
            attached(&theirs, 0, 0, 0).await;
            client
        });
        let client = opened.expect("opens");
        let confirmed = within(theirs.receiver.message::<Notice>()).await.expect("reads");
        assert_eq!(confirmed, Some(Notice::Confirm {}));
        (client, theirs, token)
    }

    /// Takes the next attempt to attach.
    async fn attempt(&mut self) -> (Stream, AttachSession) {
        let mut stream = self.stream().await;
        match within(stream.receiver.message::<Request>()).await.expect("reads") {
            Some(Request::AttachSession(request)) => (stream, request),
            other => panic!("{other:?}"),
        }
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.expect("does not take for ever")
}

async fn attached(stream: &Stream, input: u64, output: u64, redraw: u64) {
    let attached = Attached { session: session(), input, output, redraw, detached: 0 };
    stream.sender.send_message(&Notice::Attached(attached)).await.expect("sends");
}

async fn show(stream: &Stream, text: &'static str) {
    stream.sender.send(Channel::Main, Bytes::from_static(text.as_bytes())).await.expect("sends");
}

/// Takes typed bytes until there are so many.
async fn typed(stream: &mut Stream, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let bytes = within(stream.receiver.data(Channel::Main)).await.expect("reads");
        all.extend_from_slice(&bytes.expect("more comes"));
    }
    all
}

/// Takes output until there is so much; fails at anything else.
async fn output(events: &mut SessionEvents, count: usize) -> String {
    let mut all = Vec::new();
    while all.len() < count {
        match within(events.next()).await.expect("goes on") {
            SessionEvent::Output(bytes) => all.extend_from_slice(&bytes),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&all)),
        }
    }
    String::from_utf8(all).expect("is text")
}

fn lose(mut stream: Stream) {
    stream.sender.reset(stream_code::CANCELLED);
    stream.receiver.stop(stream_code::CANCELLED);
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_goes_on_at_the_byte() {
    let mut machine = Machine::new();
    let (client, mut first, token) = machine.open().await;
    let SessionClient { input, mut events, control, .. } = client;
    show(&first, "abc").await;
    assert_eq!(output(&mut events, 3).await, "abc");
    input.write(Bytes::from_static(b"hello")).await.expect("types");
    assert_eq!(typed(&mut first, 5).await, b"hello");
    lose(first);
    assert!(matches!(within(events.next()).await, Ok(SessionEvent::Reconnecting { .. })));
    control.resize(WindowSize { columns: 100, rows: 30, ..WindowSize::default() });
    input.write(Bytes::from_static(b" again")).await.expect("types");
    let (mut second, request) = machine.attempt().await;
    assert_eq!((request.session, request.client, request.received), (Some(session()), token, Some(3)));
    // The session got no more than two of the bytes, and shows one byte again.
    attached(&second, 2, 2, 0).await;
    show(&second, "cdef").await;
    assert_eq!(typed(&mut second, 9).await, b"llo again");
    assert_eq!(within(events.next()).await.expect("goes on"), SessionEvent::Reconnected);
    assert_eq!(output(&mut events, 3).await, "def");
    assert_eq!(control.status().received, 6);
    second.sender.finish_with(&Notice::Ended(CommandEnd::Exited { status: 4 })).await.expect("ends");
    let end = within(events.next()).await.expect("ends");
    assert_eq!(end, SessionEvent::Ended(CommandEnd::Exited { status: 4 }));
    assert!(matches!(within(events.next()).await, Err(AttachError::Over)));
    assert!(matches!(input.write(Bytes::from_static(b"x")).await, Err(AttachError::Over)));
}

#[tokio::test]
async fn it_tries_again_while_that_may_help_and_no_longer() {
    let mut machine = Machine::new();
    let (client, first, _) = machine.open().await;
    let SessionClient { mut events, input: _input, control, .. } = client;
    machine.way.down.store(true, Ordering::SeqCst);
    lose(first);
    assert!(matches!(within(events.next()).await, Ok(SessionEvent::Reconnecting { .. })));
    for _ in 0..2 {
        within(machine.way.refused.notified()).await;
    }
    assert!(matches!(control.status().link, Link::Lost { .. }));
    machine.way.down.store(false, Ordering::SeqCst);
    let (busy, _) = machine.attempt().await;
    busy.sender.finish_with(&Notice::Failed(failed(ErrorCode::LimitReached))).await.expect("sends");
    // One that says nothing at all is lost, too.
    let (silent, _) = machine.attempt().await;
    lose(silent);
    let (denied, _) = machine.attempt().await;
    denied.sender.finish_with(&Notice::Failed(failed(ErrorCode::AclDenied))).await.expect("sends");
    let error = within(events.next()).await.expect_err("is over");
    assert_eq!(error.code(), ErrorCode::AclDenied);
    assert!(machine.streams.try_recv().is_err(), "it gave up");
}

#[tokio::test]
async fn what_is_asked_for_while_it_attaches_again_is_done_when_it_has() {
    let mut machine = Machine::new();
    let (client, first, _) = machine.open().await;
    let SessionClient { mut events, input: _input, control, .. } = client;
    lose(first);
    assert!(matches!(within(events.next()).await, Ok(SessionEvent::Reconnecting { .. })));
    let (mut second, _) = machine.attempt().await;
    let window = WindowSize { columns: 100, rows: 30, ..WindowSize::default() };
    control.resize(window);
    // Taken by whoever waits for the attempt.
    tokio::time::sleep(Duration::from_millis(50)).await;
    attached(&second, 0, 0, 0).await;
    let notice = within(second.receiver.message::<Notice>()).await.expect("reads");
    assert_eq!(notice, Some(Notice::Resize { window }));

    lose(second);
    let (third, _) = machine.attempt().await;
    control.redraw();
    tokio::time::sleep(Duration::from_millis(50)).await;
    attached(&third, 0, 0, 0).await;
    let (fourth, request) = machine.attempt().await;
    assert_eq!((request.window, request.received), (window, None));
    drop(fourth);
}

#[tokio::test]
async fn a_screen_that_something_else_wrote_on_is_drawn_anew() {
    let mut machine = Machine::new();
    let (client, first, token) = machine.open().await;
    let SessionClient { mut events, input: _input, control, .. } = client;
    show(&first, "abc").await;
    assert_eq!(output(&mut events, 3).await, "abc");
    control.redraw();
    let (second, request) = machine.attempt().await;
    assert_eq!((request.client, request.received), (token, None));
    // Nobody hears of a lost connection: there was none.
    attached(&second, 0, 3, 4).await;
    show(&second, "DRAWd").await;
    assert_eq!(output(&mut events, 5).await, "DRAWd");
    assert_eq!(control.status().received, 4);
    drop(first);
}

#[tokio::test]
async fn what_is_typed_while_the_connection_is_lost_is_kept_up_to_a_bound() {
    let mut machine = Machine::new();
    let (client, first, _) = machine.open().await;
    let SessionClient { mut events, input, control, .. } = client;
    machine.way.down.store(true, Ordering::SeqCst);
    lose(first);
    assert!(matches!(within(events.next()).await, Ok(SessionEvent::Reconnecting { .. })));
    let text: Vec<u8> = (0..typed::WAITING).map(|number| b'a' + (number % 26) as u8).collect();
    within(input.write(Bytes::from(text.clone()))).await.expect("is taken over");
    let more = input.write(Bytes::from_static(b"end"));
    tokio::pin!(more);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut more).await.is_err(),
        "there is no more room"
    );
    assert_eq!(control.status().unsent, typed::WAITING);
    machine.way.down.store(false, Ordering::SeqCst);
    let (mut second, _) = machine.attempt().await;
    attached(&second, 0, 0, 0).await;
    let (written, all) = tokio::join!(within(more), typed(&mut second, typed::WAITING + 3));
    written.expect("is taken over");
    assert_eq!(all, [text.as_slice(), b"end"].concat());
}

#[tokio::test]
async fn the_machines_last_word_is_told_after_all_of_the_output() {
    let mut machine = Machine::new();
    let (client, first, _) = machine.open().await;
    let SessionClient { mut events, input: _input, control: _control, .. } = client;
    let Stream { sender, receiver: _receiver } = first;
    let block = Bytes::from(vec![b'x'; 64 * 1024]);
    let sending = async {
        for _ in 0..64 {
            sender.send(Channel::Main, block.clone()).await.expect("sends");
        }
        sender.finish_with(&Notice::Ended(CommandEnd::Killed { signal: 9 })).await.expect("ends");
    };
    let taking = async {
        // A front that pauses stops the machine, and loses nothing.
        tokio::time::sleep(Duration::from_millis(100)).await;
        output(&mut events, 64 * 64 * 1024).await.len()
    };
    let ((), taken) = tokio::join!(within(sending), taking);
    assert_eq!(taken, 64 * 64 * 1024);
    let end = within(events.next()).await.expect("ends");
    assert_eq!(end, SessionEvent::Ended(CommandEnd::Killed { signal: 9 }));
}

#[tokio::test]
async fn leaving_is_asked_for_and_answered_and_needs_no_connection() {
    let mut machine = Machine::new();
    let (client, mut first, _) = machine.open().await;
    let SessionClient { mut events, input: _input, control, .. } = client;
    control.resize(WindowSize { columns: 90, rows: 20, ..WindowSize::default() });
    let notice = within(first.receiver.message::<Notice>()).await.expect("reads");
    assert!(matches!(notice, Some(Notice::Resize { window }) if window.columns == 90), "{notice:?}");
    control.detach();
    let notice = within(first.receiver.message::<Notice>()).await.expect("reads");
    assert_eq!(notice, Some(Notice::Detach {}));
    let reason = DetachReason::Asked;
    first.sender.finish_with(&Notice::Detached { reason }).await.expect("sends");
    assert_eq!(within(events.next()).await.expect("ends"), SessionEvent::Detached(reason));

    let (client, first, _) = machine.open().await;
    machine.way.down.store(true, Ordering::SeqCst);
    lose(first);
    let SessionClient { mut events, input: _input, control, .. } = client;
    assert!(matches!(within(events.next()).await, Ok(SessionEvent::Reconnecting { .. })));
    control.detach();
    assert_eq!(within(events.next()).await.expect("ends"), SessionEvent::Detached(reason));
}

#[tokio::test]
async fn a_client_that_is_dropped_leaves() {
    let mut machine = Machine::new();
    let (client, mut first, _) = machine.open().await;
    drop(client);
    within(first.receiver.data(Channel::Main)).await.expect_err("is gone");
    assert!(machine.streams.try_recv().is_err(), "it does not come back");
}

#[tokio::test]
async fn whoever_looks_on_types_nothing() {
    let mut machine = Machine::new();
    let way: Arc<dyn Redial> = machine.way.clone();
    let stream = machine.way.open();
    let scope = machine.scope.clone();
    let attaching =
        SessionClient::attach(stream, None, AttachMode::Watch, WindowSize::default(), way, &scope);
    let (client, mut theirs) = tokio::join!(attaching, async {
        let (stream, request) = machine.attempt().await;
        assert_eq!((request.mode, request.session), (AttachMode::Watch, None));
        attached(&stream, 0, 7, 2).await;
        show(&stream, "ABc").await;
        stream
    });
    let SessionClient { mut events, input, control, .. } = client.expect("attaches");
    input.write(Bytes::from_static(b"typed")).await.expect("is dropped");
    assert_eq!(output(&mut events, 3).await, "ABc");
    control.detach();
    // The first thing that comes is not what was typed.
    let incoming = within(theirs.receiver.next()).await.expect("reads");
    assert!(matches!(incoming, Some(crate::p2p::Incoming::Message(_))), "{incoming:?}");
}

#[tokio::test]
async fn whoever_starts_one_by_itself_and_hears_nothing_is_told_that_it_may_run() {
    for (answer, may_run) in [(None, true), (Some(ErrorCode::AclDenied), false)] {
        let mut machine = Machine::new();
        let first = machine.way.open();
        let mut theirs = machine.stream().await;
        let request = OpenSession {
            argv: None,
            env: Default::default(),
            window: WindowSize::default(),
            client: None,
            confirms: false,
        };
        let (started, ()) = tokio::join!(SessionClient::start_detached(first, request), async {
            let asked = within(theirs.receiver.message::<Request>()).await.expect("reads");
            assert!(
                matches!(asked, Some(Request::OpenSession(OpenSession { client: None, .. }))),
                "{asked:?}"
            );
            match answer {
                Some(code) => {
                    let told = Notice::Failed(failed(code));
                    theirs.sender.finish_with(&told).await.expect("sends");
                }
                None => lose(theirs),
            }
        });
        let error = started.expect_err("did not hear");
        assert_eq!(matches!(error, AttachError::MayRun(_)), may_run, "{error}");
    }
}

fn listed_with(word: String) -> SessionInfo {
    SessionInfo {
        session: session(),
        argv: vec![word],
        user: "root".to_owned(),
        started: jiff::Timestamp::UNIX_EPOCH,
        active: jiff::Timestamp::UNIX_EPOCH,
        attached: false,
        watchers: 0,
        window: WindowSize::default(),
        title: String::new(),
        ended: None,
    }
}

#[tokio::test]
async fn a_list_of_sessions_ends_or_is_not_listened_to() {
    let info = |number: usize| listed_with(number.to_string());
    // How many at a time, and how many in all before it ends by itself.
    for (each, all, is_taken) in
        [(256, MOST_LISTED, true), (256, 4 * MOST_LISTED, false), (0, 1000, false), (1, 3, true)]
    {
        let mut machine = Machine::new();
        let ours = machine.way.open();
        let mut theirs = machine.stream().await;
        let telling = async {
            let asked = within(theirs.receiver.message::<Request>()).await.expect("reads");
            assert_eq!(asked, Some(Request::ListSessions {}));
            let (mut told, mut parts) = (0, 0);
            while told < all && parts < all {
                let sessions: Vec<_> = (told..told + each).map(info).collect();
                (told, parts) = (told + each, parts + 1);
                let more = told < all && parts < all;
                if within(theirs.sender.send_message(&Notice::Sessions { sessions, more })).await.is_err() {
                    break;
                }
            }
            (told, parts)
        };
        let (listed, (told, parts)) = tokio::join!(within(SessionClient::list(ours)), telling);
        if is_taken {
            let listed = listed.expect("is a list");
            let expected: Vec<_> = (0..all).map(info).collect();
            assert!(listed == expected, "{} of {all}, {each} at a time", listed.len());
        } else {
            let error = listed.expect_err("goes on and on");
            assert_eq!(error.code(), ErrorCode::WireMalformed, "{error}");
            // The machine hears of it: what it sent beyond the bound is what was under way.
            assert!(told < MOST_LISTED + MOST_LISTED / 4 && parts < all, "{told} in {parts} parts");
        }
    }
}

#[tokio::test]
async fn a_list_of_endless_words_is_not_listened_to() {
    let mut machine = Machine::new();
    let ours = machine.way.open();
    let mut theirs = machine.stream().await;
    let words = "x".repeat(48 * 1024);
    let info = listed_with(words.clone());
    let telling = async {
        within(theirs.receiver.message::<Request>()).await.expect("reads");
        let mut told = 0;
        let part = Notice::Sessions { sessions: vec![info], more: true };
        while told < 4 * MOST_LISTED_BYTES && within(theirs.sender.send_message(&part)).await.is_ok() {
            told += words.len();
        }
        told
    };
    let (listed, told) = tokio::join!(within(SessionClient::list(ours)), telling);
    assert_eq!(listed.expect_err("goes on and on").code(), ErrorCode::WireMalformed);
    assert!(told < MOST_LISTED_BYTES + MOST_LISTED_BYTES / 4, "{told}");
}
