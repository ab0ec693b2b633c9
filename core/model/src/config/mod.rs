//! Config files, compiled in passes: text → document → raw → [`ClusterConfig`] or `MachineConfig`.
//!
//! Responsible for everything that a file's text can get wrong. Not for who may do what (`crate::acl`).

mod cluster;
mod document;
mod personalize;
mod problem;
mod raw;
mod reader;
mod signed;
mod validate;

pub use cluster::{
    AclTest, AclTestCase, ArgGlob, ArgsRule, ClusterConfig, CommandRule, MachineEntry, ManagerEntry,
    OnDemand, PrincipalList, PrincipalRef, RestartPolicy, ServiceEntry, ServiceProtocol, UserName,
};
pub use document::MAX_CONFIG_BYTES;
pub use personalize::{Personalised, Personalizer, personalize};
pub use problem::{Compiled, ConfigProblems};
pub use signed::{SignedConfigProblem, check_signature};
pub use validate::{GlobProblem, UserNameProblem};

use crate::name::TestName;
use document::{Findings, Source};
use reader::{Mode, Reader};
use validate::Validator;

/// Compiles a master `cluster.toml`. `file` is the name that diagnostics show; nothing is read from disk.
///
/// Every problem of the text is found at once, except that a TOML syntax error hides what is behind it.
pub fn compile(file: &str, text: &str) -> Compiled<ClusterConfig> {
    let source = Source::new(file, text);
    let mut findings = Findings::new(&source);
    let Some(document) = document::parse(&mut findings) else {
        return Compiled::new(None, findings.into_list());
    };
    let mut reader = Reader { findings: &mut findings, mode: Mode::Master };
    let raw = raw::read_cluster(&mut reader, document.as_table(), |_, _, _| false);
    let mut validator = Validator::new(&mut findings, Mode::Master);
    let mut config = validator.cluster(&raw);
    if validator.findings.has_errors() {
        config = None;
    }
    if let Some(config) = &config {
        validator.warn_of_boundaries(config);
        for failed in acl_tests(config) {
            let places = validator.spans.tests.get(&failed.test);
            let place = places.and_then(|places| match failed.expected {
                Expected::Allow => places.allow.get(failed.line),
                Expected::Deny => places.deny.get(failed.line),
            });
            let place = place.cloned().unwrap_or_default();
            let message = format!("the test {:?} fails: {}", failed.test.as_str(), failed.message);
            let hint = "mend the rules, or the test if it is out of date".to_owned();
            validator.findings.error("acl-test", &place, message, Some(hint));
        }
    }
    Compiled::new(config, findings.into_list())
}

/// What a line of an ACL test expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A line of `allow`.
    Allow,
    /// A line of `deny`.
    Deny,
}

/// A line of an ACL test that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedTest {
    /// Which test.
    pub test: TestName,
    /// In which of its lists.
    pub expected: Expected,
    /// The line's index in that list, from 0.
    pub line: usize,
    /// What the rules say instead, for whom: `laptop may run "deploy" on web01`.
    pub message: String,
}

/// Evaluates the ACL tests of a config that is valid otherwise.
///
/// The one place where the compiler asks the evaluator, which is `crate::acl`'s.
pub(crate) fn acl_tests(config: &ClusterConfig) -> Vec<FailedTest> {
    crate::acl::run_tests(config)
}
