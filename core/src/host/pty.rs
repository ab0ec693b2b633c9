//! Terminals, and processes under them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use malai_model::wire::{CommandEnd, WindowSize};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::termios::{self, ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::launch::{Attachment, launch};
use super::{Executable, HostError, LocalUser, ProcessGroup, SpawnRequest};
use crate::two_way::{Left, TwoWay};

/// A terminal: the side that a program has (the slave), and the side of whoever shows it (the master).
#[derive(Debug)]
pub struct Pty {
    master: PtyMaster,
    slave: OwnedFd,
}

/// The side of a terminal from which its programs are fed and shown: what is written is typed, what is read is shown.
///
/// Clones are the same terminal; when the last one is dropped it hangs up, which its session hears as SIGHUP. One task
/// may read and one write at a time.
#[derive(Debug, Clone)]
pub struct PtyMaster(Arc<TwoWay<OwnedFd>>);

/// What runs in a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// The user's login shell, told by its name (`-bash`) that it is one. The request's words are not looked at.
    Shell,
    /// The request's words.
    Program,
}

/// A process that runs under a terminal of its own, and leads its session.
///
/// Dropping the group kills every process of the session; see [`ProcessGroup`].
#[derive(Debug)]
pub struct PtyProcess {
    /// The terminal.
    pub master: PtyMaster,
    /// The process and what it starts.
    pub group: ProcessGroup,
}

impl Pty {
    /// Opens a terminal of that size, in the state in which a login finds one: lines are edited and echoed, Ctrl-C and
    /// Ctrl-Z are heard, text is UTF-8. Needs a runtime with IO.
    ///
    /// # Errors
    /// [`HostError::Terminal`].
    pub fn open(window: WindowSize) -> Result<Self, HostError> {
        open(window).map_err(HostError::Terminal)
    }

    /// The side from which it is fed and shown.
    pub fn master(&self) -> &PtyMaster {
        &self.master
    }

    /// The side that a program has as its terminal.
    pub fn slave(&self) -> BorrowedFd<'_> {
        self.slave.as_fd()
    }

    /// Gives the program's side to a user, as a login does: mode 0620 and group `tty`, if there is one. Only root can, and
    /// only root has to.
    fn give_to(&self, user: &LocalUser) -> io::Result<()> {
        use nix::sys::stat::{Mode, fchmod};
        use nix::unistd::{Gid, Group, Uid, fchown};
        if !Uid::effective().is_root() {
            return Ok(());
        }
        let tty = Group::from_name("tty").ok().flatten().map(|group| group.gid);
        let mode = if tty.is_some() { Mode::S_IWGRP } else { Mode::empty() } | Mode::S_IRUSR | Mode::S_IWUSR;
        let group = tty.unwrap_or(Gid::from_raw(user.gid));
        fchown(&self.slave, Some(Uid::from_raw(user.uid)), Some(group))?;
        fchmod(&self.slave, mode)?;
        Ok(())
    }
}

fn open(window: WindowSize) -> io::Result<Pty> {
    use nix::pty::{grantpt, posix_openpt, unlockpt};
    // Not `openpty`: its files would for a moment be inherited by whatever another thread starts just then.
    let at_once = if cfg!(target_os = "linux") { OFlag::O_CLOEXEC } else { OFlag::empty() };
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | at_once)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = open_slave(&master)?;
    let master = OwnedFd::from(master);
    for fd in [&master, &slave] {
        fcntl(fd, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    }
    set_sane(&slave)?;
    let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL)?);
    fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let master = PtyMaster(Arc::new(TwoWay::new(master)?));
    master.resize(window)?;
    Ok(Pty { master, slave })
}

#[cfg(target_os = "linux")]
fn open_slave(master: &nix::pty::PtyMaster) -> io::Result<OwnedFd> {
    let path = nix::pty::ptsname_r(master)?;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path.as_str(), flags, nix::sys::stat::Mode::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn open_slave(master: &nix::pty::PtyMaster) -> io::Result<OwnedFd> {
    use std::sync::{Mutex, PoisonError};
    // The name lies in a buffer that all threads share.
    static NAME: Mutex<()> = Mutex::new(());
    let path = {
        let _alone = NAME.lock().unwrap_or_else(PoisonError::into_inner);
        #[expect(unsafe_code, reason = "the call's buffer is shared")]
        // SAFETY: nothing else in this program asks for the name, and it is copied under the lock.
        unsafe {
            nix::pty::ptsname(master)?
        }
    };
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path.as_str(), flags, nix::sys::stat::Mode::empty())?)
}

