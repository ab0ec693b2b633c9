//! The only file that prints.

use std::io::Write;
use std::process::ExitCode;

use malai_core::api::SCHEMA;
use malai_core::model::diagnostic::Diagnostic;
use malai_core::model::text::{escape_control, escape_json};
use serde::Serialize;

use crate::env::Env;
use crate::error::Failure;

/// What a subcommand ends with: everything it did, or nothing more to say.
pub(crate) const DONE: u8 = 0;
/// The status of a subcommand that failed.
pub(crate) const FAILED: u8 = 1;
/// The status of wrong usage.
pub(crate) const USAGE: u8 = 2;
/// The status of malai's own failure where a remote status is expected.
pub(crate) const OWN_FAILURE: u8 = 255;

/// A JSON object as one line, with the version of the schema in it. Whatever a peer put into it: nothing acts on a
/// terminal.
pub(crate) fn json_line(mut value: serde_json::Value) -> String {
    value["schema"] = SCHEMA.into();
    escape_json(&value.to_string()).into_owned()
}

/// Prints, in colour where that helps.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    colour: bool,
}

impl Output {
    pub(crate) fn new(env: &Env) -> Self {
        Self { colour: env.colour }
    }

    /// Prints a line of data.
    pub(crate) fn line(&self, text: &str) {
        if let Err(error) = writeln!(std::io::stdout().lock(), "{text}")
            // A reader that went away (`| head`) is no failure.
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            self.note(&format!("{} failed to write the output", self.paint("error:", "31")));
            self.note(&format!("{} {error}", self.paint("caused by:", "31")));
            std::process::exit(FAILED.into());
        }
    }

    /// Prints text that ends in a line break of its own.
    pub(crate) fn raw(&self, text: &str) {
        self.line(text.strip_suffix('\n').unwrap_or(text));
    }

    /// Prints data as JSON, with the version of the schema beside it.
    pub(crate) fn json(&self, data: &impl Serialize) {
        let mut value = serde_json::to_value(data).unwrap_or_default();
        match &mut value {
            serde_json::Value::Object(fields) => {
                fields.insert("schema".to_owned(), SCHEMA.into());
            }
            other => value = serde_json::json!({ "schema": SCHEMA, "items": other.take() }),
        }
        self.line(&escape_json(&serde_json::to_string_pretty(&value).unwrap_or_default()));
    }

    /// Prints one of many JSON values, on a line of its own, with the version of the schema in it.
    pub(crate) fn json_line(&self, value: serde_json::Value) {
        self.line(&json_line(value));
    }

    /// Says something beside the data, on stderr.
    pub(crate) fn note(&self, text: &str) {
        _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Puts a text in the place of the terminal's last line, on stderr, which must be a terminal.
    pub(crate) fn replace_line(&self, text: &str) {
        _ = write!(std::io::stderr().lock(), "\r\x1b[K{text}");
    }

    /// Shows findings about files, on stderr.
    pub(crate) fn diagnostics(&self, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics {
            self.note(&diagnostic.render());
        }
    }

    /// Shows a failure as `error:`, `caused by:`, `hint:` lines, or as JSON on stderr.
    pub(crate) fn failure(&self, failure: &Failure, json: bool) {
        if json {
            let value = serde_json::json!({
                "error": {
                    "code": failure.code,
                    "message": failure.message,
                    "causes": failure.causes,
                    "hint": failure.hint,
                    "diagnostics": failure.diagnostics,
                },
            });
            self.note(&json_line(value));
            return;
        }
        self.diagnostics(&failure.diagnostics);
        // Whatever a peer or a file put into it: nothing but what is painted here may act on the terminal.
        let line = |head: &str, colour: &str, text: &str| {
            self.note(&format!("{} {}", self.paint(head, colour), escape_control(text)));
        };
        line("error:", "31", &format!("failed to {}", failure.message));
        for cause in &failure.causes {
            line("caused by:", "31", cause);
        }
        if let Some(hint) = &failure.hint {
            line("hint:", "36", hint);
        }
    }

    /// Prints clap's help or its complaint.
    pub(crate) fn usage(&self, usage: &clap::Error) -> ExitCode {
        _ = usage.print();
        ExitCode::from(if usage.use_stderr() { USAGE } else { DONE })
    }

    fn paint(&self, text: &str, code: &str) -> String {
        if self.colour { format!("\x1b[1;{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
