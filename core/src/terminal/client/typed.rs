//! What was typed: kept until it is beyond doubt that the session has it.

use std::collections::VecDeque;

use bytes::Bytes;

/// How many bytes may wait to be sent, as while the connection is lost.
pub(super) const WAITING: usize = 64 * 1024;
/// How many bytes that were sent are kept: more than can be under way to a session that takes nothing, which is the
/// stream's window and what its machine holds for it.
const KEPT: usize = 2 * 1024 * 1024;
/// The largest piece sent at once.
const PIECE: usize = 64 * 1024;

/// The bytes typed into a session by this client, by their offset since it first attached.
#[derive(Debug, Default)]
pub(super) struct Typed {
    bytes: VecDeque<u8>,
    /// The offset of the first byte that is kept.
    start: u64,
    /// The offset up to which bytes were sent in the present connection, or are known to have arrived.
    sent: u64,
}

/// What the session says it has cannot be gone on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gap {
    /// So many bytes were typed that neither side has any more.
    Lost(u64),
    /// It has more than was ever typed.
    Impossible,
}

impl Typed {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// How many bytes wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        usize::try_from(self.end() - self.sent).unwrap_or(usize::MAX)
    }

    /// How many bytes were typed in all.
    pub(super) fn total(&self) -> u64 {
        self.end()
    }

    /// Takes as many bytes as there is room for, and returns how many.
    pub(super) fn push(&mut self, bytes: &[u8]) -> usize {
        let room = WAITING.saturating_sub(self.waiting()).min(bytes.len());
        self.bytes.extend(&bytes[..room]);
        room
    }

    /// Returns the next piece to send; empty if there is none.
    pub(super) fn next_piece(&self) -> Bytes {
        let from = usize::try_from(self.sent - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let slice = if from < front.len() { &front[from..] } else { &back[from - front.len()..] };
        Bytes::copy_from_slice(&slice[..slice.len().min(PIECE)])
    }

    /// Notes that so many more bytes were sent.
    pub(super) fn sent(&mut self, count: usize) {
        self.sent = (self.sent + count as u64).min(self.end());
        let known = usize::try_from(self.sent - self.start).unwrap_or(usize::MAX);
        self.forget(known.saturating_sub(KEPT));
    }

    /// Goes on from what the session says it has: what comes after that is sent (again).
    pub(super) fn resume_at(&mut self, has: u64) -> Result<(), Gap> {
        if has > self.end() {
            return Err(Gap::Impossible);
        }
        if has < self.start {
            return Err(Gap::Lost(self.start - has));
        }
        self.sent = has;
        self.forget(usize::try_from(has - self.start).unwrap_or(usize::MAX));
        Ok(())
    }

    fn forget(&mut self, count: usize) {
        let count = count.min(self.bytes.len());
        self.bytes.drain(..count);
        self.start += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Type(Vec<u8>),
        /// So many pieces are sent; the session gets them.
        Send(u8),
        /// The connection is lost; the session has got this share of what was sent, in 1/255.
        Lose(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200).prop_map(Step::Type),
            (0..4_u8).prop_map(Step::Send),
            any::<u8>().prop_map(Step::Lose),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_lost_the_session_gets_every_byte_once_and_in_order(
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let mut typed = Typed::default();
            let (mut all, mut under_way, mut session) = (Vec::new(), Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Type(bytes) => {
                        let taken = typed.push(&bytes);
                        all.extend_from_slice(&bytes[..taken]);
                    }
                    Step::Send(pieces) => for _ in 0..pieces {
                        let piece = typed.next_piece();
                        under_way.extend_from_slice(&piece);
                        typed.sent(piece.len());
                    },
                    Step::Lose(share) => {
                        let arrived = under_way.len() * usize::from(share) / 255;
                        session.extend(under_way.drain(..).take(arrived));
                        prop_assert_eq!(typed.resume_at(session.len() as u64), Ok(()));
                    }
                }
            }
            typed.resume_at(session.len() as u64).expect("nothing was forgotten too early");
            loop {
                let piece = typed.next_piece();
                if piece.is_empty() {
                    break;
                }
                session.extend_from_slice(&piece);
                typed.sent(piece.len());
            }
            prop_assert_eq!(session, all);
        }
    }

    #[test]
    fn what_waits_is_bounded_and_what_was_sent_is_forgotten_in_the_end() {
        let mut typed = Typed::default();
        assert_eq!(typed.push(&vec![1; WAITING + 10]), WAITING);
        assert_eq!(typed.push(b"x"), 0);
        for _ in 0..100 {
            let piece = typed.next_piece();
            typed.sent(piece.len());
            assert_eq!(typed.push(&vec![1; WAITING]), WAITING);
        }
        assert!(typed.bytes.len() <= KEPT + WAITING, "{}", typed.bytes.len());
        let start = typed.start;
        assert!(start > 0);
        assert_eq!(typed.resume_at(start - 1), Err(Gap::Lost(1)));
        assert_eq!(typed.resume_at(typed.total() + 1), Err(Gap::Impossible));
        assert_eq!(typed.resume_at(typed.total()), Ok(()));
        assert_eq!(typed.waiting(), 0);
    }
}
