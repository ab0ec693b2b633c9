//! Names of malai's own: some programs take only a path where they call another, so a symbolic link says which
//! subcommand is meant.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Turns the words that this process was started with into those of a plain `malai`.
pub(crate) fn plain_words(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let name = words.first().and_then(|first| Path::new(first).file_name()).and_then(OsStr::to_str);
    if let Some(subcommand) = name.and_then(subcommand) {
        words[0] = "malai".into();
        words.insert(1, subcommand.into());
    }
    words
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
        for words in [&["malai", "rsh"][..], &["/x/malai-rsh/malai"], &["malai-other"], &[]] {
            assert_eq!(plain(words), words.iter().map(OsString::from).collect::<Vec<_>>());
        }
    }
}
