//! `malai stdio`: stdin and stdout, connected to a service.

use std::os::fd::{AsFd, AsRawFd};

use malai_core::api::{Client, ServiceConnection, ServiceInput, ServiceOutput};
use malai_core::task::Scope;

use super::{Context, Outcome};
use crate::error::Failure;
use crate::output::DONE;
use crate::signals::{Signals, number};
use crate::streams::{self, Target, WAITING_BLOCKS, Writer};

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
    let writer = Writer::new().map_err(|error| Failure::local("open stdout", &error))?;
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
                if !writer.write(Target::Stdout, bytes).await {
                    return Ok(writer.finish().await?.unwrap_or(DONE));
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
    Ok(status.unwrap_or(DONE))
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

/// Feeds stdin to the service.
fn start_stdin(scope: &Scope, input: ServiceInput) {
    let mut blocks = streams::stdin(WAITING_BLOCKS);
    scope.spawn_until_stop("stdin", async move {
        while let Some(block) = blocks.recv().await {
            // A service that hears no more, or is lost, shows at its output, which somebody watches.
            if input.write(block).await.is_err() {
                return;
            }
        }
        _ = input.end().await;
    });
}
