//! malai's embeddable engine: identities, peer-to-peer connections, clusters and commands.
//!
//! The library never reads the environment, the home directory or the terminal by itself: the front passes them in. It
//! makes no runtime of its own.

pub mod clock;
pub mod home;
#[cfg(all(feature = "host", unix))]
pub mod host;
pub mod identity;
pub mod p2p;
pub mod task;
pub mod timeouts;

pub use malai_model as model;
