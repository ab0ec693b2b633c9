//! `DeviceConfig`: all of `malai.toml`, what this one device wants for itself, whatever its clusters say.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cluster::UserName;
use super::device_compile::Compiler;
use super::document::{self, Findings, MAX_CONFIG_BYTES, Source};
use super::problem::Compiled;
use crate::alias::Aliases;
use crate::name::AliasName;

/// `malai.toml`, with defaults for what is not written. An empty file is a valid one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceConfig {
    /// `[aliases]`.
    pub aliases: Aliases,
    /// `[tcp]`: local ports that lead to services elsewhere.
    pub tcp: BTreeMap<AliasName, TcpForward>,
    /// `[http]`.
    pub http: HttpConfig,
    /// `[daemon]`.
    pub daemon: DaemonConfig,
    /// `[network]`.
    pub network: NetworkConfig,
    /// `[host]`: what no cluster's config may allow on this device.
    pub host: HostConfig,
    /// `[limits]`.
    pub limits: Limits,
}

/// One line of `[tcp]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpForward {
    /// The port on loopback, 1 to 65535.
    pub local_port: u16,
    /// The service as it is written, for [`crate::address::resolve_service`].
    pub remote: String,
}

/// `[http]`: the one listener that routes browsers to services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Its port on loopback; 8080 unless written.
    pub port: u16,
    /// Short names: `admin` is `http://admin.localhost`. Values as they are written.
    pub routes: BTreeMap<AliasName, String>,
}

/// `[daemon]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonConfig {
    /// How long running requests may take to end at shutdown; 30 s unless written.
    pub drain: Duration,
    /// `[daemon.proxy]`.
    pub proxy: ProxyConfig,
}

/// `[daemon.proxy]`: the HTTP proxy for outbound traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Its port; 8081 unless written.
    pub port: u16,
    /// Where it listens; 127.0.0.1 unless written.
    pub listen: IpAddr,
    /// Networks whose clients may use it; never empty when `listen` is not loopback.
    pub allow_clients: Vec<Network>,
    /// The machine whose exit is used, as it is written; absent: directly.
    pub upstream: Option<String>,
}

/// An IP network: its base address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// The base: bits behind the prefix are zero.
    pub base: IpAddr,
    /// The length of the prefix in bits.
    pub prefix: u8,
}

/// `[network]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Where UDP is bound; `0.0.0.0:0` unless written.
    pub bind: SocketAddr,
    /// Which relays may carry traffic.
    pub relays: Relays,
    /// How peers may be found.
    pub discovery: BTreeSet<Discovery>,
}

/// Which relays are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relays {
    /// The public ones.
    Default,
    /// None: direct paths only.
    None,
    /// These URLs.
    Custom(Vec<String>),
}

/// A way to find a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discovery {
    /// Processes of the same user on this device.
    Local,
    /// Multicast DNS in the local network.
    Mdns,
    /// DNS and pkarr.
    Dns,
}

/// `[host]`: local ceilings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// The only users that commands may run as; absent: any.
    pub users: Option<Vec<UserName>>,
    /// Whether shells may be opened here at all.
    pub shell: bool,
    /// Whether services may be reached here at all.
    pub services: bool,
    /// What happens when the audit log cannot be written.
    pub audit: AuditPolicy,
}

/// What happens when the audit log cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditPolicy {
    /// A warning; commands run on.
    BestEffort,
    /// Commands are refused.
    Required,
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent sessions of one peer.
    pub sessions_per_peer: u32,
    /// Concurrent sessions in all.
    pub sessions: u32,
    /// The largest config that is read, in bytes.
    pub config_bytes: usize,
    /// The largest request header, in bytes.
    pub header_bytes: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long a session may be idle; absent: for ever. It never ends a shell.
    pub idle_session: Option<Duration>,
    /// How long a lost connection may be resumed.
    pub resume: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { port: 8080, routes: BTreeMap::new() }
    }
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self { drain: Duration::from_secs(30), proxy: ProxyConfig::default() }
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            port: 8081,
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            allow_clients: Vec::new(),
            upstream: None,
        }
    }
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            relays: Relays::Default,
            discovery: BTreeSet::from([Discovery::Local, Discovery::Mdns, Discovery::Dns]),
        }
    }
}

impl Default for HostConfig {
    fn default() -> Self {
        Self { users: None, shell: true, services: true, audit: AuditPolicy::BestEffort }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_per_peer: 256,
            sessions: 4096,
            config_bytes: MAX_CONFIG_BYTES,
            header_bytes: 64 * 1024,
            handshake: Duration::from_secs(10),
            idle_session: Some(Duration::from_secs(24 * 3600)),
            resume: Duration::from_secs(120),
        }
    }
}

impl Network {
    /// Says whether an address is in the network. An IPv4 address mapped into IPv6 is the IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.base.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(self.prefix.into())).unwrap_or(0);
                u32::from(base) & mask == u32::from(ip) & mask
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(self.prefix.into())).unwrap_or(0);
                u128::from(base) & mask == u128::from(ip) & mask
            }
            _ => false,
        }
    }
}

/// Compiles a device's `malai.toml`. Absent keys have their defaults; an absent file is an empty text.
pub fn compile_device(file: &str, text: &str) -> Compiled<DeviceConfig> {
    let source = Source::new(file, text);
    let mut findings = Findings::new(&source);
    let Some(document) = document::parse(&mut findings) else {
        return Compiled::new(None, findings.into_list());
    };
    let config = Compiler { findings: &mut findings }.device(document.as_table());
    Compiled::new(Some(config), findings.into_list())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_what_shares_its_prefix() {
        let net = |base: &str, prefix| Network { base: base.parse().expect("an address"), prefix };
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(net("10.0.0.0", 8).contains(ip("10.255.0.1")));
        assert!(!net("10.0.0.0", 8).contains(ip("11.0.0.1")));
        assert!(net("0.0.0.0", 0).contains(ip("8.8.8.8")));
        assert!(net("10.0.0.1", 32).contains(ip("::ffff:10.0.0.1")));
        assert!(!net("10.0.0.0", 8).contains(ip("fd00::1")));
        assert!(net("fd00::", 8).contains(ip("fdff::1")));
    }

    #[test]
    fn an_empty_file_has_the_defaults() {
        let (config, warnings) = compile_device("malai.toml", "").into_result().expect("it is valid");
        assert_eq!(config, DeviceConfig::default());
        assert_eq!(warnings, []);
        assert_eq!(config.limits.config_bytes, 4 * 1024 * 1024);
    }
}
