//! What is wrong with a file, where, and how to mend it: as data, so that every front can show it its own way.

use serde::{Deserialize, Serialize};

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
