//! Joining a cluster: the machine's side.

use std::time::Duration;

use malai_model::cluster::{Invite, verify_accepted};
use malai_model::id::{Id52, SecretKey};
use malai_model::name::{ClusterAlias, MachineName};
use malai_model::wire::{JoinAccepted, JoinRequest, Notice};
use serde_json::Value;

use super::ClusterError;
use super::loaded::find_cluster;
use crate::home::{ClusterDir, ClusterInfo, Home, Role};
use crate::identity::{KeyRef, KeyStore, make_secret_key};
use crate::p2p::{CloseReason, Connection, Endpoint, P2pError, Protocol};
use crate::timeouts;

/// An identity that waits for its manager's answer.
#[derive(Debug, Clone)]
pub struct PendingJoin {
    /// What this device calls the cluster.
    pub alias: ClusterAlias,
    /// The invite to dial.
    pub invite: Invite,
    /// The name that this machine would like to have.
    pub name: Option<MachineName>,
}

/// Makes the identity of a machine and remembers the invite, so that nothing is lost whatever happens next. Running it
/// again for a join that is still pending keeps the identity.
///
/// # Errors
/// When the alias is taken or files cannot be written.
pub fn prepare_join(home: &Home, keys: &dyn KeyStore, join: &PendingJoin) -> Result<SecretKey, ClusterError> {
    let guard = home.lock_for_writing_blocking()?;
    let key = KeyRef::Machine(join.alias.clone());
    match find_cluster(home, &join.alias)? {
        None => {
            home.make_cluster_dir(&guard, &join.alias)?;
        }
        Some(dir) if is_unanswered(home, keys, &dir)? => {}
        Some(_) => return Err(ClusterError::Exists(join.alias.clone())),
    }
    let secret = match keys.load(&key)? {
        Some(secret) => secret,
        None => {
            let secret = make_secret_key()?;
            keys.store(&guard, &key, &secret)?;
            secret
        }
    };
    let info = ClusterInfo { machine: join.name.clone(), ..ClusterInfo::default() };
    home.save_cluster_info(&guard, &join.alias, &info)?;
    home.save_pending_invite(&guard, &join.alias, &join.invite.to_word())?;
    Ok(secret)
}

/// Whether nobody is pinned yet in a directory: a join waits there, or a crash left the beginning of one.
fn is_unanswered(home: &Home, keys: &dyn KeyStore, dir: &ClusterDir) -> Result<bool, ClusterError> {
    let pinned = home.load_cluster_info(&dir.alias)?.is_some_and(|info| info.manager.is_some());
    let managed = keys.load(&KeyRef::ClusterRoot(dir.alias.clone()))?.is_some();
    Ok(dir.role == Role::Waiting && !pinned && !managed)
}

/// Pins a manager that was named by hand, with an identity for this machine. Nothing is registered and nobody is dialled.
///
/// # Errors
/// When the alias is taken or files cannot be written.
pub fn pin_manager(
    home: &Home,
    keys: &dyn KeyStore,
    alias: &ClusterAlias,
    manager: &Id52,
    name: Option<&MachineName>,
) -> Result<Id52, ClusterError> {
    let guard = home.lock_for_writing_blocking()?;
    let key = KeyRef::Machine(alias.clone());
    match find_cluster(home, alias)? {
        None => {
            home.make_cluster_dir(&guard, alias)?;
        }
        // What a crash in the middle of this function leaves. A join by invite that waits has an invite, too.
        Some(dir) if is_unanswered(home, keys, &dir)? && home.load_pending_invite(alias)?.is_none() => {}
        Some(_) => return Err(ClusterError::Exists(alias.clone())),
    }
    // The key first: a directory that says whom it obeys and has no key stops the daemon.
    let id52 = match keys.load(&key)? {
        Some(secret) => secret.id52(),
        None => {
            let secret = make_secret_key()?;
            keys.store(&guard, &key, &secret)?;
            secret.id52()
        }
    };
    let info = ClusterInfo { manager: Some(*manager), machine: name.cloned(), ..ClusterInfo::default() };
    home.save_cluster_info(&guard, alias, &info)?;
    Ok(id52)
}

