//! The audit log on disk: `audit/` in the home.
//!
//! Lines are appended by whichever process of the home has something to record, each under a lock on the directory that
//! is held for one write, so that there is one chain. What waits is written together (group commit), and those who need
//! it on the disk share one sync.
//!
//! What is recorded and how the chain holds is the model's (`malai_model::audit`); when, is `node`'s.

mod error;
mod files;
mod log;
mod read;
#[cfg(test)]
mod tests;

pub use error::AuditError;
pub use files::AuditLimits;
pub use log::{AuditLog, Durability, Urgency, Written};
pub use read::{AuditCheck, AuditFiles, FileLine, check};
