//! The third pass: `RawCluster` → [`ClusterConfig`]. Checks every value, resolves every reference, and goes on after
//! each finding, so that a file's problems are reported together.

mod acl_case;
mod boundary;
mod groups;
mod rules;
mod values;

use std::collections::{BTreeMap, HashMap};

pub use values::{GlobProblem, UserNameProblem};
pub(crate) use values::{is_host, parse_network, quoted, split_host_port};

pub(crate) use boundary::RuleSpans;

use super::cluster::{ClusterConfig, ManagerEntry, PrincipalList, PrincipalRef};
use super::document::{Findings, Span, Spanned};
use super::raw::{RawCluster, RawGroup, RawManager};
use super::reader::{Mode, RawList};
use crate::id::Id52;
use crate::name::{GroupName, MachineName, ServiceName, TestName};

/// What lists may name. Made from the raw names, so that an error inside an entry does not make every mention of it
/// an error too.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) machines: BTreeMap<MachineName, Span>,
    pub(crate) groups: BTreeMap<GroupName, Span>,
    pub(crate) services: BTreeMap<ServiceName, Span>,
}

pub(crate) struct Validator<'f, 'a> {
    pub(crate) findings: &'f mut Findings<'a>,
    pub(crate) mode: Mode,
    pub(crate) known: Known,
    pub(crate) spans: Spans,
}

/// Places that later findings point at.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    pub(crate) rules: RuleSpans,
    pub(crate) tests: BTreeMap<TestName, TestSpans>,
}

/// Where a test's lines stand, in their order.
#[derive(Debug, Default)]
pub(crate) struct TestSpans {
    pub(crate) allow: Vec<Span>,
    pub(crate) deny: Vec<Span>,
}

impl<'f, 'a> Validator<'f, 'a> {
    pub(crate) fn new(findings: &'f mut Findings<'a>, mode: Mode) -> Self {
        Self { findings, mode, known: Known::default(), spans: Spans::default() }
    }

    /// Compiles the sections of a master file. What it returns is meaningful only if no error was found.
    pub(crate) fn cluster(&mut self, raw: &RawCluster) -> Option<ClusterConfig> {
        self.collect_names(raw);
        let manager = self.manager(raw.manager.as_ref());
        let groups = self.groups(&raw.groups);
        let machines = self.machines(&raw.machines);
        let services = self.services(raw, &machines);
        let tests = self.tests(raw);
        let config = ClusterConfig { manager: manager?, machines, services, groups, tests };
        Some(config)
    }

    /// Warns of boundaries that do not hold; the config has no errors.
    pub(crate) fn warn_of_boundaries(&mut self, config: &ClusterConfig) {
        boundary::warn(self.findings, config, &self.spans.rules);
    }

    fn collect_names(&mut self, raw: &RawCluster) {
        for machine in &raw.machines {
            let Some(name) = self.name::<MachineName>("machine", &machine.name) else { continue };
            if self.known.machines.insert(name, machine.name.span.clone()).is_some() {
                self.findings.error(
                    "duplicate",
                    &machine.span,
                    format!("the machine {:?} is described twice", machine.name.value),
                    Some("merge the two sections into one [machine.…]".to_owned()),
                );
            }
        }
        for group in &raw.groups {
            let Some(name) = self.name::<GroupName>("group", &group.name) else { continue };
            if self.known.machines.contains_key(name.as_str()) {
                self.findings.error(
                    "duplicate",
                    &group.span,
                    format!("{:?} is a machine and a group", group.name.value),
                    Some("give one of them another name: a list could mean either".to_owned()),
                );
            }
            self.known.groups.insert(name, group.name.span.clone());
        }
        for service in &raw.services {
            if let Some(name) = self.name::<ServiceName>("service", &service.name) {
                self.known.services.insert(name, service.name.span.clone());
            }
        }
    }

    pub(crate) fn manager(&mut self, raw: Option<&RawManager>) -> Option<ManagerEntry> {
        let Some(raw) = raw else {
            self.findings.error_of_file(
                "missing",
                "the section [cluster-manager] is missing".to_owned(),
                Some("it holds id52 and cluster_name; `malai cluster init` writes it".to_owned()),
            );
            return None;
        };
        let id52 = match &raw.id52 {
            Some(id) => self.id52(id),
            None => self.missing("cluster-manager", &raw.span, "id52 = \"<the manager's id52>\""),
        };
        let cluster_name = match &raw.cluster_name {
            Some(name) => self.cluster_name(name),
            None => self.missing("cluster-manager", &raw.span, "cluster_name = \"company\""),
        };
        let mut config_editors = raw.config_editors.as_ref().map(|list| self.principals(list));
        if raw.denied && self.mode == Mode::Personalised {
            config_editors = None;
        }
        Some(ManagerEntry { id52: id52?, cluster_name: cluster_name?, config_editors })
    }

