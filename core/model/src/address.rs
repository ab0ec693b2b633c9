//! Addresses: which machine of which cluster a word means, and what of the command line is then left.
//!
//! Order: a word from `[aliases]`, then `machine.cluster` with the longest known cluster, then `id52.id52`. Not
//! responsible for whether the machine exists, nor for where it is.

use std::collections::BTreeSet;
use std::fmt;

use crate::alias::Aliases;
use crate::code::ErrorCode;
use crate::config::nearest_word;
use crate::id::Id52;
use crate::name::{ClusterAlias, MachineName, ServiceName};

/// A cluster of this device, by everything that it may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCluster {
    /// What this device calls it.
    pub alias: ClusterAlias,
    /// The domain that it was joined by.
    pub domain: Option<String>,
    /// The ids of its root, earlier ones of the chain too.
    pub ids: Vec<Id52>,
}

/// What a word stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// In which cluster.
    pub cluster: ClusterRef,
    /// Which machine there.
    pub machine: MachineSelector,
}

/// A cluster, known or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterRef {
    /// One of this device's.
    Known(ClusterAlias),
    /// One that this device is no member of.
    Foreign(Id52),
}

/// A machine in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MachineSelector {
    /// By its name there.
    Name(MachineName),
    /// By its identity.
    Id(Id52),
}

/// What the remote side of a forward or a URL's host stands for: `mysql.company`, `ssh.web01.company:22`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceTarget {
    /// In which cluster.
    pub cluster: ClusterAlias,
    /// The machine of a machine-scoped service.
    pub machine: Option<MachineName>,
    /// Which service.
    pub service: ServiceName,
    /// The port that was written behind it.
    pub port: Option<u16>,
}

/// Why a word is no address here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressProblem {
    /// There is no word.
    #[error("no address was given")]
    Empty,
    /// It has not the shape of an address.
    #[error("{text:?} is no address")]
    Shape {
        /// What was given.
        text: String,
        /// What is to be written instead.
        mend: String,
    },
    /// The cluster is none of this device's.
    #[error("no cluster {cluster:?} is known here")]
    UnknownCluster {
        /// The part behind the machine.
        cluster: String,
        /// The known name that is nearest to it.
        nearest: Option<String>,
        /// Everything that a cluster is called here.
        known: Vec<String>,
    },
    /// Several clusters of this device have that domain.
    #[error("{cluster:?} is the domain of several clusters here")]
    AmbiguousCluster {
        /// The domain.
        cluster: String,
        /// The clusters.
        aliases: Vec<String>,
    },
    /// The words behind the address have a quote that is not closed.
    #[error("the command {text:?} has a quote that is not closed")]
    Quote {
        /// The word with blanks.
        text: String,
    },
}

impl AddressProblem {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownCluster { .. } => ErrorCode::AddressUnknownCluster,
            Self::Quote { .. } => ErrorCode::Usage,
            Self::Empty | Self::Shape { .. } | Self::AmbiguousCluster { .. } => ErrorCode::AddressInvalid,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Empty => Some("write machine.cluster, such as web01.company".to_owned()),
            Self::Shape { mend, .. } => Some(mend.clone()),
            Self::UnknownCluster { nearest: Some(nearest), .. } => Some(format!("did you mean {nearest:?}?")),
            Self::UnknownCluster { known, .. } if known.is_empty() => {
                Some("this device is in no cluster yet: join one with `malai machine init`".to_owned())
            }
            Self::UnknownCluster { known, .. } => Some(format!("known here: {}", known.join(", "))),
            Self::AmbiguousCluster { aliases, .. } => {
                Some(format!("use its alias: {}", aliases.join(" or ")))
            }
            Self::Quote { .. } => Some("close the quote, or give the command's words one by one".to_owned()),
        }
    }
}

impl fmt::Display for ClusterRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(alias) => alias.fmt(f),
            Self::Foreign(id) => id.fmt(f),
        }
    }
}

impl fmt::Display for MachineSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.machine, self.cluster)
    }
}

impl fmt::Display for ServiceTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.service)?;
        if let Some(machine) = &self.machine {
            write!(f, "{machine}.")?;
        }
        write!(f, "{}", self.cluster)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Resolves the words of a command line: the target that the first one means, and the words to run there.
