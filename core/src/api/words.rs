//! The words that mean something on this device: for completing what is typed, and for saying what hides what.

use malai_model::alias::Aliases;
use malai_model::targets::Reachable;

use super::ClientOptions;
use crate::cluster::LoadedCluster;
use crate::error::Error;
use crate::home::{Create, Home};
use crate::identity::FileKeyStore;
use crate::node::load_device;

/// Words of a home, each sort sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownWords {
    /// The clusters, as this device calls them.
    pub clusters: Vec<String>,
    /// The machines that may be reached: `web01.company`.
    pub machines: Vec<String>,
    /// The groups among them: `@admins.company`.
    pub groups: Vec<String>,
    /// The aliases, with whether one is an address alone.
    pub aliases: Aliases,
}

/// Reads a home's words from its files: no network, no daemon. What cannot be read is left out.
///
/// # Errors
/// When there is no home, or it cannot be used.
pub fn known_words(options: ClientOptions) -> Result<KnownWords, Error> {
    let home = Home::open(options.home, Create::No)?;
    let keys = options.keys.unwrap_or_else(|| std::sync::Arc::new(FileKeyStore::new(home.clone())));
    let mut words = KnownWords {
        aliases: load_device(&home).map(|(device, _)| device.aliases).unwrap_or_default(),
        ..KnownWords::default()
    };
    for dir in home.survey_clusters()?.clusters {
        words.clusters.push(dir.alias.to_string());
        let loaded = LoadedCluster::load(&home, keys.as_ref(), &dir);
        let Ok(Reachable { machines, own, groups }) = loaded.and_then(|loaded| loaded.reachable()) else {
            continue;
        };
        let own = own.map(|(name, _)| name).filter(|name| !machines.contains_key(name));
        words.machines.extend(machines.keys().chain(&own).map(|name| format!("{name}.{}", dir.alias)));
        words.groups.extend(groups.keys().map(|name| format!("@{name}.{}", dir.alias)));
    }
    words.machines.sort();
    Ok(words)
}

/// Reads a home's aliases.
///
/// # Errors
/// When there is no home, it cannot be used, or its `malai.toml` does not compile.
pub fn aliases(options: ClientOptions) -> Result<Aliases, Error> {
    let home = Home::open(options.home, Create::No)?;
    Ok(load_device(&home).map(|(device, _)| device.aliases)?)
}
