//! Checks of single values: names, ids, ports, durations, words, globs, networks.

use core::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use super::Validator;
use crate::config::cluster::{ArgGlob, ArgsRule, UserName};
use crate::config::document::{Span, Spanned};
use crate::config::reader::{RawList, RawText};
use crate::duration::parse_duration;
use crate::id::{Id52, IdProblem};
use crate::name::NameProblem;

/// Why a text is no user name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a user name is [a-z_][a-z0-9_-]*, at most 32 characters")]
pub struct UserNameProblem;

impl FromStr for UserName {
    type Err = UserNameProblem;

    fn from_str(text: &str) -> Result<Self, UserNameProblem> {
        let stem = text.strip_suffix('$').unwrap_or(text);
        let first = stem.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        let rest =
            stem.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
        if first && rest && stem.len() <= 32 { Ok(Self(text.to_owned())) } else { Err(UserNameProblem) }
    }
}

/// Why a text is no glob for an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobProblem {
    /// It is empty.
    #[error("a glob is not empty")]
    Empty,
    /// It has a control character.
    #[error("a glob has no control characters")]
    Control,
    /// It has `**`, which would look as if it crossed directories.
    #[error("`**` is no glob: `*` never matches `/`")]
    DoubleStar,
}

impl FromStr for ArgGlob {
    type Err = GlobProblem;

    fn from_str(text: &str) -> Result<Self, GlobProblem> {
        if text.is_empty() {
            return Err(GlobProblem::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(GlobProblem::Control);
        }
        if text.contains("**") {
            return Err(GlobProblem::DoubleStar);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Splits `host:port`; an IPv6 host stands in brackets. `None` if either part is wrong.
pub(crate) fn split_host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let plain = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| plain && *port > 0)?;
    let host_is_right = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|ip| ip.parse::<core::net::Ipv6Addr>().is_ok()),
        None => !host.contains(':') && is_host(host),
    };
    host_is_right.then_some((host, port))
}

/// Says whether a text is an IP address or a host name.
pub(crate) fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // Four numbers that are no IPv4 address are a slip, not a host.
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.len() <= 253 && !numeric && text.split('.').all(label)
}

/// Parses `10.0.0.0/8`. The error says what to write.
pub(crate) fn parse_network(text: &str) -> Result<(IpAddr, u8), String> {
    let example = "for example 10.0.0.0/8 or fd00::/8".to_owned();
    let Some((ip, prefix)) = text.split_once('/') else {
        return Err(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => format!("for this one address write {text}/32"),
            Ok(IpAddr::V6(_)) => format!("for this one address write {text}/128"),
            Err(_) => example,
        });
    };
    let (Ok(ip), Ok(prefix)) = (ip.parse::<IpAddr>(), prefix.parse::<u8>()) else { return Err(example) };
    let base = match ip {
        IpAddr::V4(v4) if prefix <= 32 => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::from((u32::from(v4) & mask).to_be_bytes())
        }
        IpAddr::V6(v6) if prefix <= 128 => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::from((u128::from(v6) & mask).to_be_bytes())
        }
        _ => return Err(example),
    };
    if base == ip { Ok((ip, prefix)) } else { Err(format!("the network of that is {base}/{prefix}")) }
}

/// What a name would be if its wrong characters were mended.
fn mended_name(text: &str) -> Option<String> {
    let mended: String = text
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '-') => c,
            _ => '-',
        })
        .collect();
    (!mended.is_empty() && mended.len() <= 63 && mended.contains(|c: char| c != '-')).then_some(mended)
}

impl Validator<'_, '_> {
    pub(crate) fn name<N: FromStr<Err = NameProblem>>(
        &mut self,
        kind: &str,
        raw: &Spanned<String>,
    ) -> Option<N> {
        match raw.value.parse::<N>() {
            Ok(name) => Some(name),
            Err(problem) => {
                let hint = match &problem {
                    NameProblem::Character(_) => mended_name(&raw.value).map(|m| format!("call it {m:?}")),
                    NameProblem::Reserved(_) => Some(format!("give the {kind} another name")),
                    _ => None,
                };
                let message = format!("{} is no {kind} name: {problem}", quoted(&raw.value));
                self.findings.error("bad-name", &raw.span, message, hint);
                None
            }
        }
    }

