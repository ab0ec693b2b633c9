//! One machine of many.

use std::sync::Arc;

use bytes::Bytes;
use malai_model::targets::SelectedMachine;
use malai_model::wire::CommandEnd;
use malai_model::wire::local::{ManyEnd, RunRequest, TargetOutcome};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::lines::Lines;
use super::places::{Step, Steps};
use super::{ManyEvent, ManyRequest, OutputStream};
use crate::api::{Route, ping};
use crate::error::Error;
use crate::exec::{CommandEvent, CommandInput, ExecError, RunningCommand};
use crate::task::Scope;

/// How much of the input is handed over at once.
const INPUT_PIECE: usize = 64 * 1024;

/// How much output is made lines at once: an empty line costs a hundred times its byte.
const OUTPUT_PIECE: usize = 4 * 1024;

/// What the tasks of all machines share.
pub(super) struct Work {
    pub(super) route: Route,
    pub(super) request: ManyRequest,
    pub(super) targets: Arc<[SelectedMachine]>,
    /// Stopped when the whole is given up.
    pub(super) scope: Scope,
}

/// Why it ended.
enum End {
    Program(CommandEnd),
    Failed(Error),
    TimedOut,
    Cancelled,
}

/// Reaches a machine, waits for its place, runs the program there, and tells of all that.
pub(super) async fn drive(
    work: Arc<Work>,
    target: usize,
    events: mpsc::Sender<Vec<ManyEvent>>,
    steps: Steps,
) {
    let begun = Instant::now();
    let mut output =
        Output { target, events, stdout: Lines::default(), stderr: Lines::default(), started: false };
    let end = work.attempt(target, &mut output, &steps).await;
    let mut end = described(end);
    end.started = output.started;
    end.elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let outcome = end.outcome;
    output.end(end).await;
    // Nobody distributes places any more: then nobody needs this one.
    _ = steps.send((target, Step::Ended(outcome)));
}

impl Work {
    async fn attempt(&self, target: usize, output: &mut Output, steps: &Steps) -> End {
        let Some(machine) = self.targets.get(target) else { return End::Cancelled };
        let address = machine.to_string();
        let reached = tokio::select! {
            biased;
            () = self.scope.stopping() => return End::Cancelled,
            reached = ping::ping(&self.route, address.clone(), None) => reached,
        };
        if let Err(error) = reached {
            match TargetOutcome::of_code(error.code()) {
                TargetOutcome::Unreachable | TargetOutcome::Denied => return End::Failed(error),
                // Whoever cannot answer that can perhaps run a program.
                _ => tracing::debug!(%address, %error, "a machine did not answer a ping"),
            }
        }
        let (go, place) = oneshot::channel();
        if steps.send((target, Step::Ready(go))).is_err() {
            return End::Cancelled;
        }
        tokio::select! {
            biased;
            () = self.scope.stopping() => return End::Cancelled,
            given = place => if given.is_err() { return End::Cancelled },
        }
        let deadline = async {
            match self.request.timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        // Whichever ends first drops the command, which hangs it up.
        tokio::select! {
            biased;
            () = self.scope.stopping() => End::Cancelled,
            end = self.run(address, output) => end,
            () = deadline => End::TimedOut,
        }
    }

    async fn run(&self, address: String, output: &mut Output) -> End {
        let mut words = vec![address];
        words.extend_from_slice(&self.request.words);
        let request =
            RunRequest { words, single_word: self.request.single_word, env: self.request.env.clone() };
        let RunningCommand { input, output: mut from, control: _control } =
            match self.route.run(request).await {
                Ok(running) => running,
                Err(error) => return End::Failed(error),
            };
        output.start().await;
        let read = async {
            loop {
                match from.next().await {
                    Ok(CommandEvent::Stdout(block)) => output.take(OutputStream::Stdout, block).await,
                    Ok(CommandEvent::Stderr(block)) => output.take(OutputStream::Stderr, block).await,
                    Ok(CommandEvent::Ended(end)) => return End::Program(end),
                    Err(error) => return End::Failed(error.into()),
                }
            }
        };
        let feed = async {
            // Whoever reads no more is no failure; a lost connection shows at the output.
            if let Err(error) = feed(&input, self.request.input.clone()).await {
                tracing::debug!(%error, "a program did not take all of its input");
            }
            std::future::pending().await
        };
        tokio::select! {
            end = read => end,
            end = feed => end,
        }
    }
}

async fn feed(input: &CommandInput, mut bytes: Bytes) -> Result<(), ExecError> {
    while !bytes.is_empty() {
        input.write(bytes.split_to(bytes.len().min(INPUT_PIECE))).await?;
    }
    input.end().await
}

fn described(end: End) -> ManyEnd {
    let (outcome, program, error) = match end {
        End::Program(end) => (TargetOutcome::of_end(&end), Some(end), None),
        End::Failed(error) => (TargetOutcome::of_code(error.code()), None, Some(error.to_wire())),
        End::TimedOut => (TargetOutcome::TimedOut, None, None),
        End::Cancelled => (TargetOutcome::Cancelled, None, None),
    };
    let signal = match program {
        Some(CommandEnd::Killed { signal }) => Some(signal),
        _ => None,
    };
    let status = program.map(|end| end.shell_status());
    ManyEnd { outcome, status, signal, error, started: false, elapsed_ms: 0 }
}

/// Hands over what a machine does. Nobody takes it any more: then it goes nowhere, and the whole is about to stop.
struct Output {
    target: usize,
    events: mpsc::Sender<Vec<ManyEvent>>,
    stdout: Lines,
    stderr: Lines,
    started: bool,
}

impl Output {
    async fn start(&mut self) {
        self.started = true;
        _ = self.events.send(vec![ManyEvent::Started { target: self.target }]).await;
    }

    async fn take(&mut self, stream: OutputStream, mut block: Bytes) {
        let target = self.target;
        let lines = match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        };
        while !block.is_empty() {
            let mut batch = Vec::new();
            let piece = block.split_to(block.len().min(OUTPUT_PIECE));
            lines.push(piece, |text, part| batch.push(ManyEvent::Line { target, stream, text, part }));
            if !batch.is_empty() {
                _ = self.events.send(batch).await;
            }
        }
    }

    async fn end(&mut self, end: ManyEnd) {
        let target = self.target;
        let mut batch = Vec::new();
        let streams = [(OutputStream::Stdout, &mut self.stdout), (OutputStream::Stderr, &mut self.stderr)];
        for (stream, lines) in streams {
            lines.finish(|text, part| batch.push(ManyEvent::Line { target, stream, text, part }));
        }
        batch.push(ManyEvent::Ended { target, end });
        _ = self.events.send(batch).await;
    }
}
