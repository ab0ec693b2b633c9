//! The rules of a config with everything looked up beforehand.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::principal::{Bits, Members, Principals};
use crate::config::{
    ArgsRule, ClusterConfig, MachineConfig, MachineEntry, ManagerEntry, OnDemand, PrincipalList,
    PrincipalRef, ServiceEntry, ServiceProtocol, UserName,
};
use crate::id::Id52;
use crate::name::{CommandName, GroupName, MachineName, ServiceName};

/// A config's rules, compiled for deciding. Made of a whole cluster's config or of one machine's.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) principals: Principals,
    pub(crate) manager: Id52,
    pub(crate) config_editors: RuleList,
    lists: Vec<Members>,
    machines: Vec<MachinePolicy>,
    by_name: HashMap<MachineName, u32>,
    names: HashMap<Id52, MachineName>,
    groups: BTreeMap<GroupName, Members>,
}

/// Which expanded list; lists that say the same share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ListHandle(u32);

/// What stands after `allow_from` and its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleList {
    /// Nothing: what that means depends on the rule.
    Absent,
    /// These.
    Of(ListHandle),
}

#[derive(Debug, Clone)]
pub(crate) struct MachinePolicy {
    pub(crate) name: MachineName,
    pub(crate) id52: Id52,
    pub(crate) allow_from: RuleList,
    pub(crate) allow_shell: RuleList,
    pub(crate) allow_proxy: RuleList,
    pub(crate) proxy_to: Arc<[String]>,
    pub(crate) username: Option<UserName>,
    pub(crate) commands: BTreeMap<CommandName, CommandPolicy>,
    /// More than one under a name means that neither can be reached.
    pub(crate) services: BTreeMap<ServiceName, Vec<ServicePolicy>>,
}

#[derive(Debug, Clone)]
pub(crate) struct CommandPolicy {
    pub(crate) name: CommandName,
    pub(crate) allow_from: RuleList,
    pub(crate) words: Option<Vec<String>>,
    pub(crate) args: ArgsRule,
    pub(crate) username: Option<UserName>,
}

#[derive(Debug, Clone)]
pub(crate) struct ServicePolicy {
    pub(crate) scope: Scope,
    pub(crate) allow_from: RuleList,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) protocol: ServiceProtocol,
    pub(crate) on_demand: Option<Arc<OnDemand>>,
}

/// Where a service's name holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Cluster,
    Machine,
}

impl Policy {
    /// Compiles the rules of a whole cluster.
    pub fn of_cluster(config: &ClusterConfig) -> Self {
        let machines: Vec<_> = config.machines().iter().collect();
        let names = machines.iter().map(|(name, entry)| (entry.id52, (*name).clone())).collect();
        Self::compile(&machines, config.services(), config.groups(), config.manager(), names)
    }

    /// Compiles the rules of one machine, as its manager sent them. For this machine it decides as the whole cluster's
    /// policy does; it knows no other.
    pub fn of_machine(config: &MachineConfig) -> Self {
        let recipient = config.recipient();
        let mut names: HashMap<Id52, MachineName> =
            config.directory().callers().iter().map(|(id, name)| (*id, name.clone())).collect();
        names.insert(recipient.id52, recipient.machine.clone());
        let machines = [(&recipient.machine, config.own())];
        Self::compile(&machines, config.hosted_services(), &BTreeMap::new(), config.manager(), names)
    }

    fn compile(
        machines: &[(&MachineName, &MachineEntry)],
        services: &BTreeMap<ServiceName, ServiceEntry>,
        groups: &BTreeMap<GroupName, PrincipalList>,
        manager: &ManagerEntry,
        names: HashMap<Id52, MachineName>,
    ) -> Self {
        let mut ids: Vec<Id52> = vec![manager.id52];
        ids.extend(machines.iter().map(|(_, entry)| entry.id52));
        let every_list = machines.iter().flat_map(|(_, entry)| machine_lists(entry));
        let every_list = every_list.chain(services.values().filter_map(|s| s.allow_from.as_ref()));
        let every_list = every_list.chain(groups.values()).chain(&manager.config_editors);
        ids.extend(every_list.flat_map(|list| list.0.iter()).filter_map(|principal| match principal {
            PrincipalRef::Id(id) => Some(*id),
            _ => None,
        }));
        let mut lists = Lists::new(Principals::new(ids), manager.id52, machines, groups);
        let mut compiled: Vec<MachinePolicy> =
            machines.iter().map(|(name, entry)| MachinePolicy::compile(name, entry, &mut lists)).collect();
        let by_name: HashMap<MachineName, u32> =
            machines.iter().map(|(name, _)| (*name).clone()).zip(0_u32..).collect();
        for (name, service) in services {
            if let Some(host) = by_name.get(&service.machine) {
                let policy = ServicePolicy::compile(service, Scope::Cluster, &mut lists);
                compiled[*host as usize].services.entry(name.clone()).or_default().push(policy);
            }
        }
        let config_editors = lists.rule(manager.config_editors.as_ref());
        let groups = lists.groups.iter().map(|(name, bits)| ((*name).clone(), Members::of(bits.clone())));
        Self {
            manager: manager.id52,
            config_editors,
            groups: groups.collect(),
            names,
            by_name,
            machines: compiled,
            principals: lists.principals,
            lists: lists.done,
        }
    }

