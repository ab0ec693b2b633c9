//! Bytes as lines, with little memory however long a line is.

use bytes::{Bytes, BytesMut};

/// The longest piece of a line, in bytes.
pub const LINE_LIMIT: usize = 64 * 1024;

/// How much of a line a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinePart {
    /// All of it, or the rest; a newline ended it.
    Line,
    /// As much as fits into one piece: the line goes on.
    Cut,
    /// What came after the last newline.
    Unended,
}

/// Makes lines of blocks.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line; shorter than the limit.
    begun: BytesMut,
}

impl Lines {
    /// Takes a block, gives the lines that it ends and the pieces that it fills.
    pub(super) fn push(&mut self, mut block: Bytes, mut each: impl FnMut(Bytes, LinePart)) {
        while !block.is_empty() {
            let room = LINE_LIMIT - self.begun.len();
            // One byte further: a line of just the limit is no piece of a longer one.
            let window = &block[..block.len().min(room + 1)];
            if let Some(at) = window.iter().position(|byte| *byte == b'\n') {
                let end = block.split_to(at + 1).slice(..at);
                each(self.joined(end), LinePart::Line);
            } else if block.len() <= room {
                self.begun.extend_from_slice(&block);
                // A piece that is full is cut when more of the line comes.
                return;
            } else {
                let end = block.split_to(room);
                let mut piece = self.joined(end);
                let cut = character_boundary(&piece);
                self.begun.extend_from_slice(&piece.split_off(cut));
                each(piece, LinePart::Cut);
            }
        }
    }

    /// Gives what is left when nothing more comes.
    pub(super) fn finish(&mut self, each: impl FnOnce(Bytes, LinePart)) {
        if !self.begun.is_empty() {
            each(self.begun.split().freeze(), LinePart::Unended);
        }
    }

    fn joined(&mut self, end: Bytes) -> Bytes {
        if self.begun.is_empty() {
            return end;
        }
        self.begun.extend_from_slice(&end);
        self.begun.split().freeze()
    }
}

/// Where a full piece is cut, so that no character is: at most three bytes before its end.
fn character_boundary(piece: &[u8]) -> usize {
    let is_inside = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    let from = piece.len().saturating_sub(3).max(1);
    let last = (from..piece.len()).rev().find(|at| !is_inside(piece[*at]));
    match last {
        // A character that begins there and is not whole.
        Some(at) if piece[at] >= 0b1100_0000 && std::str::from_utf8(&piece[at..]).is_err() => at,
        _ => piece.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(blocks: &[&[u8]]) -> Vec<(Vec<u8>, LinePart)> {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for block in blocks {
            lines.push(Bytes::copy_from_slice(block), |text, part| all.push((text.to_vec(), part)));
        }
        lines.finish(|text, part| all.push((text.to_vec(), part)));
        all
    }

    #[test]
    fn lines_come_whole_however_the_blocks_fall() {
        let expected = [
            (b"one".to_vec(), LinePart::Line),
            (Vec::new(), LinePart::Line),
            (b"two".to_vec(), LinePart::Unended),
        ];
        assert_eq!(split(&[b"one\n\ntwo"]), expected);
        assert_eq!(split(&[b"o", b"ne", b"\n", b"\nt", b"wo"]), expected);
        assert_eq!(split(&[b"", b"\n"]), [(Vec::new(), LinePart::Line)]);
        assert_eq!(split(&[]), []);
    }

    #[test]
    fn a_line_of_the_limit_is_whole_and_a_longer_one_is_cut() {
        let full = vec![b'x'; LINE_LIMIT];
        assert_eq!(split(&[&full, b"\n"]), [(full.clone(), LinePart::Line)]);
        let longer = [&full[..], b"y\n"].concat();
        let expected = [(full.clone(), LinePart::Cut), (b"y".to_vec(), LinePart::Line)];
        assert_eq!(split(&[&longer]), expected);
        assert_eq!(split(&[&full, b"y\n"]), expected);
    }

    #[test]
    fn a_cut_spares_characters() {
        let before = vec![b'x'; LINE_LIMIT - 2];
        let line = [&before[..], "€!".as_bytes()].concat();
        let expected = [(before, LinePart::Cut), ("€!".as_bytes().to_vec(), LinePart::Unended)];
        assert_eq!(split(&[&line]), expected);
        let broken = [&vec![b'x'; LINE_LIMIT - 1][..], &[0x80; 5]].concat();
        assert_eq!(split(&[&broken])[0].0.len(), LINE_LIMIT, "what is no text is cut anywhere");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_is_lost_or_added_and_no_piece_is_over_the_limit(
            blocks in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..50),
                    (prop_oneof![Just(b'a'), Just(0xe2)], LINE_LIMIT - 3..LINE_LIMIT + 3).prop_map(|(b, n)| vec![b; n]),
                    Just(b"\n".to_vec()),
                ],
                0..8,
            ),
        ) {
            let slices: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
            let mut together = Vec::new();
            for (text, part) in split(&slices) {
                prop_assert!(text.len() <= LINE_LIMIT && !text.contains(&b'\n'));
                together.extend_from_slice(&text);
                if part == LinePart::Line {
                    together.push(b'\n');
                }
            }
            prop_assert_eq!(together, blocks.concat());
        }
    }
}
