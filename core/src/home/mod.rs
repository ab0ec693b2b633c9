//! The home directory: where its files are, who may write them and when, and how they are read back.
//!
//! Responsible for paths, modes, atomic writes under the home's lock, the daemon's lock, roles by cluster
//! directory, and the small files that belong to no feature. Not for private keys as keys
//! (`crate::identity`), nor for what a config means (`malai_model::config`).

mod claim;
mod cluster_info;
mod clusters;
mod daemon_lock;
mod error;
mod peers;
mod permissions;
mod read;
mod root;
mod write;

pub use claim::IdentityClaim;
pub use cluster_info::ClusterInfo;
pub use clusters::{ClusterDir, ClusterSurvey, Role};
pub use daemon_lock::DaemonLock;
pub use error::HomeError;
pub use peers::{PeerHint, Peers};
pub use permissions::ensure_private_dir;
pub use read::{MAX_FILE_LEN, MAX_SECRET_LEN};
pub use root::{Create, Home};
pub use write::{LOCK_PATIENCE, WriteGuard};
