//! malai's embeddable engine: identities, peer-to-peer connections, clusters and commands.
//!
//! The library never reads the environment, the home directory or the terminal by itself: the front passes them in. It
//! makes no runtime of its own.

pub mod api;
pub mod audit;
pub mod clock;
pub mod cluster;
#[cfg(all(feature = "daemon", unix))]
pub mod daemon;
pub mod error;
pub mod exec;
pub mod home;
#[cfg(all(feature = "host", unix))]
pub mod host;
pub mod identity;
pub mod node;
pub mod p2p;
pub mod service;
pub mod task;
pub mod terminal;
pub mod timeouts;
#[cfg(unix)]
pub mod two_way;

pub use bytes::Bytes;
pub use error::Error;
pub use malai_model as model;

/// The version of malai, as peers and fronts are told.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
