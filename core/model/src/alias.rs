//! `[aliases]`: words of this device that stand for the beginning of a command line.

use std::collections::BTreeMap;

use crate::name::AliasName;

/// The words that no alias may be called, for good: they are malai's own commands, today's and those of its earlier
/// versions. The list is documented and does not grow; an alias that collides with a command of a later version keeps
/// compiling, with a warning of the front that has the command, and the command wins.
pub const RESERVED_ALIASES: &[&str] = &[
    "audit",
    "cluster",
    "completions",
    "config",
    "cp",
    "create-cluster",
    "create-machine",
    "curl",
    "d",
    "daemon",
    "doctor",
    "exec",
    "folder",
    "help",
    "http",
    "http-bridge",
    "identity",
    "info",
    "init",
    "init-cluster",
    "keygen",
    "machine",
    "man",
    "ping",
    "proxy-via",
    "relay",
    "rescan",
    "rsh",
    "run",
    "service",
    "sessions",
    "shell",
    "ssh-config",
    "status",
    "stdio",
    "sync",
    "tcp",
    "tcp-bridge",
    "version",
];

/// Aliases by name. The words of one are never empty and begin with an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aliases(BTreeMap<AliasName, Vec<String>>);

impl Aliases {
    /// Takes aliases as they are; those without words are left out.
    pub fn new(aliases: impl IntoIterator<Item = (AliasName, Vec<String>)>) -> Self {
        Self(aliases.into_iter().filter(|(_, words)| !words.is_empty()).collect())
    }

    /// The words of an alias.
    pub fn get(&self, word: &str) -> Option<&[String]> {
        self.0.get(word).map(Vec::as_slice)
    }

    /// All aliases, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&AliasName, &[String])> {
        self.0.iter().map(|(name, words)| (name, words.as_slice()))
    }
}

/// Says whether no alias may have this name.
pub fn is_reserved_alias(word: &str) -> bool {
    RESERVED_ALIASES.binary_search(&word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserved_words_are_sorted_and_the_documented_ones() {
        assert!(RESERVED_ALIASES.is_sorted());
        // The words that the first design named.
        for word in ["daemon", "cluster", "machine", "info", "status", "service", "identity", "rescan"] {
            assert!(is_reserved_alias(word), "{word}");
        }
        assert!(!is_reserved_alias("web"));
    }
}
