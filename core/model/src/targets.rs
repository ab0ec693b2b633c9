//! Many machines by a few words: `web*.company`, `@admins.company`, plain addresses, aliases of one address.
//!
//! What a word can mean are the machines that this device may reach. Whether a machine lets it do something there is
//! decided by that machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::address::{
    AddressProblem, ClusterRef, KnownCluster, MachineSelector, cluster_of, resolve_machine,
};
use crate::alias::Aliases;
use crate::code::ErrorCode;
use crate::config::{ClusterConfig, MachineConfig, nearest_word};
use crate::id::Id52;
use crate::name::{ClusterAlias, GroupName, MachineName};

/// How many names a hint lists at most.
const NAMES_IN_A_HINT: usize = 6;

/// A pattern for the names of machines: `*` is any text, `?` any one character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameGlob(String);

/// What a word of a list of targets says, before anybody looked which machines there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPattern {
    /// Every machine whose name matches.
    Glob {
        /// The pattern.
        glob: NameGlob,
        /// In which cluster.
        cluster: ClusterAlias,
    },
    /// Every machine of a group.
    Group {
        /// Which.
        group: GroupName,
        /// In which cluster.
        cluster: ClusterAlias,
    },
    /// One machine.
    Machine {
        /// Which.
        machine: MachineSelector,
        /// In which cluster.
        cluster: ClusterAlias,
    },
}

/// What this device may reach in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reachable {
    /// The machines, by name.
    pub machines: BTreeMap<MachineName, Id52>,
    /// This device itself, if it is a machine there: meant by its own name or id, by patterns only if it is among the
    /// machines too.
    pub own: Option<(MachineName, Id52)>,
    /// Groups, cut to those machines.
    pub groups: BTreeMap<GroupName, BTreeSet<MachineName>>,
}

/// A machine that was meant. Ordered by cluster, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SelectedMachine {
    /// In which cluster.
    pub cluster: ClusterAlias,
    /// Its name there.
    pub name: MachineName,
    /// Its identity.
    pub id52: Id52,
}

/// Why a list of targets means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetProblem {
    /// There is no word.
    #[error("no target was given")]
    Empty,
    /// A word is no address.
    #[error("{0}")]
    Address(AddressProblem),
    /// A word has a wildcard, or an `@`, and is no pattern.
    #[error("{text:?} is no pattern for machines")]
    Shape {
        /// What was given.
        text: String,
        /// What is to be written instead.
        mend: String,
    },
    /// An alias that is more than an address.
    #[error("the alias {alias:?} is a command, not a machine")]
    AliasOfCommand {
        /// Which.
        alias: String,
    },
    /// Two ids: a cluster that this device is no member of.
    #[error("{text:?} is in a cluster that this device is no member of")]
    Foreign {
        /// What was given.
        text: String,
    },
    /// No machine that this device may reach has such a name, or is in that group.
    #[error("{pattern:?} matches no machine that this device may reach")]
    NoMatch {
        /// What was given.
        pattern: String,
        /// In which cluster.
        cluster: ClusterAlias,
        /// Names that are near, or else some that there are.
        near: Vec<String>,
    },
    /// The cluster has no such group, or this device may reach nobody in it.
    #[error("no group {group:?} is known here in {cluster}")]
    UnknownGroup {
        /// Which.
        group: GroupName,
        /// In which cluster.
        cluster: ClusterAlias,
        /// Names that are near, or else some that there are.
        near: Vec<String>,
    },
    /// The cluster has no such machine, or this device may not reach it.
    #[error("there is no machine {machine} in {cluster}, or none that this device may reach")]
    UnknownMachine {
        /// Which.
        machine: String,
        /// In which cluster.
        cluster: ClusterAlias,
        /// Names that are near, or else some that there are.
        near: Vec<String>,
    },
}

impl TargetProblem {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Empty => ErrorCode::Usage,
            Self::Address(problem) => problem.code(),
            Self::Shape { .. } | Self::AliasOfCommand { .. } => ErrorCode::AddressInvalid,
            Self::Foreign { .. } => ErrorCode::AddressUnknownCluster,
            Self::NoMatch { .. } | Self::UnknownGroup { .. } | Self::UnknownMachine { .. } => {
                ErrorCode::AddressUnknownMachine
            }
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let near = |near: &[String], none: &str| match near {
            [] => none.to_owned(),
            names => format!("known here: {}", names.join(", ")),
        };
        match self {
            Self::Empty => Some("name some: web01.company, 'web*.company', @admins.company".to_owned()),
            Self::Address(problem) => problem.hint(),
            Self::Shape { mend, .. } => Some(mend.clone()),
            Self::AliasOfCommand { .. } => {
                Some("an alias that is an address alone can stand for a target".to_owned())
            }
            Self::Foreign { .. } => Some("join it first: `malai machine init <invite> <alias>`".to_owned()),
            Self::NoMatch { near: names, .. } | Self::UnknownMachine { near: names, .. } => {
                Some(near(names, "no machine is; `malai info` shows what is, `malai sync` asks for more"))
            }
            Self::UnknownGroup { near: names, .. } => {
                Some(near(names, "no group is; name machines, or a pattern such as 'web*.company'"))
            }
        }
    }

    /// The cluster whose newer config might know what this one does not.
    pub fn cluster(&self) -> Option<&ClusterAlias> {
        match self {
            Self::NoMatch { cluster, .. }
            | Self::UnknownGroup { cluster, .. }
            | Self::UnknownMachine { cluster, .. } => Some(cluster),
            _ => None,
        }
    }
}

