//! The way to the program on one machine, while it runs.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use malai_model::wire::CommandEnd;
use tokio::sync::mpsc;

use super::lanes::Lanes;
use crate::error::Error;
use crate::exec::copy::{CopyError, SinkTotals};
use crate::exec::{CommandEvent, CommandInput, CommandOutput, RunningCommand};
use crate::timeouts;

/// How much of a program's stderr is kept.
const STDERR_KEPT: usize = 1024;
/// How long a stream that broke a copy may take to say why.
const REASON: Duration = Duration::from_millis(300);

/// How a program that ran one end ended, and the last that it said on stderr.
pub(super) struct Ended {
    pub(super) end: CommandEnd,
    pub(super) stderr: String,
}

impl Ended {
    pub(super) fn into_error(self, machine: &str) -> CopyError {
        match self.end.shell_status() {
            127 => CopyError::Older { machine: machine.to_owned() },
            status => CopyError::Ended {
                machine: machine.to_owned(),
                status,
                stderr: self.stderr.trim().to_owned(),
            },
        }
    }
}

fn keep_stderr(kept: &mut Vec<u8>, bytes: &[u8]) {
    kept.extend_from_slice(bytes);
    let excess = kept.len().saturating_sub(STDERR_KEPT);
    kept.drain(..excess);
}

/// The way to the program on one machine, of which threads here have the other end.
pub(super) struct Leg {
    pub(super) machine: String,
    pub(super) command: RunningCommand,
    pub(super) feed: mpsc::Sender<Bytes>,
    pub(super) drain: mpsc::Receiver<Bytes>,
    pub(super) lanes: Lanes,
}

impl Leg {
    /// Passes bytes until the program ends, over as many streams as are worth it.
    pub(super) async fn pass(self) -> Result<Ended, Error> {
        let Self { machine: _, command, feed, drain, mut lanes } = self;
        let RunningCommand { input, output, control } = command;
        let several = lanes.several();
        let mut passing = pin!(pass(input, output, feed, drain));
        let mut carrying = pin!(lanes.carry(|| control.rtt()));
        let ended = tokio::select! {
            ended = &mut passing => ended?,
            error = &mut carrying => return Err(error),
        };
        if ended.end.shell_status() != 0
            && several.load(Ordering::Relaxed)
            && let Ok(error) = tokio::time::timeout(REASON, carrying).await
        {
            // It ended for the sake of a lane, which says more.
            return Err(error);
        }
        Ok(ended)
    }
}

/// Runs one end on a thread here, and passes bytes between it and the program that is the other.
pub(super) async fn local<E>(leg: Leg, end: E) -> Result<(SinkTotals, u64), Error>
where
    E: FnOnce() -> Result<(SinkTotals, u64), CopyError> + Send + 'static,
{
    let machine = leg.machine.clone();
    // It ends with its pipes.
    let mut end = tokio::task::spawn_blocking(end);
    let passed;
    let outcome;
    {
        let mut passing = pin!(leg.pass());
        tokio::select! {
            done = &mut passing => {
                passed = Some(done);
                outcome = None;
            }
            done = &mut end => {
                outcome = Some(done);
                passed = tokio::time::timeout(timeouts::REPLY, passing).await.ok();
            }
        }
    }
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => end.await,
    };
    match (outcome, passed) {
        (Ok(Ok(copied)), _) => Ok(copied),
        // The pipe broke; what broke it says more.
        (Ok(Err(CopyError::Broken(_))), Some(Err(error))) => Err(error),
        (Ok(Err(CopyError::Broken(_))), Some(Ok(ended))) => Err(ended.into_error(&machine).into()),
        (Ok(Err(error)), _) => Err(error.into()),
        (Err(panic), _) => Err(panicked(&panic)),
    }
}

pub(super) fn panicked(panic: &tokio::task::JoinError) -> Error {
    tracing::error!(%panic, "a thread of a copy panicked");
    CopyError::Panicked.into()
}

/// Passes bytes both ways until the program ends. When it does, both pipes are closed.
pub(super) async fn pass(
    input: CommandInput,
    output: CommandOutput,
    feed: mpsc::Sender<Bytes>,
    drain: mpsc::Receiver<Bytes>,
) -> Result<Ended, Error> {
    let sending = async move {
        let mut drain = drain;
        while let Some(block) = drain.recv().await {
            // That it does not arrive shows at the output.
            if let Err(error) = input.write(block).await {
                tracing::debug!(%error, "the other end of a copy takes no more");
                break;
            }
        }
        if let Err(error) = input.end().await {
            tracing::debug!(%error, "the other end of a copy is gone");
        }
        // Kept: a program that has not read everything may not be told that its caller is gone.
        input
    };
    let receiving = async move {
        let (mut output, mut stderr) = (output, Vec::new());
        loop {
            match output.next().await? {
                // If it is over here, what comes is of no use, but its end is.
                CommandEvent::Stdout(bytes) => _ = feed.send(bytes).await,
                CommandEvent::Stderr(bytes) => keep_stderr(&mut stderr, &bytes),
                CommandEvent::Ended(end) => {
                    return Ok(Ended { end, stderr: String::from_utf8_lossy(&stderr).into_owned() });
                }
            }
        }
    };
    let (sending, mut receiving) = (pin!(sending), pin!(receiving));
    tokio::select! {
        ended = &mut receiving => ended,
        _input = sending => receiving.await,
    }
}
