//! The credited stream: messages and two flows of bytes over one QUIC stream, each with credit of its own.
//!
//! Why not the QUIC stream as it is: a QUIC stack keeps a list of the unread pieces of a stream and gives the
//! *whole connection* up when the list grows too long, which a reader that pauses on many small writes brings
//! about. So the sender needs credit that charges small frames dearly, the receiver takes everything out of
//! the QUIC stream as it comes, and whoever sends without credit loses that stream alone. See
//! `malai_model::wire::frame`.
//!
//! How it runs: no task at first. A short exchange (one message each way) is written and read by its callers.
//! As soon as more comes than one item, or a write must wait, a *driver* task takes over: it always reads,
//! and writes what is left.
//!
//! Lock order: `reader`, then `queue`, then `out`, then `connection`.

mod credit;
mod detach;
mod lane;
mod outgoing;
mod reader;
mod receiver;
mod resume;
mod sender;
mod suspended;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use malai_model::wire::frame::Lane;

use super::connection::{Connection, InUse};
use super::error::P2pError;
use super::raw::{RawEnd, RawRecv, RawSend};
#[cfg(test)]
pub(super) use detach::RawHalves;
use outgoing::Outgoing;
use reader::{Queue, Reader};
pub use receiver::{Incoming, StreamReceiver};
pub use resume::ResumeHandle;
pub(super) use resume::refuse;
pub use sender::StreamSender;
#[cfg(all(feature = "daemon", unix))]
pub(crate) use sender::first_frame;

/// Reads between two yields of the driver, so that one busy stream does not hold a worker.
const READS_A_TURN: usize = 16;

/// A flow of bytes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// stdin, stdout, a tunnel, a config's text.
    Main,
    /// stderr.
    Stderr,
}

impl Channel {
    fn lane(self) -> Lane {
        match self {
            Self::Main => Lane::Main,
            Self::Stderr => Lane::Stderr,
        }
    }
}

/// A stream of a connection: its two halves may go to different tasks.
#[derive(Debug)]
pub struct Stream {
    /// Sends.
    pub sender: StreamSender,
    /// Receives.
    pub receiver: StreamReceiver,
}

/// What the two halves and the driver share.
#[derive(Debug)]
struct Shared {
    /// Another one after the stream was resumed.
    connection: Mutex<InUse>,
    reader: Mutex<Reader>,
    queue: Mutex<Queue>,
    out: Mutex<Outgoing>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held ended one task; the state is consistent between statements that matter.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    pub(super) fn new(connection: Connection, send: RawSend, recv: RawRecv) -> Self {
        let shared = Arc::new(Shared {
            connection: Mutex::new(connection.enter()),
            reader: Mutex::new(Reader::new(recv)),
            queue: Mutex::new(Queue::new()),
            out: Mutex::new(Outgoing::new(send)),
        });
        Self { sender: StreamSender::new(shared.clone()), receiver: StreamReceiver::new(shared) }
    }
}

impl Stream {
    /// What the stream travels on, without keeping it open.
    pub(crate) fn weak_connection(&self) -> super::WeakConnection {
        lock(&self.sender.shared.connection).downgrade()
    }

    /// How its bytes travel now; `None` where this process does not know.
    pub fn path(&self) -> Option<super::PathView> {
        Some(self.sender.path())
    }
}

impl Shared {
    fn failure(&self, end: RawEnd) -> P2pError {
        match end {
            RawEnd::Code(code) => P2pError::StreamReset { code },
            RawEnd::Lost => self.connection().failure(),
        }
    }

    fn connection(&self) -> Connection {
        Connection::clone(&lock(&self.connection))
    }

    fn set_connection(&self, connection: InUse) {
        *lock(&self.connection) = connection;
    }

    /// Hands what is framed to the transport, and starts the driver if it does not take all of it.
    fn flush(self: &Arc<Self>, out: &mut Outgoing) {
        if let Err(end) = out.flush() {
            let failure = self.failure(end);
            out.fail(failure);
        }
        if out.needs_driver() {
            self.drive(out);
        }
    }

    /// Starts the driver unless it runs.
    fn drive(self: &Arc<Self>, out: &mut Outgoing) {
        if out.driven {
            return;
        }
        out.driven = true;
        let shared = self.clone();
        self.connection().scope().spawn("stream", std::future::poll_fn(move |cx| shared.poll_drive(cx)));
    }

    fn poll_drive(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut reader = lock(&self.reader);
        {
            let mut out = lock(&self.out);
            out.driver = Some(cx.waker().clone());
            self.flush(&mut out);
        }
        reader.driven = true;
        let mut turns = 0;
        while !reader.done {
            if turns == READS_A_TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            turns += 1;
            if self.poll_read(&mut reader, cx).is_pending() {
                break;
            }
        }
        let mut out = lock(&self.out);
        let abandoned = out.sender_gone && out.receiver_gone;
        if out.is_flushed() && (reader.done || abandoned) {
            out.driver = None;
            out.driven = false;
            reader.driven = false;
            if abandoned && !reader.done {
                reader.stop(super::stream_code::CANCELLED);
            }
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// Tasks that wait for the same thing; few, so all are woken.
#[derive(Debug, Default)]
struct Wakers(Vec<Waker>);

impl Wakers {
    fn register(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }

    fn wake(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}
