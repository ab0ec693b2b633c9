//! What came of a session's output: each byte once, whatever is sent again.

use bytes::Bytes;
use malai_model::wire::Attached;

/// The place in a session's output.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// How many bytes of the output this client has, redraws not counted.
    received: u64,
    /// How many bytes of redraw come first.
    redraw: u64,
    /// How many bytes come that it has already.
    again: u64,
}

impl Shown {
    /// How many bytes of the output this client has.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Begins another connection. `asked` is the place that was asked for, if any.
    pub(super) fn attach(&mut self, attached: &Attached, asked: Option<u64>) {
        self.redraw = attached.redraw;
        // A redraw stands for everything before it.
        let have = asked.filter(|_| attached.redraw == 0).unwrap_or(attached.output);
        self.again = have.saturating_sub(attached.output);
        self.received = have.max(attached.output);
    }

    /// Takes bytes that came, and returns what of them is new.
    pub(super) fn take(&mut self, mut bytes: Bytes) -> Bytes {
        let redraw = amount(self.redraw, &bytes);
        self.redraw -= redraw as u64;
        if redraw == bytes.len() {
            return bytes;
        }
        let rest = if redraw > 0 { bytes.split_off(redraw) } else { std::mem::take(&mut bytes) };
        let again = amount(self.again, &rest);
        self.again -= again as u64;
        let new = rest.slice(again..);
        self.received += new.len() as u64;
        match (bytes.is_empty(), new.is_empty()) {
            (true, _) => new,
            (false, true) => bytes,
            (false, false) => [bytes, new].concat().into(),
        }
    }
}

fn amount(wanted: u64, bytes: &Bytes) -> usize {
    usize::try_from(wanted).unwrap_or(usize::MAX).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use malai_model::wire::SessionId;
    use proptest::prelude::*;

    use super::*;

    fn attached(output: u64, redraw: u64) -> Attached {
        Attached { session: SessionId::from_random([0; 8]), input: 0, output, redraw, detached: 0 }
    }

    proptest! {
        #[test]
        fn output_that_is_sent_again_is_taken_once(
            output in prop::collection::vec(any::<u8>(), 1..400),
            // Where each connection ends, how far before the client's place it begins, and how it is cut in pieces.
            connections in prop::collection::vec((0..400_usize, 0..50_u64, 1..40_usize), 0..8),
        ) {
            let mut shown = Shown::default();
            let mut seen = Vec::new();
            for (end, overlap, piece) in connections.into_iter().chain([(usize::MAX, 3, 7)]) {
                let asked = shown.received();
                let from = asked.saturating_sub(overlap);
                shown.attach(&attached(from, 0), Some(asked));
                let from = usize::try_from(from).expect("fits");
                let end = end.clamp(from, output.len());
                for piece in output[from..end].chunks(piece) {
                    seen.extend_from_slice(&shown.take(Bytes::copy_from_slice(piece)));
                }
            }
            prop_assert_eq!(&seen, &output);
            prop_assert_eq!(shown.received(), output.len() as u64);
        }
    }

    #[test]
    fn a_redraw_comes_first_and_does_not_count() {
        for piece in 1..9 {
            let mut shown = Shown::default();
            shown.attach(&attached(100, 3), None);
            let mut seen = Vec::new();
            for bytes in b"DRAwing".chunks(piece) {
                seen.extend_from_slice(&shown.take(Bytes::from_static(bytes)));
            }
            assert_eq!((seen.as_slice(), shown.received()), (&b"DRAwing"[..], 104));
        }
    }

    #[test]
    fn a_machine_that_has_less_than_was_asked_for_redraws_and_goes_on_from_there() {
        let mut shown = Shown::default();
        shown.attach(&attached(900, 2), Some(100));
        assert_eq!(shown.take(Bytes::from_static(b"xxab")), "xxab");
        assert_eq!(shown.received(), 902);
        // Also if it redraws although it has it all.
        shown.attach(&attached(800, 1), Some(902));
        assert_eq!(shown.take(Bytes::from_static(b"xa")), "xa");
        assert_eq!(shown.received(), 801);
    }
}
