//! Sessions: shells and commands under a terminal that live on their machine, whether or not a client is attached.
//!
//! A session is a process of its own (`host`): it owns the terminal, the program under it and the screen, listens on a
//! socket in its directory, and outlives the daemon that started it. The daemon finds its sessions again by their
//! directories (`registry`), talks to them over their sockets (`protocol`), and joins a peer's stream to one (`target`).
//!
//! Not responsible for who may do it (`malai_model`'s rules: a session is started with what they granted, and its record
//! keeps what to ask them again) nor for the client's side.

mod connection;
mod error;
mod host;
mod job;
mod life;
mod protocol;
mod record;
mod registry;
mod socket;
mod target;

pub use connection::{HostConnection, HostEvent, HostReader, HostWriter};
pub use error::{SessionError, UnknownSession};
pub use host::{SESSION_PROGRAM, SessionHost};
pub use job::{Audience, SessionGrant, SessionJob};
pub use protocol::EndReason;
pub use record::{SessionAsk, SessionEffect, SessionProcess, SessionRecord};
pub use registry::Sessions;
pub use target::{SessionOutcome, serve};
