//! A command that runs on a machine.

use std::sync::Arc;

use malai_core::Bytes;
use malai_core::api::{Client, CommandControl, CommandInput, RunRequest, RunningCommand, SingleWord};
use malai_core::exec::ExecError;
use malai_core::task::Scope;
use tokio::sync::{Mutex, watch};

use crate::engine::{Engine, unless_stopped};
use crate::output::Output;
use crate::{CommandEvent, CommandSignal, MalaiError};

/// A command on a machine.
///
/// ```text
/// command = malai.run("web01.company", ["journalctl", "-f"])
/// while await command.ready():
///     for event in command.take_events(64):
///         …
/// ```
///
/// Keep taking its events, or it waits for you as a program waits for a full pipe. When nobody holds this
/// object any more, the command is hung up, as closing a terminal does.
#[derive(uniffi::Object)]
pub struct CommandHandle {
    engine: Arc<Engine>,
    running: Arc<Running>,
    /// The command's tasks.
    scope: Scope,
}

/// What the handle and the command's task share.
struct Running {
    phase: watch::Sender<Phase>,
    output: Output,
}

enum Phase {
    Starting,
    Runs(Controls),
    /// It ended, or what it failed with.
    Over(Option<MalaiError>),
}

#[derive(Clone)]
struct Controls {
    // Fair: writes go out in the order in which they were asked for.
    input: Arc<Mutex<CommandInput>>,
    control: CommandControl,
}

impl CommandHandle {
    /// Begins to reach the machine and to run the program there.
    pub(crate) fn start(engine: Arc<Engine>, address: String, argv: Vec<String>) -> Self {
        let running =
            Arc::new(Running { phase: watch::Sender::new(Phase::Starting), output: Output::default() });
        let scope = engine.scope();
        let request = RunRequest {
            words: std::iter::once(address).chain(argv).collect(),
            single_word: SingleWord::Keep,
            ..RunRequest::default()
        };
        let watched = Finish(Arc::clone(&running));
        let (client, stop) = (engine.client(), scope.clone());
        engine.start(&scope, "command", async move {
            let over = tokio::select! {
                biased;
                () = stop.stopping() => Err(MalaiError::shut_down()),
                over = watched.0.follow(&client, request) => over,
            };
            watched.0.finish(unless_stopped(&stop, over, MalaiError::shut_down));
        });
        Self { engine, running, scope }
    }
}

#[uniffi::export]
impl CommandHandle {
    /// Waits until the command runs. Not needed before anything else: what went wrong is also told by
    /// `ready`.
    ///
    /// Throws `Denied` when the machine refuses, `Unreachable` when it cannot be reached, `NotFound` when the
    /// address or the program does not exist. Cancelling this call changes nothing; to give the command up
    /// call `cancel`.
    pub async fn started(&self) -> Result<(), MalaiError> {
        match self.running.controls().await {
            Ok(_) | Err(None) => Ok(()),
            Err(Some(error)) => Err(error),
        }
    }

    /// Waits until there are events to take. Returns false when the command has ended and all of them were
    /// taken.
    ///
    /// Throws what the command failed with, after all events before it were taken; `Cancelled` after
    /// `cancel`. Cancelling this call, or a timeout around it, loses nothing: the events stay until
    /// `takeEvents` takes them.
    pub async fn ready(&self) -> Result<bool, MalaiError> {
        self.running.output.ready().await
    }

    /// Takes events in the order in which they happened, without waiting: at most `max` (0 counts as 1), none
    /// if there are none now. The last one is `Ended`. Have one task do this.
    pub fn take_events(&self, max: u32) -> Vec<CommandEvent> {
        self.running.output.take(max)
    }

