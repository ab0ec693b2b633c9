//! Private keys: where they are kept and how they are made.
//!
//! Responsible for key storage behind [`KeyStore`]. Not for what a key signs (`malai_model::id`) nor for the
//! files beside it (`crate::home`). Public keys are never stored beside private ones: they are derived.

mod error;
mod file;
#[cfg(any(test, feature = "testing"))]
mod memory;
mod store;

pub use error::IdentityError;
pub use file::FileKeyStore;
#[cfg(any(test, feature = "testing"))]
pub use memory::MemoryKeyStore;
pub use store::{KeyRef, KeyStore, load_required, make_random, make_secret_key};
