//! What a compilation gives: a value with warnings, or every problem of the file.

use std::fmt;

use crate::code::ErrorCode;
use crate::diagnostic::Diagnostic;

/// The outcome of compiling one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled<T> {
    /// What the text means; present exactly if no diagnostic is an error.
    pub value: Option<T>,
    /// Errors and warnings, by their place in the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl<T> Compiled<T> {
    /// Keeps the value only if nothing is wrong.
    pub(crate) fn new(value: Option<T>, diagnostics: Vec<Diagnostic>) -> Self {
        let refused = diagnostics.iter().any(Diagnostic::is_error);
        Self { value: value.filter(|_| !refused), diagnostics }
    }

    /// Returns the value with the warnings.
    ///
    /// # Errors
    /// [`ConfigProblems`] with everything that was found, warnings too, if the file is refused.
    pub fn into_result(self) -> Result<(T, Vec<Diagnostic>), ConfigProblems> {
        match self.value {
            Some(value) => Ok((value, self.diagnostics)),
            None => Err(ConfigProblems { diagnostics: self.diagnostics }),
        }
    }
}

/// Everything that is wrong with one file. It prints all of it, with places, lines and hints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblems {
    diagnostics: Vec<Diagnostic>,
}

impl ConfigProblems {
    pub(crate) fn new(diagnostics: Vec<Diagnostic>) -> Self {
        Self { diagnostics }
    }

    /// The findings by their place in the file, warnings among them.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// The code of the failure.
    pub fn code(&self) -> ErrorCode {
        if self.diagnostics.iter().any(|found| found.rule == "too-large") {
            ErrorCode::ConfigTooLarge
        } else if self.diagnostics.iter().any(|found| found.rule == "reserved-alias") {
            ErrorCode::AliasReserved
        } else {
            ErrorCode::ConfigInvalid
        }
    }

    /// What to do; each finding has a hint of its own.
    pub fn hint(&self) -> Option<String> {
        Some("nothing was changed; mend the lines above and try again".to_owned())
    }
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.diagnostics.iter().filter(|found| found.is_error()).count();
        let file = self.diagnostics.first().map(|found| found.file.as_str()).unwrap_or_default();
        let file = crate::diagnostic::printable(file);
        write!(f, "{file} has {errors} error{}", if errors == 1 { "" } else { "s" })?;
        for found in &self.diagnostics {
            write!(f, "\n\n{}", found.render())?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigProblems {}
