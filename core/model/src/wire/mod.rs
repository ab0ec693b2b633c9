//! What goes over the wire: frames as bytes, messages as JSON in them.
//!
//! Versioned by ALPN; within a version fields are only added, so readers ignore what they do not know.

pub mod frame;
pub mod local;
mod message;

pub use message::{
    CommandEnd, ConfigHave, ExecRequest, JoinAccepted, JoinRequest, Notice, PullReply, PushReply, Request,
    Signal, WireError,
};
