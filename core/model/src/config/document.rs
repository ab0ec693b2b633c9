//! The first pass: text → TOML document with the place of everything, and the list of findings.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

use crate::diagnostic::{Diagnostic, Position, Severity};

/// The largest config file in bytes; a longer one is refused unread.
pub const MAX_CONFIG_BYTES: usize = 4 * 1024 * 1024;

/// How many findings of one kind a file may cause before the rest is only counted.
const MAX_FINDINGS: usize = 1_000;

/// How many name comparisons one file may cause in search of the nearest known word.
const MAX_COMPARISONS: usize = 400_000;

/// A place in the text, in bytes.
pub(crate) type Span = Range<usize>;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

impl<T> Spanned<T> {
    pub(crate) fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// A file's text, its name, and where its lines begin.
pub(crate) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Self { file, text, lines: std::iter::once(0).chain(breaks).collect() }
    }

    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// The text of a span, if it is one.
    pub(crate) fn slice(&self, span: &Span) -> Option<&'a str> {
        self.text.get(span.clone())
    }

    /// The index, from 0, of the line that holds a byte.
    fn line_index(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// Where a line begins, and its text without the line break.
    fn line(&self, index: usize) -> (usize, &'a str) {
        let start = self.lines.get(index).copied().unwrap_or(self.text.len());
        let end = self.lines.get(index + 1).copied().unwrap_or(self.text.len());
        let line = self.text.get(start..end).unwrap_or_default();
        (start, line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line)))
    }

    fn diagnostic(&self, severity: Severity, rule: &str, span: Option<&Span>, message: String) -> Diagnostic {
        let mut found = Diagnostic {
            severity,
            rule: rule.to_owned(),
            file: self.file.to_owned(),
            position: None,
            source_line: None,
            length: 1,
            message,
            hint: None,
        };
        let Some(span) = span else { return found };
        let index = self.line_index(span.start.min(self.text.len()));
        let (start, line) = self.line(index);
        // A byte offset that is no character boundary cannot be sliced at: go back to one.
        let mut at = span.start.saturating_sub(start).min(line.len());
        while !line.is_char_boundary(at) {
            at -= 1;
        }
        let mut end = span.end.saturating_sub(start).clamp(at, line.len());
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        found.position = Some(Position {
            line: u32::try_from(index + 1).unwrap_or(u32::MAX),
            column: count(&line[..at]).saturating_add(1),
        });
        found.length = count(&line[at..end]).max(1);
        let mut shown: String = line.chars().take(Diagnostic::MAX_LINE).collect();
        if shown.len() < line.len() {
            shown.push('…');
        }
        found.source_line = Some(shown);
        found
    }
}

/// Collects what is wrong with one file.
pub(crate) struct Findings<'a> {
    source: &'a Source<'a>,
    list: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
    comparisons_left: usize,
    /// Values of a wrong kind: what their placeholders get wrong is not worth a second finding.
    wrong: HashSet<Span>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(source: &'a Source<'a>) -> Self {
        Self {
            source,
            list: Vec::new(),
            errors: 0,
            warnings: 0,
            comparisons_left: MAX_COMPARISONS,
            wrong: HashSet::new(),
        }
    }

    pub(crate) fn source(&self) -> &'a Source<'a> {
        self.source
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Notes an error at a place.
    pub(crate) fn error(&mut self, rule: &str, span: &Span, message: String, hint: Option<String>) {
        self.add(Severity::Error, rule, Some(span), message, hint);
    }

    /// Notes a value of a wrong kind. Further errors of the same value are not noted.
    pub(crate) fn wrong_kind(&mut self, span: &Span, message: String, hint: Option<String>) {
        self.error("wrong-kind", span, message, hint);
        self.wrong.insert(span.clone());
    }

    /// Notes an error about the whole file.
    pub(crate) fn error_of_file(&mut self, rule: &str, message: String, hint: Option<String>) {
        self.add(Severity::Error, rule, None, message, hint);
    }

    /// Notes a warning at a place.
    pub(crate) fn warning(&mut self, rule: &str, span: &Span, message: String, hint: Option<String>) {
        self.add(Severity::Warning, rule, Some(span), message, hint);
    }

    fn add(
        &mut self,
        severity: Severity,
        rule: &str,
        span: Option<&Span>,
        message: String,
        hint: Option<String>,
    ) {
        if span.is_some_and(|span| self.wrong.contains(span)) {
            return;
        }
        let counter = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *counter += 1;
        if *counter <= MAX_FINDINGS {
            let mut found = self.source.diagnostic(severity, rule, span, message);
            found.hint = hint;
            self.list.push(found);
        }
    }

    /// The known word nearest to an unknown one, as `did you mean …`; nothing if none is near.
    ///
    /// A file with very many unknown words gets no further suggestions: the search would take longer than it is worth.
    pub(crate) fn suggest<'k>(
        &mut self,
        unknown: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) -> Option<String> {
        nearest(unknown, known, &mut self.comparisons_left).map(|word| format!("did you mean {word:?}?"))
    }

    /// The findings, by place in the file.
    pub(crate) fn into_list(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|found| found.position);
        for (severity, count) in [(Severity::Error, self.errors), (Severity::Warning, self.warnings)] {
            if let Some(more) = count.checked_sub(MAX_FINDINGS).filter(|more| *more > 0) {
                let message = format!("{more} more of this severity are not shown");
                self.list.push(self.source.diagnostic(severity, "too-many-findings", None, message));
            }
        }
        self.list
    }
}

