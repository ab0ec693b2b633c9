//! Sessions, as a front asks for them and is shown them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SingleWord;
use crate::wire::{AttachMode, CommandEnd, SessionId, SessionInfo, WindowSize};

/// A session to start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SessionRequest {
    /// The address, and the program's words; without any: the user's login shell.
    pub words: Vec<String>,
    /// What a single word with blanks means.
    #[serde(default)]
    pub single_word: SingleWord,
    /// `TERM`, `LANG` and `LC_*` of the caller.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The size of the caller's terminal.
    #[serde(default)]
    pub window: WindowSize,
}

/// A session to attach to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachRequest {
    /// The machine.
    pub address: String,
    /// Which; absent: the only one that nobody is attached to, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Whether to type, or only to look.
    pub mode: AttachMode,
    /// The size of the caller's terminal.
    #[serde(default)]
    pub window: WindowSize,
}

/// One's own sessions on a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionsView {
    /// The machine's address.
    pub machine: String,
    /// Oldest first.
    pub sessions: Vec<SessionView>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Its name on its machine.
    pub session: SessionId,
    /// The program's words; empty: a shell. From a peer: show them escaped.
    pub argv: Vec<String>,
    /// The user that it runs as. From a peer: show it escaped.
    pub user: String,
    /// When it began.
    pub started: Timestamp,
    /// When something was last typed or shown.
    pub active: Timestamp,
    /// Whether a client that types is attached.
    pub attached: bool,
    /// How many clients look on.
    pub watchers: u32,
    /// Its size.
    pub window: WindowSize,
    /// The title that its program gave the terminal. From a peer: show it escaped.
    pub title: String,
    /// How its program ended, if it did and nobody has seen it yet.
    pub ended: Option<CommandEnd>,
}

impl From<SessionInfo> for SessionView {
    fn from(info: SessionInfo) -> Self {
        let SessionInfo { session, argv, user, started, active, attached, watchers, window, title, ended } =
            info;
        Self { session, argv, user, started, active, attached, watchers, window, title, ended }
    }
}
