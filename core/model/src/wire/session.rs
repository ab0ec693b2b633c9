//! Sessions on the wire: terminals that live on their machine, and the clients that come and go.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::CommandEnd;

/// What a session is called on its machine: eight characters of `a` to `z` and `2` to `7`.
///
/// It is no secret: whose a session is, is decided by who asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(String);

/// The length of a [`SessionId`] in characters.
const SESSION_ID_LEN: usize = 8;
const SESSION_ID_LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A text that is no [`SessionId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a session is named by eight characters of a to z and 2 to 7, such as k3fq7aab")]
pub struct NotASessionId;

impl SessionId {
    /// Makes an id from random bytes.
    pub fn from_random(bytes: [u8; SESSION_ID_LEN]) -> Self {
        Self(bytes.iter().map(|byte| char::from(SESSION_ID_LETTERS[usize::from(byte & 31)])).collect())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for SessionId {
    type Err = NotASessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits =
            text.len() == SESSION_ID_LEN && text.bytes().all(|byte| SESSION_ID_LETTERS.contains(&byte));
        if fits { Ok(Self(text.to_owned())) } else { Err(NotASessionId) }
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// 128 random bits that a caller gives to something of its own, so as to name it again over another connection: a
/// stream, or its place at a session. Means nothing together with another identity than the one that gave it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResumeToken([u8; 16]);

impl ResumeToken {
    /// Makes a token from random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeToken(…)")
    }
}

impl Serialize for ResumeToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for ResumeToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("a token is 32 hex digits"))
    }
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
    /// Width in pixels; 0: not known.
    #[serde(default)]
    pub width: u16,
    /// Height in pixels; 0: not known.
    #[serde(default)]
    pub height: u16,
}

impl Default for WindowSize {
    fn default() -> Self {
        Self { columns: 80, rows: 24, width: 0, height: 0 }
    }
}

/// Starts a session: a shell, or a program under a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// The program's words, looked up in the rules by the first; absent: the user's login shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// `TERM`, `LANG`, `LC_*` of the caller; anything else is ignored by the target.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The size of the caller's terminal.
    #[serde(default)]
    pub window: WindowSize,
    /// The caller's place at the session; absent: it does not attach, the session runs by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ResumeToken>,
    /// Whether the caller says [`Notice::Confirm`](super::Notice::Confirm) when it knows that it is attached: then a
    /// session whose caller goes before that ends. A caller that does not say it may leave one behind.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirms: bool,
}

/// Attaches to a session of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachSession {
    /// Which; absent: the only one that nobody is attached to, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Whether to type, or only to look.
    pub mode: AttachMode,
    /// The caller's place at the session: the same again when it comes back after its connection was lost.
    pub client: ResumeToken,
    /// The size of the caller's terminal.
    #[serde(default)]
    pub window: WindowSize,
    /// How many bytes of the session's output the caller has, when it comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
}

/// How a client takes part in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachMode {
    /// It types, and its window is the session's size. There is one at most: who comes later takes over.
    Control,
    /// It looks on.
    Watch,
}

/// The caller is attached; bytes of the terminal follow, both ways, as data of the main lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The session.
    pub session: SessionId,
    /// How many bytes this client has typed into the session so far, in all its connections: what comes next goes on
    /// from there.
    #[serde(default)]
    pub input: u64,
    /// How many bytes of the session's output come before those that follow.
    pub output: u64,
    /// So many bytes that redraw the screen come first; they do not count as output.
    #[serde(default)]
    pub redraw: u64,
    /// How many other sessions its owner has there that nobody is attached to: told to who opened a shell.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub detached: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Why a client is no longer attached, while the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DetachReason {
    /// It asked for it.
    Asked,
    /// Another client of the same owner took over.
    TakenOver,
}

/// A session, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its name.
    pub session: SessionId,
    /// The program's words; empty: a shell. From a peer: show them escaped.
    #[serde(default)]
    pub argv: Vec<String>,
    /// The user that it runs as.
    pub user: String,
    /// When it began.
    pub started: Timestamp,
    /// When something was last typed or shown.
    pub active: Timestamp,
    /// Whether a client that types is attached.
    pub attached: bool,
    /// How many clients look on.
    #[serde(default)]
    pub watchers: u32,
    /// Its size.
    #[serde(default)]
    pub window: WindowSize,
    /// The title that its program gave the terminal. From a peer: show it escaped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// How its program ended, if it did and nobody has seen it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<CommandEnd>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        let id = SessionId::from_random([0, 1, 2, 31, 32, 255, 7, 90]);
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        let wire = serde_json::to_string(&id).expect("is a text");
        assert_eq!(serde_json::from_str::<SessionId>(&wire).expect("reads"), id);
        for text in ["", "../../et", "abcdefg", "abcdefghi", "ABCDEFGH", "abcdefg1", "äbcdefg"] {
            assert_eq!(text.parse::<SessionId>(), Err(NotASessionId), "{text}");
        }
    }

    #[test]
    fn a_token_reads_back_and_is_not_shown() {
        let token = ResumeToken::from_random([7; 16]);
        let wire = serde_json::to_string(&token).expect("is a text");
        assert_eq!(serde_json::from_str::<ResumeToken>(&wire).expect("reads"), token);
        assert!(!format!("{token:?}").contains("07"));
        assert!(serde_json::from_str::<ResumeToken>("\"07\"").is_err());
    }
}
