//! The client's end of `malai.sock`: a line of JSON asks, a line of JSON answers.
//!
//! A request to open a stream is answered by `opening` lines while the machine is dialled and an `opened` line, after
//! which the socket carries the stream (`p2p::socket`). See ADR 0007.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::{ApiReply, ApiRequest, FailedView, OpenRequest, OpenedView, SCHEMA};
use crate::error::SocketError;

/// The longest request or answer, in bytes.
pub const LINE_LIMIT: usize = 64 * 1024 * 1024;
/// How long the daemon may take to answer: it may have to dial other machines for it.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a daemon that has nothing to do but look may take.
const LOOK: Duration = Duration::from_secs(10);
/// How long the daemon may say nothing while it opens a stream: the kernel accepts connections for a process that is
/// stopped, too. It says something every half a second.
const SILENCE: Duration = Duration::from_secs(2);
/// How long to go on trying while the daemon has no room for another connection.
const CROWDED: Duration = Duration::from_secs(1);

/// What goes over the socket: the schema's version and a request or reply.
///
/// Within a schema requests, replies and fields are only added: who gets a request that it does not know says so by
/// `wire.unsupported`. The number grows when what exists comes to mean something else.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line<T> {
    /// The version of the schema that the sender speaks.
    pub schema: u32,
    /// A request or a reply.
    #[serde(flatten)]
    pub body: T,
}

/// Why a line cannot be used.
#[derive(Debug)]
pub enum LineProblem {
    /// Its sender speaks a schema that this version does not know.
    Newer(u32),
    /// It cannot be read.
    Unreadable(serde_json::Error),
}

impl<T: DeserializeOwned> Line<T> {
    /// Reads a line and looks at its schema.
    ///
    /// # Errors
    /// What keeps this version from using it.
    pub fn parse(text: &[u8]) -> Result<T, LineProblem> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        match serde_json::from_slice::<Self>(text) {
            Ok(line) if line.schema <= SCHEMA => Ok(line.body),
            Ok(line) => Err(LineProblem::Newer(line.schema)),
            Err(error) => match serde_json::from_slice::<Head>(text) {
                Ok(head) if head.schema > SCHEMA => Err(LineProblem::Newer(head.schema)),
                _ => Err(LineProblem::Unreadable(error)),
            },
        }
    }
}

impl<T: Serialize> Line<T> {
    /// The line as it goes over the socket.
    ///
    /// # Errors
    /// When it is no JSON, which does not happen.
    pub fn text(body: T) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(&Self { schema: SCHEMA, body })?;
        text.push(b'\n');
        Ok(text)
    }
}

/// Reads up to the end of a line, and returns it; what came beyond it stays in `buffer`.
///
/// # Errors
/// When the other side ends or says more than [`LINE_LIMIT`] without ending its line.
///
/// # Cancel safety
/// What was read stays in `buffer`.
pub async fn read_line(stream: &mut UnixStream, buffer: &mut BytesMut) -> io::Result<BytesMut> {
    let mut seen = 0;
    loop {
        if let Some(end) = buffer[seen..].iter().position(|byte| *byte == b'\n') {
            return Ok(buffer.split_to(seen + end + 1));
        }
        seen = buffer.len();
        if seen > LINE_LIMIT {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
    }
}

/// Connects to the daemon; `None` if none listens.
pub(super) async fn connect(path: &Path) -> Result<Option<UnixStream>, SocketError> {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => {
                let uid = stream.peer_cred().map_err(SocketError::Unanswered)?.uid();
                if uid != crate::host::effective_uid() {
                    return Err(SocketError::Foreign { path: path.to_owned(), uid });
                }
                return Ok(Some(stream));
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            // Many ask at once, or it does not run on.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < CROWDED => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => return Err(SocketError::Unanswered(error)),
        }
    }
}

/// Asks the daemon.
pub(super) async fn ask(mut stream: UnixStream, request: &ApiRequest) -> Result<ApiReply, SocketError> {
    let within = match request {
        ApiRequest::Info {} | ApiRequest::Status {} => LOOK,
        _ => ANSWER,
    };
    let talk = async {
        stream.write_all(&Line::text(request)?).await?;
        read_line(&mut stream, &mut BytesMut::new()).await
    };
    parse_reply(&in_time(within, talk).await?)
}

/// What the daemon made of a request to open a stream.
#[derive(Debug)]
pub(super) enum OpenAnswer {
    /// The socket carries it from here on.
    Opened {
        /// Where it leads.
        view: OpenedView,
        /// The socket.
        stream: UnixStream,
        /// What was read of it already.
        leftover: BytesMut,
    },
    /// It failed.
    Failed(FailedView),
}

/// Asks the daemon for a stream.
pub(super) async fn open(mut stream: UnixStream, request: OpenRequest) -> Result<OpenAnswer, SocketError> {
    let mut leftover = BytesMut::new();
    let text = Line::text(ApiRequest::Open(request)).map_err(unwritten)?;
    match talk(&mut stream, &mut leftover, &text).await? {
        Ok(view) => Ok(OpenAnswer::Opened { view, stream, leftover }),
        Err(failed) => Ok(OpenAnswer::Failed(failed)),
    }
}

