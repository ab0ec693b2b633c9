//! Endpoints, connections and credited streams between identities.
//!
//! Responsible for: who is on the other end (the handshake proves it), how a peer is found, credit and
//! framing on streams, and telling why something failed. *Not* responsible for what is said: requests, rights
//! and features are above.

mod connection;
mod discovery;
mod endpoint;
mod error;
mod health;
mod hooks;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod options;
mod pool;
mod raw;
mod redial;
mod resumables;
#[cfg(unix)]
mod socket;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use connection::WeakConnection;
pub use connection::{CloseReason, Connection, ConnectionStats, Counters, PathView};
pub use endpoint::Endpoint;
pub(crate) use endpoint::default_relays;
pub use error::{P2pError, stream_code};
pub use options::{
    Admission, Discovery, EndpointOptions, NetworkOptions, Protocol, Relays, Serve, Transport,
};
pub use pool::{ConnectionView, Pool};
pub(crate) use redial::jittered;
pub use redial::{Redial, Redialling, keep_resumed, new_resume_token};
pub use resumables::{Kept, Resumables};
#[cfg(all(feature = "daemon", unix))]
pub(crate) use socket::chunk;
#[cfg(unix)]
pub use socket::{BridgeEnd, bridge};
#[cfg(all(feature = "daemon", unix))]
pub(crate) use stream::first_frame;
pub use stream::{Channel, Incoming, ResumeHandle, Stream, StreamReceiver, StreamSender};
