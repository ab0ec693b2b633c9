//! What a check of the audit log came to.

use serde::{Deserialize, Serialize};

/// A check of the chain over all files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCheckView {
    /// Whether it holds from the first line to the last, and still has the record that was to be in it.
    pub whole: bool,
    /// How many files there are.
    pub files: u64,
    /// How many records there are.
    pub records: u64,
    /// The number of the first; more than 1 if older files are gone.
    pub first: Option<u64>,
    /// The number of the last and its digest, as `number:digest`: what to keep elsewhere, to tell later whether it is
    /// still part of the chain.
    pub end: Option<String>,
    /// How often it breaks.
    pub breaks: u64,
    /// The first break.
    pub first_break: Option<AuditBreakView>,
    /// What became of the record that was to be in it; absent if none was named, or if it is there.
    pub known: Option<KnownRecord>,
    /// The last line was cut off, by a crash: whoever writes next removes it. No break.
    pub torn: bool,
}

/// Where a chain breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditBreakView {
    /// The file.
    pub file: String,
    /// The line in it, from 1.
    pub line: u64,
    /// The number of its record, if it can be read.
    pub record: Option<u64>,
    /// What is wrong.
    pub problem: String,
}

/// A record that was to be in a chain, and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KnownRecord {
    /// Another one has its number.
    Changed,
    /// The chain ends before it.
    CutOff,
    /// The chain begins behind it: its file was removed, as old ones are.
    TooOld,
}
