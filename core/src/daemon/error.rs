//! What can go wrong with the daemon.

use std::path::PathBuf;

use malai_model::code::ErrorCode;

use crate::error::Error;

/// Why the daemon could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The home, its files or the network.
    #[error(transparent)]
    Start(#[from] Error),
    /// The socket cannot be made.
    #[error("make the socket {}", path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl DaemonError {
    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Start(error) => error.code(),
            Self::Socket { .. } => ErrorCode::HomeStorage,
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Start(error) => error.hint(),
            Self::Socket { .. } => Some("is the home on a file system that can hold sockets?".to_owned()),
        }
    }
}