/// Finds the known word that is nearest to `unknown`, if one is near enough to be meant.
pub(crate) fn nearest<'k>(
    unknown: &str,
    known: impl IntoIterator<Item = &'k str>,
    comparisons_left: &mut usize,
) -> Option<&'k str> {
    if unknown.len() > 80 {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for word in known {
        *comparisons_left = comparisons_left.checked_sub(1)?;
        // Transpositions are the commonest slip, so they count as one.
        let distance = strsim::osa_distance(unknown, word);
        let limit = (unknown.chars().count().max(3) / 3).max(1);
        if distance <= limit && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, word));
        }
    }
    best.map(|(_, word)| word)
}

/// How many entries of tables the parser may move for sections that stand behind their own sub-sections.
const MAX_MOVES: usize = 60_000_000;

/// Says whether the parser would take very long: for `[a.b]` behind `[a.b.c]` it moves all that stands in `a`, which for
/// tens of thousands of such sections takes minutes.
///
/// Counts by lines that look like headers, a few of which may stand in a string: that only matters in a file that has
/// thousands of them out of order.
fn is_too_disordered(text: &str) -> bool {
    let mut children: HashMap<u64, usize> = HashMap::new();
    let mut moves = 0_usize;
    for line in text.lines() {
        let Some(path) = line.trim_start().strip_prefix('[') else { continue };
        let path = path.split(']').next().unwrap_or_default().trim_start_matches('[');
        let mut hasher = DefaultHasher::new();
        let mut parent = hasher.finish();
        let mut is_new = true;
        // The parser takes no deeper path.
        for part in path.split('.').take(100) {
            parent = hasher.finish();
            part.trim().trim_matches(['"', '\'']).hash(&mut hasher);
            is_new = !children.contains_key(&hasher.finish());
            if is_new {
                children.insert(hasher.finish(), 0);
                *children.entry(parent).or_default() += 1;
            }
        }
        if !is_new {
            moves = moves.saturating_add(children.get(&parent).copied().unwrap_or_default());
        }
    }
    moves > MAX_MOVES
}

/// Reads the text as TOML; `None` if it is larger or more disordered than is read.
pub(crate) fn read_toml(text: &str) -> Option<Result<toml_edit::Document<&str>, toml_edit::TomlError>> {
    if text.len() > MAX_CONFIG_BYTES || is_too_disordered(text) {
        return None;
    }
    Some(toml_edit::Document::parse(text))
}

/// Parses the text. TOML itself allows one syntax error to be found; it is reported with how to mend it.
pub(crate) fn parse<'a>(findings: &mut Findings<'a>) -> Option<toml_edit::Document<&'a str>> {
    let text = findings.source.text();
    if text.len() > MAX_CONFIG_BYTES {
        let message =
            format!("the file has {} bytes, and at most {MAX_CONFIG_BYTES} (4 MiB) are read", text.len());
        findings.error_of_file("too-large", message, None);
        return None;
    }
    match read_toml(text) {
        Some(Ok(document)) => Some(document),
        Some(Err(error)) => {
            report_syntax(findings, &error);
            None
        }
        None => {
            let hint = "write each [machine.x] before its [machine.x.command.y]".to_owned();
            let message = "too many sections stand behind their own sub-sections".to_owned();
            findings.error_of_file("out-of-order", message, Some(hint));
            None
        }
    }
}

