//! Joining: what a registration changes in the config, and the root's word for it.

use std::collections::{BTreeMap, BTreeSet};

use super::record::InviteRecord;
use crate::code::ErrorCode;
use crate::config::{ClusterConfig, MachineEntry, PrincipalList, PrincipalRef};
use crate::id::{Id52, SecretKey, SignatureContext};
use crate::name::{GroupName, MachineName};
use crate::wire::JoinAccepted;

/// What a registration comes to in the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinPlan {
    /// The machine's name, which the answer tells it.
    pub name: MachineName,
    /// What to change; none if it is a member already.
    pub edit: Option<JoinEdit>,
}

/// A new `[machine.<name>]` with an id52 and no rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinEdit {
    /// The section's name.
    pub name: MachineName,
    /// Who it is.
    pub id52: Id52,
    /// Groups of the invite to put it in; those that the config does not have any more are left out.
    pub groups: Vec<GroupName>,
}

/// Plans a registration that [`super::check_join`] let through.
///
/// A member keeps its name and nothing is edited. A taken name gets a suffix; machines, groups and cluster-wide services
/// all count as taken, so that nobody can join under the name of something that others address. Without a wish the name is
/// `machine-<first eight of the id52>`.
pub fn plan_join(
    config: &ClusterConfig,
    record: &InviteRecord,
    joiner: &Id52,
    wanted: Option<&MachineName>,
) -> JoinPlan {
    if let Some((name, _)) = config.machine_of(joiner) {
        return JoinPlan { name: name.clone(), edit: None };
    }
    let wish = wanted.map_or_else(|| format!("machine-{}", joiner.short()), ToString::to_string);
    let taken = |name: &str| {
        config.machines().contains_key(name)
            || config.groups().contains_key(name)
            || config.services().contains_key(name)
    };
    let name = free_name(&wish, taken);
    let groups = record.groups.iter().filter(|group| config.groups().contains_key(*group)).cloned().collect();
    JoinPlan { name: name.clone(), edit: Some(JoinEdit { name, id52: *joiner, groups }) }
}

/// Tries the wish, then the wish with -2, -3 and so on, cut to the length of a name. Some number is free: a config is finite.
fn free_name(wish: &str, taken: impl Fn(&str) -> bool) -> MachineName {
    let mut candidate = wish.to_owned();
    let mut number: u64 = 2;
    loop {
        // A candidate that happens to look like an id52 is no name, and is passed over.
        if let Ok(name) = candidate.parse::<MachineName>()
            && !taken(name.as_str())
        {
            return name;
        }
        let suffix = format!("-{number}");
        // Names are ASCII: any cut is between characters.
        candidate = format!("{}{suffix}", &wish[..wish.len().min(63 - suffix.len())]);
        number += 1;
    }
}

/// Lists the rules that say `*`, directly or through groups: while there is one, an invite hands out its rights to
/// whoever holds it. In the file's order of names; empty if none does.
pub fn open_rules(config: &ClusterConfig) -> Vec<String> {
    let open = open_groups(config);
    let mut rules = Vec::new();
    let mut look = |rule: &dyn Fn() -> String, list: Option<&PrincipalList>| {
        let Some(list) = list else { return };
        if list.0.contains(&PrincipalRef::AllMachines) {
            rules.push(rule());
        } else if let Some(group) = list.0.iter().find_map(|principal| match principal {
            PrincipalRef::Group(name) if open.contains(name) => Some(name),
            _ => None,
        }) {
            rules.push(format!("{} (through group {group})", rule()));
        }
    };
    look(&|| "[cluster-manager] config_editors".to_owned(), config.manager().config_editors.as_ref());
    for (name, machine) in config.machines() {
        let MachineEntry { allow_from, allow_shell, allow_proxy, commands, services, .. } = machine;
        look(&|| format!("[machine.{name}] allow_from"), allow_from.as_ref());
        look(&|| format!("[machine.{name}] allow_shell"), allow_shell.as_ref());
        look(&|| format!("[machine.{name}] allow_proxy"), allow_proxy.as_ref());
        for (command, rule) in commands {
            look(&|| format!("[machine.{name}.command.{command}] allow_from"), rule.allow_from.as_ref());
        }
        for (service, entry) in services {
            let protocol = entry.protocol.word();
            look(&|| format!("[machine.{name}.{protocol}.{service}] allow_from"), entry.allow_from.as_ref());
        }
    }
    for (service, entry) in config.services() {
        look(&|| format!("[service.{service}] allow_from"), entry.allow_from.as_ref());
    }
    rules
}

/// An invite would hand out the rights of rules that say `*`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("whoever joins would have rights at once, by {}", rules.join(", "))]
pub struct OpenRules {
    rules: Vec<String>,
}

impl OpenRules {
    /// The rules, as [`open_rules`] names them. For the manager: a joiner is told the code alone.
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// The stable code: `invite.open_rule`.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::InviteOpenRule
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some("let these rules name groups or machines, or make the invite with --open".to_owned())
    }
}

/// Refuses an invite, at its making and again at each registration (a rule may have come since), while a rule says `*`
/// and the admin did not say `--open`.
///
/// # Errors
/// [`OpenRules`] with the names of those rules.
pub fn check_open(config: &ClusterConfig, record: &InviteRecord) -> Result<(), OpenRules> {
    let rules = if record.open { Vec::new() } else { open_rules(config) };
    if rules.is_empty() { Ok(()) } else { Err(OpenRules { rules }) }
}

