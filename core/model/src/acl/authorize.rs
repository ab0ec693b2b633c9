//! The decision: a typed action becomes a permission, or a refusal with its reason.

use std::fmt;

use super::action::{Action, Question};
use super::ceiling::Ceilings;
use super::policy::Policy;
use crate::code::ErrorCode;
use crate::config::UserName;
use crate::id::Id52;
use crate::name::{CommandName, MachineName, ServiceName};

/// A permission: this caller may do this, in this way. [`authorize`] alone makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorized<A: Action> {
    action: A,
    effect: A::Effect,
    caller: Id52,
    caller_name: Option<MachineName>,
}

impl<A: Action> Authorized<A> {
    /// What was asked for.
    pub fn action(&self) -> &A {
        &self.action
    }

    /// What is to be done: resolved from the config, never from the request.
    pub fn effect(&self) -> &A::Effect {
        &self.effect
    }

    /// Who asked, as the connection proved.
    pub fn caller(&self) -> &Id52 {
        &self.caller
    }

    /// The caller's name in the cluster, if it is a machine that the config names.
    pub fn caller_name(&self) -> Option<&MachineName> {
        self.caller_name.as_ref()
    }
}

/// Refused. What a caller is told is the same for every reason; the reason is for the target's audit log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rules do not allow this to you")]
pub struct Denied {
    reason: DenyReason,
}

impl Denied {
    /// Why, for the audit log of the machine that refused. Never sent to the caller: it says what rules there are.
    pub fn reason(&self) -> &DenyReason {
        &self.reason
    }

    /// The stable code: `acl.denied`.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::AclDenied
    }

    /// What the caller can do about it.
    pub fn hint(&self) -> Option<String> {
        Some("ask the cluster's manager, or one of its config editors, for the right".to_owned())
    }
}

/// The part of a config that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The machine's `allow_from`.
    AllowFrom,
    /// The machine's `allow_shell`.
    AllowShell,
    /// The machine's `allow_proxy`.
    AllowProxy,
    /// A command's `allow_from`.
    Command(CommandName),
    /// A service's `allow_from`.
    Service(ServiceName),
    /// The cluster's `config_editors`.
    ConfigEditors,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowFrom => f.write_str("allow_from"),
            Self::AllowShell => f.write_str("allow_shell"),
            Self::AllowProxy => f.write_str("allow_proxy"),
            Self::Command(name) => write!(f, "command.{name}.allow_from"),
            Self::Service(name) => write!(f, "service.{name}.allow_from"),
            Self::ConfigEditors => f.write_str("config_editors"),
        }
    }
}

/// Why something was refused. For audit logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DenyReason {
    /// The config has no such machine, or is another machine's.
    #[error("no machine of that name")]
    UnknownMachine,
    /// Nothing to run.
    #[error("the command is empty")]
    EmptyCommand,
    /// The machine hosts no such service.
    #[error("no service of that name")]
    UnknownService,
    /// The machine hosts two services of that name, so neither is meant for sure.
    #[error("two services of that name")]
    AmbiguousService,
    /// The rule that decides is absent: nobody may.
    #[error("{0} is absent")]
    NoRule(Rule),
    /// The rule that decides does not name the caller.
    #[error("{0} does not name the caller")]
    NotNamed(Rule),
    /// The command's `args` rule refuses a word.
    #[error("args of {command} refuse word {position}")]
    Arguments {
        /// The command's name.
        command: CommandName,
        /// The word's place among those after the command, from 1.
        position: usize,
    },
    /// `malai.toml` forbids to run anything as that user.
    #[error("this device's [host] users do not include {}", user.as_ref().map_or("the daemon's user", UserName::as_str))]
    UserCeiling {
        /// The user; absent if it would be the daemon's own and that is not known.
        user: Option<UserName>,
    },
    /// `malai.toml` forbids shells.
    #[error("this device's [host] forbids shells")]
    ShellCeiling,
    /// `malai.toml` forbids services.
    #[error("this device's [host] forbids services")]
    ServicesCeiling,
}

/// Decides whether `caller` may do `action` at `target`.
///
/// `caller` is the identity that the connection proved, never one that a request names.
///
/// # Errors
/// [`Denied`], with the reason for the audit log.
pub fn authorize<A: Action>(
    policy: &Policy,
    caller: &Id52,
    target: &A::Target,
    action: A,
) -> Result<Authorized<A>, Denied> {
    authorize_under(policy, &Ceilings::none(), caller, target, action)
}

/// Decides like [`authorize`], on a device that has ceilings of its own.
///
/// # Errors
/// [`Denied`], with the reason for the audit log.
pub fn authorize_under<A: Action>(
    policy: &Policy,
    ceilings: &Ceilings,
    caller: &Id52,
    target: &A::Target,
    action: A,
) -> Result<Authorized<A>, Denied> {
    let question = Question::new(policy, ceilings, caller);
    let effect = action.decide(&question, target).map_err(|reason| Denied { reason })?;
    Ok(Authorized { action, effect, caller: *caller, caller_name: policy.name_of(caller).cloned() })
}

/// Decides again, after a config was applied, what an earlier permission allowed.
///
/// The new permission's effect may differ from the old one's (another user, another host): whoever holds something open
/// compares them.
///
/// # Errors
/// [`Denied`] if the right is gone.
pub fn reauthorize<A: Action>(
    policy: &Policy,
    ceilings: &Ceilings,
    target: &A::Target,
    earlier: &Authorized<A>,
) -> Result<Authorized<A>, Denied> {
    authorize_under(policy, ceilings, &earlier.caller, target, earlier.action.clone())
}
