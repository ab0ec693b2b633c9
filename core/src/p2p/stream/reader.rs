//! What a stream receives: frames out of raw bytes, checked against the credit, into a queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use malai_model::wire::LaneState;
use malai_model::wire::frame::{self, Head, Lane, charge};

use super::credit::{Breach, Grant, ReceiveCredit};
use super::resume::Granted;
use super::{Shared, lock};
use crate::p2p::error::{P2pError, stream_code};
use crate::p2p::raw::{RawEnd, RawRecv};

/// The read buffer's first size: a short exchange needs no more.
const FIRST_BLOCK: usize = 4 * 1024;
/// Its size while bytes stream: large reads are what makes bulk fast.
const LARGE_BLOCK: usize = 128 * 1024;
/// A piece from this size on is passed on as a slice of the read buffer; a smaller one is copied, since a
/// slice of a few bytes would keep a whole block in memory.
const SLICED: usize = 16 * 1024;
/// The round trip is looked up again after so many items.
const RTT_EVERY: u32 = 256;

/// Turns raw bytes into queue items.
#[derive(Debug)]
pub(super) struct Reader {
    raw: RawRecv,
    buffer: BytesMut,
    block: usize,
    body: Option<Body>,
    /// Bytes of an ignored frame that are still to come.
    skip: usize,
    /// Nothing more is to be read.
    pub(super) done: bool,
    /// The driver reads; nobody else may.
    pub(super) driven: bool,
    /// The peer was asked to go on with the stream here, and has to answer before anything else.
    pub(super) awaiting: bool,
    /// It answered that it does not.
    refused: Option<u32>,
}

/// The frame of data whose bytes are coming in.
#[derive(Debug, Clone, Copy)]
struct Body {
    lane: Lane,
    left: usize,
    /// What its next piece must account for beyond its own bytes: the padding of a small frame.
    padding: u64,
}

/// What has come and was not taken yet.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) items: VecDeque<Item>,
    credits: [ReceiveCredit; 3],
    ended: [bool; 3],
    failed: Option<P2pError>,
    /// Whoever took items is gone: what comes is dropped, without credit.
    pub(super) discarding: bool,
    /// Items taken.
    pub(super) taken: u32,
    pub(super) waiting: Option<Waker>,
    rtt: Duration,
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) lane: Lane,
    pub(super) kind: Kind,
    charge: u64,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A message, or a piece of data.
    Bytes(BytesMut),
    End,
}

/// Why a stream is given up, in words for the log.
pub(super) struct Violation {
    code: u32,
    reason: String,
}

impl Violation {
    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self { code: stream_code::MALFORMED, reason: reason.into() }
    }
}

impl Reader {
    pub(super) fn new(raw: RawRecv) -> Self {
        Self {
            raw,
            buffer: BytesMut::new(),
            block: FIRST_BLOCK,
            body: None,
            skip: 0,
            done: false,
            driven: false,
            awaiting: false,
            refused: None,
        }
    }

    /// Says whether nothing was read beyond the last whole frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.body.is_none() && self.skip == 0 && self.buffer.is_empty()
    }

    /// Gives the raw half away and ends.
    pub(super) fn detach(&mut self) -> RawRecv {
        self.done = true;
        std::mem::replace(&mut self.raw, RawRecv::Detached)
    }

    /// Puts the raw half down: what came in part is taken back, and comes again.
    pub(super) fn put_down(&mut self, queue: &mut Queue) {
        if let Some(Body { lane, left, padding }) = self.body.take() {
            queue.credits[lane.index()].cut(left, padding);
        }
        self.skip = 0;
        self.buffer = BytesMut::new();
        self.block = FIRST_BLOCK;
        self.awaiting = false;
        self.raw.stop(stream_code::MOVED);
        self.raw = RawRecv::Detached;
    }

    #[cfg(test)]
    pub(super) fn lose_raw_for_test(&mut self) {
        std::mem::forget(std::mem::replace(&mut self.raw, RawRecv::Detached));
    }

    /// Takes another raw half up.
    pub(super) fn take_up(&mut self, raw: RawRecv) {
        self.raw = raw;
    }

    pub(super) fn stop(&mut self, code: u32) {
        self.raw.stop(code);
        self.done = true;
        self.buffer = BytesMut::new();
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            items: VecDeque::new(),
            credits: Lane::ALL.map(ReceiveCredit::new),
            ended: [false; 3],
            failed: None,
            discarding: false,
            taken: 0,
            waiting: None,
            rtt: Duration::ZERO,
        }
    }

    pub(super) fn is_ended(&self, lane: Lane) -> bool {
        self.ended[lane.index()]
    }

    /// Says whether everything came.
    pub(super) fn has_everything(&self) -> bool {
        self.ended == [true; 3] && self.failed.is_none()
    }

    /// Says whether nothing more can come.
    pub(super) fn is_complete(&self) -> bool {
        self.ended == [true; 3] || self.failed.is_some()
    }

    pub(super) fn failed(&self) -> Option<P2pError> {
        self.failed.clone()
    }

    /// How far each lane came.
    pub(super) fn states(&self) -> [LaneState; 3] {
        Lane::ALL.map(|lane| self.credits[lane.index()].state(self.is_ended(lane)))
    }

    /// What each lane was granted.
    pub(super) fn granted(&self) -> Granted {
        Lane::ALL.map(|lane| (lane, self.credits[lane.index()].granted()))
    }

    pub(super) fn fail(&mut self, error: P2pError) {
        self.failed.get_or_insert(error);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    fn push(&mut self, item: Item) {
        if !self.discarding {
            self.items.push_back(item);
        }
        self.wake();
    }

    /// Adds a piece of data, to the last item where that is cheap.
    fn push_data(&mut self, lane: Lane, piece: BytesMut, charge: u64) {
        if self.discarding {
            return;
        }
        if piece.len() >= SLICED {
            return self.push(Item { lane, kind: Kind::Bytes(piece), charge });
        }
        if let Some(Item { lane: last, kind: Kind::Bytes(bytes), charge: sum }) = self.items.back_mut()
            && *last == lane
            && bytes.len() + piece.len() <= SLICED
        {
            bytes.extend_from_slice(&piece);
            *sum += charge;
            return self.wake();
        }
        self.push(Item { lane, kind: Kind::Bytes(BytesMut::from(piece.as_ref())), charge });
    }

    /// Counts an item that was taken; the grant that is due for it.
    pub(super) fn account(&mut self, item: &Item, rtt: impl FnOnce() -> Duration) -> Option<Grant> {
        let Kind::Bytes(bytes) = &item.kind else { return None };
        self.taken = self.taken.wrapping_add(1);
        // Not at once: the first exchanges have no use for it.
        if self.taken % RTT_EVERY == 4 {
            self.rtt = rtt();
        }
        let index = item.lane.index();
        let grant = self.credits[index].consume(item.charge, bytes.len() as u64, self.rtt);
        grant.filter(|_| !self.ended[index])
    }
}

