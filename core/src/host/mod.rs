//! This device as a host: its users, and processes that run for others.
//!
//! Responsible for starting a program directly, as whom, its pipes or its terminal, its environment, and the end of
//! what it started.
//! Not for whether it may run (`malai_model`'s rules) nor for how its bytes travel (`crate::exec`).

mod environment;
mod error;
mod group;
mod inherit;
mod launch;
mod limits;
mod members;
mod own;
mod process;
mod program;
mod pty;
mod reaper;
mod switch;
mod user;
mod watch;

pub use environment::{Caller, RESTRICTED, build_environment, is_passed_on};
pub use error::HostError;
pub use group::ProcessGroup;
pub use inherit::{hang_up_is_ignored, seal_inherited_files};
pub use limits::raise_open_files;
pub use members::SessionsBelow;
pub use own::OwnProgram;
pub use process::{Executable, Process, ProcessInput, ProcessOutput, SpawnRequest};
pub use pty::{Login, Pty, PtyMaster, PtyProcess};
pub use user::{LocalUser, effective_uid};