    /// Hands over bytes for the program's standard input. Returns when they are on their way; wait for that
    /// before the next call, so that a slow program slows you. Of a call that is cancelled either all bytes
    /// go out or none.
    ///
    /// Throws what the command failed with; `Cancelled` when it is over.
    pub async fn write_stdin(&self, bytes: Vec<u8>) -> Result<(), MalaiError> {
        let input = self.controls().await?.input.lock_owned().await;
        self.within("stdin", async move { Ok(input.write(Bytes::from(bytes)).await?) }).await
    }

    /// Ends standard input: the program reads the end of file. Throws as `writeStdin`.
    pub async fn end_stdin(&self) -> Result<(), MalaiError> {
        let input = self.controls().await?.input.lock_owned().await;
        self.within("end of stdin", async move { Ok(input.end().await?) }).await
    }

    /// Sends a signal to the program and all that it started. Throws as `writeStdin`.
    pub async fn signal(&self, signal: CommandSignal) -> Result<(), MalaiError> {
        let control = self.controls().await?.control;
        self.within("signal", async move { Ok(control.signal(signal.into()).await?) }).await
    }

    /// Gives the command up, at once and wherever it is: the remote program is hung up (SIGHUP, 5 s later
    /// SIGKILL), events that were not taken are dropped, and every call that waits throws `Cancelled`. After
    /// the command's end this does nothing.
    ///
    /// Swift: cancelling a `Task` does not reach malai by itself; call this in `withTaskCancellationHandler`.
    pub fn cancel(&self) {
        if self.running.finish(Err(MalaiError::cancelled())) {
            self.running.output.abandon();
        }
        self.scope.stop();
    }
}

impl CommandHandle {
    async fn controls(&self) -> Result<Controls, MalaiError> {
        self.running.controls().await.map_err(|over| over.unwrap_or_else(ended))
    }

    /// Works for the command until that is over.
    async fn within<F>(&self, name: &'static str, work: F) -> Result<(), MalaiError>
    where
        F: Future<Output = Result<(), malai_core::Error>> + Send + 'static,
    {
        self.engine.within(&self.scope, name, work).await
    }
}

impl Drop for CommandHandle {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Running {
    /// Runs the command and puts what it does into the output, to its end.
    async fn follow(&self, client: &Client, request: RunRequest) -> Result<(), MalaiError> {
        let RunningCommand { input, mut output, control } = client.run(request).await?;
        self.phase.send_if_modified(|phase| {
            let starting = matches!(phase, Phase::Starting);
            if starting {
                *phase = Phase::Runs(Controls { input: Arc::new(Mutex::new(input)), control });
            }
            starting
        });
        loop {
            let event = CommandEvent::from(output.next().await.map_err(malai_core::Error::from)?);
            let ended = matches!(event, CommandEvent::Ended { .. });
            self.output.put(event).await;
            if ended {
                return Ok(());
            }
        }
    }

    /// Ends it, the first time; says whether that was now. What could still be sent to the command is let go:
    /// with the task gone, too, the machine hangs it up.
    fn finish(&self, over: Result<(), MalaiError>) -> bool {
        let first = self.phase.send_if_modified(|phase| {
            let first = !matches!(phase, Phase::Over(_));
            if first {
                *phase = Phase::Over(over.clone().err());
            }
            first
        });
        if first {
            self.output.finish(over);
        }
        first
    }

    /// Waits until the command runs; its end is an error without a cause.
    async fn controls(&self) -> Result<Controls, Option<MalaiError>> {
        let mut phases = self.phase.subscribe();
        // The sender is ours, so it is not gone.
        let phase = phases.wait_for(|phase| !matches!(phase, Phase::Starting)).await.map_err(|_| None)?;
        match &*phase {
            Phase::Runs(controls) => Ok(controls.clone()),
            Phase::Over(error) => Err(error.clone()),
            Phase::Starting => Err(None),
        }
    }
}

/// Ends the command even if its task panics or is dropped: nobody waits for ever.
struct Finish(Arc<Running>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish(Err(MalaiError::panicked("command")));
    }
}

fn ended() -> MalaiError {
    malai_core::Error::from(ExecError::Ended).into()
}
