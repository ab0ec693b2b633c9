//! What waits to be written to one client of a session.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::protocol::{FromHost, MAX_FRAME, data_head, encode};

/// Frames for one client, in their order. The session puts them in and never waits; a task of the client writes them.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
    /// Told whenever something was written: all of a session's clients share it.
    written: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// The length of the frame that is being written: it is not among the others.
    being_written: usize,
    closed: bool,
}

impl Outbox {
    pub(super) fn new(written: Arc<Notify>) -> Self {
        Self { shared: Arc::new(Shared { queue: Mutex::default(), filled: Notify::new(), written }) }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, frame: Bytes) {
        let mut queue = self.queue();
        if queue.closed {
            return;
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// Says something.
    pub(super) fn say(&self, message: &FromHost) {
        match encode(message) {
            Ok(frame) => self.push(frame.into()),
            Err(error) => tracing::warn!(%error, "a message is not sent"),
        }
    }

    /// Shows bytes.
    pub(super) fn show(&self, bytes: &[u8]) {
        for piece in bytes.chunks(MAX_FRAME) {
            let mut frame = BytesMut::with_capacity(piece.len() + 4);
            frame.extend_from_slice(&data_head(piece.len()));
            frame.extend_from_slice(piece);
            self.push(frame.freeze());
        }
    }

    /// How many bytes wait.
    pub(super) fn waiting(&self) -> usize {
        let queue = self.queue();
        queue.bytes + queue.being_written
    }

    /// Forgets what waits, but for a frame that is being written.
    pub(super) fn clear(&self) {
        let mut queue = self.queue();
        queue.frames.clear();
        queue.bytes = 0;
    }

    /// Takes nothing more; what waits is still written.
    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.shared.filled.notify_one();
    }

    /// Writes what is put in, until it is closed and empty or the client has gone.
    pub(super) async fn write_to(&self, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        loop {
            let (frame, closed) = {
                let mut queue = self.queue();
                let frame = queue.frames.pop_front();
                queue.being_written = frame.as_ref().map_or(0, Bytes::len);
                queue.bytes -= queue.being_written;
                (frame, queue.closed)
            };
            match frame {
                Some(frame) => {
                    let written = to.write_all(&frame).await;
                    let mut queue = self.queue();
                    queue.being_written = 0;
                    if queue.frames.is_empty() {
                        queue.frames.shrink_to(8);
                    }
                    drop(queue);
                    self.shared.written.notify_one();
                    written?;
                }
                None if closed => return to.shutdown().await,
                None => self.shared.filled.notified().await,
            }
        }
    }
}
