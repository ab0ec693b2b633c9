//! The daemon's life.

use std::time::Duration;

use super::{DaemonError, socket};
use crate::api::ClientOptions;
use crate::error::Error;
use crate::node::{Mode, Node};
use crate::task::Scope;

/// How a daemon is run.
pub struct DaemonOptions {
    /// The home and the rest.
    pub client: ClientOptions,
}

/// Takes the home's lock, loads and validates everything, serves until `stop` resolves, and drains; when `stop`
/// resolves once more, the drain ends.
///
/// `ready` is called once everything listens: only then may a front say that the daemon runs.
///
/// # Errors
/// When another daemon holds the lock, anything in the files is wrong, or the network cannot be set up: then nothing is
/// left running.
pub async fn run(
    options: DaemonOptions,
    ready: impl FnOnce(),
    mut stop: impl AsyncFnMut(),
) -> Result<(), DaemonError> {
    let runtime_dir = options.client.runtime_dir.clone();
    let options = options.client.into_node_options()?;
    let home = options.home.clone();
    let _lock = home.lock_for_daemon().map_err(Error::from)?;
    let path = home.socket_path(runtime_dir.as_deref()).map_err(Error::from)?;
    if let Some(dir) = path.parent().filter(|dir| *dir != home.root()) {
        // Where others may write they could put a socket of theirs in the place of this one.
        crate::home::ensure_private_dir(dir).map_err(Error::from)?;
    }
    crate::host::raise_open_files();
    let node = Node::start(options, Mode::Serve).await.map_err(Error::from)?;
    let scope = Scope::new();
    let mut own_socket = None;
    let served = match socket::listen(&path) {
        Ok(listener) => {
            own_socket = socket::identity(&path);
            scope.spawn_until_stop("socket", socket::serve(listener, node.clone(), scope.clone()));
            tracing::info!(pid = std::process::id(), version = crate::VERSION, "the daemon runs");
            ready();
            stop().await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    let drain = node.drain();
    tracing::info!("stopping: running requests have {drain:?} to end");
    // The socket goes first: a new daemon may start as soon as the lock is free.
    scope.shutdown(Duration::from_secs(1)).await;
    if served.is_ok() {
        socket::remove(&path, own_socket);
    }
    tokio::select! {
        () = node.finish(drain) => {}
        () = stop() => tracing::info!("asked again: running requests end now"),
    }
    node.close(Duration::ZERO).await;
    tracing::info!("the daemon ended");
    served
}
