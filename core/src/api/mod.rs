//! The one surface of operations: command line, FFI and later fronts call [`Client`] and nothing beneath it.
//!
//! Underneath is either a node in this process or the daemon's socket; the operations and their answers are the same.

mod client;
mod handler;
mod request;
mod view;

pub use client::{Client, ClientOptions, RunRequest, SingleWord};
pub use handler::handle;
pub use request::{ApiRequest, CreateInviteRequest, JoinClusterRequest, JoinVia, OpenRules};
pub use view::{
    ApiReply, ClusterView, ConnectionView, FailedView, InfoView, InviteView, JoinedView, ListenView,
    MachineSyncView, MachineView, NewInviteView, RescanView, RoleView, SCHEMA, StatusView, SyncView,
};

pub use crate::exec::{CommandControl, CommandEvent, CommandInput, CommandOutput, RunningCommand};
