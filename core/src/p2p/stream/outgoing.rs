//! What a stream sends: framing by credit, and what waits for it.

use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use malai_model::wire::frame::{self, Head, Lane, MAX_DATA, MIN_CHARGE};

use super::Wakers;
use super::lane::SendLane;
use super::suspended::{Flow, Resumption};
use crate::p2p::error::{P2pError, stream_code};
use crate::p2p::raw::{RawEnd, RawSend};

/// What may wait for the transport before senders wait too, in bytes.
const BACKLOG: usize = 256 * 1024;
/// What may wait for credit in small pieces, in bytes a lane.
const HELD: usize = 64 * 1024;
/// Up to this size a head and its bytes are copied together: one piece for the QUIC stack instead of two.
const COPIED: usize = 2048;

/// The state of the sending half.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) raw: RawSend,
    /// Framed, and not taken by the transport yet.
    pub(super) framed: Vec<Bytes>,
    pub(super) lanes: [SendLane; 3],
    failed: Option<P2pError>,
    /// What makes it outlive its connection, if anything does.
    pub(super) resumption: Option<Resumption>,
    /// The peer grants nothing any more: what waits for credit waits in vain.
    pub(super) grantless: bool,
    /// The peer needs no grants of ours any more: this direction may be finished once it is complete.
    pub(super) closable: bool,
    pub(super) raw_finished: bool,
    pub(super) sender_gone: bool,
    pub(super) receiver_gone: bool,
    /// Whether a driver task runs, and what wakes it.
    pub(super) driven: bool,
    pub(super) driver: Option<Waker>,
    pub(super) waiting: Wakers,
}

impl Outgoing {
    pub(super) fn new(raw: RawSend) -> Self {
        Self {
            raw,
            framed: Vec::new(),
            lanes: Lane::ALL.map(SendLane::new),
            failed: None,
            resumption: None,
            grantless: false,
            closable: false,
            raw_finished: false,
            sender_gone: false,
            receiver_gone: false,
            driven: false,
            driver: None,
            waiting: Wakers::default(),
        }
    }

    pub(super) fn lane(&mut self, lane: Lane) -> &mut SendLane {
        &mut self.lanes[lane.index()]
    }

    /// Bytes accepted on a lane, whether or not they are framed.
    pub(super) fn accepted(&self, lane: Lane) -> u64 {
        let lane = &self.lanes[lane.index()];
        let replay: usize = lane.replay.iter().map(Bytes::len).sum();
        lane.offset + (replay + lane.held.len()) as u64
    }

    /// Why nothing can be sent any more, if so.
    pub(super) fn check(&self) -> Result<(), P2pError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Ends the sending half for a reason; the first one counts.
    pub(super) fn fail(&mut self, error: P2pError) {
        self.failed.get_or_insert(error);
        for lane in &mut self.lanes {
            lane.clear();
        }
        if let Some(resumption) = &mut self.resumption {
            resumption.broken = true;
            resumption.watching.wake();
        }
        self.waiting.wake();
    }

    /// Accepts from the front of `bytes` as much as credit and room allow, in frames; what is small while
    /// credit is scarce is held back. Says whether all was accepted.
    pub(super) fn accept(&mut self, lane: Lane, bytes: &mut Bytes) -> Result<bool, P2pError> {
        self.check()?;
        if self.lane(lane).ending || self.lane(lane).ended {
            return Err(P2pError::Ended);
        }
        while !bytes.is_empty() {
            let backlogged = self.backlog() >= BACKLOG;
            let entry = self.lane(lane);
            if !entry.replay.is_empty() {
                return self.starved();
            }
            let small = (bytes.len() as u64) < MIN_CHARGE;
            if !entry.held.is_empty() || (small && !entry.credit.roomy()) {
                let room = HELD.saturating_sub(entry.held.len()).min(bytes.len());
                if room == 0 {
                    return self.starved();
                }
                entry.held.extend_from_slice(&bytes.split_to(room));
                self.frame_held(lane, Urgency::WhenWorthIt);
                continue;
            }
            if backlogged {
                return Ok(false);
            }
            match entry.credit.fit(bytes.len()) {
                0 => return self.starved(),
                length => self.frame(lane, bytes.split_to(length)),
            }
        }
        Ok(true)
    }

