use malai_model::wire::{AttachMode, AttachSession, DetachReason, ResumeToken, SessionInfo, WindowSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::host::{Executable, LocalUser, Login, SpawnRequest, effective_uid};
use crate::terminal::connection::{HostConnection, HostEvent, HostReader, HostWriter, ask_end, ask_info};
use crate::terminal::protocol::{INPUT_WINDOW, data_head};
use crate::terminal::screen::{History, Screen};
use crate::terminal::{Opener, SessionError, socket};
use malai_model::wire::{Attached, SessionId};

mod openings;
mod rest_and_end;

const LONG: Duration = Duration::from_secs(30);

/// A session whose process is a task of the test.
struct Rig {
    dir: tempfile::TempDir,
    id: SessionId,
    scope: Scope,
    over: tokio::task::JoinHandle<Option<()>>,
}

impl Rig {
    fn start(script: &str) -> Self {
        Self::start_with(script, Patience::default())
    }

    fn start_with(script: &str, patience: Patience) -> Self {
        Self::start_for(script, patience, None)
    }

    fn start_for(script: &str, patience: Patience, opener: Option<Opener>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let id = SessionId::from_random([7; 8]);
        let user = LocalUser::current().expect("a user");
        let argv = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let request = SpawnRequest {
            argv: argv.clone(),
            env: [("PATH", user.path.as_str()), ("TERM", "xterm-256color"), ("LANG", "C.UTF-8")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            dir: dir.path().to_owned(),
            user: user.clone(),
            program: Executable::Named,
        };
        let mut session = Session::new(id.clone(), argv, user.name, WindowSize::default());
        if let Some(opener) = opener {
            session.expect(opener);
        }
        let listener = socket::listen(dir.path()).expect("listens");
        let program = PtyProcess::spawn(&request, WindowSize::default(), Login::Program).expect("starts");
        let lock = crate::terminal::life::claim(dir.path()).expect("is free");
        let mut running = Running::new(session, program, listener, lock, effective_uid(), patience);
        let scope = Scope::new();
        let over = scope.spawn("session", async move { running.run_to_end().await });
        Self { dir, id, scope, over }
    }

    async fn attach(&self, request: AttachSession) -> Client {
        let connection =
            HostConnection::attach(&self.id, self.dir.path(), &request).await.expect("is attached");
        let attached = connection.attached().clone();
        let (reader, writer) = connection.split();
        Client { attached, reader, writer, shown: Vec::new(), again: Vec::new() }
    }

    async fn info(&self) -> SessionInfo {
        ask_info(&self.id, self.dir.path()).await.expect("answers")
    }

    async fn await_info(&self, what: &str, wanted: impl Fn(&SessionInfo) -> bool) -> SessionInfo {
        let waiting = async {
            loop {
                let info = self.info().await;
                if wanted(&info) {
                    return info;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("it never was: {what}"))
    }

    async fn await_file(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        let waiting = async {
            loop {
                match std::fs::read_to_string(&path) {
                    Ok(text) if text.ends_with('\n') => return text,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("{name} never was"))
    }

    async fn end(self) {
        if let Err(error) = ask_end(&self.id, self.dir.path(), EndReason::Asked).await {
            assert!(matches!(error, SessionError::Gone { .. }), "{error}");
        }
        self.goes().await;
    }

    async fn goes(self) {
        tokio::time::timeout(LONG, self.over).await.expect("is over in time").expect("did not panic");
        self.scope.shutdown(Duration::from_secs(1)).await;
    }
}

fn token(byte: u8) -> ResumeToken {
    ResumeToken::from_random([byte; 16])
}

fn control(client: u8, received: Option<u64>) -> AttachSession {
    let window = WindowSize { columns: 60, rows: 10, ..WindowSize::default() };
    AttachSession { session: None, mode: AttachMode::Control, client: token(client), window, received }
}

fn watch(client: u8) -> AttachSession {
    AttachSession { mode: AttachMode::Watch, ..control(client, None) }
}

struct Client {
    attached: Attached,
    reader: HostReader,
    writer: HostWriter,
    shown: Vec<u8>,
    again: Vec<Attached>,
}

impl Client {
    /// Takes what comes until something else than bytes.
    async fn last(&mut self) -> HostEvent {
        loop {
            let next = tokio::time::timeout(LONG, self.reader.next()).await;
            let next = next.unwrap_or_else(|_| panic!("nothing comes behind {:?}", self.text()));
            match next.expect("something comes") {
                HostEvent::Data(bytes) => self.shown.extend_from_slice(&bytes),
                HostEvent::Attached(attached) => {
                    self.shown.clear();
                    self.again.push(attached);
                }
                other => return other,
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    async fn sees(&mut self, wanted: &str) {
        while !self.text().contains(wanted) {
            match tokio::time::timeout(LONG, self.reader.next()).await {
                Ok(Ok(HostEvent::Data(bytes))) => self.shown.extend_from_slice(&bytes),
                Ok(Ok(HostEvent::Attached(attached))) => {
                    self.shown.clear();
                    self.again.push(attached);
                }
                other => panic!("{wanted:?} never was shown, but {:?}, then {other:?}", self.text()),
            }
        }
    }

    async fn types(&mut self, text: &str) {
        let mut bytes = Bytes::copy_from_slice(text.as_bytes());
        let typing = async {
            loop {
                tokio::select! {
                    written = self.writer.write(&mut bytes) => return written.expect("is typed"),
                    event = self.reader.next() => match event.expect("something comes") {
                        HostEvent::Data(bytes) => self.shown.extend_from_slice(&bytes),
                        other => panic!("unexpected {other:?}"),
                    },
                }
            }
        };
        tokio::time::timeout(LONG, typing).await.expect("is typed in time");
    }

    /// How many bytes of output this client has.
    fn received(&self) -> u64 {
        self.attached.output + self.shown.len() as u64 - self.attached.redraw
    }
}

fn exited(status: u8) -> HostEvent {
    HostEvent::Ended(CommandEnd::Exited { status })
}

#[tokio::test]
async fn what_is_typed_arrives_and_what_is_shown_and_the_end_come_back() {
    let rig = Rig::start("read line; echo got $line; exit 3");
    let mut client = rig.attach(control(1, Some(0))).await;
    assert_eq!((client.attached.redraw, client.attached.output, client.attached.input), (0, 0, 0));
    client.types("hello\n").await;
    assert_eq!(client.last().await, exited(3));
    assert!(client.text().ends_with("got hello\r\n"), "{:?}", client.text());
    client.writer.seen().await.expect("is told");
    rig.goes().await;
}

#[tokio::test]
async fn a_session_goes_on_without_its_client_and_is_drawn_for_the_next() {
    let rig = Rig::start("echo one; read line; echo two $line; read line; echo three");
    let mut first = rig.attach(control(1, Some(0))).await;
    first.sees("one").await;
    first.types("x\n").await;
    drop(first);
    rig.await_info("alone", |info| !info.attached).await;
    let mut second = rig.attach(control(2, None)).await;
    assert!(second.attached.redraw > 0);
    second.sees("two x").await;
    assert!(second.text().contains("one"));
    second.types("y\n").await;
    assert_eq!(second.last().await, exited(0));
    assert!(second.text().contains("three"));
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_misses_and_types_nothing_twice() {
    let rig = Rig::start("stty -echo; echo ready; while read line; do echo \"<$line>\"; sleep 0.5; done");
    let mut first = rig.attach(control(1, Some(0))).await;
    first.sees("ready").await;
    first.types("a\nb\n").await;
    first.sees("<a>").await;
    let received = first.received();
    drop(first);
    rig.await_info("alone", |info| !info.attached).await;
    let mut again = rig.attach(control(1, Some(received))).await;
    assert_eq!((again.attached.input, again.attached.output, again.attached.redraw), (4, received, 0));
    again.sees("<b>").await;
    let other = rig.attach(control(9, Some(received))).await;
    assert_eq!(other.attached.input, 0);
    drop(other);
    let back = rig.attach(control(1, Some(received + 1_000_000))).await;
    assert_eq!(back.attached.input, 4);
    assert!(back.attached.redraw > 0, "it claims to have what never was");
    rig.end().await;
}

#[tokio::test]
async fn who_comes_later_takes_over() {
    let rig = Rig::start("cat");
    let mut first = rig.attach(control(1, Some(0))).await;
    let mut second = rig.attach(control(2, None)).await;
    assert_eq!(first.last().await, HostEvent::Detached(DetachReason::TakenOver));
    second.types("mine\n").await;
    second.sees("mine").await;
    // What the first still types does not arrive.
    let mut late = Bytes::from_static(b"late\n");
    _ = first.writer.write(&mut late).await;
    second.types("end\n").await;
    second.sees("end").await;
    assert!(!second.text().contains("late"));
    rig.end().await;
}

#[tokio::test]
async fn a_client_that_asks_leaves_and_the_session_goes_on() {
    let rig = Rig::start("cat");
    let mut client = rig.attach(control(1, Some(0))).await;
    client.types("before\n").await;
    client.sees("before").await;
    client.writer.detach().await.expect("is told");
    assert_eq!(client.last().await, HostEvent::Detached(DetachReason::Asked));
    assert_eq!(rig.info().await.ended, None);
    rig.end().await;
}

#[tokio::test]
async fn one_that_looks_on_cannot_type_nor_resize_and_does_not_count() {
    let rig = Rig::start("cat");
    let mut typist = rig.attach(control(1, Some(0))).await;
    let mut watcher = rig.attach(watch(2)).await;
    let info = rig.info().await;
    assert_eq!((info.attached, info.watchers, info.window.columns), (true, 1, 60));
    watcher.types("intruder\n").await;
    watcher
        .writer
        .resize(WindowSize { columns: 5, rows: 5, ..WindowSize::default() })
        .await
        .expect("is told");
    // More than the window: it is taken and thrown away.
    watcher.types(&"x".repeat(3 * INPUT_WINDOW as usize)).await;
    typist.types("typed\n").await;
    watcher.sees("typed").await;
    typist.sees("typed").await;
    assert!(!typist.text().contains("intruder"));
    assert_eq!(rig.info().await.window.columns, 60);
    drop(typist);
    rig.await_info("alone but for the watcher", |info| !info.attached && info.watchers == 1).await;
    rig.end().await;
}

#[tokio::test]
async fn seventeen_cannot_look_on() {
    let rig = Rig::start("cat");
    let mut watchers = Vec::new();
    for number in 0..16 {
        watchers.push(rig.attach(watch(number)).await);
    }
    let refused = HostConnection::attach(&rig.id, rig.dir.path(), &watch(17)).await.expect_err("is refused");
    assert_eq!(refused.code().as_str(), "limit.reached");
    drop(watchers.pop());
    rig.await_info("room", |info| info.watchers == 15).await;
    rig.attach(watch(17)).await;
    rig.end().await;
}

#[tokio::test]
async fn a_slow_watcher_is_skipped_ahead_and_slows_nobody() {
    let rig = Rig::start("read go; seq 1 300000; echo the-end; cat");
    let mut typist = rig.attach(control(1, Some(0))).await;
    let mut watcher = rig.attach(watch(2)).await;
    typist.types("\n").await;
    typist.sees("the-end").await;
    assert!(typist.shown.len() > 2_000_000);
    // It took nothing until now.
    watcher.sees("the-end").await;
    assert!(!watcher.again.is_empty(), "it was never skipped");
    let (mut one, mut two) = (Screen::new(rig.info().await.window), Screen::new(rig.info().await.window));
    one.feed(&typist.shown);
    two.feed(&watcher.shown);
    assert_eq!(one.redraw(History::Without), two.redraw(History::Without));
    rig.end().await;
}

#[tokio::test]
async fn a_program_waits_for_a_client_that_takes_nothing_and_for_nobody_else() {
    let rig = Rig::start("read go; seq 1 1000000; echo done > file; cat");
    let mut client = rig.attach(control(1, Some(0))).await;
    client.types("\n").await;
    // The client reads nothing: what is under way fills up, and the program stops.
    let early = tokio::time::timeout(Duration::from_secs(2), rig.await_file("file")).await;
    assert!(early.is_err(), "the program did not wait");
    // What it says gets through all the same.
    client
        .writer
        .resize(WindowSize { columns: 70, rows: 9, ..WindowSize::default() })
        .await
        .expect("is told");
    rig.await_info("resized", |info| info.window.columns == 70).await;
    drop(client);
    rig.await_file("file").await;
    rig.end().await;
}

#[tokio::test]
async fn a_program_that_reads_nothing_does_not_keep_its_client_from_leaving() {
    let rig = Rig::start("stty raw -echo; echo ready; sleep 100");
    let mut client = rig.attach(control(1, Some(0))).await;
    client.sees("ready").await;
    let mut much = Bytes::from(vec![b'x'; 1_000_000]);
    let stuck = tokio::time::timeout(Duration::from_millis(500), async {
        tokio::select! {
            written = client.writer.write(&mut much) => written.expect("is written"),
            other = client.reader.next() => panic!("unexpected {other:?}"),
        }
    });
    assert!(stuck.await.is_err(), "a million bytes were typed into nothing");
    client.writer.detach().await.expect("is told");
    assert_eq!(client.last().await, HostEvent::Detached(DetachReason::Asked));
    rig.end().await;
}

#[tokio::test]
async fn a_client_that_types_more_than_it_may_is_cut_off() {
    let rig = Rig::start("stty raw -echo; sleep 100");
    let mut stream = socket::connect(rig.dir.path()).await.expect("connects");
    let say = |message: &ToHost| super::super::protocol::encode(message).expect("is a message");
    stream.write_all(&say(&ToHost::Hello(Hello::own()))).await.expect("is written");
    stream.write_all(&say(&ToHost::Attach(control(1, Some(0))))).await.expect("is written");
    let piece = [data_head(60_000).as_slice(), &[b'x'; 60_000]].concat();
    let mut cut = false;
    for _ in 0..50 {
        cut = cut || stream.write_all(&piece).await.is_err();
    }
    let mut rest = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it is closed").ok();
    assert!(cut || !rig.info().await.attached);
    rig.end().await;
}

/// How many bytes wait for a program that reads nothing.
fn waiting(session: &mut Session) -> usize {
    let mut bytes = 0;
    while let Some(next) = session.next_input() {
        bytes += next.len();
        session.took_input(next.len());
    }
    bytes
}

#[test]
fn a_client_that_comes_again_and_again_cannot_type_without_bound() {
    let id = SessionId::from_random([7; 8]);
    let mut session = Session::new(id, Vec::new(), "a".to_owned(), WindowSize::default());
    let mut cut = 0;
    for client in 1..=100 {
        session.attach(client, &control(1, Some(0)), Outbox::new(Arc::default()));
        cut += usize::from(session.typed(client, vec![b'x'; 60_000].into()).is_err());
    }
    let most = 4 * usize::try_from(INPUT_WINDOW).expect("fits");
    let waiting = waiting(&mut session);
    assert!(waiting <= most && cut > 90, "{waiting} bytes wait, {cut} were cut off");
    // When the program reads, there is room again.
    session.attach(101, &control(1, Some(0)), Outbox::new(Arc::default()));
    session.typed(101, vec![b'x'; 60_000].into()).expect("is taken");
}

#[test]
fn a_program_that_asks_and_does_not_read_is_not_answered_without_bound() {
    let id = SessionId::from_random([7; 8]);
    let mut session = Session::new(id, Vec::new(), "a".to_owned(), WindowSize::default());
    for _ in 0..1000 {
        session.show(&b"\x1b[c".repeat(500));
    }
    let waiting = waiting(&mut session);
    assert!(waiting > 0 && waiting <= 2 * usize::try_from(INPUT_WINDOW).expect("fits"), "{waiting}");
}

#[tokio::test]
async fn the_end_is_kept_for_who_comes_next_and_then_forgotten() {
    let rig = Rig::start("echo last words; exit 7");
    let info = rig.await_info("ended", |info| info.ended.is_some()).await;
    assert_eq!(info.ended, Some(CommandEnd::Exited { status: 7 }));
    // One that is lost before it says so has not seen it.
    let mut lost = rig.attach(control(1, None)).await;
    assert_eq!(lost.last().await, exited(7));
    drop(lost);
    rig.await_info("alone", |info| !info.attached).await;
    let mut client = rig.attach(control(2, None)).await;
    assert_eq!(client.last().await, exited(7));
    assert!(client.text().contains("last words"));
    client.writer.seen().await.expect("is told");
    rig.goes().await;
}

#[tokio::test]
async fn an_end_that_nobody_comes_for_is_forgotten_after_a_while() {
    let patience = Patience { linger: Duration::from_millis(200), ..Patience::default() };
    Rig::start_with("exit 0", patience).goes().await;
}

#[tokio::test]
async fn a_session_that_is_ended_is_killed_if_it_must_be_and_its_client_hears_of_it() {
    let patience = Patience { grace: Duration::from_millis(300), ..Patience::default() };
    let rig = Rig::start_with("trap '' HUP TERM; echo ready; while :; do sleep 1; done", patience);
    let mut client = rig.attach(control(1, Some(0))).await;
    client.sees("ready").await;
    let end = ask_end(&rig.id, rig.dir.path(), EndReason::Asked).await.expect("ends");
    assert_eq!(end, CommandEnd::Killed { signal: 9 });
    assert_eq!(client.last().await, HostEvent::Ended(end));
    rig.goes().await;
}

#[tokio::test]
async fn a_client_whose_right_was_taken_away_hears_that() {
    let rig = Rig::start("cat");
    let mut client = rig.attach(control(1, Some(0))).await;
    ask_end(&rig.id, rig.dir.path(), EndReason::Revoked).await.expect("ends");
    let HostEvent::Failed(error) = client.last().await else { panic!("it is told something else") };
    assert_eq!(error.code.as_str(), "acl.revoked");
    rig.goes().await;
}

#[tokio::test]
async fn a_session_that_nobody_uses_ends_when_it_is_to() {
    let patience = Patience { idle: Some(Duration::from_millis(300)), ..Patience::default() };
    let rig = Rig::start_with("cat", patience.clone());
    let client = rig.attach(control(1, Some(0))).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(rig.info().await.ended, None, "somebody is attached");
    drop(client);
    rig.goes().await;
    // One that shows something is used.
    let rig = Rig::start_with(
        "for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 0.1; done; echo x > file; cat",
        patience,
    );
    rig.await_file("file").await;
    rig.goes().await;
}

#[tokio::test]
async fn the_client_that_types_gives_the_size() {
    let rig = Rig::start("read go; stty size; read go; stty size; cat");
    let mut client = rig.attach(control(1, Some(0))).await;
    client.types("\n").await;
    client.sees("10 60").await;
    client
        .writer
        .resize(WindowSize { columns: 90, rows: 30, ..WindowSize::default() })
        .await
        .expect("is told");
    client.types("\n").await;
    client.sees("30 90").await;
    client
        .writer
        .resize(WindowSize { columns: 0, rows: 65_535, ..WindowSize::default() })
        .await
        .expect("is told");
    rig.await_info("cut", |info| (info.window.columns, info.window.rows) == (1, 10_000)).await;
    rig.end().await;
}

#[tokio::test]
async fn a_program_s_question_is_answered_here_only_while_nobody_is_attached() {
    // It asks where its cursor is and notes the answer.
    let ask =
        "printf '\\033[6n'; dd bs=1 count=6 2>/dev/null | od -An -c | tr -d ' \\n' >> file; echo >> file";
    let rig = Rig::start(&format!("stty raw -echo; {ask}; echo first; {ask}; sleep 100"));
    let answered = rig.await_file("file").await;
    assert!(answered.starts_with("033[1;1R\n"), "{answered}");
    let received = rig.await_info("asked", |info| info.ended.is_none()).await;
    drop(received);
    // A client that has nothing yet would answer the first question again: it gets the picture.
    let mut client = rig.attach(control(1, Some(0))).await;
    assert!(client.attached.redraw > 0);
    client.sees("first").await;
    rig.end().await;

    let rig = Rig::start(&format!("stty raw -echo; head -c 1 >/dev/null; {ask}; sleep 100"));
    let mut client = rig.attach(control(1, Some(0))).await;
    client.types("x").await;
    client.sees("\x1b[6n").await;
    client.types("\x1b[9;9R").await;
    assert_eq!(rig.await_file("file").await, "033[9;9R\n");
    rig.end().await;
}

#[tokio::test]
async fn the_first_words_wait_for_a_client_that_is_expected() {
    let patience = Patience { audience: true, ..Patience::default() };
    let rig = Rig::start_with("printf '\\033[6n'; echo asked; cat", patience);
    let mut client = rig.attach(control(1, Some(0))).await;
    client.sees("asked").await;
    assert!(client.text().contains("\x1b[6n"), "{:?}", client.text());
    rig.end().await;
}

#[tokio::test]
async fn garbage_and_strangers_harm_nobody() {
    let rig = Rig::start("cat");
    let mut client = rig.attach(control(1, Some(0))).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0; 64], &[1, 0, 0xff, 0xff], b""] {
        let mut stream = socket::connect(rig.dir.path()).await.expect("connects");
        _ = stream.write_all(garbage).await;
        _ = stream.shutdown().await;
        let mut answer = Vec::new();
        tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.expect("is closed").ok();
    }
    client.types("still here\n").await;
    client.sees("still here").await;
    rig.end().await;
}

#[tokio::test]
async fn a_newer_daemon_is_understood_as_far_as_it_goes() {
    let rig = Rig::start("cat");
    let mut stream = socket::connect(rig.dir.path()).await.expect("connects");
    let frame = |json: &str| {
        let mut frame = u32::try_from(json.len()).expect("is short").to_be_bytes().to_vec();
        frame.extend_from_slice(json.as_bytes());
        frame
    };
    let hello = frame(r#"{"type":"hello","protocol":9,"version":"9.9","more":{"a":1}}"#);
    stream.write_all(&hello).await.expect("is written");
    let attach =
        format!(r#"{{"type":"attach","mode":"control","client":"{}","later":true}}"#, "0".repeat(32));
    stream.write_all(&frame(&attach)).await.expect("is written");
    stream.write_all(&frame(r#"{"type":"later","with":[1,2]}"#)).await.expect("is written");
    stream.write_all(&[1, 0, 0, 3, b'h', b'i', b'\n']).await.expect("is written");
    let mut frames: FrameReader<_> = FrameReader::new(stream);
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains("hi") {
        match tokio::time::timeout(LONG, frames.next::<FromHost>()).await.expect("comes").expect("reads") {
            Some(Frame::Data(bytes)) => shown.extend_from_slice(&bytes),
            Some(Frame::Message(_)) => {}
            None => panic!("it was cut off"),
        }
    }
    rig.end().await;
}

#[tokio::test]
async fn a_session_that_hangs_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let _silent = socket::listen(dir.path()).expect("listens");
    let id = SessionId::from_random([1; 8]);
    let error = ask_info(&id, dir.path()).await.expect_err("does not answer");
    assert_eq!(error.code().as_str(), "session.failed");
    assert!(matches!(error, SessionError::Unanswered { .. }) && error.hint().is_some());
}

#[tokio::test]
async fn a_shell_reads_what_was_typed_ahead() {
    let rig = Rig::start("PS1='> ' exec sh -i");
    let mut client = rig.attach(control(1, Some(0))).await;
    client.sees("> ").await;
    client.types("mine=kept\r").await;
    client.types("echo said-$((1+0))\r").await;
    client.sees("said-1").await;
    rig.end().await;
}

#[tokio::test]
async fn a_session_whose_directory_is_gone_ends() {
    let patience = Patience { look: Duration::from_millis(50), ..Patience::default() };
    let rig = Rig::start_with("cat", patience);
    assert_eq!(rig.info().await.ended, None);
    std::fs::remove_dir_all(rig.dir.path()).expect("is removed");
    rig.goes().await;
    // One whose program ended before does not wait for anybody.
    let patience = Patience { look: Duration::from_millis(50), ..Patience::default() };
    let rig = Rig::start_with("exit 0", patience);
    rig.await_info("ended", |info| info.ended.is_some()).await;
    std::fs::remove_dir_all(rig.dir.path()).expect("is removed");
    rig.goes().await;
}
