//! A session that runs as a task, and clients that speak to it over its socket.

use malai_model::wire::{
    AttachMode, AttachSession, Attached, ResumeToken, SessionId, SessionInfo, WindowSize,
};

use super::*;
use crate::host::{Executable, LocalUser, Login, SpawnRequest, effective_uid};
use crate::terminal::connection::{HostConnection, HostEvent, HostReader, HostWriter, ask_end, ask_info};
use crate::terminal::{Opener, SessionError, socket};

mod bounds;
mod clients;
mod ends;
mod openings;
mod program;
mod rest_and_end;
mod strangers;

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
