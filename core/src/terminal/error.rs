//! What can go wrong with a session.

use std::io;

use malai_model::code::ErrorCode;
use malai_model::wire::{SessionId, WireError};

use crate::home::HomeError;
use crate::host::HostError;

/// Why a session could not be started, found, or talked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The caller has no such session here: there is none, it is another's, or it is not clear which is meant.
    #[error("{0}")]
    Unknown(UnknownSession),
    /// The session's own process refused or failed.
    #[error("{}", .0.message)]
    Refused(WireError),
    /// The session's own process could not be started.
    #[error("start a session")]
    Start(#[source] HostError),
    /// The user that it is to run as cannot be found.
    #[error(transparent)]
    User(HostError),
    /// The session's own process did not say in time that it runs.
    #[error("start a session: its process does not answer")]
    Silent,
    /// The session's own process is there, and does not answer.
    #[error("talk to session {session}: its process does not answer")]
    Unanswered {
        /// Which.
        session: SessionId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The session's own process ended without a word.
    #[error("go on with session {session}: the session's process ended")]
    Gone {
        /// Which.
        session: SessionId,
    },
    /// The session's own process said something that does not belong here.
    #[error("understand session {session}: {problem}")]
    Malformed {
        /// Which.
        session: SessionId,
        /// What is wrong.
        problem: String,
    },
    /// What was under way on this device was cut off.
    #[error("finish what was begun for a session: {0}")]
    Interrupted(String),
    /// The home cannot be read or written.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// Which session was not found. It is the same for one that is not there and for another's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownSession {
    /// No session of the caller has that name.
    #[error("find session {0}: you have none of that name on this machine")]
    Named(SessionId),
    /// The caller has none that nobody is attached to.
    #[error("find a session: you have none on this machine that nobody is attached to")]
    None,
    /// The caller has several that nobody is attached to.
    #[error("find the session: you have {0} on this machine that nobody is attached to")]
    Several(usize),
}

impl SessionError {
    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown(_) => ErrorCode::SessionUnknown,
            Self::Refused(error) => error.code,
            Self::User(error) => error.code(),
            Self::Home(error) => error.code(),
            Self::Start(_)
            | Self::Silent
            | Self::Unanswered { .. }
            | Self::Gone { .. }
            | Self::Malformed { .. }
            | Self::Interrupted(_) => ErrorCode::SessionFailed,
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown(UnknownSession::Several(_)) => {
                Some("say which: `malai sessions <machine>` lists them".to_owned())
            }
            Self::Unknown(_) => Some("`malai sessions <machine>` lists yours".to_owned()),
            Self::Refused(error) => error.hint.clone(),
            Self::User(error) => error.hint(),
            Self::Home(error) => error.hint(),
            Self::Silent => Some("try again; that machine's log says more".to_owned()),
            Self::Unanswered { .. } => {
                Some("try again; if it stays so, end the session and start another".to_owned())
            }
            Self::Gone { .. } => Some("start another".to_owned()),
            Self::Malformed { .. } => Some("end the session and start another".to_owned()),
            Self::Start(_) | Self::Interrupted(_) => Some("that machine's log says more".to_owned()),
        }
    }

    /// As it is told to a peer.
    pub fn to_wire(&self) -> WireError {
        WireError::of(self.code(), self, self.hint())
    }
}