impl Shared {
    /// Reads once and queues what came. Ready whenever something changed.
    pub(super) fn poll_read(self: &Arc<Self>, reader: &mut Reader, cx: &mut Context<'_>) -> Poll<()> {
        let spare = reader.buffer.capacity() - reader.buffer.len();
        if spare < reader.block / 2 {
            reader.buffer.reserve(reader.block);
        }
        let room = reader.buffer.capacity() - reader.buffer.len();
        let Poll::Ready(read) = reader.raw.poll_read(cx, &mut reader.buffer) else {
            // Nobody takes what came: then the buffer is not kept for what may come.
            if reader.buffer.is_empty() && !lock(&self.queue).items.is_empty() {
                reader.buffer = BytesMut::new();
                reader.block = FIRST_BLOCK;
            }
            return Poll::Pending;
        };
        match read {
            Ok(0) if reader.awaiting => {
                self.suspend(reader, P2pError::StreamReset { code: stream_code::CANCELLED });
            }
            Ok(0) => self.finished(reader),
            Ok(length) => {
                if length == room {
                    reader.block = LARGE_BLOCK;
                }
                if let Err(violation) = self.process(reader) {
                    self.violated(reader, violation);
                } else if let Some(code) = reader.refused.take() {
                    self.suspend(reader, refusal(code));
                }
            }
            Err(end) if self.outlives(reader, end) => {}
            Err(end) => {
                reader.done = true;
                self.no_more(self.failure(end), end == RawEnd::Lost);
            }
        }
        Poll::Ready(())
    }

    /// Takes every whole frame, and what has come of the last one's data, out of the buffer.
    fn process(self: &Arc<Self>, reader: &mut Reader) -> Result<(), Violation> {
        let mut queue = lock(&self.queue);
        loop {
            if reader.refused.is_some() {
                return Ok(());
            }
            if reader.skip > 0 {
                let skip = reader.skip.min(reader.buffer.len());
                reader.buffer.advance(skip);
                reader.skip -= skip;
            }
            if reader.buffer.is_empty() {
                return Ok(());
            }
            match &mut reader.body {
                // A message is passed on whole.
                Some(Body { lane: Lane::Messages, left, padding }) => {
                    if reader.buffer.len() < *left {
                        reader.block = reader.block.max(*left + frame::MAX_HEAD);
                        return Ok(());
                    }
                    let charge = *left as u64 + *padding;
                    let message = BytesMut::from(&reader.buffer[..*left]);
                    reader.buffer.advance(*left);
                    reader.body = None;
                    queue.push(Item { lane: Lane::Messages, kind: Kind::Bytes(message), charge });
                }
                Some(Body { lane, left, padding }) => {
                    let piece = reader.buffer.split_to(reader.buffer.len().min(*left));
                    *left -= piece.len();
                    let charge = piece.len() as u64 + std::mem::take(padding);
                    queue.push_data(*lane, piece, charge);
                    if *left == 0 {
                        reader.body = None;
                    }
                }
                None => {
                    let decoded = frame::decode(&reader.buffer);
                    let Some((head, taken)) =
                        decoded.map_err(|problem| Violation::malformed(problem.to_string()))?
                    else {
                        return Ok(());
                    };
                    reader.buffer.advance(taken);
                    self.head(reader, &mut queue, head)?;
                }
            }
        }
    }