///
/// An alias's words come first, then what was typed after it. A single typed word with blanks is split as a shell would.
///
/// # Errors
/// [`AddressProblem`] says what the first word is not, and what is near it.
pub fn resolve(
    words: &[String],
    aliases: &Aliases,
    clusters: &[KnownCluster],
) -> Result<(Target, Vec<String>), AddressProblem> {
    let (first, typed) = words.split_first().ok_or(AddressProblem::Empty)?;
    let (address, before) = match aliases.get(first).and_then(<[String]>::split_first) {
        Some((address, before)) => (address, before),
        None => (first, &[][..]),
    };
    let target = resolve_machine(address, clusters)?;
    let mut rest = before.to_vec();
    match typed {
        [only] if before.is_empty() && only.contains([' ', '\t', '\n', '\r']) => {
            let split = shlex::split(only).ok_or_else(|| AddressProblem::Quote { text: only.clone() })?;
            rest.extend(split);
        }
        _ => rest.extend_from_slice(typed),
    }
    Ok((target, rest))
}

/// Resolves one address, without aliases. Letters count in either case.
///
/// # Errors
/// [`AddressProblem::Shape`] and the cluster's problems.
pub fn resolve_machine(text: &str, clusters: &[KnownCluster]) -> Result<Target, AddressProblem> {
    let lower = text.to_ascii_lowercase();
    let shape = |mend: &str| AddressProblem::Shape { text: text.to_owned(), mend: mend.to_owned() };
    if let Some((machine, cluster)) = split_known(&lower, clusters)? {
        if machine.contains('.') {
            return Err(shape("a command goes to a machine: machine.cluster, without a service before it"));
        }
        let machine = selector(machine)
            .ok_or_else(|| shape("a machine's name has only a-z, 0-9 and -: web01.company"))?;
        return Ok(Target { cluster: ClusterRef::Known(cluster), machine });
    }
    let (machine, cluster) =
        lower.split_once('.').ok_or_else(|| shape("write machine.cluster, such as web01.company"))?;
    if let (Ok(machine), Ok(cluster)) = (machine.parse(), cluster.parse()) {
        return Ok(Target { cluster: ClusterRef::Foreign(cluster), machine: MachineSelector::Id(machine) });
    }
    if selector(machine).is_none() || !is_cluster_text(cluster) {
        return Err(shape("write machine.cluster, such as web01.company"));
    }
    Err(unknown_cluster(cluster, clusters))
}

/// Resolves the name of a service: `service.cluster` or `service.machine.cluster`, with `:port` or without.
///
/// # Errors
/// [`AddressProblem::Shape`] and the cluster's problems.
pub fn resolve_service(text: &str, clusters: &[KnownCluster]) -> Result<ServiceTarget, AddressProblem> {
    let lower = text.to_ascii_lowercase();
    let shape = |mend: &str| AddressProblem::Shape { text: text.to_owned(), mend: mend.to_owned() };
    let (name, port) = match lower.split_once(':') {
        None => (lower.as_str(), None),
        Some((name, port)) => match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => (name, Some(number)),
            _ => return Err(shape("a port is 1 to 65535")),
        },
    };
    let usage = "write service.cluster or service.machine.cluster, such as mysql.company";
    let Some((labels, cluster)) = split_known(name, clusters)? else {
        let (service, cluster) = name.split_once('.').ok_or_else(|| shape(usage))?;
        if service.parse::<ServiceName>().is_err() || !is_cluster_text(cluster) {
            return Err(shape(usage));
        }
        return Err(unknown_cluster(cluster, clusters));
    };
    let (service, machine) = match labels.split_once('.') {
        None => (labels, None),
        Some((service, machine)) => (service, Some(machine.parse().map_err(|_| shape(usage))?)),
    };
    let service = service.parse().map_err(|_| shape(usage))?;
    Ok(ServiceTarget { cluster, machine, service, port })
}

/// Says whether a text can be a machine's address or a service's name: labels with dots, whoever knows the cluster.
pub(crate) fn has_address_shape(text: &str) -> bool {
    text.split_once('.').is_some_and(|(first, rest)| {
        selector(&first.to_ascii_lowercase()).is_some() && is_cluster_text(&rest.to_ascii_lowercase())
    })
}

fn selector(label: &str) -> Option<MachineSelector> {
    match label.parse::<Id52>() {
        Ok(id) => Some(MachineSelector::Id(id)),
        Err(_) => label.parse().ok().map(MachineSelector::Name),
    }
}

