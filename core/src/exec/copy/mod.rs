//! Copying files and trees between machines.
//!
//! Two ends, a [`Source`](run_source) and a [`Sink`](run_sink), over two pipes. The machine that was asked runs one of
//! them as a program ([`serve_copy`]), the client the other; or two machines run one each and the client passes their
//! bytes on ([`CopyWatch`]). The language between them is `malai_model::wire::copy`.
//!
//! The ends block: they do little else than read and write files, so they want a thread, not a task. Every access below
//! a root is by one component of a path from a directory that is open, and follows no link: whatever somebody swaps
//! meanwhile, nothing outside a root is read or written. What the roots themselves are called, whoever asked decided
//! ([`Roots`]); whether links lead to them, the rule that lets a caller in ([`PathLinks`]).
//!
//! Not responsible for who may copy (that of a command named `malai-cp`), nor for how the bytes travel.

mod at;
mod channel;
mod delete;
mod error;
mod lanes;
mod links;
mod observe;
mod part;
mod pipe;
mod receive;
mod roots;
mod serve;
mod sink;
mod source;
mod walk;
mod watch;

pub use error::CopyError;
pub use lanes::{LaneHandle, LaneReader, LaneWriter, lanes};
pub use links::{Links, PathLinks};
pub use malai_model::wire::copy::{CopyRole, SinkTotals};
pub use observe::{CopyObserver, CopyProblem, CopyProgress};
pub use pipe::{PipeReader, PipeWriter};
pub use roots::Roots;
pub use serve::{PROGRAM, ServeRequest, serve_copy};
pub use sink::{Compare, Extraneous, SinkRequest, run_sink};
pub use source::{SourceRequest, run_source};
pub use watch::CopyWatch;

#[cfg(test)]
mod tests;
