//! Who may do what: one evaluator for every protocol.
//!
//! Responsible for expanding groups once, when a config is compiled, and for deciding afterwards without looking at the
//! config again. [`authorize`] alone makes an [`Authorized`], and what runs commands, opens shells or dials services takes
//! nothing else: a forgotten check does not compile. Not responsible for who a caller is (the connection proves it),
//! nor for what a file's text says (`crate::config`).

mod action;
mod args;
mod authorize;
mod ceiling;
mod policy;
mod principal;
mod test;

pub use action::{
    Action, Cluster, EditConfig, EditEffect, Exit, ExitEffect, Question, Reach, ReachEffect, Run, RunEffect,
    Shell, ShellEffect,
};
pub use authorize::{Authorized, Denied, DenyReason, Rule, authorize, authorize_under, reauthorize};
pub use ceiling::Ceilings;
pub use policy::Policy;
pub use test::{FailedTest, Verdict, run_tests};

/// What `crate::config` needs of a compiled policy for personalising it.
pub(crate) mod compiled {
    pub(crate) use super::policy::{MachinePolicy, RuleList, Scope, ServicePolicy};
}
