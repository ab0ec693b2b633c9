//! Rules that a word or a number tells.

use super::Finding;
use super::source::{Source, Tree, is_word};

/// What `malai-model` may depend on: nothing that does IO, reads a clock or rolls dice.
const MODEL_DEPENDENCIES: &[&str] = &[
    "bytes",
    "data-encoding",
    "fastn-id52",
    "jiff",
    "serde",
    "serde_json",
    "sha2",
    "shlex",
    "strsim",
    "subtle",
    "thiserror",
    "toml_edit",
    "zeroize",
];

/// What `malai-model` may not say. The address types of `std::net` are in `core::net` too, without IO.
const MODEL_BANNED: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "getrandom::",
    "tokio::",
];

/// Lines of a file without its tests. About 400 is what to aim at.
const MAX_LINES: usize = 700;

/// Finds breaches of the rules about the model, lengths, libraries of fronts, tasks and lints.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let path = source.path.as_str();
        let mut report = |at: usize, rule, message: String| {
            findings.push(Finding { path: path.to_owned(), line: source.line_of(at), rule, message });
        };
        let product = source.product();

        if path.starts_with("core/model/src/") {
            for word in MODEL_BANNED {
                if let Some(at) = Source::find_path(product, word).next() {
                    report(at, "model", format!("the model does no IO and knows no clock: {word}"));
                }
            }
            for at in Source::find_path(product, "use std::") {
                let list = product[at + "use std::".len()..].split(';').next().unwrap_or("");
                let names = list.strip_prefix('{').into_iter().flat_map(|list| list.split(','));
                for name in names {
                    let name: String = name.trim().chars().take_while(|c| is_word(*c)).collect();
                    if ["fs", "net", "env", "process", "thread"].contains(&name.as_str()) {
                        report(at, "model", format!("the model does no IO and knows no clock: std::{name}"));
                    }
                }
            }
        }

        let lines = product.trim_end_matches('\n').lines().count().max(product.matches('\n').count());
        if lines > MAX_LINES {
            report(0, "length", format!("{lines} lines without tests; at most {MAX_LINES}, better 400"));
        }

        for (rule, word, home) in [("uniffi", "uniffi::", "ffi/"), ("clap", "clap::", "cli/")] {
            if !path.starts_with(home)
                && let Some(at) = Source::find_path(&source.code, word).next()
            {
                report(at, rule, format!("{word} outside {home}"));
            }
        }
        if path.starts_with("cli/")
            && let Some(at) = Source::find_path(&source.code, "malai_ffi::").next()
        {
            report(at, "fronts", "the fronts never import each other".to_owned());
        }

        if path != "core/src/task.rs" {
            let direct = ["tokio::spawn", "tokio::task::spawn", "tokio::task::spawn_local"];
            for at in direct.iter().flat_map(|word| Source::find_path(product, word)) {
                report(at, "spawn", "a task needs an owner: Scope::spawn".to_owned());
            }
            for at in Source::find_path(product, "use tokio::") {
                let list = product[at..].split(';').next().unwrap_or("");
                if list.contains('{') && Source::find_path(list, "spawn").next().is_some() {
                    report(at, "spawn", "a task needs an owner: Scope::spawn".to_owned());
                }
            }
        }

        for attribute in ["#[allow(", "#![allow("] {
            for (at, _) in source.code.match_indices(attribute) {
                report(at, "allow", "#[expect(…, reason = \"…\")] instead".to_owned());
            }
        }
    }
    for manifest in &tree.manifests {
        for (name, line) in &manifest.dependencies {
            let mut report = |rule, message| {
                findings.push(Finding { path: manifest.path.clone(), line: *line, rule, message });
            };
            let (path, name) = (manifest.path.as_str(), name.as_str());
            if path == "core/model/Cargo.toml" && !MODEL_DEPENDENCIES.contains(&name) {
                report("model", format!("{name} is not on the model's list in xtask/src/arch/rules.rs"));
            }
            if name == "uniffi" && !path.starts_with("ffi/") {
                report("uniffi", "only ffi depends on uniffi".to_owned());
            }
            if name == "clap" && path != "cli/Cargo.toml" {
                report("clap", "only cli depends on clap".to_owned());
            }
            let other_front = (path == "ffi/Cargo.toml" && name == "malai")
                || (path == "cli/Cargo.toml" && name == "malai-ffi");
            if other_front {
                report("fronts", "the fronts never import each other".to_owned());
            }
        }
    }
    findings
}