    fn cluster_name(&mut self, raw: &Spanned<String>) -> Option<String> {
        // What the cluster calls itself may be a domain; members choose aliases of their own.
        let labels_are_names = raw.value.split('.').all(|label| {
            let label = Spanned::new(label, raw.span.clone());
            label.value.parse::<crate::name::ClusterAlias>().is_ok()
        });
        if labels_are_names && raw.value.len() <= 253 {
            return Some(raw.value.clone());
        }
        self.findings.error(
            "bad-name",
            &raw.span,
            format!("{} is no name for a cluster", quoted(&raw.value)),
            Some("use a-z, 0-9 and -, or a domain: \"company\", \"company.example\"".to_owned()),
        );
        None
    }

    /// Notes that a key is missing; the example is the line to add.
    pub(crate) fn missing<T>(&mut self, section: &str, span: &Span, example: &str) -> Option<T> {
        let key = example.split(' ').next().unwrap_or_default();
        let message = format!("[{section}] lacks {key:?}");
        self.findings.error("missing", span, message, Some(format!("add: {example}")));
        None
    }

    fn groups(&mut self, raw: &[RawGroup]) -> BTreeMap<GroupName, PrincipalList> {
        let mut groups = BTreeMap::new();
        let mut edges = groups::Edges::new();
        for group in raw {
            let Ok(name) = group.name.value.parse::<GroupName>() else { continue };
            let Some(members) = &group.members else {
                let section = format!("group.{name}");
                self.missing::<()>(&section, &group.span, "members = \"web01,laptop\"");
                continue;
            };
            let list = self.principals(members);
            let subs = members.value.iter().filter_map(|word| {
                let sub = word.value.parse::<GroupName>().ok()?;
                self.known.groups.contains_key(&sub).then(|| (sub, word.span.clone()))
            });
            edges.insert(name.clone(), subs.collect());
            groups.insert(name, list);
        }
        groups::report_cycles(self.findings, &edges);
        groups
    }

    /// Resolves a list. Words that mean nothing are findings and are left out, which never widens a right.
    pub(crate) fn principals(&mut self, list: &RawList) -> PrincipalList {
        PrincipalList(list.value.iter().filter_map(|word| self.principal(word)).collect())
    }

    pub(crate) fn principal(&mut self, word: &Spanned<String>) -> Option<PrincipalRef> {
        let text = word.value.as_str();
        if self.mode == Mode::Personalised {
            // Only ids stand in a personalised file. What a newer manager writes beside them admits nobody here.
            if let Ok(id) = text.parse::<Id52>() {
                return Some(PrincipalRef::Id(id));
            }
            let message = format!("{} is no id52; it admits nobody", quoted(text));
            self.findings.warning("unknown-principal", &word.span, message, None);
            return None;
        }
        match text {
            "*" => return Some(PrincipalRef::AllMachines),
            "cluster-manager" => return Some(PrincipalRef::Manager),
            _ => {}
        }
        if let Some((name, _)) = self.known.machines.get_key_value(text) {
            return Some(PrincipalRef::Machine(name.clone()));
        }
        if let Some((name, _)) = self.known.groups.get_key_value(text) {
            return Some(PrincipalRef::Group(name.clone()));
        }
        // Something as long as an id52 was meant as one.
        if Id52::has_shape(text) || (text.len().abs_diff(Id52::TEXT_LEN) <= 4 && !text.contains('-')) {
            return self.id52(word).map(PrincipalRef::Id);
        }
        let names = self.known.machines.keys().map(MachineName::as_str);
        let names = names.chain(self.known.groups.keys().map(GroupName::as_str));
        let hint = self.findings.suggest(text, names.chain(["cluster-manager"]));
        let hint = hint.or_else(|| Some(format!("add [machine.{text}] or [group.{text}], or write an id52")));
        let message = format!("no machine or group is called {}", quoted(text));
        self.findings.error("unknown-principal", &word.span, message, hint.filter(|hint| hint.len() < 300));
        None
    }

    /// Finds a machine that must exist.
    pub(crate) fn known_machine(&mut self, word: &Spanned<String>) -> Option<MachineName> {
        if let Some((name, _)) = self.known.machines.get_key_value(word.value.as_str()) {
            return Some(name.clone());
        }
        let names = self.known.machines.keys().map(MachineName::as_str);
        let hint = self.findings.suggest(&word.value, names);
        let message = format!("no machine is called {}", quoted(&word.value));
        let hint = hint.or_else(|| Some("name one of the [machine.…] sections".to_owned()));
        self.findings.error("unknown-machine", &word.span, message, hint);
        None
    }

    /// Reports identities that two machines share.
    pub(crate) fn duplicate_ids(&mut self, ids: &[(Id52, MachineName, Span)]) {
        let mut owners: HashMap<Id52, &MachineName> = HashMap::new();
        for (id, name, span) in ids {
            if let Some(other) = owners.insert(*id, name) {
                self.findings.error(
                    "duplicate-id52",
                    span,
                    format!("the machines {:?} and {:?} have the same id52", other.as_str(), name.as_str()),
                    Some("each machine has an identity of its own: remove one of the two".to_owned()),
                );
            }
        }
    }
}