    /// Lists who may connect to a machine: every identity that any of its rules names, and the manager, in ascending
    /// order. Empty if the policy does not know the machine.
    pub fn admitted(&self, machine: &MachineName) -> Vec<Id52> {
        let Some(machine) = self.machine(machine) else { return Vec::new() };
        let mut all = self.admitted_bits(machine);
        if let Some(manager) = self.principals.number(&self.manager) {
            all.insert(manager);
        }
        all.iter().map(|number| self.principals.id(number)).collect()
    }

    /// Finds the name of the machine that has an identity, if the config tells it.
    pub fn name_of(&self, id52: &Id52) -> Option<&MachineName> {
        self.names.get(id52)
    }

    /// The manager's id52.
    pub fn manager(&self) -> &Id52 {
        &self.manager
    }

    /// Everybody whom a rule of the machine names.
    pub(crate) fn admitted_bits(&self, machine: &MachinePolicy) -> Bits {
        let mut all = Bits::empty(self.principals.len());
        machine.lists().for_each(|list| self.add_members(&mut all, list));
        all
    }

    pub(crate) fn add_members(&self, bits: &mut Bits, list: RuleList) {
        if let RuleList::Of(list) = list {
            self.members(list).iter().for_each(|number| bits.insert(number));
        }
    }

    pub(crate) fn machine(&self, name: &MachineName) -> Option<&MachinePolicy> {
        self.index_of(name).map(|index| &self.machines[index as usize])
    }

    pub(crate) fn index_of(&self, name: &MachineName) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// Every group with whom it holds in the end, in the order of the names.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&GroupName, &Members)> {
        self.groups.iter()
    }

    pub(crate) fn machines(&self) -> &[MachinePolicy] {
        &self.machines
    }

    pub(crate) fn members(&self, list: ListHandle) -> &Members {
        &self.lists[list.0 as usize]
    }

    /// The identities of a list, in ascending order.
    pub(crate) fn ids(&self, list: RuleList) -> Option<Vec<Id52>> {
        match list {
            RuleList::Absent => None,
            RuleList::Of(list) => {
                Some(self.members(list).iter().map(|number| self.principals.id(number)).collect())
            }
        }
    }
}

impl MachinePolicy {
    fn compile(name: &MachineName, entry: &MachineEntry, lists: &mut Lists<'_>) -> Self {
        let commands = entry.commands.iter().map(|(name, rule)| {
            let policy = CommandPolicy {
                name: name.clone(),
                allow_from: lists.rule(rule.allow_from.as_ref()),
                words: rule.command.clone(),
                args: rule.args.clone(),
                username: rule.username.clone(),
            };
            (name.clone(), policy)
        });
        let commands = commands.collect();
        let services = entry.services.iter().map(|(name, service)| {
            (name.clone(), vec![ServicePolicy::compile(service, Scope::Machine, lists)])
        });
        let services = services.collect();
        Self {
            name: name.clone(),
            id52: entry.id52,
            allow_from: lists.rule(entry.allow_from.as_ref()),
            allow_shell: lists.rule(entry.allow_shell.as_ref()),
            allow_proxy: lists.rule(entry.allow_proxy.as_ref()),
            proxy_to: entry.proxy_to.iter().cloned().collect(),
            username: entry.username.clone(),
            commands,
            services,
        }
    }

    fn lists(&self) -> impl Iterator<Item = RuleList> + '_ {
        [self.allow_from, self.allow_shell, self.allow_proxy]
            .into_iter()
            .chain(self.commands.values().map(|command| command.allow_from))
            .chain(self.services.values().flatten().map(|service| service.allow_from))
    }
}

