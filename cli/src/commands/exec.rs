//! `malai web01.company ps aux`.

use std::cell::Cell;

use malai_core::api::{Client, CommandEvent, CommandInput, CommandOutput, RunRequest};
use malai_core::model::wire::Signal;
use malai_core::task::Scope;

use super::{Context, Outcome, session};
use crate::args::SessionOptions;
use crate::error::Failure;
use crate::signals::{Signals, number};
use crate::streams::{self, BROKEN_PIPE, Target, WAITING_BLOCKS, Writer};
use crate::terminal;

/// Runs a program on a machine; its bytes, signals and status are passed on unchanged. Under a terminal, and without a
/// program, it is a session.
pub(crate) async fn exec(context: &Context, words: &[String], options: &SessionOptions) -> Outcome {
    let client = context.client().await?;
    // Without a terminal an address alone is a mistake, and told as one.
    let is_shell = terminal::is_terminal() && client.is_bare_address(words)?;
    if options.tty || options.detach || is_shell {
        return session::open_by(context, &client, words, options).await;
    }
    let request =
        RunRequest { words: words.to_vec(), env: context.env.locale.clone(), ..RunRequest::default() };
    exec_by(&client, request, Feed::Stdin).await
}

/// What a command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feed {
    /// This process's stdin.
    Stdin,
    /// Nothing.
    Nothing,
}

/// As [`exec`], for a command, with a client that is there already; it is closed.
pub(crate) async fn exec_by(client: &Client, request: RunRequest, feed: Feed) -> Outcome {
    let outcome = run(client, request, feed).await;
    // Failed or not, the target learns at once that this caller is gone.
    client.close().await;
    outcome
}

async fn run(client: &Client, request: RunRequest, feed: Feed) -> Outcome {
    let mut signals = Signals::listen().map_err(|error| Failure::local("listen for signals", &error))?;
    let command = tokio::select! {
        command = client.run(request) => command?,
        // Nothing runs yet: give up as any program would.
        signal = signals.next() => return Ok(128 + number(signal)),
    };
    // Terminals and pipes are read and written on threads of their own: a pause there must not stop the network.
    let scope = Scope::new();
    match feed {
        Feed::Stdin => start_stdin(&scope, command.input),
        // If it fails the command is over or lost, which its output tells.
        Feed::Nothing => _ = command.input.end().await,
    }
    let writer = Writer::new().map_err(|error| Failure::local("open stdout", &error))?;
    let ended = Cell::new(false);
    // Beside the signals, not between them: a reader that pauses (`| less`) must not keep Ctrl-C from the command.
    let mut passing = std::pin::pin!(pass_on(command.output, writer, &ended));
    let outcome = loop {
        tokio::select! {
            outcome = &mut passing => break outcome,
            signal = signals.next() => {
                // After SIGHUP the terminal is gone, and with it whoever could end a command that ignores this: once this
                // process is lost the machine hangs the command up, and kills it if it does not heed that.
                if signal == Signal::Hup || ended.get() {
                    break Ok(128 + number(signal));
                }
                // If it does not arrive the command is over or lost, which its output tells.
                if let Err(error) = command.control.signal(signal).await {
                    tracing::debug!(%error, "a signal did not arrive");
                }
            }
        }
    };
    scope.stop();
    if ended.get() && outcome.is_ok() {
        client.hurry();
    }
    outcome
}

/// Writes a command's output until it ends, and notes that it has. Returns its status.
async fn pass_on(mut output: CommandOutput, mut writer: Writer, ended: &Cell<bool>) -> Outcome {
    loop {
        let (target, block) = match output.next().await {
            Ok(CommandEvent::Stdout(bytes)) => (Target::Stdout, bytes),
            Ok(CommandEvent::Stderr(bytes)) => (Target::Stderr, bytes),
            Ok(CommandEvent::Ended(end)) => {
                ended.set(true);
                return Ok(writer.finish().await?.unwrap_or(end.shell_status()));
            }
            Err(error) => {
                ended.set(true);
                // What came before the failure is the command's, and stands before the failure's own words.
                writer.finish().await?;
                return Err(malai_core::Error::from(error).into());
            }
        };
        if !writer.write(target, block).await {
            // Stdout takes nothing more: the thread says why.
            return Ok(writer.finish().await?.unwrap_or(BROKEN_PIPE));
        }
    }
}

/// Feeds stdin to the command.
fn start_stdin(scope: &Scope, input: CommandInput) {
    let mut blocks = streams::stdin(WAITING_BLOCKS);
    scope.spawn_until_stop("stdin", async move {
        while let Some(block) = blocks.recv().await {
            // The command wants no more, or is lost; the latter shows at its output, which somebody watches.
            if input.write(block).await.is_err() {
                return;
            }
        }
        // A failure here shows as the end of the output, which somebody watches.
        _ = input.end().await;
    });
}
