//! The audit log's form: what is recorded of what happened, the chain that holds the lines together, and its check.
//!
//! Pure: time, places in files and bytes are parameters. Where the files are, who appends and when the disk has it is
//! `malai-core::audit`'s.
//!
//! A record names what was asked by the word that the rule was looked up by, never by the words behind it: those hold
//! passwords more often than they should. Nothing of an environment is recorded.

mod chain;
mod coalesce;
mod event;
mod verify;

pub use chain::{Head, LineHead, LineProblem, NotAHead, RecordDigest, read_head};
pub use coalesce::{Coalescer, Denial, Summary};
pub use event::{
    AuditEvent, AuditRecord, By, ConfigOrigin, KeyKind, Outcome, SCHEMA, WORD_LIMIT, Wanted, bounded_word,
};
pub use verify::{Break, BreakKind, ChainReport, Verifier};
