//! The second pass: document → `RawCluster`, typed by shape but not yet checked. Nothing is looked up here.

use toml_edit::{Item, Key, TableLike};

use super::document::{Span, Spanned};
use super::reader::{Mode, RawList, RawText, Reader, entries, item_span, key_span, spanned_key};

/// Both kinds of cluster file; the parts that only a personalised one has are read in `machine`.
#[derive(Debug, Default)]
pub(crate) struct RawCluster {
    pub(crate) manager: Option<RawManager>,
    pub(crate) machines: Vec<RawMachine>,
    pub(crate) services: Vec<RawService>,
    pub(crate) groups: Vec<RawGroup>,
    pub(crate) tests: Vec<RawTest>,
}

#[derive(Debug)]
pub(crate) struct RawManager {
    pub(crate) span: Span,
    pub(crate) id52: Option<Spanned<String>>,
    pub(crate) cluster_name: Option<Spanned<String>>,
    pub(crate) config_editors: Option<RawList>,
    pub(crate) denied: bool,
}

/// `denied`: the table holds a key that this version does not know, in a manager's file.
#[derive(Debug)]
pub(crate) struct RawMachine {
    pub(crate) name: Spanned<String>,
    pub(crate) span: Span,
    pub(crate) id52: Option<Spanned<String>>,
    pub(crate) addresses: Option<RawList>,
    pub(crate) allow_from: Option<RawList>,
    pub(crate) allow_shell: Option<RawList>,
    pub(crate) allow_proxy: Option<RawList>,
    pub(crate) proxy_to: Option<RawList>,
    pub(crate) username: Option<Spanned<String>>,
    pub(crate) accept_ssh: Option<Spanned<bool>>,
    pub(crate) commands: Vec<RawCommand>,
    pub(crate) services: Vec<RawService>,
    pub(crate) denied: bool,
}

#[derive(Debug)]
pub(crate) struct RawCommand {
    pub(crate) name: Spanned<String>,
    pub(crate) allow_from: Option<RawList>,
    pub(crate) command: Option<RawText>,
    pub(crate) args: Option<RawText>,
    pub(crate) username: Option<Spanned<String>>,
    pub(crate) denied: bool,
}

/// Where a service is written, which says what its protocol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceForm {
    /// `[service.X]`: it says `machine` and `protocol` itself.
    ClusterWide,
    /// `[machine.M.tcp.X]`.
    Tcp,
    /// `[machine.M.http.X]`.
    Http,
    /// `[machine.M.service.X]`: says `protocol`, http if it does not.
    Older,
}

#[derive(Debug)]
pub(crate) struct RawService {
    pub(crate) form: ServiceForm,
    pub(crate) name: Spanned<String>,
    pub(crate) span: Span,
    pub(crate) machine: Option<Spanned<String>>,
    pub(crate) protocol: Option<Spanned<String>>,
    pub(crate) port: Option<Spanned<i64>>,
    pub(crate) host: Option<Spanned<String>>,
    pub(crate) allow_from: Option<RawList>,
    pub(crate) inject_headers: Option<Spanned<bool>>,
    pub(crate) secure: Option<Spanned<bool>>,
    pub(crate) command: Option<RawText>,
    pub(crate) username: Option<Spanned<String>>,
    pub(crate) startup_time: Option<Spanned<String>>,
    pub(crate) idle_timeout: Option<Spanned<String>>,
    pub(crate) health_check: Option<RawText>,
    pub(crate) restart_policy: Option<Spanned<String>>,
    pub(crate) denied: bool,
}

#[derive(Debug)]
pub(crate) struct RawGroup {
    pub(crate) name: Spanned<String>,
    pub(crate) span: Span,
    pub(crate) members: Option<RawList>,
}

