//! What can be asked for, as types, and what the rules say to each.

use std::fmt::Debug;
use std::sync::Arc;

use super::args::first_refused;
use super::authorize::{DenyReason, Rule};
use super::ceiling::Ceilings;
use super::policy::{ListHandle, MachinePolicy, Policy, RuleList};
use crate::config::{ArgsRule, OnDemand, ServiceProtocol, UserName};
use crate::id::Id52;
use crate::name::{MachineName, ServiceName};

mod sealed {
    pub trait Sealed {}
}

/// Something that a caller may ask for. Sealed: every action and its rule are in this module.
pub trait Action: sealed::Sealed + Clone + Debug {
    /// What it is asked of: a machine, or the cluster.
    type Target: ?Sized;
    /// What is to be done when it is allowed, as the config says.
    type Effect: Clone + Debug + PartialEq + Eq;

    /// Applies the rule. Nobody outside can ask: a [`Question`] cannot be made.
    #[doc(hidden)]
    fn decide(&self, question: &Question<'_>, target: &Self::Target) -> Result<Self::Effect, DenyReason>;
}

/// A caller before a policy.
#[derive(Debug)]
pub struct Question<'a> {
    policy: &'a Policy,
    ceilings: &'a Ceilings,
    caller: &'a Id52,
    number: Option<u32>,
}

impl<'a> Question<'a> {
    pub(super) fn new(policy: &'a Policy, ceilings: &'a Ceilings, caller: &'a Id52) -> Self {
        Self { policy, ceilings, caller, number: policy.principals.number(caller) }
    }

    fn machine(&self, name: &MachineName) -> Result<&'a MachinePolicy, DenyReason> {
        self.policy.machine(name).ok_or(DenyReason::UnknownMachine)
    }

    /// The one place where a list lets a caller in.
    fn named_in(&self, list: RuleList, rule: impl FnOnce() -> Rule) -> Result<(), DenyReason> {
        match list {
            RuleList::Absent => Err(DenyReason::NoRule(rule())),
            RuleList::Of(list) if self.is_member(list) => Ok(()),
            RuleList::Of(_) => Err(DenyReason::NotNamed(rule())),
        }
    }

    fn is_member(&self, list: ListHandle) -> bool {
        self.number.is_some_and(|number| self.policy.members(list).contains(number))
    }
}

/// Runs a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The words as they were typed; the rule is looked up by the first.
    pub argv: Vec<String>,
}

/// How a command is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEffect {
    /// The words to execute, after the alias: never empty, and no shell sees them.
    pub argv: Vec<String>,
    /// The user to run as; absent: the daemon's own.
    pub username: Option<UserName>,
    /// Whether the caller may add words, and the rule says which. A program that takes paths must not let one of them
    /// lead elsewhere then.
    pub restricted: bool,
}

impl RunEffect {
    /// Whether what began with this effect may go on where the rules would now give that one: a wider right ends nothing.
    pub fn goes_on_under(&self, now: &Self) -> bool {
        self.argv == now.argv && self.username == now.username && (self.restricted || !now.restricted)
    }
}

impl sealed::Sealed for Run {}

impl Action for Run {
    type Target = MachineName;
    type Effect = RunEffect;

    fn decide(&self, question: &Question<'_>, target: &MachineName) -> Result<RunEffect, DenyReason> {
        let machine = question.machine(target)?;
        let (word, more) = self.argv.split_first().ok_or(DenyReason::EmptyCommand)?;
        if word.is_empty() {
            return Err(DenyReason::EmptyCommand);
        }
        // By the word that was typed, before any alias: an alias cannot get around a rule, a path is another name.
        let (argv, username, restricted) = match machine.commands.get(word.as_str()) {
            None => {
                question.named_in(machine.allow_from, || Rule::AllowFrom)?;
                (self.argv.clone(), machine.username.as_ref(), false)
            }
            Some(command) => {
                match command.allow_from {
                    RuleList::Absent => question.named_in(machine.allow_from, || Rule::AllowFrom)?,
                    own => question.named_in(own, || Rule::Command(command.name.clone()))?,
                }
                if let Some(index) = first_refused(&command.args, more) {
                    return Err(DenyReason::Arguments { command: command.name.clone(), position: index + 1 });
                }
                let argv = match &command.words {
                    Some(words) => words.iter().chain(more).cloned().collect(),
                    None => self.argv.clone(),
                };
                let restricted = matches!(command.args, ArgsRule::Globs(_));
                (argv, command.username.as_ref().or(machine.username.as_ref()), restricted)
            }
        };
        question.ceilings.check_user(username)?;
        Ok(RunEffect { argv, username: username.cloned(), restricted })
    }
}