/// Reads a join that still waits for its manager; `None` if there is none.
///
/// # Errors
/// When files cannot be read, or the invite that was kept is none.
pub fn load_pending(home: &Home, alias: &ClusterAlias) -> Result<Option<PendingJoin>, ClusterError> {
    let Some(word) = home.load_pending_invite(alias)? else { return Ok(None) };
    let invite = word.trim().parse().map_err(ClusterError::NoInvite)?;
    let name = home.load_cluster_info(alias)?.and_then(|info| info.machine);
    Ok(Some(PendingJoin { alias: alias.clone(), invite, name }))
}

/// Takes back [`prepare_join`]: the identity is wiped and the alias is free again. A join that was answered meanwhile, or
/// begun anew with another invite, stays as it is. Returns whether it was taken back.
///
/// # Errors
/// When files cannot be read or removed.
pub fn abandon_join(home: &Home, keys: &dyn KeyStore, join: &PendingJoin) -> Result<bool, ClusterError> {
    let guard = home.lock_for_writing_blocking()?;
    let alias = &join.alias;
    let pending = home.load_pending_invite(alias)?;
    if pending.is_none_or(|word| *word != *join.invite.to_word()) {
        return Ok(false);
    }
    home.delete_pending_invite(&guard, alias)?;
    keys.delete(&guard, &KeyRef::Machine(alias.clone()))?;
    home.remove_dir(&guard, &home.cluster_dir(alias))?;
    Ok(true)
}

/// Dials an invite and registers. The answer is checked to come from the root that it names.
///
/// # Errors
/// When nobody answers, the manager refuses, or the answer is not proven.
pub async fn dial_invite(
    endpoint: &Endpoint,
    join: &PendingJoin,
    deadline: Duration,
) -> Result<JoinAccepted, ClusterError> {
    let invite = &join.invite;
    let connection = endpoint.connect(*invite.id52(), Protocol::Invite, invite.hints(), deadline).await?;
    let answer = tokio::time::timeout(timeouts::REPLY, ask(&connection, join))
        .await
        .map_err(|_| P2pError::Lost { reason: "no answer to the invite in time".to_owned() })??;
    verify_accepted(&answer, invite.id52(), &endpoint.id52())?;
    connection.close(CloseReason::normal());
    Ok(answer)
}

async fn ask(connection: &Connection, join: &PendingJoin) -> Result<JoinAccepted, ClusterError> {
    let mut stream = connection.open_stream().await?;
    let request = JoinRequest { token: join.invite.token().to_hex().to_string(), name: join.name.clone() };
    stream.sender.send_message(&request).await?;
    let Some(answer) = stream.receiver.message::<Value>().await? else {
        return Err(ClusterError::OutOfTurn("no answer to the invite"));
    };
    if let Ok(accepted) = serde_json::from_value::<JoinAccepted>(answer.clone()) {
        return Ok(accepted);
    }
    match serde_json::from_value::<Notice>(answer) {
        Ok(Notice::Failed(error)) => Err(ClusterError::JoinRefused(error)),
        _ => Err(ClusterError::OutOfTurn("an answer to the invite that cannot be read")),
    }
}

/// Pins the root that answered and forgets the invite.
///
/// # Errors
/// When files cannot be written.
pub fn remember_accepted(
    home: &Home,
    alias: &ClusterAlias,
    accepted: &JoinAccepted,
) -> Result<(), ClusterError> {
    let guard = home.lock_for_writing_blocking()?;
    let info = ClusterInfo {
        manager: Some(accepted.manager),
        cluster_name: Some(accepted.cluster_name.clone()),
        machine: Some(accepted.machine.clone()),
        next_root: Some(accepted.next_root.clone()),
        ..home.load_cluster_info(alias)?.unwrap_or_default()
    };
    home.save_cluster_info(&guard, alias, &info)?;
    home.delete_pending_invite(&guard, alias)?;
    Ok(())
}
