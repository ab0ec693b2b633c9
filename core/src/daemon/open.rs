//! A stream to a machine for a process of this user: found and dialled here, then carried without a look into it.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::api::{self, ApiReply, FailedView, Line, OpenRequest, Place};
use crate::node::{Carried, Found, Node, NodeError};
use crate::p2p::{PathView, Stream};

/// How often whoever waits is told that something is done: sooner than it takes the daemon for dead.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// A socket on which a stream was asked for.
pub(super) struct Asked {
    pub(super) stream: UnixStream,
    /// What was read of it beyond the request.
    pub(super) leftover: BytesMut,
    /// The process at its other end, where the system says.
    pub(super) pid: Option<i32>,
}

/// A machine, and a stream to it if it is another one than this.
type Reached = (Found, Option<(Stream, PathView)>);

/// Opens what was asked for and hands the socket to the node.
pub(super) async fn open(node: &Node, asked: Asked, request: OpenRequest) -> io::Result<()> {
    let Asked { mut stream, leftover, pid } = asked;
    let outcome = {
        let mut reaching = pin!(Box::pin(reach(node, &request)));
        let mut signs = tokio::time::interval_at(tokio::time::Instant::now() + SIGN_OF_LIFE, SIGN_OF_LIFE);
        loop {
            tokio::select! {
                outcome = &mut reaching => break outcome,
                _ = signs.tick() => stream.write_all(&Line::text(ApiReply::Opening {})?).await?,
            }
        }
    };
    let reached = match outcome {
        Ok(Some(done)) => Ok(done),
        Ok(None) => Err(not_foreseen()),
        Err(error) => Err(api::failed(&error)),
    };
    let (found, opened) = match reached {
        Ok(reached) => reached,
        Err(failed) => {
            stream.write_all(&Line::text(ApiReply::Failed(failed))?).await?;
            return stream.shutdown().await;
        }
    };
    let path = opened.as_ref().map_or_else(PathView::here, |(_, path)| path.clone());
    stream.write_all(&Line::text(ApiReply::Opened(found.view(path)))?).await?;
    let carried = Carried { socket: stream, leftover, pid, returns: request.returns };
    match opened {
        Some((opened, _)) => node.carry(&found, opened, carried),
        None => node.serve_own_socket(&found.member, carried),
    }
    Ok(())
}

fn not_foreseen() -> FailedView {
    let message = "open a stream for what was written behind the request: something else is meant";
    FailedView::unsupported(message.to_owned(), None)
}

/// Finds the machine, and opens a stream only where one is needed: what this device asks of itself it is asked on the
/// socket itself. Nothing where the address leads elsewhere than whoever wrote on already took for granted.
async fn reach(node: &Node, request: &OpenRequest) -> Result<Option<Reached>, NodeError> {
    let found = node.find(request).await?;
    if request.followed_by.as_ref().is_some_and(|argv| found.argv != *argv || found.place() == Place::Here) {
        return Ok(None);
    }
    let opened = match found.place() {
        Place::Here => None,
        Place::Elsewhere => Some(node.open(&found).await?),
    };
    Ok(Some((found, opened)))
}
