//! One stream over a Unix socket: between a command line and the daemon that carries its stream on, and from a
//! device to itself.
//!
//! A socket has neither reset nor stop codes nor a reason for its end, so bytes travel in chunks: a length (4
//! bytes, big endian) and so many bytes; the length 0 announces a [`Control`]: a length again and so much JSON.

mod bridge;
mod input;
mod output;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::{Bytes, BytesMut};
use malai_model::code::ErrorCode;
use malai_model::id::Id52;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

pub use bridge::{BridgeEnd, bridge};
use input::Input;
use output::Output;

use super::connection::{CloseReason, Connection, Counters, Link, PathView};
use super::error::{CLOSE_NORMAL, P2pError};
use super::options::Protocol;
use super::raw::{Boxed, RawEnd, RawRecv, RawSend};
use super::stream::Stream;
use crate::task::Scope;
use crate::two_way::UnixSocket;

/// What is said beside the bytes. What a later version may say more is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Control {
    /// Nothing more comes in this direction, and it was all.
    Finish {},
    /// Nothing more comes in this direction, and it was not all.
    Reset { code: u32 },
    /// No more is wanted of the other direction.
    Stop { code: u32 },
    /// What was finished has reached the peer.
    Acknowledged {},
    /// The connection behind is gone.
    Lost(Loss),
    #[serde(other)]
    Later,
}

/// Why the connection behind a socket ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Loss {
    code: ErrorCode,
    reason: String,
    /// Whether nobody wanted it, so that the stream may go on over another connection.
    #[serde(default)]
    resumable: bool,
}

/// A socket, common to the two halves of its stream and to its connection.
struct Socket {
    stream: UnixSocket,
    scope: Scope,
    /// Whether the peer is told at once that everything of it came; in a bridge it is told when its peer has it.
    answers: Answers,
    input: Mutex<Input>,
    output: Mutex<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    AtOnce,
    WhenTold,
}

/// The connection of a stream over a socket.
#[derive(Debug)]
pub(super) struct SocketLink {
    socket: Arc<Socket>,
    path: PathView,
}

/// The sending half.
#[derive(Debug)]
pub(super) struct SocketSend(Arc<Socket>);

/// The receiving half.
#[derive(Debug)]
pub(super) struct SocketRecv(Arc<Socket>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Socket {
    fn new(
        stream: UnixStream,
        leftover: BytesMut,
        scope: Scope,
        answers: Answers,
    ) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            stream: UnixSocket::from_tokio(stream)?,
            scope,
            answers,
            input: Mutex::new(Input::new(leftover)),
            output: Mutex::new(Output::default()),
        }))
    }

    /// Resolves when the peer has acknowledged everything, wants no more, or is gone. Once nothing more comes in
    /// the other direction, this reads what is said beside.
    fn acknowledged(self: &Arc<Self>) -> Boxed<Result<(), RawEnd>> {
        let socket = self.clone();
        Box::pin(std::future::poll_fn(move |cx| {
            let mut input = lock(&socket.input);
            loop {
                if let Some(end) = input.told() {
                    return Poll::Ready(end);
                }
                if !input.is_over() {
                    input.wait(cx);
                    return Poll::Pending;
                }
                if input.poll_beside(&socket, cx).is_pending() {
                    return Poll::Pending;
                }
            }
        }))
    }
}

impl SocketLink {
    pub(super) fn path(&self) -> PathView {
        self.path.clone()
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        let input = lock(&self.socket.input);
        input.loss().map(|loss| CloseReason { code: CLOSE_NORMAL, text: loss.reason.clone() })
    }

    pub(super) async fn closed(&self) -> CloseReason {
        std::future::poll_fn(|cx| {
            if let Some(reason) = self.close_reason() {
                return Poll::Ready(reason);
            }
            lock(&self.socket.input).wait(cx);
            Poll::Pending
        })
        .await
    }

    /// Gives the stream up on this side; the other one sees the socket's end.
    pub(super) fn close(&self, reason: &CloseReason) {
        lock(&self.socket.output).close();
        lock(&self.socket.input).lose(Loss {
            code: ErrorCode::PeerLost,
            reason: reason.text.clone(),
            resumable: false,
        });
    }

    /// Why the stream failed, in the words of the side that saw it.
    pub(super) fn failure(&self, peer: Id52) -> P2pError {
        match lock(&self.socket.input).loss() {
            None => P2pError::lost("its streams ended"),
            Some(Loss { code: ErrorCode::PeerNotAdmitted, .. }) => P2pError::NotAdmitted { peer },
            Some(Loss { code: ErrorCode::PeerIncompatible, .. }) => P2pError::Incompatible { peer },
            Some(loss) => P2pError::lost(loss.reason.clone()),
        }
    }

    /// Whether nobody wanted its end.
    pub(super) fn is_lost(&self) -> bool {
        lock(&self.socket.input).loss().is_some_and(|loss| loss.resumable)
    }
}

/// Bytes as they travel in a socket.
#[cfg(feature = "daemon")]
pub(crate) fn chunk(bytes: &[u8]) -> Bytes {
    let mut chunk = BytesMut::with_capacity(4 + bytes.len());
    chunk.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    chunk.extend_from_slice(bytes);
    chunk.freeze()
}

impl Stream {
    /// Makes the stream that the other end of a socket carries on to `peer`. `leftover` is what was read of the
    /// socket beyond what came before the stream; `path` is what is known of the way behind.
    ///
    /// The identity of the peer is the other end's word: it has to be a process that is trusted with it.
    ///
    /// # Errors
    /// When the system cannot wait for the socket.
    pub fn over_socket(
        socket: UnixStream,
        leftover: BytesMut,
        peer: Id52,
        path: PathView,
        scope: &Scope,
    ) -> std::io::Result<Self> {
        Self::over_socket_after(Bytes::new(), socket, leftover, peer, path, scope)
    }

    /// As [`Self::over_socket`], where the stream's first bytes were written already, as one [`chunk`].
    pub(crate) fn over_socket_after(
        first: Bytes,
        socket: UnixStream,
        leftover: BytesMut,
        peer: Id52,
        path: PathView,
        scope: &Scope,
    ) -> std::io::Result<Self> {
        let socket = Socket::new(socket, leftover, scope.clone(), Answers::AtOnce)?;
        lock(&socket.output).ahead = first;
        let (send, recv) =
            (RawSend::Socket(SocketSend(socket.clone())), RawRecv::Socket(SocketRecv(socket.clone())));
        let link = Link::Socket(SocketLink { socket, path });
        let connection =
            Connection::new(link, peer, Protocol::Member, scope.clone(), Arc::<Counters>::default());
        Ok(Self::new(connection, send, recv))
    }

    /// Makes the two ends of a stream within this process: the first one is `a`'s to `b`, the second `b`'s to `a`.
    /// So a device reaches itself as it reaches others.
    ///
    /// # Errors
    /// When the system gives no socket.
    pub fn pair(scope: &Scope, a: Id52, b: Id52) -> std::io::Result<(Self, Self)> {
        let (left, right) = UnixStream::pair()?;
        let path = PathView::here();
        Ok((
            Self::over_socket(left, BytesMut::new(), b, path.clone(), scope)?,
            Self::over_socket(right, BytesMut::new(), a, path, scope)?,
        ))
    }
}

/// Wakes all, once.
fn wake(wakers: &mut Vec<Waker>) {
    wakers.drain(..).for_each(Waker::wake);
}
