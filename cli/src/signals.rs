//! Ctrl-C and its like, as a stream of signals to pass on.

use malai_core::model::wire::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Waits for the signals that a remote command shall get.
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// Absent when whoever started this process wanted it to outlive the terminal (`nohup`).
    hang_up: Option<tokio::signal::unix::Signal>,
    quit: tokio::signal::unix::Signal,
}

impl Signals {
    /// From here on these signals no longer end this process.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: match malai_core::host::hang_up_is_ignored() {
                true => None,
                false => Some(signal(SignalKind::hangup())?),
            },
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits for the next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Int,
            _ = self.terminate.recv() => Signal::Term,
            () = hang_up(&mut self.hang_up) => Signal::Hup,
            _ = self.quit.recv() => Signal::Quit,
        }
    }
}

async fn hang_up(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// The number of a signal, as the status of a process that it ended has it.
pub(crate) fn number(signal: Signal) -> u8 {
    match signal {
        Signal::Hup => 1,
        Signal::Int => 2,
        Signal::Quit => 3,
        Signal::Kill => 9,
        Signal::Usr1 => 10,
        Signal::Usr2 => 12,
        Signal::Term => 15,
    }
}
