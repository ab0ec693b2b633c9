//! An endpoint: one identity on the network, calling and answering.

mod accept;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iroh::EndpointAddr;
use iroh::endpoint::presets;
use malai_model::id::Id52;
use tokio::sync::mpsc;

use self::accept::Acceptor;
use super::connection::{Connection, Counters, Link, describe};
use super::discovery::{Candidates, Rendezvous, Ticket};
use super::error::P2pError;
use super::hooks::Gate;
#[cfg(any(test, feature = "testing"))]
use super::memory;
use super::options::{Discovery, EndpointOptions, NetworkOptions, Protocol, Relays, Serve, Transport};
use crate::task::Scope;
use crate::timeouts;

/// Streams that a peer may have open at once as far as the transport goes; what serves them has a limit of
/// its own below this, so that a peer over it gets an answer instead of silence.
const MAX_STREAMS: u32 = 4_400;
/// Unread bytes that a peer can make this side hold in all streams that nobody has accepted yet.
const RECEIVE_WINDOW: u32 = 32 * 1024 * 1024;
/// Unread bytes that a stranger at an invite can make this side hold: a join is one small message.
const INVITE_WINDOW: u32 = 64 * 1024;
/// Connections that are established and not accepted yet.
const ACCEPT_BACKLOG: usize = 64;

/// One identity on the network.
#[derive(Debug)]
pub struct Endpoint {
    id: Id52,
    network: NetworkOptions,
    kind: Kind,
    /// Whether it answers callers.
    serves: bool,
    /// Whether it was told to close: then its drop is silent.
    closing: AtomicBool,
    /// Whether nothing is left to be said to anybody.
    hurried: AtomicBool,
    rendezvous: Option<Rendezvous>,
    ticket: Mutex<Option<Ticket>>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Connection>>,
    counters: Arc<Counters>,
    scope: Scope,
}

#[derive(Debug)]
enum Kind {
    Quic(iroh::Endpoint),
    /// While it is being dropped.
    Dropped,
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::Node),
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let kind = std::mem::replace(&mut self.kind, Kind::Dropped);
        if self.closing.load(Ordering::Relaxed) {
            // iroh takes an endpoint that did not wait for its peers' last word for one that nobody closed, which is an
            // error to it.
            let silent = tracing::subscriber::NoSubscriber::default();
            tracing::subscriber::with_default(silent, || drop(kind));
        }
    }
}

impl Endpoint {
    /// Binds an endpoint. Its tasks belong to the scope; when that stops, it accepts nothing more.
    ///
    /// # Errors
    /// [`P2pError::Bind`] if the address cannot be had.
    pub async fn bind(
        options: EndpointOptions,
        transport: Transport,
        scope: &Scope,
    ) -> Result<Self, P2pError> {
        let EndpointOptions { secret, network, serve, preferred_port } = options;
        let id = secret.id52();
        let scope = scope.child();
        let counters = Arc::new(Counters::default());
        let (accepted, incoming) = mpsc::channel(ACCEPT_BACKLOG);
        let rendezvous = match (&network.runtime_dir, network.discovery.local) {
            (Some(dir), true) => usable(Rendezvous::open(dir)),
            _ => None,
        };
        let serves = serve.is_some();
        let kind = match transport {
            Transport::Quic => {
                let quic = bind_quic(&secret, &network, serve, preferred_port, &counters).await?;
                if serves {
                    let acceptor = Acceptor::new(quic.clone(), accepted, scope.clone(), counters.clone());
                    scope.spawn_until_stop("accept", acceptor.run());
                }
                Kind::Quic(quic)
            }
            #[cfg(any(test, feature = "testing"))]
            Transport::Memory(memory) => {
                Kind::Memory(memory.join(id, serve, accepted, &scope, counters.clone()))
            }
        };
        let endpoint = Self {
            id,
            network,
            kind,
            serves,
            closing: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            rendezvous,
            ticket: Mutex::new(None),
            incoming: tokio::sync::Mutex::new(incoming),
            counters,
            scope,
        };
        if let (Some(rendezvous), true, Kind::Quic(_)) = (&endpoint.rendezvous, serves, &endpoint.kind) {
            let ticket = usable(rendezvous.publish(&id, &endpoint.addresses()));
            *endpoint.ticket.lock().unwrap_or_else(PoisonError::into_inner) = ticket;
        }
        Ok(endpoint)
    }

