//! Endpoints on loopback and in memory, with honest and hostile peers.

mod endpoints;
mod finishing;
mod hostile;
mod resume;
#[cfg(unix)]
mod sockets;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use malai_model::id::{Id52, SecretKey};

use super::*;
use crate::task::Scope;

/// No honest step takes longer, also on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits with a deadline.
pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("within the test's patience")
}

/// Lets in whoever is on the list.
struct Members(Vec<Id52>);

impl Admission for Members {
    fn admits(&self, peer: &Id52, _protocol: Protocol) -> bool {
        self.0.contains(peer)
    }
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

fn offline() -> NetworkOptions {
    NetworkOptions {
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        discovery: Discovery { local: false, mdns: false, dns: false },
        relays: Relays::None,
        runtime_dir: None,
    }
}

fn serving(members: Vec<Id52>) -> Option<Serve> {
    Some(Serve { protocols: vec![Protocol::Member], admission: Arc::new(Members(members)) })
}

/// Two endpoints, of which the second serves the first.
pub(super) struct Two {
    pub(super) scope: Scope,
    pub(super) caller: Endpoint,
    pub(super) server: Endpoint,
}

impl Two {
    async fn over(transport: Transport) -> Self {
        let scope = Scope::new();
        let options =
            |n, serve| EndpointOptions { secret: key(n), network: offline(), serve, preferred_port: None };
        let caller = Endpoint::bind(options(1, None), transport.clone(), &scope).await.expect("binds");
        let serve = serving(vec![caller.id52()]);
        let server = Endpoint::bind(options(2, serve), transport, &scope).await.expect("binds");
        Self { scope, caller, server }
    }

    async fn quic() -> Self {
        Self::over(Transport::Quic).await
    }

    pub(super) async fn memory() -> (Self, memory::Network) {
        let network = memory::Network::new();
        (Self::over(Transport::Memory(network.clone())).await, network)
    }

    fn hints(&self) -> Vec<String> {
        self.server.addresses().iter().map(ToString::to_string).collect()
    }

    /// A connection, seen from both sides.
    async fn connected(&self) -> (Connection, Connection) {
        let hints = self.hints();
        let calling = self.caller.connect(self.server.id52(), Protocol::Member, &hints, PATIENCE);
        let (ours, theirs) = soon(async { tokio::join!(calling, self.server.accept()) }).await;
        (ours.expect("connects"), theirs.expect("accepts"))
    }

    async fn end(self) {
        self.caller.close().await;
        self.server.close().await;
        assert_eq!(self.scope.shutdown(PATIENCE).await, crate::task::ShutdownOutcome::Drained);
    }
}
