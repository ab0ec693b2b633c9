//! The runtime directory: a file for each identity that a process of this user serves.
//!
//! The file holds addresses; the process holds an exclusive lock on it while it serves. A file that nobody
//! locks is what a killed process left: it is ignored and removed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use malai_model::id::Id52;
use serde::{Deserialize, Serialize};

use crate::p2p::error::P2pError;

/// More addresses than this are no rendezvous file of ours.
const MAX_FILE: u64 = 16 * 1024;

/// The directory, checked.
#[derive(Debug, Clone)]
pub(in crate::p2p) struct Rendezvous {
    dir: PathBuf,
}

/// An identity's entry; removed when dropped.
#[derive(Debug)]
pub(in crate::p2p) struct Ticket {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    addresses: Vec<SocketAddr>,
}

impl Rendezvous {
    /// Opens the directory, and makes it if there is none.
    ///
    /// # Errors
    /// [`P2pError::RuntimeDir`] if it is a symlink, somebody else's, or open to others.
    pub(in crate::p2p) fn open(dir: &Path) -> Result<Self, P2pError> {
        let refuse = |reason: String| P2pError::RuntimeDir { path: dir.display().to_string(), reason };
        match make_private(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refuse(format!("it cannot be made: {error}"))),
        }
        check(dir).map_err(refuse)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Writes where an identity is served, and keeps it there until the ticket is dropped.
    ///
    /// # Errors
    /// [`P2pError::RuntimeDir`] if it cannot be written.
    pub(in crate::p2p) fn publish(&self, id: &Id52, addresses: &[SocketAddr]) -> Result<Ticket, P2pError> {
        let write = || -> io::Result<Ticket> {
            // Made with mode 0600; locked before it has its name, so that nobody takes it for a stale one.
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.dir)?;
            file.write_all(&serde_json::to_vec(&Entry { addresses: addresses.to_vec() })?)?;
            file.as_file().lock()?;
            let path = self.path(id);
            let file = file.persist(&path).map_err(|error| error.error)?;
            Ok(Ticket { path, _file: file })
        };
        write().map_err(|error| P2pError::RuntimeDir {
            path: self.dir.display().to_string(),
            reason: format!("an entry cannot be written: {error}"),
        })
    }

    /// Returns where a process of this user serves an identity; nothing if none does.
    pub(in crate::p2p) fn look_up(&self, id: &Id52) -> Result<Vec<SocketAddr>, P2pError> {
        let refuse = |reason: String| P2pError::RuntimeDir { path: self.dir.display().to_string(), reason };
        // Again, since the directory may have been changed while this process runs.
        check(&self.dir).map_err(refuse)?;
        let path = self.path(id);
        let read = || -> io::Result<Vec<SocketAddr>> {
            let file = open_plain(&path)?;
            match file.try_lock_shared() {
                Ok(()) => {
                    // Nobody serves it. Its name may be another file's by now, which this one's holder just
                    // replaced.
                    remove_if_same(&path, &file);
                    return Ok(Vec::new());
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let mut text = String::new();
            (&file).take(MAX_FILE).read_to_string(&mut text)?;
            Ok(serde_json::from_str::<Entry>(&text)?.addresses)
        };
        match read() {
            Ok(addresses) => Ok(addresses),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(refuse(format!("the entry of {id} cannot be read: {error}"))),
        }
    }

    fn path(&self, id: &Id52) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A newer process may have taken the name over; its entry stays.
        remove_if_same(&self.path, &self._file);
    }
}

#[cfg(unix)]
fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(parent) = dir.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    fs::DirBuilder::new().mode(0o700).create(dir)
}

