//! What can go wrong with a session, as its client sees it.

use malai_model::code::{ErrorCode, ErrorKind};
use malai_model::wire::WireError;

use crate::p2p::{P2pError, stream_code};

/// Why a client cannot go on with a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The machine refused it, failed, or ended it; or it could not be reached.
    #[error("{}", .0.shown_message())]
    Remote(WireError),
    /// The connection failed.
    #[error(transparent)]
    Network(#[from] P2pError),
    /// The machine said something that does not belong here.
    #[error("understand the machine: {0}")]
    OutOfTurn(&'static str),
    /// The machine does not answer in time.
    #[error("hear of the session: the machine does not answer")]
    Unanswered,
    /// The answer to a request to start a session by itself did not come: it may run.
    #[error("hear whether it runs: {0}")]
    MayRun(Box<AttachError>),
    /// Neither side has what was typed any more.
    #[error("go on with the session: {0} bytes that were typed are lost")]
    TypedLost(u64),
    /// It is over for this client.
    #[error("go on with the session: it is over")]
    Over,
}

impl AttachError {
    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Remote(error) => error.code,
            Self::Network(error) => error.code(),
            Self::OutOfTurn(_) => ErrorCode::WireMalformed,
            Self::Unanswered => ErrorCode::Timeout,
            Self::MayRun(error) => error.code(),
            Self::TypedLost(_) => ErrorCode::SessionFailed,
            Self::Over => ErrorCode::Cancelled,
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Remote(error) => error.shown_hint(),
            Self::Network(error) => error.hint(),
            Self::OutOfTurn(_) => Some("is malai on both machines of the same version?".to_owned()),
            Self::TypedLost(_) => Some("the session goes on: attach to it again".to_owned()),
            Self::MayRun(_) => Some(
                "it is not ended, and not begun again: `malai sessions` of that machine lists it, if it runs"
                    .to_owned(),
            ),
            Self::Unanswered => {
                Some("it may be overloaded: its malai.log may say more; then try again".to_owned())
            }
            Self::Over => None,
        }
    }

    /// Says what became of a request to start a session by itself: whether it was served is not known if no word came.
    pub(super) fn of_start(self) -> Self {
        match self {
            Self::Unanswered
            | Self::Network(P2pError::Lost { .. } | P2pError::StreamReset { code: stream_code::CANCELLED }) => {
                Self::MayRun(Box::new(self))
            }
            told => told,
        }
    }

    /// Whether the connection was lost, so that the same may succeed over another one.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Network(P2pError::Lost { .. }))
    }

    /// Whether it may be otherwise in a moment: a machine that cannot be reached, a daemon that starts again.
    pub(super) fn may_pass(&self) -> bool {
        let code = self.code();
        code == ErrorCode::DaemonAbsent
            || matches!(code.kind(), ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Busy)
    }
}
