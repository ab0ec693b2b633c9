//! What a session has done to the terminal, so that it can be undone: a program that was cut off, or left, never says
//! goodbye to the alternate screen.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Private modes that are off in a sane terminal and undone by switching them off.
const OFF: &[u16] = &[1, 6, 9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2026];
/// Private modes that are on in a sane terminal.
const ON: &[u16] = &[7, 25];
/// The alternate screen's.
const ALTERNATE: &[u16] = &[47, 1047, 1049];
/// The longest parameters that are looked at; longer ones are no mode's.
const MOST: usize = 128;

/// Follows a terminal's output and knows what is to be undone.
#[derive(Debug, Default)]
pub(crate) struct Modes {
    state: State,
    parameters: Vec<u8>,
    /// Private modes that are not as they should be.
    changed: BTreeSet<u16>,
    alternate: Option<u16>,
    /// Colours and attributes.
    painted: bool,
    margins: bool,
    insert: bool,
    keypad: bool,
    charset: bool,
    cursor_style: bool,
    /// How many levels of the kitty keyboard protocol are pushed.
    keyboard: u16,
    other_keys: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    /// After ESC and a byte that says which character set.
    Charset,
    Control,
    /// In a string that ends with BEL or ESC \.
    Text,
    TextEscape,
}

impl Modes {
    /// Looks at output.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.state == State::Ground {
                // All but a few bytes of bulk output end here.
                let Some(at) = bytes.iter().position(|byte| matches!(byte, 0x1b | 0x0e | 0x0f)) else {
                    return;
                };
                match bytes[at] {
                    0x1b => self.state = State::Escape,
                    shift => self.charset = shift == 0x0e,
                }
                bytes = &bytes[at + 1..];
                continue;
            }
            self.step(bytes[0]);
            bytes = &bytes[1..];
        }
    }

    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            // CAN and SUB end any sequence, and ESC begins another.
            (State::Text, 0x1b) => State::TextEscape,
            (_, 0x18 | 0x1a) => State::Ground,
            (State::TextEscape, b'\\') => State::Ground,
            (State::TextEscape, _) => {
                self.state = State::Escape;
                return self.step(byte);
            }
            (_, 0x1b) => State::Escape,
            (State::Escape, b'[') => {
                self.parameters.clear();
                State::Control
            }
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::Text,
            (State::Escape, b'(' | b')') => State::Charset,
            (State::Escape, 0x20..=0x2f) => State::Escape,
            (State::Escape, final_byte) => {
                match final_byte {
                    b'=' => self.keypad = true,
                    b'>' => self.keypad = false,
                    b'c' => *self = Self::default(),
                    _ => {}
                }
                State::Ground
            }
            (State::Charset, set) => {
                self.charset = set != b'B';
                State::Ground
            }
            (State::Control, 0x20..=0x3f) => {
                if self.parameters.len() < MOST {
                    self.parameters.push(byte);
                }
                State::Control
            }
            (State::Control, 0x40..=0x7e) => {
                let parameters = std::mem::take(&mut self.parameters);
                self.control(&parameters, byte);
                self.parameters = parameters;
                State::Ground
            }
            (State::Text, 0x07) => State::Ground,
            (state, _) => state,
        };
    }

    fn control(&mut self, parameters: &[u8], last: u8) {
        let numbers = |from: usize| {
            let text = std::str::from_utf8(&parameters[from..]).unwrap_or("");
            text.split(';').map(|number| number.parse::<u16>().unwrap_or(0)).collect::<Vec<_>>()
        };
        match (parameters, last) {
            ([b'?', ..], b'h' | b'l') => {
                numbers(1).into_iter().for_each(|mode| self.mode(mode, last == b'h'));
            }
            ([b'>', ..], b'u') => self.keyboard = self.keyboard.saturating_add(1),
            ([b'<', ..], b'u') => {
                let levels = numbers(1).first().copied().unwrap_or(1).max(1);
                self.keyboard = self.keyboard.saturating_sub(levels);
            }
            ([b'>', ..], b'm') => self.other_keys = numbers(1).get(1).is_some_and(|level| *level > 0),
            ([b'?' | b'>' | b'<' | b'=', ..], _) => {}
            (_, b'm') => self.painted = !matches!(parameters, b"" | b"0"),
            (_, b'r') => self.margins = !parameters.is_empty(),
            (_, b'h' | b'l') if numbers(0).contains(&4) => self.insert = last == b'h',
            ([.., b' '], b'q') => self.cursor_style = !matches!(parameters, b" " | b"0 "),
            (b"!", b'p') => {
                let (alternate, keyboard) = (self.alternate, self.keyboard);
                let changed =
                    self.changed.iter().filter(|mode| **mode >= 9 && **mode != 25).copied().collect();
                *self = Self { alternate, keyboard, changed, ..Self::default() };
            }
            _ => {}
        }
    }

    fn mode(&mut self, mode: u16, on: bool) {
        if ALTERNATE.contains(&mode) {
            self.alternate = on.then_some(mode);
        } else if OFF.contains(&mode) && on || ON.contains(&mode) && !on {
            self.changed.insert(mode);
        } else {
            self.changed.remove(&mode);
        }
    }

    /// Returns what undoes everything; empty if nothing is to be undone.
    pub(crate) fn undo(&self) -> String {
        let mut text = String::new();
        if self.state != State::Ground {
            // Ends whatever was cut off in the middle.
            text.push('\x18');
            if matches!(self.state, State::Text | State::TextEscape) {
                text.push_str("\x1b\\");
            }
        }
        if self.keyboard > 0 {
            _ = write!(text, "\x1b[<{}u", self.keyboard);
        }
        if self.other_keys {
            text.push_str("\x1b[>4;0m");
        }
        for mode in &self.changed {
            // Leaving origin mode moves the cursor.
            match mode {
                6 => text.push_str("\x1b7\x1b[?6l\x1b8"),
                mode if ON.contains(mode) => _ = write!(text, "\x1b[?{mode}h"),
                mode => _ = write!(text, "\x1b[?{mode}l"),
            }
        }
        for (is, undo) in [
            // So does a change of the margins.
            (self.margins, "\x1b7\x1b[r\x1b8"),
            (self.insert, "\x1b[4l"),
            (self.keypad, "\x1b>"),
            (self.charset, "\x1b(B\x0f"),
            (self.cursor_style, "\x1b[0 q"),
            (self.painted, "\x1b[0m"),
        ] {
            if is {
                text.push_str(undo);
            }
        }
        if let Some(mode) = self.alternate {
            _ = write!(text, "\x1b[?{mode}l");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(output: &[u8]) -> String {
        for piece in 1..6 {
            let mut modes = Modes::default();
            output.chunks(piece).for_each(|piece| modes.feed(piece));
            let mut whole = Modes::default();
            whole.feed(output);
            assert_eq!(modes.undo(), whole.undo(), "in pieces of {piece}");
        }
        let mut modes = Modes::default();
        modes.feed(output);
        modes.undo()
    }

    #[test]
    fn a_program_that_tidies_up_leaves_nothing_to_undo() {
        for output in [
            &b"plain text\r\n"[..],
            b"\x1b[1;31mred\x1b[0m\x1b[32mgreen\x1b[m",
            b"\x1b[?1049h\x1b[?1002;1006h\x1b[?25l\x1b[2;10r\x1b[r\x1b[?25h\x1b[?1002;1006l\x1b[?1049l",
            b"\x1b[?2004h$ exit\r\n\x1b[?2004l",
            b"\x1b]0;a title [?1049h\x07\x1b]8;;http://x/[?25l\x1b\\",
            b"\x1b[?1h\x1b=\x1b[?1l\x1b>",
            b"\x1b[>1u\x1b[<1u\x1b[>4;2m\x1b[>4;0m",
            b"\x1b(0lqk\x1b(B",
            b"\x1b[?25l\x1bc",
        ] {
            assert_eq!(after(output), "", "{output:?}");
        }
    }

    #[test]
    fn what_a_program_left_behind_is_undone() {
        assert_eq!(after(b"\x1b[?1049h\x1b[?25l"), "\x1b[?25h\x1b[?1049l");
        assert_eq!(after(b"\x1b[?1000h\x1b[?1006h\x1b[7m"), "\x1b[?1000l\x1b[?1006l\x1b[0m");
        assert_eq!(after(b"\x1b[?2004h\x1b[3;7r"), "\x1b[?2004l\x1b7\x1b[r\x1b8");
        assert_eq!(after(b"\x1b[>1u\x1b[>5u\x1b[4h\x1b[4 q"), "\x1b[<2u\x1b[4l\x1b[0 q");
        assert_eq!(after(b"\x1b(0\x1b="), "\x1b>\x1b(B\x0f");
    }

    #[test]
    fn a_sequence_that_was_cut_off_is_ended_first() {
        assert_eq!(after(b"text\x1b[38;2;1"), "\x18");
        assert_eq!(after(b"\x1b]0;half a tit"), "\x18\x1b\\");
    }

    #[test]
    fn endless_parameters_are_not_kept() {
        let mut modes = Modes::default();
        modes.feed(b"\x1b[?");
        for _ in 0..10_000 {
            modes.feed(b"1049;");
        }
        assert!(modes.parameters.capacity() <= 2 * MOST);
    }
}
