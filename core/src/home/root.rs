//! `Home`: the directory itself, and the paths of all that is in it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use malai_model::name::ClusterAlias;
use sha2::{Digest, Sha256};

use super::permissions::{DIR_MODE, check_private, make_dirs};
use super::{HomeError, write};

/// The longest path that a Unix socket gets here, in bytes; systems stop between 104 and 108.
const MAX_SOCKET_PATH: usize = 100;

/// Whether a missing home is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// Make what is missing.
    Yes,
    /// Fail if there is no home.
    No,
}

/// One home directory. Cheap to clone; any number of processes may have one open.
#[derive(Debug, Clone)]
pub struct Home {
    root: Arc<Path>,
}

impl Home {
    /// Opens a home directory, checks that it is this user's alone, and removes what a crash left
    /// half-written.
    ///
    /// The path comes from the front: nothing here reads the environment. It may be relative or a symbolic
    /// link.
    ///
    /// # Errors
    /// [`HomeError::Absent`], [`HomeError::LoosePermissions`], [`HomeError::ForeignOwner`],
    /// [`HomeError::Io`].
    pub fn open(root: PathBuf, create: Create) -> Result<Self, HomeError> {
        if create == Create::Yes {
            make_dirs(&root).map_err(|e| HomeError::io("make the home directory", &root, e))?;
        }
        let dir = match File::open(&root) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(HomeError::Absent { path: root });
            }
            Err(error) => return Err(HomeError::io("open the home directory", root, error)),
        };
        let is_dir = dir.metadata().map_err(|e| HomeError::io("look at", &root, e))?.is_dir();
        if !is_dir {
            return Err(HomeError::WrongType { path: root, found: "a plain file", wanted: "a directory" });
        }
        check_private(&dir, &root, DIR_MODE)?;
        let canonical = fs::canonicalize(&root).map_err(|e| HomeError::io("resolve", &root, e))?;
        let home = Self { root: canonical.into() };
        if create == Create::Yes {
            let clusters = home.clusters_dir();
            make_dirs(&clusters).map_err(|e| HomeError::io("make the directory", &clusters, e))?;
        }
        write::remove_leftovers(&home);
        Ok(home)
    }

    /// The home directory, absolute and without symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `malai.toml`: this device's own settings.
    pub fn device_config(&self) -> PathBuf {
        self.root.join("malai.toml")
    }

    /// `malai.lock`: held by the running daemon.
    pub fn daemon_lock_file(&self) -> PathBuf {
        self.root.join("malai.lock")
    }

    /// `malai.log`.
    pub fn log_file(&self) -> PathBuf {
        self.root.join("malai.log")
    }

    /// `audit/`: security events.
    pub fn audit_dir(&self) -> PathBuf {
        self.root.join("audit")
    }

    /// `identities/`: identities that belong to no cluster yet.
    pub fn identities_dir(&self) -> PathBuf {
        self.root.join("identities")
    }

    /// `peers.json`: last known addresses, hints only.
    pub fn peers_file(&self) -> PathBuf {
        self.root.join("peers.json")
    }

    /// `sessions/`: a directory for each session that lives on this machine.
    pub fn sessions_dir(&self) -> PathBuf {
        self.root.join("sessions")
    }

    /// `clusters/`.
    pub fn clusters_dir(&self) -> PathBuf {
        self.root.join("clusters")
    }

    /// `clusters/<alias>/`.
    pub fn cluster_dir(&self, alias: &ClusterAlias) -> PathBuf {
        self.clusters_dir().join(alias.as_str())
    }

    /// The path of the daemon's socket: `malai.sock` in the home, or, if that is too long for a socket, a
    /// name in the runtime directory that only this home has. The front says which directory that is; it has
    /// to be private ([`super::ensure_private_dir`]).
    ///
    /// # Errors
    /// [`HomeError::SocketPath`] if neither is short enough.
    pub fn socket_path(&self, runtime_dir: Option<&Path>) -> Result<PathBuf, HomeError> {
        let in_home = self.root.join("malai.sock");
        if fits_socket(&in_home) {
            return Ok(in_home);
        }
        let digest = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        let name = format!("malai-{}.sock", data_encoding::HEXLOWER.encode(&digest[..12]));
        match runtime_dir.map(|dir| dir.join(name)) {
            Some(path) if fits_socket(&path) => Ok(path),
            Some(path) => Err(HomeError::SocketPath { path, limit: MAX_SOCKET_PATH }),
            None => Err(HomeError::SocketPath { path: in_home, limit: MAX_SOCKET_PATH }),
        }
    }
}

