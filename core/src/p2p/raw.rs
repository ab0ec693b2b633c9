//! The bytes under the credited stream: a QUIC stream, one over a socket, or one in memory.

use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use iroh::endpoint::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::AsyncReadExt;

#[cfg(any(test, feature = "testing"))]
use super::memory;
#[cfg(unix)]
use super::socket::{SocketRecv, SocketSend};

/// Why raw bytes do not flow any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RawEnd {
    /// The peer stopped or reset this stream with a code.
    Code(u32),
    /// The connection is gone; it knows why.
    Lost,
}

/// The sending half.
#[derive(Debug)]
pub(super) enum RawSend {
    Quic(SendStream),
    #[cfg(unix)]
    Socket(SocketSend),
    /// None: nothing flows until there is another.
    Detached,
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::PipeSend),
}

/// The receiving half.
#[derive(Debug)]
pub(super) enum RawRecv {
    Quic(RecvStream),
    #[cfg(unix)]
    Socket(SocketRecv),
    /// None: nothing flows until there is another.
    Detached,
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::PipeRecv),
}

impl RawSend {
    /// Writes from the front of `out` until all is written. What is written is taken out of `out` at once, so
    /// that giving up in between loses nothing and repeats nothing.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<Bytes>,
    ) -> Poll<Result<(), RawEnd>> {
        while !out.is_empty() {
            match self {
                Self::Quic(stream) => {
                    let total = out.len();
                    let mut rest = out.as_mut_slice();
                    let poll = pin!(stream.write_many_chunks(&mut rest)).poll(cx);
                    let left = rest.len();
                    out.drain(..total - left);
                    match poll {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(WriteError::Stopped(code))) => {
                            return Poll::Ready(Err(RawEnd::Code(narrow(code))));
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(RawEnd::Lost)),
                    }
                }
                #[cfg(unix)]
                Self::Socket(socket) => return socket.poll_write(cx, out),
                Self::Detached => return Poll::Pending,
                #[cfg(any(test, feature = "testing"))]
                Self::Memory(pipe) => match pipe.poll_write(cx, &mut out[0]) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                    Poll::Ready(Ok(())) => {
                        if out[0].is_empty() {
                            out.remove(0);
                        }
                    }
                },
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more comes. Without effect after a reset.
    pub(super) fn finish(&mut self) {
        match self {
            Self::Quic(stream) => {
                // It fails only if the stream is closed already, which is what is wanted.
                let _closed = stream.finish();
            }
            #[cfg(unix)]
            Self::Socket(socket) => socket.finish(),
            Self::Detached => {}
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(pipe) => pipe.finish(),
        }
    }

    /// Drops what is not delivered yet and tells the peer.
    pub(super) fn reset(&mut self, code: u32) {
        match self {
            Self::Quic(stream) => {
                let _closed = stream.reset(VarInt::from_u32(code));
            }
            #[cfg(unix)]
            Self::Socket(socket) => socket.reset(code),
            Self::Detached => {}
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(pipe) => pipe.reset(code),
        }
    }

    /// Resolves when the peer's transport has everything (`Ok`, only after `finish`), or wants no more, or is
    /// gone.
    pub(super) fn acknowledged(&self) -> Boxed<Result<(), RawEnd>> {
        match self {
            Self::Quic(stream) => {
                let stopped = stream.stopped();
                Box::pin(async move {
                    match stopped.await {
                        Ok(None) => Ok(()),
                        Ok(Some(code)) => Err(RawEnd::Code(narrow(code))),
                        Err(_) => Err(RawEnd::Lost),
                    }
                })
            }
            #[cfg(unix)]
            Self::Socket(socket) => socket.acknowledged(),
            // Whoever finished it knew that the peer has everything.
            Self::Detached => Box::pin(std::future::ready(Ok(()))),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(pipe) => Box::pin(pipe.acknowledged()),
        }
    }
}

impl RawSend {
    /// Says whether word of the acknowledgement comes with the bytes of the other direction: somebody has to read
    /// them.
    pub(super) fn acknowledges_by_reading(&self) -> bool {
        #[cfg(unix)]
        if let Self::Socket(_) = self {
            return true;
        }
        false
    }
}

impl RawRecv {
    /// Appends what has arrived to `buffer`, as much as its spare capacity holds; `Ok(0)` at the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<Result<usize, RawEnd>> {
        match self {
            Self::Quic(stream) => pin!(stream.read_buf(buffer)).poll(cx).map_err(|error| {
                match error.get_ref().and_then(|error| error.downcast_ref::<ReadError>()) {
                    Some(ReadError::Reset(code)) => RawEnd::Code(narrow(*code)),
                    _ => RawEnd::Lost,
                }
            }),
            #[cfg(unix)]
            Self::Socket(socket) => socket.poll_read(cx, buffer),
            Self::Detached => Poll::Pending,
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(pipe) => pipe.poll_read(cx, buffer),
        }
    }

    /// Tells the peer to send no more.
    pub(super) fn stop(&mut self, code: u32) {
        match self {
            Self::Quic(stream) => {
                let _closed = stream.stop(VarInt::from_u32(code));
            }
            #[cfg(unix)]
            Self::Socket(socket) => socket.stop(code),
            Self::Detached => {}
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(pipe) => pipe.stop(code),
        }
    }
}

fn narrow(code: VarInt) -> u32 {
    u32::try_from(code.into_inner()).unwrap_or(u32::MAX)
}

/// A future of no particular type.
pub(super) type Boxed<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;