    /// Returns the endpoint's identity.
    pub fn id52(&self) -> Id52 {
        self.id
    }

    /// Returns the addresses that peers may try: the one that it is bound to, or those of all interfaces.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match &self.kind {
            Kind::Quic(quic) => {
                let mut addresses: Vec<SocketAddr> = Vec::new();
                for bound in quic.bound_sockets() {
                    if bound.ip().is_unspecified() {
                        let loopback = if bound.is_ipv4() {
                            IpAddr::V4(Ipv4Addr::LOCALHOST)
                        } else {
                            IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)
                        };
                        addresses.extend(
                            quic.addr()
                                .ip_addrs()
                                .copied()
                                .filter(|known| known.is_ipv4() == bound.is_ipv4()),
                        );
                        addresses.push(SocketAddr::new(loopback, bound.port()));
                    } else {
                        addresses.push(bound);
                    }
                }
                addresses
            }
            Kind::Dropped => Vec::new(),
            #[cfg(any(test, feature = "testing"))]
            Kind::Memory(_) => Vec::new(),
        }
    }

    /// Returns how often peers broke the rules.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connects to a peer, trying all that is known of it at once. Hints are `ip:port`, `host:port` or a
    /// relay's URL.
    ///
    /// A peer that does not admit this identity lets the call succeed; everything on the connection then
    /// fails with [`P2pError::NotAdmitted`]. So an admitted caller does not wait a round trip to learn it.
    ///
    /// # Errors
    /// [`P2pError::Unreachable`] with what was tried when the deadline is over or nothing is known of the
    /// peer, [`P2pError::Incompatible`], [`P2pError::SelfConnect`].
    ///
    /// # Cancel safety
    /// A cancelled call leaves nothing behind.
    pub async fn connect(
        &self,
        peer: Id52,
        protocol: Protocol,
        hints: &[String],
        deadline: Duration,
    ) -> Result<Connection, P2pError> {
        if peer == self.id {
            return Err(P2pError::SelfConnect(peer));
        }
        match &self.kind {
            Kind::Quic(quic) => self.connect_quic(quic, peer, protocol, hints, deadline).await,
            Kind::Dropped => Err(P2pError::Closed),
            #[cfg(any(test, feature = "testing"))]
            Kind::Memory(node) => node.connect(peer, protocol, deadline).await,
        }
    }

    async fn connect_quic(
        &self,
        quic: &iroh::Endpoint,
        peer: Id52,
        protocol: Protocol,
        hints: &[String],
        deadline: Duration,
    ) -> Result<Connection, P2pError> {
        let begun = tokio::time::Instant::now();
        let mut found = Candidates::collect(&peer, hints, self.rendezvous.as_ref(), deadline).await;
        // Whoever brings relays of their own has them on both sides, and perhaps no DNS that would say so.
        match &self.network.relays {
            Relays::Custom(urls) => found.add_relays(urls),
            Relays::InUse => found.tried.push(IN_USE.to_owned()),
            Relays::None | Relays::Default => {}
        }
        let Discovery { mdns, dns, .. } = self.network.discovery;
        found.tried.extend(
            [(mdns, "the local network (mDNS)"), (dns, "DNS")]
                .iter()
                .filter(|(on, _)| *on)
                .map(|(_, name)| (*name).to_owned()),
        );
        let unreachable = |tried: Vec<String>| P2pError::Unreachable { peer, tried, after: begun.elapsed() };
        if found.addresses.is_empty() && found.relays.is_empty() && !mdns && !dns {
            return Err(unreachable(found.tried));
        }
        let Ok(id) = iroh::PublicKey::from_bytes(peer.as_bytes()) else {
            return Err(unreachable(vec!["its id52 is no key".to_owned()]));
        };
        let mut target = EndpointAddr::new(id);
        target = found.addresses.iter().fold(target, |target, address| target.with_ip_addr(*address));
        target = found.relays.iter().fold(target, |target, url| target.with_relay_url(url.clone()));
        let left = deadline.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, quic.connect(target, protocol.alpn())).await {
            Ok(Ok(connection)) => {
                let (scope, counters) = (self.scope.clone(), self.counters.clone());
                let connection = Connection::new(Link::Quic(connection), peer, protocol, scope, counters);
                Ok(connection)
            }
            Ok(Err(error)) => Err(match connection_error(&error).map(|error| describe(peer, error)) {
                Some(refused @ (P2pError::NotAdmitted { .. } | P2pError::Incompatible { .. })) => refused,
                _ if quic.is_closed() => P2pError::Closed,
                _ => {
                    tracing::debug!(%peer, %error, "a connection failed");
                    unreachable(found.tried)
                }
            }),
            Err(_) => Err(unreachable(found.tried)),
        }
    }

    /// Waits for the next connection of a peer that was admitted; `None` when the endpoint is closed or its
    /// scope stops.
    ///
    /// # Cancel safety
    /// No connection is lost.
    pub async fn accept(&self) -> Option<Connection> {
        self.incoming.lock().await.recv().await
    }

    /// Says that all that was asked is answered: an endpoint that serves nobody then closes within [`timeouts::PARTING`].
    pub fn hurry(&self) {
        self.hurried.store(true, Ordering::Relaxed);
    }

    /// Closes all connections and the endpoint, within [`timeouts::CLOSE`]. What peers have not acknowledged is lost.
    pub async fn close(&self) {
        self.scope.stop();
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner).take();
        match &self.kind {
            Kind::Quic(quic) => {
                self.closing.store(true, Ordering::Relaxed);
                // Where something is cut off its other end shall hear so, and be it at the second try.
                let patient = self.serves || !self.hurried.load(Ordering::Relaxed);
                let within = if patient { timeouts::CLOSE } else { timeouts::PARTING };
                if tokio::time::timeout(within, quic.close()).await.is_err() && patient {
                    tracing::warn!("an endpoint did not close in time");
                }
            }
            Kind::Dropped => {}
            #[cfg(any(test, feature = "testing"))]
            Kind::Memory(node) => node.close(),
        }
    }
}

