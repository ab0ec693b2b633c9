//! Becoming another user for good.
//!
//! Part of it happens in a copy of a process with threads, before that becomes a program: system calls only, no memory is
//! taken.

use std::ffi::c_int;
use std::io;

use nix::libc;

use super::{HostError, LocalUser};

/// Another user: what the child becomes.
pub(super) struct Switch {
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
    umask: libc::mode_t,
}

impl LocalUser {
    /// Has this process become this user for good, with the groups and the umask of a login; no change if it is this user
    /// already.
    ///
    /// # Errors
    /// [`HostError::ForeignUser`]; [`HostError::Switch`] if it could not, or could go back: it may be half done then, and
    /// such a process should do nothing but end.
    #[cfg(target_os = "linux")]
    pub fn become_for_good(&self) -> Result<(), HostError> {
        let Some(switch) = Switch::to(self)? else { return Ok(()) };
        switch.carry_out().map_err(|source| HostError::Switch { user: self.name.clone(), source })
    }
}

impl Switch {
    /// `None` if there is nothing to change.
    pub(super) fn to(user: &LocalUser) -> Result<Option<Self>, HostError> {
        if user.is_own() {
            return Ok(None);
        }
        user.check_switch()?;
        Ok(Some(Self {
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
            umask: libc::mode_t::try_from(user.umask & 0o777).unwrap_or(0o022),
        }))
    }

    /// Gives the three pipes that are standard input, output and error to the user: who opens `/dev/stderr` is asked for a
    /// right to the pipe. If it cannot be done, only that fails.
    #[expect(unsafe_code, reason = "bare system calls")]
    pub(super) fn give_pipes(&self) {
        for fd in 0..=2 {
            // SAFETY: numbers only; the pipes are new and nobody else's.
            unsafe { libc::fchown(fd, self.uid, self.gid) };
        }
    }

    /// Becomes the user for good; called in the copy that becomes a program, and by what stays malai. The order matters:
    /// after the last step there is no right to the others.
    #[expect(unsafe_code, reason = "bare system calls")]
    pub(super) fn carry_out(&self) -> io::Result<()> {
        // SAFETY: the list of groups is ours and as long as it says; everything else is a number.
        unsafe {
            leave_keyring()?;
            check(libc::setgroups(self.groups.len() as _, self.groups.as_ptr()))?;
            check(libc::setgid(self.gid))?;
            check(libc::setuid(self.uid))?;
            if self.uid != 0 {
                drop_capabilities()?;
            }
            let is_switched = libc::getuid() == self.uid
                && libc::geteuid() == self.uid
                && libc::getgid() == self.gid
                && libc::getegid() == self.gid;
            // Whatever the system says: with the way back open it would be no switch.
            let is_open = self.uid != 0
                && (libc::setuid(0) == 0
                    || libc::seteuid(0) == 0
                    || libc::setgroups(self.groups.len() as _, self.groups.as_ptr()) == 0);
            if !is_switched || is_open {
                return Err(io::Error::from_raw_os_error(libc::EPERM));
            }
            libc::umask(self.umask);
        }
        link_own_keys();
        Ok(())
    }
}

/// Leaves the session keyring of this process, whose keys and tickets (of a network file system, of Kerberos) every process
/// below it may use, for a fresh one. Before the switch: a user may have only so many keys, root as many as it wants.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a bare system call")]
fn leave_keyring() -> io::Result<()> {
    // SAFETY: without a name nothing is read.
    let joined = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    if joined != -1 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // A kernel without keys, or a container that keeps its processes from them: from the program, too.
        Some(libc::ENOSYS | libc::EPERM) => Ok(()),
        _ => Err(error),
    }
}

/// Lets the user's own keys be found from the fresh keyring, as a login does. Without that they have to be asked for by
/// name.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a bare system call")]
fn link_own_keys() {
    // SAFETY: numbers only.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_LINK,
            libc::KEY_SPEC_USER_KEYRING,
            libc::KEY_SPEC_SESSION_KEYRING,
        )
    };
}

/// Gives up every capability, those too that a change of the user leaves: what may be inherited by certain files, and all
/// of them where a supervisor has so arranged it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a bare system call")]
fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: twice three words.
    const VERSION: u32 = 0x2008_0522;
    let (header, none) = ([VERSION, 0], [0_u32; 6]);
    // SAFETY: both are as large as this version says, and are only read; 0 is this process.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(not(target_os = "linux"))]
fn leave_keyring() -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn link_own_keys() {}

#[cfg(not(target_os = "linux"))]
fn drop_capabilities() -> io::Result<()> {
    Ok(())
}

pub(super) fn check(result: c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
