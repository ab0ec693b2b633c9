//! A session's process, from its start to its end.
//!
//! It is a copy of what the daemon started, in a session of its own, so that nothing that happens to the daemon happens
//! to it. It opens its socket, starts the program, tells the daemon that it runs, and lets go of everything that it has
//! of it. When the program runs as another user it becomes that user too, for good: it reads what a hostile program
//! writes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use malai_model::code::ErrorCode;
use malai_model::wire::WireError;
use nix::sys::stat::{self, Mode};
use nix::unistd::{ForkResult, fork, setsid};

use super::job::{Audience, HostJob, HostReply};
use super::life;
use super::run::{Patience, Running};
use super::session::Session;
use super::socket;
use crate::host::{
    Caller, Executable, HostError, LocalUser, Login, PtyProcess, SpawnRequest, build_environment,
    effective_uid, seal_inherited_files,
};

/// The name under which the malai program is a session's process.
pub const SESSION_PROGRAM: &str = "malai-session";

/// What a terminal is called unless the caller says otherwise: what the screen understands.
const USUAL_TERM: &str = "xterm-256color";
/// The longest order, in bytes.
const MAX_ORDER: u64 = 4 * 1024 * 1024;
/// What this process makes is its user's alone.
const OWN_UMASK: Mode = Mode::S_IRWXG.union(Mode::S_IRWXO);
/// What a session's process says when it fails.
const LOG: &str = "log";

/// A session's process that has left the daemon's, and knows what to do.
#[derive(Debug)]
pub struct SessionHost {
    order: HostJob,
    lock: File,
    /// The umask that the daemon was started with: the program's.
    umask: Mode,
}

/// What becomes of the process that was started.
#[derive(Debug)]
pub enum Begun {
    /// This is the session's process: run it.
    Session(Box<SessionHost>),
    /// This is the one that the daemon waits for, or a session that cannot begin: it ends.
    Leave(ExitCode),
}

impl SessionHost {
    /// Begins: makes a copy of this process that is on its own, and reads what to do from stdin. To be called first of
    /// all, while the process has one thread.
    pub fn begin() -> Begun {
        #[expect(
            unsafe_code,
            reason = "there is no other way to leave the process that the daemon waits for"
        )]
        // SAFETY: this process has one thread yet, so that the copy may do whatever it wants.
        let forked = unsafe { fork() };
        match forked {
            Ok(ForkResult::Parent { .. }) => return Begun::Leave(ExitCode::SUCCESS),
            Ok(ForkResult::Child) => {}
            Err(error) => {
                reply(&failed("start a session: make its process", &error.into()));
                return Begun::Leave(ExitCode::FAILURE);
            }
        }
        match prepare() {
            Ok(host) => Begun::Session(Box::new(host)),
            Err(error) => {
                reply(&failed("start a session: begin its process", &error));
                Begun::Leave(ExitCode::FAILURE)
            }
        }
    }

    /// Runs the session to its end. Needs a runtime with IO and time; one thread is enough.
    pub async fn run(self) {
        let Self { order, lock, umask } = self;
        let daemon = effective_uid();
        // Where it fails the program is killed: it is never read by a process that has more rights than it.
        let started = open_log(&order.dir).and_then(|log| {
            let end =
                life::end_file(&order.dir).map_err(|error| session_failed("start a session", &error))?;
            let (mut running, user) = start(&order, lock, daemon, umask)?;
            running.leave_end_in(end);
            become_user(&user).map_err(|error| WireError::of(error.code(), &error, error.hint()))?;
            Ok((running, log))
        });
        let (mut running, log) = match started {
            Ok(started) => started,
            Err(error) => {
                reply(&HostReply::Failed(error));
                return;
            }
        };
        reply(&HostReply::Runs {});
        if let Err(error) = let_go(&log) {
            tracing::warn!(%error, "a session keeps what it has of the daemon");
        }
        drop(log);
        running.run_to_end().await;
    }
}

