//! One lane of what a stream sends: what waits for credit, and what may have to be sent again.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use malai_model::wire::LaneState;
use malai_model::wire::frame::{Lane, charge};

use super::credit::SendCredit;

#[derive(Debug)]
pub(super) struct SendLane {
    pub(super) credit: SendCredit,
    /// Bytes framed.
    pub(super) offset: u64,
    /// Accepted, but too small to spend scarce credit on.
    pub(super) held: BytesMut,
    pub(super) ending: bool,
    pub(super) ended: bool,
    /// Framed, and perhaps not with the receiver: it is framed again if the connection is lost. Only in streams
    /// that may be resumed.
    pub(super) retained: VecDeque<Bytes>,
    /// The offset of the first byte retained.
    pub(super) retained_from: u64,
    /// Sum of the charges of what is retained.
    retained_charge: u64,
    /// To be framed again, before anything else.
    pub(super) replay: VecDeque<Bytes>,
}

impl SendLane {
    pub(super) fn new(lane: Lane) -> Self {
        Self {
            credit: SendCredit::new(lane),
            offset: 0,
            held: BytesMut::new(),
            ending: false,
            ended: false,
            retained: VecDeque::new(),
            retained_from: 0,
            retained_charge: 0,
            replay: VecDeque::new(),
        }
    }

    /// Keeps a piece that was framed.
    pub(super) fn retain(&mut self, piece: Bytes) {
        self.retained_charge += charge(piece.len());
        self.retained.push_back(piece);
    }

    /// Drops everything: nothing of it is sent any more.
    pub(super) fn clear(&mut self) {
        self.held = BytesMut::new();
        self.retained = VecDeque::new();
        self.retained_charge = 0;
        self.replay = VecDeque::new();
        self.ended = true;
    }

    /// Forgets what the receiver has taken.
    fn release(&mut self, consumed: u64) {
        while let Some(front) = self.retained.front_mut() {
            let ahead = consumed.saturating_sub(self.retained_from);
            let length = front.len() as u64;
            if ahead < length {
                // A piece taken in part stays whole: a message has to, and of others it is one at most.
                break;
            }
            self.retained_from += length;
            self.retained_charge -= charge(front.len());
            self.retained.pop_front();
        }
    }

    /// Takes a grant: `consumed` bytes were taken out, and the charges may grow to `allowance`.
    pub(super) fn grant(&mut self, consumed: u64, allowance: u64, window: u32) {
        self.release(consumed);
        self.credit.grant(allowance.min(self.most(self.credit.spent())), window);
    }

    /// The most that a receiver may grant. One that grants and never says that it consumed would have everything
    /// retained. An honest one has a window on its way, and another whose grants were lost with a connection.
    fn most(&self, spent: u64) -> u64 {
        spent.saturating_add((3 * self.credit.full()).saturating_sub(self.retained_charge))
    }

    /// Says whether a retained piece begins or the last one ends here.
    pub(super) fn is_boundary(&self, offset: u64) -> bool {
        let mut at = self.retained_from;
        for piece in &self.retained {
            if at >= offset {
                break;
            }
            at += piece.len() as u64;
        }
        at == offset
    }

    /// Goes back: what is retained beyond what came is to be framed again.
    pub(super) fn rewind(&mut self, state: &LaneState) {
        let mut again = self.offset - state.received;
        while again > 0 {
            let Some(mut piece) = self.retained.pop_back() else { break };
            let length = piece.len() as u64;
            self.retained_charge -= charge(piece.len());
            if length > again {
                // The receiver has the front of it.
                let front = piece.split_to(usize::try_from(length - again).unwrap_or(0));
                self.retain(front);
            }
            again -= again.min(length);
            self.replay.push_front(piece);
        }
        self.offset = state.received;
        self.credit.rewind(state.charged, state.allowance.min(self.most(state.charged)), state.window);
        if self.ended && !state.ended {
            self.ended = false;
            self.ending = true;
        }
    }
}
