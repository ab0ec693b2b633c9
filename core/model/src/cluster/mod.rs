//! What a cluster's manager keeps track of, as pure state machines and planners: invites, joins, distribution.
//!
//! Not responsible for files, connections or clocks: these belong to `malai-core`.

mod distribution;
mod invite;
mod join;
mod lockout;
mod record;

pub use distribution::{
    Backoff, Delivery, DistributionState, MachineState, Plan, StateProblem, SyncStatus, plan,
};
pub use invite::{Invite, InviteTextProblem, Token};
pub use join::{
    JoinEdit, JoinPlan, JoinProblem, JoinTerms, OpenRules, accept_join, check_open, open_rules, plan_join,
    verify_accepted,
};
pub use lockout::{Attempt, Lockout, LockoutLimits};
pub use record::{
    InviteBook, InviteBookProblem, InviteProblem, InviteRecord, JoinDecision, Membership, check_join,
};
