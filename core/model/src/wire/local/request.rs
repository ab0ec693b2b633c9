//! What a front can ask for, as data: the same over the daemon's socket and in one process.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::Id52;
use crate::name::{ClusterAlias, GroupName, MachineName};
use serde::{Deserialize, Serialize};

/// One operation. The daemon's socket carries it as a line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum ApiRequest {
    /// Makes a cluster; this device becomes its manager. Answered by `Cluster`.
    InitCluster {
        /// What this device calls it.
        alias: ClusterAlias,
        /// What it calls itself; absent: the alias.
        cluster_name: Option<String>,
    },
    /// Makes an invite. Answered by `Invite`.
    CreateInvite(CreateInviteRequest),
    /// Lists a cluster's invites. Answered by `Invites`.
    ListInvites {
        /// Which cluster.
        cluster: ClusterAlias,
    },
    /// Ends an invite. Answered by `Invites`: those that it ended.
    RevokeInvite {
        /// Which cluster.
        cluster: ClusterAlias,
        /// The invite's word, its id52 or its label.
        invite: String,
    },
    /// Makes this device a machine of a cluster. Answered by `Joined`.
    Join(JoinClusterRequest),
    /// Validates the files of this home and, unless `check`, puts them in force. Answered by `Rescanned`.
    Rescan {
        /// Only validate.
        check: bool,
    },
    /// Asks managers for this device's config. Answered by `Synced`.
    Sync {
        /// Which cluster; absent: all.
        cluster: Option<ClusterAlias>,
    },
    /// Finds the service that an address means. Answered by `Service`.
    FindService {
        /// The address: of a service, or of a machine, which means its `ssh`.
        address: String,
    },
    /// Lists the services that this device may reach. Answered by `Services`.
    ListServices {
        /// Which cluster; absent: all.
        cluster: Option<ClusterAlias>,
    },
    /// Describes this home. Answered by `Info`.
    Info {},
    /// Describes what runs now. Answered by `Status`.
    Status {},
    /// Opens a stream to a machine, which then goes on over the very socket that carried the request. Answered by
    /// `Opening` if it takes a moment, then by `Opened`.
    Open(OpenRequest),
    /// As [`ApiRequest::Open`], where the stream's first bytes follow the line at once:
    /// [`OpenRequest::followed_by`] says for what. A request of its own, so that a daemon that does not know it refuses it.
    OpenAndRun(OpenRequest),
}

/// Input of [`ApiRequest::Open`]: a stream to a machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The address, and what was typed behind it.
    pub words: Vec<String>,
    /// What a single word with blanks means.
    #[serde(default, skip_serializing_if = "SingleWord::is_typed")]
    pub single_word: SingleWord,
    /// How long reaching the machine may take; absent: as long as whoever dials does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    /// Whether whoever asks comes back by itself when the stream ends, as a session's client does: a daemon that stops
    /// does not wait for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returns: bool,
    /// What is to be run, in an [`ApiRequest::OpenAndRun`]: the stream is opened only if the address leads to another
    /// machine and leaves these words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed_by: Option<Vec<String>>,
}

/// Input of [`ApiRequest::CreateInvite`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateInviteRequest {
    /// Which cluster.
    pub cluster: ClusterAlias,
    /// What the manager calls the invite; shown in lists only.
    pub label: Option<String>,
    /// How long it holds; absent: 7 days.
    pub expires_in: Option<Duration>,
    /// How many machines may join with it; absent: 1.
    pub max_uses: Option<u32>,
    /// Groups that a machine which joins is added to.
    #[serde(default)]
    pub groups: Vec<GroupName>,
    /// Whether to make it although a rule of the cluster says `*`.
    pub open: OpenRules,
}

/// Whether an invite may be made while a rule says `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpenRules {
    /// Refuse, naming the rules.
    Refuse,
    /// The manager knows and wants it.
    Accept,
}

/// Input of [`ApiRequest::Join`].
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinClusterRequest {
    /// How the cluster is found.
    pub via: JoinVia,
    /// What this device calls the cluster.
    pub alias: ClusterAlias,
    /// The name that the machine would like to have.
    pub name: Option<MachineName>,
}

impl std::fmt::Debug for JoinClusterRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The invite holds a secret.
        f.debug_struct("JoinClusterRequest")
            .field("alias", &self.alias)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How a machine finds the cluster that it joins.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JoinVia {
    /// An invite's word.
    Invite(String),
    /// The root itself: nothing is registered, the manager pastes an entry.
    Manager(Id52),
}

/// A program to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunRequest {
    /// The address and the program's words.
    pub words: Vec<String>,
    /// What a single word with blanks means.
    #[serde(default, skip_serializing_if = "SingleWord::is_typed")]
    pub single_word: SingleWord,
    /// `TERM`, `LANG` and `LC_*` of the caller.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// What one word with blanks after an address means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SingleWord {
    /// A person typed it: it is split as a shell would.
    #[default]
    Split,
    /// A program made it: it is the program's name as it stands.
    Keep,
}

impl SingleWord {
    fn is_typed(&self) -> bool {
        *self == Self::Split
    }
}
