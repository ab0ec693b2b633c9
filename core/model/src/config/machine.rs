//! `MachineConfig`: what one machine was told of its cluster, compiled by the same passes.
//!
//! Whose signature the text bears is checked before, by `super::check_signature`; here it is only a known section.

use std::collections::{BTreeMap, BTreeSet};

use toml_edit::{Item, Key, TableLike};

use super::cluster::{MachineEntry, ManagerEntry, ServiceEntry};
use super::document;
use super::document::{Findings, Source, Span, Spanned};
use super::problem::Compiled;
use super::raw::{RawCluster, read_cluster};
use super::reader::{Mode, RawList, Reader, entries, item_span, spanned_key};
use super::validate::{Validator, quoted};
use crate::id::Id52;
use crate::name::{GroupName, MachineName, ServiceName};

/// A personalised config: the rules of one machine with every list expanded to identities, and what it may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineConfig {
    manager: ManagerEntry,
    recipient: Recipient,
    own: MachineEntry,
    services: BTreeMap<ServiceName, ServiceEntry>,
    directory: Directory,
}

/// `[recipient]`: whom the file is for, and its place in the order of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The identity that the file is for.
    pub id52: Id52,
    /// The name that the cluster gives it.
    pub machine: MachineName,
    /// Grows with every file for this machine.
    pub serial: u64,
    /// Hex SHA-256 of the next root's 32 public bytes: 64 lower-case digits.
    pub next_root: String,
}

/// `[directory]`: what the machine may reach elsewhere. Hints for finding and completing; the target decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    pub(crate) machines: BTreeMap<MachineName, DirectoryMachine>,
    pub(crate) services: BTreeMap<ServiceName, DirectoryService>,
    pub(crate) groups: BTreeMap<GroupName, BTreeSet<MachineName>>,
    pub(crate) callers: BTreeMap<Id52, MachineName>,
}

/// `[directory.machine.X]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryMachine {
    /// Who it is.
    pub id52: Id52,
    /// Where it may be found: `host:port`, hints only.
    pub addresses: Vec<String>,
    /// What this machine may do there.
    pub may: BTreeSet<AccessKind>,
    /// The services named within that machine which this one may reach.
    pub services: BTreeMap<ServiceName, ProtocolKind>,
}

/// `[directory.service.X]`: a cluster-wide service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryService {
    /// The hosting machine's name.
    pub machine: MachineName,
    /// The hosting machine; it need not be among the directory's machines.
    pub id52: Id52,
    /// Where the hosting machine may be found: hints only.
    pub addresses: Vec<String>,
    /// How it is spoken to.
    pub protocol: ProtocolKind,
}

/// A kind of access to another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccessKind {
    /// Running some program or command there.
    Run,
    /// Opening a shell there.
    Shell,
    /// Using it as exit to the internet.
    Proxy,
}

/// How a service is spoken to, without its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolKind {
    /// Bytes.
    Tcp,
    /// Requests.
    Http,
}

impl MachineConfig {
    /// The manager, with the expanded `config_editors`.
    pub fn manager(&self) -> &ManagerEntry {
        &self.manager
    }

    /// Whom the file is for.
    pub fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// The recipient's own section: its lists hold ids only.
    pub fn own(&self) -> &MachineEntry {
        &self.own
    }

    /// The services with a cluster-wide name that the recipient hosts.
    pub fn hosted_services(&self) -> &BTreeMap<ServiceName, ServiceEntry> {
        &self.services
    }

    /// What the recipient may reach.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }
}

impl Directory {
    /// The machines on which it may do something.
    pub fn machines(&self) -> &BTreeMap<MachineName, DirectoryMachine> {
        &self.machines
    }

    /// The cluster-wide services that it may reach.
    pub fn services(&self) -> &BTreeMap<ServiceName, DirectoryService> {
        &self.services
    }

    /// Groups, cut to the machines that it may reach.
    pub fn groups(&self) -> &BTreeMap<GroupName, BTreeSet<MachineName>> {
        &self.groups
    }

    /// Names for the ids that its own rules admit.
    pub fn callers(&self) -> &BTreeMap<Id52, MachineName> {
        &self.callers
    }
}

/// Compiles a personalised `machine.toml`. The signature must have been checked before.
///
/// A key that this version does not know makes the rule that holds it deny, with a warning: files of newer managers
/// are read, and nothing fails open.
pub fn compile_machine(file: &str, text: &str) -> Compiled<MachineConfig> {
    let source = Source::new(file, text);
    let mut findings = Findings::new(&source);
    let Some(document) = document::parse(&mut findings) else {
        return Compiled::new(None, findings.into_list());
    };
    let mut reader = Reader { findings: &mut findings, mode: Mode::Personalised };
    let mut extra = RawExtra::default();
    let raw =
        read_cluster(&mut reader, document.as_table(), |reader, key, item| extra.read(reader, key, item));
    let mut validator = Validator::new(&mut findings, Mode::Personalised);
    let config = validator.machine_config(&raw, &extra);
    Compiled::new(config, findings.into_list())
}

