//! What can go wrong with processes of this device.

use std::io;
use std::path::PathBuf;

use malai_model::code::ErrorCode;

/// Why a program was not started, or cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// No user of this device has that id.
    #[error("find the user with uid {uid}")]
    NoUser {
        /// The id.
        uid: u32,
    },
    /// No user of this device has that name.
    #[error("find the user {name:?}")]
    UnknownUser {
        /// The name.
        name: String,
    },
    /// The list of users cannot be read.
    #[error("read this device's list of users")]
    Users(#[source] io::Error),
    /// The command is to run as another user than this process does.
    #[error("run a command as {wanted:?}: malai runs as {own:?} here, and only root can switch users")]
    ForeignUser {
        /// The user whom the config names.
        wanted: String,
        /// The user that this process runs as.
        own: String,
    },
    /// The system does not let this process become that user.
    #[error("become the user {user:?}")]
    Switch {
        /// The user whom the config names.
        user: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A terminal cannot be opened or set up.
    #[error("open a terminal")]
    Terminal(#[source] io::Error),
    /// There is no malai program here that could do what malai itself does.
    #[error("run {name:?}: the app that malai is built into here brings no malai program along")]
    NoOwnProgram {
        /// What was to be run.
        name: String,
    },
    /// There is no word to run, or one that no program can be given.
    #[error("run a command: {0}")]
    BadWord(&'static str),
    /// There is no such program.
    #[error("run {program:?}: command not found")]
    NotFound {
        /// What was typed.
        program: String,
    },
    /// There is such a file, but it cannot be executed.
    #[error("run {}", program.display())]
    NotExecutable {
        /// The file.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system cannot start a process now.
    #[error("start {}", program.display())]
    Start {
        /// The file.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process cannot be waited for.
    #[error("wait for process {pid}")]
    Watch {
        /// Its id.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A signal cannot be delivered.
    #[error("signal the process group {pid}")]
    Signal {
        /// Its id.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process goes on after SIGKILL: it hangs in the system, or belongs to another user.
    #[error("end process {pid}: it goes on after SIGKILL")]
    Survived {
        /// Its id.
        pid: u32,
    },
}

impl HostError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoUser { .. }
            | Self::UnknownUser { .. }
            | Self::ForeignUser { .. }
            | Self::Switch { .. } => ErrorCode::CommandUser,
            Self::NoOwnProgram { .. } => ErrorCode::CommandUnsupported,
            Self::BadWord(_) => ErrorCode::Usage,
            Self::NotFound { .. } => ErrorCode::CommandNotFound,
            Self::NotExecutable { .. } => ErrorCode::CommandNotExecutable,
            Self::Users(_)
            | Self::Terminal(_)
            | Self::Start { .. }
            | Self::Watch { .. }
            | Self::Signal { .. }
            | Self::Survived { .. } => ErrorCode::CommandFailed,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoUser { uid } => {
                Some(format!("add an entry for uid {uid} to /etc/passwd on that machine"))
            }
            Self::UnknownUser { name } => {
                Some(format!("make the user {name:?} on that machine, or change `username` in cluster.toml"))
            }
            Self::ForeignUser { wanted, .. } => Some(format!(
                "run that machine's daemon as root or as {wanted:?}, or remove `username` from its rules"
            )),
            Self::Switch { .. } => {
                Some("look at what confines that machine's daemon: a container, a systemd unit".to_owned())
            }
            Self::NoOwnProgram { .. } => {
                Some("run the command line's daemon there: `malai daemon`".to_owned())
            }
            Self::NotFound { .. } => {
                Some("no shell runs: only programs in that user's PATH are found".to_owned())
            }
            _ => None,
        }
    }

    /// The status that a shell would give for it: 127 not found, 126 not executable. `None` if it is malai's
    /// own failure.
    pub fn shell_status(&self) -> Option<u8> {
        match self {
            Self::NotFound { .. } => Some(127),
            Self::NotExecutable { .. } => Some(126),
            _ => None,
        }
    }
}
