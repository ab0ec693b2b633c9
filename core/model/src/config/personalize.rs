//! Personalising: what one machine is told of its cluster, and no more.
//!
//! The text is written by hand, not by a TOML library: equal configs must give equal bytes in every version of malai,
//! since the digest of the text decides who is sent a new one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::cluster::{ArgsRule, ClusterConfig, MachineEntry, OnDemand, RestartPolicy, ServiceProtocol};
use super::signed::signature_block;
use crate::acl::Policy;
use crate::acl::compiled::{MachinePolicy, RuleList, Scope, ServicePolicy};
use crate::duration::format_duration;
use crate::id::{Id52, SecretKey};
use crate::name::{GroupName, MachineName, ServiceName};

/// One machine's config without what changes from one sending to the next: serial, next root and signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Personalised {
    machine: MachineName,
    id52: Id52,
    /// Up to and with the recipient's name; serial and next root follow it.
    head: String,
    tail: String,
    digest: String,
}

impl Personalised {
    /// The machine that it is for.
    pub fn machine(&self) -> &MachineName {
        &self.machine
    }

    /// The identity that it is for.
    pub fn id52(&self) -> &Id52 {
        &self.id52
    }

    /// Hex SHA-256 of what it says: the same as long as the machine needs no new file. Not the digest of the signed
    /// text, which also has a serial.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Gives the full text of the file, signed by the root. The same parameters give the same bytes.
    ///
    /// `next_root` is the hex SHA-256 of the next root's 32 public bytes.
    pub fn sign(&self, serial: u64, next_root: &str, root: &SecretKey) -> String {
        let mut text = String::with_capacity(self.head.len() + self.tail.len() + 400);
        text.push_str(&self.head);
        put_raw(&mut text, "serial", &serial.to_string());
        put(&mut text, "next_root", next_root);
        text.push('\n');
        text.push_str(&self.tail);
        text.push('\n');
        let block = signature_block(root, text.as_bytes());
        text.push_str(&block);
        text
    }
}

/// Personalises a config for one machine; for many, make a [`Personalizer`] once. `None` if there is no such machine.
pub fn personalize(config: &ClusterConfig, machine: &MachineName) -> Option<Personalised> {
    Personalizer::new(config).personalize(machine)
}

/// A config turned around: for each machine, what it may reach. Made once for all machines of a config, in time
/// proportional to the rights that the config grants.
#[derive(Debug)]
pub struct Personalizer<'a> {
    config: &'a ClusterConfig,
    policy: Policy,
    /// In the order of the machines.
    reach: Vec<Reach>,
    group_names: Vec<&'a GroupName>,
    /// By machine, the groups that it is in, directly or through others.
    groups_of: Vec<Vec<u32>>,
}

/// What one machine may reach; everything is in the order of the names.
#[derive(Debug, Default)]
struct Reach {
    machines: Vec<(u32, Kinds)>,
    /// By target.
    own_services: Vec<(u32, ServiceName)>,
    services: Vec<(ServiceName, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Kinds(u8);

impl Kinds {
    const RUN: Self = Self(1);
    const SHELL: Self = Self(2);
    const PROXY: Self = Self(4);
    /// A service that is named within the machine.
    const SERVICE: Self = Self(8);

    fn words(self) -> Vec<&'static str> {
        let all = [(Self::RUN, "run"), (Self::SHELL, "shell"), (Self::PROXY, "proxy")];
        all.into_iter().filter(|(kind, _)| self.0 & kind.0 != 0).map(|(_, word)| word).collect()
    }
}

impl<'a> Personalizer<'a> {
    /// Turns a config around.
    pub fn new(config: &'a ClusterConfig) -> Self {
        let policy = Policy::of_cluster(config);
        let machines = policy.machines();
        let mut of_principal: Vec<Option<u32>> = vec![None; policy.principals.len()];
        for (machine, index) in machines.iter().zip(0_u32..) {
            if let Some(number) = policy.principals.number(&machine.id52) {
                of_principal[number as usize] = Some(index);
            }
        }
        let callers = |list: RuleList| -> Vec<u32> {
            let RuleList::Of(list) = list else { return Vec::new() };
            policy.members(list).iter().filter_map(|number| of_principal[number as usize]).collect()
        };
        let mut reach: Vec<Reach> = machines.iter().map(|_| Reach::default()).collect();
        for (target, index) in machines.iter().zip(0_u32..) {
            let mut grant = |list: RuleList, kind: Kinds| {
                for caller in callers(list) {
                    reach[caller as usize].add(index, kind);
                }
            };
            grant(target.allow_from, Kinds::RUN);
            target.commands.values().for_each(|command| grant(command.allow_from, Kinds::RUN));
            let shell =
                if target.allow_shell == RuleList::Absent { target.allow_from } else { target.allow_shell };
            grant(shell, Kinds::SHELL);
            grant(target.allow_proxy, Kinds::PROXY);
            for (name, service) in
                target.services.iter().flat_map(|(name, all)| all.iter().map(move |s| (name, s)))
            {
                for caller in callers(service.allow_from) {
                    let reach = &mut reach[caller as usize];
                    match service.scope {
                        Scope::Machine => {
                            reach.add(index, Kinds::SERVICE);
                            reach.own_services.push((index, name.clone()));
                        }
                        Scope::Cluster => reach.services.push((name.clone(), index)),
                    }
                }
            }
        }
        reach.iter_mut().for_each(|reach| reach.services.sort_unstable());
        let mut groups_of: Vec<Vec<u32>> = vec![Vec::new(); machines.len()];
        let mut group_names = Vec::with_capacity(config.groups().len());
        for ((name, members), index) in policy.groups().zip(0_u32..) {
            let Some((name, _)) = config.groups().get_key_value(name) else { continue };
            group_names.push(name);
            for machine in members.iter().filter_map(|number| of_principal[number as usize]) {
                groups_of[machine as usize].push(index);
            }
        }
        Self { config, policy, reach, group_names, groups_of }
    }

