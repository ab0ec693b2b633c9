//! Starting a process by a copy of this one, for what `posix_spawn` cannot do: another user, a controlling terminal.
//!
//! Between the copy and the program only calls are made that are safe in a copy of a process with threads (no memory is
//! taken, no lock): everything that they need is made before.

use std::ffi::{CString, c_char, c_int};
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

#[cfg(target_os = "linux")]
use super::OwnProgram;
use super::inherit::{heed_signals, with_no_signal_blocked};
use super::limits::for_programs;
use super::process::{not_started, words};
use super::program::candidates;
use super::switch::{Switch, check};
use super::{Executable, HostError, LocalUser, SpawnRequest};

/// What a child gets as its standard input, output and error.
pub(super) enum Attachment {
    /// Three pipes, and a session of its own without a terminal: this process's is not for another user, who could type
    /// into it.
    Pipes,
    /// A terminal that it controls, in a session of its own.
    Terminal([Stdio; 3]),
}

/// Everything that the child needs, made beforehand.
struct Plan {
    files: Vec<CString>,
    #[cfg(target_os = "linux")]
    own: Option<OwnProgram>,
    dir: CString,
    switch: Option<Switch>,
    open_files: Option<libc::rlimit>,
    takes_terminal: bool,
    argv: Pointers,
    envp: Pointers,
    report: PipeWriter,
}

/// Texts as C has them: pointers to them, with a null at the end.
struct Pointers {
    pointers: Vec<*const c_char>,
    _texts: Vec<CString>,
}

#[expect(unsafe_code, reason = "pointers are neither Send nor Sync by themselves")]
// SAFETY: they point into the texts beside them, which nobody changes and which move nowhere as long as both live.
unsafe impl Send for Pointers {}
#[expect(unsafe_code, reason = "pointers are neither Send nor Sync by themselves")]
// SAFETY: as above; they are only read.
unsafe impl Sync for Pointers {}

/// What the child could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    Terminal = 1,
    Switch,
    Directory,
    NotFound,
    Interpreter,
    Execute,
}

impl Stage {
    const ALL: [Self; 6] =
        [Self::Terminal, Self::Switch, Self::Directory, Self::NotFound, Self::Interpreter, Self::Execute];
}

