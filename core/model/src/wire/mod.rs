//! What goes over the wire: frames as bytes, messages as JSON in them.
//!
//! Versioned by ALPN; within a version fields are only added, so readers ignore what they do not know.

pub mod copy;
pub mod frame;
pub mod local;
mod message;
mod session;

pub use message::{
    CommandEnd, ConfigHave, ExecRequest, JoinAccepted, JoinRequest, LaneState, Notice, PullReply, PushReply,
    Request, ResumeStream, Signal, WireError,
};
pub use session::{
    AttachMode, AttachSession, Attached, DetachReason, NotASessionId, OpenSession, ResumeToken, SessionId,
    SessionInfo, WindowSize,
};
