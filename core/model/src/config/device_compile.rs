//! The passes of `malai.toml`: document → [`DeviceConfig`], section by section.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use toml_edit::{Item, Key, TableLike};

use super::device::{
    AuditPolicy, DaemonConfig, DeviceConfig, Discovery, HostConfig, HttpConfig, Limits, Network,
    NetworkConfig, ProxyConfig, Relays, TcpForward,
};
use super::document::{Findings, MAX_CONFIG_BYTES, Span, Spanned};
use super::reader::{Mode, RawText, Reader, entries, item_span, key_span, spanned_key};
use super::validate::{Validator, is_host, parse_network, quoted, split_host_port};
use crate::address::has_address_shape;
use crate::alias::{Aliases, is_reserved_alias};
use crate::duration::format_duration;
use crate::name::AliasName;

const SECTIONS: &[&str] = &["aliases", "tcp", "http", "daemon", "network", "host", "limits"];

pub(super) struct Compiler<'f, 'a> {
    pub(super) findings: &'f mut Findings<'a>,
}

impl<'a> Compiler<'_, 'a> {
    fn read(&mut self) -> Reader<'_, 'a> {
        Reader { findings: self.findings, mode: Mode::Master }
    }

    fn check(&mut self) -> Validator<'_, 'a> {
        Validator::new(self.findings, Mode::Master)
    }

    /// Compiles all sections. What it returns is meaningful only if no error was found.
    pub(super) fn device(&mut self, root: &dyn TableLike) -> DeviceConfig {
        let mut config = DeviceConfig::default();
        let mut ports: Vec<(u16, String, Span)> = Vec::new();
        for (key, item) in entries(root) {
            if !SECTIONS.contains(&key.get()) {
                self.read().unknown("", key, item, SECTIONS);
                continue;
            }
            let Some(table) = self.read().root_section(key, item) else { continue };
            match key.get() {
                "aliases" => config.aliases = self.aliases(table),
                "tcp" => config.tcp = self.tcp(table, &mut ports),
                "http" => config.http = self.http(table, &mut ports),
                "daemon" => config.daemon = self.daemon(table, &mut ports),
                "network" => config.network = self.network(table),
                "host" => config.host = self.host(table),
                _ => config.limits = self.limits(table),
            }
        }
        self.shared_ports(&ports);
        config
    }

    /// Two listeners cannot have one port of this device.
    fn shared_ports(&mut self, ports: &[(u16, String, Span)]) {
        let mut owners: BTreeMap<u16, &str> = BTreeMap::new();
        for (port, owner, span) in ports {
            if let Some(other) = owners.insert(*port, owner) {
                let message = format!("port {port} is wanted by {other} and by {owner}");
                self.findings.error("duplicate-port", span, message, Some("choose another port".to_owned()));
            }
        }
    }

    fn aliases(&mut self, table: &dyn TableLike) -> Aliases {
        let mut aliases = Vec::new();
        for (key, item) in entries(table) {
            let raw = spanned_key(key);
            if is_reserved_alias(&raw.value) {
                let message = format!("no alias may be called {:?}: it is a command of malai", raw.value);
                let hint = format!("call it my-{}", raw.value);
                self.findings.error("reserved-alias", &raw.span, message, Some(hint));
            }
            let name = self.check().name::<AliasName>("alias", &raw);
            let Some(text) = self.read().text(key, item) else { continue };
            let words = self.check().words(key.get(), &text);
            if let Some(first) = words.as_ref().and_then(|words| words.first())
                && !has_address_shape(first)
            {
                let message = format!("an alias begins with an address, and {} is none", quoted(first));
                let hint = format!("for example: {} = \"web01.company ps aux\"", key.get());
                self.findings.error("bad-alias", &item_span(key, item), message, Some(hint));
            }
            aliases.extend(name.zip(words));
        }
        Aliases::new(aliases)
    }

    fn tcp(
        &mut self,
        table: &dyn TableLike,
        ports: &mut Vec<(u16, String, Span)>,
    ) -> BTreeMap<AliasName, TcpForward> {
        let mut forwards = BTreeMap::new();
        for (key, item) in entries(table) {
            let raw = spanned_key(key);
            let name = self.check().name::<AliasName>("forward", &raw);
            let Some(table) = self.read().section("tcp", key, item) else { continue };
            let path = format!("tcp.{}", raw.value);
            let (mut local_port, mut remote) = (None, None);
            for (key, item) in entries(table) {
                match key.get() {
                    "local_port" => local_port = self.read().integer(key, item),
                    "remote" => remote = self.read().string(key, item),
                    _ => self.read().unknown(&path, key, item, &["local_port", "remote"]),
                }
            }
            let span = item_span(key, item);
            let port = match &local_port {
                Some(port) => self.check().port(port),
                None => self.check().missing(&path, &span, "local_port = 3306"),
            };
            if let (Some(port), Some(raw)) = (port, &local_port) {
                ports.push((port, format!("[{path}]"), raw.span.clone()));
            }
            let remote = match remote {
                Some(remote) => self.service(remote),
                None => self.check().missing(&path, &span, "remote = \"mysql.company\""),
            };
            if let (Some(name), Some(local_port), Some(remote)) = (name, port, remote) {
                forwards.insert(name, TcpForward { local_port, remote });
            }
        }
        forwards
    }

    /// `mysql.company`, `mysql.db01.company`, with `:port` or without. Which cluster it is, is asked when it is used.
    fn service(&mut self, raw: Spanned<String>) -> Option<String> {
        let (name, port) =
            raw.value.split_once(':').map_or((raw.value.as_str(), None), |(n, p)| (n, Some(p)));
        let port_is_right = port.is_none_or(|port| split_host_port(&format!("x:{port}")).is_some());
        if has_address_shape(name) && port_is_right {
            return Some(raw.value);
        }
        let message = format!("{} is no service", quoted(&raw.value));
        let hint = "write service.cluster or service.machine.cluster, such as mysql.company".to_owned();
        self.findings.error("bad-service", &raw.span, message, Some(hint));
        None
    }

    fn http(&mut self, table: &dyn TableLike, ports: &mut Vec<(u16, String, Span)>) -> HttpConfig {
        let mut http = HttpConfig::default();
        for (key, item) in entries(table) {
            match key.get() {
                "port" => http.port = self.port(key, item, "[http]", ports).unwrap_or(http.port),
                "routes" => {
                    let Some(table) = self.read().section("http", key, item) else { continue };
                    for (key, item) in entries(table) {
                        let name = self.check().name::<AliasName>("route", &spanned_key(key));
                        let remote = self.read().string(key, item).and_then(|remote| self.service(remote));
                        http.routes.extend(name.zip(remote));
                    }
                }
                older @ ("public_routes" | "inject_headers") => self.findings.warning(
                    "older-form",
                    &key_span(key),
                    format!("{older:?} means nothing here: the hosting side decides"),
                    Some(
                        "remove the line; write inject_headers in cluster.toml, in the service's section"
                            .to_owned(),
                    ),
                ),
                _ => self.read().unknown("http", key, item, &["port", "routes"]),
            }
        }
        http
    }

    fn port(
        &mut self,
        key: &Key,
        item: &Item,
        owner: &str,
        ports: &mut Vec<(u16, String, Span)>,
    ) -> Option<u16> {
        let raw = self.read().integer(key, item)?;
        let port = self.check().port(&raw)?;
        ports.push((port, owner.to_owned(), raw.span));
        Some(port)
    }

    fn daemon(&mut self, table: &dyn TableLike, ports: &mut Vec<(u16, String, Span)>) -> DaemonConfig {
        let mut daemon = DaemonConfig::default();
        for (key, item) in entries(table) {
            match key.get() {
                "drain" => {
                    let limits = Duration::ZERO..=Duration::from_secs(3600);
                    daemon.drain = self.duration(key, item, limits).unwrap_or(daemon.drain);
                }
                "proxy" => {
                    if let Some(table) = self.read().section("daemon", key, item) {
                        daemon.proxy = self.proxy(table, ports);
                    }
                }
                _ => self.read().unknown("daemon", key, item, &["drain", "proxy"]),
            }
        }
        daemon
    }

    fn proxy(&mut self, table: &dyn TableLike, ports: &mut Vec<(u16, String, Span)>) -> ProxyConfig {
        let mut proxy = ProxyConfig::default();
        let mut listen_span = Span::default();
        for (key, item) in entries(table) {
            match key.get() {
                "port" => proxy.port = self.port(key, item, "[daemon.proxy]", ports).unwrap_or(proxy.port),
                "listen" => {
                    let Some(raw) = self.read().string(key, item) else { continue };
                    listen_span = raw.span.clone();
                    let hint = "for example listen = \"127.0.0.1\"";
                    proxy.listen = self.parsed(&raw, "IP address", hint).unwrap_or(proxy.listen);
                }
                "allow_clients" => {
                    let Some(list) = self.read().list(key, item) else { continue };
                    proxy.allow_clients = list.value.iter().filter_map(|word| self.clients(word)).collect();
                }
                "upstream" => {
                    let Some(raw) = self.read().string(key, item) else { continue };
                    if !raw.value.is_empty() && !has_address_shape(&raw.value) {
                        let message = format!("{} is no address", quoted(&raw.value));
                        let hint = "write machine.cluster, or \"\" for none".to_owned();
                        self.findings.error("bad-address", &raw.span, message, Some(hint));
                    }
                    proxy.upstream = Some(raw.value).filter(|text| !text.is_empty());
                }
                _ => {
                    let known = ["port", "listen", "allow_clients", "upstream"];
                    self.read().unknown("daemon.proxy", key, item, &known);
                }
            }
        }
        if !proxy.listen.is_loopback() && proxy.allow_clients.is_empty() {
            self.findings.error(
                "missing",
                &listen_span,
                format!("a proxy on {} is open to others, and allow_clients names nobody", proxy.listen),
                Some("add: allow_clients = [\"192.168.1.0/24\"]".to_owned()),
            );
        }
        proxy
    }

    /// A network, or a single address.
    fn clients(&mut self, word: &Spanned<String>) -> Option<Network> {
        if let Ok(ip) = word.value.parse::<IpAddr>() {
            return Some(Network { base: ip, prefix: if ip.is_ipv4() { 32 } else { 128 } });
        }
        match parse_network(&word.value) {
            Ok((base, prefix)) => Some(Network { base, prefix }),
            Err(hint) => {
                let message = format!("{} is no address and no network", quoted(&word.value));
                self.findings.error("bad-network", &word.span, message, Some(hint));
                None
            }
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, raw: &Spanned<String>, kind: &str, hint: &str) -> Option<T> {
        let value = raw.value.parse().ok();
        if value.is_none() {
            let message = format!("{} is no {kind}", quoted(&raw.value));
            self.findings.error("bad-address", &raw.span, message, Some(hint.to_owned()));
        }
        value
    }

    fn network(&mut self, table: &dyn TableLike) -> NetworkConfig {
        let mut network = NetworkConfig::default();
        for (key, item) in entries(table) {
            match key.get() {
                "bind" => {
                    let Some(raw) = self.read().string(key, item) else { continue };
                    let hint = "for example 0.0.0.0:0 or [::]:4242";
                    let bind = self.parsed::<SocketAddr>(&raw, "socket address", hint);
                    network.bind = bind.unwrap_or(network.bind);
                }
                "relays" => {
                    let Some(text) = self.read().text(key, item) else { continue };
                    network.relays = self.relays(text).unwrap_or(Relays::Default);
                }
                "discovery" => {
                    let Some(list) = self.read().list(key, item) else { continue };
                    let ways = list.value.iter().filter_map(|word| self.discovery(word));
                    network.discovery = ways.collect::<BTreeSet<_>>();
                }
                _ => self.read().unknown("network", key, item, &["bind", "relays", "discovery"]),
            }
        }
        network
    }

    fn relays(&mut self, text: RawText) -> Option<Relays> {
        let list = match text {
            RawText::One(word) => match word.value.as_str() {
                "default" => return Some(Relays::Default),
                "none" => return Some(Relays::None),
                _ => {
                    let hint = "\"default\", \"none\", or a list: [\"https://relay.example.com\"]";
                    self.check().unknown_word("choice of relays", &word, hint);
                    return None;
                }
            },
            RawText::Many(list) => list.value,
        };
        for url in &list {
            let rest = ["https://", "http://"].iter().find_map(|scheme| url.value.strip_prefix(scheme));
            let host = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
            if !host.is_some_and(|host| is_host(host) || split_host_port(host).is_some()) {
                let message = format!("{} is no URL of a relay", quoted(&url.value));
                let hint = "for example https://relay.example.com".to_owned();
                self.findings.error("bad-url", &url.span, message, Some(hint));
            }
        }
        if list.is_empty() {
            return Some(Relays::None);
        }
        Some(Relays::Custom(list.into_iter().map(|url| url.value).collect()))
    }

    fn discovery(&mut self, word: &Spanned<String>) -> Option<Discovery> {
        match word.value.as_str() {
            "local" => Some(Discovery::Local),
            "mdns" => Some(Discovery::Mdns),
            "dns" => Some(Discovery::Dns),
            _ => {
                self.check().unknown_word("way to find peers", word, "any of local, mdns, dns");
                None
            }
        }
    }

    fn host(&mut self, table: &dyn TableLike) -> HostConfig {
        let mut host = HostConfig::default();
        for (key, item) in entries(table) {
            match key.get() {
                "users" => {
                    let Some(list) = self.read().list(key, item) else { continue };
                    host.users = Some(list.value.iter().filter_map(|user| self.check().user(user)).collect());
                }
                "shell" => host.shell = self.read().boolean(key, item).is_some_and(|flag| flag.value),
                "services" => host.services = self.read().boolean(key, item).is_some_and(|flag| flag.value),
                "audit" => {
                    let Some(word) = self.read().string(key, item) else { continue };
                    match word.value.as_str() {
                        "required" => host.audit = AuditPolicy::Required,
                        "best-effort" => host.audit = AuditPolicy::BestEffort,
                        _ => self.check().unknown_word("audit policy", &word, "required or best-effort"),
                    }
                }
                _ => self.read().unknown("host", key, item, &["users", "shell", "services", "audit"]),
            }
        }
        host
    }

    fn limits(&mut self, table: &dyn TableLike) -> Limits {
        let mut limits = Limits::default();
        let seconds = |this: &mut Self, key, item, most| {
            this.duration(key, item, Duration::from_millis(100)..=Duration::from_secs(most))
        };
        for (key, item) in entries(table) {
            match key.get() {
                "sessions_per_peer" => {
                    let count = self.number(key, item, 1..=1_000_000);
                    limits.sessions_per_peer = count.unwrap_or(limits.sessions_per_peer);
                }
                "sessions" => {
                    limits.sessions = self.number(key, item, 1..=1_000_000).unwrap_or(limits.sessions);
                }
                "config_bytes" => {
                    let most = i64::try_from(MAX_CONFIG_BYTES).unwrap_or(i64::MAX);
                    let bytes = self.number(key, item, 1024..=most);
                    limits.config_bytes = bytes.unwrap_or(limits.config_bytes);
                }
                "header_bytes" => {
                    let bytes = self.number(key, item, 1024..=1024 * 1024);
                    limits.header_bytes = bytes.unwrap_or(limits.header_bytes);
                }
                "handshake" => {
                    limits.handshake = seconds(self, key, item, 300).unwrap_or(limits.handshake);
                }
                "idle_session" if item.as_str() == Some("off") => limits.idle_session = None,
                "idle_session" => limits.idle_session = seconds(self, key, item, 365 * 86_400),
                "resume" => {
                    let most = Duration::from_secs(86_400);
                    limits.resume = self.duration(key, item, Duration::ZERO..=most).unwrap_or(limits.resume);
                }
                _ => {
                    let known = [
                        "sessions_per_peer",
                        "sessions",
                        "config_bytes",
                        "header_bytes",
                        "handshake",
                        "idle_session",
                        "resume",
                    ];
                    self.read().unknown("limits", key, item, &known);
                }
            }
        }
        limits
    }

    fn number<T: TryFrom<i64>>(&mut self, key: &Key, item: &Item, range: RangeInclusive<i64>) -> Option<T> {
        let raw = self.read().integer(key, item)?;
        if range.contains(&raw.value) {
            return T::try_from(raw.value).ok();
        }
        let message = format!("{} = {} is out of range", key.get(), raw.value);
        let hint = format!("{} to {}", range.start(), range.end());
        self.findings.error("out-of-range", &raw.span, message, Some(hint));
        None
    }

    fn duration(&mut self, key: &Key, item: &Item, range: RangeInclusive<Duration>) -> Option<Duration> {
        let raw = self.read().string(key, item)?;
        let duration = self.check().duration(&raw)?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let message = format!("{} = {:?} is out of range", key.get(), raw.value);
        let hint = format!("{} to {}", format_duration(*range.start()), format_duration(*range.end()));
        self.findings.error("out-of-range", &raw.span, message, Some(hint));
        None
    }
}
