//! Machines, their command rules, and services.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Validator, quoted};
use crate::config::cluster::{
    ArgsRule, CommandRule, MachineEntry, OnDemand, PrincipalList, RestartPolicy, ServiceEntry,
    ServiceProtocol,
};
use crate::config::document::Spanned;
use crate::config::raw::{RawCluster, RawCommand, RawMachine, RawService, ServiceForm};
use crate::config::reader::Mode;
use crate::name::{CommandName, MachineName, ServiceName};

const STARTUP_TIME: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

impl Validator<'_, '_> {
    pub(crate) fn machines(&mut self, raw: &[RawMachine]) -> BTreeMap<MachineName, MachineEntry> {
        let mut machines = BTreeMap::new();
        let mut ids = Vec::new();
        for raw in raw {
            let name = raw.name.value.parse::<MachineName>().ok();
            // Even a machine without a valid name is looked at whole: its other problems are problems too.
            let entry = self.machine(raw, name.as_ref());
            if let (Some(name), Some(entry)) = (name, entry) {
                let span = raw.id52.as_ref().map_or_else(|| raw.span.clone(), |id| id.span.clone());
                ids.push((entry.id52, name.clone(), span));
                machines.insert(name, entry);
            }
        }
        self.duplicate_ids(&ids);
        machines
    }

    pub(crate) fn machine(&mut self, raw: &RawMachine, name: Option<&MachineName>) -> Option<MachineEntry> {
        let section = format!("machine.{}", raw.name.value);
        let id52 = match &raw.id52 {
            Some(id) => self.id52(id),
            None => self.missing(&section, &raw.span, "id52 = \"<the machine's id52>\""),
        };
        let addresses = raw.addresses.as_ref().map(|list| self.addresses(list)).unwrap_or_default();
        let proxy_to = raw.proxy_to.as_ref().map(|list| self.networks(list)).unwrap_or_default();
        if let (Some(list), None) = (&raw.proxy_to, &raw.allow_proxy)
            && self.mode == Mode::Master
        {
            self.findings.warning(
                "no-effect",
                &list.span,
                "proxy_to has no effect: nobody may use this machine as exit".to_owned(),
                Some("add allow_proxy".to_owned()),
            );
        }
        let mut allow_from = raw.allow_from.as_ref().map(|list| self.principals(list));
        let mut allow_shell = raw.allow_shell.as_ref().map(|list| self.principals(list));
        let mut allow_proxy = raw.allow_proxy.as_ref().map(|list| self.principals(list));
        let username = raw.username.as_ref().and_then(|user| self.user(user));
        let mut commands = BTreeMap::new();
        for command in &raw.commands {
            let word = self.name::<CommandName>("command", &command.name);
            let rule = self.command(command);
            if let (Some(word), Some(rule)) = (word, rule) {
                if let Some(name) = name {
                    let key = (name.clone(), word.clone());
                    self.spans.rules.commands.insert(key, command.name.span.clone());
                }
                commands.insert(word, rule);
            }
        }
        let mut services = self.own_services(raw, name);
        // An unknown key may have restricted everything in its section: all of it denies.
        let denied = raw.denied && self.mode == Mode::Personalised;
        let no_commands = matches!(raw.accept_ssh, Some(Spanned { value: false, .. }));
        if denied || no_commands {
            allow_from = Some(PrincipalList::default());
            allow_shell = Some(PrincipalList::default());
            for rule in commands.values_mut() {
                rule.allow_from = Some(PrincipalList::default());
            }
        }
        if denied {
            allow_proxy = Some(PrincipalList::default());
            for service in services.values_mut() {
                service.allow_from = Some(PrincipalList::default());
            }
        }
        if let (Some(name), Some(list)) = (name, &raw.allow_shell) {
            self.spans.rules.allow_shell.insert(name.clone(), list.span.clone());
        }
        Some(MachineEntry {
            id52: id52?,
            addresses,
            allow_from,
            allow_shell,
            allow_proxy,
            proxy_to,
            username,
            commands,
            services,
        })
    }

