//! `[test.*]`: the lines of ACL tests, parsed. Whether they hold is `crate::acl`'s to say.

use std::collections::BTreeMap;
use std::fmt;

use super::{TestSpans, Validator, quoted};
use crate::config::BrokenTest;
use crate::config::cluster::{AclTest, AclTestCase, ClusterConfig};
use crate::config::document::{Span, Spanned};
use crate::config::raw::RawCluster;
use crate::name::{MachineName, ServiceName, TestName};

const EXAMPLES: &str =
    "for example: \"web01 run deploy --now\", \"db01 shell\", \"web01 proxy\", \"service admin\", \"config\"";

impl fmt::Display for AclTestCase {
    /// Prints the line as a person would write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run { machine, argv } => write!(f, "{machine} run {}", argv.join(" ")),
            Self::Shell { machine } => write!(f, "{machine} shell"),
            Self::Proxy { machine } => write!(f, "{machine} proxy"),
            Self::Service { machine: None, service } => write!(f, "service {service}"),
            Self::Service { machine: Some(machine), service } => write!(f, "service {service}.{machine}"),
            Self::Config => f.write_str("config"),
        }
    }
}

impl Validator<'_, '_> {
    /// Where a line that does not hold stands.
    pub(crate) fn test_place(&self, config: &ClusterConfig, broken: &BrokenTest) -> Span {
        let (Some(test), Some(spans)) = (config.tests.get(&broken.test), self.spans.tests.get(&broken.test))
        else {
            return Span::default();
        };
        let (cases, places) =
            if broken.should_be_allowed { (&test.allow, &spans.allow) } else { (&test.deny, &spans.deny) };
        let line = cases.iter().position(|case| case.to_string() == broken.line);
        line.and_then(|line| places.get(line)).cloned().unwrap_or_default()
    }

    pub(crate) fn tests(&mut self, raw: &RawCluster) -> BTreeMap<TestName, AclTest> {
        let mut tests = BTreeMap::new();
        // Machine-scoped services by machine, so that each line is one look-up.
        let mut scoped: BTreeMap<(&str, &str), ()> = BTreeMap::new();
        for machine in &raw.machines {
            for service in &machine.services {
                scoped.insert((&machine.name.value, &service.name.value), ());
            }
        }
        for raw in &raw.tests {
            let name = self.name::<TestName>("test", &raw.name);
            let section = format!("test.{}", raw.name.value);
            let from = match &raw.from {
                Some(word) => self.principal(&Spanned::new(word.value.trim().to_owned(), word.span.clone())),
                None => self.missing(&section, &raw.span, "from = \"interns\""),
            };
            if raw.allow.is_empty() && raw.deny.is_empty() {
                self.findings.warning(
                    "no-effect",
                    &raw.span,
                    format!("[{section}] tests nothing"),
                    Some("add deny = [\"web01 shell\"] or allow = [\"web01 run top\"]".to_owned()),
                );
            }
            let (mut allow, mut deny) = (Vec::new(), Vec::new());
            let mut spans = TestSpans::default();
            for (lines, cases, places) in
                [(&raw.allow, &mut allow, &mut spans.allow), (&raw.deny, &mut deny, &mut spans.deny)]
            {
                for line in lines {
                    if let Some(case) = self.test_case(line, &scoped) {
                        cases.push(case);
                        places.push(line.span.clone());
                    }
                }
            }
            if let (Some(name), Some(from)) = (name, from) {
                self.spans.tests.insert(name.clone(), spans);
                tests.insert(name, AclTest { from, allow, deny });
            }
        }
        tests
    }

    fn test_case(
        &mut self,
        line: &Spanned<String>,
        scoped: &BTreeMap<(&str, &str), ()>,
    ) -> Option<AclTestCase> {
        let words = shlex::split(&line.value).unwrap_or_default();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["config"] => Some(AclTestCase::Config),
            ["service", name] => self.service_case(name, line, scoped),
            [machine, "run", argv @ ..] if !argv.is_empty() => {
                let machine = self.case_machine(machine, line)?;
                Some(AclTestCase::Run { machine, argv: argv.iter().map(|word| (*word).to_owned()).collect() })
            }
            [machine, "shell"] => Some(AclTestCase::Shell { machine: self.case_machine(machine, line)? }),
            [machine, "proxy"] => Some(AclTestCase::Proxy { machine: self.case_machine(machine, line)? }),
            _ => {
                let message = format!("{} is no line of a test", quoted(&line.value));
                self.findings.error("bad-test", &line.span, message, Some(EXAMPLES.to_owned()));
                None
            }
        }
    }

    fn case_machine(&mut self, word: &str, line: &Spanned<String>) -> Option<MachineName> {
        self.known_machine(&Spanned::new(word.to_owned(), line.span.clone()))
    }

    fn service_case(
        &mut self,
        word: &str,
        line: &Spanned<String>,
        scoped: &BTreeMap<(&str, &str), ()>,
    ) -> Option<AclTestCase> {
        if let Some((service, machine)) = word.split_once('.') {
            let machine = self.case_machine(machine, line)?;
            if scoped.contains_key(&(machine.as_str(), service))
                && let Ok(service) = service.parse::<ServiceName>()
            {
                return Some(AclTestCase::Service { machine: Some(machine), service });
            }
        } else if let Some((service, _)) = self.known.services.get_key_value(word) {
            return Some(AclTestCase::Service { machine: None, service: service.clone() });
        }
        let names: Vec<String> = self.known.services.keys().map(|name| name.to_string()).collect();
        let host = scoped.keys().find(|(_, service)| *service == word).map(|(machine, _)| *machine);
        let hint = match host {
            Some(machine) => Some(format!("the one of a machine is written service {word}.{machine}")),
            None => self.findings.suggest(word, names.iter().map(String::as_str)),
        };
        let message = format!("no service is called {}", quoted(word));
        self.findings.error("unknown-service", &line.span, message, hint);
        None
    }
}
