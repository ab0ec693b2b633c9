//! Aliases of `malai.toml` that a command of malai's hides. The words that were commands, or planned, when aliases came
//! are reserved; a command that came later wins over an alias, and says so.

use clap::CommandFactory;
use malai_core::api;
use malai_core::model::alias::is_reserved_alias;
use malai_core::model::diagnostic::{Diagnostic, Severity};

use super::Context;
use crate::args::Args;

pub(crate) const CURE: &str = "give the alias another name in malai.toml";

/// The aliases that are hidden, by name.
pub(crate) fn aliases(context: &Context) -> Vec<String> {
    let options = context.client_options().ok();
    let Some(aliases) = options.and_then(|options| api::aliases(options).ok()) else { return Vec::new() };
    let root = Args::command();
    let names = aliases.iter().map(|(name, _)| name.as_str());
    names.filter(|name| root.find_subcommand(name).is_some()).map(str::to_owned).collect()
}

/// What is said of one.
pub(crate) fn message(alias: &str) -> String {
    format!("the alias {alias:?} is hidden by the command `malai {alias}`")
}

/// The same as a finding about the file.
pub(crate) fn diagnostic(context: &Context, alias: &str) -> Diagnostic {
    let home = context.env.home(context.global.home.as_ref()).unwrap_or_default();
    Diagnostic {
        severity: Severity::Warning,
        rule: "alias-hidden".to_owned(),
        file: home.join("malai.toml").display().to_string(),
        position: None,
        source_line: None,
        length: 1,
        message: message(alias),
        hint: Some(CURE.to_owned()),
    }
}

/// Says so when the very word is used as a command.
pub(crate) fn tell(context: &Context, word: &str) {
    // No file is read for the commands that every version had.
    if !is_reserved_alias(word) && aliases(context).iter().any(|alias| alias == word) {
        context.output.note(&format!("warning: {}; {CURE}", message(word)));
    }
}