/// The groups that hold `*` in the end.
fn open_groups(config: &ClusterConfig) -> BTreeSet<&GroupName> {
    let mut holders: BTreeMap<&GroupName, Vec<&GroupName>> = BTreeMap::new();
    let mut pending = Vec::new();
    for (name, list) in config.groups() {
        for principal in &list.0 {
            match principal {
                PrincipalRef::AllMachines => pending.push(name),
                PrincipalRef::Group(inner) => holders.entry(inner).or_default().push(name),
                _ => {}
            }
        }
    }
    let mut open = BTreeSet::new();
    while let Some(name) = pending.pop() {
        if open.insert(name) {
            pending.extend(holders.get(name).into_iter().flatten());
        }
    }
    open
}

/// What an accepted machine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTerms {
    /// What the cluster calls itself.
    pub cluster_name: String,
    /// The name that the machine got.
    pub machine: MachineName,
    /// Hex SHA-256 of the next root's public key.
    pub next_root: String,
    /// Where the manager may be found, `host:port`. Hints: not signed.
    pub addresses: Vec<String>,
}

/// The answer to a join does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinProblem {
    /// The root that the answer names did not sign it.
    #[error("the root {named} that the invite's answer names did not sign it")]
    Forged {
        /// Whom the answer names.
        named: Id52,
    },
}

impl JoinProblem {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Forged { .. } => ErrorCode::InviteForged,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some("do not trust this invite; ask the cluster's manager for a new one".to_owned())
    }
}

/// Writes the answer to a join and signs it as the root.
pub fn accept_join(root: &SecretKey, invite: &Id52, joiner: &Id52, terms: JoinTerms) -> JoinAccepted {
    let JoinTerms { cluster_name, machine, next_root, addresses } = terms;
    let manager = root.id52();
    let mut accepted =
        JoinAccepted { manager, cluster_name, machine, next_root, addresses, proof: String::new() };
    let signature = root.sign(&SignatureContext::JOIN_ACCEPTED, &proof_bytes(&accepted, invite, joiner));
    accepted.proof = data_encoding::HEXLOWER.encode(&signature);
    accepted
}

/// Checks that the root that an answer names gave it, to this machine and through this invite. `invite` is the
/// identity that was dialled, `joiner` the own one.
///
/// # Errors
/// [`JoinProblem::Forged`]: nothing of the answer may be used.
pub fn verify_accepted(accepted: &JoinAccepted, invite: &Id52, joiner: &Id52) -> Result<(), JoinProblem> {
    let signature = data_encoding::HEXLOWER.decode(accepted.proof.as_bytes()).ok();
    let signature: Option<[u8; 64]> = signature.and_then(|bytes| bytes.try_into().ok());
    let bytes = proof_bytes(accepted, invite, joiner);
    let manager = &accepted.manager;
    match signature {
        Some(signature) if manager.verify(&SignatureContext::JOIN_ACCEPTED, &bytes, &signature) => Ok(()),
        _ => Err(JoinProblem::Forged { named: *manager }),
    }
}

/// Invite, machine, root, then what is pinned with the root, each with its length: one text for one meaning.
fn proof_bytes(accepted: &JoinAccepted, invite: &Id52, joiner: &Id52) -> Vec<u8> {
    let mut bytes = Vec::new();
    for id in [invite, joiner, &accepted.manager] {
        bytes.extend_from_slice(id.as_bytes());
    }
    for text in [accepted.cluster_name.as_str(), accepted.machine.as_str(), accepted.next_root.as_str()] {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_bytes(&[n; 32])
    }

    fn accepted() -> JoinAccepted {
        let terms = JoinTerms {
            cluster_name: "company".to_owned(),
            machine: "web01".parse().expect("a name"),
            next_root: "ab".repeat(32),
            addresses: vec!["h:1".to_owned()],
        };
        accept_join(&key(1), &key(2).id52(), &key(3).id52(), terms)
    }

    #[test]
    fn the_roots_word_holds_for_this_invite_and_machine_only() {
        let (invite, me) = (key(2).id52(), key(3).id52());
        assert_eq!(verify_accepted(&accepted(), &invite, &me), Ok(()));
        assert!(verify_accepted(&accepted(), &me, &invite).is_err());
        assert!(verify_accepted(&accepted(), &invite, &key(4).id52()).is_err());
        assert!(verify_accepted(&accepted(), &key(4).id52(), &me).is_err());
    }

    #[test]
    fn whoever_holds_the_invites_key_cannot_name_another_root() {
        let (invite, me) = (key(2).id52(), key(3).id52());
        let changes: [fn(&mut JoinAccepted); 6] = [
            |a| a.manager = key(9).id52(),
            |a| a.cluster_name.push('x'),
            |a| a.machine = "web02".parse().expect("a name"),
            |a| a.next_root = "cd".repeat(32),
            |a| a.proof = "00".repeat(64),
            |a| a.proof.clear(),
        ];
        for change in changes {
            let mut changed = accepted();
            change(&mut changed);
            let named = changed.manager;
            assert_eq!(verify_accepted(&changed, &invite, &me), Err(JoinProblem::Forged { named }));
        }
        // Addresses are hints, and found elsewhere tomorrow.
        let mut moved = accepted();
        moved.addresses.clear();
        assert_eq!(verify_accepted(&moved, &invite, &me), Ok(()));
    }

    #[test]
    fn suffixes_keep_a_name_a_name() {
        let long = "a".repeat(63);
        assert_eq!(free_name(&long, |_| false).as_str(), long);
        assert_eq!(free_name(&long, |name| name == long).as_str(), format!("{}-2", "a".repeat(61)));
        let many = |name: &str| name == "web" || name.len() < 6;
        assert_eq!(free_name("web", many).as_str(), "web-10");
    }
}
