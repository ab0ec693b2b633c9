//! Starting a program.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::libc;
use nix::unistd::Pid;
use tokio::net::unix::pipe;

use super::inherit::{heed_signals, with_no_signal_blocked};
use super::launch::{Attachment, launch};
use super::limits::restore;
use super::program::{check_file, find_program, is_enterable};
use super::{HostError, LocalUser, OwnProgram, ProcessGroup};

/// The writing end of a command's stdin. Dropping it is the end of the input. A write fails with `BrokenPipe`
/// when the command does not read any more: that is the command's right, and no reason to end it.
pub type ProcessInput = pipe::Sender;

/// The reading end of a command's stdout or stderr. It ends when *every* process that holds the other end has
/// closed it or ended: `sh -c 'sleep 100 &'` ends at once, its output after 100 s. ssh waits for both, so do
/// that too: read to the end, then ask for the status.
pub type ProcessOutput = pipe::Receiver;

/// What to start.
#[derive(Debug, Clone)]
pub struct SpawnRequest {
    /// The words; the first one is the program: a name in the user's search path, or a path relative to
    /// `dir`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Where to start; `/` if that user cannot enter it, as ssh does.
    pub dir: PathBuf,
    /// As whom: the user that this process runs as, or for root any other.
    pub user: LocalUser,
    /// Which file is executed.
    pub program: Executable,
}

/// Which file is executed.
#[derive(Debug, Clone, Default)]
pub enum Executable {
    /// The one that the first word names.
    #[default]
    Named,
    /// This one; the first word is only what it is told.
    At(PathBuf),
    /// Malai's own program; the first word is the name that it acts by.
    Own(OwnProgram),
}

/// A command that runs, in a process group of its own. Take the parts: each pipe may belong to another task.
///
/// Dropping the group kills it; see [`ProcessGroup`].
#[derive(Debug)]
pub struct Process {
    /// Its stdin.
    pub stdin: ProcessInput,
    /// Its stdout.
    pub stdout: ProcessOutput,
    /// Its stderr.
    pub stderr: ProcessOutput,
    /// The process and what it starts.
    pub group: ProcessGroup,
}

impl Process {
    /// Starts a program directly: no shell, nothing inherited but what the request says. Blocks for about a
    /// millisecond; as another user for longer, the more so the more memory this process has. Needs a runtime with IO.
    ///
    /// The process has this process's umask; as another user it has that of a login on this system.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::NotExecutable`], [`HostError::BadWord`],
    /// [`HostError::ForeignUser`], [`HostError::Switch`], [`HostError::Start`].
    pub fn spawn(request: &SpawnRequest) -> Result<Self, HostError> {
        request.user.check_switch()?;
        let word = words(&request.argv, &request.env)?;
        let (mut child, program) = if request.user.is_own() {
            spawn_as_self(request, word)?
        } else {
            let child = launch(request, &request.program, &request.argv, Attachment::Pipes)?;
            (child, PathBuf::from(word))
        };
        let group = ProcessGroup::new(Pid::from_raw(child.id().cast_signed()));
        // The pipes keep their size: larger ones bought nothing measurable for a reader of 1 GB/s, and all
        // pipes of a user share one allowance. From here on an error drops the group, which kills it.
        let failed = |source| HostError::Start { program: program.clone(), source };
        Ok(Self {
            stdin: pipe::Sender::from_owned_fd(end_of(child.stdin.take()).map_err(failed)?)
                .map_err(failed)?,
            stdout: pipe::Receiver::from_owned_fd(end_of(child.stdout.take()).map_err(failed)?)
                .map_err(failed)?,
            stderr: pipe::Receiver::from_owned_fd(end_of(child.stderr.take()).map_err(failed)?)
                .map_err(failed)?,
            group,
        })
    }
}

fn end_of<T: Into<OwnedFd>>(pipe: Option<T>) -> io::Result<OwnedFd> {
    pipe.map(Into::into).ok_or_else(|| io::Error::other("a pipe is missing"))
}

/// Starts it as the user that this process runs as.
fn spawn_as_self(request: &SpawnRequest, word: &str) -> Result<(Child, PathBuf), HostError> {
    let dir = if is_enterable(&request.dir) {
        request.dir.clone()
    } else {
        tracing::warn!(dir = %request.dir.display(), "cannot be entered: the command starts in /");
        PathBuf::from("/")
    };
    let program = match &request.program {
        Executable::Named => find_program(word, &request.user.path, &dir)?,
        Executable::At(path) => check_file(word, path.clone())?,
        Executable::Own(own) => check_file(word, own.spawn_path().to_owned())?,
    };
    heed_signals();
    // Everything here keeps to what `posix_spawn` can do: with a closure or a user switch std would fork,
    // which takes the longer the more memory this process has.
    let mut command = Command::new(&program);
    command
        .arg0(word)
        .args(&request.argv[1..])
        .env_clear()
        .envs(request.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&dir)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child =
        with_no_signal_blocked(|| command.spawn()).map_err(|source| not_started(program.clone(), source))?;
    restore(Pid::from_raw(child.id().cast_signed()));
    Ok((child, program))
}

/// Checks what a program is told, and returns the first word.
pub(super) fn words<'a>(argv: &'a [String], env: &[(String, String)]) -> Result<&'a str, HostError> {
    let Some(word) = argv.first() else { return Err(HostError::BadWord("there is no word to run")) };
    if argv.iter().any(|word| word.contains('\0')) {
        return Err(HostError::BadWord("a word holds a zero byte"));
    }
    let odd = |(name, value): &(String, String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    if env.iter().any(odd) {
        return Err(HostError::BadWord("an environment variable holds a zero byte or has no proper name"));
    }
    Ok(word)
}

/// Tells what the program is to blame for from what the system is.
pub(super) fn not_started(program: PathBuf, source: io::Error) -> HostError {
    match source.raw_os_error() {
        // The file was there a moment ago: what is missing is what its first line names.
        Some(libc::ENOENT) => {
            let source = io::Error::new(io::ErrorKind::NotFound, "its interpreter is missing");
            HostError::NotExecutable { program, source }
        }
        Some(
            libc::EACCES
            | libc::EPERM
            | libc::ENOEXEC
            | libc::EISDIR
            | libc::ENOTDIR
            | libc::ELOOP
            | libc::ETXTBSY
            | libc::E2BIG
            | libc::EINVAL,
        ) => HostError::NotExecutable { program, source },
        _ => HostError::Start { program, source },
    }
}

#[cfg(test)]
mod tests;