/// The sections that only a personalised file has.
#[derive(Debug, Default)]
struct RawExtra {
    recipient: Option<RawRecipient>,
    machines: Vec<RawDirectoryMachine>,
    services: Vec<RawDirectoryService>,
    groups: Vec<(Spanned<String>, RawList)>,
    callers: Vec<(Spanned<String>, Spanned<String>)>,
}

#[derive(Debug)]
struct RawRecipient {
    span: Span,
    id52: Option<Spanned<String>>,
    machine: Option<Spanned<String>>,
    serial: Option<Spanned<i64>>,
    next_root: Option<Spanned<String>>,
}

#[derive(Debug)]
struct RawDirectoryMachine {
    name: Spanned<String>,
    span: Span,
    id52: Option<Spanned<String>>,
    addresses: Option<RawList>,
    may: Option<RawList>,
    services: Vec<(Spanned<String>, Option<Spanned<String>>)>,
}

#[derive(Debug)]
struct RawDirectoryService {
    name: Spanned<String>,
    span: Span,
    machine: Option<Spanned<String>>,
    id52: Option<Spanned<String>>,
    addresses: Option<RawList>,
    protocol: Option<Spanned<String>>,
}

impl RawExtra {
    fn read(&mut self, reader: &mut Reader<'_, '_>, key: &Key, item: &Item) -> bool {
        match key.get() {
            "recipient" => {
                if let Some(table) = reader.root_section(key, item) {
                    self.recipient = Some(read_recipient(reader, table, item_span(key, item)));
                }
            }
            "directory" => {
                if let Some(table) = reader.root_section(key, item) {
                    self.read_directory(reader, table);
                }
            }
            // Checked over the bytes, before anything of the text is believed.
            "signature" => {}
            _ => return false,
        }
        true
    }

    fn read_directory(&mut self, reader: &mut Reader<'_, '_>, table: &dyn TableLike) {
        for (key, item) in entries(table) {
            let word = key.get();
            if !matches!(word, "machine" | "service" | "group" | "caller") {
                reader.unknown("directory", key, item, &["machine", "service", "group", "caller"]);
                continue;
            }
            let path = format!("directory.{word}");
            let Some(table) = reader.section("directory", key, item) else { continue };
            for (key, item) in entries(table) {
                if word == "caller" {
                    if let Some(name) = reader.string(key, item) {
                        self.callers.push((spanned_key(key), name));
                    }
                    continue;
                }
                let Some(table) = reader.section(&path, key, item) else { continue };
                match word {
                    "machine" => self.machines.push(read_directory_machine(reader, key, item, table)),
                    "service" => self.services.push(read_directory_service(reader, key, item, table)),
                    _ => {
                        let path = format!("{path}.{}", key.get());
                        let name = spanned_key(key);
                        for (key, item) in entries(table) {
                            match key.get() {
                                "members" => {
                                    self.groups
                                        .extend(reader.list(key, item).map(|list| (name.clone(), list)));
                                }
                                _ => reader.unknown(&path, key, item, &["members"]),
                            }
                        }
                    }
                }
            }
        }
    }
}

fn read_recipient(reader: &mut Reader<'_, '_>, table: &dyn TableLike, span: Span) -> RawRecipient {
    let mut raw = RawRecipient { span, id52: None, machine: None, serial: None, next_root: None };
    for (key, item) in entries(table) {
        match key.get() {
            "id52" => raw.id52 = reader.string(key, item),
            "machine" => raw.machine = reader.string(key, item),
            "serial" => raw.serial = reader.integer(key, item),
            "next_root" => raw.next_root = reader.string(key, item),
            _ => reader.unknown("recipient", key, item, &["id52", "machine", "serial", "next_root"]),
        }
    }
    raw
}