fn is_cluster_text(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| label.parse::<ClusterAlias>().is_ok() || Id52::has_shape(label))
}

/// Splits a text such as `web*.company` into what stands before a known cluster, and that cluster; `None` if it has not
/// that shape.
///
/// # Errors
/// When the part behind the first dot could be a cluster, and is none that is known.
pub(crate) fn cluster_of<'t>(
    lower: &'t str,
    clusters: &[KnownCluster],
) -> Result<Option<(&'t str, ClusterAlias)>, AddressProblem> {
    if let Some(found) = split_known(lower, clusters)? {
        return Ok(Some(found));
    }
    match lower.split_once('.') {
        Some((before, cluster)) if !before.is_empty() && is_cluster_text(cluster) => {
            Err(unknown_cluster(cluster, clusters))
        }
        _ => Ok(None),
    }
}

/// Splits before the longest suffix that a known cluster is called by.
fn split_known<'t>(
    text: &'t str,
    clusters: &[KnownCluster],
) -> Result<Option<(&'t str, ClusterAlias)>, AddressProblem> {
    // The first dot gives the longest suffix.
    for (at, _) in text.match_indices('.') {
        let suffix = &text[at + 1..];
        if let Some(alias) = find_cluster(suffix, clusters)? {
            return Ok(Some((&text[..at], alias)));
        }
    }
    Ok(None)
}

/// Finds a cluster by alias, then by domain, then by an id of its chain.
fn find_cluster(text: &str, clusters: &[KnownCluster]) -> Result<Option<ClusterAlias>, AddressProblem> {
    if let Some(known) = clusters.iter().find(|known| known.alias.as_str() == text) {
        return Ok(Some(known.alias.clone()));
    }
    let by_domain = |known: &&KnownCluster| {
        known.domain.as_deref().is_some_and(|domain| domain.eq_ignore_ascii_case(text))
    };
    let found: Vec<&KnownCluster> = clusters.iter().filter(by_domain).collect();
    if found.len() > 1 {
        let aliases = found.iter().map(|known| known.alias.to_string()).collect();
        return Err(AddressProblem::AmbiguousCluster { cluster: text.to_owned(), aliases });
    }
    if let Some(known) = found.first() {
        return Ok(Some(known.alias.clone()));
    }
    let Ok(id) = text.parse::<Id52>() else { return Ok(None) };
    Ok(clusters.iter().find(|known| known.ids.contains(&id)).map(|known| known.alias.clone()))
}

