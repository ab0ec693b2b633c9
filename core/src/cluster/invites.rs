//! A manager's invites, as they are on disk.

use jiff::Timestamp;
use malai_model::cluster::{Invite, InviteBook, InviteRecord, Token, open_rules};
use malai_model::id::Id52;
use malai_model::name::{ClusterAlias, GroupName};

use super::{ClusterError, LoadedCluster, Rules};
use crate::home::{Home, WriteGuard};
use crate::identity::{KeyRef, KeyStore, make_random, make_secret_key};

/// What a new invite shall be.
#[derive(Debug, Clone)]
pub struct NewInvite {
    /// What the manager calls it.
    pub label: Option<String>,
    /// When it ends.
    pub expires: Timestamp,
    /// How many machines may join with it.
    pub max_uses: u32,
    /// Groups that they are added to.
    pub groups: Vec<GroupName>,
    /// Whether a rule that says `*` is accepted.
    pub open: bool,
}

/// Reads a cluster's invites; absent means none.
pub(super) fn load_book(home: &Home, alias: &ClusterAlias) -> Result<InviteBook, ClusterError> {
    let file = home.invites_file(alias);
    let Some(text) = home.load_text(&file)? else { return Ok(InviteBook::default()) };
    InviteBook::parse(&text).map_err(|source| ClusterError::InviteBook { file, source })
}

pub(super) fn save_book(
    home: &Home,
    guard: &WriteGuard,
    alias: &ClusterAlias,
    book: &InviteBook,
) -> Result<(), ClusterError> {
    let file = home.invites_file(alias);
    let text = book.to_text().map_err(|source| ClusterError::InviteBook { file: file.clone(), source })?;
    Ok(home.write(guard, &file, text.as_bytes())?)
}

/// Makes an invite: an identity of its own and a token. Its word has no address hints yet.
///
/// # Errors
/// When a rule of the cluster says `*` and that is not accepted, a group does not exist, or files cannot be written.
pub fn create_invite(
    home: &Home,
    keys: &dyn KeyStore,
    cluster: &LoadedCluster,
    new: NewInvite,
    now: Timestamp,
) -> Result<(Id52, Token, InviteRecord), ClusterError> {
    let Rules::Master { config } = &cluster.rules else {
        return Err(ClusterError::NotManager(cluster.alias.clone()));
    };
    let open = open_rules(config);
    if !new.open && !open.is_empty() {
        return Err(ClusterError::OpenRules(open));
    }
    if let Some(group) = new.groups.iter().find(|group| !config.groups().contains_key(*group)) {
        return Err(ClusterError::UnknownGroup(group.to_string()));
    }
    let alias = &cluster.alias;
    let guard = home.lock_for_writing_blocking()?;
    let mut book = load_book(home, alias)?;
    let secret = make_secret_key()?;
    let id52 = secret.id52();
    let token = Token::from_bytes(make_random()?);
    let record = InviteRecord {
        label: new.label.unwrap_or_default(),
        token_hash: token.hash(),
        created: now,
        expires: new.expires,
        max_uses: new.max_uses,
        uses: Vec::new(),
        revoked: None,
        groups: new.groups,
        open: new.open,
        extra: Default::default(),
    };
    keys.store(&guard, &KeyRef::Invite(alias.clone(), id52), &secret)?;
    book.invite.insert(id52, record.clone());
    save_book(home, &guard, alias, &book)?;
    Ok((id52, token, record))
}

/// Lists a cluster's invites, oldest first.
///
/// # Errors
/// When the file cannot be read.
pub fn list_invites(home: &Home, alias: &ClusterAlias) -> Result<Vec<(Id52, InviteRecord)>, ClusterError> {
    let mut invites: Vec<_> = load_book(home, alias)?.invite.into_iter().collect();
    invites.sort_by_key(|(_, record)| record.created);
    Ok(invites)
}

/// Ends an invite, named by its word, its id52 or its label, and wipes its key. A label may name several.
///
/// # Errors
/// When no invite goes by that name, or files cannot be written.
pub fn revoke_invite(
    home: &Home,
    keys: &dyn KeyStore,
    alias: &ClusterAlias,
    wanted: &str,
    now: Timestamp,
) -> Result<Vec<(Id52, InviteRecord)>, ClusterError> {
    let guard = home.lock_for_writing_blocking()?;
    let mut book = load_book(home, alias)?;
    let id = wanted.parse::<Invite>().ok().map(|invite| *invite.id52()).or_else(|| wanted.parse().ok());
    let mut ended = Vec::new();
    for (id52, record) in &mut book.invite {
        let meant = match &id {
            Some(id) => id52 == id,
            None => record.label == wanted && !wanted.is_empty(),
        };
        if meant {
            record.revoked.get_or_insert(now);
            ended.push((*id52, record.clone()));
        }
    }
    if ended.is_empty() {
        // A mistyped invite still holds most of a secret: it is not repeated.
        let wanted = if wanted.len() > 63 { "of that text".to_owned() } else { format!("{wanted:?}") };
        return Err(ClusterError::UnknownInvite { cluster: alias.clone(), wanted });
    }
    save_book(home, &guard, alias, &book)?;
    for (id52, _) in &ended {
        keys.delete(&guard, &KeyRef::Invite(alias.clone(), *id52))?;
    }
    Ok(ended)
}
