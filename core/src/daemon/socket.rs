//! `malai.sock`: a line of JSON asks, a line of JSON answers. The same user only, by the kernel's word.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

use super::DaemonError;
use super::open::Asked;
use crate::api::{self, ApiReply, ApiRequest, FailedView, Line, LineProblem};
use crate::node::Node;
use crate::task::Scope;

/// Opens the socket, mode 0600. A socket that a killed daemon left is replaced: the home's lock is held by now.
pub(super) fn listen(path: &Path) -> Result<UnixListener, DaemonError> {
    let failed = |source| DaemonError::Socket { path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Which file stands at a path.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Removes the socket, unless another file stands at its path by now: the home may be another one.
pub(super) fn remove(path: &Path, own: Option<(u64, u64)>) {
    if own.is_none() || identity(path) != own {
        // Also where there is none any more.
        tracing::info!(path = %path.display(), "the socket is not this daemon's any more: it stays");
    } else if let Err(source) = std::fs::remove_file(path) {
        tracing::warn!(error = %source, "the socket could not be removed");
    }
}

/// Answers until stopped.
pub(super) async fn serve(listener: UnixListener, node: Node, scope: Scope) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = node.clone();
                // What it began for others goes on in the node: a stop of the socket waits for answers alone.
                scope.spawn_until_stop("socket request", async move {
                    if let Err(error) = answer(stream, &node).await {
                        tracing::debug!(%error, "a request over the socket ended");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, say: later it may work again.
                tracing::warn!(%error, "the socket cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, node: &Node) -> io::Result<()> {
    let caller = stream.peer_cred()?;
    if caller.uid() != crate::host::effective_uid() {
        tracing::warn!(uid = caller.uid(), "refused another user on the socket");
        return Ok(());
    }
    let mut leftover = BytesMut::new();
    let line = api::read_line(&mut stream, &mut leftover).await?;
    let reply = match Line::parse(&line) {
        Ok(ApiRequest::Open(request) | ApiRequest::OpenAndRun(request)) => {
            return super::open::open(node, Asked { stream, leftover, pid: caller.pid() }, request).await;
        }
        Ok(request) => api::handle(node, request).await,
        Err(problem) => ApiReply::Failed(not_understood(&problem)),
    };
    stream.write_all(&Line::text(reply)?).await?;
    stream.shutdown().await
}

/// A request of another version. Whoever asked for a stream dials by itself then.
fn not_understood(problem: &LineProblem) -> FailedView {
    let why = match problem {
        LineProblem::Newer(schema) => format!("it is of a newer malai (schema {schema})"),
        LineProblem::Unreadable(error) => error.to_string(),
    };
    let message = format!("understand the request: the daemon is malai {}: {why}", crate::VERSION);
    FailedView::unsupported(message, Some("restart the daemon with the same version of malai".to_owned()))
}
