//! The arithmetic of credit, apart from any IO. See `malai_model::wire::frame` for what it is for.

use std::time::Duration;

use malai_model::wire::LaneState;
use malai_model::wire::frame::{Lane, MAX_DATA, MIN_CHARGE, charge};

/// Consumption after which a lane's window grows from its initial to its full size.
const GROW_AFTER: u64 = 16 * 1024;
/// A path with a longer round trip is no loopback: grants must leave early for the sender not to wait for
/// them.
const REAL_ROUND_TRIP: Duration = Duration::from_millis(2);

/// What a sender may still send on one lane.
#[derive(Debug)]
pub(super) struct SendCredit {
    lane: Lane,
    spent: u64,
    allowance: u64,
    window: u64,
}

impl SendCredit {
    pub(super) fn new(lane: Lane) -> Self {
        Self { lane, spent: 0, allowance: lane.initial_window(), window: lane.initial_window() }
    }

    fn available(&self) -> u64 {
        self.allowance.saturating_sub(self.spent)
    }

    /// How many of `length` bytes one frame may carry now; 0 for none. A message is carried whole or not at
    /// all.
    pub(super) fn fit(&self, length: usize) -> usize {
        let available = self.available();
        if available < MIN_CHARGE || (self.lane == Lane::Messages && available < charge(length)) {
            return 0;
        }
        length.min(MAX_DATA).min(usize::try_from(available).unwrap_or(MAX_DATA))
    }

    pub(super) fn spend(&mut self, length: usize) {
        self.spent += charge(length);
    }

    /// Says whether there is no need to save frames: at least half of the receiver's window is free.
    pub(super) fn roomy(&self) -> bool {
        self.available().saturating_mul(2) >= self.window
    }

    /// Takes a grant. More than the full window at once is not used: the bound on outstanding frames is also
    /// the sender's to keep.
    pub(super) fn grant(&mut self, allowance: u64, window: u32) {
        self.allowance = self.allowance.max(allowance.min(self.spent + self.lane.window()));
        self.window = u64::from(window).min(self.lane.window());
    }

    pub(super) fn spent(&self) -> u64 {
        self.spent
    }

    /// The most that a receiver grants at once.
    pub(super) fn full(&self) -> u64 {
        self.lane.window()
    }

    /// Goes back to what the receiver says that came; what was spent beyond it never arrived.
    pub(super) fn rewind(&mut self, charged: u64, allowance: u64, window: u32) {
        self.spent = charged;
        self.allowance = allowance.min(charged + self.lane.window());
        self.window = u64::from(window).min(self.lane.window());
    }
}

/// What a receiver has allowed and seen on one lane.
#[derive(Debug)]
pub(super) struct ReceiveCredit {
    lane: Lane,
    /// Sum of the charges of all that came.
    received: u64,
    /// Bytes that came: the offset that must come next.
    offset: u64,
    /// Sum of the charges of all that was taken out.
    consumed: u64,
    /// Bytes that were taken out.
    consumed_offset: u64,
    allowance: u64,
    window: u64,
}

/// Why a frame may not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breach {
    Credit,
    Offset { expected: u64 },
}

/// A grant to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) consumed: u64,
    pub(super) allowance: u64,
    pub(super) window: u32,
}

