//! What a command did and the host has not taken yet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use malai_core::api;
use malai_core::model::wire::{CommandEnd, Signal};
use tokio::sync::Notify;

use crate::MalaiError;

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum CommandEvent {
    /// Bytes of its standard output.
    Stdout {
        /// The bytes as the program wrote them: they may end in the middle of a character.
        bytes: Vec<u8>,
    },
    /// Bytes of its standard error.
    Stderr {
        /// The bytes as the program wrote them: they may end in the middle of a character.
        bytes: Vec<u8>,
    },
    /// It ended; nothing follows.
    Ended {
        /// The status as a shell shows it: the program's own, or 128 + N after death by signal N.
        status: u8,
        /// The number of the signal that killed it, on its machine.
        signal: Option<u8>,
    },
}

/// A signal for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum CommandSignal {
    /// Ctrl-C.
    Interrupt,
    /// Please end.
    Terminate,
    /// The terminal is gone.
    HangUp,
    /// Ctrl-\.
    Quit,
    /// End at once.
    Kill,
    /// What the program makes of it.
    User1,
    /// What the program makes of it.
    User2,
}

impl From<CommandSignal> for Signal {
    fn from(signal: CommandSignal) -> Self {
        match signal {
            CommandSignal::Interrupt => Self::Int,
            CommandSignal::Terminate => Self::Term,
            CommandSignal::HangUp => Self::Hup,
            CommandSignal::Quit => Self::Quit,
            CommandSignal::Kill => Self::Kill,
            CommandSignal::User1 => Self::Usr1,
            CommandSignal::User2 => Self::Usr2,
        }
    }
}

impl From<api::CommandEvent> for CommandEvent {
    fn from(event: api::CommandEvent) -> Self {
        match event {
            api::CommandEvent::Stdout(bytes) => Self::Stdout { bytes: bytes.into() },
            api::CommandEvent::Stderr(bytes) => Self::Stderr { bytes: bytes.into() },
            api::CommandEvent::Ended(end) => Self::Ended {
                status: end.shell_status(),
                signal: match end {
                    CommandEnd::Killed { signal } => Some(signal),
                    CommandEnd::Exited { .. } => None,
                },
            },
        }
    }
}

impl CommandEvent {
    /// What it counts for. A small one costs its bookkeeping too.
    fn charge(&self) -> usize {
        match self {
            Self::Stdout { bytes } | Self::Stderr { bytes } => bytes.len().max(256),
            Self::Ended { .. } => 0,
        }
    }
}

/// How much may wait for the host before the command has to.
const ROOM: usize = 256 * 1024;

/// The events between a command's task, which puts them in, and the host, which takes them out.
///
/// Waiting and taking are two steps on purpose: see [`Output::ready`].
#[derive(Default)]
pub(crate) struct Output {
    events: Mutex<Events>,
    changed: Notify,
    taken: Notify,
}

#[derive(Default)]
struct Events {
    waiting: VecDeque<CommandEvent>,
    charge: usize,
    over: Option<Result<(), MalaiError>>,
}

impl Output {
    /// Waits until there is something to take; false when all was taken.
    ///
    /// # Errors
    /// What the command failed with, once all before it was taken.
    ///
    /// # Cancel safety
    /// Cancel safe, which a wait that returns the events cannot be: between the instant at which a future of ours is
    /// ready and the one at which the host takes its value, the host may cancel the call, and UniFFI drops the value.
    pub(crate) async fn ready(&self) -> Result<bool, MalaiError> {
        loop {
            let changed = self.changed.notified();
            {
                let events = self.lock();
                if !events.waiting.is_empty() {
                    return Ok(true);
                }
                if let Some(over) = &events.over {
                    return over.clone().map(|()| false);
                }
            }
            changed.await;
        }
    }

    /// Takes what is there, at most so many and at least one, without waiting.
    pub(crate) fn take(&self, max: u32) -> Vec<CommandEvent> {
        let mut events = self.lock();
        let count = events.waiting.len().min(usize::try_from(max.max(1)).unwrap_or(usize::MAX));
        let taken: Vec<CommandEvent> = events.waiting.drain(..count).collect();
        events.charge -= taken.iter().map(CommandEvent::charge).sum::<usize>();
        drop(events);
        self.taken.notify_waiters();
        taken
    }

    /// Puts an event in, as soon as there is room.
    pub(crate) async fn put(&self, event: CommandEvent) {
        loop {
            let taken = self.taken.notified();
            {
                let mut events = self.lock();
                if events.over.is_some() {
                    return;
                }
                if events.charge < ROOM {
                    events.charge += event.charge();
                    events.waiting.push_back(event);
                    break;
                }
            }
            taken.await;
        }
        self.changed.notify_waiters();
    }

    /// Says that nothing follows. What waits can still be taken.
    pub(crate) fn finish(&self, over: Result<(), MalaiError>) {
        self.lock().over.get_or_insert(over);
        self.changed.notify_waiters();
    }

    /// Says that nobody wants the rest.
    pub(crate) fn abandon(&self) {
        let mut events = self.lock();
        events.waiting.clear();
        events.charge = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn stdout(bytes: &[u8]) -> CommandEvent {
        CommandEvent::Stdout { bytes: bytes.to_vec() }
    }

    #[test]
    fn a_wait_that_was_dropped_when_it_was_ready_takes_nothing() {
        let output = Output::default();
        assert!(poll(pin!(output.put(stdout(b"one")))).is_ready());
        assert_eq!(poll(pin!(output.ready())), Poll::Ready(Ok(true)));
        assert_eq!(output.take(8), [stdout(b"one")]);
        assert_eq!(output.take(8), []);
    }

    #[test]
    fn a_command_waits_for_a_host_that_pauses() {
        let output = Output::default();
        assert!(poll(pin!(output.put(stdout(&[0; ROOM])))).is_ready());
        let mut more = pin!(output.put(stdout(b"more")));
        assert!(poll(more.as_mut()).is_pending());
        assert_eq!(output.take(1).len(), 1);
        assert!(poll(more).is_ready());
        assert_eq!(output.take(0), [stdout(b"more")]);
    }

    #[test]
    fn a_failure_comes_after_what_was_before_it_and_comes_again() {
        let output = Output::default();
        assert!(poll(pin!(output.put(stdout(b"one")))).is_ready());
        output.finish(Err(MalaiError::cancelled()));
        output.finish(Ok(()));
        assert_eq!(poll(pin!(output.ready())), Poll::Ready(Ok(true)));
        output.take(1);
        for _ in 0..2 {
            assert_eq!(poll(pin!(output.ready())), Poll::Ready(Err(MalaiError::cancelled())));
        }
    }

    #[test]
    fn a_wait_ends_with_the_command() {
        let output = Output::default();
        let mut ready = pin!(output.ready());
        assert!(poll(ready.as_mut()).is_pending());
        output.finish(Ok(()));
        assert_eq!(poll(ready), Poll::Ready(Ok(false)));
    }
}
