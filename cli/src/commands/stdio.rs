//! `malai stdio`: stdin and stdout, connected to a service.

use std::os::fd::{AsFd, AsRawFd};

use malai_core::Bytes;
use malai_core::api::{Client, ServiceConnection, ServiceInput, ServiceOutput};
use malai_core::task::Scope;
use tokio::sync::{mpsc, oneshot};

use super::exec::BROKEN_PIPE;
use super::{Context, Outcome};
use crate::error::Failure;
use crate::output::DONE;
use crate::pipes;
use crate::signals::{Signals, number};

/// How many blocks may wait for a slow pipe.
const WAITING_BLOCKS: usize = 4;
const STDIN_BLOCK: usize = 64 * 1024;

/// Connects stdin and stdout to a service until both sides have ended.
pub(crate) async fn stdio(context: &Context, address: &str) -> Outcome {
    let client = context.client().await?;
    let outcome = run(&client, address).await;
    // However it ended, the machine learns of it at once.
    client.close().await;
    outcome
}

async fn run(client: &Client, address: &str) -> Outcome {
    let mut signals = Signals::listen().map_err(|error| Failure::local("listen for signals", &error))?;
    let ServiceConnection { input, output } = tokio::select! {
        connected = client.connect_service(address) => connected?,
        signal = signals.next() => return Ok(128 + number(signal)),
    };
    let writer = Writer::start().map_err(|error| Failure::local("open stdout", &error))?;
    // Pipes are read and written on threads of their own: a pause there must not stop the network.
    let scope = Scope::new();
    start_stdin(&scope, input);
    let outcome = tokio::select! {
        outcome = pass_on(output, writer) => outcome,
        signal = signals.next() => Ok(128 + number(signal)),
    };
    scope.stop();
    outcome
}

/// Writes what the service says up to its end, then waits until it has heard everything, too.
async fn pass_on(mut output: ServiceOutput, mut writer: Writer) -> Outcome {
    let failed = |error| Failure::from(malai_core::Error::from(error));
    loop {
        match output.next().await {
            Ok(Some(bytes)) => {
                if !writer.write(bytes).await {
                    return writer.finish().await;
                }
            }
            Ok(None) => break,
            Err(error) => {
                // What came before the failure stands before the failure's own words.
                writer.finish().await?;
                return Err(failed(error));
            }
        }
    }
    let status = writer.finish().await?;
    close_stdout();
    output.closed().await.map_err(failed)?;
    Ok(status)
}

/// Lets the reader of stdout see its end while this process goes on.
fn close_stdout() {
    let stdout = std::io::stdout();
    // A socket may be stdin as well: then closing it here would end nothing.
    _ = nix::sys::socket::shutdown(stdout.as_fd().as_raw_fd(), nix::sys::socket::Shutdown::Write);
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null")
        && let Err(error) = nix::unistd::dup2_stdout(null)
    {
        tracing::debug!(%error, "stdout ends with this process");
    }
}

/// Reads stdin on a thread and feeds it to the service.
fn start_stdin(scope: &Scope, input: ServiceInput) {
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
            // A service that hears no more, or is lost, shows at its output, which somebody watches.
            if input.write(block).await.is_err() {
                return;
            }
        }
        _ = input.end().await;
    });
}

/// Writes stdout on a thread.
struct Writer {
    blocks: Option<mpsc::Sender<Bytes>>,
    done: oneshot::Receiver<std::io::Result<()>>,
}

impl Writer {
    fn start() -> std::io::Result<Self> {
        let (blocks, mut waiting) = mpsc::channel::<Bytes>(WAITING_BLOCKS);
        let (tell, done) = oneshot::channel();
        // Not `std::io::stdout()`: it would hold back a line that is not finished yet.
        let mut stdout = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        std::thread::spawn(move || {
            let mut written = Ok(());
            while let (Ok(()), Some(block)) = (&written, waiting.blocking_recv()) {
                written = pipes::write_all(&mut stdout, &block);
            }
            // With the word comes the end of taking blocks. If nobody asks for it this process is about to end.
            drop((waiting, stdout));
            _ = tell.send(written);
        });
        Ok(Self { blocks: Some(blocks), done })
    }

    /// Hands over a block. False when stdout takes nothing more.
    async fn write(&self, block: Bytes) -> bool {
        match &self.blocks {
            Some(blocks) => blocks.send(block).await.is_ok(),
            None => false,
        }
    }

    /// Waits until everything is written. Returns the status to end with.
    async fn finish(&mut self) -> Outcome {
        self.blocks = None;
        match (&mut self.done).await {
            Ok(Ok(())) => Ok(DONE),
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Failure::local("write what the service sent", &error))
            }
            // Nobody reads stdout any more: ended as in a local pipe.
            Ok(Err(_)) | Err(_) => Ok(BROKEN_PIPE),
        }
    }
}
