//! What the daemon writes down of a session, so that the next daemon finds it again.

use jiff::Timestamp;
use malai_model::id::Id52;
use malai_model::name::ClusterAlias;
use malai_model::wire::{CommandEnd, SessionId};
use serde::{Deserialize, Serialize};

/// A session, as `session.json` in its directory has it. Fields are only added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Its name.
    pub session: SessionId,
    /// Whose it is: the peer that started it.
    pub owner: Id52,
    /// The cluster under which it was started.
    pub cluster: ClusterAlias,
    /// What this device is called in that cluster.
    pub own: Id52,
    /// What was asked for: to be authorised again.
    pub ask: SessionAsk,
    /// What was granted: if it would be another thing now, the session has to end.
    pub effect: SessionEffect,
    /// The user that it runs as.
    pub user: String,
    /// When it began.
    pub started: Timestamp,
}

/// How a session's program ended, as its process leaves it beside the record: it may be that nobody is there to hear it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEnd {
    /// How.
    pub end: CommandEnd,
    /// When.
    pub at: Timestamp,
}

/// What a session was asked to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum SessionAsk {
    /// A login shell.
    Shell {},
    /// A program.
    Run {
        /// The words as they were typed; the rule is looked up by the first.
        argv: Vec<String>,
    },
}

/// What a session was granted, as the rules said when it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEffect {
    /// The words to execute, after the alias; absent: the user's login shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// The user to run as; absent: the daemon's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Whether the rule that lets the caller in says which words may follow the command: the program was told then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restricted: bool,
}

impl SessionEffect {
    /// Whether what began with this effect may go on where the rules would now give that one: a wider right ends nothing.
    pub fn goes_on_under(&self, now: &Self) -> bool {
        self.argv == now.argv && self.username == now.username && (self.restricted || !now.restricted)
    }
}

impl SessionRecord {
    /// The words to show: empty for a shell.
    pub fn argv(&self) -> &[String] {
        match &self.ask {
            SessionAsk::Shell {} => &[],
            SessionAsk::Run { argv } => argv,
        }
    }
}

#[cfg(test)]
mod tests {
    use malai_model::id::SecretKey;

    use super::*;

    fn record() -> SessionRecord {
        SessionRecord {
            session: "k3fq7aab".parse().expect("an id"),
            owner: SecretKey::from_bytes(&[1; 32]).id52(),
            cluster: "company".parse().expect("an alias"),
            own: SecretKey::from_bytes(&[2; 32]).id52(),
            ask: SessionAsk::Run { argv: vec!["logs".to_owned(), "-f".to_owned()] },
            effect: SessionEffect {
                argv: Some(vec!["tail".to_owned(), "-f".to_owned()]),
                username: Some("deploy".to_owned()),
                restricted: true,
            },
            user: "deploy".to_owned(),
            started: "2026-11-20T10:30:45Z".parse().expect("a time"),
        }
    }

    #[test]
    fn a_record_s_form_is_stable() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&record()).expect("is a text"));
        let shell = SessionRecord {
            ask: SessionAsk::Shell {},
            effect: SessionEffect { argv: None, username: None, restricted: false },
            ..record()
        };
        insta::assert_snapshot!(serde_json::to_string_pretty(&shell).expect("is a text"));
    }

    #[test]
    fn a_wider_right_ends_nothing_and_any_other_change_does() {
        let restricted = record().effect;
        let free = SessionEffect { restricted: false, ..restricted.clone() };
        assert!(restricted.goes_on_under(&restricted) && restricted.goes_on_under(&free));
        assert!(!free.goes_on_under(&restricted));
        assert!(!free.goes_on_under(&SessionEffect { username: None, ..free.clone() }));
        assert!(!free.goes_on_under(&SessionEffect { argv: None, ..free.clone() }));
    }

    #[test]
    fn a_newer_record_reads_as_far_as_it_is_known() {
        let mut newer = serde_json::to_value(record()).expect("is a value");
        newer["later"] = serde_json::json!({ "a": 1 });
        newer["process"] = serde_json::json!({ "pid": 7, "began": 9, "later": true });
        let read: SessionRecord = serde_json::from_value(newer).expect("reads");
        assert_eq!(read, record());
    }
}
