//! The umbrella for the fronts: everything that an operation of malai can fail with.

use malai_model::code::{ErrorCode, ErrorKind};
use malai_model::diagnostic::Diagnostic;
use malai_model::wire::WireError;
use malai_model::wire::local::FailedView;

#[cfg(all(feature = "daemon", unix))]
mod socket;

#[cfg(all(feature = "daemon", unix))]
pub use socket::SocketError;

use crate::audit::AuditError;
use crate::exec::ExecError;
use crate::home::HomeError;
use crate::identity::IdentityError;
use crate::node::NodeError;
use crate::service::ServiceError;
use crate::terminal::AttachError;

/// Whatever an operation of malai failed with.
///
/// `Display` reads after "failed to"; [`Error::hint`] says what to do; `std::error::Error::source` gives what lies
/// beneath.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// In this process.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Talking to the daemon.
    #[cfg(all(feature = "daemon", unix))]
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A session.
    #[error(transparent)]
    Session(#[from] AttachError),
    /// Copying.
    #[cfg(unix)]
    #[error(transparent)]
    Copy(#[from] crate::exec::copy::CopyError),
    /// The operation was asked for and answered with a failure.
    #[error("{}", malai_model::text::escape_control(.view.own_message()))]
    Failed {
        /// What.
        view: Box<FailedView>,
        /// What lies beneath.
        #[source]
        cause: Option<Cause>,
    },
    /// The client was closed before.
    #[error("use this client: it was closed")]
    Closed,
    /// The answer is one to another question.
    #[error("understand the answer: it is one to another question")]
    OutOfTurn,
}

/// What lies beneath a failure in another process: its words alone.
#[derive(Debug, thiserror::Error)]
#[error("{}", malai_model::text::escape_control(text))]
pub struct Cause {
    text: String,
    #[source]
    beneath: Option<Box<Cause>>,
}

impl Error {
    /// A failure that the daemon told of.
    pub(crate) fn failed(view: FailedView) -> Self {
        let beneath = |beneath: Option<Cause>, text: &String| {
            Some(Cause { text: text.clone(), beneath: beneath.map(Box::new) })
        };
        let cause = view.causes.iter().rev().fold(None, beneath);
        Self::Failed { view: Box::new(view), cause }
    }

    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Node(error) => error.code(),
            #[cfg(all(feature = "daemon", unix))]
            Self::Socket(error) => error.code(),
            Self::Audit(error) => error.code(),
            Self::Session(error) => error.code(),
            #[cfg(unix)]
            Self::Copy(error) => error.code(),
            Self::Failed { view, .. } => view.error.code,
            Self::Closed => ErrorCode::Cancelled,
            Self::OutOfTurn => ErrorCode::DaemonUnanswered,
        }
    }

    /// Returns what sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.code().kind()
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Node(error) => error.hint(),
            #[cfg(all(feature = "daemon", unix))]
            Self::Socket(error) => error.hint(),
            Self::Audit(error) => error.hint(),
            Self::Session(error) => error.hint(),
            #[cfg(unix)]
            Self::Copy(error) => error.hint(),
            Self::Failed { view, .. } => view.error.shown_hint(),
            Self::Closed => None,
            Self::OutOfTurn => Some("restart the daemon with the same version of malai".to_owned()),
        }
    }

    /// Folds it and what lies beneath into what crosses a boundary.
    pub fn to_wire(&self) -> WireError {
        WireError::of(self.code(), self, self.hint())
    }

    /// Returns what is wrong with files, if that is why.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        match self {
            Self::Node(error) => error.diagnostics(),
            Self::Failed { view, .. } => view.diagnostics.clone(),
            _ => Vec::new(),
        }
    }
}

impl From<HomeError> for Error {
    fn from(error: HomeError) -> Self {
        Self::Node(error.into())
    }
}

impl From<IdentityError> for Error {
    fn from(error: IdentityError) -> Self {
        Self::Node(error.into())
    }
}

impl From<ServiceError> for Error {
    fn from(error: ServiceError) -> Self {
        Self::Node(error.into())
    }
}

impl From<ExecError> for Error {
    fn from(error: ExecError) -> Self {
        Self::Node(error.into())
    }
}
