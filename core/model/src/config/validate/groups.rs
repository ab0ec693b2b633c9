//! Groups: cycles, and the sets of identities that lists stand for.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::config::cluster::{ClusterConfig, PrincipalList, PrincipalRef};
use crate::config::document::{Findings, Span};
use crate::id::Id52;
use crate::name::GroupName;

/// How many names all printed cycles of a file may have together; a longer cycle is shortened in its middle.
const MAX_PRINTED: usize = 20_000;

/// What the search needs of one group: its sub-groups and where each is named.
pub(crate) type Edges = BTreeMap<GroupName, Vec<(GroupName, Span)>>;

/// Reports each cycle whole, as `a -> b -> a`, once, at the word that closes it.
pub(crate) fn report_cycles(findings: &mut Findings<'_>, edges: &Edges) {
    let mut done: HashSet<&GroupName> = HashSet::new();
    let mut printed = 0;
    for start in edges.keys() {
        if done.contains(start) {
            continue;
        }
        // The path with, for each group on it, the next sub-group to look at. A loop of our own: the file chooses the
        // depth.
        let mut path: Vec<(&GroupName, usize)> = vec![(start, 0)];
        let mut on_path: HashMap<&GroupName, usize> = HashMap::from([(start, 0)]);
        while let Some((group, next)) = path.last_mut() {
            let group = *group;
            let Some((child, span)) = edges.get(group).and_then(|subs| subs.get(*next)) else {
                path.pop();
                on_path.remove(group);
                done.insert(group);
                continue;
            };
            *next += 1;
            if let Some(depth) = on_path.get(child) {
                let cycle = print_cycle(&path[*depth..], &mut printed);
                let hint = if child == group {
                    "remove it from its own members".to_owned()
                } else {
                    format!("remove {:?} from the members of {:?}", child.as_str(), group.as_str())
                };
                let message = format!("groups contain each other in a circle: {cycle}");
                findings.error("group-cycle", span, message, Some(hint));
            } else if !done.contains(child) && edges.contains_key(child) {
                on_path.insert(child, path.len());
                path.push((child, 0));
            }
        }
    }
}

fn print_cycle(path: &[(&GroupName, usize)], printed: &mut usize) -> String {
    let join = |path: &[(&GroupName, usize)]| {
        path.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" -> ")
    };
    let first = path.first().map(|(name, _)| name.as_str()).unwrap_or_default();
    if path.len() > 20 {
        if *printed + path.len() > MAX_PRINTED {
            let (start, end) = (join(&path[..10]), join(&path[path.len() - 10..]));
            return format!("{start} -> … {} more … -> {end} -> {first}", path.len() - 20);
        }
        *printed += path.len();
    }
    format!("{} -> {first}", join(path))
}

/// Sets of identities as bits, so that ten thousand lists over ten thousand machines compare in a moment.
pub(crate) struct Sets<'c> {
    config: &'c ClusterConfig,
    index: HashMap<Id52, usize>,
    ids: Vec<Id52>,
    all_machines: Vec<u64>,
    groups: HashMap<&'c GroupName, Vec<u64>>,
    words: usize,
}

/// How much memory the sets may take, in words of 8 bytes: 64 MiB.
const MAX_WORDS: usize = 8 * 1024 * 1024;

impl<'c> Sets<'c> {
    /// Expands all groups. `None` if the config is so large that the sets would not fit.
    pub(crate) fn new(config: &'c ClusterConfig, lists: &[&'c PrincipalList]) -> Option<Self> {
        let mut sets = Self {
            config,
            index: HashMap::new(),
            ids: Vec::new(),
            all_machines: Vec::new(),
            groups: HashMap::new(),
            words: 0,
        };
        for machine in config.machines.values() {
            sets.intern(machine.id52);
        }
        sets.intern(config.manager.id52);
        for list in config.groups.values().chain(lists.iter().copied()) {
            for principal in &list.0 {
                if let PrincipalRef::Id(id) = principal {
                    sets.intern(*id);
                }
            }
        }
        sets.words = sets.ids.len().div_ceil(64);
        if sets.words.checked_mul(config.groups.len() + 4)? > MAX_WORDS {
            return None;
        }
        let mut all = vec![0; sets.words];
        for machine in config.machines.values() {
            set_bit(&mut all, sets.index.get(&machine.id52));
        }
        sets.all_machines = all;
        sets.expand_groups();
        Some(sets)
    }

    fn intern(&mut self, id: Id52) {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.index.entry(id) {
            entry.insert(self.ids.len());
            self.ids.push(id);
        }
    }

    /// Sub-groups before the groups that hold them; the config has no cycles.
    fn expand_groups(&mut self) {
        let config = self.config;
        for start in config.groups.keys() {
            let mut pending = vec![(start, false)];
            while let Some((name, ready)) = pending.pop() {
                if self.groups.contains_key(name) {
                    continue;
                }
                let Some(list) = config.groups.get(name) else { continue };
                if ready {
                    let set = self.list(list);
                    self.groups.insert(name, set);
                    continue;
                }
                pending.push((name, true));
                pending.extend(list.0.iter().filter_map(|principal| match principal {
                    PrincipalRef::Group(sub) => Some((sub, false)),
                    _ => None,
                }));
            }
        }
    }

    /// The set that a list stands for.
    pub(crate) fn list(&self, list: &PrincipalList) -> Vec<u64> {
        let mut set = vec![0; self.words];
        for principal in &list.0 {
            match principal {
                PrincipalRef::AllMachines => unite(&mut set, &self.all_machines),
                PrincipalRef::Manager => set_bit(&mut set, self.index.get(&self.config.manager.id52)),
                PrincipalRef::Id(id) => set_bit(&mut set, self.index.get(id)),
                PrincipalRef::Machine(name) => {
                    if let Some(machine) = self.config.machines.get(name) {
                        set_bit(&mut set, self.index.get(&machine.id52));
                    }
                }
                PrincipalRef::Group(name) => {
                    if let Some(members) = self.groups.get(name) {
                        unite(&mut set, members);
                    }
                }
            }
        }
        set
    }

    /// How many are in `wide` and not in `narrow`, and the first few of them.
    pub(crate) fn beyond(&self, wide: &[u64], narrow: &[u64]) -> (usize, Vec<Id52>) {
        let mut count = 0;
        let mut first = Vec::new();
        for (at, (wide, narrow)) in wide.iter().zip(narrow).enumerate() {
            let mut rest = wide & !narrow;
            count += usize::try_from(rest.count_ones()).unwrap_or(0);
            while rest != 0 && first.len() < 3 {
                let bit = usize::try_from(rest.trailing_zeros()).unwrap_or(0);
                first.extend(self.ids.get(at * 64 + bit));
                rest &= rest - 1;
            }
        }
        (count, first)
    }
}

fn set_bit(set: &mut [u64], index: Option<&usize>) {
    if let Some(index) = index
        && let Some(word) = set.get_mut(index / 64)
    {
        *word |= 1 << (index % 64);
    }
}

fn unite(set: &mut [u64], other: &[u64]) {
    for (word, more) in set.iter_mut().zip(other) {
        *word |= more;
    }
}
