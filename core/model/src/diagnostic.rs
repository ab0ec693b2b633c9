//! What is wrong with a file, where, and how to mend it: as data, so that every front can show it its own way.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::text::acts;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The file works, but probably not as meant.
    Warning,
    /// The file is refused.
    Error,
}

/// A place in a file. Lines and columns count from 1; columns count characters, not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

/// One finding about a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Whether the file is refused for it.
    pub severity: Severity,
    /// A stable word for what is wrong, such as `unknown-key` or `group-cycle`.
    pub rule: String,
    /// The file's name as the caller gave it.
    pub file: String,
    /// Where; absent if the finding is about the whole file.
    pub position: Option<Position>,
    /// The text of that line, without its line break; shortened if it is very long.
    pub source_line: Option<String>,
    /// How many characters are meant, for underlining; at least 1.
    pub length: u32,
    /// What is wrong, with the offending value.
    pub message: String,
    /// How to mend it, where that is known: the nearest known key, the quoted form.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// How many characters of a source line are kept; the rest is cut off with `…`.
    pub const MAX_LINE: usize = 240;

    /// Says whether the file is refused for it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Renders the finding as plain text of several lines, without a final line break.
    ///
    /// Control characters of the file are shown escaped: a file may come from a peer, and a terminal obeys them.
    pub fn render(&self) -> String {
        let mut out = printable(&self.file);
        if let Some(at) = self.position {
            let _ = write!(out, ":{}:{}", at.line, at.column);
        }
        let word = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let _ = write!(out, ": {word}[{}]: {}", printable(&self.rule), printable(&self.message));
        if let (Some(at), Some(line)) = (self.position, &self.source_line) {
            let gutter = " ".repeat(at.line.to_string().len());
            let _ = write!(out, "\n{gutter} |\n{} | {}", at.line, printable(line));
            let before = usize::try_from(at.column.saturating_sub(1)).unwrap_or(usize::MAX);
            let shown = line.chars().count();
            // A place beyond the kept part of a very long line has nothing to underline.
            if before <= shown {
                let pad: usize = line.chars().take(before).map(printed_width).sum();
                let meant = usize::try_from(self.length.max(1)).unwrap_or(1);
                let mut carets: usize = line.chars().skip(before).take(meant).map(printed_width).sum();
                carets = carets.max(1);
                let _ = write!(out, "\n{gutter} | {}{}", " ".repeat(pad), "^".repeat(carets));
            }
        }
        if let Some(hint) = &self.hint {
            let _ = write!(out, "\n  hint: {}", printable(hint));
        }
        out
    }
}

fn printed_width(c: char) -> usize {
    match c {
        '\t' => 4,
        c if acts(c) => c.escape_unicode().count(),
        _ => 1,
    }
}

/// Escapes what a terminal would obey; a tab becomes four blanks, so that underlines stay in place.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("    "),
            c if acts(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(line: &str, column: u32, length: u32) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            rule: "bad-port".to_owned(),
            file: "cluster.toml".to_owned(),
            position: Some(Position { line: 12, column }),
            source_line: Some(line.to_owned()),
            length,
            message: "port 0 is out of range".to_owned(),
            hint: Some("1 to 65535".to_owned()),
        }
    }

    #[test]
    fn the_underline_stands_below_what_is_meant() {
        insta::assert_snapshot!(finding("\tport = 0", 9, 1).render(), @r"
        cluster.toml:12:9: error[bad-port]: port 0 is out of range
           |
        12 |     port = 0
           |            ^
          hint: 1 to 65535
        ");
    }

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        let text = finding("a\u{1b}[2J\u{202e} = 0", 7, 4).render();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
        assert!(text.contains("\\u{1b}[2J"), "{text}");
    }

    #[test]
    fn a_place_beyond_a_shortened_line_is_not_underlined() {
        assert!(!finding("port = …", 900, 4).render().contains('^'));
    }
}
