//! `malai.sock`: a line of JSON asks, a line of JSON answers. The same user only, by the kernel's word.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::DaemonError;
use crate::api::{self, ApiReply, ApiRequest, FailedView, LINE_LIMIT, Line, SCHEMA};
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

/// Answers until stopped.
pub(super) async fn serve(listener: UnixListener, node: Node, scope: Scope) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = node.clone();
                scope.spawn("socket request", async move {
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
    let uid = stream.peer_cred()?.uid();
    if uid != crate::host::effective_uid() {
        tracing::warn!(uid, "refused another user on the socket");
        return Ok(());
    }
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_LIMIT)).read_line(&mut line).await?;
    let reply = match serde_json::from_str::<Line<ApiRequest>>(&line) {
        Ok(request) => api::handle(node, request.body).await,
        Err(error) => ApiReply::Failed(FailedView {
            error: malai_model::wire::WireError {
                code: malai_model::code::ErrorCode::WireUnsupported,
                message: format!("understand the request: the daemon is malai {}: {error}", crate::VERSION),
                hint: Some("restart the daemon with the same version of malai".to_owned()),
            },
            diagnostics: Vec::new(),
        }),
    };
    let mut text = serde_json::to_vec(&Line { schema: SCHEMA, body: reply })?;
    text.push(b'\n');
    write.write_all(&text).await?;
    write.shutdown().await
}