/// Opens a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shell;

/// How a shell is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellEffect {
    /// Whose shell; absent: the daemon's own user's.
    pub username: Option<UserName>,
}

impl sealed::Sealed for Shell {}

impl Action for Shell {
    type Target = MachineName;
    type Effect = ShellEffect;

    fn decide(&self, question: &Question<'_>, target: &MachineName) -> Result<ShellEffect, DenyReason> {
        let machine = question.machine(target)?;
        match machine.allow_shell {
            RuleList::Absent => question.named_in(machine.allow_from, || Rule::AllowFrom)?,
            own => question.named_in(own, || Rule::AllowShell)?,
        }
        question.ceilings.check_shell()?;
        question.ceilings.check_user(machine.username.as_ref())?;
        Ok(ShellEffect { username: machine.username.clone() })
    }
}

/// Connects to a service that the machine hosts, under a cluster-wide name or one within the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Which.
    pub service: ServiceName,
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachEffect {
    /// The host that the hosting machine dials.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is spoken to.
    pub protocol: ServiceProtocol,
    /// How it is started, if it is when somebody needs it.
    pub on_demand: Option<Arc<OnDemand>>,
}

impl sealed::Sealed for Reach {}

impl Action for Reach {
    type Target = MachineName;
    type Effect = ReachEffect;

    fn decide(&self, question: &Question<'_>, target: &MachineName) -> Result<ReachEffect, DenyReason> {
        let machine = question.machine(target)?;
        let service = match machine.services.get(self.service.as_str()).map(Vec::as_slice) {
            Some([service]) => service,
            Some([_, _, ..]) => return Err(DenyReason::AmbiguousService),
            Some([]) | None => return Err(DenyReason::UnknownService),
        };
        question.named_in(service.allow_from, || Rule::Service(self.service.clone()))?;
        question.ceilings.check_services()?;
        if let Some(on_demand) = &service.on_demand {
            question.ceilings.check_user(on_demand.username.as_ref())?;
        }
        Ok(ReachEffect {
            host: service.host.clone(),
            port: service.port,
            protocol: service.protocol.clone(),
            on_demand: service.on_demand.clone(),
        })
    }
}

/// Uses the machine as an exit to the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit;

/// What the exit may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitEffect {
    /// Networks beyond the public ones, in CIDR form.
    pub proxy_to: Arc<[String]>,
}

impl sealed::Sealed for Exit {}

impl Action for Exit {
    type Target = MachineName;
    type Effect = ExitEffect;

    fn decide(&self, question: &Question<'_>, target: &MachineName) -> Result<ExitEffect, DenyReason> {
        let machine = question.machine(target)?;
        question.named_in(machine.allow_proxy, || Rule::AllowProxy)?;
        Ok(ExitEffect { proxy_to: Arc::clone(&machine.proxy_to) })
    }
}

/// The cluster as a whole, as the target of an [`EditConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster;

/// Reads or edits the cluster's config from afar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EditConfig;

/// Editing has one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EditEffect;

impl sealed::Sealed for EditConfig {}

impl Action for EditConfig {
    type Target = Cluster;
    type Effect = EditEffect;

    fn decide(&self, question: &Question<'_>, _: &Cluster) -> Result<EditEffect, DenyReason> {
        // The manager holds the file itself; no other right is its by being the manager.
        if *question.caller != question.policy.manager {
            question.named_in(question.policy.config_editors, || Rule::ConfigEditors)?;
        }
        Ok(EditEffect)
    }
}
