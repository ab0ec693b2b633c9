//! What goes into a socket.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Control, Loss, Socket, SocketSend, lock, wake};
use crate::p2p::raw::{Boxed, RawEnd};

/// What may wait for the socket before writers wait too, in bytes; also the largest chunk.
const QUEUE: usize = 256 * 1024;
/// Pieces in one write to the socket.
const PIECES: usize = 64;

/// What is to be written. The pieces are whole chunks and controls, but for the first, of which some is written.
#[derive(Debug, Default)]
pub(super) struct Output {
    queue: VecDeque<Bytes>,
    length: usize,
    /// A task writes the queue.
    writing: bool,
    /// Nobody reads the socket any more: what is written goes nowhere. Why, the input knows or learns.
    dead: bool,
    /// No more bytes follow.
    over: bool,
    /// The stream's first bytes, if they were written before there was a stream.
    pub(super) ahead: Bytes,
    waiting: Vec<Waker>,
}

impl Output {
    fn push(&mut self, bytes: Bytes) {
        if !self.dead {
            self.length += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    pub(super) fn say(&mut self, control: &Control) {
        let Ok(text) = serde_json::to_vec(control) else { return };
        let mut bytes = BytesMut::with_capacity(8 + text.len());
        bytes.put_u32(0);
        bytes.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        bytes.extend_from_slice(&text);
        self.push(bytes.freeze());
    }

    /// Takes bytes from the front of `out` as one chunk, as many as there is room for.
    fn take(&mut self, out: &mut Vec<Bytes>) {
        let mut room = QUEUE.saturating_sub(self.length);
        let total: usize = out.iter().map(Bytes::len).sum();
        let length = total.min(room);
        if length == 0 {
            out.retain(|bytes| !bytes.is_empty());
            return;
        }
        let head = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        self.push(Bytes::copy_from_slice(&head));
        let mut whole = 0;
        for bytes in out.iter_mut() {
            if bytes.len() > room {
                let part = bytes.split_to(room);
                if !part.is_empty() {
                    self.push(part);
                }
                break;
            }
            room -= bytes.len();
            whole += 1;
            self.push(std::mem::take(bytes));
        }
        out.drain(..whole);
    }

    /// Takes out what was written ahead. A stream that begins otherwise than was foretold ends, both ways.
    fn leave_out(&mut self, socket: &Socket, out: &mut [Bytes]) {
        if self.ahead.is_empty() {
            return;
        }
        for bytes in out {
            let length = bytes.len().min(self.ahead.len());
            if bytes.split_to(length) != self.ahead.split_to(length) {
                tracing::error!("a stream began with other bytes than were written ahead of it");
                _ = socket.stream.file().shutdown(std::net::Shutdown::Both);
                return self.close();
            }
        }
    }

    /// Writes what is queued.
    fn poll_write(&mut self, socket: &Socket, cx: &mut Context<'_>) -> Poll<()> {
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let count = self.queue.len().min(PIECES);
            for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(bytes);
            }
            match ready!(socket.stream.poll_write(cx, &slices[..count])) {
                Ok(written) => self.written(written),
                Err(error) => {
                    match error.kind() {
                        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                            tracing::debug!(%error, "nobody reads a stream's socket any more");
                        }
                        _ => {
                            tracing::warn!(%error, "a stream's socket cannot be written: the stream ends");
                            // Both ends shall hear of it, the other one by the socket's end.
                            _ = socket.stream.file().shutdown(std::net::Shutdown::Both);
                        }
                    }
                    self.close();
                }
            }
        }
        Poll::Ready(())
    }

    fn written(&mut self, mut count: usize) {
        self.length -= count;
        while let Some(front) = self.queue.front_mut() {
            if front.len() > count {
                front.advance(count);
                break;
            }
            count -= front.len();
            self.queue.pop_front();
        }
        if self.length < QUEUE {
            wake(&mut self.waiting);
        }
    }

    /// Writes nothing any more.
    pub(super) fn close(&mut self) {
        self.dead = true;
        self.queue.clear();
        self.length = 0;
        wake(&mut self.waiting);
    }
}

impl Socket {
    /// Writes what is queued; what the socket does not take now, a task writes.
    pub(super) fn flush(self: &Arc<Self>) {
        let mut output = lock(&self.output);
        // Whoever waits for room is the task, not this caller.
        let mut nobody = Context::from_waker(Waker::noop());
        if output.writing || output.poll_write(self, &mut nobody).is_ready() {
            return;
        }
        output.writing = true;
        let socket = self.clone();
        self.scope.spawn(
            "socket",
            poll_fn(move |cx| {
                let mut output = lock(&socket.output);
                ready!(output.poll_write(&socket, cx));
                output.writing = false;
                Poll::Ready(())
            }),
        );
    }
}

impl SocketSend {
    pub(in crate::p2p) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<Bytes>,
    ) -> Poll<Result<(), RawEnd>> {
        {
            let input = lock(&self.0.input);
            if let Some(code) = input.stopped() {
                return Poll::Ready(Err(RawEnd::Code(code)));
            }
            if input.loss().is_some() {
                return Poll::Ready(Err(RawEnd::Lost));
            }
        }
        loop {
            {
                let mut output = lock(&self.0.output);
                if output.dead {
                    // The reader is about to learn why: its reason is the better one.
                    out.clear();
                }
                output.leave_out(&self.0, out);
                output.take(out);
                if !out.is_empty() && output.writing {
                    drop(output);
                    lock(&self.0.input).wait(cx);
                    output = lock(&self.0.output);
                    if !output.writing {
                        continue;
                    }
                    if !output.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                        output.waiting.push(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
            self.0.flush();
            if out.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    pub(in crate::p2p) fn finish(&mut self) {
        self.end(&Control::Finish {});
    }

    pub(in crate::p2p) fn reset(&mut self, code: u32) {
        self.end(&Control::Reset { code });
    }

    fn end(&mut self, control: &Control) {
        {
            let mut output = lock(&self.0.output);
            if output.over {
                return;
            }
            output.over = true;
            output.say(control);
        }
        self.0.flush();
    }

    /// Says that the connection behind is gone; nothing follows.
    pub(super) fn lose(&mut self, loss: Loss) {
        self.end(&Control::Lost(loss));
    }

    pub(in crate::p2p) fn acknowledged(&self) -> Boxed<Result<(), RawEnd>> {
        self.0.acknowledged()
    }
}

impl Drop for SocketSend {
    fn drop(&mut self) {
        // As in QUIC: what was written is still delivered.
        self.finish();
    }
}
