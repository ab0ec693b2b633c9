//! Reads one table of a file by kinds of value. Every wrong kind is a finding, none stops the reading.

use toml_edit::{Item, Key, TableLike, Value};

use super::document::{Findings, Span, Spanned};

/// Whose file it is, and so what an unknown key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Written by a person on this device: an unknown key is a slip, and an error.
    Master,
    /// Written by a manager that may be newer: an unknown key may restrict a rule in a way that this version does not
    /// know, so the rule that holds it denies. The file itself is never rejected for it.
    Personalised,
}

/// A list as it is written: a comma-separated string or an array.
pub(crate) type RawList = Spanned<Vec<Spanned<String>>>;

/// A string, or an array of strings, where the two mean different things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RawText {
    One(Spanned<String>),
    Many(RawList),
}

pub(crate) struct Reader<'f, 'a> {
    pub(crate) findings: &'f mut Findings<'a>,
    pub(crate) mode: Mode,
}

/// The keys of a table with their values, in the order of the file.
pub(crate) fn entries(table: &dyn TableLike) -> impl Iterator<Item = (&Key, &Item)> {
    table.iter().filter_map(|(key, _)| table.get_key_value(key))
}

pub(crate) fn key_span(key: &Key) -> Span {
    key.span().unwrap_or_default()
}

pub(crate) fn spanned_key(key: &Key) -> Spanned<String> {
    Spanned::new(key.get().to_owned(), key_span(key))
}

/// Where a value stands; a table that no header names stands where its key is.
pub(crate) fn item_span(key: &Key, item: &Item) -> Span {
    item.span().unwrap_or_else(|| key_span(key))
}

fn kind(item: &Item) -> &'static str {
    match item {
        Item::None => "nothing",
        Item::Value(Value::String(_)) => "a string",
        Item::Value(Value::Integer(_)) => "a number",
        Item::Value(Value::Float(_)) => "a number with a fraction",
        Item::Value(Value::Boolean(_)) => "true or false",
        Item::Value(Value::Datetime(_)) => "a date",
        Item::Value(Value::Array(_)) => "a list",
        Item::Value(Value::InlineTable(_)) | Item::Table(_) => "a section",
        Item::ArrayOfTables(_) => "a list of sections ([[…]])",
    }
}

impl Reader<'_, '_> {
    fn wrong_kind(&mut self, key: &Key, item: &Item, wanted: &str, example: &str) {
        let name = key.get();
        self.findings.wrong_kind(
            &item_span(key, item),
            format!("{name:?} wants {wanted}, this is {}", kind(item)),
            Some(format!("for example: {name} = {example}")),
        );
    }