/// Starts a program; `argv0` and the words after it are what it is told. Blocks, the longer the more memory this process
/// has.
pub(super) fn launch(
    request: &SpawnRequest,
    file: &Executable,
    argv: &[String],
    attachment: Attachment,
) -> Result<Child, HostError> {
    let word = words(argv, &request.env)?;
    heed_signals();
    let files = match file {
        Executable::Named => candidates(word, &request.user.path),
        Executable::At(path) => vec![path.clone()],
        Executable::Own(own) => vec![own.path().to_owned()],
    };
    let (reports, report) = io::pipe().map_err(|source| not_begun(word, source))?;
    let takes_terminal = matches!(attachment, Attachment::Terminal(_));
    let plan = Plan {
        files: files.iter().map(|file| c_path(file)).collect::<Result<_, _>>()?,
        #[cfg(target_os = "linux")]
        own: match file {
            Executable::Own(own) => Some(own.clone()),
            Executable::Named | Executable::At(_) => None,
        },
        dir: c_path(&request.dir)?,
        switch: Switch::to(&request.user)?,
        open_files: for_programs(),
        takes_terminal,
        argv: Pointers::new(argv.iter().map(String::clone))?,
        envp: Pointers::new(request.env.iter().map(|(name, value)| format!("{name}={value}")))?,
        report,
    };
    // The program's name is here for messages only: the plan executes it.
    let mut command = Command::new(word);
    match attachment {
        Attachment::Pipes => {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        Attachment::Terminal([stdin, stdout, stderr]) => {
            command.stdin(stdin).stdout(stdout).stderr(stderr);
        }
    }
    #[expect(unsafe_code, reason = "what runs in the copy is restricted")]
    // SAFETY: `Plan::carry_out` makes system calls only; see there.
    unsafe {
        command.pre_exec(move || Err(plan.carry_out()));
    }
    let started = with_no_signal_blocked(|| command.spawn());
    // With it goes the plan, and the reports' other end.
    drop(command);
    started.map_err(|source| match read_report(reports) {
        Some((stage, index)) => {
            let file = files.get(index).cloned().unwrap_or_else(|| PathBuf::from(word));
            explain(stage, word, file, &request.user, source)
        }
        None => not_begun(word, source),
    })
}

fn not_begun(word: &str, source: io::Error) -> HostError {
    HostError::Start { program: PathBuf::from(word), source }
}

fn explain(stage: Stage, word: &str, file: PathBuf, user: &LocalUser, source: io::Error) -> HostError {
    match stage {
        Stage::Terminal => HostError::Terminal(source),
        Stage::Switch => HostError::Switch { user: user.name.clone(), source },
        Stage::Directory => HostError::Start { program: "/".into(), source },
        Stage::NotFound => HostError::NotFound { program: word.to_owned() },
        Stage::Interpreter | Stage::Execute => not_started(file, source),
    }
}

fn read_report(mut reports: PipeReader) -> Option<(Stage, usize)> {
    // What there is to say was said before the standard library told of the failure. Who forked meanwhile may hold the
    // pipe's other end, so that its end must not be waited for.
    fcntl(&reports, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    let mut report = [0; 5];
    reports.read_exact(&mut report).ok()?;
    let [stage, index @ ..] = report;
    let stage = Stage::ALL.into_iter().find(|known| *known as u8 == stage)?;
    Some((stage, u32::from_ne_bytes(index) as usize))
}

fn c_text(text: &[u8]) -> Result<CString, HostError> {
    CString::new(text).map_err(|_| HostError::BadWord("a path holds a zero byte"))
}

fn c_path(path: &Path) -> Result<CString, HostError> {
    c_text(path.as_os_str().as_bytes())
}

impl Pointers {
    fn new(texts: impl Iterator<Item = String>) -> Result<Self, HostError> {
        let texts = texts.map(|text| c_text(text.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { pointers, _texts: texts })
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

#[expect(unsafe_code, reason = "the copy of a process with threads may make bare system calls only")]
// Every call below is on POSIX's list of those that are safe there, or is a bare system call. Nothing takes memory:
// errors are numbers, and all texts were made before.
impl Plan {
    /// In the child: returns only if it fails.
    fn carry_out(&self) -> io::Error {
        // A program starts with every signal at its default, whatever this process and its parents ignored.
        for signal in 1..=LAST_SIGNAL {
            // SAFETY: sets a number's action to the default; those that cannot be set fail without harm.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        seal_files();
        if let Some(limit) = &self.open_files {
            // SAFETY: reads one `rlimit`. It is lower than what this process has, so nothing can forbid it.
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) };
        }
        if let Err(error) = leave_session(self.takes_terminal) {
            return self.fail(Stage::Terminal, 0, error);
        }
        if let Some(switch) = &self.switch {
            if !self.takes_terminal {
                switch.give_pipes();
            }
            if let Err(error) = switch.carry_out() {
                return self.fail(Stage::Switch, 0, error);
            }
        }
        // As the user: what cannot be entered is decided by the system, not guessed by the one who started it.
        // SAFETY: both are texts with a zero at their end.
        let entered = unsafe { libc::chdir(self.dir.as_ptr()) == 0 || libc::chdir(c"/".as_ptr()) == 0 };
        if !entered {
            return self.fail(Stage::Directory, 0, io::Error::last_os_error());
        }
        #[cfg(target_os = "linux")]
        if let Some(own) = self.own.as_ref().and_then(OwnProgram::file) {
            // SAFETY: the file is open as long as the plan lives; the lists end with a null, their texts with a zero.
            unsafe {
                libc::syscall(
                    libc::SYS_execveat,
                    own.as_raw_fd(),
                    c"".as_ptr(),
                    self.argv.as_ptr(),
                    self.envp.as_ptr(),
                    libc::AT_EMPTY_PATH,
                )
            };
            return self.fail(Stage::Execute, 0, io::Error::last_os_error());
        }
        self.execute()
    }

    /// Tries one file after the other, as shells do: a later directory may have one that can be executed.
    fn execute(&self) -> io::Error {
        let mut refused = None;
        for (index, file) in self.files.iter().enumerate() {
            // SAFETY: the lists end with a null, their texts with a zero.
            unsafe { libc::execve(file.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
            let error = io::Error::last_os_error();
            let stage = match error.raw_os_error() {
                // SAFETY: a text with a zero at its end.
                Some(libc::ENOENT) if unsafe { libc::access(file.as_ptr(), libc::F_OK) } != 0 => continue,
                Some(libc::ENOENT) => Stage::Interpreter,
                _ => Stage::Execute,
            };
            if refused.is_none() {
                refused = Some((stage, index, error));
            }
        }
        let (stage, index, error) =
            refused.unwrap_or_else(|| (Stage::NotFound, 0, io::Error::from_raw_os_error(libc::ENOENT)));
        self.fail(stage, index, error)
    }

    /// Tells the parent where it failed; why, the standard library tells.
    fn fail(&self, stage: Stage, index: usize, error: io::Error) -> io::Error {
        let [a, b, c, d] = u32::try_from(index).unwrap_or(u32::MAX).to_ne_bytes();
        let report = [stage as u8, a, b, c, d];
        // SAFETY: five bytes of ours go into a pipe that has room for them. If that fails less is known, no more.
        unsafe { libc::write(self.report.as_raw_fd(), report.as_ptr().cast(), report.len()) };
        error
    }
}

/// Numbers of signals end here on every system that malai runs on.
const LAST_SIGNAL: c_int = if cfg!(target_os = "linux") { 64 } else { 31 };

/// Marks everything but the three standard files to be closed when the program begins: what another part of this process
/// forgot to mark is not for other users.
#[expect(unsafe_code, reason = "a bare system call")]
fn seal_files() {
    #[cfg(target_os = "linux")]
    // SAFETY: sets a flag on files of this copy only. An old kernel does not know it; all files of ours are marked anyway.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
}

/// Becomes the leader of a session of its own, away from the terminal of this process if it has one; `takes_terminal`:
/// the session's terminal is its standard input.
#[expect(unsafe_code, reason = "bare system calls")]
fn leave_session(takes_terminal: bool) -> io::Result<()> {
    // SAFETY: numbers only.
    unsafe {
        check(libc::setsid())?;
        if takes_terminal { check(libc::ioctl(0, libc::TIOCSCTTY as _, 0)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