#[derive(Debug)]
pub(crate) struct RawTest {
    pub(crate) name: Spanned<String>,
    pub(crate) span: Span,
    pub(crate) from: Option<Spanned<String>>,
    pub(crate) allow: Vec<Spanned<String>>,
    pub(crate) deny: Vec<Spanned<String>>,
}

const SECTIONS: &[&str] = &["cluster-manager", "machine", "service", "group", "test"];
const MANAGER: &[&str] = &["id52", "cluster_name", "config_editors"];
const MACHINE: &[&str] = &[
    "id52",
    "addresses",
    "allow_from",
    "allow_shell",
    "allow_proxy",
    "proxy_to",
    "username",
    "command",
    "tcp",
    "http",
];
const COMMAND: &[&str] = &["allow_from", "command", "args", "username"];
const SERVICE: &[&str] = &[
    "machine",
    "protocol",
    "port",
    "host",
    "allow_from",
    "inject_headers",
    "secure",
    "command",
    "username",
    "startup_time",
    "idle_timeout",
    "health_check",
    "restart_policy",
];
const GROUP: &[&str] = &["members"];
const TEST: &[&str] = &["from", "allow", "deny"];

/// Reads the sections that both kinds of cluster file have. `other` gets the top-level keys that are none of these and
/// says whether it knew them.
pub(crate) fn read_cluster(
    reader: &mut Reader<'_, '_>,
    root: &dyn TableLike,
    mut other: impl FnMut(&mut Reader<'_, '_>, &Key, &Item) -> bool,
) -> RawCluster {
    let mut raw = RawCluster::default();
    for (key, item) in entries(root) {
        match key.get() {
            name @ ("cluster-manager" | "cluster_manager") => {
                let Some(table) = reader.root_section(key, item) else { continue };
                let span = item_span(key, item);
                if name == "cluster_manager" {
                    reader.older(&span, "[cluster_manager]", "[cluster-manager]");
                }
                if raw.manager.is_some() {
                    reader.findings.error(
                        "duplicate",
                        &span,
                        "the manager is described twice".to_owned(),
                        Some("keep [cluster-manager] alone".to_owned()),
                    );
                    continue;
                }
                raw.manager = Some(read_manager(reader, table, span));
            }
            kind @ ("machine" | "server" | "device") => {
                let Some(table) = reader.root_section(key, item) else { continue };
                for (key, item) in entries(table) {
                    let Some(table) = reader.section(kind, key, item) else { continue };
                    if kind != "machine" {
                        let name = key.get();
                        reader.older(
                            &item_span(key, item),
                            &format!("[{kind}.{name}]"),
                            &format!("[machine.{name}]"),
                        );
                    }
                    raw.machines.push(read_machine(reader, kind, key, item, table));
                }
            }
            "service" => {
                let Some(table) = reader.root_section(key, item) else { continue };
                for (key, item) in entries(table) {
                    if let Some(table) = reader.section("service", key, item) {
                        let form = ServiceForm::ClusterWide;
                        raw.services.push(read_service(reader, form, "service", key, item, table));
                    }
                }
            }
            "group" => {
                let Some(table) = reader.root_section(key, item) else { continue };
                for (key, item) in entries(table) {
                    if let Some(table) = reader.section("group", key, item) {
                        raw.groups.push(read_group(reader, key, item, table));
                    }
                }
            }
            "test" => {
                let Some(table) = reader.root_section(key, item) else { continue };
                for (key, item) in entries(table) {
                    if let Some(table) = reader.section("test", key, item) {
                        raw.tests.push(read_test(reader, key, item, table));
                    }
                }
            }
            _ if other(reader, key, item) => {}
            _ => {
                // A section of its own belongs to no rule that this version knows: there is nothing to deny.
                reader.unknown("", key, item, SECTIONS);
            }
        }
    }
    raw
}

