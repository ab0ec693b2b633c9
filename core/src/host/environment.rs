//! A command's environment: made from nothing, so that neither the daemon's nor the caller's leaks into it.

use std::collections::BTreeMap;

use malai_model::id::Id52;
use malai_model::name::MachineName;

use super::LocalUser;

/// The most `LC_*` variables that are passed on; locales have thirteen.
const MAX_LOCALE: usize = 16;
/// The longest name and value that are passed on, in bytes.
const MAX_TEXT: usize = 64;

/// Who asks for a command, as the connection and the config say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The connection's peer.
    pub id52: Id52,
    /// The peer's name in the cluster, if the config knows one.
    pub machine: Option<MachineName>,
    /// What the cluster is called here.
    pub cluster: String,
    /// Whether the rule that lets it in says which words may follow the command.
    pub restricted: bool,
}

/// The variable by which a program learns that its words are restricted by a rule.
pub const RESTRICTED: &str = "MALAI_RESTRICTED";

/// Builds the whole environment of a command: `HOME USER LOGNAME SHELL PATH` of the user,
/// `MALAI_CLIENT_ID52`, `MALAI_CLIENT_MACHINE` (absent for a caller without a name), `MALAI_CLUSTER`,
/// `MALAI_RESTRICTED` (where a rule says which words may follow the command), and of what the caller sent those variables that [`is_passed_on`] lets through.
pub fn build_environment(
    user: &LocalUser,
    caller: &Caller,
    sent: &BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let mut environment = vec![
        ("HOME", text(&user.home)),
        ("USER", user.name.clone()),
        ("LOGNAME", user.name.clone()),
        ("SHELL", text(&user.shell)),
        ("PATH", user.path.clone()),
        ("MALAI_CLIENT_ID52", caller.id52.to_string()),
        ("MALAI_CLUSTER", caller.cluster.clone()),
    ];
    if let Some(machine) = &caller.machine {
        environment.push(("MALAI_CLIENT_MACHINE", machine.to_string()));
    }
    if caller.restricted {
        environment.push((RESTRICTED, "1".to_owned()));
    }
    let passed = sent.iter().filter(|(name, value)| is_passed_on(name, value));
    let (locale, others): (Vec<_>, Vec<_>) = passed.partition(|(name, _)| name.starts_with("LC_"));
    let passed = others.into_iter().chain(locale.into_iter().take(MAX_LOCALE));
    environment
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .chain(passed.map(|(name, value)| (name.clone(), value.clone())))
        .collect()
}

/// Says whether a caller's variable reaches the command: `TERM`, `LANG` and `LC_*` only, with short values of
/// `[A-Za-z0-9_.@-]`. A client sends no others; a target drops them.
pub fn is_passed_on(name: &str, value: &str) -> bool {
    let known = match name.strip_prefix("LC_") {
        Some(rest) => !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'),
        None => matches!(name, "TERM" | "LANG"),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.@-".contains(&b);
    known && name.len() <= MAX_TEXT && (1..=MAX_TEXT).contains(&value.len()) && value.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use malai_model::id::SecretKey;

    use super::*;

    fn user() -> LocalUser {
        LocalUser {
            name: "deploy".to_owned(),
            uid: 1000,
            gid: 1000,
            home: "/home/deploy".into(),
            shell: "/bin/bash".into(),
            path: "/usr/bin:/bin".to_owned(),
            groups: vec![1000],
            umask: 0o022,
        }
    }

    fn caller() -> Caller {
        let id52 = SecretKey::from_bytes(&[1; 32]).id52();
        Caller {
            id52,
            machine: Some("laptop".parse().expect("a name")),
            cluster: "company".to_owned(),
            restricted: false,
        }
    }

    fn sent(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_environment_is_the_user_s_the_caller_s_identity_and_nothing_else() {
        let sent = sent(&[("TERM", "xterm-256color"), ("LANG", "de_DE.UTF-8@euro"), ("LC_ALL", "C")]);
        let mut built = build_environment(&user(), &caller(), &sent);
        built.sort();
        let id52 = caller().id52.to_string();
        let expected = [
            ("HOME", "/home/deploy"),
            ("LANG", "de_DE.UTF-8@euro"),
            ("LC_ALL", "C"),
            ("LOGNAME", "deploy"),
            ("MALAI_CLIENT_ID52", &id52),
            ("MALAI_CLIENT_MACHINE", "laptop"),
            ("MALAI_CLUSTER", "company"),
            ("PATH", "/usr/bin:/bin"),
            ("SHELL", "/bin/bash"),
            ("TERM", "xterm-256color"),
            ("USER", "deploy"),
        ];
        assert_eq!(built, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_caller_cannot_send_who_it_is_nor_what_changes_a_program() {
        let hostile = sent(&[
            ("MALAI_CLIENT_ID52", "x"),
            ("PATH", "/tmp"),
            ("LD_PRELOAD", "x.so"),
            ("LC_", "x"),
            ("LC_A=B", "x"),
            ("LC_a", "x"),
            ("LC_ALL\0", "x"),
            ("LC_TIME", "../../etc"),
            ("LC_CTYPE", "() { :;}"),
            ("LC_NAME", ""),
            ("LANG", "C\nPATH=/tmp"),
            ("LANGUAGE", "de"),
            ("TERM", &"x".repeat(65)),
            ("term", "x"),
        ]);
        assert_eq!(
            build_environment(&user(), &caller(), &hostile),
            build_environment(&user(), &caller(), &sent(&[]))
        );
    }

    #[test]
    fn the_number_of_variables_is_bounded_and_the_useful_ones_come_first() {
        let mut many: BTreeMap<String, String> = (0..1000_u32)
            .map(|n| (format!("LC_{}", "A".repeat(1 + (n % 60) as usize)), "C".to_owned()))
            .collect();
        many.insert("TERM".to_owned(), "xterm".to_owned());
        let built = build_environment(&user(), &caller(), &many);
        assert_eq!(built.len(), 8 + 1 + MAX_LOCALE);
        assert!(built.contains(&("TERM".to_owned(), "xterm".to_owned())));
    }

    #[test]
    fn a_program_learns_that_its_words_are_restricted_and_no_caller_says_so() {
        let has = |caller: &Caller, sent: &BTreeMap<String, String>| {
            build_environment(&user(), caller, sent).iter().any(|(name, _)| name == RESTRICTED)
        };
        assert!(has(&Caller { restricted: true, ..caller() }, &sent(&[])));
        assert!(!has(&caller(), &sent(&[(RESTRICTED, "1")])));
    }

    #[test]
    fn a_caller_without_a_name_has_no_machine_variable() {
        let built = build_environment(&user(), &Caller { machine: None, ..caller() }, &sent(&[]));
        assert!(!built.iter().any(|(name, _)| name == "MALAI_CLIENT_MACHINE"));
    }
}
