//! How many files may be open: more for the daemon, as many as before for what it starts.
//!
//! A command costs the daemon four files, and the usual soft limit of 1,024 would end the 250th. Programs do not get the
//! raised limit: some that use `select` break beyond 1,024, and some close every number up to the limit when they start.

use std::io;
use std::sync::OnceLock;

use nix::libc;
use nix::unistd::Pid;

/// So many files the daemon may have open, if the hard limit lets it: four for each of the 4,096 requests that it takes at
/// once by default, and some to spare.
const WANTED: libc::rlim_t = 4 * 4096 + 1024;

/// What it was before, if it was changed.
static BEFORE: OnceLock<libc::rlimit> = OnceLock::new();

/// Raises this process's soft limit of open files, as far as its hard limit allows. What it starts from then on still
/// gets the limit that it had. For a daemon, once, at its start; on Linux only.
pub fn raise_open_files() {
    if !cfg!(target_os = "linux") {
        return;
    }
    match raise() {
        Ok(Some(limit)) => tracing::debug!(limit, "raised the limit of open files"),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}

fn raise() -> io::Result<Option<libc::rlim_t>> {
    let before = current()?;
    let wanted = WANTED.min(before.rlim_max);
    if before.rlim_cur >= wanted || BEFORE.set(before).is_err() {
        return Ok(None);
    }
    let limit = libc::rlimit { rlim_cur: wanted, ..before };
    #[expect(unsafe_code, reason = "nix's wrapper is behind a feature of its own")]
    // SAFETY: the call reads one `rlimit`, which is ours.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    if result == 0 { Ok(Some(wanted)) } else { Err(io::Error::last_os_error()) }
}

fn current() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    #[expect(unsafe_code, reason = "nix's wrapper is behind a feature of its own")]
    // SAFETY: the call writes one `rlimit`, which is ours.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if result == 0 { Ok(limit) } else { Err(io::Error::last_os_error()) }
}

/// The limit for a program, if it differs from this process's.
pub(super) fn for_programs() -> Option<libc::rlimit> {
    BEFORE.get().copied()
}

/// Gives a program that was just started its limit. `posix_spawn` cannot do it before, so that for some microseconds,
/// while it is being loaded, it has this process's.
pub(super) fn restore(pid: Pid) {
    #[cfg(target_os = "linux")]
    if let Some(limit) = for_programs() {
        #[expect(unsafe_code, reason = "nix has no wrapper")]
        // SAFETY: the call reads one `rlimit`, which is ours. The process is our child and not collected, so the number
        // is its own.
        let result = unsafe {
            libc::prlimit(pid.as_raw(), libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
        };
        if result != 0 {
            // A program with another user's rights (sudo) cannot be changed any more by who is not root.
            tracing::debug!(%pid, error = %io::Error::last_os_error(), "keeps the raised limit of open files");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = pid;
}