    /// Accepts one message whole, or says `false`.
    pub(super) fn accept_message(&mut self, message: &Bytes) -> Result<bool, P2pError> {
        self.check()?;
        let entry = self.lane(Lane::Messages);
        if entry.ending {
            return Err(P2pError::Ended);
        }
        if !entry.replay.is_empty() || entry.credit.fit(message.len()) == 0 {
            return self.starved();
        }
        if self.backlog() >= BACKLOG {
            return Ok(false);
        }
        self.frame(Lane::Messages, message.clone());
        Ok(true)
    }

    fn starved(&self) -> Result<bool, P2pError> {
        if self.grantless { Err(P2pError::StreamReset { code: stream_code::CANCELLED }) } else { Ok(false) }
    }

    fn frame(&mut self, lane: Lane, bytes: Bytes) {
        let (retains, flows) = (self.resumption.is_some(), self.flows());
        let entry = self.lane(lane);
        let length = bytes.len();
        debug_assert!((1..=MAX_DATA).contains(&length));
        entry.credit.spend(length);
        let head = Head::Data { lane, offset: entry.offset, length };
        entry.offset += length as u64;
        let copied = length <= COPIED;
        let mut front = BytesMut::with_capacity(frame::DATA_HEAD + if copied { length } else { 0 });
        frame::encode(&head, &mut front);
        if copied {
            front.extend_from_slice(&bytes);
        }
        let front = front.freeze();
        if retains {
            let kept = if copied { front.slice(frame::DATA_HEAD..) } else { bytes.clone() };
            entry.retain(kept);
        }
        if !flows {
            // It is framed again when the stream goes on.
            return;
        }
        self.framed.push(front);
        if !copied {
            self.framed.push(bytes);
        }
    }

    /// Frames what is held back on a lane, as far as credit goes and it is worth it, and its end behind it.
    pub(super) fn frame_held(&mut self, lane: Lane, urgency: Urgency) {
        while let Some(bytes) = self.lane(lane).replay.pop_front() {
            let entry = self.lane(lane);
            match entry.credit.fit(bytes.len()) {
                0 => {
                    entry.replay.push_front(bytes);
                    return;
                }
                length => {
                    let mut bytes = bytes;
                    let front = bytes.split_to(length);
                    if !bytes.is_empty() {
                        entry.replay.push_front(bytes);
                    }
                    self.frame(lane, front);
                }
            }
        }
        loop {
            let entry = self.lane(lane);
            let length = entry.held.len();
            let worth = urgency == Urgency::Now
                || entry.ending
                || entry.credit.roomy()
                || length as u64 >= MIN_CHARGE;
            let fits = entry.credit.fit(length);
            if length == 0 || !worth || fits == 0 {
                break;
            }
            let bytes = entry.held.split_to(fits).freeze();
            self.frame(lane, bytes);
        }
        let entry = self.lane(lane);
        if entry.ending && !entry.ended && entry.held.is_empty() {
            entry.ended = true;
            let offset = entry.offset;
            self.control(&Head::End { lane, offset });
        }
    }

    /// Says that nothing more comes on a lane; its end goes out behind what is held back.
    pub(super) fn end(&mut self, lane: Lane) {
        let entry = self.lane(lane);
        if !entry.ending && !entry.ended {
            entry.ending = true;
            self.frame_held(lane, Urgency::Now);
        }
    }

    /// Gives up: what is not framed is dropped and the peer is told.
    pub(super) fn abort(&mut self, code: u32) {
        if self.failed.is_none() && self.is_ended() {
            // Complete: what the peer may have to be sent again stays.
            self.failed = Some(P2pError::Ended);
            self.waiting.wake();
            return;
        }
        if self.failed.is_none() {
            self.control(&Head::Abort { code });
            if let Some(resumption) = &mut self.resumption {
                resumption.aborted = Some(code);
            }
        }
        self.fail(P2pError::Ended);
    }

    /// Frames something that costs no credit.
    pub(super) fn control(&mut self, head: &Head) {
        if let (Head::Stop { code }, Some(resumption)) = (head, &mut self.resumption) {
            resumption.stopped = Some(*code);
        }
        if !self.raw_finished && self.flows() {
            let mut bytes = BytesMut::with_capacity(frame::MAX_HEAD);
            frame::encode(head, &mut bytes);
            self.framed.push(bytes.freeze());
        }
    }

    /// Takes a grant of the peer; `false` if it cannot be one.
    pub(super) fn grant(&mut self, lane: Lane, consumed: u64, allowance: u64, window: u32) -> bool {
        let entry = self.lane(lane);
        if consumed > entry.offset {
            return false;
        }
        entry.grant(consumed, allowance, window);
        self.frame_held(lane, Urgency::Now);
        self.waiting.wake();
        true
    }