impl ServicePolicy {
    fn compile(entry: &ServiceEntry, scope: Scope, lists: &mut Lists<'_>) -> Self {
        Self {
            scope,
            allow_from: lists.rule(entry.allow_from.as_ref()),
            host: entry.host.clone(),
            port: entry.port,
            protocol: entry.protocol.clone(),
            on_demand: entry.on_demand.clone().map(Arc::new),
        }
    }
}

fn machine_lists(entry: &MachineEntry) -> impl Iterator<Item = &PrincipalList> {
    entry
        .allow_from
        .iter()
        .chain(&entry.allow_shell)
        .chain(&entry.allow_proxy)
        .chain(entry.commands.values().filter_map(|rule| rule.allow_from.as_ref()))
        .chain(entry.services.values().filter_map(|service| service.allow_from.as_ref()))
}

/// The expander: each group once, each different list once.
struct Lists<'a> {
    principals: Principals,
    manager: Id52,
    machines: HashMap<&'a MachineName, Id52>,
    groups: BTreeMap<&'a GroupName, Bits>,
    everybody: Bits,
    done: Vec<Members>,
    handles: HashMap<Vec<PrincipalRef>, ListHandle>,
}

impl<'a> Lists<'a> {
    fn new(
        principals: Principals,
        manager: Id52,
        machines: &[(&'a MachineName, &MachineEntry)],
        groups: &'a BTreeMap<GroupName, PrincipalList>,
    ) -> Self {
        let machines: HashMap<&MachineName, Id52> =
            machines.iter().map(|(name, entry)| (*name, entry.id52)).collect();
        let mut everybody = Bits::empty(principals.len());
        for number in machines.values().filter_map(|id52| principals.number(id52)) {
            everybody.insert(number);
        }
        let (done, handles) = (Vec::new(), HashMap::new());
        let mut lists =
            Self { principals, manager, machines, groups: BTreeMap::new(), everybody, done, handles };
        for name in inner_first(groups) {
            let bits = lists.expand(&groups[name]);
            lists.groups.insert(name, bits);
        }
        lists
    }

    fn rule(&mut self, list: Option<&PrincipalList>) -> RuleList {
        let Some(list) = list else { return RuleList::Absent };
        let mut key = list.0.clone();
        key.sort_unstable();
        key.dedup();
        if let Some(handle) = self.handles.get(&key) {
            return RuleList::Of(*handle);
        }
        let members = Members::of(self.expand(list));
        // More lists than u32 counts would need a file of more than 4 GiB; the limit is 4 MiB.
        let handle = ListHandle(self.done.len() as u32);
        self.done.push(members);
        self.handles.insert(key, handle);
        RuleList::Of(handle)
    }

    fn expand(&self, list: &PrincipalList) -> Bits {
        let mut bits = Bits::empty(self.principals.len());
        for principal in &list.0 {
            let id = match principal {
                PrincipalRef::AllMachines => {
                    bits.add_all(&self.everybody);
                    continue;
                }
                PrincipalRef::Group(name) => {
                    // Absent for a group that does not exist, or that holds itself: it adds nobody.
                    if let Some(group) = self.groups.get(name) {
                        bits.add_all(group);
                    }
                    continue;
                }
                PrincipalRef::Manager => Some(self.manager),
                PrincipalRef::Id(id) => Some(*id),
                PrincipalRef::Machine(name) => self.machines.get(name).copied(),
            };
            if let Some(number) = id.and_then(|id| self.principals.number(&id)) {
                bits.insert(number);
            }
        }
        bits
    }
}

/// Orders groups so that each comes after those that it holds. A loop, not recursion: the depth of nesting is the
/// file's choice, the stack is ours.
fn inner_first(groups: &BTreeMap<GroupName, PrincipalList>) -> Vec<&GroupName> {
    enum Step<'a> {
        Enter(&'a GroupName),
        Leave(&'a GroupName),
    }
    let mut order = Vec::with_capacity(groups.len());
    let mut seen = std::collections::HashSet::new();
    let mut steps: Vec<Step<'_>> = groups.keys().rev().map(Step::Enter).collect();
    while let Some(step) = steps.pop() {
        match step {
            Step::Leave(name) => order.push(name),
            Step::Enter(name) => {
                let Some((name, list)) = groups.get_key_value(name).filter(|(name, _)| seen.insert(*name))
                else {
                    continue;
                };
                steps.push(Step::Leave(name));
                steps.extend(list.0.iter().filter_map(|principal| match principal {
                    PrincipalRef::Group(inner) => Some(Step::Enter(inner)),
                    _ => None,
                }));
            }
        }
    }
    order
}
