//! What a front asks of a home, and what it is shown: over the daemon's socket, as `--json`, and in one process alike.

mod request;
mod session;
mod view;

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
