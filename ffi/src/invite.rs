//! Invites, as an app shows and makes them.

use std::time::Duration;

use malai_core::api::{CreateInviteRequest, InviteView, NewInviteView, OpenRules};

use crate::MalaiError;
use crate::malai::parse_name;

/// What a new invite allows.
#[derive(Debug, Clone, Default, uniffi::Record)]
pub struct InviteOptions {
    /// What the manager calls it; shown in lists only.
    #[uniffi(default = None)]
    pub label: Option<String>,
    /// How long it holds, in seconds. Absent: 7 days.
    #[uniffi(default = None)]
    pub expires_in_s: Option<u64>,
    /// How many machines may join with it. Absent: 1.
    #[uniffi(default = None)]
    pub max_uses: Option<u32>,
    /// Groups that a machine which joins is added to.
    #[uniffi(default = [])]
    pub groups: Vec<String>,
    /// Make it although a rule of the cluster says `*`, so that whoever joins has that right.
    #[uniffi(default = false)]
    pub open: bool,
}

/// A new invite.
#[derive(Clone, uniffi::Record)]
pub struct NewInvite {
    /// The word to hand to the machine that shall join, as text or as a QR code. It is a secret: shown once,
    /// kept nowhere.
    pub invite: String,
    /// Whether a daemon listens for machines that join with it now.
    pub listening: bool,
    /// The rest of it.
    pub about: Invite,
}

/// An invite, without its secret. Times are seconds since 1970.
#[derive(Debug, Clone, uniffi::Record)]
pub struct Invite {
    /// The invite's own identity, an id52.
    pub id52: String,
    /// What the manager calls it.
    pub label: Option<String>,
    /// When it was made.
    pub created: i64,
    /// When it ends.
    pub expires: i64,
    /// How many machines joined with it.
    pub uses: u32,
    /// How many may.
    pub max_uses: u32,
    /// `open`, `expired`, `used-up` or `revoked`.
    pub state: String,
}

impl InviteOptions {
    pub(crate) fn for_cluster(self, cluster: &str) -> Result<CreateInviteRequest, MalaiError> {
        let groups: Result<_, MalaiError> = self.groups.iter().map(|name| parse_name(name)).collect();
        Ok(CreateInviteRequest {
            cluster: parse_name(cluster)?,
            label: self.label,
            expires_in: self.expires_in_s.map(Duration::from_secs),
            max_uses: self.max_uses,
            groups: groups?,
            open: if self.open { OpenRules::Accept } else { OpenRules::Refuse },
        })
    }
}

impl From<InviteView> for Invite {
    fn from(view: InviteView) -> Self {
        Self {
            id52: view.id52.to_string(),
            label: view.label,
            created: view.created.as_second(),
            expires: view.expires.as_second(),
            uses: view.uses,
            max_uses: view.max_uses,
            state: view.state,
        }
    }
}

impl From<NewInviteView> for NewInvite {
    fn from(view: NewInviteView) -> Self {
        Self { invite: view.invite, listening: view.listening, about: view.view.into() }
    }
}
