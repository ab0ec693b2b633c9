//! The manager's book of invites (`invites.toml`), and the decision over each registration.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::invite::Token;
use crate::code::ErrorCode;
use crate::id::Id52;
use crate::name::GroupName;

/// `invites.toml`: every invite that the manager made and has not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InviteBook {
    /// By the invite's id52.
    #[serde(default)]
    pub invite: BTreeMap<Id52, InviteRecord>,
    /// What a newer version wrote: kept.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// What the manager keeps of an invite.
///
/// Expiry and uses have no defaults: a record that lost them is refused, not taken as unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRecord {
    /// What the admin calls it (`--alias`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Hex SHA-256 of the token; the token itself is nowhere.
    pub token_hash: String,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is worthless.
    pub expires: Timestamp,
    /// How many machines may register.
    pub max_uses: u32,
    /// Who registered. A machine counts once, however often it asks.
    #[serde(default)]
    pub uses: Vec<Id52>,
    /// When it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// Groups that a new machine is put in (`--group`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupName>,
    /// Made although a rule says `*` (`--open`).
    #[serde(default)]
    pub open: bool,
    /// What a newer version wrote: kept.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// Whether the applied config has the joiner as a machine already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// It has.
    Member,
    /// It has not.
    Stranger,
}

/// What a registration comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinDecision {
    /// It was counted before, or the machine is a member anyway: answer again, count nothing.
    Already,
    /// Count it: call [`InviteRecord::count`] and store the book before answering.
    New,
}

/// Why a registration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteProblem {
    /// No such invite, or a wrong token: deliberately the same.
    #[error("the invite is unknown")]
    Unknown,
    /// Its time is over.
    #[error("the invite expired at {0}")]
    Expired(Timestamp),
    /// As many machines registered as may.
    #[error("the invite was used up: {0} machines registered")]
    UsedUp(u32),
    /// The manager revoked it.
    #[error("the invite was revoked")]
    Revoked,
}

impl InviteProblem {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown => ErrorCode::InviteUnknown,
            Self::Expired(_) => ErrorCode::InviteExpired,
            Self::UsedUp(_) => ErrorCode::InviteUsedUp,
            Self::Revoked => ErrorCode::InviteRevoked,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some("ask the cluster's manager for a new invite".to_owned())
    }
}

/// `invites.toml` cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum InviteBookProblem {
    /// It is no TOML of that shape.
    #[error("invites.toml is not what malai writes")]
    Malformed(#[source] Box<toml_edit::de::Error>),
    /// What a newer version put in it cannot be written back.
    #[error("invites.toml holds something that this version of malai cannot write")]
    Unwritable(#[source] Box<toml_edit::ser::Error>),
}

impl InviteBookProblem {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::HomeStorage
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Malformed(_) => Some("mend the file, or move it away and make new invites".to_owned()),
            Self::Unwritable(_) => Some("update malai on this machine".to_owned()),
        }
    }
}

impl InviteBook {
    /// Reads `invites.toml`.
    ///
    /// # Errors
    /// [`InviteBookProblem::Malformed`], also for a record that lost its expiry or its limit of uses.
    pub fn parse(text: &str) -> Result<Self, InviteBookProblem> {
        toml_edit::de::from_str(text).map_err(|problem| InviteBookProblem::Malformed(Box::new(problem)))
    }

    /// Gives the text of `invites.toml`.
    ///
    /// # Errors
    /// [`InviteBookProblem::Unwritable`]: the file on disk is to be left as it is.
    pub fn to_text(&self) -> Result<String, InviteBookProblem> {
        toml_edit::ser::to_string_pretty(self)
            .map_err(|problem| InviteBookProblem::Unwritable(Box::new(problem)))
    }
}

impl InviteRecord {
    /// Counts a registration. A machine counts once.
    pub fn count(&mut self, joiner: &Id52) {
        if !self.uses.contains(joiner) {
            self.uses.push(*joiner);
        }
    }

    fn has_token(&self, token: &Token) -> bool {
        self.token_hash.as_bytes().ct_eq(token.hash().as_bytes()).into()
    }
}

