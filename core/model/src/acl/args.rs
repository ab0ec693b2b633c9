//! Which words a caller may add to a command.

use crate::config::{ArgGlob, ArgsRule};

/// Finds the first of the words that a rule does not let in.
pub(super) fn first_refused(rule: &ArgsRule, words: &[String]) -> Option<usize> {
    match rule {
        ArgsRule::None => (!words.is_empty()).then_some(0),
        ArgsRule::Any => None,
        ArgsRule::Globs(globs) => words.iter().position(|word| !globs.iter().any(|glob| matches(glob, word))),
    }
}

/// Says whether a glob lets a word in.
///
/// A word with `..` could leave the directory that the glob was meant for, and one with a leading `-` is an option and
/// not the value that the glob was meant for: these need to be written out.
fn matches(glob: &ArgGlob, word: &str) -> bool {
    let pattern = glob.as_str();
    if pattern == word {
        return true;
    }
    if word.contains("..") || word.starts_with('-') {
        return false;
    }
    // No wildcard matches a slash, so the slashes of both sides correspond one to one.
    let (mut patterns, mut parts) = (pattern.split('/'), word.split('/').peekable());
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if pattern == part => {}
            // `/srv/*/*` is meant to say how deep: `/srv/./x` and `/srv//x` are not as deep as they look.
            (Some(_), Some("." | "")) if parts.peek().is_some() => return false,
            (Some(_), Some(".")) if word.contains('/') => return false,
            (Some(pattern), Some(part)) if part_matches(pattern, part) => {}
            _ => return false,
        }
    }
}

/// Matches one part without slashes.
fn part_matches(pattern: &str, part: &str) -> bool {
    if pattern.is_ascii() && part.is_ascii() {
        // Nearly always, and then nothing needs to be taken apart into characters.
        return wildcards_match(pattern.as_bytes(), part.as_bytes(), b'*', b'?');
    }
    let (pattern, part): (Vec<char>, Vec<char>) = (pattern.chars().collect(), part.chars().collect());
    wildcards_match(&pattern, &part, '*', '?')
}

/// Goes back to the last `*` only, so that no input makes it explode: at worst pattern times part.
fn wildcards_match<T: PartialEq>(pattern: &[T], part: &[T], star: T, any: T) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while t < part.len() {
        match pattern.get(p) {
            Some(c) if *c == star => {
                last_star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == any || *c == part[t] => {
                p += 1;
                t += 1;
            }
            _ => match last_star {
                Some((at, taken)) => {
                    last_star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == star)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lets_in(pattern: &str, word: &str) -> bool {
        matches(&ArgGlob(pattern.to_owned()), word)
    }

    #[test]
    fn a_star_stays_within_one_part_of_a_path() {
        assert!(lets_in("/var/log/*.log", "/var/log/a.log"));
        assert!(!lets_in("/var/log/*.log", "/var/log/nginx/a.log"));
        assert!(!lets_in("*", "a/b"));
        assert!(!lets_in("a?b", "a/b"));
        assert!(lets_in("/srv/*/*", "/srv/a/b"));
        assert!(lets_in("*", "") && lets_in("*", "."));
        assert!(!lets_in("**", "a/b"));
    }

    #[test]
    fn wildcards_match_what_they_say() {
        assert!(lets_in("a*b*c", "aXXbYYbZc"));
        assert!(!lets_in("a*b*c", "aXXbYYbZ"));
        assert!(lets_in("v?.?", "v1.2"));
        assert!(!lets_in("v?", "v12"));
        assert!(lets_in("é?", "éü"));
        assert!(!lets_in("?", "éü"));
        assert!(lets_in("*?ü", "aéü"));
        assert!(lets_in("exact", "exact"));
        assert!(!lets_in("exact", "exactly"));
        assert!(!lets_in("", "x"));
    }

    #[test]
    fn parent_directories_and_options_match_only_when_written_out() {
        assert!(!lets_in("*", ".."));
        assert!(!lets_in("/srv/*/x", "/srv/../x"));
        for shallow in ["/srv/./x", "/srv//x", "/srv/x/.", "/srv/./.", "/srv//", "/srv/./"] {
            assert!(!lets_in("/srv/*/*", shallow), "{shallow}");
        }
        assert!(
            lets_in("/srv/./*", "/srv/./x") && lets_in("/srv/*/*", "/srv/x/") && lets_in("/srv/*", "/srv/.x")
        );
        assert!(!lets_in("*", "a..b"));
        assert!(!lets_in("*", "-rf"));
        assert!(!lets_in("-*", "-rf"));
        assert!(!lets_in("?rf", "-rf"));
        assert!(lets_in("--force", "--force"));
        assert!(lets_in("../x", "../x"));
        assert!(lets_in("-*", "-*"));
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = "*a".repeat(200);
        let word = "a".repeat(5000) + "b";
        assert!(!lets_in(&pattern, &word));
    }

    #[test]
    fn rules_point_at_the_first_word_that_they_refuse() {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert_eq!(first_refused(&ArgsRule::None, &words(&[])), None);
        assert_eq!(first_refused(&ArgsRule::None, &words(&["x"])), Some(0));
        assert_eq!(first_refused(&ArgsRule::Any, &words(&["-rf", ".."])), None);
        let globs = ArgsRule::Globs(vec![ArgGlob("a*".to_owned()), ArgGlob("b".to_owned())]);
        assert_eq!(first_refused(&globs, &words(&["ax", "b"])), None);
        assert_eq!(first_refused(&globs, &words(&["ax", "c", "d"])), Some(1));
        assert_eq!(first_refused(&ArgsRule::Globs(vec![]), &words(&["c"])), Some(0));
    }
}
