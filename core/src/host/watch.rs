//! Noticing that a child process ended, without taking its process id off the table.
//!
//! A process that ended keeps its id, and its group's, until its parent collects it. As long as it is not
//! collected, a signal to the group cannot hit a stranger that got the same number. So we look (`WNOWAIT`)
//! and collect apart.

use std::io;

use malai_model::wire::CommandEnd;
use nix::libc;
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

/// Whether a process that ended is collected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Collect {
    /// Take it off the process table: its id may be given to another process now.
    Yes,
    /// Leave it there.
    No,
}

/// Tells how a child ended; `None` if it runs. Does not wait.
pub(super) fn look(pid: Pid, collect: Collect) -> io::Result<Option<CommandEnd>> {
    let keep = if collect == Collect::No { libc::WNOWAIT } else { 0 };
    let flags = libc::WEXITED | libc::WNOHANG | keep;
    let id = libc::id_t::try_from(pid.as_raw()).map_err(|_| io::ErrorKind::InvalidInput)?;
    loop {
        // Not nix's `waitid`: macOS lacks it there, and a death by a real-time signal is an error to it.
        #[expect(unsafe_code, reason = "waitid is a system call that nix does not offer everywhere")]
        // SAFETY: `siginfo_t` is plain data for which all zeros are valid; waitid writes only into it.
        let (result, info) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            (libc::waitid(libc::P_PID, id, &raw mut info, flags), info)
        };
        if result != 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        #[expect(unsafe_code, reason = "siginfo_t is a union")]
        // SAFETY: waitid succeeded: it filled the fields of SIGCHLD, or left the zeros if no child has ended.
        let (found, status) = unsafe { (info.si_pid(), info.si_status()) };
        if found == 0 {
            return Ok(None);
        }
        // The kernel gives an exit status as one byte, and signals have numbers below 128.
        let byte = u8::try_from(status & 0xff).unwrap_or(u8::MAX);
        return Ok(Some(match info.si_code {
            libc::CLD_EXITED => CommandEnd::Exited { status: byte },
            _ => CommandEnd::Killed { signal: byte },
        }));
    }
}

/// Waits for the end of one child.
#[derive(Debug)]
pub(super) struct Watch {
    pid: Pid,
    #[cfg(target_os = "linux")]
    pidfd: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
}

impl Watch {
    /// Watches a child that is not collected yet. Needs a runtime.
    pub(super) fn new(pid: Pid) -> Self {
        Self {
            pid,
            #[cfg(target_os = "linux")]
            pidfd: linux::open(pid),
        }
    }

    /// Returns when the child has ended; it stays uncollected. Cancel safe.
    pub(super) async fn ended(&self) -> io::Result<CommandEnd> {
        #[cfg(target_os = "linux")]
        if let Some(pidfd) = &self.pidfd {
            loop {
                if let Some(end) = look(self.pid, Collect::No)? {
                    return Ok(end);
                }
                let mut ready = pidfd.readable().await?;
                if let Some(end) = look(self.pid, Collect::No)? {
                    return Ok(end);
                }
                ready.clear_ready();
            }
        }
        // Before the first look: a child that ends in between is not missed.
        let mut children = signal(SignalKind::child())?;
        loop {
            if let Some(end) = look(self.pid, Collect::No)? {
                return Ok(end);
            }
            children.recv().await;
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::{FromRawFd, OwnedFd};

    use nix::libc;
    use nix::unistd::Pid;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// A file that becomes readable when the process ends: wakes this process's watcher alone, and cannot be
    /// disturbed by an app that handles SIGCHLD itself. `None` where the kernel or a sandbox has none.
    pub(super) fn open(pid: Pid) -> Option<AsyncFd<OwnedFd>> {
        #[expect(unsafe_code, reason = "pidfd_open has no wrapper")]
        // SAFETY: the call takes two integers; a result that is not negative is a new file descriptor, ours
        // alone, and close-on-exec. It stays open, and the same, as long as its owner, whom the `AsyncFd`
        // keeps.
        unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0);
            let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
            AsyncFd::register_with_interest(OwnedFd::from_raw_fd(fd), Interest::READABLE).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[expect(clippy::zombie_processes, reason = "each test collects it by `look`")]
    fn shell(script: &str) -> Pid {
        let child = Command::new("/bin/sh").args(["-c", script]).spawn().expect("starts");
        Pid::from_raw(child.id().try_into().expect("a pid"))
    }

    #[tokio::test]
    async fn an_end_is_seen_again_and_again_until_it_is_collected() {
        let pid = shell("exit 3");
        let watch = Watch::new(pid);
        for _ in 0..3 {
            assert_eq!(watch.ended().await.expect("ends"), CommandEnd::Exited { status: 3 });
        }
        assert_eq!(look(pid, Collect::Yes).expect("is there"), Some(CommandEnd::Exited { status: 3 }));
        assert_eq!(look(pid, Collect::Yes).expect_err("is gone").raw_os_error(), Some(libc::ECHILD));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn it_works_without_a_pidfd_too() {
        let pid = shell("read line; kill -9 $$");
        let watch = Watch { pid, pidfd: None };
        assert_eq!(watch.ended().await.expect("ends"), CommandEnd::Killed { signal: 9 });
        look(pid, Collect::Yes).expect("is collected");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_death_by_a_real_time_signal_is_told() {
        let pid = shell("kill -34 $$");
        assert_eq!(Watch::new(pid).ended().await.expect("ends"), CommandEnd::Killed { signal: 34 });
        look(pid, Collect::Yes).expect("is collected");
    }
}
