//! Sessions: shells and commands under a terminal that live on their machine, whether or not a client is attached.
//!
//! A session is a process of its own (`host`): it owns the terminal, the program under it and the screen, listens on a
//! socket in its directory, and outlives the daemon that started it. The daemon finds its sessions again by their
//! directories (`registry`), talks to them over their sockets (`protocol`), and joins a peer's stream to one (`target`).
//!
//! The caller's side (`client`) comes back by itself when its connection is lost.
//!
//! Not responsible for who may do it (`malai_model`'s rules: a session is started with what they granted, and its record
//! keeps what to ask them again) nor for how a machine is reached (`crate::p2p`).

mod client;
#[cfg(all(feature = "host", unix))]
mod connection;
#[cfg(all(feature = "host", unix))]
mod error;
#[cfg(all(feature = "host", unix))]
mod host;
#[cfg(all(feature = "host", unix))]
mod job;
#[cfg(all(feature = "host", unix))]
mod life;
#[cfg(all(feature = "host", unix))]
mod opening;
#[cfg(all(feature = "host", unix))]
mod outbox;
#[cfg(all(feature = "host", unix))]
mod protocol;
#[cfg(all(feature = "host", unix))]
mod recent;
#[cfg(all(feature = "host", unix))]
mod record;
#[cfg(all(feature = "host", unix))]
mod registry;
#[cfg(all(feature = "host", unix))]
mod run;
#[cfg(all(feature = "host", unix))]
mod screen;
#[cfg(all(feature = "host", unix))]
mod session;
#[cfg(all(feature = "host", unix))]
mod socket;
#[cfg(all(feature = "host", unix))]
mod target;

pub use client::{
    AttachError, Link, Redial, SessionClient, SessionControl, SessionEvent, SessionEvents, SessionInput,
    SessionStatus,
};
#[cfg(all(feature = "host", unix))]
pub use connection::{HostConnection, HostEvent, HostReader, HostWriter};
#[cfg(all(feature = "host", unix))]
pub use error::{SessionError, UnknownSession};
#[cfg(all(feature = "host", unix))]
pub use host::{Begun, SESSION_PROGRAM, SessionHost};
#[cfg(all(feature = "host", unix))]
pub use job::{Audience, Opener, SessionGrant, SessionJob};
#[cfg(all(feature = "host", unix))]
pub use protocol::EndReason;
#[cfg(all(feature = "host", unix))]
pub use record::{SessionAsk, SessionEffect, SessionEnd, SessionRecord};
#[cfg(all(feature = "host", unix))]
pub use registry::{SessionWatch, Sessions};
#[cfg(all(feature = "host", unix))]
pub use screen::{History, Screen};
#[cfg(all(feature = "host", unix))]
pub use target::{Attending, SessionOutcome, serve};