impl ReceiveCredit {
    pub(super) fn new(lane: Lane) -> Self {
        let window = lane.initial_window();
        Self { lane, received: 0, offset: 0, consumed: 0, consumed_offset: 0, allowance: window, window }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Counts the arrival of a frame's head.
    pub(super) fn receive(&mut self, offset: u64, length: usize) -> Result<(), Breach> {
        if offset != self.offset {
            return Err(Breach::Offset { expected: self.offset });
        }
        let received = self.received + charge(length);
        if received > self.allowance {
            return Err(Breach::Credit);
        }
        self.received = received;
        self.offset += length as u64;
        Ok(())
    }

    /// Takes back what of the last frame did not come: so many bytes, and the padding that no piece of it has
    /// accounted for.
    pub(super) fn cut(&mut self, left: usize, padding: u64) {
        self.offset -= left as u64;
        self.received -= left as u64 + padding;
    }

    /// How far it came.
    pub(super) fn state(&self, ended: bool) -> LaneState {
        LaneState {
            received: self.offset,
            charged: self.received,
            allowance: self.allowance,
            window: u32::try_from(self.window).unwrap_or(u32::MAX),
            ended,
        }
    }

    /// What was granted so far.
    pub(super) fn granted(&self) -> Grant {
        Grant {
            consumed: self.consumed_offset,
            allowance: self.allowance,
            window: u32::try_from(self.window).unwrap_or(u32::MAX),
        }
    }

    /// Counts what was taken out, and returns the grant that is due, if any.
    ///
    /// On loopback a grant at half of the window costs the least; over a real round trip an eighth keeps the
    /// sender from waiting.
    pub(super) fn consume(&mut self, charge: u64, bytes: u64, rtt: Duration) -> Option<Grant> {
        self.consumed += charge;
        self.consumed_offset += bytes;
        let full = self.lane.window();
        let grows = self.window < full && self.consumed >= GROW_AFTER;
        if grows {
            self.window = full;
        }
        let share = if rtt > REAL_ROUND_TRIP { 8 } else { 4 };
        let target = self.consumed + self.window;
        if !grows && target - self.allowance < self.window / share {
            return None;
        }
        self.allowance = target;
        Some(Grant {
            consumed: self.consumed_offset,
            allowance: target,
            window: u32::try_from(self.window).unwrap_or(u32::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_frame_costs_the_minimum() {
        let mut credit = ReceiveCredit::new(Lane::Stderr);
        let frames = Lane::Stderr.initial_window() / MIN_CHARGE;
        for n in 0..frames {
            assert_eq!(credit.receive(n, 1), Ok(()));
        }
        assert_eq!(credit.receive(frames, 1), Err(Breach::Credit));
    }

    #[test]
    fn a_frame_out_of_place_is_a_breach() {
        let mut credit = ReceiveCredit::new(Lane::Main);
        assert_eq!(credit.receive(1, 1), Err(Breach::Offset { expected: 0 }));
    }

    #[test]
    fn the_window_grows_once_data_is_taken() {
        let mut credit = ReceiveCredit::new(Lane::Main);
        credit.receive(0, MAX_DATA).expect("fits");
        assert_eq!(credit.consume(1024, 1024, Duration::ZERO), None);
        let grant = credit.consume(GROW_AFTER, GROW_AFTER, Duration::ZERO).expect("grows");
        assert_eq!(grant.allowance, 1024 + GROW_AFTER + Lane::Main.window());
    }

    #[test]
    fn grants_leave_earlier_over_a_real_round_trip() {
        let far = Duration::from_millis(40);
        for (rtt, share) in [(Duration::ZERO, 4), (far, 8)] {
            let mut credit = ReceiveCredit::new(Lane::Messages);
            let due = Lane::Messages.window() / share;
            assert_eq!(credit.consume(due - 1, 1, rtt), None);
            assert!(credit.consume(1, 1, rtt).is_some());
        }
    }

    #[test]
    fn whoever_consumes_everything_leaves_the_sender_roomy_or_grants() {
        // Else a small frame that was held back would wait for ever.
        for lane in Lane::ALL {
            let (mut send, mut receive) = (SendCredit::new(lane), ReceiveCredit::new(lane));
            let mut offset = 0;
            for round in 0..10_000_usize {
                let length = 1 + (round * 7919) % 5000;
                assert_eq!(send.fit(length), length, "{lane:?} round {round}");
                send.spend(length);
                receive.receive(offset, length).expect("within the credit");
                offset += length as u64;
                if let Some(grant) = receive.consume(charge(length), length as u64, Duration::ZERO) {
                    send.grant(grant.allowance, grant.window);
                }
                assert!(send.roomy(), "{lane:?} round {round}");
            }
        }
    }

    #[test]
    fn an_absurd_grant_does_not_lift_the_bound() {
        let mut credit = SendCredit::new(Lane::Main);
        credit.grant(u64::MAX, u32::MAX);
        let mut frames = 0;
        while credit.fit(1) > 0 {
            credit.spend(1);
            frames += 1;
        }
        assert_eq!(frames, Lane::Main.window() / MIN_CHARGE);
    }
}