async fn bind_quic(
    secret: &malai_model::id::SecretKey,
    network: &NetworkOptions,
    serve: Option<Serve>,
    preferred_port: Option<u16>,
    counters: &Arc<Counters>,
) -> Result<iroh::Endpoint, P2pError> {
    let wanted = network.bind;
    if let Some(port) = preferred_port
        && port != wanted.port()
    {
        let preferred = SocketAddr::new(wanted.ip(), port);
        match builder(secret, network, serve.clone(), preferred, counters)?.bind().await {
            Ok(endpoint) => return Ok(endpoint),
            Err(error) => tracing::debug!(port, %error, "the port of last time is taken"),
        }
    }
    builder(secret, network, serve, wanted, counters)?
        .bind()
        .await
        .map_err(|error| bind_failure(wanted, error))
}

fn builder(
    secret: &malai_model::id::SecretKey,
    network: &NetworkOptions,
    serve: Option<Serve>,
    bind: SocketAddr,
    counters: &Arc<Counters>,
) -> Result<iroh::endpoint::Builder, P2pError> {
    let relays = match &network.relays {
        Relays::None | Relays::InUse => iroh::RelayMode::Disabled,
        Relays::Default => iroh::RelayMode::Default,
        Relays::Custom(urls) => {
            let urls: Result<Vec<iroh::RelayUrl>, _> = urls.iter().map(|url| url.parse()).collect();
            iroh::RelayMode::custom(urls.map_err(|error| bind_failure(bind, error))?)
        }
    };
    let mut builder = iroh::Endpoint::builder(presets::Minimal)
        .relay_mode(relays)
        .secret_key(iroh::SecretKey::from_bytes(&secret.to_bytes()))
        .transport_config(transport_config(serve.as_ref()))
        .clear_ip_transports()
        .bind_addr(bind)
        .map_err(|error| bind_failure(bind, error))?;
    if let Some(serve) = serve {
        builder = builder.alpns(serve.protocols.iter().map(|protocol| protocol.alpn().to_vec()).collect());
        builder = builder.hooks(Gate { admission: serve.admission, counters: counters.clone() });
    }
    let Discovery { mdns, dns, .. } = network.discovery;
    if dns {
        builder = builder
            .address_lookup(iroh::address_lookup::PkarrPublisher::n0_dns())
            .address_lookup(iroh::address_lookup::PkarrResolver::n0_dns())
            .address_lookup(iroh::address_lookup::DnsAddressLookup::n0_dns());
    }
    if mdns {
        builder = builder.address_lookup(iroh_mdns_address_lookup::MdnsAddressLookup::builder());
    }
    Ok(builder)
}

