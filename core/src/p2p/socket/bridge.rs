//! Carries a stream between a peer and a process of this device, without looking into it.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::{Answers, Loss, Socket, SocketRecv, SocketSend};
use crate::p2p::connection::Connection;
use crate::p2p::error::{P2pError, stream_code};
use crate::p2p::raw::{RawEnd, RawRecv, RawSend};
use crate::p2p::stream::Stream;
use crate::task::Scope;
use crate::timeouts;

/// What is read at once.
const BLOCK: usize = 256 * 1024;
/// The read buffer's first size: most streams are short exchanges.
const FIRST_BLOCK: usize = 8 * 1024;

/// How a bridge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeEnd {
    /// Both directions ended.
    Complete,
    /// The process on the socket is gone, and the peer was told so.
    ProcessGone,
    /// The connection to the peer ended, and the process was told so.
    PeerLost,
    /// It was cancelled, and both sides were told so.
    Cancelled,
}

/// What one direction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Done,
    /// Where the bytes come from, or where they go, is gone.
    Lost,
}

/// Carries a fresh stream's bytes to and from a socket until both directions have ended. On the other end of the
/// socket is [`Stream::over_socket`]; `leftover` is what was read of the socket beyond what came before.
///
/// A process that dies ends the stream as a cancelled one; a connection that is lost is told to the process with
/// its reason. The stream is read only as fast as the process reads: how much may be outstanding, the two ends'
/// credit decides.
///
/// # Errors
/// When the stream is not fresh, or its connection has ended already.
///
/// # Cancel safety
/// A dropped bridge ends both sides without a word; `cancel` is the better way.
pub async fn bridge(
    stream: Stream,
    socket: UnixStream,
    leftover: BytesMut,
    cancel: CancellationToken,
    scope: &Scope,
) -> Result<BridgeEnd, P2pError> {
    let socket = Socket::new(socket, leftover, scope.clone(), Answers::WhenTold)
        .map_err(|error| P2pError::lost(format!("the process on the socket: {error}")))?;
    let mut to_process = SocketSend(socket.clone());
    let from_process = SocketRecv(socket);
    let fresh = match stream.into_raw() {
        Ok(fresh) => fresh,
        Err(error) => {
            to_process.lose(Loss { code: error.code(), reason: reason_of(&error), resumable: false });
            return Err(error);
        }
    };
    let connection = fresh.connection;
    let (mut to_peer, mut from_peer) = (fresh.send, fresh.recv);
    let mut first = fresh.framed;
    let outcome = {
        let mut to_process = RawSend::Socket(to_process);
        let mut from_process = RawRecv::Socket(from_process);
        let outcome = {
            let up = async {
                if !first.is_empty() {
                    // Whoever opened the stream wrote before it gave it away.
                    let written = std::future::poll_fn(|cx| to_peer.poll_write(cx, &mut first)).await;
                    if let Err(end) = written {
                        return ended(end, |code| from_process.stop(code));
                    }
                }
                let way = carry(&mut from_process, &mut to_peer).await;
                if way == Way::Done
                    && let RawRecv::Socket(recv) = &from_process
                {
                    recv.acknowledge();
                }
                way
            };
            let down = carry(&mut from_peer, &mut to_process);
            let both = async {
                let (mut up, mut down) = (pin!(up), pin!(down));
                // Whatever loses its side ends the other direction too.
                tokio::select! {
                    way = &mut up => if way == Way::Done { down.await } else { way },
                    way = &mut down => if way == Way::Done { up.await } else { way },
                }
            };
            tokio::select! {
                biased;
                way = both => Some(way),
                () = cancel.cancelled() => None,
            }
        };
        match outcome {
            Some(Way::Done) => BridgeEnd::Complete,
            Some(Way::Lost) if connection.is_closed() => {
                tell(&mut to_process, &connection);
                BridgeEnd::PeerLost
            }
            Some(Way::Lost) => {
                to_peer.reset(stream_code::CANCELLED);
                from_peer.stop(stream_code::CANCELLED);
                BridgeEnd::ProcessGone
            }
            None => {
                // What can go on does so over another connection of the process; the rest ends.
                to_peer.reset(stream_code::MOVED);
                if let RawSend::Socket(send) = &mut to_process {
                    let reason = "the daemon of this device stops".to_owned();
                    let code = malai_model::code::ErrorCode::PeerLost;
                    send.lose(Loss { code, reason, resumable: true });
                }
                // Whoever cancels closes the connection next, and that overtakes what is still to be sent: then the peer
                // would take it for a hang-up. A peer that puts the stream down ends its own direction.
                _ = tokio::time::timeout(timeouts::LAST_WORD, discard(&mut from_peer)).await;
                from_peer.stop(stream_code::MOVED);
                BridgeEnd::Cancelled
            }
        }
    };
    Ok(outcome)
}

/// Tells the process why the connection ended.
fn tell(to_process: &mut RawSend, connection: &Connection) {
    let error = connection.failure();
    if let RawSend::Socket(send) = to_process {
        let resumable = connection.is_lost();
        send.lose(Loss { code: error.code(), reason: reason_of(&error), resumable });
    }
}

fn reason_of(error: &P2pError) -> String {
    match error {
        P2pError::Lost { reason } => reason.clone(),
        other => other.to_string(),
    }
}

/// Throws away what comes until nothing does any more.
async fn discard(from: &mut RawRecv) {
    let mut buffer = BytesMut::with_capacity(FIRST_BLOCK);
    while let Ok(1..) = std::future::poll_fn(|cx| from.poll_read(cx, &mut buffer)).await {
        buffer.clear();
    }
}

/// Carries one direction to its end.
async fn carry(from: &mut RawRecv, to: &mut RawSend) -> Way {
    let mut block = FIRST_BLOCK;
    let mut buffer = BytesMut::new();
    let mut out: Vec<Bytes> = Vec::with_capacity(1);
    let mut given_up = to.acknowledged();
    loop {
        if buffer.capacity() < block / 2 {
            buffer.reserve(block);
        }
        let room = buffer.capacity();
        let read = tokio::select! {
            biased;
            read = std::future::poll_fn(|cx| from.poll_read(cx, &mut buffer)) => read,
            told = &mut given_up => return match told {
                Ok(()) => Way::Done,
                Err(end) => ended(end, |code| from.stop(code)),
            },
        };
        match read {
            Ok(0) => {
                to.finish();
                return match given_up.await {
                    Ok(()) | Err(RawEnd::Code(_)) => Way::Done,
                    Err(RawEnd::Lost) => Way::Lost,
                };
            }
            Ok(count) => {
                if count == room {
                    block = BLOCK;
                }
                out.push(buffer.split().freeze());
                let write = std::future::poll_fn(|cx| to.poll_write(cx, &mut out));
                if let Err(end) = write.await {
                    return ended(end, |code| from.stop(code));
                }
            }
            Err(end) => return ended(end, |code| to.reset(code)),
        }
    }
}

fn ended(end: RawEnd, pass_on: impl FnOnce(u32)) -> Way {
    match end {
        RawEnd::Code(code) => {
            pass_on(code);
            Way::Done
        }
        RawEnd::Lost => Way::Lost,
    }
}