impl From<AddressProblem> for TargetProblem {
    fn from(problem: AddressProblem) -> Self {
        Self::Address(problem)
    }
}

impl NameGlob {
    /// Takes a pattern of names' characters, `*` and `?`; `None` if it has others, or is empty.
    pub fn new(text: &str) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-*?".contains(&byte);
        (!text.is_empty() && text.len() <= 253 && text.bytes().all(fits)).then(|| Self(text.to_owned()))
    }

    /// Says whether a name matches as a whole.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut in_name) = (0, 0);
        // Where the last `*` was, and up to where in the name it has been tried.
        let mut star: Option<(usize, usize)> = None;
        while in_name < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, in_name));
                    at += 1;
                }
                Some(&byte) if byte == b'?' || byte == name[in_name] => {
                    at += 1;
                    in_name += 1;
                }
                _ => match &mut star {
                    Some((of_star, taken)) => {
                        *taken += 1;
                        (at, in_name) = (*of_star + 1, *taken);
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl fmt::Display for NameGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TargetPattern {
    /// Reads a word: `@group.cluster`, `glob.cluster`, an alias, an address. Letters count in either case.
    ///
    /// # Errors
    /// What the word is not, with what to write instead.
    pub fn parse(text: &str, aliases: &Aliases, clusters: &[KnownCluster]) -> Result<Self, TargetProblem> {
        let text = match aliases.get(text) {
            Some([address]) => address,
            Some(_) => return Err(TargetProblem::AliasOfCommand { alias: text.to_owned() }),
            None => text,
        };
        let lower = text.to_ascii_lowercase();
        let shape = |mend: &str| TargetProblem::Shape { text: text.to_owned(), mend: mend.to_owned() };
        if let Some(rest) = lower.strip_prefix('@') {
            let usage = "write @group.cluster, such as @admins.company";
            let (group, cluster) = cluster_of(rest, clusters)?.ok_or_else(|| shape(usage))?;
            let group = group.parse().map_err(|_| shape(usage))?;
            return Ok(Self::Group { group, cluster });
        }
        if lower.contains(['*', '?']) {
            let usage =
                "write a pattern and a cluster, such as 'web*.company'; * and ? are for machines' names";
            let (glob, cluster) = cluster_of(&lower, clusters)?.ok_or_else(|| shape(usage))?;
            let glob = NameGlob::new(glob).ok_or_else(|| shape(usage))?;
            return Ok(Self::Glob { glob, cluster });
        }
        let target = resolve_machine(text, clusters)?;
        match target.cluster {
            ClusterRef::Known(cluster) => Ok(Self::Machine { machine: target.machine, cluster }),
            ClusterRef::Foreign(_) => Err(TargetProblem::Foreign { text: text.to_owned() }),
        }
    }

    /// The cluster that it is about.
    pub fn cluster(&self) -> &ClusterAlias {
        match self {
            Self::Glob { cluster, .. } | Self::Group { cluster, .. } | Self::Machine { cluster, .. } => {
                cluster
            }
        }
    }

    /// Finds the machines that it means; never none.
    ///
    /// # Errors
    /// When there are none, with names that are near.
    pub fn select(&self, reach: &Reachable) -> Result<BTreeSet<SelectedMachine>, TargetProblem> {
        let cluster = self.cluster();
        let selected = |name: &MachineName, id52: &Id52| SelectedMachine {
            cluster: cluster.clone(),
            name: name.clone(),
            id52: *id52,
        };
        let found: BTreeSet<SelectedMachine> = match self {
            Self::Glob { glob, .. } => {
                let matching = reach.machines.iter().filter(|(name, _)| glob.matches(name.as_str()));
                matching.map(|(name, id52)| selected(name, id52)).collect()
            }
            Self::Group { group, .. } => {
                let Some(members) = reach.groups.get(group) else {
                    let names = reach.groups.keys().map(GroupName::as_str);
                    return Err(TargetProblem::UnknownGroup {
                        group: group.clone(),
                        cluster: cluster.clone(),
                        near: near(group.as_str(), names, |name| format!("@{name}.{cluster}")),
                    });
                };
                let known = members.iter().filter_map(|name| reach.machines.get_key_value(name));
                known.map(|(name, id52)| selected(name, id52)).collect()
            }
            Self::Machine { machine, .. } => {
                let own = reach.own.iter().map(|(name, id52)| (name, id52));
                let is_meant = |name: &MachineName, id52: &Id52| match machine {
                    MachineSelector::Name(wanted) => wanted == name,
                    MachineSelector::Id(wanted) => wanted == id52,
                };
                let mut all = own.chain(&reach.machines);
                let Some((name, id52)) = all.find(|(name, id52)| is_meant(name, id52)) else {
                    let machine = machine.to_string();
                    return Err(TargetProblem::UnknownMachine {
                        near: self.near_machines(&machine, reach),
                        machine,
                        cluster: cluster.clone(),
                    });
                };
                BTreeSet::from([selected(name, id52)])
            }
        };
        if found.is_empty() {
            let literal = match self {
                Self::Glob { glob, .. } => glob.0.replace(['*', '?'], ""),
                _ => String::new(),
            };
            let near = self.near_machines(&literal, reach);
            return Err(TargetProblem::NoMatch { pattern: self.to_string(), cluster: cluster.clone(), near });
        }
        Ok(found)
    }

    fn near_machines(&self, wanted: &str, reach: &Reachable) -> Vec<String> {
        let names = reach.machines.keys().map(MachineName::as_str);
        near(wanted, names, |name| format!("{name}.{}", self.cluster()))
    }
}

impl fmt::Display for TargetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glob { glob, cluster } => write!(f, "{glob}.{cluster}"),
            Self::Group { group, cluster } => write!(f, "@{group}.{cluster}"),
            Self::Machine { machine, cluster } => write!(f, "{machine}.{cluster}"),
        }
    }
}

