//! The client's end of `malai.sock`: a line of JSON asks, a line of JSON answers.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{ApiReply, ApiRequest, SCHEMA};
use crate::error::SocketError;

/// The longest request or answer, in bytes.
pub const LINE_LIMIT: u64 = 64 * 1024 * 1024;
/// How long the daemon may take to answer: it may have to dial other machines for it.
const ANSWER: Duration = Duration::from_secs(60);

/// What goes over the socket: the schema's version and a request or reply.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line<T> {
    /// The version of the schema that the sender speaks.
    pub schema: u32,
    /// A request or a reply.
    #[serde(flatten)]
    pub body: T,
}

/// Connects to the daemon; `None` if none listens.
pub(super) async fn connect(path: &Path) -> Result<Option<UnixStream>, SocketError> {
    match UnixStream::connect(path).await {
        Ok(stream) => {
            let uid = stream.peer_cred().map_err(SocketError::Unanswered)?.uid();
            if uid != crate::host::effective_uid() {
                return Err(SocketError::Foreign { path: path.to_owned(), uid });
            }
            Ok(Some(stream))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(SocketError::Unanswered(error)),
    }
}

/// Asks the daemon.
pub(super) async fn ask(stream: UnixStream, request: &ApiRequest) -> Result<ApiReply, SocketError> {
    let talk = async {
        let (read, mut write) = stream.into_split();
        let mut text = serde_json::to_vec(&Line { schema: SCHEMA, body: request })?;
        text.push(b'\n');
        write.write_all(&text).await?;
        let mut line = String::new();
        BufReader::new(read.take(LINE_LIMIT)).read_line(&mut line).await?;
        if line.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(line)
    };
    let line = match tokio::time::timeout(ANSWER, talk).await {
        Ok(line) => line.map_err(SocketError::Unanswered)?,
        Err(_) => return Err(SocketError::Unanswered(io::Error::from(io::ErrorKind::TimedOut))),
    };
    let reply: Line<ApiReply> = serde_json::from_str(&line).map_err(SocketError::Unreadable)?;
    Ok(reply.body)
}
