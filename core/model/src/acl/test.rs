//! `[test.*]`: what must hold of a cluster's rules, checked whenever the file is.

use std::fmt;

use super::action::{Cluster, EditConfig, Exit, Reach, Run, Shell};
use super::authorize::authorize;
use super::policy::Policy;
use crate::config::{AclTestCase, ClusterConfig, PrincipalList};
use crate::id::Id52;
use crate::name::TestName;

/// A line of an ACL test that does not hold. It prints what the rules say instead, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedTest {
    /// The test.
    pub test: TestName,
    /// The line, as [`AclTestCase`] prints it.
    pub line: String,
    /// What the test says that should be.
    pub expected: Verdict,
    /// For whom it is otherwise, in the order of the ids: names of machines, and ids of those that are none.
    pub callers: Vec<String>,
    what: String,
}

/// What a test expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed.
    Allow,
    /// Denied.
    Deny,
}

impl fmt::Display for FailedTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.expected {
            Verdict::Allow => "may not",
            Verdict::Deny => "may",
        };
        write!(f, "{} {verb} {}", listed(&self.callers), self.what)
    }
}

/// Runs every ACL test of a config and returns the lines that do not hold; none, if all is as its author meant.
///
/// A line holds if it does for everybody whom `from` stands for.
pub fn run_tests(config: &ClusterConfig) -> Vec<FailedTest> {
    if config.tests().is_empty() {
        return Vec::new();
    }
    let policy = Policy::of_cluster(config);
    let mut failed = Vec::new();
    for (name, test) in config.tests() {
        let from = config.expand(&PrincipalList(vec![test.from.clone()]));
        let allow = test.allow.iter().map(|case| (Verdict::Allow, case));
        for (expected, case) in allow.chain(test.deny.iter().map(|case| (Verdict::Deny, case))) {
            let otherwise = from.iter().filter(|caller| decide(config, &policy, caller, case) != expected);
            let callers: Vec<String> = otherwise
                .map(|caller| policy.name_of(caller).map_or_else(|| caller.to_string(), ToString::to_string))
                .collect();
            if !callers.is_empty() {
                let (line, what) = (case.to_string(), describe(case));
                failed.push(FailedTest { test: name.clone(), line, expected, callers, what });
            }
        }
    }
    failed
}

fn decide(config: &ClusterConfig, policy: &Policy, caller: &Id52, case: &AclTestCase) -> Verdict {
    let allowed = match case {
        AclTestCase::Run { machine, argv } => {
            authorize(policy, caller, machine, Run { argv: argv.clone() }).is_ok()
        }
        AclTestCase::Shell { machine } => authorize(policy, caller, machine, Shell).is_ok(),
        AclTestCase::Proxy { machine } => authorize(policy, caller, machine, Exit).is_ok(),
        AclTestCase::Service { machine, service } => {
            let host = machine.as_ref().or_else(|| config.services().get(service).map(|s| &s.machine));
            host.is_some_and(|host| {
                authorize(policy, caller, host, Reach { service: service.clone() }).is_ok()
            })
        }
        AclTestCase::Config => authorize(policy, caller, &Cluster, EditConfig).is_ok(),
    };
    if allowed { Verdict::Allow } else { Verdict::Deny }
}

/// The first few: a group may have thousands.
fn listed(callers: &[String]) -> String {
    const SHOWN: usize = 3;
    match callers.len() {
        0..=SHOWN => callers.join(", "),
        count => format!("{} and {} more", callers[..SHOWN].join(", "), count - SHOWN),
    }
}

fn describe(case: &AclTestCase) -> String {
    match case {
        AclTestCase::Run { machine, argv } => format!("run {:?} on {machine}", argv.join(" ")),
        AclTestCase::Shell { machine } => format!("open a shell on {machine}"),
        AclTestCase::Proxy { machine } => format!("use {machine} as an exit"),
        AclTestCase::Service { machine: None, service } => format!("reach the service {service}"),
        AclTestCase::Service { machine: Some(machine), service } => {
            format!("reach the service {service} of {machine}")
        }
        AclTestCase::Config => "edit the config".to_owned(),
    }
}