    pub(crate) fn id52(&mut self, raw: &Spanned<String>) -> Option<Id52> {
        match raw.value.trim().parse::<Id52>() {
            Ok(id) => Some(id),
            Err(problem) => {
                let hint = match problem {
                    IdProblem::Length(_) => "copy all 52 characters; `malai info` prints a device's id52",
                    IdProblem::Character | IdProblem::NotAKey => {
                        "copy it again; `malai info` prints a device's id52"
                    }
                };
                let message = format!("{} is no id52: {problem}", quoted(&raw.value));
                self.findings.error("bad-id52", &raw.span, message, Some(hint.to_owned()));
                None
            }
        }
    }

    pub(crate) fn user(&mut self, raw: &Spanned<String>) -> Option<UserName> {
        let user = raw.value.parse::<UserName>();
        if let Err(problem) = &user {
            let message = format!("{} is no user name: {problem}", quoted(&raw.value));
            self.findings.error("bad-username", &raw.span, message, None);
        }
        user.ok()
    }

    pub(crate) fn port(&mut self, raw: &Spanned<i64>) -> Option<u16> {
        let port = u16::try_from(raw.value).ok().filter(|port| *port > 0);
        if port.is_none() {
            let message = format!("port {} is out of range", raw.value);
            self.findings.error("bad-port", &raw.span, message, Some("a port is 1 to 65535".to_owned()));
        }
        port
    }

    pub(crate) fn host(&mut self, raw: &Spanned<String>) -> Option<String> {
        if is_host(&raw.value) {
            return Some(raw.value.clone());
        }
        let hint = if split_host_port(&raw.value).is_some() {
            "write the port as a key of its own: port = 8080"
        } else if raw.value.contains("://") {
            "write the host alone, without scheme or path"
        } else {
            "write an IP address or a host name: 127.0.0.1"
        };
        let message = format!("{} is no host", quoted(&raw.value));
        self.findings.error("bad-host", &raw.span, message, Some(hint.to_owned()));
        None
    }

    pub(crate) fn duration(&mut self, raw: &Spanned<String>) -> Option<Duration> {
        match parse_duration(&raw.value) {
            Ok(duration) => Some(duration),
            Err(problem) => {
                let hint = if !raw.value.is_empty() && raw.value.bytes().all(|b| b.is_ascii_digit()) {
                    format!("for seconds write \"{}s\"", raw.value)
                } else {
                    "for example 10s, 5m, 2h, 30d, 500ms".to_owned()
                };
                let message = format!("{} is no duration: {problem}", quoted(&raw.value));
                self.findings.error("bad-duration", &raw.span, message, Some(hint));
                None
            }
        }
    }

    pub(crate) fn addresses(&mut self, list: &RawList) -> Vec<String> {
        for word in list.value.iter().filter(|word| split_host_port(&word.value).is_none()) {
            let hint = if is_host(&word.value) {
                format!("add the port: {}:4242", word.value)
            } else {
                "write host:port, an IPv6 address in brackets: [2001:db8::1]:4242".to_owned()
            };
            let message = format!("{} is no address", quoted(&word.value));
            self.findings.error("bad-address", &word.span, message, Some(hint));
        }
        list.value.iter().map(|word| word.value.clone()).collect()
    }

    pub(crate) fn networks(&mut self, list: &RawList) -> Vec<String> {
        for word in &list.value {
            if let Err(hint) = parse_network(&word.value) {
                let message = format!("{} is no network in CIDR form", quoted(&word.value));
                self.findings.error("bad-network", &word.span, message, Some(hint));
            }
        }
        list.value.iter().map(|word| word.value.clone()).collect()
    }

