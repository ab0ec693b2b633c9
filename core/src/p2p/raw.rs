//! The bytes under the credited stream: a QUIC stream, or one in memory.

use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use iroh::endpoint::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::AsyncReadExt;

#[cfg(any(test, feature = "testing"))]
use super::memory;

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
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::PipeSend),
}

/// The receiving half.
#[derive(Debug)]
pub(super) enum RawRecv {
    Quic(RecvStream),
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
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(pipe) => pipe.reset(code),
        }
    }

    /// Resolves when the peer's transport has everything (`Ok`), or wants no more, or is gone. Only after
    /// `finish`.
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
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(pipe) => Box::pin(pipe.acknowledged()),
        }
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
