//! Errors as the terminal shows them.

use malai_core::Error;
use malai_core::daemon::DaemonError;
use malai_core::model::code::ErrorCode;
use malai_core::model::diagnostic::Diagnostic;

/// A failure of a subcommand, ready to be shown.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) causes: Vec<String>,
    pub(crate) hint: Option<String>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Failure {
    /// Wrong use of the command line that clap cannot know.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::Usage,
            message: message.into(),
            causes: Vec::new(),
            hint: Some(hint.into()),
            diagnostics: Vec::new(),
        }
    }

    /// Something of this process itself failed.
    pub(crate) fn local(message: impl Into<String>, cause: &std::io::Error) -> Self {
        Self {
            code: ErrorCode::Internal,
            message: message.into(),
            causes: vec![cause.to_string()],
            hint: None,
            diagnostics: Vec::new(),
        }
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Start(error) => error.into(),
            other => Self {
                code: other.code(),
                message: other.to_string(),
                causes: std::error::Error::source(&other).map(ToString::to_string).into_iter().collect(),
                hint: other.hint(),
                diagnostics: Vec::new(),
            },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut causes = Vec::new();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Self {
            code: error.code(),
            message: error.to_string(),
            causes,
            hint: error.hint(),
            diagnostics: error.diagnostics(),
        }
    }
}