fn report_syntax(findings: &mut Findings<'_>, error: &toml_edit::TomlError) {
    let span = error.span().unwrap_or_default();
    let source = findings.source;
    let (start, line) = source.line(source.line_index(span.start));
    let message = error.message();
    if message.starts_with("duplicate key") {
        let key = source.slice(&span).unwrap_or_default();
        let (text, hint) = if line.trim_start().starts_with('[') {
            (
                format!("the section {} is there twice", line.trim()),
                "merge the two sections into one, or give one another name",
            )
        } else {
            (format!("the key {key:?} is there twice"), "keep one of the two lines")
        };
        findings.error("syntax", &span, text, Some(hint.to_owned()));
        return;
    }
    if let Some((key, value)) = unquoted(line) {
        let at = start + line.find(value).unwrap_or_default();
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        findings.error(
            "syntax",
            &(at..at + value.len()),
            format!("the value of `{key}` is not in quotes"),
            Some(format!("put the value in quotes: {key} = \"{quoted}\"")),
        );
        return;
    }
    let hint = if message.starts_with("invalid basic string") || message.starts_with("invalid literal string")
    {
        Some("close the quote on the same line; inside double quotes write \\\\ for \\ and \\\" for \"")
    } else if message.starts_with("unexpected key or value") && line.contains('"') {
        Some("inside double quotes write \\\" for a quote, or put the whole value in single quotes")
    } else if message.starts_with("key with no value") {
        Some("write `key = \"value\"`; a section's name stands in brackets: [machine.web01]")
    } else if message.starts_with("unclosed table") || message.starts_with("unclosed array table") {
        Some("close the section's name with ]")
    } else if message.starts_with("missing comma") || message.starts_with("unclosed array") {
        Some("separate a list's values with commas and close it with ]")
    } else {
        None
    };
    findings.error("syntax", &span, format!("this is no TOML: {message}"), hint.map(str::to_owned));
}

/// Recognises `key = some words` without quotes, the commonest slip. Returns the key and the words.
fn unquoted(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    let value = value.split(" #").next().unwrap_or_default().trim();
    let plain_key =
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    // What begins like a TOML value is a slip of another kind.
    let first = value.chars().next()?;
    if !plain_key || matches!(first, '"' | '\'' | '[' | '{' | '#') {
        return None;
    }
    let parses = ["true", "false", "inf", "nan"].contains(&value)
        || (value.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+')
            && value.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'_' | b'.' | b':')));
    (!parses).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, span: Span) -> (u32, u32, u32) {
        let found = Source::new("f", text).diagnostic(Severity::Error, "r", Some(&span), String::new());
        let at = found.position.expect("a place");
        (at.line, at.column, found.length)
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(place("ä = 1\nöü = 22\n", 12..14), (2, 4, 2));
        assert_eq!(place("a\r\nb", 3..4), (2, 1, 1));
        assert_eq!(place("", 0..0), (1, 1, 1));
        assert_eq!(place("a\n", 2..2), (2, 1, 1));
        // Past the end, and inside a character: still a place.
        assert_eq!(place("ä", 1..9), (1, 1, 1));
    }

    #[test]
    fn a_span_over_lines_underlines_the_first_only() {
        assert_eq!(place("x = [\n 1,\n]\n", 4..11), (1, 5, 1));
    }

    #[test]
    fn the_nearest_word_is_near() {
        let mut left = 100;
        assert_eq!(nearest("alow_from", ["allow_from", "allow_shell"], &mut left), Some("allow_from"));
        assert_eq!(nearest("id25", ["id52"], &mut left), Some("id52"));
        assert_eq!(nearest("colour", ["port", "host"], &mut left), None);
        assert_eq!(nearest("prot", ["port"], &mut 0), None);
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        for text in [format!("a={}", "[".repeat(200_000)), format!("{}a=1", "a.".repeat(100_000))] {
            let source = Source::new("f", &text);
            let mut findings = Findings::new(&source);
            assert!(parse(&mut findings).is_none());
            assert!(findings.has_errors());
        }
    }
}
