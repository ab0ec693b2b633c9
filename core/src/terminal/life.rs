//! Whether a session's process lives: it holds the lock of its directory from its first moment to its last.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use malai_model::wire::CommandEnd;
use serde::{Deserialize, Serialize};

use super::record::SessionEnd;
use crate::host::SessionsBelow;

const LOCK: &str = "lock";
const END: &str = "end";
/// The longest end that is read, in bytes: it was written by a process that may run as another user.
const MOST_END: u64 = 1024;

/// A process that cannot be taken for another one: numbers are given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionProcess {
    /// Its number.
    pub(super) pid: u32,
    /// When it began, in the system's own measure; 0 where that is not known.
    #[serde(default)]
    pub(super) began: u64,
}

/// What a look at a session's directory shows.
pub(super) enum Life {
    /// Its process lives.
    Lives,
    /// It does not. As long as this lock is held none begins in that directory; `None` if there is no directory.
    Dead(Option<File>),
}

/// Looks whether the process of a directory lives.
pub(super) fn look(dir: &Path) -> io::Result<Life> {
    let Some(lock) = open(dir)? else { return Ok(Life::Dead(None)) };
    match lock.try_lock() {
        Ok(()) => Ok(Life::Dead(Some(lock))),
        Err(TryLockError::WouldBlock) => Ok(Life::Lives),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// In the session's process, before it becomes its user: the file for how its program ends.
pub(super) fn end_file(dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(dir.join(END))
}

/// Leaves how the program ended.
pub(super) fn leave_end(file: &mut File, end: CommandEnd) -> io::Result<()> {
    let text = serde_json::to_vec(&SessionEnd { end, at: jiff::Timestamp::now() })?;
    file.write_all(&text)
}

/// What was left; `None` if nothing was, as by a process that was killed.
pub(super) fn left_end(dir: &Path) -> Option<SessionEnd> {
    let file = File::open(dir.join(END)).ok()?;
    let mut text = Vec::new();
    file.take(MOST_END).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn open(dir: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    match options.open(dir.join(LOCK)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// In the session's process: takes the lock and writes down who has it. It is held as long as the file is open.
pub(super) fn claim(dir: &Path) -> io::Result<File> {
    let mut lock = open(dir)?.ok_or(io::ErrorKind::NotFound)?;
    lock.try_lock()?;
    let pid = std::process::id();
    let process = SessionProcess { pid, began: began(pid) };
    lock.set_len(0)?;
    lock.write_all(&serde_json::to_vec(&process)?)?;
    Ok(lock)
}

/// Kills the process of a directory, if it lives and is for sure the one that is written there, and all that runs in the
/// terminal that it has: what ignores that its terminal hangs up would live on.
pub(super) fn kill(dir: &Path) -> bool {
    if !matches!(look(dir), Ok(Life::Lives)) {
        return true;
    }
    let written = std::fs::read(dir.join(LOCK)).ok();
    let Some(process) = written.and_then(|text| serde_json::from_slice::<SessionProcess>(&text).ok()) else {
        return false;
    };
    let Ok(pid) = i32::try_from(process.pid) else { return false };
    if pid <= 1 || began(process.pid) != process.began {
        return false;
    }
    let pid = Pid::from_raw(pid);
    let below = SessionsBelow::of(pid);
    let killed = send(pid, Signal::SIGKILL).is_ok();
    if killed {
        below.kill();
    }
    killed
}

/// When a process began, in the system's own measure; 0 where that is not known.
#[cfg(target_os = "linux")]
pub(super) fn began(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything; the 20th field behind it is meant.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    fields.split_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn began(_: u32) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path) -> SessionProcess {
        serde_json::from_slice(&std::fs::read(dir.join(LOCK)).expect("reads")).expect("is a text")
    }

    #[test]
    fn a_process_lives_as_long_as_it_holds_the_lock() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(look(dir.path()), Ok(Life::Dead(Some(_)))));
        let lock = claim(dir.path()).expect("is free");
        assert_eq!(written(dir.path()).pid, std::process::id());
        assert!(matches!(look(dir.path()), Ok(Life::Lives)));
        assert!(claim(dir.path()).is_err());
        drop(lock);
        assert!(matches!(look(dir.path()), Ok(Life::Dead(Some(_)))));
        assert!(matches!(look(&dir.path().join("missing")), Ok(Life::Dead(None))));
    }

    #[test]
    fn a_process_that_has_another_s_number_is_not_killed() {
        let dir = tempfile::tempdir().expect("a directory");
        let _lock = claim(dir.path()).expect("is free");
        let process = written(dir.path());
        // As if the number had been given to this process since.
        let other = SessionProcess { began: process.began + 1, ..process };
        std::fs::write(dir.path().join(LOCK), serde_json::to_vec(&other).expect("is a text"))
            .expect("is written");
        assert!(!kill(dir.path()));
    }
}
