//! This device as a host: its users, and processes that run for others.
//!
//! Responsible for starting a program directly, its pipes, its environment, and the end of its process group.
//! Not for whether it may run (`malai_model`'s rules) nor for how its bytes travel (`crate::exec`).

mod environment;
mod error;
mod group;
mod inherit;
mod members;
mod process;
mod program;
mod reaper;
mod user;
mod watch;

pub use environment::{Caller, build_environment, is_passed_on};
pub use error::HostError;
pub use group::ProcessGroup;
pub use inherit::{hang_up_is_ignored, seal_inherited_files};
pub use process::{Process, ProcessInput, ProcessOutput, SpawnRequest};
pub use user::{LocalUser, effective_uid};
