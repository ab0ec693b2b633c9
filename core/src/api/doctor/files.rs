//! The home's files: modes, clusters, keys, configs.

use std::time::Duration;

use malai_model::code::ErrorCode;

use super::Findings;
use crate::clock::Clock;
use crate::cluster::{self, ClusterError, LoadedCluster};
use crate::home::{ClusterDir, Home, Role};
use crate::identity::KeyStore;

/// Whether others may read what is in the home. The home itself is looked at when it is opened, a key when it is read.
#[cfg(unix)]
pub(super) fn look_at_modes(home: &Home, findings: &mut Findings) {
    use std::os::unix::fs::PermissionsExt;
    let mut loose = Vec::new();
    let mut folders = vec![home.root().to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let is_key = entry.path().extension().is_some_and(|extension| extension == "private-key");
            if !meta.is_symlink() && !is_key && meta.permissions().mode() & 0o077 != 0 {
                loose.push(entry.path());
            }
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    loose.sort();
    if let Some(first) = loose.first() {
        let more = match loose.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        findings.warning(
            "home",
            format!(
                "other users could read {}{more}, were the home itself not closed to them",
                first.display()
            ),
            format!("chmod -R go= {}", home.root().display()),
        );
    }
}

#[cfg(not(unix))]
pub(super) fn look_at_modes(_home: &Home, _findings: &mut Findings) {}

/// Looks at every cluster, and returns those that can be used.
pub(super) fn look_at_clusters(
    home: &Home,
    keys: &dyn KeyStore,
    clock: &dyn Clock,
    findings: &mut Findings,
) -> Vec<LoadedCluster> {
    let survey = match home.survey_clusters() {
        Ok(survey) => survey,
        Err(error) => {
            findings.failure("config", error.to_string(), error.code(), error.hint());
            return Vec::new();
        }
    };
    for problem in survey.problems {
        findings.failure("config", problem.to_string(), problem.code(), problem.hint());
    }
    let mut usable = Vec::new();
    for dir in &survey.clusters {
        match LoadedCluster::load(home, keys, dir) {
            Ok(loaded) => {
                findings.diagnostics("config", &loaded.warnings);
                match dir.role {
                    Role::Manager => look_at_managed(home, keys, &loaded, findings),
                    Role::Machine | Role::Waiting => look_at_member(home, clock, &loaded, findings),
                }
                usable.push(loaded);
            }
            Err(error) => add_error(dir, &error, findings),
        }
    }
    usable
}

fn add_error(dir: &ClusterDir, error: &ClusterError, findings: &mut Findings) {
    let about = match error.code() {
        ErrorCode::KeyMissing | ErrorCode::KeyInvalid | ErrorCode::HomeLoosePermissions => "keys",
        _ => "config",
    };
    findings.failure(about, format!("use {}: {error}", dir.alias), error.code(), error.hint());
    findings.diagnostics(about, &error.diagnostics());
}

fn look_at_managed(home: &Home, keys: &dyn KeyStore, loaded: &LoadedCluster, findings: &mut Findings) {
    let alias = &loaded.alias;
    // What is in force compiles; what was edited since may not.
    match cluster::check(home, keys, alias) {
        Ok(_) => {
            let read = |path| home.load_text(path).ok().flatten();
            if read(&home.cluster_config(alias)) != read(&home.applied_config(alias)) {
                findings.warning(
                    "config",
                    format!("cluster.toml of {alias} was edited, and is not in force"),
                    "malai rescan --check && malai rescan".to_owned(),
                );
            } else {
                let count = loaded.known_machines().len();
                findings.ok("config", format!("{alias} is managed here, with {count} machines"));
            }
        }
        Err(error) => {
            findings.failure("config", error.to_string(), error.code(), error.hint());
            findings.diagnostics("config", &error.diagnostics());
        }
    }
    match cluster::load_state(home, alias) {
        Ok(state) => {
            let has = |id| {
                let state = state.machine_states.get(id);
                state.is_some_and(|state| state.sync_status == malai_model::cluster::SyncStatus::Success)
            };
            let machines = loaded.known_machines();
            let lacking = machines.iter().filter(|(_, id)| *id != loaded.own_id && !has(id));
            let lacking: Vec<&str> = lacking.map(|(name, _)| name.as_str()).collect();
            if !lacking.is_empty() {
                findings.warning(
                    "config",
                    format!("of {alias}, these do not have their newest config: {}", some_of(&lacking)),
                    "malai info says why; it is sent as soon as they can be reached".to_owned(),
                );
            }
        }
        Err(error) => findings.failure("config", error.to_string(), error.code(), error.hint()),
    }
}

fn look_at_member(home: &Home, clock: &dyn Clock, loaded: &LoadedCluster, findings: &mut Findings) {
    let alias = &loaded.alias;
    let Some(serial) = loaded.serial() else {
        return findings.warning(
            "config",
            format!("no config of {alias} has come from its manager yet"),
            format!("malai sync {alias}"),
        );
    };
    let name = loaded.own_name.as_ref().map_or("-", |name| name.as_str());
    let received = std::fs::metadata(home.machine_config(alias)).and_then(|meta| meta.modified());
    let now = std::time::SystemTime::from(clock.now());
    let age = received.ok().and_then(|then| now.duration_since(then).ok());
    let age = age.map_or_else(String::new, |age| format!(", received {} ago", roughly(age)));
    findings.ok("config", format!("{alias}: this device is {name}; its config has serial {serial}{age}"));
}

/// A list for people: not all of two thousand.
pub(super) fn some_of(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    match names.len() {
        0..=SHOWN => names.join(", "),
        all => format!("{} and {} more", names[..SHOWN].join(", "), all - SHOWN),
    }
}

fn roughly(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
