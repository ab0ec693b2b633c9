//! Which processes are left in a group or a session.

use nix::unistd::Pid;

/// What holds a command's processes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bond {
    /// Its process group.
    Group,
    /// Its session, in which a shell makes a group of each job.
    Session,
}

/// Says whether a process other than the leader is alive; `None` where the system does not tell.
pub(super) fn has_members(leader: Pid, bond: Bond) -> Option<bool> {
    members(leader, bond).map(|members| !members.is_empty())
}

/// The processes that are alive, but the leader; `None` where the system does not tell.
#[cfg(target_os = "linux")]
pub(super) fn members(leader: Pid, bond: Bond) -> Option<Vec<Pid>> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw) else { continue };
        if pid != leader && is_member(pid, leader, bond) {
            found.push(pid);
        }
    }
    Some(found)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn members(_: Pid, _: Bond) -> Option<Vec<Pid>> {
    None
}

/// A process that ended meanwhile cannot be read: it is no member.
#[cfg(target_os = "linux")]
fn is_member(pid: Pid, leader: Pid, bond: Bond) -> bool {
    std::fs::read(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| is_alive_in(&stat, leader.to_string().as_bytes(), bond))
}

/// Reads `pid (name) state parent group session …`; the name may hold anything, parentheses too.
#[cfg(target_os = "linux")]
fn is_alive_in(stat: &[u8], leader: &[u8], bond: Bond) -> bool {
    let Some(end) = stat.iter().rposition(|b| *b == b')') else { return false };
    let mut fields = stat[end + 1..].split(|b| *b == b' ').filter(|field| !field.is_empty());
    let state = fields.next();
    let place = match bond {
        Bond::Group => 1,
        Bond::Session => 2,
    };
    fields.nth(place) == Some(leader) && !matches!(state, Some(b"Z" | b"X"))
}

/// Sends a signal to each process of a session but its leader, and to no other: a number that is given to a stranger
/// meanwhile is noticed.
#[cfg(target_os = "linux")]
pub(super) fn signal_session(leader: Pid, signal: nix::sys::signal::Signal) {
    for pid in members(leader, Bond::Session).unwrap_or_default() {
        let Some(file) = open_process(pid) else { continue };
        // Looked at again: the file means this process for good, whatever becomes of its number.
        if is_member(pid, leader, Bond::Session) {
            signal_process(pid, &file, signal);
        }
    }
}

#[cfg(target_os = "linux")]
fn open_process(pid: Pid) -> Option<std::os::fd::OwnedFd> {
    use std::os::fd::{FromRawFd, OwnedFd};

    use nix::libc;
    #[expect(unsafe_code, reason = "pidfd_open has no wrapper")]
    // SAFETY: the call takes two integers; a result that is not negative is a new file descriptor, ours alone.
    unsafe {
        let fd = i32::try_from(libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0)).unwrap_or(-1);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    }
}

#[cfg(target_os = "linux")]
fn signal_process(pid: Pid, file: &std::os::fd::OwnedFd, signal: nix::sys::signal::Signal) {
    use std::os::fd::AsRawFd;

    use nix::libc;
    #[expect(unsafe_code, reason = "pidfd_send_signal has no wrapper")]
    // SAFETY: numbers only; no information about the signal is passed along.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            file.as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result != 0 {
        tracing::debug!(%pid, %signal, error = %std::io::Error::last_os_error(), "not delivered");
    }
}

/// Only its leader's group can be reached; what hangs up its terminal reaches the group in the foreground.
#[cfg(not(target_os = "linux"))]
pub(super) fn signal_session(_: Pid, _: nix::sys::signal::Signal) {}

/// The sessions that a process's children lead, as they are now.
#[derive(Debug)]
pub struct SessionsBelow {
    /// Their leaders, each with a file that means it for good.
    #[cfg(target_os = "linux")]
    leaders: Vec<(Pid, std::os::fd::OwnedFd)>,
}

#[cfg(target_os = "linux")]
impl SessionsBelow {
    /// Finds them.
    pub fn of(parent: Pid) -> Self {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let leads = |pid: Pid| {
            let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
            leads_below(&stat, &pid.to_string(), &parent.to_string())
        };
        let leaders = pids.map(Pid::from_raw).filter(|pid| leads(*pid));
        let leaders = leaders.filter_map(|pid| Some((pid, open_process(pid)?)));
        // Looked at again: the file means this process for good, whatever becomes of its number.
        Self { leaders: leaders.filter(|(pid, _)| leads(*pid)).collect() }
    }

    /// Kills them with SIGKILL. What begins meanwhile is found by the second look.
    pub fn kill(&self) {
        use nix::sys::signal::Signal::SIGKILL;
        for (leader, file) in &self.leaders {
            signal_session(*leader, SIGKILL);
            signal_session(*leader, SIGKILL);
            signal_process(*leader, file, SIGKILL);
        }
    }
}

/// Nothing tells them: that their terminal hangs up reaches those that heed it.
#[cfg(not(target_os = "linux"))]
impl SessionsBelow {
    /// Finds none.
    pub fn of(_: Pid) -> Self {
        Self {}
    }

    /// Kills none.
    pub fn kill(&self) {}
}

/// Whether a process's parent is that one, and whether it leads a session.
#[cfg(target_os = "linux")]
fn leads_below(stat: &[u8], pid: &str, parent: &str) -> bool {
    let Some(end) = stat.iter().rposition(|b| *b == b')') else { return false };
    let fields: Vec<_> = stat[end + 1..].split(|b| *b == b' ').filter(|field| !field.is_empty()).collect();
    fields.get(1) == Some(&parent.as_bytes()) && fields.get(3) == Some(&pid.as_bytes())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_fields_deceives_nobody() {
        assert!(is_alive_in(b"7 (a) S 1 9 (b) S 1 42 41 0", b"42", Bond::Group));
        assert!(is_alive_in(b"7 (a) S 1 9 (b) S 1 42 41 0", b"41", Bond::Session));
        assert!(!is_alive_in(b"7 (a) S 1 42 (b) S 1 9 9 0", b"42", Bond::Group));
        assert!(!is_alive_in(b"7 (a) Z 1 42 42 0", b"42", Bond::Group));
        assert!(!is_alive_in(b"7 (a) Z 1 42 42 0", b"42", Bond::Session));
        assert!(!is_alive_in(b"", b"42", Bond::Group));
    }
}
