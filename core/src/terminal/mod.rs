//! Sessions: terminals that live on their machine, and the clients that come and go.
//!
//! Responsible for the caller's side here: [`SessionClient`]. Not for who may open one (`malai_model::acl`), and not
//! for how a machine is reached (`crate::p2p`).

mod client;

pub use client::{
    AttachError, Link, Redial, SessionClient, SessionControl, SessionEvent, SessionEvents, SessionInput,
    SessionStatus,
};
