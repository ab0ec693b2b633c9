//! `malai web01.company ps aux`.

use std::cell::Cell;

use std::os::fd::AsFd;

use malai_core::Bytes;
use malai_core::api::{Client, CommandEvent, CommandInput, CommandOutput, RunRequest};
use malai_core::model::wire::Signal;
use malai_core::task::Scope;
use tokio::sync::mpsc;

use super::{Context, Outcome, session};
use crate::args::SessionOptions;
use crate::error::Failure;
use crate::pipes;
use crate::signals::{Signals, number};
use crate::terminal;

/// How many blocks of output may wait for a slow terminal or pipe.
const WAITING_BLOCKS: usize = 4;
const STDIN_BLOCK: usize = 64 * 1024;
/// The status that a shell shows for death by SIGPIPE.
pub(super) const BROKEN_PIPE: u8 = 128 + 13;

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
    let writer = Writer::start().map_err(|error| Failure::local("open stdout", &error))?;
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

/// Reads stdin on a thread and feeds it to the command.
fn start_stdin(scope: &Scope, input: CommandInput) {
    let (blocks, mut waiting) = mpsc::channel::<Bytes>(WAITING_BLOCKS);
    // The thread is never joined: a read of a terminal cannot be interrupted, and the process ends soon.
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut block = vec![0; STDIN_BLOCK];
            match pipes::read(&mut stdin, &mut block) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    block.truncate(count);
                    if blocks.blocking_send(Bytes::from(block)).is_err() {
                        return;
                    }
                }
            }
        }
    });
    scope.spawn_until_stop("stdin", async move {
        while let Some(block) = waiting.recv().await {
            // The command wants no more, or is lost; the latter shows at its output, which somebody watches.
            if input.write(block).await.is_err() {
                return;
            }
        }
        // A failure here shows as the end of the output, which somebody watches.
        _ = input.end().await;
    });
}

#[derive(Clone, Copy)]
pub(super) enum Target {
    Stdout,
    Stderr,
}

/// Writes output on a thread.
pub(super) struct Writer {
    blocks: Option<mpsc::Sender<(Target, Bytes)>>,
    done: tokio::sync::oneshot::Receiver<std::io::Result<()>>,
}

impl Writer {
    pub(super) fn start() -> std::io::Result<Self> {
        let (blocks, mut waiting) = mpsc::channel::<(Target, Bytes)>(WAITING_BLOCKS);
        let (tell, done) = tokio::sync::oneshot::channel();
        // Not `std::io::stdout()`: it would hold back a line that is not finished yet.
        let mut stdout = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        let mut stderr = std::io::stderr();
        std::thread::spawn(move || {
            let mut written = Ok(());
            while let (Ok(()), Some((target, block))) = (&written, waiting.blocking_recv()) {
                match target {
                    Target::Stdout => written = pipes::write_all(&mut stdout, &block),
                    // Whoever closed stderr does not want it.
                    Target::Stderr => _ = pipes::write_all(&mut stderr, &block),
                }
            }
            // With the word comes the end of taking blocks. If nobody asks for it this process is about to end.
            drop(waiting);
            _ = tell.send(written);
        });
        Ok(Self { blocks: Some(blocks), done })
    }

    /// Hands over a block. False when stdout takes nothing more.
    pub(super) async fn write(&self, target: Target, block: Bytes) -> bool {
        match &self.blocks {
            Some(blocks) => blocks.send((target, block)).await.is_ok(),
            None => false,
        }
    }

    /// Waits until everything is written. Returns the status to end with if nobody reads stdout any more: `malai
    /// web01.company yes | head` ends both, as in a local pipe.
    pub(super) async fn finish(&mut self) -> Result<Option<u8>, Failure> {
        self.blocks = None;
        match (&mut self.done).await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Failure::local("write the output of the command", &error))
            }
            Ok(Err(_)) | Err(_) => Ok(Some(BROKEN_PIPE)),
        }
    }
}
