//! Keys in memory, for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use malai_model::id::SecretKey;

use super::{IdentityError, KeyRef, KeyStore};
use crate::home::WriteGuard;

/// Keeps keys in memory: for tests of the engine and of apps that supply a store of their own.
#[derive(Default)]
pub struct MemoryKeyStore {
    keys: Mutex<BTreeMap<KeyRef, SecretKey>>,
}

impl MemoryKeyStore {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn keys(&self) -> MutexGuard<'_, BTreeMap<KeyRef, SecretKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKeyStore").field("keys", &self.keys().len()).finish()
    }
}

impl KeyStore for MemoryKeyStore {
    fn load(&self, key: &KeyRef) -> Result<Option<SecretKey>, IdentityError> {
        Ok(self.keys().get(key).cloned())
    }

    fn store(&self, _: &WriteGuard, key: &KeyRef, secret: &SecretKey) -> Result<(), IdentityError> {
        key.check(secret)?;
        self.keys().insert(key.clone(), secret.clone());
        Ok(())
    }

    fn delete(&self, _: &WriteGuard, key: &KeyRef) -> Result<(), IdentityError> {
        self.keys().remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::{Create, Home};
    use crate::identity::make_secret_key;

    #[test]
    fn it_keeps_forgets_and_shows_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("h"), Create::Yes).expect("opens");
        let guard = home.lock_for_writing_blocking().expect("the lock");
        let (store, secret) = (MemoryKeyStore::new(), make_secret_key().expect("a key"));
        let key = KeyRef::ClusterRoot("company".parse().expect("an alias"));
        store.store(&guard, &key, &secret).expect("is stored");
        assert_eq!(store.load(&key).expect("loads").map(|k| k.id52()), Some(secret.id52()));
        assert!(!format!("{store:?}").contains(&secret.to_hex()[..8]));
        store.delete(&guard, &key).expect("is deleted");
        assert!(store.load(&key).expect("loads").is_none());
    }
}
