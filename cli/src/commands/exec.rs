//! `malai web01.company ps aux`.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use malai_core::Bytes;
use malai_core::api::{CommandControl, CommandEvent, CommandInput, RunRequest};
use malai_core::model::wire::Signal;
use malai_core::task::Scope;
use tokio::sync::mpsc;

use super::{Context, Outcome};
use crate::error::Failure;
use crate::signals::Signals;

/// How many blocks of output may wait for a slow terminal or pipe.
const WAITING_BLOCKS: usize = 4;
const STDIN_BLOCK: usize = 64 * 1024;
/// The status that a shell shows for death by SIGPIPE.
const BROKEN_PIPE: u8 = 128 + 13;

/// Runs a program on a machine; its bytes, signals and status are passed on unchanged.
pub(crate) async fn exec(context: &Context, words: &[String]) -> Outcome {
    let client = context.client().await?;
    let mut signals = Signals::listen().map_err(|error| Failure::local("listen for signals", &error))?;
    let request = RunRequest { words: words.to_vec(), env: context.env.locale.clone() };
    let command = tokio::select! {
        command = client.run(request) => command?,
        // Nothing runs yet: give up as any program would.
        signal = signals.next() => return Ok(128 + number(signal)),
    };
    let mut output = command.output;
    let control = command.control;
    // Terminals and pipes are read and written on threads of their own: a pause there must not stop the network.
    let scope = Scope::new();
    start_stdin(&scope, command.input);
    let mut writer = Writer::start().map_err(|error| Failure::local("open stdout", &error))?;
    let status = loop {
        let event = tokio::select! {
            event = output.next() => event.map_err(malai_core::Error::from)?,
            signal = signals.next() => match pass_on(signal, &control).await? {
                Some(status) => break status,
                None => continue,
            },
        };
        let ended = matches!(event, CommandEvent::Ended(_));
        let mut write = std::pin::pin!(writer.take(event));
        // A reader that pauses (`| less`) must not keep Ctrl-C from the command.
        let written = loop {
            tokio::select! {
                written = &mut write => break written?,
                signal = signals.next() => {
                    let status =
                        if ended { Some(128 + number(signal)) } else { pass_on(signal, &control).await? };
                    if status.is_some() {
                        break status;
                    }
                }
            }
        };
        if let Some(status) = written {
            break status;
        }
    };
    scope.stop();
    drop((output, control));
    client.close().await;
    Ok(status)
}

/// Passes a signal on. Returns the status to end with if it ends this process too.
async fn pass_on(signal: Signal, control: &CommandControl) -> Result<Option<u8>, Failure> {
    if signal == Signal::Hup {
        // The terminal is gone, and with it whoever could end a command that ignores this. Once this process is lost the
        // machine hangs the command up, and kills it if it does not heed that.
        return Ok(Some(128 + number(signal)));
    }
    control.signal(signal).await.map_err(malai_core::Error::from)?;
    Ok(None)
}

fn number(signal: Signal) -> u8 {
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

/// Reads stdin on a thread and feeds it to the command.
fn start_stdin(scope: &Scope, input: CommandInput) {
    let (blocks, mut waiting) = mpsc::channel::<Bytes>(WAITING_BLOCKS);
    // The thread is never joined: a read of a terminal cannot be interrupted, and the process ends soon.
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut block = vec![0; STDIN_BLOCK];
            match stdin.read(&mut block) {
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
enum Target {
    Stdout,
    Stderr,
}

/// Writes output on a thread.
struct Writer {
    blocks: Option<mpsc::Sender<(Target, Bytes)>>,
    done: tokio::sync::oneshot::Receiver<std::io::Result<()>>,
}

impl Writer {
    fn start() -> std::io::Result<Self> {
        let (blocks, mut waiting) = mpsc::channel::<(Target, Bytes)>(WAITING_BLOCKS);
        let (tell, done) = tokio::sync::oneshot::channel();
        // Not `std::io::stdout()`: it would hold back a line that is not finished yet.
        let mut stdout = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        let mut stderr = std::io::stderr();
        std::thread::spawn(move || {
            let mut written = Ok(());
            while let (Ok(()), Some((target, block))) = (&written, waiting.blocking_recv()) {
                match target {
                    Target::Stdout => written = stdout.write_all(&block),
                    // Whoever closed stderr does not want it.
                    Target::Stderr => _ = stderr.write_all(&block),
                }
            }
            // If nobody asks how it went this process is about to end.
            _ = tell.send(written);
        });
        Ok(Self { blocks: Some(blocks), done })
    }

    /// Takes what the command did. Returns the status to end with, if that was its end or nobody reads stdout any more:
    /// `malai web01.company yes | head` ends both, as in a local pipe.
    async fn take(&mut self, event: CommandEvent) -> Result<Option<u8>, Failure> {
        let (block, status) = match event {
            CommandEvent::Stdout(bytes) => (Some((Target::Stdout, bytes)), None),
            CommandEvent::Stderr(bytes) => (Some((Target::Stderr, bytes)), None),
            CommandEvent::Ended(end) => (None, Some(end.shell_status())),
        };
        if let (Some(block), Some(blocks)) = (block, &self.blocks)
            && blocks.send(block).await.is_ok()
        {
            return Ok(None);
        }
        // It is over, or stdout takes nothing more: the thread says which.
        self.blocks = None;
        match (&mut self.done).await {
            Ok(Ok(())) => Ok(status),
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Failure::local("write the output of the command", &error))
            }
            Ok(Err(_)) | Err(_) => Ok(Some(BROKEN_PIPE)),
        }
    }
}
