//! A socket for two tasks: one reads, one writes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{UnixSocket, left_behind};

impl UnixSocket {
    /// Reads into the free part of a buffer.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, |mut stream| {
            let count = io::Read::read(&mut stream, buffer)?;
            Ok((count, left_behind(count, buffer.len())))
        })
    }

    /// Takes it apart for two tasks.
    pub(crate) fn halves(self) -> (ReadHalf, WriteHalf) {
        let both = Arc::new(self);
        (ReadHalf(Arc::clone(&both)), WriteHalf(both))
    }
}

/// The receiving half of a socket.
#[derive(Debug)]
pub(crate) struct ReadHalf(pub(super) Arc<UnixSocket>);

/// The sending half of a socket. Dropping it tells the other end that nothing more comes.
#[derive(Debug)]
pub(crate) struct WriteHalf(pub(super) Arc<UnixSocket>);

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = ready!(self.0.poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.file().shutdown(std::net::Shutdown::Write))
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        // If the other end is gone there is nobody to tell.
        _ = self.0.file().shutdown(std::net::Shutdown::Write);
    }
}
