//! What a session is started with.

use std::collections::BTreeMap;
use std::time::Duration;

use malai_model::acl::{Authorized, Run, Shell};
use malai_model::config::UserName;
use malai_model::id::Id52;
use malai_model::name::{ClusterAlias, MachineName};
use malai_model::wire::{ResumeToken, SessionId, WindowSize};
use serde::{Deserialize, Serialize};

use super::record::{SessionAsk, SessionEffect};

/// The right that a session is started under: nothing else starts one.
#[derive(Debug, Clone)]
pub enum SessionGrant {
    /// A login shell.
    Shell(Authorized<Shell>),
    /// A program under a terminal.
    Run(Authorized<Run>),
}

/// What a session is to be.
#[derive(Debug, Clone)]
pub struct SessionJob {
    /// What the rules granted, and to whom.
    pub grant: SessionGrant,
    /// The cluster under which it was asked for.
    pub cluster: ClusterAlias,
    /// What this device is called in that cluster.
    pub own: Id52,
    /// `TERM`, `LANG`, `LC_*` of the caller; anything else is dropped.
    pub env: BTreeMap<String, String>,
    /// The size of its terminal.
    pub window: WindowSize,
    /// It ends when nobody was attached and nothing was shown for so long; absent: it never does. Of no effect on a shell.
    pub idle: Option<Duration>,
    /// Whether a client is about to attach: then its program's first words wait a moment for it.
    pub audience: Audience,
    /// The client that is about to, if it says when it knows of the session.
    pub opener: Option<Opener>,
}

/// A client that says when it knows that it is attached to the session that it opened. If it goes before, the session
/// ends: nobody else knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opener {
    /// Its place at the session.
    pub client: ResumeToken,
    /// How long it may come back after its connection was lost.
    pub kept: Duration,
}

/// Whether somebody will look at a session at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audience {
    /// A client attaches next.
    Expected,
    /// It runs by itself.
    None,
}

impl SessionGrant {
    /// Who was granted it.
    pub fn caller(&self) -> &Id52 {
        match self {
            Self::Shell(grant) => grant.caller(),
            Self::Run(grant) => grant.caller(),
        }
    }

    /// The caller's name in the cluster, if it has one.
    pub fn caller_name(&self) -> Option<&MachineName> {
        match self {
            Self::Shell(grant) => grant.caller_name(),
            Self::Run(grant) => grant.caller_name(),
        }
    }

    /// What was asked for.
    pub fn ask(&self) -> SessionAsk {
        match self {
            Self::Shell(_) => SessionAsk::Shell {},
            Self::Run(grant) => SessionAsk::Run { argv: grant.action().argv.clone() },
        }
    }

    /// What was granted.
    pub fn effect(&self) -> SessionEffect {
        match self {
            Self::Shell(grant) => SessionEffect {
                argv: None,
                username: named(grant.effect().username.as_ref()),
                restricted: false,
            },
            Self::Run(grant) => SessionEffect {
                argv: Some(grant.effect().argv.clone()),
                username: named(grant.effect().username.as_ref()),
                restricted: grant.effect().restricted,
            },
        }
    }
}

fn named(user: Option<&UserName>) -> Option<String> {
    user.map(|user| user.as_str().to_owned())
}

/// What the session's process is told when it starts: the same version of malai wrote it, so it need not last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HostJob {
    /// The session's name.
    pub(super) session: SessionId,
    /// Its directory.
    pub(super) dir: std::path::PathBuf,
    /// The caller.
    pub(super) owner: Id52,
    /// The caller's name.
    pub(super) owner_name: Option<MachineName>,
    /// The cluster.
    pub(super) cluster: ClusterAlias,
    /// What is shown of it.
    pub(super) argv: Vec<String>,
    /// What is run, and as whom.
    pub(super) effect: SessionEffect,
    /// Whether the rule that lets the caller in says which words may follow the command. Not left to the effect, where it
    /// may be absent: a program that does not hear of it could be led elsewhere.
    pub(super) restricted: bool,
    /// The caller's variables.
    pub(super) env: BTreeMap<String, String>,
    /// The size of the terminal.
    pub(super) window: WindowSize,
    /// When to end it, in milliseconds.
    pub(super) idle_ms: Option<u64>,
    /// Whether a client is about to attach.
    pub(super) audience: Audience,
    /// The client that is about to, if it says when it knows of the session.
    pub(super) opener: Option<Opener>,
}

/// What the session's process answers, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum HostReply {
    /// The program runs.
    Runs {},
    /// It does not.
    Failed(malai_model::wire::WireError),
}
