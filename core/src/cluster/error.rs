//! What can go wrong with a cluster's files and with joining one.

use malai_model::code::ErrorCode;
use malai_model::config::{ConfigProblems, SignedConfigProblem};
use malai_model::diagnostic::Diagnostic;
use malai_model::name::{ClusterAlias, MachineName};
use malai_model::wire::WireError;

use crate::home::HomeError;
use crate::identity::IdentityError;
use crate::p2p::P2pError;

/// Why an operation on a cluster failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Files of the home.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Private keys.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network.
    #[error(transparent)]
    Network(#[from] P2pError),
    /// A machine that was named cannot be reached, or refuses this device.
    #[error("reach {machine}")]
    Reach {
        /// Its address as a user knows it.
        machine: String,
        /// Why.
        #[source]
        source: P2pError,
    },
    /// A config file does not compile.
    #[error("put {file} in force: it has errors")]
    Config {
        /// Which file.
        file: String,
        /// All that is wrong with it.
        problems: ConfigProblems,
    },
    /// The alias is taken.
    #[error("make the cluster {0}: this home has one of that name")]
    Exists(ClusterAlias),
    /// There is no such cluster.
    #[error("find the cluster {alias}: this home has none of that name")]
    Unknown {
        /// What was asked for.
        alias: ClusterAlias,
        /// What there is.
        known: Vec<ClusterAlias>,
    },
    /// The operation is the manager's.
    #[error("do this for {0}: this device does not manage it")]
    NotManager(ClusterAlias),
    /// The key of an identity is gone.
    #[error("use {alias}: its {file} is missing")]
    NoKey {
        /// Which cluster.
        alias: ClusterAlias,
        /// Which file or keyring entry.
        file: String,
    },
    /// `cluster.toml` names another root than the key beside it.
    #[error(
        "use cluster.toml of {alias}: it names the manager {written}, but the key beside it is that of {own}"
    )]
    OtherRoot {
        /// Which cluster.
        alias: ClusterAlias,
        /// What the file says.
        written: malai_model::id::Id52,
        /// Whose key there is.
        own: malai_model::id::Id52,
    },
    /// A config is over the limit.
    #[error("take a config of {length} bytes: the limit is {limit}")]
    TooLarge {
        /// What was announced, in bytes.
        length: u64,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// No config has come yet.
    #[error("use {0}: no config of it has arrived yet")]
    NoConfig(ClusterAlias),
    /// The machine is not in the config, or this device may not know it.
    #[error("find {machine} in {cluster}: there is no such machine, or none that this device may reach")]
    UnknownMachine {
        /// Which cluster.
        cluster: ClusterAlias,
        /// What was asked for.
        machine: String,
        /// The most similar name.
        nearest: Option<MachineName>,
    },
    /// The service is not in the config, or this device may not know it.
    #[error(
        "find {service} in {cluster}: there is no such service or machine, or none that this device may reach"
    )]
    UnknownService {
        /// Which cluster.
        cluster: ClusterAlias,
        /// What was asked for.
        service: String,
        /// The addresses of services that this device may reach.
        known: Vec<String>,
    },
    /// An address cannot be resolved.
    #[error("find the machine: {0}")]
    Address(malai_model::address::AddressProblem),
    /// Words that mean no machines here.
    #[error("find the machines: {0}")]
    Targets(malai_model::targets::TargetProblem),
    /// The text is no invite.
    #[error("read the invite")]
    NoInvite(#[source] malai_model::cluster::InviteTextProblem),
    /// An invite was not accepted.
    #[error("register: {0}")]
    Invite(malai_model::cluster::InviteProblem),
    /// No invite goes by that name.
    #[error("find the invite {wanted}: {cluster} has none such")]
    UnknownInvite {
        /// Which cluster.
        cluster: ClusterAlias,
        /// The label or id52 that was asked for; never a secret.
        wanted: String,
    },
    /// A rule that says `*` came after the invite was made.
    #[error("register: a rule of the cluster says *, so joining would hand out rights")]
    NowOpen,
    /// Rules say `*`, so an invite would hand out rights.
    #[error("make the invite: whoever joins would have rights at once, since these rules say *: {}", .0.join(", "))]
    OpenRules(Vec<String>),
    /// A group that new machines shall be added to does not exist.
    #[error("make the invite: there is no group {0}")]
    UnknownGroup(String),
    /// The manager's config does not compile, so nobody can be registered now.
    #[error("register the machine: the manager's config has errors, so joins wait")]
    JoinsWait,
    /// The manager refused the join.
    #[error("join: the manager could not {}", .0.shown_message())]
    JoinRefused(WireError),
    /// The peer that answered an invite is not the root that it names.
    #[error("trust the answer to the invite: {0}")]
    JoinForged(malai_model::cluster::JoinProblem),
    /// A file that must be there is missing.
    #[error("read {}: it is missing", .0.display())]
    FileMissing(std::path::PathBuf),
    /// `invites.toml` cannot be used.
    #[error("use {}", file.display())]
    InviteBook {
        /// Which.
        file: std::path::PathBuf,
        /// Why.
        #[source]
        source: malai_model::cluster::InviteBookProblem,
    },
    /// `state.json` cannot be used.
    #[error("use {}", file.display())]
    State {
        /// Which.
        file: std::path::PathBuf,
        /// Why.
        #[source]
        source: malai_model::cluster::StateProblem,
    },
    /// Several clusters have problems.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<ClusterError>),
    /// The address names a cluster that this home has nothing to do with.
    #[error("reach {0}: this home is no member of that cluster")]
    ForeignCluster(String),
    /// An address without a program behind it.
    #[error("run a program on {machine}: none was named")]
    NoProgram {
        /// The address as it was typed.
        machine: String,
    },
    /// The node ends, and what was asked for was given up.
    #[error("finish: malai ends")]
    Stopping,
    /// A task of ours panicked.
    #[error("finish: a task panicked: {0}")]
    Panicked(String),
    /// An invite that would hold longer than time is counted.
    #[error("make the invite: its end is too far away")]
    ExpiryTooFar,
    /// Too many wrong tokens came from there.
    #[error("register: too many failed attempts, locked out for {} s", .0.as_secs())]
    LockedOut(std::time::Duration),
    /// A config that came from the network was not taken.
    #[error("take the config: {0}")]
    ConfigRefused(SignedConfigProblem),
    /// The peer answered something else than it should.
    #[error("understand the peer: {0}")]
    OutOfTurn(&'static str),
    /// The peer refused.
    #[error("{}", .0.shown_message())]
    Remote(WireError),
    /// The file cannot be edited.
    #[error("edit {file}")]
    Edit {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: malai_model::config::EditProblem,
    },
}

impl ClusterError {
    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Home(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::Network(error) | Self::Reach { source: error, .. } => error.code(),
            Self::Config { .. } | Self::Edit { .. } | Self::UnknownGroup(_) | Self::OtherRoot { .. } => {
                ErrorCode::ConfigInvalid
            }
            Self::TooLarge { .. } => ErrorCode::ConfigTooLarge,
            Self::Exists(_) => ErrorCode::HomeClusterExists,
            Self::Unknown { .. } => ErrorCode::HomeUnknownCluster,
            Self::NotManager(_) => ErrorCode::RoleNotManager,
            Self::NoKey { .. } => ErrorCode::KeyMissing,
            Self::NoConfig(_) => ErrorCode::ConfigMissing,
            Self::UnknownMachine { .. } | Self::UnknownService { .. } => ErrorCode::AddressUnknownMachine,
            Self::Address(problem) => problem.code(),
            Self::Targets(problem) => problem.code(),
            Self::NoInvite(_) => ErrorCode::InviteInvalid,
            Self::Invite(problem) => problem.code(),
            Self::UnknownInvite { .. } => ErrorCode::InviteUnknown,
            Self::OpenRules(_) | Self::NowOpen => ErrorCode::InviteOpenRule,
            Self::JoinsWait => ErrorCode::InvitePending,
            Self::JoinForged(problem) => problem.code(),
            Self::FileMissing(_) | Self::InviteBook { .. } | Self::State { .. } => ErrorCode::HomeStorage,
            Self::Several(_) => ErrorCode::ConfigInvalid,
            Self::ForeignCluster(_) => ErrorCode::AddressUnknownCluster,
            Self::NoProgram { .. } | Self::ExpiryTooFar => ErrorCode::Usage,
            Self::Stopping => ErrorCode::Cancelled,
            Self::Panicked(_) => ErrorCode::Internal,
            Self::LockedOut(_) => ErrorCode::PeerLockedOut,
            Self::ConfigRefused(problem) => problem.code(),
            Self::OutOfTurn(_) => ErrorCode::WireMalformed,
            Self::JoinRefused(error) | Self::Remote(error) => error.code,
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Home(error) => return error.hint(),
            Self::Identity(error) => return error.hint(),
            Self::Network(error) | Self::Reach { source: error, .. } => return error.hint(),
            Self::Address(problem) => return problem.hint(),
            Self::Targets(problem) => return problem.hint(),
            Self::JoinRefused(error) | Self::Remote(error) => return error.shown_hint(),
            Self::Config { .. } => {
                "mend what is listed above and try again; what was in force before still is".to_owned()
            }
            Self::Exists(_) => "choose another alias, or look with `malai info`".to_owned(),
            Self::Unknown { known, .. } if known.is_empty() => {
                "make one with `malai cluster init`, or join one with `malai machine init`".to_owned()
            }
            Self::Unknown { known, .. } => {
                let known: Vec<_> = known.iter().map(ToString::to_string).collect();
                format!("it has: {}", known.join(", "))
            }
            Self::NotManager(_) => "do this on the device where `malai cluster init` was run".to_owned(),
            Self::NoKey { .. } => "restore it from a backup, or make a new identity".to_owned(),
            Self::NoConfig(alias) => {
                format!(
                    "is the manager's daemon running? `malai sync {alias}` asks it; `malai info` shows what is known"
                )
            }
            Self::UnknownMachine { nearest: Some(nearest), cluster, .. } => {
                format!("did you mean {nearest}.{cluster}?")
            }
            Self::UnknownMachine { .. } => {
                "`malai info` lists the machines that this device may reach".to_owned()
            }
            Self::UnknownService { known, .. } if known.is_empty() => {
                "no service of that cluster is this device's to reach: ask its manager".to_owned()
            }
            Self::UnknownService { known, .. } => {
                let some: Vec<&str> = known.iter().take(10).map(String::as_str).collect();
                format!("this device may reach: {}", some.join(", "))
            }
            Self::NoInvite(problem) => return problem.hint(),
            Self::Invite(problem) => return problem.hint(),
            Self::JoinForged(problem) => return problem.hint(),
            Self::InviteBook { source, .. } => return source.hint(),
            Self::State { source, .. } => return source.hint(),
            Self::ConfigRefused(problem) => return problem.hint(),
            Self::FileMissing(_) => "restore it from a backup".to_owned(),
            Self::NoProgram { machine } => {
                format!("name one: malai {machine} uptime (a shell needs a terminal on stdin, or -t)")
            }
            Self::ForeignCluster(_) => "join it first: `malai machine init <invite> <alias>`".to_owned(),
            Self::ExpiryTooFar => "choose a shorter time, such as 30d".to_owned(),
            Self::LockedOut(_) => "wait, then use an invite that you are sure of".to_owned(),
            Self::UnknownInvite { cluster, .. } => {
                format!("`malai cluster list-invites {cluster}` shows them")
            }
            Self::NowOpen => "ask the cluster's manager for an invite that is made with --open".to_owned(),
            Self::OpenRules(_) => "narrow those rules, or pass --open if that is what you want".to_owned(),
            Self::UnknownGroup(_) => "add it to cluster.toml first".to_owned(),
            Self::JoinsWait => "the machine keeps its invite and tries again".to_owned(),
            Self::OtherRoot { own, .. } => format!("write id52 = \"{own}\" under [cluster-manager]"),
            Self::TooLarge { .. } => {
                "raise config_bytes under [limits] in malai.toml, if that is meant".to_owned()
            }
            Self::Edit { .. }
            | Self::OutOfTurn(_)
            | Self::Several(_)
            | Self::Stopping
            | Self::Panicked(_) => return None,
        };
        Some(text)
    }

    /// Returns what is wrong with files, if that is why.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        match self {
            Self::Config { problems, .. } => problems.diagnostics().to_vec(),
            Self::Several(errors) => errors.iter().flat_map(Self::diagnostics).collect(),
            _ => Vec::new(),
        }
    }

    /// Makes one error of several; of one that one, of none none.
    pub(crate) fn all(mut errors: Vec<Self>) -> Option<Self> {
        match errors.len() {
            0 | 1 => errors.pop(),
            _ => Some(Self::Several(errors)),
        }
    }
}

macro_rules! from_model {
    ($($variant:ident($problem:ty);)*) => {$(
        impl From<$problem> for ClusterError {
            fn from(problem: $problem) -> Self {
                Self::$variant(problem)
            }
        }
    )*};
}

from_model! {
    Invite(malai_model::cluster::InviteProblem);
    JoinForged(malai_model::cluster::JoinProblem);
    ConfigRefused(SignedConfigProblem);
    Address(malai_model::address::AddressProblem);
    Targets(malai_model::targets::TargetProblem);
}