#[cfg(not(unix))]
fn make_private(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

#[cfg(unix)]
fn check(dir: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::symlink_metadata(dir).map_err(|error| error.to_string())?;
    let me = nix::unistd::geteuid().as_raw();
    if found.file_type().is_symlink() {
        return Err("it is a symbolic link".to_owned());
    }
    if !found.is_dir() {
        return Err("it is no directory".to_owned());
    }
    if found.uid() != me {
        return Err(format!("it belongs to the user with id {}, not to this one ({me})", found.uid()));
    }
    if found.mode() & 0o077 != 0 {
        return Err(format!("its mode is {:04o}: others may use it", found.mode() & 0o7777));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check(dir: &Path) -> Result<(), String> {
    match fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err("it is no directory".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(unix)]
fn open_plain(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(path)
}

#[cfg(not(unix))]
fn open_plain(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(unix)]
fn remove_if_same(path: &Path, file: &File) {
    use std::os::unix::fs::MetadataExt;
    let same = match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(named), Ok(held)) => named.dev() == held.dev() && named.ino() == held.ino(),
        _ => false,
    };
    if same {
        // What cannot be removed is recognised as stale by whoever looks next.
        let _left = fs::remove_file(path);
    }
}

#[cfg(not(unix))]
fn remove_if_same(path: &Path, _file: &File) {
    let _left = fs::remove_file(path);
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use malai_model::id::SecretKey;

    use super::*;

    fn id() -> Id52 {
        SecretKey::from_bytes(&[5; 32]).id52()
    }

    fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 4242))
    }

    fn refusal(dir: &Path) -> String {
        Rendezvous::open(dir).expect_err("is refused").to_string()
    }

    #[test]
    fn what_one_process_publishes_another_finds_until_it_goes() {
        let home = tempfile::tempdir().expect("a directory");
        let rendezvous = Rendezvous::open(&home.path().join("run/malai")).expect("opens");
        let ticket = rendezvous.publish(&id(), &[address()]).expect("publishes");
        let mode = fs::metadata(rendezvous.path(&id())).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(rendezvous.look_up(&id()).expect("reads"), vec![address()]);
        drop(ticket);
        assert_eq!(rendezvous.look_up(&id()).expect("reads"), Vec::new());
        assert_eq!(fs::read_dir(&rendezvous.dir).expect("lists").count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_is_ignored_and_removed() {
        let home = tempfile::tempdir().expect("a directory");
        let rendezvous = Rendezvous::open(&home.path().join("malai")).expect("opens");
        let text = serde_json::to_vec(&Entry { addresses: vec![address()] }).expect("is JSON");
        fs::write(rendezvous.path(&id()), text).expect("writes");
        assert_eq!(rendezvous.look_up(&id()).expect("reads"), Vec::new());
        assert!(!rendezvous.path(&id()).exists());
    }

    #[test]
    fn a_newer_process_keeps_its_entry_when_the_older_one_goes() {
        let home = tempfile::tempdir().expect("a directory");
        let rendezvous = Rendezvous::open(&home.path().join("malai")).expect("opens");
        let older = rendezvous.publish(&id(), &[address()]).expect("publishes");
        let newer = rendezvous.publish(&id(), &[address()]).expect("publishes");
        drop(older);
        assert_eq!(rendezvous.look_up(&id()).expect("reads"), vec![address()]);
        drop(newer);
    }

    #[test]
    fn a_symlink_is_refused_even_to_a_good_directory() {
        let home = tempfile::tempdir().expect("a directory");
        let good = home.path().join("good");
        Rendezvous::open(&good).expect("opens");
        let link = home.path().join("link");
        symlink(&good, &link).expect("links");
        assert!(refusal(&link).contains("symbolic link"));
    }

    #[test]
    fn a_directory_that_others_may_use_is_refused_also_later() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("malai");
        let rendezvous = Rendezvous::open(&dir).expect("opens");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).expect("changes");
        assert!(refusal(&dir).contains("0750"));
        assert!(rendezvous.look_up(&id()).is_err());
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        // Root can make one; anybody else finds `/` to be root's.
        if nix::unistd::geteuid().is_root() {
            let home = tempfile::tempdir().expect("a directory");
            let dir = home.path().join("malai");
            Rendezvous::open(&dir).expect("opens");
            let nobody = nix::unistd::Uid::from_raw(65534);
            nix::unistd::chown(&dir, Some(nobody), None).expect("changes the owner");
            assert!(refusal(&dir).contains("65534"));
        } else {
            assert!(refusal(Path::new("/")).contains("belongs to the user with id 0"));
        }
    }

    #[test]
    fn an_entry_that_is_a_symlink_is_not_followed() {
        let home = tempfile::tempdir().expect("a directory");
        let rendezvous = Rendezvous::open(&home.path().join("malai")).expect("opens");
        let elsewhere = home.path().join("elsewhere");
        fs::write(&elsewhere, "{\"addresses\":[]}").expect("writes");
        symlink(&elsewhere, rendezvous.path(&id())).expect("links");
        assert!(rendezvous.look_up(&id()).is_err());
    }
}
