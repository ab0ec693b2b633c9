//! What can go wrong with a command.

use malai_model::code::ErrorCode;
use malai_model::wire::WireError;

use crate::p2p::P2pError;

/// Why a command could not be run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The target refused it, or failed.
    #[error("{}", .0.shown_message())]
    Remote(WireError),
    /// The connection failed.
    #[error(transparent)]
    Network(#[from] P2pError),
    /// A process of this device failed.
    #[cfg(all(feature = "host", unix))]
    #[error(transparent)]
    Host(#[from] crate::host::HostError),
    /// The target said something that does not belong here.
    #[error("understand the target: {0}")]
    OutOfTurn(&'static str),
    /// The target accepted the request and says nothing.
    #[error("hear whether the command runs: the machine does not answer")]
    Unanswered,
    /// The command is over; nothing more can be sent to it.
    #[error("send to the command: it has ended")]
    Ended,
}

impl ExecError {
    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Remote(error) => error.code,
            Self::Network(error) => error.code(),
            #[cfg(all(feature = "host", unix))]
            Self::Host(error) => error.code(),
            Self::OutOfTurn(_) => ErrorCode::WireMalformed,
            Self::Unanswered => ErrorCode::Timeout,
            Self::Ended => ErrorCode::Cancelled,
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Remote(error) => error.shown_hint(),
            Self::Network(error) => error.hint(),
            #[cfg(all(feature = "host", unix))]
            Self::Host(error) => error.hint(),
            Self::OutOfTurn(_) => Some("is malai on both machines of the same version?".to_owned()),
            Self::Unanswered => Some(
                "it may be overloaded, or wait for a directory of users or a home that is elsewhere: its malai.log may \
                 say more"
                    .to_owned(),
            ),
            Self::Ended => None,
        }
    }
}
