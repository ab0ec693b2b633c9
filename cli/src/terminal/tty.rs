//! A terminal without a thread for each direction: the system would have to wake one for every key and every echo.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use malai_core::two_way::{Left, TwoWay};
use rustix::fs::{Mode, OFlags};

/// What a terminal is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// What is typed.
    Input,
    /// What is shown.
    Output,
}

/// A terminal that was opened anew: that it does not block is nobody's concern but this process's.
#[derive(Debug)]
pub(crate) struct Tty(TwoWay<OwnedFd>);

impl Tty {
    /// Opens again the terminal that `file` is. `None` where it is none, where it cannot be had (one of another user's,
    /// or of outside this container), or where the system does not tell when a terminal is ready.
    pub(crate) fn again(file: impl AsFd, side: Side) -> Option<Self> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let access = match side {
            Side::Input => OFlags::RDONLY,
            Side::Output => OFlags::WRONLY,
        };
        let name = rustix::termios::ttyname(file, Vec::new()).ok()?;
        // Other names stand for whatever terminal is meant just then: opened again it is another one.
        let number = name.to_str().ok()?.strip_prefix("/dev/pts/")?;
        number.parse::<u32>().ok()?;
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).ok()?;
        TwoWay::new(opened).ok().map(Self)
    }

    /// Reads what was typed; 0 at the end. Cancel safe.
    pub(crate) async fn read(&self, block: &mut [u8]) -> io::Result<usize> {
        self.0.read_with(|tty| Ok((rustix::io::read(tty, &mut *block)?, Left::Perhaps))).await
    }

    /// Shows all of the bytes; waits while the terminal is held.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.0.write_with(|tty| Ok(rustix::io::write(tty, bytes)?)).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}