fn read_directory_machine(
    reader: &mut Reader<'_, '_>,
    key: &Key,
    item: &Item,
    table: &dyn TableLike,
) -> RawDirectoryMachine {
    let path = format!("directory.machine.{}", key.get());
    let mut raw = RawDirectoryMachine {
        name: spanned_key(key),
        span: item_span(key, item),
        id52: None,
        addresses: None,
        may: None,
        services: Vec::new(),
    };
    for (key, item) in entries(table) {
        match key.get() {
            "id52" => raw.id52 = reader.string(key, item),
            "addresses" => raw.addresses = reader.list(key, item),
            "may" => raw.may = reader.list(key, item),
            "service" => {
                let path = format!("{path}.service");
                let Some(table) = reader.section(&path, key, item) else { continue };
                for (key, item) in entries(table) {
                    let Some(table) = reader.section(&path, key, item) else { continue };
                    let mut protocol = None;
                    let name = spanned_key(key);
                    for (key, item) in entries(table) {
                        match key.get() {
                            "protocol" => protocol = reader.string(key, item),
                            _ => reader.unknown(&format!("{path}.{}", name.value), key, item, &["protocol"]),
                        }
                    }
                    raw.services.push((name, protocol));
                }
            }
            _ => reader.unknown(&path, key, item, &["id52", "addresses", "may", "service"]),
        }
    }
    raw
}

fn read_directory_service(
    reader: &mut Reader<'_, '_>,
    key: &Key,
    item: &Item,
    table: &dyn TableLike,
) -> RawDirectoryService {
    let path = format!("directory.service.{}", key.get());
    let mut raw = RawDirectoryService {
        name: spanned_key(key),
        span: item_span(key, item),
        machine: None,
        id52: None,
        addresses: None,
        protocol: None,
    };
    for (key, item) in entries(table) {
        match key.get() {
            "machine" => raw.machine = reader.string(key, item),
            "id52" => raw.id52 = reader.string(key, item),
            "addresses" => raw.addresses = reader.list(key, item),
            "protocol" => raw.protocol = reader.string(key, item),
            _ => reader.unknown(&path, key, item, &["machine", "id52", "addresses", "protocol"]),
        }
    }
    raw
}

impl Validator<'_, '_> {
    fn machine_config(&mut self, raw: &RawCluster, extra: &RawExtra) -> Option<MachineConfig> {
        let manager = self.manager(raw.manager.as_ref());
        let recipient = self.recipient(extra.recipient.as_ref());
        let name = recipient.as_ref().map(|recipient| recipient.machine.clone());
        let mut own = None;
        for section in &raw.machines {
            if name.as_ref().is_some_and(|name| name.as_str() != section.name.value) {
                let message = format!("[machine.{}] is not this machine's", section.name.value);
                self.findings.warning("not-mine", &section.span, message, None);
                continue;
            }
            if own.is_some() {
                let message = format!("the machine {:?} is described twice", section.name.value);
                self.findings.error("duplicate", &section.span, message, None);
            }
            own = self.machine(section, name.as_ref());
        }
        if let (Some(recipient), None) = (&recipient, &own)
            && !self.findings.has_errors()
        {
            let message = format!("the section [machine.{}] is missing", recipient.machine);
            self.findings.error_of_file("missing", message, None);
        }
        if let (Some(recipient), Some(own)) = (&recipient, &own)
            && recipient.id52 != own.id52
        {
            let span = extra.recipient.as_ref().map(|raw| raw.span.clone()).unwrap_or_default();
            let message = format!("the recipient's id52 is not that of [machine.{}]", recipient.machine);
            self.findings.error("wrong-recipient", &span, message, None);
        }
        let services = self.hosted(raw, name.as_ref());
        let directory = self.directory(extra);
        for span in raw.groups.iter().map(|group| &group.span).chain(raw.tests.iter().map(|test| &test.span))
        {
            let message = "groups and tests mean nothing in a machine's own config".to_owned();
            self.findings.warning("not-mine", span, message, None);
        }
        Some(MachineConfig { manager: manager?, recipient: recipient?, own: own?, services, directory })
    }

    fn recipient(&mut self, raw: Option<&RawRecipient>) -> Option<Recipient> {
        let Some(raw) = raw else {
            let message = "the section [recipient] is missing".to_owned();
            self.findings.error_of_file("missing", message, None);
            return None;
        };
        let id52 = match &raw.id52 {
            Some(id) => self.id52(id),
            None => self.missing("recipient", &raw.span, "id52 = \"<id52>\""),
        };
        let machine = match &raw.machine {
            Some(name) => self.name::<MachineName>("machine", name),
            None => self.missing("recipient", &raw.span, "machine = \"web01\""),
        };
        let serial = match &raw.serial {
            Some(serial) => {
                let number = u64::try_from(serial.value).ok();
                if number.is_none() {
                    let message = format!("the serial {} is negative", serial.value);
                    self.findings.error("bad-serial", &serial.span, message, None);
                }
                number
            }
            None => self.missing("recipient", &raw.span, "serial = 1"),
        };
        let next_root = match &raw.next_root {
            Some(digest) => {
                let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                let right = digest.value.len() == 64 && digest.value.bytes().all(hex);
                if !right {
                    let message = format!("{} is no SHA-256 in lower-case hex", quoted(&digest.value));
                    self.findings.error("bad-digest", &digest.span, message, None);
                }
                right.then(|| digest.value.clone())
            }
            None => self.missing("recipient", &raw.span, "next_root = \"<64 hex digits>\""),
        };
        Some(Recipient { id52: id52?, machine: machine?, serial: serial?, next_root: next_root? })
    }

