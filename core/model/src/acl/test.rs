//! `[test.*]`: what must hold of a cluster's rules, checked whenever the file is.

use std::fmt;

use super::action::{Cluster, EditConfig, Exit, Reach, Run, Shell};
use super::authorize::authorize;
use super::policy::Policy;
use crate::config::{AclTestCase, ClusterConfig, PrincipalList};
use crate::id::Id52;
use crate::name::TestName;

/// A line of a test that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedTest {
    /// The test.
    pub test: TestName,
    /// The line, as it is written in the file.
    pub line: String,
    /// What the test says that should be.
    pub expected: Verdict,
    /// For whom it is otherwise, in ascending order: names of machines, and ids of those that are none.
    pub callers: Vec<String>,
}

/// What a test expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed.
    Allow,
    /// Denied.
    Deny,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// Runs every ACL test of a config and returns the lines that do not hold; none, if all is as its author meant.
pub fn run_tests(config: &ClusterConfig) -> Vec<FailedTest> {
    if config.tests().is_empty() {
        return Vec::new();
    }
    let policy = Policy::of_cluster(config);
    let mut failed = Vec::new();
    for (name, test) in config.tests() {
        let callers = config.expand(&PrincipalList(vec![test.from.clone()]));
        let lines = test.allow.iter().map(|case| (case, Verdict::Allow));
        for (case, expected) in lines.chain(test.deny.iter().map(|case| (case, Verdict::Deny))) {
            let otherwise = callers.iter().filter(|caller| decide(config, &policy, caller, case) != expected);
            let callers: Vec<String> = otherwise
                .map(|caller| policy.name_of(caller).map_or_else(|| caller.to_string(), ToString::to_string))
                .collect();
            if !callers.is_empty() {
                failed.push(FailedTest { test: name.clone(), line: line_of(case), expected, callers });
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

fn line_of(case: &AclTestCase) -> String {
    match case {
        AclTestCase::Run { machine, argv } => format!("{machine} run {}", argv.join(" ")),
        AclTestCase::Shell { machine } => format!("{machine} shell"),
        AclTestCase::Proxy { machine } => format!("{machine} proxy"),
        AclTestCase::Service { machine: None, service } => format!("service {service}"),
        AclTestCase::Service { machine: Some(machine), service } => format!("service {service}.{machine}"),
        AclTestCase::Config => "config".to_owned(),
    }
}