    fn command(&mut self, raw: &RawCommand) -> Option<CommandRule> {
        let mut allow_from = raw.allow_from.as_ref().map(|list| self.principals(list));
        if raw.denied && self.mode == Mode::Personalised {
            // Dropping the rule would fall back to the machine's allow_from: it stays, and admits nobody.
            allow_from = Some(PrincipalList::default());
        }
        let username = raw.username.as_ref().map(|user| self.user(user));
        let command = raw.command.as_ref().map(|words| self.words("command", words));
        let args = match &raw.args {
            Some(args) => self.args(args),
            None if raw.command.is_some() => Some(ArgsRule::None),
            None => Some(ArgsRule::Any),
        };
        // A part that cannot be read must not turn into its default; the file is refused anyway.
        let command = match command {
            Some(words) => Some(words?),
            None => None,
        };
        let username = match username {
            Some(user) => Some(user?),
            None => None,
        };
        Some(CommandRule { allow_from, command, args: args?, username })
    }

    /// The services in a machine's own section.
    fn own_services(
        &mut self,
        raw: &RawMachine,
        name: Option<&MachineName>,
    ) -> BTreeMap<ServiceName, ServiceEntry> {
        let mut services = BTreeMap::new();
        let mut seen: BTreeMap<ServiceName, ()> = BTreeMap::new();
        for raw in &raw.services {
            let Some(service) = self.name::<ServiceName>("service", &raw.name) else { continue };
            if seen.insert(service.clone(), ()).is_some() {
                self.findings.error(
                    "duplicate-service",
                    &raw.span,
                    format!("the machine has two services called {:?}", service.as_str()),
                    Some("give one of them another name, even if one is tcp and the other http".to_owned()),
                );
                continue;
            }
            if let Some(entry) = self.service(raw, name.cloned()) {
                services.insert(service, entry);
            }
        }
        services
    }

    /// The services with a cluster-wide name.
    pub(crate) fn services(
        &mut self,
        raw: &RawCluster,
        machines: &BTreeMap<MachineName, MachineEntry>,
    ) -> BTreeMap<ServiceName, ServiceEntry> {
        let mut services = BTreeMap::new();
        for raw in &raw.services {
            let host = match &raw.machine {
                Some(word) => self.known_machine(word),
                None => {
                    let section = format!("service.{}", raw.name.value);
                    self.missing(&section, &raw.span, "machine = \"web01\"")
                }
            };
            let entry = self.service(raw, host);
            let (Ok(name), Some(entry)) = (raw.name.value.parse::<ServiceName>(), entry) else { continue };
            if machines.get(&entry.machine).is_some_and(|machine| machine.services.contains_key(&name)) {
                self.findings.error(
                    "duplicate-service",
                    &raw.span,
                    format!(
                        "{:?} is a service of the cluster and one of {} itself",
                        name.as_str(),
                        entry.machine
                    ),
                    Some("keep one of the two, or give one another name".to_owned()),
                );
            }
            services.insert(name, entry);
        }
        services
    }

    pub(crate) fn service(&mut self, raw: &RawService, machine: Option<MachineName>) -> Option<ServiceEntry> {
        let section = match raw.form {
            ServiceForm::ClusterWide => format!("service.{}", raw.name.value),
            ServiceForm::Tcp => format!("machine.….tcp.{}", raw.name.value),
            ServiceForm::Http => format!("machine.….http.{}", raw.name.value),
            ServiceForm::Older => format!("machine.….service.{}", raw.name.value),
        };
        let protocol = self.protocol(raw, &section);
        let port = match &raw.port {
            Some(port) => self.port(port),
            None => self.missing(&section, &raw.span, "port = 8080"),
        };
        let host = match &raw.host {
            Some(host) => self.host(host),
            None => Some("127.0.0.1".to_owned()),
        };
        let mut allow_from = raw.allow_from.as_ref().map(|list| self.principals(list));
        if raw.denied && self.mode == Mode::Personalised {
            allow_from = Some(PrincipalList::default());
        }
        let on_demand = self.on_demand(raw);
        Some(ServiceEntry {
            machine: machine?,
            protocol: protocol?,
            port: port?,
            host: host?,
            allow_from,
            on_demand: on_demand?,
        })
    }