    fn hosted(&mut self, raw: &RawCluster, own: Option<&MachineName>) -> BTreeMap<ServiceName, ServiceEntry> {
        let mut services = BTreeMap::new();
        for raw in &raw.services {
            let name = self.name::<ServiceName>("service", &raw.name);
            if let (Some(word), Some(own)) = (&raw.machine, own)
                && word.value != own.as_str()
            {
                let message = format!("[service.{}] is not on this machine", raw.name.value);
                self.findings.warning("not-mine", &word.span, message, None);
                continue;
            }
            if let (Some(name), Some(entry)) = (name, self.service(raw, own.cloned())) {
                services.insert(name, entry);
            }
        }
        services
    }

    fn directory(&mut self, extra: &RawExtra) -> Directory {
        let mut directory = Directory::default();
        for raw in &extra.machines {
            let section = format!("directory.machine.{}", raw.name.value);
            let name = self.name::<MachineName>("machine", &raw.name);
            let id52 = self.directory_id(raw.id52.as_ref(), &section, &raw.span);
            let addresses = raw.addresses.as_ref().map(|list| self.addresses(list)).unwrap_or_default();
            let may = raw.may.iter().flat_map(|list| &list.value);
            let may = may.filter_map(|word| self.access_kind(word)).collect();
            let mut services = BTreeMap::new();
            for (name, protocol) in &raw.services {
                let service = self.name::<ServiceName>("service", name);
                let protocol = self.protocol_kind(protocol.as_ref(), &section, &name.span);
                services.extend(service.zip(protocol));
            }
            if let (Some(name), Some(id52)) = (name, id52) {
                directory.machines.insert(name, DirectoryMachine { id52, addresses, may, services });
            }
        }
        for raw in &extra.services {
            let section = format!("directory.service.{}", raw.name.value);
            let name = self.name::<ServiceName>("service", &raw.name);
            let machine = match &raw.machine {
                Some(machine) => self.name::<MachineName>("machine", machine),
                None => self.missing(&section, &raw.span, "machine = \"web01\""),
            };
            let id52 = self.directory_id(raw.id52.as_ref(), &section, &raw.span);
            let addresses = raw.addresses.as_ref().map(|list| self.addresses(list)).unwrap_or_default();
            let protocol = self.protocol_kind(raw.protocol.as_ref(), &section, &raw.span);
            if let (Some(name), Some(machine), Some(id52), Some(protocol)) = (name, machine, id52, protocol) {
                directory.services.insert(name, DirectoryService { machine, id52, addresses, protocol });
            }
        }
        for (name, members) in &extra.groups {
            let Some(name) = self.name::<GroupName>("group", name) else { continue };
            let members = members.value.iter().filter_map(|word| self.name::<MachineName>("machine", word));
            directory.groups.insert(name, members.collect());
        }
        for (id, name) in &extra.callers {
            let id = self.id52(id);
            let name = self.name::<MachineName>("machine", name);
            directory.callers.extend(id.zip(name));
        }
        directory
    }

    fn directory_id(&mut self, raw: Option<&Spanned<String>>, section: &str, span: &Span) -> Option<Id52> {
        match raw {
            Some(id) => self.id52(id),
            None => self.missing(section, span, "id52 = \"<id52>\""),
        }
    }

    fn access_kind(&mut self, word: &Spanned<String>) -> Option<AccessKind> {
        match word.value.as_str() {
            "run" => Some(AccessKind::Run),
            "shell" => Some(AccessKind::Shell),
            "proxy" => Some(AccessKind::Proxy),
            _ => {
                self.unknown_word("kind of access", word, "run, shell or proxy");
                None
            }
        }
    }

    fn protocol_kind(
        &mut self,
        raw: Option<&Spanned<String>>,
        section: &str,
        span: &Span,
    ) -> Option<ProtocolKind> {
        let Some(word) = raw else { return self.missing(section, span, "protocol = \"http\"") };
        match word.value.as_str() {
            "http" => Some(ProtocolKind::Http),
            "tcp" => Some(ProtocolKind::Tcp),
            _ => {
                self.unknown_word("protocol", word, "http or tcp");
                None
            }
        }
    }
}
