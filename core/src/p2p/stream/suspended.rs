//! What a stream that may be resumed sends: put down, taken up, and rewound to where its receiver is.

use std::time::Duration;

use bytes::Bytes;
use malai_model::wire::LaneState;
use malai_model::wire::frame::{Head, Lane};

use super::Wakers;
use super::credit::Grant;
use super::outgoing::{Outgoing, Urgency};
use super::resume::Granted;
use crate::p2p::error::P2pError;
use crate::p2p::raw::RawSend;

/// Where a resumable stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// It has a connection.
    Flowing,
    /// It has none.
    Suspended,
    /// It has one, and the peer has not yet said that it goes on there.
    Awaiting,
    /// It will not go on.
    Over,
}

/// What a stream has that may be resumed.
#[derive(Debug)]
pub(super) struct Resumption {
    pub(super) flow: Flow,
    pub(super) linger: Duration,
    /// How often it was put down.
    pub(super) cuts: u64,
    /// Why it was put down.
    pub(super) lost: Option<P2pError>,
    /// Why the last attempt to go on failed.
    pub(super) refusal: Option<P2pError>,
    /// A write found the connection lost; the reader is about to.
    pub(super) cut: bool,
    /// The sending half failed: nothing of it is sent again.
    pub(super) broken: bool,
    /// What the peer was told, and may have to be told again.
    pub(super) aborted: Option<u32>,
    pub(super) stopped: Option<u32>,
    /// Who waits for any of this to change.
    pub(super) watching: Wakers,
}

impl Resumption {
    pub(super) fn new(linger: Duration) -> Self {
        Self {
            flow: Flow::Flowing,
            linger,
            cuts: 0,
            lost: None,
            refusal: None,
            cut: false,
            broken: false,
            aborted: None,
            stopped: None,
            watching: Wakers::default(),
        }
    }
}

impl Outgoing {
    /// Begins to keep what is framed. What was framed before is with the receiver already, as far as the caller
    /// knows.
    pub(super) fn retain(&mut self, resumption: Resumption) {
        for lane in &mut self.lanes {
            lane.retained_from = lane.offset;
        }
        self.resumption = Some(resumption);
    }

    /// Puts the raw half down: what was under way is framed again when there is another one.
    pub(super) fn put_down(&mut self, flow: Flow, code: u32) {
        self.framed.clear();
        self.raw.reset(code);
        self.raw = RawSend::Detached;
        self.raw_finished = false;
        if let Some(resumption) = &mut self.resumption {
            resumption.flow = flow;
            resumption.cut = false;
            resumption.watching.wake();
        }
        self.waiting.wake();
    }

    /// Notes that there is and will be nothing to write to.
    pub(super) fn end_raw(&mut self) {
        self.raw_finished = true;
    }

    /// Notes that there is nothing to write to, if so.
    pub(super) fn forget_detached(&mut self) {
        if let RawSend::Detached = self.raw {
            self.framed.clear();
            self.raw_finished = true;
        }
    }

    /// Takes another raw half up; `framed` goes out before anything else.
    pub(super) fn take_up(&mut self, raw: RawSend, framed: Vec<Bytes>, flow: Flow) {
        self.raw = raw;
        self.raw_finished = false;
        self.framed = framed;
        if let Some(resumption) = &mut self.resumption {
            resumption.flow = flow;
            resumption.watching.wake();
        }
    }

    /// Says whether the receiver can have come so far, on every lane.
    pub(super) fn check_states(&self, states: &[LaneState; 3]) -> Result<(), String> {
        if self.resumption.as_ref().is_none_or(|resumption| resumption.broken) {
            // Nothing is sent again.
            return Ok(());
        }
        for (lane, state) in Lane::ALL.into_iter().zip(states) {
            let entry = &self.lanes[lane.index()];
            let LaneState { received, charged, ended, .. } = *state;
            if received < entry.retained_from || received > entry.offset {
                return Err(format!(
                    "it goes on at {received} of lane {}, of which there is {} to {}",
                    lane.index(),
                    entry.retained_from,
                    entry.offset
                ));
            }
            if charged < received || charged > entry.credit.spent() {
                return Err(format!("charges of {charged} on lane {}", lane.index()));
            }
            if ended && !(entry.ended && received == entry.offset) {
                return Err(format!("an end of lane {} that was not sent", lane.index()));
            }
            if lane == Lane::Messages && !entry.is_boundary(received) {
                return Err(format!("it goes on within a message, at {received}"));
            }
        }
        Ok(())
    }

    /// Goes back to where the receiver is, and frames again what it lacks. Call [`Outgoing::check_states`] before.
    pub(super) fn rewind(&mut self, states: &[LaneState; 3]) {
        let Some(resumption) = &self.resumption else { return };
        let (broken, aborted, stopped) = (resumption.broken, resumption.aborted, resumption.stopped);
        if let Some(code) = stopped {
            self.control(&Head::Stop { code });
        }
        if broken {
            if let Some(code) = aborted {
                self.control(&Head::Abort { code });
            }
            return;
        }
        for (lane, state) in Lane::ALL.into_iter().zip(states) {
            let entry = self.lane(lane);
            entry.rewind(state);
            self.frame_held(lane, Urgency::Now);
        }
        self.waiting.wake();
    }

    /// Tells the peer what it was granted, and what was consumed.
    pub(super) fn tell_granted(&mut self, granted: Granted) {
        for (lane, grant) in granted {
            let Grant { consumed, allowance, window } = grant;
            self.control(&Head::Window { lane, consumed, allowance, window });
        }
    }

    pub(super) fn is_resumable(&self) -> bool {
        !(self.sender_gone && self.receiver_gone)
            && self.resumption.as_ref().is_some_and(|resumption| resumption.flow != Flow::Over)
    }

    /// How often the stream was put down.
    pub(super) fn cuts(&self) -> u64 {
        self.resumption.as_ref().map_or(0, |resumption| resumption.cuts)
    }

    /// Says that the stream will not go on.
    pub(super) fn over(&mut self) {
        let Some(resumption) = &mut self.resumption else { return };
        resumption.flow = Flow::Over;
        resumption.cut = false;
        resumption.watching.wake();
        self.forget_detached();
    }

    /// The connection is lost, but everything had come, both ways.
    pub(super) fn settle(&mut self) {
        if let Some(resumption) = &mut self.resumption
            && std::mem::take(&mut resumption.cut)
        {
            self.forget_detached();
        }
    }
}
