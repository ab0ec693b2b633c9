//! Errors as an app sees them: a variant a kind.

use malai_core::model::code::{ErrorCode, ErrorKind};
use malai_core::model::name::NameProblem;
use malai_core::model::wire::WireError;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident,)*) => {
        /// Why a call failed.
        ///
        /// The variant says what sort of failure it is, for code that decides what to do; `code` says which
        /// one exactly.
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, uniffi::Error)]
        pub enum MalaiError {
            $(
                $(#[$doc])*
                #[error("{message}")]
                $kind {
                    /// The stable code, such as `acl.denied`. A code is never renamed and never used for
                    /// something else.
                    code: String,
                    /// What failed, with which value: one line that is safe to show and reads after "failed
                    /// to". If a config file has errors, all of them follow, with their places, on lines of
                    /// their own.
                    message: String,
                    /// What to do about it, if malai knows.
                    hint: Option<String>,
                },
            )*
        }

        impl From<WireError> for MalaiError {
            fn from(error: WireError) -> Self {
                let WireError { code, message, hint } = error;
                let (kind, code) = (code.kind(), code.to_string());
                match kind {
                    $(ErrorKind::$kind => Self::$kind { code, message, hint },)*
                }
            }
        }
    };
}

kinds! {
    /// What was given cannot be used as it is.
    InvalidInput,
    /// Something named does not exist.
    NotFound,
    /// It exists already, or changed meanwhile.
    Conflict,
    /// Not allowed.
    Denied,
    /// A machine could not be reached, or the connection to it was lost.
    Unreachable,
    /// It took too long.
    Timeout,
    /// Somebody cancelled it.
    Cancelled,
    /// The two sides do not speak the same version.
    Incompatible,
    /// A limit is reached: later it may work.
    Busy,
    /// Reading or writing a file failed.
    Storage,
    /// A defect of malai's.
    Internal,
}

/// A failure that is part of an answer, not the answer itself.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Failure {
    /// The stable code, such as `p2p.unreachable`.
    pub code: String,
    /// What failed, with which value.
    pub message: String,
    /// What to do about it, if malai knows.
    pub hint: Option<String>,
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Self { code: error.code.to_string(), message: error.message, hint: error.hint }
    }
}

impl From<malai_core::Error> for MalaiError {
    fn from(error: malai_core::Error) -> Self {
        let findings = error.diagnostics();
        let mut told = WireError::of(error.code(), &error, error.hint());
        for finding in &findings {
            told.message.push('\n');
            told.message.push_str(&finding.render());
        }
        told.into()
    }
}

impl MalaiError {
    /// A text that is no name where one is needed.
    pub(crate) fn no_name(text: &str, problem: &NameProblem) -> Self {
        Self::made(ErrorCode::NameInvalid, format!("use the name {text:?}: {problem}"))
    }

    /// The host called `cancel()`.
    pub(crate) fn cancelled() -> Self {
        Self::made(ErrorCode::Cancelled, "go on with the command: it was cancelled".to_owned())
    }

    /// The host called `shutdown()`.
    pub(crate) fn shut_down() -> Self {
        Self::made(ErrorCode::Cancelled, "go on: malai was shut down".to_owned())
    }

    /// A task of ours panicked. What it said may hold anything, so it is not passed on.
    pub(crate) fn panicked(task: &str) -> Self {
        Self::made(ErrorCode::Internal, format!("finish {task:?}: a defect of malai's ended it"))
    }

    pub(crate) fn made(code: ErrorCode, message: String) -> Self {
        WireError { code, message, hint: None }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_code_message_and_hint_under_its_kind() {
        let error = WireError {
            code: ErrorCode::AclDenied,
            message: "run \"ls\": not allowed here".to_owned(),
            hint: Some("ask".to_owned()),
        };
        let MalaiError::Denied { code, message, hint } = MalaiError::from(error) else {
            panic!("a denial is of the kind Denied");
        };
        assert_eq!(
            (code.as_str(), message.as_str(), hint.as_deref()),
            ("acl.denied", "run \"ls\": not allowed here", Some("ask"))
        );
    }
}