fn fits_socket(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().len() <= MAX_SOCKET_PATH
}

/// The files of a cluster directory.
macro_rules! cluster_files {
    ($($(#[$doc:meta])* $method:ident = $file:literal;)*) => {
        impl Home {
            $($(#[$doc])*
            pub fn $method(&self, alias: &ClusterAlias) -> PathBuf {
                self.cluster_dir(alias).join($file)
            })*
        }
    };
}

cluster_files! {
    /// `cluster.toml`: manager only, the master config as the admin edits it.
    cluster_config = "cluster.toml";
    /// `applied.toml`: manager only, the last text that was validated and distributed.
    applied_config = "applied.toml";
    /// `history/`: manager only, earlier applied texts.
    history_dir = "history";
    /// `state.json`: manager only, what was distributed to whom.
    state_file = "state.json";
    /// `invites.toml`: manager only, the invites without their secrets.
    invites_file = "invites.toml";
    /// `invites/`: manager only, the invites' private keys.
    invites_dir = "invites";
    /// `old-keys/`: manager only, rotated roots in transition.
    old_keys_dir = "old-keys";
    /// `cluster.private-key`: manager only, the root.
    root_key_file = "cluster.private-key";
    /// `next.private-key`: manager only, the root to come.
    next_root_key_file = "next.private-key";
    /// `cluster-info.toml`: member, whom this device pinned.
    cluster_info_file = "cluster-info.toml";
    /// `machine.toml`: member, the personalised config as received.
    machine_config = "machine.toml";
    /// `machine.private-key`: member.
    machine_key_file = "machine.private-key";
    /// `invite`: member, the invite that a join still waits for; a secret.
    pending_invite_file = "invite";
    /// `draft/`: config edits under way.
    draft_dir = "draft";
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("is there").permissions().mode() & 0o7777
    }

    #[test]
    fn a_new_home_is_for_its_user_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("deep/malai");
        assert!(matches!(Home::open(root.clone(), Create::No), Err(HomeError::Absent { .. })));
        let home = Home::open(root.clone(), Create::Yes).expect("opens");
        assert_eq!((mode(&root), mode(&home.clusters_dir())), (0o700, 0o700));
        assert_eq!(mode(&dir.path().join("deep")), 0o700);
        Home::open(root, Create::No).expect("opens again");
    }

    #[test]
    fn a_loose_home_is_refused_with_the_command_that_mends_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("malai");
        Home::open(root.clone(), Create::Yes).expect("opens");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o750)).expect("a mode");
        let error = Home::open(root.clone(), Create::Yes).expect_err("is refused");
        assert_eq!(error.code().as_str(), "home.loose_permissions");
        assert_eq!(error.hint(), Some(format!("run: chmod 700 {}", root.display())));
    }

    #[test]
    fn a_file_is_no_home() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = Home::open(file.path().into(), Create::No).expect_err("is refused");
        assert!(matches!(error, HomeError::WrongType { .. }), "{error}");
    }

    #[test]
    fn a_long_path_moves_the_socket_and_two_homes_get_two() {
        let dir = tempfile::tempdir().expect("a directory");
        let short = Home::open(dir.path().join("s"), Create::Yes).expect("opens");
        assert_eq!(short.socket_path(None).expect("fits"), short.root().join("malai.sock"));
        let open = |name: &str| Home::open(dir.path().join(name.repeat(90)), Create::Yes).expect("opens");
        let (one, two) = (open("a"), open("b"));
        let path = one.socket_path(Some(Path::new("/run/user/0/malai"))).expect("fits");
        assert!(path.starts_with("/run/user/0/malai"));
        assert_ne!(path, two.socket_path(Some(Path::new("/run/user/0/malai"))).expect("fits"));
        assert!(matches!(one.socket_path(None), Err(HomeError::SocketPath { .. })));
    }
}
