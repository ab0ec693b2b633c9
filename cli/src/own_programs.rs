//! The names by which this program is something else than the command line: what malai starts for itself, and, where a
//! program takes only a path to call another, a symbolic link that says which subcommand is meant.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use malai_core::terminal::{Begun, SESSION_PROGRAM, SessionHost};

/// Does what the program's name says; `None` if it is the command line.
pub(crate) fn run() -> Option<ExitCode> {
    match std::env::args_os().next()?.to_str()? {
        SESSION_PROGRAM => Some(session()),
        _ => None,
    }
}

/// The process of one session: small, with one thread.
fn session() -> ExitCode {
    let host = match SessionHost::begin() {
        Begun::Session(host) => host,
        Begun::Leave(code) => return code,
    };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            runtime.block_on(host.run());
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Turns the words that this process was started with into those of a plain `malai`.
pub(crate) fn plain_words(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let name = words.first().and_then(|first| Path::new(first).file_name()).and_then(OsStr::to_str);
    if let Some(subcommand) = name.and_then(subcommand) {
        words[0] = "malai".into();
        words.insert(1, subcommand.into());
    }
    // The first `--` would be taken as this program's: behind `rsh` it is one of ssh's words, which end its options.
    if let Some(at) = subcommand_at(&words)
        && words[at] == "rsh"
        && words.get(at + 1).is_some_and(|word| word == "--")
    {
        words.insert(at + 1, "--".into());
    }
    words
}

/// Where the subcommand stands: behind this program's own options.
fn subcommand_at(words: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(word) = words.get(at) {
        match word.to_str() {
            Some("--home" | "--connect-timeout") => at += 2,
            Some(option) if option.starts_with('-') => at += 1,
            _ => return Some(at),
        }
    }
    None
}

fn subcommand(name: &str) -> Option<&'static str> {
    match name {
        // `scp -S malai-rsh`, ansible's `ansible_ssh_executable`.
        "malai-rsh" => Some("rsh"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbolic_links_name_stands_for_a_subcommand() {
        let plain = |words: &[&str]| plain_words(words.iter().map(OsString::from));
        assert_eq!(plain(&["/opt/x/malai-rsh", "-x", "h"]), ["malai", "rsh", "-x", "h"]);
        assert_eq!(plain(&["malai-rsh"]), ["malai", "rsh"]);
        assert_eq!(plain(&["malai-rsh", "--", "-v", "h"]), ["malai", "rsh", "--", "--", "-v", "h"]);
        assert_eq!(
            plain(&["malai", "--home", "d", "rsh", "--", "h"]),
            ["malai", "--home", "d", "rsh", "--", "--", "h"]
        );
        assert_eq!(plain(&["malai", "web01.company", "rsh", "--"]), ["malai", "web01.company", "rsh", "--"]);
        assert_eq!(plain(&["malai", "rsh", "-x", "--", "h"]), ["malai", "rsh", "-x", "--", "h"]);
        for words in [&["malai", "rsh"][..], &["/x/malai-rsh/malai"], &["malai-other"], &[]] {
            assert_eq!(plain(words), words.iter().map(OsString::from).collect::<Vec<_>>());
        }
    }
}
