//! What a manager does to its own files.

use std::path::Path;

use jiff::Timestamp;
use malai_model::cluster::{
    DistributionState, JoinDecision, JoinEdit, JoinTerms, Membership, Token, accept_join, check_join,
    plan_join,
};
use malai_model::config::{ClusterConfig, add_machine, new_cluster, root_digest};
use malai_model::diagnostic::Diagnostic;
use malai_model::id::{Id52, SecretKey};
use malai_model::name::ClusterAlias;
use malai_model::wire::{JoinAccepted, JoinRequest};

use super::invites::{load_book, save_book};
use super::loaded::{find_cluster, required_text};
use super::{ClusterError, LoadedCluster};
use crate::home::{Home, Role, WriteGuard};
use crate::identity::{KeyRef, KeyStore, make_secret_key};

/// A `cluster.toml` that was found good, as it was read then: what [`apply`] puts in force is what was checked, even if
/// somebody saves the file in between.
#[derive(Debug)]
pub struct Checked {
    loaded: LoadedCluster,
    text: String,
}

impl Checked {
    /// The cluster as the text has it.
    pub fn loaded(&self) -> &LoadedCluster {
        &self.loaded
    }

    /// Gives the cluster as the text has it.
    pub fn into_loaded(self) -> LoadedCluster {
        self.loaded
    }
}

/// Makes a cluster; this device becomes its manager.
///
/// # Errors
/// When the alias is taken or the files cannot be written.
pub fn init_cluster(
    home: &Home,
    keys: &dyn KeyStore,
    alias: &ClusterAlias,
    cluster_name: &str,
) -> Result<LoadedCluster, ClusterError> {
    let guard = home.lock_for_writing_blocking()?;
    let root_key = KeyRef::ClusterRoot(alias.clone());
    let next_key = KeyRef::NextRoot(alias.clone());
    if let Some(dir) = find_cluster(home, alias)? {
        // What a crash in the middle of this very function leaves is a root key and nothing else: go on from there.
        let interrupted = dir.role == Role::Waiting
            && keys.load(&root_key)?.is_some()
            && keys.load(&KeyRef::Machine(alias.clone()))?.is_none();
        if !interrupted {
            return Err(ClusterError::Exists(alias.clone()));
        }
    } else {
        home.make_cluster_dir(&guard, alias)?;
    }
    let root = existing_or_new(keys, &guard, &root_key)?;
    existing_or_new(keys, &guard, &next_key)?;
    let text = new_cluster(&root, cluster_name);
    home.write(&guard, &home.state_file(alias), new_state(alias).to_text().as_bytes())?;
    home.write(&guard, &home.applied_config(alias), text.as_bytes())?;
    // The last write makes the role: before it, the directory is nobody's cluster yet.
    home.write(&guard, &home.cluster_config(alias), text.as_bytes())?;
    let (config, warnings) = compile(home, alias, &text)?;
    Ok(LoadedCluster::of_master(alias.clone(), root, config, warnings, &text))
}

fn existing_or_new(keys: &dyn KeyStore, guard: &WriteGuard, key: &KeyRef) -> Result<Id52, ClusterError> {
    if let Some(secret) = keys.load(key)? {
        return Ok(secret.id52());
    }
    let secret = make_secret_key()?;
    keys.store(guard, key, &secret)?;
    Ok(secret.id52())
}

fn compile(
    home: &Home,
    alias: &ClusterAlias,
    text: &str,
) -> Result<(ClusterConfig, Vec<Diagnostic>), ClusterError> {
    let file = home.cluster_config(alias).display().to_string();
    malai_model::config::compile(&file, text)
        .into_result()
        .map_err(|problems| ClusterError::Config { file, problems })
}

/// Validates `cluster.toml` as it is on disk, and that it is this root's.
///
/// # Errors
/// With everything that is wrong with the file.
pub fn check(home: &Home, keys: &dyn KeyStore, alias: &ClusterAlias) -> Result<Checked, ClusterError> {
    let text = required_text(home, &home.cluster_config(alias))?;
    Ok(Checked { loaded: checked(home, keys, alias, &text)?, text })
}

