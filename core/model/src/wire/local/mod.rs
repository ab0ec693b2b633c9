//! What a front asks of a home, and what it is shown: over the daemon's socket, as `--json`, and in one process alike.

mod audit;
mod doctor;
mod many;
mod ping;
mod request;
mod session;
mod view;

pub use audit::{AuditBreakView, AuditCheckView, KnownRecord};
pub use doctor::{DoctorView, Finding, Severity};
pub use many::{ManyEnd, ManySummary, TargetOutcome};
pub use ping::PingView;

pub use request::{
    ApiRequest, CreateInviteRequest, JoinClusterRequest, JoinVia, OpenRequest, OpenRules, RunRequest,
    SingleWord,
};
pub use session::{AttachRequest, SessionRequest, SessionView, SessionsView};
pub use view::{
    ApiReply, CarriedView, ClusterView, ConnectionView, CopyProblemView, CopyView, FailedView, InfoView,
    InviteView, JoinedView, ListenView, MachineSyncView, MachineView, NewInviteView, OpenedView, Place,
    RescanView, RoleView, SCHEMA, ServiceView, StatusView, SyncView,
};