    /// Splits a command as a shell would; an array is taken as the words that it is.
    pub(crate) fn words(&mut self, what: &str, raw: &RawText) -> Option<Vec<String>> {
        let (words, span): (Vec<String>, &Span) = match raw {
            RawText::One(text) => match shlex::split(&text.value) {
                Some(words) => (words, &text.span),
                None => {
                    let hint = "close the quote, or write the words as a list: [\"echo\", \"it's\"]";
                    self.findings.error(
                        "bad-words",
                        &text.span,
                        format!("{what:?} has a quote that is not closed"),
                        Some(hint.to_owned()),
                    );
                    return None;
                }
            },
            RawText::Many(list) => (list.value.iter().map(|word| word.value.clone()).collect(), &list.span),
        };
        if words.first().is_none_or(String::is_empty) {
            let hint = format!("remove the line, or name a program: {what} = \"systemctl restart nginx\"");
            self.findings.error("bad-words", span, format!("{what:?} names no program"), Some(hint));
            return None;
        }
        if words.iter().any(|word| word.contains('\0')) {
            self.findings.error("bad-words", span, format!("{what:?} has a zero byte"), None);
            return None;
        }
        Some(words)
    }

    /// `none`, `any`, or globs. `None` if it cannot be read.
    pub(crate) fn args(&mut self, raw: &RawText) -> Option<ArgsRule> {
        let globs = match raw {
            RawText::One(text) => match text.value.as_str() {
                "none" => return Some(ArgsRule::None),
                "any" => return Some(ArgsRule::Any),
                _ => text
                    .value
                    .split(',')
                    .map(|glob| Spanned::new(glob.trim().to_owned(), text.span.clone()))
                    .collect(),
            },
            RawText::Many(list) => list.value.clone(),
        };
        let before = self.findings.has_errors();
        let mut rules = Vec::with_capacity(globs.len());
        for glob in &globs {
            match glob.value.parse::<ArgGlob>() {
                Ok(rule) => {
                    self.warn_of_odd_glob(glob);
                    rules.push(rule);
                }
                Err(problem) => {
                    let hint = "none, any, or globs that each further word must match: [\"*.log\", \"-n\"]";
                    self.findings.error(
                        "bad-glob",
                        &glob.span,
                        format!("{} cannot be an argument: {problem}", quoted(&glob.value)),
                        Some(hint.to_owned()),
                    );
                }
            }
        }
        (before || !self.findings.has_errors()).then_some(ArgsRule::Globs(rules))
    }

    fn warn_of_odd_glob(&mut self, glob: &Spanned<String>) {
        let text = glob.value.as_str();
        let wild = text.contains(['*', '?']);
        let message = if wild && (text.starts_with('-') || text.contains("..")) {
            format!("{} matches only itself: words with a leading - or with .. are not globbed", quoted(text))
        } else if wild && text.contains('[') && text.contains(']') {
            format!("brackets stand for themselves in {}: only * and ? are wild", quoted(text))
        } else {
            return;
        };
        let hint = "list the allowed words one by one".to_owned();
        self.findings.warning("glob-is-literal", &glob.span, message, Some(hint));
    }
}

/// A value for a message: quoted, and shortened if it is very long.
pub(crate) fn quoted(text: &str) -> String {
    if text.chars().count() <= 100 {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(80).collect();
    format!("{start:?}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_are_those_of_useradd() {
        for good in ["deploy", "_apt", "www-data", "machine$", "a1"] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        for bad in ["", "Root", "1a", "-a", "a b", "a:b", "$", "a$b", &"a".repeat(33)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in ["web01.example.com:4242", "10.0.0.1:1", "[2001:db8::1]:65535", "localhost:80"] {
            assert!(split_host_port(good).is_some(), "{good}");
        }
        for bad in ["web01", ":80", "a:0", "a:65536", "2001:db8::1:80", "a b:80", "1.2.3.999:80", "a:+8"] {
            assert!(split_host_port(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_network_names_its_base() {
        assert!(parse_network("10.0.0.0/8").is_ok());
        assert!(parse_network("0.0.0.0/0").is_ok());
        assert!(parse_network("fd00::/8").is_ok());
        assert_eq!(parse_network("10.0.0.1/8"), Err("the network of that is 10.0.0.0/8".to_owned()));
        assert!(parse_network("10.0.0.1").is_err());
        assert!(parse_network("10.0.0.0/33").is_err());
        assert!(parse_network("::/129").is_err());
    }
}