    fn protocol(&mut self, raw: &RawService, section: &str) -> Option<ServiceProtocol> {
        let http = match raw.form {
            ServiceForm::Tcp => false,
            ServiceForm::Http => true,
            ServiceForm::Older if raw.protocol.is_none() => true,
            ServiceForm::ClusterWide | ServiceForm::Older => match &raw.protocol {
                None => return self.missing(section, &raw.span, "protocol = \"http\""),
                Some(word) if word.value == "http" => true,
                Some(word) if word.value == "tcp" => false,
                Some(word) => {
                    let hint = "protocol is \"http\" or \"tcp\"";
                    self.unknown_word("protocol", word, hint);
                    return None;
                }
            },
        };
        if http {
            return Some(ServiceProtocol::Http {
                inject_headers: raw.inject_headers.as_ref().is_none_or(|flag| flag.value),
                secure: raw.secure.as_ref().is_some_and(|flag| flag.value),
            });
        }
        for (key, flag) in [("inject_headers", &raw.inject_headers), ("secure", &raw.secure)] {
            if let (Some(flag), Mode::Master) = (flag, self.mode) {
                let message = format!("{key:?} is for http services, this one is tcp");
                let hint = "remove the line, or make it an http service".to_owned();
                self.findings.error("wrong-protocol", &flag.span, message, Some(hint));
            }
        }
        Some(ServiceProtocol::Tcp)
    }

    /// A word that is none of the known ones. In a personalised file it is a newer manager's, and what it belongs to
    /// is left out, which denies it; the file goes on working.
    pub(crate) fn unknown_word(&mut self, key: &str, word: &Spanned<String>, hint: &str) {
        let message = format!("{} is no {key}", quoted(&word.value));
        match self.mode {
            Mode::Master => self.findings.error("unknown-word", &word.span, message, Some(hint.to_owned())),
            Mode::Personalised => {
                let hint = "what it belongs to denies until this machine runs a newer malai".to_owned();
                self.findings.warning("unknown-word", &word.span, message, Some(hint));
            }
        }
    }

    /// The outer `None` means that it cannot be read.
    #[expect(clippy::option_option, reason = "absent and unreadable are different answers")]
    fn on_demand(&mut self, raw: &RawService) -> Option<Option<OnDemand>> {
        let username = raw.username.as_ref().map(|user| self.user(user));
        let startup_time = raw.startup_time.as_ref().map_or(Some(STARTUP_TIME), |text| self.duration(text));
        let idle_timeout = raw.idle_timeout.as_ref().map_or(Some(IDLE_TIMEOUT), |text| self.duration(text));
        let health_check = raw.health_check.as_ref().map(|words| self.words("health_check", words));
        let restart_policy = match &raw.restart_policy {
            None => Some(RestartPolicy::OnFailure),
            Some(word) => match word.value.as_str() {
                "never" => Some(RestartPolicy::Never),
                "on-failure" => Some(RestartPolicy::OnFailure),
                "always" => Some(RestartPolicy::Always),
                _ => {
                    self.unknown_word("restart_policy", word, "one of never, on-failure, always");
                    None
                }
            },
        };
        let Some(command) = &raw.command else {
            self.warn_of_idle_keys(raw);
            return Some(None);
        };
        Some(Some(OnDemand {
            command: self.words("command", command)?,
            username: username.map_or(Some(None), |user| user.map(Some))?,
            startup_time: startup_time?,
            idle_timeout: idle_timeout?,
            health_check: health_check.map_or(Some(None), |words| words.map(Some))?,
            restart_policy: restart_policy?,
        }))
    }

    fn warn_of_idle_keys(&mut self, raw: &RawService) {
        let text_span = |text: &crate::config::reader::RawText| match text {
            crate::config::reader::RawText::One(text) => text.span.clone(),
            crate::config::reader::RawText::Many(list) => list.span.clone(),
        };
        let keys = [
            ("username", raw.username.as_ref().map(|value| value.span.clone())),
            ("startup_time", raw.startup_time.as_ref().map(|value| value.span.clone())),
            ("idle_timeout", raw.idle_timeout.as_ref().map(|value| value.span.clone())),
            ("health_check", raw.health_check.as_ref().map(text_span)),
            ("restart_policy", raw.restart_policy.as_ref().map(|value| value.span.clone())),
        ];
        for (key, span) in keys {
            if let Some(span) = span {
                let message = format!("{key:?} has no effect: the service has no command to start");
                self.findings.warning(
                    "no-effect",
                    &span,
                    message,
                    Some("add command, or remove the line".to_owned()),
                );
            }
        }
    }
}
