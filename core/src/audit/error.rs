//! Why the audit log could not be written or read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use malai_model::code::ErrorCode;

use crate::home::HomeError;

/// Why the audit log could not be written or read. Cheap to clone: one failure is everybody's who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The directory cannot be used.
    #[error("use the audit log")]
    Home(#[source] Arc<HomeError>),
    /// An operation of the file system failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another process holds the lock for longer than a write takes.
    #[error("get the lock of the audit log: another process holds it")]
    Busy,
    /// More waits to be written than is kept.
    #[error("write the audit log: too much waits for that")]
    Overrun,
}

impl AuditError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::AuditFailed
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("the disk is full: make room on it".to_owned())
            }
            Self::Busy => Some("a program of this user holds a lock on the folder audit/: end it".to_owned()),
            Self::Io { .. } | Self::Overrun => None,
        }
    }
}

impl From<HomeError> for AuditError {
    fn from(error: HomeError) -> Self {
        Self::Home(Arc::new(error))
    }
}