fn read_manager(reader: &mut Reader<'_, '_>, table: &dyn TableLike, span: Span) -> RawManager {
    let mut raw = RawManager { span, id52: None, cluster_name: None, config_editors: None, denied: false };
    for (key, item) in entries(table) {
        match key.get() {
            "id52" => raw.id52 = reader.string(key, item),
            "cluster_name" => raw.cluster_name = reader.string(key, item),
            "config_editors" => raw.config_editors = reader.list(key, item),
            _ => {
                reader.unknown("cluster-manager", key, item, MANAGER);
                raw.denied = true;
            }
        }
    }
    raw
}

fn read_machine(
    reader: &mut Reader<'_, '_>,
    kind: &str,
    key: &Key,
    item: &Item,
    table: &dyn TableLike,
) -> RawMachine {
    let path = format!("{kind}.{}", key.get());
    let mut raw = RawMachine {
        name: spanned_key(key),
        span: item_span(key, item),
        id52: None,
        addresses: None,
        allow_from: None,
        allow_shell: None,
        allow_proxy: None,
        proxy_to: None,
        username: None,
        accept_ssh: None,
        commands: Vec::new(),
        services: Vec::new(),
        denied: false,
    };
    for (key, item) in entries(table) {
        match key.get() {
            "id52" => raw.id52 = reader.string(key, item),
            "addresses" => raw.addresses = reader.list(key, item),
            "allow_from" => raw.allow_from = reader.list(key, item),
            "allow_shell" => raw.allow_shell = reader.list(key, item),
            "allow_proxy" => raw.allow_proxy = reader.list(key, item),
            "proxy_to" => raw.proxy_to = reader.list(key, item),
            "username" => raw.username = reader.string(key, item),
            "accept_ssh" => {
                raw.accept_ssh = reader.boolean(key, item);
                match raw.accept_ssh {
                    Some(Spanned { value: true, .. }) => {
                        reader.older(
                            &key_span(key),
                            "accept_ssh = true",
                            "nothing: allow_from says who may come in",
                        );
                    }
                    _ => reader.older(
                        &key_span(key),
                        "accept_ssh = false (nobody may run commands here)",
                        "no allow_from at all",
                    ),
                }
            }
            "command" => {
                let path = format!("{path}.command");
                let Some(table) = reader.section(&path, key, item) else { continue };
                for (key, item) in entries(table) {
                    if let Some(table) = reader.section(&path, key, item) {
                        raw.commands.push(read_command(reader, &path, key, table));
                    }
                }
            }
            word @ ("tcp" | "http" | "service") => {
                let form = match word {
                    "tcp" => ServiceForm::Tcp,
                    "http" => ServiceForm::Http,
                    _ => ServiceForm::Older,
                };
                let path = format!("{path}.{word}");
                let Some(table) = reader.section(&path, key, item) else { continue };
                for (key, item) in entries(table) {
                    let Some(table) = reader.section(&path, key, item) else { continue };
                    let service = read_service(reader, form, &path, key, item, table);
                    if form == ServiceForm::Older {
                        let protocol = match &service.protocol {
                            Some(protocol) if protocol.value == "tcp" => "tcp",
                            _ => "http",
                        };
                        let (old, name) = (&path, key.get());
                        let new = format!("[machine.{}.{protocol}.{name}]", raw.name.value);
                        reader.older(&service.span, &format!("[{old}.{name}]"), &new);
                    }
                    raw.services.push(service);
                }
            }
            _ => {
                reader.unknown(&path, key, item, MACHINE);
                raw.denied = true;
            }
        }
    }
    raw
}

fn read_command(reader: &mut Reader<'_, '_>, path: &str, key: &Key, table: &dyn TableLike) -> RawCommand {
    let mut raw = RawCommand {
        name: spanned_key(key),
        allow_from: None,
        command: None,
        args: None,
        username: None,
        denied: false,
    };
    for (key, item) in entries(table) {
        match key.get() {
            "allow_from" => raw.allow_from = reader.list(key, item),
            "command" => raw.command = reader.text(key, item),
            "args" => raw.args = reader.text(key, item),
            "username" => raw.username = reader.string(key, item),
            _ => {
                reader.unknown(&format!("{path}.{}", raw.name.value), key, item, COMMAND);
                raw.denied = true;
            }
        }
    }
    raw
}

