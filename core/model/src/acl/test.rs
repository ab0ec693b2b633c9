//! `[test.*]`: what must hold of a cluster's rules, checked whenever the file is.

use super::action::{Cluster, EditConfig, Exit, Reach, Run, Shell};
use super::authorize::authorize;
use super::policy::Policy;
use crate::config::{AclTestCase, ClusterConfig, Expected, FailedTest, PrincipalList};
use crate::id::Id52;

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
        let callers = config.expand(&PrincipalList(vec![test.from.clone()]));
        let allow = test.allow.iter().enumerate().map(|(line, case)| (Expected::Allow, line, case));
        let deny = test.deny.iter().enumerate().map(|(line, case)| (Expected::Deny, line, case));
        for (expected, line, case) in allow.chain(deny) {
            let otherwise: Vec<String> = callers
                .iter()
                .filter(|caller| decide(config, &policy, caller, case) != expected)
                .map(|caller| policy.name_of(caller).map_or_else(|| caller.to_string(), ToString::to_string))
                .collect();
            if otherwise.is_empty() {
                continue;
            }
            let verb = match expected {
                Expected::Allow => "may not",
                Expected::Deny => "may",
            };
            let message = format!("{} {verb} {}", listed(&otherwise), describe(case));
            failed.push(FailedTest { test: name.clone(), expected, line, message });
        }
    }
    failed
}

fn decide(config: &ClusterConfig, policy: &Policy, caller: &Id52, case: &AclTestCase) -> Expected {
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
    if allowed { Expected::Allow } else { Expected::Deny }
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