    fn head(self: &Arc<Self>, reader: &mut Reader, queue: &mut Queue, head: Head) -> Result<(), Violation> {
        if reader.awaiting {
            match head {
                Head::Resumed { .. } | Head::Ignored { .. } => {}
                Head::Abort { code } => {
                    reader.refused = Some(code);
                    return Ok(());
                }
                _ => return Err(Violation::malformed("something else before the word that it goes on")),
            }
        }
        match head {
            Head::Resumed { lanes } => {
                if !std::mem::take(&mut reader.awaiting) {
                    return Err(Violation::malformed("word that it goes on, unasked"));
                }
                self.resumed(queue, &lanes).map_err(Violation::malformed)?;
            }
            Head::Data { lane, offset, length } => {
                if queue.is_ended(lane) {
                    return Err(Violation::malformed(format!("data after the end of lane {}", lane.index())));
                }
                queue.credits[lane.index()].receive(offset, length).map_err(|breach| match breach {
                    Breach::Credit => Violation {
                        code: stream_code::CREDIT,
                        reason: format!("more than its credit on lane {}", lane.index()),
                    },
                    Breach::Offset { expected } => {
                        Violation::malformed(format!("offset {offset} where {expected} comes next"))
                    }
                })?;
                reader.body = Some(Body { lane, left: length, padding: charge(length) - length as u64 });
            }
            Head::End { lane, offset } => {
                let expected = queue.credits[lane.index()].offset();
                if queue.is_ended(lane) || offset != expected {
                    return Err(Violation::malformed(format!(
                        "an end at {offset} where {expected} comes next"
                    )));
                }
                queue.ended[lane.index()] = true;
                queue.push(Item { lane, kind: Kind::End, charge: 0 });
                if queue.ended == [true; 3] {
                    self.grants_needless();
                }
            }
            Head::Window { lane, consumed, allowance, window } => {
                let mut out = lock(&self.out);
                if !out.grant(lane, consumed, allowance, window) {
                    return Err(Violation::malformed(format!(
                        "a grant for {consumed} bytes that were not sent"
                    )));
                }
                self.flush(&mut out);
            }
            Head::Abort { code } => {
                queue.fail(P2pError::StreamReset { code });
                self.grants_needless();
            }
            Head::Stop { code } => {
                let mut out = lock(&self.out);
                out.fail(P2pError::StreamReset { code });
                self.flush(&mut out);
            }
            Head::Ignored { length } => reader.skip = length,
        }
        Ok(())
    }

    /// The peer sends nothing more that could need a grant.
    fn grants_needless(self: &Arc<Self>) {
        let mut out = lock(&self.out);
        out.closable = true;
        self.flush(&mut out);
    }

    /// The QUIC stream is read to its end.
    pub(super) fn finished(self: &Arc<Self>, reader: &mut Reader) {
        reader.done = true;
        let whole = reader.is_between_frames();
        let complete = lock(&self.queue).is_complete();
        let reason = if whole { "it ended without saying so" } else { "it ended within a frame" };
        if complete {
            let mut out = lock(&self.out);
            out.grantless = true;
            out.closable = true;
            out.settle();
            self.flush(&mut out);
            out.waiting.wake();
        } else {
            self.no_more(P2pError::Malformed { reason: reason.to_owned() }, false);
        }
    }

    /// Nothing more comes; what is queued stays.
    fn no_more(self: &Arc<Self>, error: P2pError, lost: bool) {
        lock(&self.queue).fail(error.clone());
        let mut out = lock(&self.out);
        out.grantless = true;
        out.closable = true;
        out.over();
        if lost {
            out.fail(error);
        }
        self.flush(&mut out);
        out.waiting.wake();
    }

    /// Gives the stream up, and it alone.
    pub(super) fn violated(self: &Arc<Self>, reader: &mut Reader, violation: Violation) {
        let Violation { code, reason } = violation;
        let connection = self.connection();
        connection.counters().count(code);
        tracing::warn!(peer = %connection.peer(), code, %reason, "a stream broke the protocol and was ended");
        reader.stop(code);
        let error = P2pError::Malformed { reason };
        {
            let mut queue = lock(&self.queue);
            queue.items.clear();
            queue.fail(error.clone());
        }
        let mut out = lock(&self.out);
        out.fail(error);
        out.over();
        out.reset_raw(code);
    }
}

/// Why the peer does not go on with a stream.
fn refusal(code: u32) -> P2pError {
    if code == stream_code::UNKNOWN { P2pError::StreamUnknown } else { P2pError::StreamReset { code } }
}

impl Item {
    pub(super) fn into_bytes(self) -> Bytes {
        match self.kind {
            Kind::Bytes(bytes) => bytes.freeze(),
            Kind::End => Bytes::new(),
        }
    }
}
