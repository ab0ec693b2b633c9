//! Config files, compiled in passes: text → document → raw → [`ClusterConfig`] or `MachineConfig`.
//!
//! Responsible for everything that a file's text can get wrong. Not for who may do what (`crate::acl`).

mod cluster;
mod device;
mod device_compile;
mod document;
mod edit;
mod machine;
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
pub use device::{
    AuditPolicy, DaemonConfig, DeviceConfig, Discovery, HostConfig, HttpConfig, Limits, Network,
    NetworkConfig, ProxyConfig, Relays, TcpForward, compile_device,
};
pub use document::MAX_CONFIG_BYTES;
pub use edit::{EditProblem, add_machine, free_machine_name, new_cluster, remove_machine, replace_id52};
pub use machine::{
    AccessKind, Directory, DirectoryMachine, DirectoryService, MachineConfig, ProtocolKind, Recipient,
    compile_machine,
};
pub use personalize::{Personalised, Personalizer, personalize};
pub use problem::{Compiled, ConfigProblems};
pub use signed::{
    SignedConfig, SignedConfigProblem, check_signature, root_digest, text_digest, verify_signed,
};
pub use validate::{GlobProblem, UserNameProblem};

use std::collections::BTreeMap;

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
        let broken = if has_too_many_questions(config) {
            let message =
                format!("the access tests ask more than {MAX_QUESTIONS} questions (callers × lines)");
            let hint = "test a group with few members instead of a large one or *".to_owned();
            validator.findings.error_of_file("too-many-tests", message, Some(hint));
            Vec::new()
        } else {
            acl_tests(config)
        };
        for broken in broken {
            let place = validator.test_place(config, &broken);
            let message = format!("the test {:?} fails: {}", broken.test.as_str(), broken.message);
            let hint = "mend the rules, or the test if it is out of date".to_owned();
            validator.findings.error("acl-test", &place, message, Some(hint));
        }
    }
    Compiled::new(config, findings.into_list())
}

/// Finds the known word that is nearest to an unknown one, if one is near enough to be meant.
pub fn nearest_word<'k>(unknown: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    document::nearest(unknown, known, &mut 20_000)
}

/// A line of an ACL test that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokenTest {
    pub(crate) test: TestName,
    /// The line stands in `allow`, not in `deny`.
    pub(crate) should_be_allowed: bool,
    /// The line as `AclTestCase` prints it.
    pub(crate) line: String,
    /// What the rules say instead, and for whom.
    pub(crate) message: String,
}

/// How many questions the ACL tests of a file may ask: about a second's worth. An editor from afar writes them, and the
/// manager answers them.
const MAX_QUESTIONS: usize = 5_000_000;

fn has_too_many_questions(config: &ClusterConfig) -> bool {
    let mut sizes: BTreeMap<&PrincipalRef, usize> = BTreeMap::new();
    let mut questions = 0_usize;
    config.tests.values().any(|test| {
        let callers = *sizes.entry(&test.from).or_insert_with(|| {
            let size = config.expand(&PrincipalList(vec![test.from.clone()])).len();
            // Finding out is work too.
            questions = questions.saturating_add(size);
            size
        });
        let lines = test.allow.len() + test.deny.len();
        // The evaluator expands the callers of each test, even of one without lines.
        questions = questions.saturating_add(callers.saturating_mul(lines + 1));
        questions > MAX_QUESTIONS
    })
}

/// Evaluates the ACL tests of a config that is valid otherwise.
///
/// The one place where the compiler asks the evaluator, which is `crate::acl`'s.
pub(crate) fn acl_tests(config: &ClusterConfig) -> Vec<BrokenTest> {
    let broken = crate::acl::run_tests(config).into_iter().map(|failed| BrokenTest {
        should_be_allowed: failed.expected == crate::acl::Verdict::Allow,
        message: failed.to_string(),
        test: failed.test,
        line: failed.line,
    });
    broken.collect()
}