impl fmt::Display for SelectedMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.cluster)
    }
}

impl Reachable {
    /// What a machine may reach, by its personalised config.
    pub fn of_machine(config: &MachineConfig) -> Self {
        let directory = config.directory();
        Self {
            machines: directory.machines().iter().map(|(name, entry)| (name.clone(), entry.id52)).collect(),
            own: Some((config.recipient().machine.clone(), config.recipient().id52)),
            groups: directory.groups().clone(),
        }
    }

    /// What the manager may reach: every machine. `own` is its id52, for the case that it is a machine too.
    pub fn of_manager(config: &ClusterConfig, own: &Id52) -> Self {
        let machines: BTreeMap<MachineName, Id52> =
            config.machines().iter().map(|(name, entry)| (name.clone(), entry.id52)).collect();
        let names: BTreeMap<Id52, &MachineName> = machines.iter().map(|(name, id)| (*id, name)).collect();
        let groups = config.groups().iter().map(|(group, members)| {
            let ids = config.expand(members);
            let members = ids.iter().filter_map(|id| names.get(id)).map(|name| (*name).clone());
            (group.clone(), members.collect())
        });
        let groups = groups.collect();
        let own = config.machine_of(own).map(|(name, entry)| (name.clone(), entry.id52));
        Self { machines, own, groups }
    }
}

/// Finds what several patterns mean together: each machine once, by cluster, then by name.
///
/// # Errors
/// The first pattern that means nothing.
pub fn select_all<'r>(
    patterns: &[TargetPattern],
    reach: impl Fn(&ClusterAlias) -> Option<&'r Reachable>,
) -> Result<Vec<SelectedMachine>, TargetProblem> {
    let nothing = Reachable::default();
    let mut all = BTreeSet::new();
    for pattern in patterns {
        all.append(&mut pattern.select(reach(pattern.cluster()).unwrap_or(&nothing))?);
    }
    if all.is_empty() { Err(TargetProblem::Empty) } else { Ok(all.into_iter().collect()) }
}

/// The name that is nearest, else the first few that there are.
fn near<'n>(
    wanted: &str,
    names: impl Iterator<Item = &'n str> + Clone,
    full: impl Fn(&str) -> String,
) -> Vec<String> {
    match nearest_word(wanted, names.clone()) {
        Some(name) => vec![full(name)],
        None => {
            let mut shown: Vec<String> = names.clone().take(NAMES_IN_A_HINT).map(full).collect();
            if names.count() > NAMES_IN_A_HINT {
                shown.push("…".to_owned());
            }
            shown
        }
    }
}

#[cfg(test)]
mod tests;
