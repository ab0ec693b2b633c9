//! What can go wrong between a client and its daemon.

use std::io;
use std::path::PathBuf;

use malai_model::code::ErrorCode;

/// Why asking the daemon failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// No daemon runs for this home.
    #[error("ask the daemon of {}: none runs", home.display())]
    Absent {
        /// Which home.
        home: PathBuf,
    },
    /// Nobody listens on the socket that was named.
    #[error("ask the daemon on {}: none listens", path.display())]
    SocketAbsent {
        /// Which socket.
        path: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("trust the daemon on {}: it runs as another user (uid {uid})", path.display())]
    Foreign {
        /// Which socket.
        path: PathBuf,
        /// Whose.
        uid: u32,
    },
    /// Talking over the socket failed.
    #[error("get an answer from the daemon")]
    Unanswered(#[source] io::Error),
    /// It took what was to run, and did not answer in time.
    #[error("hear from the daemon what became of the request: it may have run it")]
    Late,
    /// The daemon speaks a schema that came after this version.
    #[error("understand the daemon: it is of a newer version (schema {schema})")]
    Newer {
        /// Which.
        schema: u32,
    },
    /// The daemon answered with something that this version cannot read.
    #[error("read the daemon's answer: is it of another version?")]
    Unreadable(#[source] serde_json::Error),
}

impl SocketError {
    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Absent { .. } | Self::SocketAbsent { .. } => ErrorCode::DaemonAbsent,
            Self::Foreign { .. }
            | Self::Unanswered(_)
            | Self::Late
            | Self::Newer { .. }
            | Self::Unreadable(_) => ErrorCode::DaemonUnanswered,
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::Absent { .. } => {
                    "start it with `malai daemon`; it puts the files in force as it starts"
                }
                Self::SocketAbsent { .. } => "start the daemon, or unset MALAI_SSH_AGENT",
                Self::Foreign { .. } => "use a home of your own",
                Self::Unanswered(_) | Self::Late => "look into malai.log; restart it with `malai daemon`",
                Self::Newer { .. } => {
                    "use that version of malai here too, or restart the daemon with this one"
                }
                Self::Unreadable(_) => "restart the daemon with the same version of malai",
            }
            .to_owned(),
        )
    }
}
