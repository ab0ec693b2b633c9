//! A cluster as this device has it on disk, and what its manager and its machines do to those files.
//!
//! Responsible for cluster directories: making a cluster, invites, registering, applying, receiving configs. Not for
//! connections (`crate::p2p`) or for when these things happen (`crate::node`).

mod distribute;
mod error;
mod invites;
mod join;
mod loaded;
mod manage;
mod receive;
mod services;

pub use distribute::{DeliveryOutcome, answer_pull, deliver, fetch_config};
pub(crate) use distribute::{read_text, send_text};
pub use error::ClusterError;
pub use invites::{NewInvite, create_invite, list_invites, revoke_invite};
pub use join::{
    PendingJoin, abandon_join, dial_invite, load_pending, pin_manager, prepare_join, remember_accepted,
};
pub(crate) use loaded::find_cluster;
pub use loaded::{LoadedCluster, Rules, RunDenied, TargetMachine};
pub(crate) use manage::load_key;
pub use manage::{Checked, Registered, apply, check, init_cluster, load_state, register, save_state};
pub use receive::{Received, is_manager, receive_config, signed_config_in_force};