    /// The rules that it works with.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Gives one machine's config. `None` if there is no such machine.
    pub fn personalize(&self, machine: &MachineName) -> Option<Personalised> {
        let index = self.policy.index_of(machine)?;
        let target = &self.policy.machines()[index as usize];
        let entry = self.config.machines().get(machine)?;
        let mut head = String::new();
        let manager = self.config.manager();
        section(&mut head, &["cluster-manager"]);
        put(&mut head, "id52", &manager.id52.to_string());
        put(&mut head, "cluster_name", &manager.cluster_name);
        self.put_list(&mut head, "config_editors", self.policy.config_editors);
        section(&mut head, &["recipient"]);
        put(&mut head, "id52", &entry.id52.to_string());
        put(&mut head, "machine", machine.as_str());
        let mut tail = String::new();
        self.put_machine(&mut tail, target, entry);
        self.put_directory(&mut tail, target, &self.reach[index as usize]);
        let mut hash = Sha256::new();
        hash.update(head.as_bytes());
        // No text has a zero byte: the boundary is unambiguous.
        hash.update([0]);
        hash.update(tail.as_bytes());
        let digest = data_encoding::HEXLOWER.encode(&hash.finalize());
        Some(Personalised { machine: machine.clone(), id52: entry.id52, head, tail, digest })
    }

    fn put_machine(&self, out: &mut String, machine: &MachinePolicy, entry: &MachineEntry) {
        let name = machine.name.as_str();
        section(out, &["machine", name]);
        put(out, "id52", &entry.id52.to_string());
        if !entry.addresses.is_empty() {
            put_words(out, "addresses", &entry.addresses);
        }
        self.put_list(out, "allow_from", machine.allow_from);
        self.put_list(out, "allow_shell", machine.allow_shell);
        self.put_list(out, "allow_proxy", machine.allow_proxy);
        if !entry.proxy_to.is_empty() {
            put_words(out, "proxy_to", &entry.proxy_to);
        }
        if let Some(user) = &entry.username {
            put(out, "username", user.as_str());
        }
        for (word, command) in &machine.commands {
            section(out, &["machine", name, "command", word.as_str()]);
            self.put_list(out, "allow_from", command.allow_from);
            if let Some(words) = &command.words {
                put(out, "command", &shell_words(words));
            }
            match &command.args {
                ArgsRule::None => put(out, "args", "none"),
                ArgsRule::Any => put(out, "args", "any"),
                ArgsRule::Globs(globs) => put_words(out, "args", globs.iter().map(|glob| glob.as_str())),
            }
            if let Some(user) = &command.username {
                put(out, "username", user.as_str());
            }
        }
        let services = || machine.services.iter().flat_map(|(name, all)| all.iter().map(move |s| (name, s)));
        for (service, policy) in services().filter(|(_, service)| service.scope == Scope::Machine) {
            section(out, &["machine", name, policy.protocol.word(), service.as_str()]);
            self.put_service(out, policy);
        }
        for (service, policy) in services().filter(|(_, service)| service.scope == Scope::Cluster) {
            section(out, &["service", service.as_str()]);
            put(out, "machine", name);
            put(out, "protocol", policy.protocol.word());
            self.put_service(out, policy);
        }
    }