    /// A section below `path`, such as `[machine.web01]`.
    pub(crate) fn section<'t>(&mut self, path: &str, key: &Key, item: &'t Item) -> Option<&'t dyn TableLike> {
        if let Some(table) = item.as_table_like() {
            return Some(table);
        }
        let name = key.get();
        let (message, hint) = if item.is_array_of_tables() {
            (
                format!("[[{path}.{name}]] is a list of sections"),
                format!("write single brackets: [{path}.{name}]"),
            )
        } else {
            (
                format!("{name:?} stands in [{path}], which holds sections only"),
                format!("write it below a section with a name: [{path}.<name>]"),
            )
        };
        self.findings.error("wrong-kind", &item_span(key, item), message, Some(hint));
        None
    }

    /// A top-level section.
    pub(crate) fn root_section<'t>(&mut self, key: &Key, item: &'t Item) -> Option<&'t dyn TableLike> {
        let table = item.as_table_like();
        if table.is_none() {
            let name = key.get();
            self.findings.error(
                "wrong-kind",
                &item_span(key, item),
                format!("{name:?} is a section, this is {}", kind(item)),
                Some(format!("write [{name}] or [{name}.<name>] on a line of its own")),
            );
        }
        table
    }

    /// A string; of a wrong kind it is noted, and an empty one stands in its place, so that the key is not missing too.
    pub(crate) fn string(&mut self, key: &Key, item: &Item) -> Option<Spanned<String>> {
        match item.as_str() {
            Some(text) => Some(Spanned::new(text.to_owned(), item_span(key, item))),
            None => {
                let example = match item.as_value() {
                    Some(Value::Integer(n)) => format!("\"{}\"", n.value()),
                    Some(Value::Float(n)) => format!("\"{}\"", n.value()),
                    _ => "\"text\"".to_owned(),
                };
                self.wrong_kind(key, item, "a string", &example);
                Some(Spanned::new(String::new(), item_span(key, item)))
            }
        }
    }

    pub(crate) fn boolean(&mut self, key: &Key, item: &Item) -> Option<Spanned<bool>> {
        match item.as_bool() {
            Some(value) => Some(Spanned::new(value, item_span(key, item))),
            None => {
                self.wrong_kind(key, item, "true or false", "true");
                Some(Spanned::new(false, item_span(key, item)))
            }
        }
    }

    pub(crate) fn integer(&mut self, key: &Key, item: &Item) -> Option<Spanned<i64>> {
        match item.as_integer() {
            Some(value) => Some(Spanned::new(value, item_span(key, item))),
            None => {
                let example = item.as_str().filter(|s| s.parse::<i64>().is_ok()).unwrap_or("8080");
                self.wrong_kind(key, item, "a whole number without quotes", example);
                Some(Spanned::new(0, item_span(key, item)))
            }
        }
    }

    /// A string or an array of strings, undivided.
    pub(crate) fn text(&mut self, key: &Key, item: &Item) -> Option<RawText> {
        if let Some(text) = item.as_str() {
            return Some(RawText::One(Spanned::new(text.to_owned(), item_span(key, item))));
        }
        let Some(array) = item.as_array() else {
            self.wrong_kind(key, item, "a string or a list of strings", "[\"one\", \"two\"]");
            return Some(RawText::Many(Spanned::new(Vec::new(), item_span(key, item))));
        };
        let mut words = Vec::with_capacity(array.len());
        for value in array {
            let span = value.span().unwrap_or_else(|| item_span(key, item));
            match value.as_str() {
                Some(word) => words.push(Spanned::new(word.to_owned(), span)),
                None => self.findings.error(
                    "wrong-kind",
                    &span,
                    format!("each word of {:?} is a string", key.get()),
                    Some("put it in quotes".to_owned()),
                ),
            }
        }
        Some(RawText::Many(Spanned::new(words, item_span(key, item))))
    }

    /// A list: a comma-separated string or an array. Words are trimmed; empty ones are errors.
    pub(crate) fn list(&mut self, key: &Key, item: &Item) -> Option<RawList> {
        let mut list = match self.text(key, item)? {
            RawText::Many(list) => list,
            RawText::One(text) => self.split_commas(text),
        };
        for word in &mut list.value {
            let trimmed = word.value.trim();
            if trimmed.is_empty() {
                self.findings.error(
                    "empty-word",
                    &word.span,
                    format!("the list {:?} has an empty word", key.get()),
                    Some("remove the comma that is too many".to_owned()),
                );
            } else if trimmed.len() != word.value.len() {
                word.value = trimmed.to_owned();
            }
        }
        list.value.retain(|word| !word.value.trim().is_empty());
        Some(list)
    }

    fn split_commas(&self, text: Spanned<String>) -> RawList {
        let Spanned { value, span } = text;
        // An empty string is an empty list, as [] is: nobody.
        if value.trim().is_empty() {
            return Spanned::new(Vec::new(), span);
        }
        // Words have places of their own only if the text stands in the file as it is, without escapes.
        let inner = span.start + 1..span.end.saturating_sub(1);
        let plain = self.findings.source().slice(&inner) == Some(value.as_str());
        let mut words = Vec::new();
        let mut at = 0;
        for part in value.split(',') {
            let lead = part.len() - part.trim_start().len();
            let word = part.trim();
            let place = if plain {
                let start = inner.start + at + lead;
                start..start + word.len()
            } else {
                span.clone()
            };
            words.push(Spanned::new(word.to_owned(), place));
            at += part.len() + 1;
        }
        Spanned::new(words, span)
    }

    /// Notes a key that the section does not have: an error in a file of our own, a warning in a manager's.
    pub(crate) fn unknown(&mut self, section: &str, key: &Key, item: &Item, known: &[&str]) {
        let name = key.get();
        let hint = self.findings.suggest(name, known.iter().copied());
        let what = if item.is_table_like() { "section" } else { "key" };
        let place = if section.is_empty() { "the file".to_owned() } else { format!("[{section}]") };
        match self.mode {
            Mode::Master => {
                let hint = hint.unwrap_or_else(|| format!("known here: {}", known.join(", ")));
                let message = format!("{place} has no {what} {name:?}");
                self.findings.error("unknown-key", &key_span(key), message, Some(hint));
            }
            Mode::Personalised => self.findings.warning(
                "unknown-key",
                &key_span(key),
                format!("{place} has the {what} {name:?}, which this version does not know"),
                Some("what it belongs to denies until this machine runs a newer malai".to_owned()),
            ),
        }
    }

    /// Notes an older form and shows the new one.
    pub(crate) fn older(&mut self, span: &Span, old: &str, new: &str) {
        self.findings.warning(
            "older-form",
            span,
            format!("{old} is an older form"),
            Some(format!("write {new}")),
        );
    }
}
