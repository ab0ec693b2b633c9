//! What can go wrong with private keys.

use malai_model::code::ErrorCode;

use super::KeyRef;
use crate::home::HomeError;

/// Why a private key cannot be used. No variant holds anything of a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The key's file cannot be read or written, or others may read it.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The store has no such key.
    #[error("find {key}")]
    Missing {
        /// Which key.
        key: KeyRef,
    },
    /// What the store has is no private key.
    #[error("read {key}: it is not 64 hex digits")]
    Invalid {
        /// Which key.
        key: KeyRef,
    },
    /// The store has the key of another identity in its place.
    #[error("read {key}: what is stored there is the key of another identity")]
    Mismatch {
        /// Which key.
        key: KeyRef,
    },
    /// A store that the app or the system supplies failed.
    #[error("use the key store for {key}: {problem}")]
    Store {
        /// Which key.
        key: KeyRef,
        /// What the store says, without secrets.
        problem: String,
    },
    /// The system gives no random bytes.
    #[error("get random bytes from the system: {0}")]
    Randomness(String),
}

impl IdentityError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Home(error) => error.code(),
            Self::Missing { .. } => ErrorCode::KeyMissing,
            Self::Invalid { .. } | Self::Mismatch { .. } => ErrorCode::KeyInvalid,
            Self::Store { .. } => ErrorCode::HomeStorage,
            Self::Randomness(_) => ErrorCode::Internal,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::Missing { .. } | Self::Invalid { .. } | Self::Mismatch { .. } => {
                Some("restore the key from a backup; without it this device cannot be who it was".to_owned())
            }
            Self::Store { .. } | Self::Randomness(_) => None,
        }
    }
}
