//! A stream to a machine for a process of this user: found and dialled here, then carried without a look into it.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::api::{self, ApiReply, Line, OpenRequest, Place};
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

/// Opens what was asked for and hands the socket to the node.
pub(super) async fn open(node: &Node, asked: Asked, request: OpenRequest) -> io::Result<()> {
    let Asked { mut stream, leftover, pid } = asked;
    let outcome = {
        let mut finding = pin!(Box::pin(find(node, &request)));
        let mut signs = tokio::time::interval_at(tokio::time::Instant::now() + SIGN_OF_LIFE, SIGN_OF_LIFE);
        loop {
            tokio::select! {
                outcome = &mut finding => break outcome,
                _ = signs.tick() => stream.write_all(&Line::text(ApiReply::Opening {})?).await?,
            }
        }
    };
    let (found, opened) = match outcome {
        Ok(done) => done,
        Err(error) => {
            stream.write_all(&Line::text(ApiReply::Failed(api::failed(&error)))?).await?;
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

/// A stream only where one is needed: what this device asks of itself it is asked on the socket itself.
async fn find(node: &Node, request: &OpenRequest) -> Result<(Found, Option<(Stream, PathView)>), NodeError> {
    let found = node.find(request).await?;
    let opened = match found.place() {
        Place::Here => None,
        Place::Elsewhere => Some(node.open(&found).await?),
    };
    Ok((found, opened))
}
