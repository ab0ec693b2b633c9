//! A command line of malai, being prepared.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::{Keep, Output, Running};
use crate::{DEADLINE, TestHome};

type Feed = Box<dyn FnOnce(&mut dyn Write) -> std::io::Result<()> + Send>;

/// Builds one run of malai.
#[must_use]
pub struct Invocation {
    home: TestHome,
    program: Option<PathBuf>,
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    stdin: Stdin,
    stdout: Keep,
    held: bool,
    deadline: Duration,
    stderr: Option<std::fs::File>,
}

enum Stdin {
    Empty,
    Open,
    Feed(Feed),
}

impl Invocation {
    pub(crate) fn new<I, S>(home: &TestHome, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        Self {
            home: home.clone(),
            program: None,
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            environment: Vec::new(),
            stdin: Stdin::Empty,
            stdout: Keep::Bytes,
            held: false,
            deadline: DEADLINE,
            stderr: None,
        }
    }

    /// Runs another program than malai, in the same surroundings.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Gives these bytes on stdin, then closes it.
    pub fn stdin(self, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        self.feed(move |pipe| pipe.write_all(&bytes))
    }

    /// Lets a function write stdin from a thread of its own, then closes it. Its failure is not the test's: the other
    /// side may close first.
    pub fn feed(mut self, feed: impl FnOnce(&mut dyn Write) -> std::io::Result<()> + Send + 'static) -> Self {
        self.stdin = Stdin::Feed(Box::new(feed));
        self
    }

    /// Holds stdin open: the test writes with [`Running::write`].
    pub fn open_stdin(mut self) -> Self {
        self.stdin = Stdin::Open;
        self
    }

    /// Keeps the length and SHA-256 of stdout instead of its bytes.
    pub fn digest_stdout(mut self) -> Self {
        self.stdout = Keep::Digest;
        self
    }

    /// Does not read stdout until [`Running::release_stdout`].
    pub fn hold_stdout(mut self) -> Self {
        self.held = true;
        self
    }

    /// Adds a variable to the cleared environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Changes how long the process may live.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub(crate) fn stderr_to(mut self, file: std::fs::File) -> Self {
        self.stderr = Some(file);
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    ///
    /// When it is not over at the deadline.
    pub fn run(self) -> Output {
        let deadline = self.deadline;
        self.spawn().wait(deadline)
    }

    /// Starts it.
    ///
    /// # Panics
    ///
    /// When the process cannot be started.
    pub fn spawn(self) -> Running {
        let net = self.home.net();
        let program = self.program.as_deref().unwrap_or(net.binary());
        let mut command = Command::new(program);
        command
            .args(&self.args)
            .env_clear()
            .envs(net.environment(self.home.path()))
            .envs(self.environment)
            .current_dir(net.path())
            .process_group(0)
            .stdin(if matches!(self.stdin, Stdin::Empty) { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(self.stderr.map_or_else(Stdio::piped, Stdio::from));
        let words: Vec<_> = self.args.iter().map(|arg| arg.to_string_lossy()).collect();
        let name = self.program.as_deref().and_then(Path::file_name).unwrap_or(OsStr::new("malai"));
        let what = format!("[{}] {} {}", self.home.name(), name.display(), words.join(" "));
        let mut child = command.spawn().unwrap_or_else(|source| panic!("starts {what}: {source}"));
        let pipe = child.stdin.take();
        let mut running = Running::new(what, child, self.stdout, self.held, net.clone());
        match self.stdin {
            Stdin::Empty => {}
            Stdin::Open => running.set_stdin(pipe),
            Stdin::Feed(feed) => {
                if let Some(mut pipe) = pipe {
                    std::thread::spawn(move || {
                        let _ = feed(&mut pipe);
                    });
                }
            }
        }
        running
    }
}
