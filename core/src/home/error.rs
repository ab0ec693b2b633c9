//! What can go wrong with the home directory.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use malai_model::code::ErrorCode;
use malai_model::name::NameProblem;

/// Why the home, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// There is no home directory, and none was to be made.
    #[error("find the home directory {}", path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Others may read a directory or a key file that is this user's alone.
    #[error("use {}: others may read it (mode {mode:04o})", path.display())]
    LoosePermissions {
        /// What.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The permission bits that mend it.
        wanted: u32,
    },
    /// A directory or key file belongs to another user.
    #[error("use {}: it belongs to uid {owner}, and this process runs as uid {uid}", path.display())]
    ForeignOwner {
        /// What.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// A symbolic link, a device or a directory where a plain file must be, or the other way round.
    #[error("use {}: it is {found}, not {wanted}", path.display())]
    WrongType {
        /// What.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it has to be.
        wanted: &'static str,
    },
    /// An operation of the file system failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file is larger than malai reads.
    #[error("read {}: it is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// A text file holds bytes that are no UTF-8.
    #[error("read {}: it is not UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A file that malai wrote cannot be understood. `problem` never holds text of a secret.
    #[error("read {}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process writes, and did not finish in time.
    #[error("get the write lock of {} within {} s", path.display(), waited.as_secs())]
    Busy {
        /// The home.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A daemon runs for this home.
    #[error("take the daemon's lock of {}: {} runs already", path.display(), daemon(*pid))]
    Locked {
        /// The home.
        path: PathBuf,
        /// The process id that the running daemon wrote, if it has come to it.
        pid: Option<u32>,
    },
    /// A path that is not in this home, or the lock of another home: a defect of the caller's.
    #[error("write {}: it is not in the home {}", path.display(), home.display())]
    Outside {
        /// The path.
        path: PathBuf,
        /// The home.
        home: PathBuf,
    },
    /// A cluster directory holds the files of two roles.
    #[error("tell the role of {}: it holds both cluster.toml and machine.toml", path.display())]
    TwoRoles {
        /// The cluster directory.
        path: PathBuf,
    },
    /// A directory under `clusters/` whose name is no cluster alias.
    #[error("read {}: {name:?} is no cluster alias", path.display())]
    BadAlias {
        /// The directory.
        path: PathBuf,
        /// Its name.
        name: String,
        /// Why it is none.
        #[source]
        source: NameProblem,
    },
    /// A cluster directory without config, key or invite.
    #[error("tell the role of {}: it holds neither a config nor a key", path.display())]
    EmptyCluster {
        /// The cluster directory.
        path: PathBuf,
    },
    /// The home has no cluster of that alias.
    #[error("find the cluster {alias:?} in {}", path.display())]
    UnknownCluster {
        /// The alias, as it was asked for.
        alias: String,
        /// The home.
        path: PathBuf,
    },
    /// The home has a cluster of that alias already.
    #[error("make the cluster {alias:?}: {} exists", path.display())]
    ClusterExists {
        /// The alias.
        alias: String,
        /// Its directory.
        path: PathBuf,
    },
    /// No place for the daemon's socket has a path that is short enough.
    #[error("place the daemon's socket: {} is longer than {limit} bytes", path.display())]
    SocketPath {
        /// The path that is too long.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
    },
}

fn daemon(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("a daemon with pid {pid}"),
        None => "another daemon".to_owned(),
    }
}

impl HomeError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::LoosePermissions { .. } | Self::ForeignOwner { .. } | Self::WrongType { .. } => {
                ErrorCode::HomeLoosePermissions
            }
            Self::TooLarge { .. } => ErrorCode::ConfigTooLarge,
            Self::NotText { .. } => ErrorCode::ConfigInvalid,
            Self::Absent { .. } | Self::Io { .. } | Self::Malformed { .. } | Self::EmptyCluster { .. } => {
                ErrorCode::HomeStorage
            }
            Self::Busy { .. } => ErrorCode::HomeLocked,
            Self::Locked { .. } => ErrorCode::DaemonRunning,
            Self::Outside { .. } => ErrorCode::Internal,
            Self::TwoRoles { .. } => ErrorCode::ConfigTwoRoles,
            Self::BadAlias { .. } => ErrorCode::NameInvalid,
            Self::UnknownCluster { .. } => ErrorCode::HomeUnknownCluster,
            Self::ClusterExists { .. } => ErrorCode::HomeClusterExists,
            Self::SocketPath { .. } => ErrorCode::HomeStorage,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Absent { .. } => "`malai cluster init` and `malai machine init` make it".to_owned(),
            Self::LoosePermissions { path, wanted, .. } => {
                format!("run: chmod {wanted:o} {}", shell_word(path))
            }
            Self::ForeignOwner { .. } => {
                "run malai as the user whom it belongs to, or choose another home".to_owned()
            }
            Self::Busy { .. } => {
                "another malai process is writing there; try again when it is done".to_owned()
            }
            Self::Locked { pid: Some(pid), .. } => {
                format!("it serves this home already; to replace it, end it first: kill {pid}")
            }
            Self::TwoRoles { path } => format!(
                "a home either manages a cluster or is a machine of it; move {} away if this device is its \
                 manager, or {} if it is not",
                shell_word(&path.join("machine.toml")),
                shell_word(&path.join("cluster.toml")),
            ),
            Self::BadAlias { path, .. } => {
                format!("rename {} to a name of a-z, 0-9 and -, or move it elsewhere", shell_word(path))
            }
            Self::EmptyCluster { path } => format!(
                "restore it from a backup, or, if nothing in it is needed, remove it: {}",
                shell_word(path)
            ),
            Self::UnknownCluster { .. } => "`malai cluster list` shows those that it has".to_owned(),
            Self::ClusterExists { .. } => "choose another alias".to_owned(),
            Self::SocketPath { .. } => "choose a home with a shorter path, or set XDG_RUNTIME_DIR".to_owned(),
            Self::Malformed { path, .. } => {
                format!("malai wrote this file itself; restore {} from a backup", shell_word(path))
            }
            _ => return None,
        })
    }
}

/// A path as one word of a shell command, quoted where it must be.
fn shell_word(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mending_command_can_be_pasted() {
        let error = HomeError::LoosePermissions { path: "/a b/it's".into(), mode: 0o644, wanted: 0o600 };
        assert_eq!(error.hint().expect("a hint"), r"run: chmod 600 '/a b/it'\''s'");
        assert!(error.to_string().contains("mode 0644"));
    }
}