fn prepare() -> io::Result<SessionHost> {
    setsid()?;
    let umask = stat::umask(OWN_UMASK);
    seal_inherited_files();
    let mut text = Vec::new();
    io::stdin().lock().take(MAX_ORDER).read_to_end(&mut text)?;
    let order: HostJob = serde_json::from_slice(&text)?;
    let lock = life::claim(&order.dir)?;
    Ok(SessionHost { order, lock, umask })
}

fn start(order: &HostJob, lock: File, daemon: u32, umask: Mode) -> Result<(Running, LocalUser), WireError> {
    let of_host = |error: HostError| WireError::of(error.code(), &error, error.hint());
    let of_io = |error: io::Error| session_failed("start a session: open its socket", &error);
    let listener = socket::listen(&order.dir).map_err(of_io)?;
    let user = match &order.effect.username {
        Some(name) => LocalUser::named(name),
        None => LocalUser::current(),
    }
    .map_err(of_host)?;
    let caller = Caller {
        id52: order.owner,
        machine: order.owner_name.clone(),
        cluster: order.cluster.as_str().to_owned(),
        restricted: order.restricted,
    };
    let mut env = build_environment(&user, &caller, &order.env);
    env.push(("MALAI_SESSION".to_owned(), order.session.to_string()));
    if !env.iter().any(|(name, _)| name == "TERM") {
        env.push(("TERM".to_owned(), USUAL_TERM.to_owned()));
    }
    let request = SpawnRequest {
        argv: order.effect.argv.clone().unwrap_or_default(),
        env,
        dir: user.home.clone(),
        user: user.clone(),
        program: Executable::Named,
    };
    let mut session =
        Session::new(order.session.clone(), order.argv.clone(), user.name.clone(), order.window);
    if let Some(opener) = &order.opener {
        session.expect(opener.clone());
    }
    let login = if order.effect.argv.is_some() { Login::Program } else { Login::Shell };
    // The program's copy of this process has it; nothing else happens meanwhile.
    stat::umask(umask);
    let program = PtyProcess::spawn(&request, session.window(), login);
    stat::umask(OWN_UMASK);
    let program = program.map_err(of_host)?;
    let patience = Patience {
        idle: order.idle_ms.filter(|_| order.effect.argv.is_some()).map(Duration::from_millis),
        audience: order.audience == Audience::Expected,
        ..Patience::default()
    };
    Ok((Running::new(session, program, listener, lock, daemon, patience), user))
}

/// The file for what goes wrong in this process; as its own user it could not make it.
fn open_log(dir: &Path) -> Result<File, WireError> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join(LOG));
    log.map_err(|error| session_failed("start a session: open its log", &error))
}

/// Lets go of the pipes to the daemon and of its directory; errors of this process go to a file of its own.
fn let_go(log: &File) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(log)?;
    std::env::set_current_dir("/")
}

/// Becomes the user that the program runs as.
#[cfg(target_os = "linux")]
fn become_user(user: &LocalUser) -> Result<(), HostError> {
    user.become_for_good()?;
    stat::umask(OWN_UMASK);
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn become_user(_: &LocalUser) -> Result<(), HostError> {
    Ok(())
}

/// Tells the daemon, once. If it has gone nobody is told, and the session is found by its directory.
fn reply(reply: &HostReply) {
    let Ok(text) = serde_json::to_vec(reply) else { return };
    let mut stdout = io::stdout().lock();
    _ = stdout.write_all(&text).and_then(|()| stdout.flush());
}

fn failed(what: &str, error: &io::Error) -> HostReply {
    HostReply::Failed(session_failed(what, error))
}

fn session_failed(what: &str, error: &io::Error) -> WireError {
    WireError {
        code: ErrorCode::SessionFailed,
        message: format!("{what}: {error}"),
        hint: Some("that machine's log says more".to_owned()),
    }
}
