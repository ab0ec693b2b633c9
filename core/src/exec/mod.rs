//! Running commands: the caller's side, and with feature `host` the target's.
//!
//! Responsible for the bytes, signals and statuses between a caller and a process. Not for who may run what
//! (`malai_model::acl`), and not for how peers find each other (`crate::p2p`).

mod caller;
#[cfg(unix)]
pub mod copy;
mod error;
#[cfg(all(feature = "host", unix))]
mod target;

pub use caller::{CommandControl, CommandEvent, CommandInput, CommandOutput, RunningCommand};
pub use error::ExecError;
#[cfg(all(feature = "host", unix))]
pub use target::{ExecTarget, TargetOutcome};