    fn put_service(&self, out: &mut String, service: &ServicePolicy) {
        put_raw(out, "port", &service.port.to_string());
        put(out, "host", &service.host);
        self.put_list(out, "allow_from", service.allow_from);
        if let ServiceProtocol::Http { inject_headers, secure } = &service.protocol {
            put_raw(out, "inject_headers", &inject_headers.to_string());
            put_raw(out, "secure", &secure.to_string());
        }
        let Some(on_demand) = service.on_demand.as_deref() else { return };
        let OnDemand { command, username, startup_time, idle_timeout, health_check, restart_policy } =
            on_demand;
        put(out, "command", &shell_words(command));
        if let Some(user) = username {
            put(out, "username", user.as_str());
        }
        put(out, "startup_time", &format_duration(*startup_time));
        put(out, "idle_timeout", &format_duration(*idle_timeout));
        if let Some(words) = health_check {
            put(out, "health_check", &shell_words(words));
        }
        let policy = match restart_policy {
            RestartPolicy::Never => "never",
            RestartPolicy::OnFailure => "on-failure",
            RestartPolicy::Always => "always",
        };
        put(out, "restart_policy", policy);
    }

    fn put_directory(&self, out: &mut String, machine: &MachinePolicy, reach: &Reach) {
        let machines = self.policy.machines();
        let mut services = reach.own_services.iter().peekable();
        let mut groups: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for (index, kinds) in &reach.machines {
            let target = &machines[*index as usize];
            let name = target.name.as_str();
            section(out, &["directory", "machine", name]);
            put(out, "id52", &target.id52.to_string());
            put_words(out, "addresses", self.addresses(target));
            put_words(out, "may", kinds.words());
            while let Some((_, service)) = services.next_if(|(host, _)| host == index) {
                section(out, &["directory", "machine", name, "service", service.as_str()]);
                let policy = target.services.get(service).and_then(|all| all.first());
                put(out, "protocol", policy.map_or("tcp", |policy| policy.protocol.word()));
            }
            for group in &self.groups_of[*index as usize] {
                groups.entry(*group).or_default().push(name);
            }
        }
        for (service, index) in &reach.services {
            let target = &machines[*index as usize];
            section(out, &["directory", "service", service.as_str()]);
            put(out, "machine", target.name.as_str());
            put(out, "id52", &target.id52.to_string());
            put_words(out, "addresses", self.addresses(target));
            let policy = target.services.get(service).and_then(|all| all.first());
            put(out, "protocol", policy.map_or("tcp", |policy| policy.protocol.word()));
        }
        for (group, members) in groups {
            section(out, &["directory", "group", self.group_names[group as usize].as_str()]);
            put_words(out, "members", members);
        }
        let admitted = self.policy.admitted_bits(machine);
        let callers: Vec<_> = admitted
            .iter()
            .map(|number| self.policy.principals.id(number))
            .filter_map(|id| Some((id, self.policy.name_of(&id)?)))
            .collect();
        if !callers.is_empty() {
            section(out, &["directory", "caller"]);
            for (id, name) in callers {
                let _ = writeln!(out, "{} = {}", quoted(&id.to_string()), quoted(name.as_str()));
            }
        }
    }

    fn addresses(&self, machine: &MachinePolicy) -> &[String] {
        self.config.machines().get(&machine.name).map_or(&[], |entry| &entry.addresses)
    }

    fn put_list(&self, out: &mut String, key: &str, list: RuleList) {
        if let Some(ids) = self.policy.ids(list) {
            put_words(out, key, ids.iter().map(ToString::to_string));
        }
    }
}

impl Reach {
    /// Targets come in ascending order, each perhaps several times.
    fn add(&mut self, target: u32, kind: Kinds) {
        match self.machines.last_mut() {
            Some((last, kinds)) if *last == target => kinds.0 |= kind.0,
            _ => self.machines.push((target, kind)),
        }
    }
}

/// Names are bare TOML keys by their alphabet.
fn section(out: &mut String, path: &[&str]) {
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "[{}]", path.join("."));
}

fn put(out: &mut String, key: &str, value: &str) {
    put_raw(out, key, &quoted(value));
}

fn put_raw(out: &mut String, key: &str, value: &str) {
    let _ = writeln!(out, "{key} = {value}");
}

fn put_words(out: &mut String, key: &str, words: impl IntoIterator<Item = impl AsRef<str>>) {
    let words: Vec<String> = words.into_iter().map(|word| quoted(word.as_ref())).collect();
    put_raw(out, key, &format!("[{}]", words.join(", ")));
}

/// A basic TOML string on one line: no value can begin a line, so none can look like a section.
fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Words as a shell would split them; the parser splits the same way, and no shell is involved.
fn shell_words(words: &[String]) -> String {
    let quote = |word: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_as_they_were() {
        for words in [vec!["sudo", "systemctl"], vec!["a b", "", "it's", "\\", "$HOME", "é", "#x", "a#"]] {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            assert_eq!(shlex::split(&shell_words(&words)), Some(words));
        }
    }

    #[test]
    fn no_value_begins_a_line() {
        let hostile = "x\n[signature]\r\n\"\u{85}\u{7f}\\";
        let mut out = String::new();
        put(&mut out, "host", hostile);
        assert_eq!(out.lines().count(), 1, "{out}");
        let read: toml_edit::DocumentMut = out.parse().expect("it is TOML");
        assert_eq!(read["host"].as_str(), Some(hostile));
    }
}
