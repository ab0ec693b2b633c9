//! malai's core for Swift, Kotlin and Python.
//!
//! Responsible for turning `malai_core::api` into objects, records and errors that UniFFI can carry, and for
//! the runtime that the core works on. Not for any decision: a method asks the client and converts the
//! answer. The docs of exported items become the docs of the Swift, Kotlin and Python modules, so they speak
//! to app developers.

mod cluster;
mod command;
mod engine;
mod error;
mod invite;
mod malai;
mod options;
mod output;
mod runtime;

pub use cluster::{Cluster, ClusterRole, HomeInfo, JoinedCluster, Machine, RescanOutcome, SyncOutcome};
pub use command::CommandHandle;
pub use error::{Failure, MalaiError};
pub use invite::{Invite, InviteOptions, NewInvite};
pub use malai::Malai;
pub use options::MalaiOptions;
pub use output::{CommandEvent, CommandSignal};

uniffi::setup_scaffolding!();

/// Returns the library's version, such as `0.1.0`.
#[uniffi::export]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