fn checked(
    home: &Home,
    keys: &dyn KeyStore,
    alias: &ClusterAlias,
    text: &str,
) -> Result<LoadedCluster, ClusterError> {
    let (config, warnings) = compile(home, alias, text)?;
    let own = load_key(keys, KeyRef::ClusterRoot(alias.clone()), alias)?.id52();
    if config.manager().id52 != own {
        return Err(ClusterError::OtherRoot { alias: alias.clone(), written: config.manager().id52, own });
    }
    Ok(LoadedCluster::of_master(alias.clone(), own, config, warnings, text))
}

/// Puts a text that was checked in force: from now on it is the applied one. The text that it replaces goes to the
/// history. Returns the cluster as it is now.
///
/// # Errors
/// When files cannot be written; then the old text is still the applied one.
pub fn apply(
    home: &Home,
    guard: &WriteGuard,
    checked: Checked,
    now: Timestamp,
) -> Result<LoadedCluster, ClusterError> {
    let Checked { loaded, text } = checked;
    let alias = &loaded.alias;
    let before = home.load_text(&home.applied_config(alias))?;
    if before.as_deref() != Some(text.as_str()) {
        if let Some(before) = before {
            let name = now.strftime("%Y%m%dT%H%M%S%.3fZ.toml").to_string();
            home.write(guard, &home.history_dir(alias).join(name), before.as_bytes())?;
        }
        home.write(guard, &home.applied_config(alias), text.as_bytes())?;
    }
    Ok(loaded)
}

/// A machine that was registered.
#[derive(Debug)]
pub struct Registered {
    /// What the machine is told, without the manager's addresses.
    pub accepted: JoinAccepted,
    /// The cluster as it is now.
    pub loaded: LoadedCluster,
}

