//! The one surface of operations: command line, FFI and later fronts call [`Client`] and nothing beneath it.
//!
//! Underneath is either a node in this process or the daemon's socket; the operations and their answers are the same.

mod audit;
mod client;
#[cfg(unix)]
mod copy;
mod doctor;
mod handler;
mod many;
mod ping;
mod route;
mod sessions;
#[cfg(all(feature = "daemon", unix))]
mod socket;
mod words;

pub use audit::{AuditLine, AuditQuery, AuditRecords, NotATime, Since};
pub use client::{Client, ClientOptions};
#[cfg(unix)]
pub use copy::{CopyPlace, CopyRequest, CopyStreams};
pub use doctor::doctor;
#[cfg(all(feature = "daemon", unix))]
pub(crate) use handler::failed;
pub use handler::handle;
pub use malai_model::targets::SelectedMachine;
pub use malai_model::wire::local::{
    ApiReply, ApiRequest, AttachRequest, AuditBreakView, AuditCheckView, CarriedView, ClusterView,
    ConnectionView, CopyProblemView, CopyView, CreateInviteRequest, DoctorView, FailedView, Finding,
    InfoView, InviteView, JoinClusterRequest, JoinVia, JoinedView, KnownRecord, ListenView, MachineSyncView,
    MachineView, ManyEnd, ManySummary, NewInviteView, OpenRequest, OpenRules, OpenedView, PingView, Place,
    RescanView, RoleView, RunRequest, SCHEMA, ServiceView, SessionRequest, SessionView, SessionsView,
    Severity, SingleWord, StatusView, SyncView, TargetOutcome,
};
pub use many::{
    AfterFailure, LINE_LIMIT as OUTPUT_LINE_LIMIT, LinePart, ManyEvent, ManyOrder, ManyRequest, ManyRun,
    OutputStream, Stopper,
};
pub use route::{Opened, Route};
pub use sessions::AttachedSession;
#[cfg(all(feature = "daemon", unix))]
pub use socket::{LINE_LIMIT, Line, LineProblem, read_line};

pub use words::{KnownWords, aliases, known_words};

#[cfg(unix)]
pub use crate::exec::copy::{
    Compare, CopyError, CopyObserver, CopyProblem, CopyProgress, Extraneous, Links, PROGRAM as COPY_PROGRAM,
    PathLinks, ServeRequest, serve_copy,
};
pub use crate::exec::{CommandControl, CommandEvent, CommandInput, CommandOutput, RunningCommand};
pub use crate::service::{ServiceConnection, ServiceError, ServiceInput, ServiceOutput};
pub use crate::terminal::{
    AttachError, Link, SessionClient, SessionControl, SessionEvent, SessionEvents, SessionInput,
    SessionStatus,
};
