//! The most recent bytes that a session showed, by their place in all that it ever showed.

use std::collections::VecDeque;

/// The most bytes that are kept: more than can be on its way to a client, so that one whose connection is lost in the
/// middle of much output loses nothing.
const MOST: usize = 2 * 1024 * 1024;
/// The most bytes that are kept when nothing is on its way.
const AT_REST: usize = 128 * 1024;

/// The most recent output. Takes memory as it is filled, and gives most of it back at rest.
#[derive(Debug, Default)]
pub(super) struct Recent {
    bytes: VecDeque<u8>,
    /// How many bytes were shown in all.
    end: u64,
}

impl Recent {
    /// Adds what is shown next.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(MOST)..];
        let over = (self.bytes.len() + kept.len()).saturating_sub(MOST);
        self.bytes.drain(..over);
        // Doubling would take up to twice the bound.
        if self.bytes.capacity() < self.bytes.len() + kept.len() {
            let wanted = (self.bytes.len() + kept.len()).next_power_of_two().clamp(4 * 1024, MOST);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend(kept);
    }

    /// Nothing is on its way to anybody: gives memory back.
    pub(super) fn rest(&mut self) {
        if self.bytes.capacity() > AT_REST {
            self.bytes.drain(..self.bytes.len().saturating_sub(AT_REST));
            self.bytes.shrink_to_fit();
        }
    }

    /// How many bytes were shown in all.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// What was shown after the first `received` bytes; `None` if that is not known any more, or not yet.
    pub(super) fn since(&self, received: u64) -> Option<Vec<u8>> {
        let missing = usize::try_from(self.end.checked_sub(received)?).ok()?;
        let from = self.bytes.len().checked_sub(missing)?;
        Some(self.bytes.range(from..).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_given_exactly_while_it_is_kept() {
        let mut recent = Recent::default();
        let all: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut shown = 0;
        for piece in all.chunks(77_919) {
            recent.push(piece);
            shown += piece.len();
            for back in [0, 1, 7_918, MOST] {
                let Some(from) = shown.checked_sub(back) else { continue };
                let missing = recent.since(from as u64).expect("is kept");
                assert_eq!(missing, &all[from..shown]);
            }
            assert!(recent.bytes.capacity() <= MOST);
        }
        assert_eq!(recent.end(), all.len() as u64);
        assert_eq!(recent.since(0), None);
        assert_eq!(recent.since(recent.end() + 1), None);
        assert_eq!(recent.since((shown - MOST - 1) as u64), None);
    }

    #[test]
    fn at_rest_little_is_kept() {
        let mut recent = Recent::default();
        recent.push(&vec![1; MOST]);
        recent.rest();
        assert!(recent.bytes.capacity() <= 2 * AT_REST);
        assert_eq!(recent.since(recent.end() - AT_REST as u64).map(|bytes| bytes.len()), Some(AT_REST));
        recent.push(b"more");
        assert_eq!(recent.since(recent.end() - 4).expect("is kept"), b"more");
    }

    #[test]
    fn a_huge_piece_leaves_its_end() {
        let mut recent = Recent::default();
        recent.push(&vec![1; 3 * MOST]);
        recent.push(&[2; 3]);
        assert_eq!(recent.since(recent.end() - 4).expect("is kept"), [1, 2, 2, 2]);
    }
}