fn unknown_cluster(cluster: &str, clusters: &[KnownCluster]) -> AddressProblem {
    let names: BTreeSet<&str> = clusters
        .iter()
        .flat_map(|known| [Some(known.alias.as_str()), known.domain.as_deref()].into_iter().flatten())
        .collect();
    AddressProblem::UnknownCluster {
        cluster: cluster.to_owned(),
        nearest: nearest_word(cluster, names.iter().copied()).map(str::to_owned),
        known: names.into_iter().map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SecretKey;

    fn id(n: u8) -> Id52 {
        SecretKey::from_bytes(&[n; 32]).id52()
    }

    fn known(alias: &str, domain: Option<&str>, ids: &[u8]) -> KnownCluster {
        KnownCluster {
            alias: alias.parse().expect("a name"),
            domain: domain.map(str::to_owned),
            ids: ids.iter().map(|n| id(*n)).collect(),
        }
    }

    fn clusters() -> Vec<KnownCluster> {
        vec![
            known("company", Some("example.com"), &[1, 2]),
            known("com", None, &[3]),
            known("ft", Some("eu.example.com"), &[4]),
        ]
    }

    fn target(text: &str) -> Result<String, ErrorCode> {
        resolve_machine(text, &clusters()).map(|t| t.to_string()).map_err(|p| p.code())
    }

    fn words(text: &[&str]) -> Vec<String> {
        text.iter().map(|word| (*word).to_owned()).collect()
    }

    fn aliases() -> Aliases {
        Aliases::new([
            ("web".parse().expect("a name"), words(&["web01.company"])),
            ("logs".parse().expect("a name"), words(&["web01.company", "tail", "-f", "x"])),
        ])
    }

    #[test]
    fn a_cluster_is_an_alias_a_domain_or_an_id_of_its_chain() {
        assert_eq!(target("web01.company").as_deref(), Ok("web01.company"));
        assert_eq!(target("web01.example.com").as_deref(), Ok("web01.company"));
        assert_eq!(target("WEB01.Example.COM").as_deref(), Ok("web01.company"));
        assert_eq!(target(&format!("web01.{}", id(2))).as_deref(), Ok("web01.company"));
        assert_eq!(target(&format!("{}.company", id(9))), Ok(format!("{}.company", id(9))));
    }

    #[test]
    fn the_longest_known_cluster_wins() {
        assert_eq!(target("web01.com").as_deref(), Ok("web01.com"));
        assert_eq!(target("web01.eu.example.com").as_deref(), Ok("web01.ft"));
        // `eu` is no machine of example.com as long as a longer name is known.
        assert_eq!(target("eu.example.com").as_deref(), Ok("eu.company"));
    }

    #[test]
    fn two_ids_reach_a_foreign_cluster_and_a_name_does_not() {
        let text = format!("{}.{}", id(8), id(9));
        assert_eq!(
            resolve_machine(&text, &clusters()),
            Ok(Target { cluster: ClusterRef::Foreign(id(9)), machine: MachineSelector::Id(id(8)) })
        );
        assert_eq!(target(&format!("web01.{}", id(9))), Err(ErrorCode::AddressUnknownCluster));
    }

    #[test]
    fn an_unknown_cluster_names_the_nearest() {
        let problem = resolve_machine("web01.compnay", &clusters()).expect_err("unknown");
        assert_eq!(problem.code(), ErrorCode::AddressUnknownCluster);
        assert_eq!(problem.hint().as_deref(), Some("did you mean \"company\"?"));
        assert!(resolve_machine("web01.x", &[]).expect_err("none known").hint().is_some());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "web01", ".", "web01.", ".company", "a b.company", "ssh.web01.company", "-\u{e9}.company"]
        {
            assert_eq!(target(text), Err(ErrorCode::AddressInvalid), "{text:?}");
        }
        assert_eq!(resolve(&[], &aliases(), &clusters()), Err(AddressProblem::Empty));
    }

    #[test]
    fn two_clusters_of_one_domain_are_told_apart_by_alias() {
        let both = [known("a", Some("x.org"), &[1]), known("b", Some("x.org"), &[2])];
        let problem = resolve_machine("web.x.org", &both).expect_err("ambiguous");
        assert_eq!(problem.hint().as_deref(), Some("use its alias: a or b"));
    }

    #[test]
    fn an_aliass_words_come_first() {
        let run = |text: &[&str]| resolve(&words(text), &aliases(), &clusters()).expect("it resolves").1;
        assert_eq!(run(&["web"]), words(&[]));
        assert_eq!(run(&["web", "ps", "aux"]), words(&["ps", "aux"]));
        assert_eq!(run(&["logs", "my file"]), words(&["tail", "-f", "x", "my file"]));
    }

    #[test]
    fn a_single_word_with_blanks_is_split_as_a_shell_would() {
        let run = |text: &[&str]| resolve(&words(text), &aliases(), &clusters()).map(|(_, rest)| rest);
        assert_eq!(run(&["web", "ps 'a b'"]), Ok(words(&["ps", "a b"])));
        assert_eq!(run(&["web01.company", "ps"]), Ok(words(&["ps"])));
        assert_eq!(run(&["web01.company", "echo", "a b"]), Ok(words(&["echo", "a b"])));
        assert_eq!(run(&["web", "echo 'x"]).map_err(|p| p.code()), Err(ErrorCode::Usage));
    }

    #[test]
    fn a_service_is_of_the_cluster_or_of_a_machine() {
        let service =
            |text: &str| resolve_service(text, &clusters()).map(|t| t.to_string()).map_err(|p| p.code());
        assert_eq!(service("mysql.company").as_deref(), Ok("mysql.company"));
        assert_eq!(service("ssh.web01.example.com:22").as_deref(), Ok("ssh.web01.company:22"));
        assert_eq!(service("a.b.c.company"), Err(ErrorCode::AddressInvalid));
        assert_eq!(service("mysql.nowhere"), Err(ErrorCode::AddressUnknownCluster));
        for text in ["mysql", "mysql.company:0", "mysql.company:+1", "mysql.company:x", ":1"] {
            assert_eq!(service(text), Err(ErrorCode::AddressInvalid), "{text:?}");
        }
    }
}