fn read_service(
    reader: &mut Reader<'_, '_>,
    form: ServiceForm,
    path: &str,
    key: &Key,
    item: &Item,
    table: &dyn TableLike,
) -> RawService {
    let mut raw = RawService {
        form,
        name: spanned_key(key),
        span: item_span(key, item),
        machine: None,
        protocol: None,
        port: None,
        host: None,
        allow_from: None,
        inject_headers: None,
        secure: None,
        command: None,
        username: None,
        startup_time: None,
        idle_timeout: None,
        health_check: None,
        restart_policy: None,
        denied: false,
    };
    for (key, item) in entries(table) {
        match key.get() {
            "machine" if form == ServiceForm::ClusterWide => raw.machine = reader.string(key, item),
            "protocol" if matches!(form, ServiceForm::ClusterWide | ServiceForm::Older) => {
                raw.protocol = reader.string(key, item);
            }
            word @ ("machine" | "protocol") if reader.mode == Mode::Master => reader.findings.error(
                "unknown-key",
                &key_span(key),
                format!("the section's name says the {word} already"),
                Some("remove the line".to_owned()),
            ),
            "port" => raw.port = reader.integer(key, item),
            "host" => raw.host = reader.string(key, item),
            "allow_from" => raw.allow_from = reader.list(key, item),
            "inject_headers" => raw.inject_headers = reader.boolean(key, item),
            "secure" => raw.secure = reader.boolean(key, item),
            "command" => raw.command = reader.text(key, item),
            "username" => raw.username = reader.string(key, item),
            "startup_time" => raw.startup_time = reader.string(key, item),
            "idle_timeout" => raw.idle_timeout = reader.string(key, item),
            "health_check" => raw.health_check = reader.text(key, item),
            "restart_policy" => raw.restart_policy = reader.string(key, item),
            _ => {
                reader.unknown(&format!("{path}.{}", raw.name.value), key, item, SERVICE);
                raw.denied = true;
            }
        }
    }
    raw
}

fn read_group(reader: &mut Reader<'_, '_>, key: &Key, item: &Item, table: &dyn TableLike) -> RawGroup {
    let mut raw = RawGroup { name: spanned_key(key), span: item_span(key, item), members: None };
    let mut denied = false;
    for (key, item) in entries(table) {
        match key.get() {
            "members" => raw.members = reader.list(key, item),
            _ => {
                reader.unknown(&format!("group.{}", raw.name.value), key, item, GROUP);
                denied = true;
            }
        }
    }
    if let (true, Some(members)) = (denied && reader.mode == Mode::Personalised, &mut raw.members) {
        members.value.clear();
    }
    raw
}

fn read_test(reader: &mut Reader<'_, '_>, key: &Key, item: &Item, table: &dyn TableLike) -> RawTest {
    let mut raw = RawTest {
        name: spanned_key(key),
        span: item_span(key, item),
        from: None,
        allow: Vec::new(),
        deny: Vec::new(),
    };
    // A line of a test may hold commas, so a string is one line, never a list.
    let lines = |reader: &mut Reader<'_, '_>, key, item| match reader.text(key, item) {
        Some(RawText::One(line)) => vec![line],
        Some(RawText::Many(lines)) => lines.value,
        None => Vec::new(),
    };
    for (key, item) in entries(table) {
        match key.get() {
            "from" => raw.from = reader.string(key, item),
            "allow" => raw.allow = lines(reader, key, item),
            "deny" => raw.deny = lines(reader, key, item),
            _ => {
                reader.unknown(&format!("test.{}", raw.name.value), key, item, TEST);
            }
        }
    }
    raw
}
