//! Connecting to services: the caller's side, and with feature `host` the side of the machine that hosts them.
//!
//! Responsible for the bytes between a caller's stream and a TCP connection on the hosting machine, each direction with
//! an end of its own. Not for who may reach what (`malai_model::acl`), nor for local listeners.

mod caller;
mod error;
#[cfg(all(feature = "host", unix))]
mod target;

pub use caller::{ServiceConnection, ServiceInput, ServiceOutput};
pub use error::ServiceError;
#[cfg(all(feature = "host", unix))]
pub use target::{ServiceOutcome, serve_service};