/// Decides over a registration. `record` is the one of the invite that was dialled; `joiner` is the connection's peer.
///
/// Whoever does not have the token learns nothing: not even whether there is such an invite. A machine whose answer was
/// lost may ask again after the invite expired or was used up, as long as it is a member; one that was removed since has to
/// find the invite valid.
///
/// # Errors
/// [`InviteProblem`]; it is sent to the joiner.
pub fn check_join(
    record: Option<&InviteRecord>,
    token: &Token,
    joiner: &Id52,
    membership: Membership,
    now: Timestamp,
) -> Result<JoinDecision, InviteProblem> {
    let record = record.filter(|record| record.has_token(token)).ok_or(InviteProblem::Unknown)?;
    if record.revoked.is_some() {
        return Err(InviteProblem::Revoked);
    }
    let registered = record.uses.contains(joiner);
    if registered && membership == Membership::Member {
        return Ok(JoinDecision::Already);
    }
    if now >= record.expires {
        return Err(InviteProblem::Expired(record.expires));
    }
    if membership == Membership::Member {
        return Ok(JoinDecision::Already);
    }
    // Whoever was removed from the cluster since is no better than anybody else who holds the invite: one that is used up
    // is dead for it too.
    if record.uses.len() >= record.max_uses as usize {
        return Err(InviteProblem::UsedUp(record.max_uses));
    }
    Ok(JoinDecision::New)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SecretKey;

    fn id(n: u8) -> Id52 {
        SecretKey::from_bytes(&[n; 32]).id52()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    fn token() -> Token {
        Token::from_bytes([1; 16])
    }

    fn record() -> InviteRecord {
        InviteRecord {
            label: "conf".to_owned(),
            token_hash: token().hash(),
            created: at(0),
            expires: at(100),
            max_uses: 1,
            uses: Vec::new(),
            revoked: None,
            groups: Vec::new(),
            open: false,
            extra: BTreeMap::new(),
        }
    }

    fn check(
        record: &InviteRecord,
        joiner: u8,
        membership: Membership,
        now: i64,
    ) -> Result<JoinDecision, InviteProblem> {
        check_join(Some(record), &token(), &id(joiner), membership, at(now))
    }

    #[test]
    fn a_machine_counts_once() {
        let mut record = record();
        assert_eq!(check(&record, 1, Membership::Stranger, 0), Ok(JoinDecision::New));
        record.count(&id(1));
        record.count(&id(1));
        assert_eq!(record.uses.len(), 1);
        assert_eq!(check(&record, 1, Membership::Member, 0), Ok(JoinDecision::Already));
        // Removed from the cluster since.
        assert_eq!(check(&record, 1, Membership::Stranger, 0), Err(InviteProblem::UsedUp(1)));
        assert_eq!(check(&record, 2, Membership::Stranger, 0), Err(InviteProblem::UsedUp(1)));
        assert_eq!(check(&record, 2, Membership::Member, 0), Ok(JoinDecision::Already));
    }

    #[test]
    fn an_expired_invite_lets_nobody_in_anew() {
        let mut record = record();
        assert_eq!(check(&record, 1, Membership::Stranger, 99), Ok(JoinDecision::New));
        assert_eq!(check(&record, 1, Membership::Stranger, 100), Err(InviteProblem::Expired(at(100))));
        record.count(&id(1));
        assert_eq!(check(&record, 1, Membership::Member, 100), Ok(JoinDecision::Already));
        // Removed from the cluster since.
        assert_eq!(check(&record, 1, Membership::Stranger, 100), Err(InviteProblem::Expired(at(100))));
    }

    #[test]
    fn a_revoked_invite_lets_nobody_in_at_all() {
        let mut record = record();
        record.count(&id(1));
        record.revoked = Some(at(1));
        assert_eq!(check(&record, 1, Membership::Member, 2), Err(InviteProblem::Revoked));
        assert_eq!(check(&record, 2, Membership::Stranger, 2), Err(InviteProblem::Revoked));
    }

    #[test]
    fn the_book_reads_back_with_what_a_newer_version_wrote() {
        let mut record = record();
        record.count(&id(1));
        let book = InviteBook { invite: BTreeMap::from([(id(7), record)]), extra: BTreeMap::new() };
        let text = book.to_text().expect("it is TOML");
        assert_eq!(InviteBook::parse(&text).expect("it reads back"), book);
        let newer = text.replace("open = false", "open = false\napprove = true\nnotes = [\"a\"]");
        let read = InviteBook::parse(&newer).expect("newer fields are kept");
        assert_eq!(read.invite[&id(7)].extra.len(), 2);
        let written = read.to_text().expect("it is TOML");
        assert_eq!(InviteBook::parse(&written).expect("it reads back"), read);
        assert_eq!(InviteBook::parse("").expect("an empty book"), InviteBook::default());
    }

    #[test]
    fn a_record_without_its_limits_is_refused() {
        let book = InviteBook { invite: BTreeMap::from([(id(7), record())]), extra: BTreeMap::new() };
        let text = book.to_text().expect("it is TOML");
        for lost in ["expires", "max_uses", "token_hash"] {
            let without: Vec<&str> = text.lines().filter(|line| !line.starts_with(lost)).collect();
            assert_eq!(without.len() + 1, text.lines().count());
            assert!(InviteBook::parse(&without.join("\n")).is_err(), "{lost}");
        }
    }

    #[test]
    fn without_the_token_nothing_is_revealed() {
        let wrong = Token::from_bytes([2; 16]);
        let mut dead = record();
        dead.revoked = Some(at(1));
        dead.max_uses = 0;
        for record in [None, Some(&record()), Some(&dead)] {
            let decision = check_join(record, &wrong, &id(1), Membership::Stranger, at(1000));
            assert_eq!(decision, Err(InviteProblem::Unknown));
        }
        let mut broken = record();
        broken.token_hash.clear();
        let decision = check_join(Some(&broken), &token(), &id(1), Membership::Stranger, at(0));
        assert_eq!(decision, Err(InviteProblem::Unknown));
    }
}
