//! The one surface of operations: command line, FFI and later fronts call [`Client`] and nothing beneath it.
//!
//! Underneath is either a node in this process or the daemon's socket; the operations and their answers are the same.

mod client;
mod doctor;
mod handler;
mod many;
mod ping;
mod route;
#[cfg(all(feature = "daemon", unix))]
mod socket;
mod words;

pub use client::{Client, ClientOptions};
pub use doctor::doctor;
pub use handler::handle;
pub use malai_model::targets::SelectedMachine;
pub use malai_model::wire::local::{
    ApiReply, ApiRequest, ClusterView, ConnectionView, CreateInviteRequest, DoctorView, FailedView, Finding,
    InfoView, InviteView, JoinClusterRequest, JoinVia, JoinedView, ListenView, MachineSyncView, MachineView,
    ManyEnd, ManySummary, NewInviteView, OpenRequest, OpenRules, OpenedView, PingView, Place, RescanView,
    RoleView, RunRequest, SCHEMA, Severity, SingleWord, StatusView, SyncView, TargetOutcome,
};
pub use many::{
    AfterFailure, LINE_LIMIT as OUTPUT_LINE_LIMIT, LinePart, ManyEvent, ManyOrder, ManyRequest, ManyRun,
    OutputStream, Stopper,
};
pub use route::{Opened, Route};
#[cfg(all(feature = "daemon", unix))]
pub use socket::{LINE_LIMIT, Line};

pub use words::{KnownWords, aliases, known_words};

pub use crate::exec::{CommandControl, CommandEvent, CommandInput, CommandOutput, RunningCommand};