/// Asks the daemon for a stream, with what it is to begin with.
///
/// # Errors
/// [`SocketError::Late`] if the daemon may have passed that on: then it must not be sent another way. With any other error
/// it has not, and will not.
pub(super) async fn open_and_run(
    mut stream: UnixStream,
    request: OpenRequest,
    first: &[u8],
) -> Result<OpenAnswer, SocketError> {
    let mut leftover = BytesMut::new();
    let mut text = Line::text(ApiRequest::OpenAndRun(request)).map_err(unwritten)?;
    text.extend_from_slice(first);
    match talk(&mut stream, &mut leftover, &text).await {
        Ok(Ok(view)) => Ok(OpenAnswer::Opened { view, stream, leftover }),
        Ok(Err(failed)) => Ok(OpenAnswer::Failed(failed)),
        Err(error) => Err(if withdraw(stream, &leftover) { error } else { SocketError::Late }),
    }
}

/// Takes back what the daemon has not acted on: it says that a stream is open before it passes anything on, and from here
/// on it cannot say that any more. `false` if it has said so.
fn withdraw(stream: UnixStream, read: &[u8]) -> bool {
    // Elsewhere what is there already may be gone by that, and with it the answer.
    if !cfg!(target_os = "linux") {
        return false;
    }
    let Ok(mut stream) = stream.into_std() else { return false };
    if stream.shutdown(std::net::Shutdown::Read).is_err() {
        // Nobody is at the other end.
        return true;
    }
    let mut said = read.to_vec();
    // What is there already is read to its end; it does not wait.
    _ = io::Read::read_to_end(&mut stream, &mut said);
    said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).all(is_not_opened)
}

/// Whether a reply certainly says something else than that a stream is open. In every schema that is what `opened` means.
fn is_not_opened(line: &[u8]) -> bool {
    let line = serde_json::from_slice::<serde_json::Value>(line);
    line.is_ok_and(|line| line["reply"].as_str().is_some_and(|reply| reply != "opened"))
}

fn unwritten(error: serde_json::Error) -> SocketError {
    SocketError::Unanswered(error.into())
}

/// Asks, and waits until the stream is open or failed.
async fn talk(
    stream: &mut UnixStream,
    leftover: &mut BytesMut,
    text: &[u8],
) -> Result<Result<OpenedView, FailedView>, SocketError> {
    in_time(SILENCE, stream.write_all(text)).await?;
    loop {
        let mut line = in_time(SILENCE, read_line(stream, leftover)).await?;
        let reply = parse_reply(&line).inspect_err(|_| {
            line.unsplit(std::mem::take(leftover));
            *leftover = std::mem::take(&mut line);
        });
        match reply? {
            ApiReply::Opening {} => {}
            ApiReply::Opened(view) => return Ok(Ok(view)),
            ApiReply::Failed(failed) => return Ok(Err(failed)),
            other => {
                tracing::debug!(?other, "an answer to something else");
                let error = <serde_json::Error as serde::de::Error>::custom("an answer to something else");
                return Err(SocketError::Unreadable(error));
            }
        }
    }
}

fn parse_reply(line: &[u8]) -> Result<ApiReply, SocketError> {
    Line::parse(line).map_err(|problem| match problem {
        LineProblem::Newer(schema) => SocketError::Newer { schema },
        LineProblem::Unreadable(error) => SocketError::Unreadable(error),
    })
}

async fn in_time<T>(within: Duration, work: impl Future<Output = io::Result<T>>) -> Result<T, SocketError> {
    match tokio::time::timeout(within, work).await {
        Ok(done) => done.map_err(SocketError::Unanswered),
        Err(_) => Err(SocketError::Unanswered(io::Error::from(io::ErrorKind::TimedOut))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certainly_no_open_stream_lets_a_request_be_sent_another_way() {
        for line in [&br#"{"schema":1,"reply":"opening"}"#[..], br#"{"schema":99,"reply":"something-later"}"#]
        {
            assert!(is_not_opened(line));
        }
        for line in [
            &br#"{"schema":1,"reply":"opened","argv":[]}"#[..],
            br#"{"schema":99,"reply":"opened"}"#,
            b"{}",
            b"{\"sch",
        ] {
            assert!(!is_not_opened(line));
        }
    }

    #[tokio::test]
    async fn what_was_not_acted_on_is_taken_back_and_what_was_is_not() {
        for said in
            [&b""[..], b"{\"schema\":1,\"reply\":\"opening\"}\n", b"{\"schema\":1,\"reply\":\"opened\"}\n"]
        {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            assert_eq!(theirs.try_write(said).expect("is written"), said.len());
            let taken_back = withdraw(ours, b"");
            assert_eq!(taken_back, cfg!(target_os = "linux") && !said.ends_with(b"opened\"}\n"));
            // Whoever wakes up now cannot say that it goes on.
            assert!(theirs.try_write(b"opened").is_err());
        }
    }
}
