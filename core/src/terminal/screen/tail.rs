//! What was half said: the bytes of an escape sequence or character that is not complete yet.
//!
//! Follows the sequences as the parser does, for two reasons. Whoever is shown the screen in the middle of one has to
//! get its beginning, or its rest would be shown as text. And the parser would keep an endless one in memory.

/// The longest sequence with text in it that is given to the parser, in bytes.
const MAX_TEXT: usize = 8 * 1024;
/// How much of another endless sequence is repeated, in bytes: the rest of it has no effect.
const MAX_OTHER: usize = 256;
/// What stands for the beginning of a text that was too long: nobody knows it.
const SWALLOWED: &[u8] = b"\x1b]7777;";

const ESC: u8 = 0x1b;
const DEL: u8 = 0x7f;
const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
/// The longest sequence that repeats a character: its introducer and three digits, as many as a line can take.
const MAX_REPETITION: usize = 2 + 3;
/// What ends the control sequence that repeats a character.
const REPEAT: u8 = b'b';

/// What is half said.
#[derive(Debug, Default)]
pub(super) struct Tail {
    state: State,
    bytes: Vec<u8>,
    after_character: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    Intermediate,
    Csi,
    /// An operating system command: the parser keeps its text.
    Text,
    /// One that was too long: the rest is dropped.
    Swallowing,
    /// Strings that the parser passes over.
    Other,
}

impl Tail {
    /// The bytes that a terminal needs to be where this one is.
    pub(super) fn bytes(&self) -> &[u8] {
        if self.state == State::Swallowing { SWALLOWED } else { &self.bytes }
    }

    /// Whether the last whole thing said was a character, or such a one repeated: only then it can be repeated (REP). Some
    /// terminals repeat across other sequences and others do not, the parser among the first; none could be brought to
    /// where that begins, so it is left out here.
    pub(super) fn is_after_character(&self) -> bool {
        self.after_character
    }

    /// From here on nothing is to be repeated.
    pub(super) fn forget_character(&mut self) {
        self.after_character = false;
    }

    /// Hands bytes on to the parser, but for what is too long. Half a character waits for its rest: the parser loses what
    /// stands behind one.
    pub(super) fn pass(&mut self, bytes: &[u8], mut parse: impl FnMut(&[u8])) {
        let joined;
        let mut bytes = bytes;
        if self.state == State::Ground && !self.bytes.is_empty() && !bytes.is_empty() {
            joined = [std::mem::take(&mut self.bytes).as_slice(), bytes].concat();
            bytes = &joined;
        }
        while !bytes.is_empty() {
            let repeats = self.after_character && self.bytes.len() <= MAX_REPETITION;
            if self.state == State::Csi && bytes[0] == REPEAT && !repeats {
                self.enter(State::Ground);
                parse(&[CAN]);
                bytes = &bytes[1..];
                continue;
            }
            let rest = match self.state {
                State::Ground => self.ground(bytes),
                State::Text => self.text(bytes, &mut parse),
                State::Swallowing => self.swallow(bytes),
                _ => self.sequence(bytes),
            };
            let (done, left) = bytes.split_at(bytes.len() - rest);
            let waiting = if self.state == State::Ground { self.bytes.len() } else { 0 };
            let done = &done[..done.len() - waiting];
            if self.state != State::Swallowing && !done.is_empty() {
                parse(done);
            }
            bytes = left;
        }
    }

    /// Passes over plain text up to and with the next escape; returns how many bytes are left.
    fn ground(&mut self, bytes: &[u8]) -> usize {
        match bytes.iter().position(|byte| *byte == ESC) {
            Some(at) => {
                self.note_character(&bytes[..at]);
                self.enter(State::Escape);
                self.bytes.push(ESC);
                bytes.len() - at - 1
            }
            None => {
                self.keep_half_character(bytes);
                self.note_character(&bytes[..bytes.len() - self.bytes.len()]);
                0
            }
        }
    }

    fn note_character(&mut self, text: &[u8]) {
        self.after_character = match *text {
            [] => return,
            // The controls of the second set.
            [.., 0xc2, 0x80..=0x9f] => false,
            [.., byte] => byte >= b' ' && byte != DEL,
        };
    }

    fn keep_half_character(&mut self, bytes: &[u8]) {
        // At most three bytes of a character may be missing their rest.
        let last = &bytes[bytes.len().saturating_sub(3)..];
        for start in (0..last.len()).rev() {
            let whole = match last[start] {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                0x80..=0xbf => continue,
                _ => return,
            };
            if last.len() - start < whole {
                self.bytes.extend_from_slice(&last[start..]);
            }
            return;
        }
    }

    fn enter(&mut self, state: State) {
        if self.state != State::Ground {
            self.after_character = false;
        }
        self.state = state;
        self.bytes.clear();
    }

    fn sequence(&mut self, bytes: &[u8]) -> usize {
        let byte = bytes[0];
        let next = match (self.state, byte) {
            (_, ESC) => {
                self.enter(State::Escape);
                State::Escape
            }
            (_, CAN | SUB) => State::Ground,
            (State::Escape, b'[') => State::Csi,
            (State::Escape, b']') => State::Text,
            (State::Escape, b'P' | b'X' | b'^' | b'_') => State::Other,
            (State::Escape, 0x20..=0x2f) => State::Intermediate,
            (State::Escape | State::Intermediate, 0x30..=0x7e) => State::Ground,
            (State::Csi, 0x40..=0x7e) => State::Ground,
            (state, _) => state,
        };
        if next == State::Ground {
            let repeated = self.after_character && self.state == State::Csi && byte == REPEAT;
            self.enter(State::Ground);
            self.after_character = repeated;
        } else {
            if byte < b' ' && byte != ESC {
                self.after_character = false;
            }
            self.state = next;
            // Controls within a sequence have taken effect already.
            if self.bytes.len() < MAX_OTHER && (byte >= b' ' || byte == ESC) {
                self.bytes.push(byte);
            }
        }
        bytes.len() - 1
    }

    /// Passes over a text; one that is too long is cut off for the parser.
    fn text(&mut self, bytes: &[u8], parse: &mut impl FnMut(&[u8])) -> usize {
        let end = bytes.iter().position(|byte| matches!(*byte, ESC | BEL | CAN | SUB));
        let length = end.unwrap_or(bytes.len());
        if self.bytes.len() + length > MAX_TEXT {
            parse(&[CAN]);
            self.enter(State::Swallowing);
            return bytes.len() - length;
        }
        match end.map(|end| bytes[end]) {
            None => {
                self.bytes.extend_from_slice(bytes);
                0
            }
            Some(ESC) => {
                self.enter(State::Escape);
                self.bytes.push(ESC);
                bytes.len() - length - 1
            }
            Some(_) => {
                self.enter(State::Ground);
                bytes.len() - length - 1
            }
        }
    }

    fn swallow(&mut self, bytes: &[u8]) -> usize {
        match bytes.iter().position(|byte| matches!(*byte, ESC | BEL | CAN | SUB)) {
            // Nothing of it is for the parser, but the escape may begin the next.
            Some(at) if bytes[at] == ESC && at == 0 => {
                self.enter(State::Escape);
                self.bytes.push(ESC);
                bytes.len() - 1
            }
            Some(at) if bytes[at] == ESC => bytes.len() - at,
            Some(0) => {
                self.enter(State::Ground);
                bytes.len() - 1
            }
            Some(at) => bytes.len() - at,
            None => 0,
        }
    }
}
