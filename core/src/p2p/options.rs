//! What an endpoint is to be: its key, its network, what it serves and to whom.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use malai_model::id::{Id52, SecretKey};

/// What is spoken on a connection. Within a version fields are only added; a break is another variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Between members of a cluster.
    Member,
    /// From a machine that joins to an invite.
    Invite,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Member, Self::Invite];

    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Member => b"malai/1",
            Self::Invite => b"malai/invite/1",
        }
    }

    pub(super) fn from_alpn(alpn: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.alpn() == alpn)
    }
}

/// Decides who may connect. Asked once for each incoming connection, with the identity that the handshake
/// proved.
pub trait Admission: Send + Sync + 'static {
    /// Says whether the peer is let in. Must not block.
    fn admits(&self, peer: &Id52, protocol: Protocol) -> bool;
}

/// What an endpoint serves.
#[derive(Clone)]
pub struct Serve {
    /// The protocols that peers may speak.
    pub protocols: Vec<Protocol>,
    /// Who is let in.
    pub admission: Arc<dyn Admission>,
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("protocols", &self.protocols).finish_non_exhaustive()
    }
}

/// Where peers are looked for, beyond the hints that come with each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discovery {
    /// Other processes of this user, through the runtime directory.
    pub local: bool,
    /// The local network, by multicast.
    pub mdns: bool,
    /// DNS and pkarr servers: says to the world where this identity is.
    pub dns: bool,
}

/// Which relays carry a connection that finds no direct way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relays {
    /// The public ones of the transport's makers.
    Default,
    /// None.
    None,
    /// None, since another process of this identity uses them: on a relay the newest connection of an identity receives
    /// everything.
    InUse,
    /// These, as URLs.
    Custom(Vec<String>),
}

/// The network of an endpoint.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// Where to listen; port 0 for any. With `local` discovery alone and no relays nothing leaves the
    /// address's network: bound to 127.0.0.1, nothing leaves this machine.
    pub bind: SocketAddr,
    /// Where peers are looked for.
    pub discovery: Discovery,
    /// Which relays are used.
    pub relays: Relays,
    /// The directory where processes of one user find each other; needed for `discovery.local`.
    pub runtime_dir: Option<PathBuf>,
}

/// What an endpoint is to be.
#[derive(Debug)]
pub struct EndpointOptions {
    /// Its identity.
    pub secret: SecretKey,
    /// Its network.
    pub network: NetworkOptions,
    /// What it serves; `None` for one that only calls.
    pub serve: Option<Serve>,
    /// The port that it had last time: tried first, so that hints of others stay true.
    pub preferred_port: Option<u16>,
}

/// What carries the bytes.
#[derive(Debug, Clone)]
pub enum Transport {
    /// QUIC over UDP and relays.
    Quic,
    /// Memory of this process, with faults on demand.
    #[cfg(any(test, feature = "testing"))]
    Memory(super::memory::Network),
}
