//! The escape character: what a person says to malai itself, in the middle of typing to a session.

/// The character that begins a word to malai, at the beginning of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EscapeChar {
    Is(u8),
    /// There is none: every byte is the session's.
    None,
}

impl Default for EscapeChar {
    fn default() -> Self {
        Self::Is(b'~')
    }
}

impl std::str::FromStr for EscapeChar {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.as_bytes() {
            b"none" => Ok(Self::None),
            [byte] if byte.is_ascii_graphic() => Ok(Self::Is(*byte)),
            [b'^', letter] if matches!(letter.to_ascii_uppercase(), b'@'..=b'_') => {
                Ok(Self::Is(letter.to_ascii_uppercase() & 0x1f))
            }
            _ => Err("one ASCII character, ^ and a letter for a control character, or none".to_owned()),
        }
    }
}

impl std::fmt::Display for EscapeChar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Is(byte) if byte.is_ascii_graphic() => write!(f, "{}", char::from(*byte)),
            Self::Is(byte) => write!(f, "^{}", char::from(byte | 0x40)),
            Self::None => f.write_str("none"),
        }
    }
}

/// What is said to malai.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// `~.`
    HangUp,
    /// `~d`
    Detach,
    /// `~s`
    Status,
    /// `~r`
    Redraw,
    /// `~^Z`
    Suspend,
    /// `~?`
    Help,
}

/// A part of what was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    /// For the session.
    Bytes(Vec<u8>),
    /// For malai.
    Command(Command),
}

/// Finds what is said to malai in what is typed, wherever reads cut it.
#[derive(Debug)]
pub(crate) struct Escapes {
    escape: EscapeChar,
    /// Whether the next byte begins a line.
    at_start: bool,
    /// Whether the escape character was typed, and is kept back until the next byte says what it means.
    pending: bool,
}

impl Escapes {
    pub(crate) fn new(escape: EscapeChar) -> Self {
        Self { escape, at_start: true, pending: false }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let EscapeChar::Is(escape) = self.escape else { return vec![Typed::Bytes(bytes.to_vec())] };
        let mut parts = Vec::new();
        let mut plain = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if std::mem::take(&mut self.pending) {
                let command = match byte {
                    b'.' => Some(Command::HangUp),
                    b'd' => Some(Command::Detach),
                    b's' => Some(Command::Status),
                    b'r' => Some(Command::Redraw),
                    0x1a => Some(Command::Suspend),
                    b'?' => Some(Command::Help),
                    _ => None,
                };
                if let Some(command) = command {
                    if !plain.is_empty() {
                        parts.push(Typed::Bytes(std::mem::take(&mut plain)));
                    }
                    parts.push(Typed::Command(command));
                    // It is still the beginning of the line.
                    continue;
                }
                plain.push(escape);
                if byte == escape {
                    self.at_start = false;
                    continue;
                }
            } else if self.at_start && byte == escape {
                self.pending = true;
                continue;
            }
            plain.push(byte);
            self.at_start = matches!(byte, b'\r' | b'\n');
        }
        if !plain.is_empty() {
            parts.push(Typed::Bytes(plain));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(escapes: &mut Escapes, text: &[u8], piece: usize) -> (Vec<u8>, Vec<Command>) {
        let (mut bytes, mut commands) = (Vec::new(), Vec::new());
        for part in text.chunks(piece).flat_map(|piece| escapes.feed(piece)) {
            match part {
                Typed::Bytes(part) => bytes.extend(part),
                Typed::Command(command) => commands.push(command),
            }
        }
        (bytes, commands)
    }

    #[test]
    fn it_counts_at_the_beginning_of_a_line_alone_however_reads_cut_it() {
        for (typed, bytes, commands) in [
            (&b"ls\r~."[..], &b"ls\r"[..], &[Command::HangUp][..]),
            (b"~d", b"", &[Command::Detach]),
            (b"\n~?~s\x04", b"\n\x04", &[Command::Help, Command::Status]),
            (b"~~.", b"~.", &[]),
            (b"~~~.\r~~", b"~~.\r~", &[]),
            (b"~/bin\r", b"~/bin\r", &[]),
            (b"a~.", b"a~.", &[]),
            (b"~\r~.", b"~\r", &[Command::HangUp]),
            (b"~\x1a~r", b"", &[Command::Suspend, Command::Redraw]),
            ("ü\r~ü".as_bytes(), "ü\r~ü".as_bytes(), &[]),
        ] {
            for piece in 1..=typed.len() {
                let mut escapes = Escapes::new(EscapeChar::default());
                let found = all(&mut escapes, typed, piece);
                assert_eq!(found, (bytes.to_vec(), commands.to_vec()), "{typed:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn without_one_every_byte_is_the_sessions() {
        let mut escapes = Escapes::new(EscapeChar::None);
        assert_eq!(all(&mut escapes, b"\r~.~~", 2), (b"\r~.~~".to_vec(), vec![]));
        let mut escapes = Escapes::new("^]".parse().expect("reads"));
        assert_eq!(all(&mut escapes, b"~.\r\x1d.", 9), (b"~.\r".to_vec(), vec![Command::HangUp]));
    }

    #[test]
    fn a_character_reads_and_prints() {
        for text in ["~", "^]", "^A", "none", "%"] {
            assert_eq!(text.parse::<EscapeChar>().expect("reads").to_string(), text);
        }
        for text in ["", "~~", "ü", "^", " ", "^1"] {
            assert!(text.parse::<EscapeChar>().is_err() || text == "^", "{text}");
        }
    }
}