/// Registers the machine that dialled an invite. Runs at the manager; the joiner's identity is the connection's.
///
/// The new entry grants nothing. It goes into the applied text and into the text on disk, each with its comments kept,
/// so that an edit under way loses nothing and is not put in force by the way.
///
/// # Errors
/// When the invite does not hold, or the config on disk does not compile: then the join waits. When the config would not
/// hold with the new entry (an access test of its groups fails, say). Whatever is refused changes no file.
pub fn register(
    home: &Home,
    keys: &dyn KeyStore,
    alias: &ClusterAlias,
    invite: &Id52,
    joiner: &Id52,
    request: &JoinRequest,
    now: Timestamp,
) -> Result<Registered, ClusterError> {
    let guard = home.lock_for_writing_blocking()?;
    let mut book = load_book(home, alias)?;
    let applied_path = home.applied_config(alias);
    let disk_path = home.cluster_config(alias);
    let applied_text = required_text(home, &applied_path)?;
    let (applied, warnings) = compile(home, alias, &applied_text)?;
    let membership = match applied.machine_of(joiner) {
        Some(_) => Membership::Member,
        None => Membership::Stranger,
    };
    let record = book.invite.get_mut(invite);
    // A token that is no token is a wrong one.
    let token = Token::from_hex(&request.token).ok_or(malai_model::cluster::InviteProblem::Unknown)?;
    let decision = check_join(record.as_deref(), &token, joiner, membership, now)?;
    let record = record.ok_or(malai_model::cluster::InviteProblem::Unknown)?;
    // A rule that says `*` may have come after the invite was made.
    malai_model::cluster::check_open(&applied, record).map_err(|_| ClusterError::NowOpen)?;
    let disk_text = required_text(home, &disk_path)?;
    let Ok((disk, _)) = compile(home, alias, &disk_text) else { return Err(ClusterError::JoinsWait) };
    // A name must be free in both texts, or the edit under way could not be applied any more. Who is on disk already
    // keeps the name that it has there.
    let on_disk = plan_join(&disk, record, joiner, request.name.as_ref());
    let plan = plan_join(&applied, record, joiner, Some(&on_disk.name));
    let settled = plan_join(&disk, record, joiner, Some(&plan.name));
    if plan.edit.is_some() && settled.edit.is_some() && settled.name != plan.name {
        return Err(ClusterError::JoinsWait);
    }
    // All that may fail for another reason than the disk comes before the first write.
    let root = load_key(keys, KeyRef::ClusterRoot(alias.clone()), alias)?;
    let next = load_key(keys, KeyRef::NextRoot(alias.clone()), alias)?.id52();
    let new_disk = match &settled.edit {
        Some(edit) => {
            let text = add(&disk_path, &disk_text, edit)?;
            // Only the edit under way is in the way: it may be mended.
            compile(home, alias, &text).map_err(|_| ClusterError::JoinsWait)?;
            Some(text)
        }
        None => None,
    };
    let new_applied = match &plan.edit {
        Some(edit) => {
            let text = add(&applied_path, &applied_text, edit)?;
            Some((checked(home, keys, alias, &text)?, text))
        }
        None => None,
    };
    // The config first. After a crash before the book is written the same machine asks again, is a member, and is counted
    // then; the other way round a single use could be spent on a machine that is nobody.
    if let Some(text) = &new_disk {
        home.write(&guard, &disk_path, text.as_bytes())?;
    }
    if let Some((_, text)) = &new_applied {
        home.write(&guard, &applied_path, text.as_bytes())?;
    }
    if decision == JoinDecision::New || !record.uses.contains(joiner) {
        record.count(joiner);
        save_book(home, &guard, alias, &book)?;
    }
    let loaded = match new_applied {
        Some((loaded, _)) => loaded,
        None => {
            let root = applied.manager().id52;
            LoadedCluster::of_master(alias.clone(), root, applied, warnings, &applied_text)
        }
    };
    let terms = JoinTerms {
        cluster_name: loaded.cluster_name.clone().unwrap_or_default(),
        machine: plan.name,
        next_root: root_digest(&next),
        addresses: Vec::new(),
    };
    Ok(Registered { accepted: accept_join(&root, invite, joiner, terms), loaded })
}

fn add(path: &Path, text: &str, new: &JoinEdit) -> Result<String, ClusterError> {
    add_machine(text, &new.name, &new.id52, &[], &new.groups)
        .map_err(|source| ClusterError::Edit { file: path.display().to_string(), source })
}

fn new_state(alias: &ClusterAlias) -> DistributionState {
    DistributionState { cluster_alias: alias.to_string(), ..DistributionState::default() }
}

/// Reads what was distributed to whom. A broken file is an error: guessing could hand out a used serial.
///
/// # Errors
/// When the file cannot be read.
pub fn load_state(home: &Home, alias: &ClusterAlias) -> Result<DistributionState, ClusterError> {
    let file = home.state_file(alias);
    match home.load_text(&file)? {
        Some(text) => DistributionState::parse(&text).map_err(|source| ClusterError::State { file, source }),
        None => Ok(new_state(alias)),
    }
}

/// Writes what was distributed to whom.
///
/// # Errors
/// When the file cannot be written.
pub fn save_state(home: &Home, alias: &ClusterAlias, state: &DistributionState) -> Result<(), ClusterError> {
    let guard = home.lock_for_writing_blocking()?;
    Ok(home.write(&guard, &home.state_file(alias), state.to_text().as_bytes())?)
}

/// Loads a private key that must be there.
pub(crate) fn load_key(
    keys: &dyn KeyStore,
    key: KeyRef,
    alias: &ClusterAlias,
) -> Result<SecretKey, ClusterError> {
    match keys.load(&key)? {
        Some(secret) => Ok(secret),
        None => Err(ClusterError::NoKey { alias: alias.clone(), file: key.to_string() }),
    }
}
