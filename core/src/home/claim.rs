//! Which process uses an identity on relays: at most one does.

use std::fs::File;

use malai_model::name::ClusterAlias;

use super::{Home, HomeError};

/// Held by the process that uses a cluster's identity; dropped, the identity is free.
///
/// It is a lock on the cluster's directory itself, so that nothing is left behind by a process that was killed.
#[derive(Debug)]
pub struct IdentityClaim {
    _directory: File,
}

impl Home {
    /// Claims this device's identity in a cluster; `None` if another process has it.
    ///
    /// # Errors
    /// When the cluster's directory cannot be opened.
    pub fn claim_identity(&self, alias: &ClusterAlias) -> Result<Option<IdentityClaim>, HomeError> {
        let path = self.cluster_dir(alias);
        let directory = File::open(&path).map_err(|error| HomeError::io("open", &path, error))?;
        match directory.try_lock() {
            Ok(()) => Ok(Some(IdentityClaim { _directory: directory })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(HomeError::io("lock", &path, error)),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::home::Create;

    #[test]
    fn an_identity_is_claimed_once_and_freed_by_dropping() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("home"), Create::Yes).expect("opens");
        let alias: ClusterAlias = "company".parse().expect("an alias");
        let guard = home.lock_for_writing_blocking().expect("locks");
        home.make_cluster_dir(&guard, &alias).expect("makes");
        let first = home.claim_identity(&alias).expect("opens");
        assert!(first.is_some());
        assert!(home.claim_identity(&alias).expect("opens").is_none());
        drop(first);
        assert!(home.claim_identity(&alias).expect("opens").is_some());
    }
}