/// Sets what a fresh login expects, whatever the system's defaults are.
fn set_sane(slave: &OwnedFd) -> io::Result<()> {
    let mut settings = termios::tcgetattr(slave)?;
    settings.input_flags |= InputFlags::ICRNL | InputFlags::IXON | InputFlags::BRKINT | InputFlags::IMAXBEL;
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        settings.input_flags |= InputFlags::IUTF8;
    }
    settings.output_flags |= OutputFlags::OPOST | OutputFlags::ONLCR;
    settings.control_flags |= ControlFlags::CS8 | ControlFlags::CREAD;
    settings.local_flags |= LocalFlags::ISIG
        | LocalFlags::ICANON
        | LocalFlags::IEXTEN
        | LocalFlags::ECHO
        | LocalFlags::ECHOE
        | LocalFlags::ECHOK
        | LocalFlags::ECHOKE
        | LocalFlags::ECHOCTL;
    Ok(termios::tcsetattr(slave, SetArg::TCSANOW, &settings)?)
}

impl PtyMaster {
    /// Changes the terminal's size; its foreground processes hear of it by SIGWINCH.
    ///
    /// # Errors
    /// What the system says.
    pub fn resize(&self, window: WindowSize) -> io::Result<()> {
        let size = libc::winsize {
            ws_row: window.rows,
            ws_col: window.columns,
            ws_xpixel: window.width,
            ws_ypixel: window.height,
        };
        #[expect(unsafe_code, reason = "nix has no wrapper")]
        // SAFETY: the call reads one `winsize`, which is ours.
        let result =
            unsafe { libc::ioctl(self.0.file().as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads what is shown: at least one byte, or 0 at the end, when no process has the terminal open any more.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_with(|fd| Ok((shown(nix::unistd::read(fd, buffer))?, Left::Perhaps))).await
    }

    /// Types bytes: as many as the terminal takes now, at least one. A program that does not read makes this wait.
    ///
    /// # Errors
    /// `BrokenPipe` when no process has the terminal open any more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_with(|fd| typed(nix::unistd::write(fd, bytes))).await
    }
}

/// A terminal that nobody has open any more reads as an error on Linux, and as the end elsewhere.
fn shown(result: nix::Result<usize>) -> io::Result<usize> {
    match result {
        Err(nix::errno::Errno::EIO) => Ok(0),
        other => Ok(other?),
    }
}

fn typed(result: nix::Result<usize>) -> io::Result<usize> {
    match result {
        Err(nix::errno::Errno::EIO) => Err(io::ErrorKind::BrokenPipe.into()),
        other => Ok(other?),
    }
}

impl AsyncRead for PtyMaster {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let free = buffer.initialize_unfilled();
        let read = |fd: &OwnedFd| Ok((shown(nix::unistd::read(fd, &mut *free))?, Left::Perhaps));
        let count = ready!(self.0.poll_read_with(cx, read))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PtyMaster {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write_with(cx, |fd| typed(nix::unistd::write(fd, bytes)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Does nothing: a terminal has no end of input but the one that is typed (Ctrl-D).
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl PtyProcess {
    /// Starts a program or a login shell under a terminal of its own. `TERM` comes with the request's environment. Blocks
    /// for some milliseconds, the longer the more memory this process has; needs a runtime with IO.
    ///
    /// # Errors
    /// As [`super::Process::spawn`]; [`HostError::Terminal`].
    pub fn spawn(request: &SpawnRequest, window: WindowSize, login: Login) -> Result<Self, HostError> {
        request.user.check_switch()?;
        let pty = Pty::open(window)?;
        pty.give_to(&request.user).map_err(HostError::Terminal)?;
        let stdio = || Ok::<_, io::Error>(pty.slave.try_clone()?.into());
        let stdio = || -> Result<_, HostError> { stdio().map_err(HostError::Terminal) };
        let attachment = Attachment::Terminal([stdio()?, stdio()?, stdio()?]);
        let child = match login {
            Login::Program => launch(request, &request.program, &request.argv, attachment),
            Login::Shell => {
                let shell = &request.user.shell;
                let name = shell.file_name().map_or_else(|| "sh".into(), |name| name.to_string_lossy());
                launch(request, &Executable::At(shell.clone()), &[format!("-{name}")], attachment)
            }
        }?;
        let group = ProcessGroup::of_session(Pid::from_raw(child.id().cast_signed()));
        Ok(Self { master: pty.master, group })
    }

    /// Ends it all: the terminal hangs up, every process of the session hears SIGHUP, and what is left after `grace` is
    /// killed. Other clones of the master are to be dropped before.
    ///
    /// # Errors
    /// As [`ProcessGroup::hang_up`].
    pub async fn hang_up(self, grace: Duration) -> Result<CommandEnd, HostError> {
        drop(self.master);
        self.group.hang_up(grace).await
    }
}

#[cfg(test)]
mod tests;
