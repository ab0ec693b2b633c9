//! Keys as files of the home: 64 hex digits each, mode 0600.

use std::path::PathBuf;

use malai_model::id::SecretKey;
use zeroize::Zeroizing;

use super::{IdentityError, KeyRef, KeyStore};
use crate::home::{Home, WriteGuard};

/// Keeps keys as `*.private-key` files of a home.
#[derive(Debug, Clone)]
pub struct FileKeyStore {
    home: Home,
}

impl FileKeyStore {
    /// Keeps keys in a home.
    pub fn new(home: Home) -> Self {
        Self { home }
    }

    /// The file that a key is kept in.
    pub fn path(&self, key: &KeyRef) -> PathBuf {
        match key {
            KeyRef::ClusterRoot(alias) => self.home.root_key_file(alias),
            KeyRef::NextRoot(alias) => self.home.next_root_key_file(alias),
            KeyRef::Machine(alias) => self.home.machine_key_file(alias),
            KeyRef::Invite(alias, id52) => self.home.invites_dir(alias).join(format!("{id52}.private-key")),
        }
    }
}

impl KeyStore for FileKeyStore {
    fn load(&self, key: &KeyRef) -> Result<Option<SecretKey>, IdentityError> {
        let Some(text) = self.home.load_secret(&self.path(key))? else { return Ok(None) };
        let secret = SecretKey::from_hex(&text).ok_or_else(|| IdentityError::Invalid { key: key.clone() })?;
        key.check(&secret)?;
        Ok(Some(secret))
    }

    fn store(&self, guard: &WriteGuard, key: &KeyRef, secret: &SecretKey) -> Result<(), IdentityError> {
        key.check(secret)?;
        let digits = secret.to_hex();
        let mut text = Zeroizing::new(Vec::with_capacity(digits.len() + 1));
        text.extend_from_slice(digits.as_bytes());
        text.push(b'\n');
        Ok(self.home.write(guard, &self.path(key), &text)?)
    }

    fn delete(&self, guard: &WriteGuard, key: &KeyRef) -> Result<(), IdentityError> {
        Ok(self.home.wipe(guard, &self.path(key))?)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use malai_model::name::ClusterAlias;

    use super::*;
    use crate::home::Create;
    use crate::identity::{load_required, make_secret_key};

    struct Setting {
        _dir: tempfile::TempDir,
        home: Home,
        store: FileKeyStore,
        key: KeyRef,
        secret: SecretKey,
    }

    /// A home with one key in it.
    fn setting() -> Setting {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("h"), Create::Yes).expect("opens");
        let store = FileKeyStore::new(home.clone());
        let key = KeyRef::Machine(alias());
        let secret = make_secret_key().expect("a key");
        let guard = home.lock_for_writing_blocking().expect("the lock");
        store.store(&guard, &key, &secret).expect("is stored");
        drop(guard);
        Setting { _dir: dir, home, store, key, secret }
    }

    fn alias() -> ClusterAlias {
        "company".parse().expect("an alias")
    }

    #[test]
    fn a_key_is_kept_as_the_digits_that_fastn_id52_prints() {
        let s = setting();
        let path = s.store.path(&s.key);
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).expect("reads").trim(), s.secret.to_hex().as_str());
        let loaded = s.store.load(&s.key).expect("loads").expect("is there");
        assert_eq!(loaded.id52(), s.secret.id52());
    }

    #[test]
    fn a_deleted_key_is_missing() {
        let s = setting();
        let guard = s.home.lock_for_writing_blocking().expect("the lock");
        s.store.delete(&guard, &s.key).expect("is deleted");
        assert!(s.store.load(&s.key).expect("no error").is_none());
        let error = load_required(&s.store, &s.key).expect_err("is missing");
        assert_eq!(error.code().as_str(), "key.missing");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_command_that_mends_it() {
        let s = setting();
        let path = s.store.path(&s.key);
        for mode in [0o644, 0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            let error = s.store.load(&s.key).expect_err("is refused");
            assert_eq!(error.code().as_str(), "home.loose_permissions");
            assert_eq!(error.hint(), Some(format!("run: chmod 600 {}", path.display())));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("a mode");
        s.store.load(&s.key).expect("stricter is fine");
    }

    #[test]
    fn a_key_behind_a_symbolic_link_is_refused() {
        let s = setting();
        let path = s.store.path(&s.key);
        let real = s.home.root().join("elsewhere");
        fs::rename(&path, &real).expect("is moved");
        std::os::unix::fs::symlink(&real, &path).expect("a link");
        let error = s.store.load(&s.key).expect_err("is refused");
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        let s = setting();
        let path = s.store.path(&s.key);
        for garbage in ["hunter2hunter2", "", &"zz".repeat(32), &s.secret.to_hex()[..62], &"ab".repeat(5000)]
        {
            fs::write(&path, garbage).expect("is written");
            let error = s.store.load(&s.key).expect_err("is refused");
            let shown = format!("{error} {error:?} {:?}", error.hint());
            assert!(garbage.is_empty() || !shown.contains(&garbage[..8.min(garbage.len())]), "{shown}");
        }
    }

    #[test]
    fn an_invite_s_key_under_another_invite_s_name_is_refused() {
        let s = setting();
        let (one, two) = (make_secret_key().expect("a key"), make_secret_key().expect("a key"));
        let guard = s.home.lock_for_writing_blocking().expect("the lock");
        let (first, second) = (KeyRef::Invite(alias(), one.id52()), KeyRef::Invite(alias(), two.id52()));
        assert!(matches!(s.store.store(&guard, &first, &two), Err(IdentityError::Mismatch { .. })));
        s.store.store(&guard, &first, &one).expect("is stored");
        fs::copy(s.store.path(&first), s.store.path(&second)).expect("is copied");
        assert!(matches!(s.store.load(&second), Err(IdentityError::Mismatch { .. })));
    }

    #[test]
    fn debug_of_all_that_holds_keys_prints_nothing_of_them() {
        let s = setting();
        let shown = format!("{:?} {:?} {:?}", s.store, s.key, s.secret);
        assert!(!shown.contains(&s.secret.to_hex()[..8]), "{shown}");
    }
}