    /// Says whether every lane's end is framed, or the half failed.
    pub(super) fn is_ended(&self) -> bool {
        self.lanes.iter().all(|lane| lane.ended)
    }

    /// Says whether the transport has taken everything that is framed.
    pub(super) fn is_flushed(&self) -> bool {
        self.framed.is_empty()
            && self.resumption.as_ref().is_none_or(|resumption| {
                !resumption.cut && matches!(resumption.flow, Flow::Flowing | Flow::Over)
            })
    }

    /// Says whether what is left to do is the transport's: nothing of it will have to be framed again, unless it says
    /// so. Of a stream that may be resumed it is known when the peer has ended, too, and not before.
    pub(super) fn is_handed_over(&self) -> bool {
        self.is_flushed() && (self.resumption.is_none() || self.raw_finished)
    }

    /// Says whether the peer's transport has everything, as far as is known; or whether the peer wants no more.
    pub(super) fn is_acknowledged(&self) -> bool {
        if !(self.raw_finished && self.is_ended() && self.flows()) {
            return false;
        }
        let mut acknowledged = self.raw.acknowledged();
        match acknowledged.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(RawEnd::Code(code))) => code != stream_code::MOVED,
            Poll::Ready(Err(RawEnd::Lost)) | Poll::Pending => false,
        }
    }

    /// Says whether there is data that the transport has not taken yet.
    pub(super) fn owes(&self) -> bool {
        let waits = |lane: Lane| {
            let lane = &self.lanes[lane.index()];
            !lane.replay.is_empty() || !lane.held.is_empty()
        };
        !self.is_flushed() || waits(Lane::Main) || waits(Lane::Stderr)
    }

    /// Says whether frames may go out now.
    fn flows(&self) -> bool {
        self.resumption
            .as_ref()
            .is_none_or(|resumption| !resumption.cut && matches!(resumption.flow, Flow::Flowing | Flow::Over))
    }

    /// Says whether this direction of the QUIC stream is finished.
    pub(super) fn is_finished(&self) -> bool {
        self.raw_finished
    }

    /// Says whether something waits that only the driver can bring forward.
    pub(super) fn needs_driver(&self) -> bool {
        let cut = self.resumption.as_ref().is_some_and(|resumption| resumption.cut);
        (cut || !self.framed.is_empty()) && !self.driven
    }

    fn backlog(&self) -> usize {
        self.framed.iter().map(Bytes::len).sum()
    }

    /// Hands framed bytes to the transport, and finishes the direction when all is done. What wakes on room
    /// is the driver, whoever flushes.
    pub(super) fn flush(&mut self) -> Result<(), RawEnd> {
        if !self.framed.is_empty() {
            let waker = self.driver.clone().unwrap_or_else(|| Waker::noop().clone());
            match self.raw.poll_write(&mut Context::from_waker(&waker), &mut self.framed) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => self.waiting.wake(),
                Poll::Ready(Err(RawEnd::Lost | RawEnd::Code(stream_code::MOVED)))
                    if !self.grantless
                        && let Some(resumption) = &mut self.resumption
                        && resumption.flow != Flow::Over =>
                {
                    // Whether the stream outlives it, the reader decides, after what has come.
                    resumption.cut = true;
                    self.framed.clear();
                    self.raw = RawSend::Detached;
                    return Ok(());
                }
                Poll::Ready(Err(end)) => {
                    self.framed.clear();
                    self.closable = true;
                    self.raw_finished = true;
                    return Err(end);
                }
            }
        }
        if self.closable && self.is_ended() && !self.raw_finished && self.flows() {
            self.raw.finish();
            self.raw_finished = true;
            self.waiting.wake();
        }
        Ok(())
    }

    /// Gives the raw half away and ends.
    pub(super) fn detach(&mut self) -> RawSend {
        self.raw_finished = true;
        self.fail(P2pError::Ended);
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
        std::mem::replace(&mut self.raw, RawSend::Detached)
    }

    pub(super) fn take_framed(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.framed)
    }

    /// Resets this direction of the QUIC stream: the peer learns it even if it reads nothing.
    pub(super) fn reset_raw(&mut self, code: u32) {
        self.framed.clear();
        self.raw.reset(code);
        self.raw_finished = true;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Credit is spent only on what is at least as large as its charge, unless there is plenty.
    WhenWorthIt,
    /// A grant has come, or the lane ends.
    Now,
}