/// The URLs of the relays that are used unless somebody says otherwise.
pub(crate) fn default_relays() -> Vec<String> {
    let map = iroh::RelayMode::Default.relay_map();
    map.urls::<Vec<iroh::RelayUrl>>().iter().map(ToString::to_string).collect()
}

fn transport_config(serve: Option<&Serve>) -> iroh::endpoint::QuicTransportConfig {
    let builder = iroh::endpoint::QuicTransportConfig::builder()
        .max_concurrent_uni_streams(0_u32.into())
        .keep_alive_interval(timeouts::KEEP_ALIVE)
        .max_idle_timeout(timeouts::IDLE.try_into().ok());
    // Strangers get room for one small message and nothing else: whoever knows an invite may open many connections.
    if serve.is_some_and(|serve| serve.protocols == [Protocol::Invite]) {
        return builder
            .max_concurrent_bidi_streams(1_u32.into())
            .receive_window(INVITE_WINDOW.into())
            .stream_receive_window(INVITE_WINDOW.into())
            .build();
    }
    builder.max_concurrent_bidi_streams(MAX_STREAMS.into()).receive_window(RECEIVE_WINDOW.into()).build()
}

/// What is said of relays that were not tried.
const IN_USE: &str =
    "no relay, since another malai of this device uses it (with `malai daemon` they share it)";

/// Finding each other on this machine is a convenience: whoever can make a directory in `/tmp` before a daemon starts shall
/// not keep it from serving.
fn usable<T>(local: Result<T, P2pError>) -> Option<T> {
    local
        .inspect_err(|error| {
            let hint = error.hint().unwrap_or_default();
            tracing::warn!(%error, hint, "local discovery is left out");
        })
        .ok()
}

fn bind_failure(address: SocketAddr, source: impl std::error::Error + Send + Sync + 'static) -> P2pError {
    P2pError::Bind { address: address.to_string(), source: Arc::new(source) }
}

/// Digs the transport's own reason out of iroh's.
fn connection_error(error: &iroh::endpoint::ConnectError) -> Option<&iroh::endpoint::ConnectionError> {
    use iroh::endpoint::{ConnectError, ConnectingError};
    match error {
        ConnectError::Connection { source, .. } => Some(source),
        ConnectError::Connecting { source: ConnectingError::ConnectionError { source, .. }, .. } => {
            Some(source)
        }
        _ => None,
    }
}
