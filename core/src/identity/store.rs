//! The trait behind which keys are kept.

use std::fmt;

use malai_model::id::{Id52, SecretKey};
use malai_model::name::ClusterAlias;
use zeroize::Zeroizing;

use super::IdentityError;
use crate::home::WriteGuard;

/// Which key is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyRef {
    /// The root of a cluster that this home manages.
    ClusterRoot(ClusterAlias),
    /// The root to come of a cluster that this home manages.
    NextRoot(ClusterAlias),
    /// This device's identity in a cluster.
    Machine(ClusterAlias),
    /// The identity of an invite to a cluster that this home manages.
    Invite(ClusterAlias, Id52),
}

impl KeyRef {
    /// The cluster that the key belongs to.
    pub fn alias(&self) -> &ClusterAlias {
        match self {
            Self::ClusterRoot(alias)
            | Self::NextRoot(alias)
            | Self::Machine(alias)
            | Self::Invite(alias, _) => alias,
        }
    }

    /// Refuses a key that is not the one meant, where that can be told.
    pub(super) fn check(&self, secret: &SecretKey) -> Result<(), IdentityError> {
        match self {
            Self::Invite(_, id52) if secret.id52() != *id52 => {
                Err(IdentityError::Mismatch { key: self.clone() })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterRoot(alias) => write!(f, "the root key of {alias}"),
            Self::NextRoot(alias) => write!(f, "the next root key of {alias}"),
            Self::Machine(alias) => write!(f, "this device's key in {alias}"),
            Self::Invite(alias, id52) => write!(f, "the key of the invite {} to {alias}", id52.short()),
        }
    }
}

/// Keeps private keys: in files, in the system's keyring, or where the embedding app wants them.
///
/// Its methods may block: call them at the edges, never in a loop that serves others. Changes are made under
/// the home's write lock, which stores outside the home need not look at.
pub trait KeyStore: Send + Sync + fmt::Debug + 'static {
    /// Returns a key; `None` if the store has none.
    ///
    /// # Errors
    /// Any but [`IdentityError::Missing`].
    fn load(&self, key: &KeyRef) -> Result<Option<SecretKey>, IdentityError>;

    /// Keeps a key; one that is there is replaced.
    ///
    /// # Errors
    /// Then the old key is still there.
    fn store(&self, guard: &WriteGuard, key: &KeyRef, secret: &SecretKey) -> Result<(), IdentityError>;

    /// Wipes a key; none is fine.
    ///
    /// # Errors
    /// Then the key may still be there.
    fn delete(&self, guard: &WriteGuard, key: &KeyRef) -> Result<(), IdentityError>;
}

/// Returns a key that has to be there.
///
/// # Errors
/// [`IdentityError::Missing`], and those of [`KeyStore::load`].
pub fn load_required(store: &dyn KeyStore, key: &KeyRef) -> Result<SecretKey, IdentityError> {
    store.load(key)?.ok_or_else(|| IdentityError::Missing { key: key.clone() })
}

/// Makes a new identity from the system's randomness.
///
/// # Errors
/// [`IdentityError::Randomness`].
pub fn make_secret_key() -> Result<SecretKey, IdentityError> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|e| IdentityError::Randomness(e.to_string()))?;
    Ok(SecretKey::from_bytes(&bytes))
}

/// Makes random bytes from the system's randomness.
///
/// # Errors
/// [`IdentityError::Randomness`].
pub fn make_random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(|e| IdentityError::Randomness(e.to_string()))?;
    Ok(bytes)
}
