//! A cluster directory, read and compiled.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use malai_model::acl::{
    Action, Authorized, Ceilings, Denied, DenyReason, Policy, Reach, Run, Shell, authorize_under,
};
use malai_model::address::MachineSelector;
use malai_model::config::{ClusterConfig, MachineConfig, text_digest};
use malai_model::diagnostic::Diagnostic;
use malai_model::id::Id52;
use malai_model::name::{ClusterAlias, MachineName, ServiceName};
use malai_model::targets::Reachable;

use super::ClusterError;
use crate::home::{ClusterDir, Home, HomeError, Role};
use crate::identity::{KeyRef, KeyStore};

/// A cluster of this home, ready to be asked. Immutable: a change makes a new one.
#[derive(Debug)]
pub struct LoadedCluster {
    /// What this device calls it.
    pub alias: ClusterAlias,
    /// What this device is in it.
    pub role: Role,
    /// This device's identity in it.
    pub own_id: Id52,
    /// The manager that is pinned; absent while an invite has not been answered.
    pub manager: Option<Id52>,
    /// What it calls itself, once known.
    pub cluster_name: Option<String>,
    /// This device's name in it, if it is a machine.
    pub own_name: Option<MachineName>,
    /// The rules in force.
    pub rules: Rules,
    /// What is odd about those rules.
    pub warnings: Vec<Diagnostic>,
    /// SHA-256 of their text in hex; absent, if there are none.
    pub digest: Option<String>,
    policy: Option<Policy>,
    admitted: HashSet<Id52>,
}

/// The rules that a device goes by.
#[derive(Debug, Clone)]
pub enum Rules {
    /// The manager's: the whole cluster, as last applied.
    Master {
        /// Compiled.
        config: Arc<ClusterConfig>,
    },
    /// A machine's: what its manager signed for it.
    Own {
        /// Compiled.
        config: Arc<MachineConfig>,
        /// The exact text, signature and all.
        text: Arc<str>,
    },
    /// None yet.
    Absent,
}

/// A machine that can be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetMachine {
    /// Its name, if it is known by one.
    pub name: Option<MachineName>,
    /// Its identity.
    pub id52: Id52,
    /// Where it may be found.
    pub addresses: Vec<String>,
}

impl LoadedCluster {
    /// Reads and compiles a cluster directory.
    ///
    /// # Errors
    /// When a file is missing, unreadable, or does not compile.
    pub fn load(home: &Home, keys: &dyn KeyStore, dir: &ClusterDir) -> Result<Self, ClusterError> {
        match dir.role {
            Role::Manager => Self::load_manager(home, keys, dir),
            Role::Machine | Role::Waiting => Self::load_member(home, keys, dir),
        }
    }

    fn load_manager(home: &Home, keys: &dyn KeyStore, dir: &ClusterDir) -> Result<Self, ClusterError> {
        let own_id = key_id(keys, KeyRef::ClusterRoot(dir.alias.clone()), &dir.alias)?;
        let path = home.applied_config(&dir.alias);
        let text = match home.load_text(&path)? {
            Some(text) => text,
            // A home restored without it: what the admin edits is all there is.
            None => required_text(home, &home.cluster_config(&dir.alias))?,
        };
        let file = path.display().to_string();
        let (config, warnings) = malai_model::config::compile(&file, &text)
            .into_result()
            .map_err(|problems| ClusterError::Config { file, problems })?;
        Ok(Self::of_master(dir.alias.clone(), own_id, config, warnings, &text))
    }

    /// Makes the manager's view of a compiled config.
    pub(crate) fn of_master(
        alias: ClusterAlias,
        own_id: Id52,
        config: ClusterConfig,
        warnings: Vec<Diagnostic>,
        text: &str,
    ) -> Self {
        let own_name = config.machine_of(&own_id).map(|(name, _)| name.clone());
        Self {
            alias,
            role: Role::Manager,
            own_id,
            manager: Some(own_id),
            cluster_name: Some(config.manager().cluster_name.clone()),
            own_name,
            policy: Some(Policy::of_cluster(&config)),
            admitted: HashSet::new(),
            rules: Rules::Master { config: Arc::new(config) },
            warnings,
            digest: Some(text_digest(text)),
        }
    }

    fn load_member(home: &Home, keys: &dyn KeyStore, dir: &ClusterDir) -> Result<Self, ClusterError> {
        let own_id = key_id(keys, KeyRef::Machine(dir.alias.clone()), &dir.alias)?;
        let info = home.load_cluster_info(&dir.alias)?;
        let path = home.machine_config(&dir.alias);
        let waiting = Self {
            alias: dir.alias.clone(),
            role: Role::Waiting,
            own_id,
            manager: info.as_ref().and_then(|info| info.manager),
            cluster_name: None,
            own_name: None,
            rules: Rules::Absent,
            warnings: Vec::new(),
            digest: None,
            policy: None,
            admitted: HashSet::new(),
        };
        let manager = info.and_then(|info| info.manager);
        let (Some(manager), Some(text)) = (manager, home.load_text(&path)?) else { return Ok(waiting) };
        // A file that somebody edited is no longer what the manager signed, and is not gone by.
        let signed = malai_model::config::verify_signed(&text, &manager, &own_id, None)?;
        Ok(Self::of_machine(dir.alias.clone(), own_id, signed.config, signed.warnings, text.into()))
    }

    /// Makes a machine's view of a config that was verified.
    pub(crate) fn of_machine(
        alias: ClusterAlias,
        own_id: Id52,
        config: MachineConfig,
        warnings: Vec<Diagnostic>,
        text: Arc<str>,
    ) -> Self {
        let policy = Policy::of_machine(&config);
        Self {
            alias,
            role: Role::Machine,
            own_id,
            manager: Some(config.manager().id52),
            cluster_name: Some(config.manager().cluster_name.clone()),
            own_name: Some(config.recipient().machine.clone()),
            admitted: policy.admitted(&config.recipient().machine).into_iter().collect(),
            policy: Some(policy),
            digest: Some(text_digest(&text)),
            rules: Rules::Own { config: Arc::new(config), text },
            warnings,
        }
    }

    /// The serial of the config in force; machines only.
    pub fn serial(&self) -> Option<u64> {
        match &self.rules {
            Rules::Own { config, .. } => Some(config.recipient().serial),
            Rules::Master { .. } | Rules::Absent => None,
        }
    }

    pub(super) fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// Whether this device holds the cluster's root.
    pub fn is_managed_here(&self) -> bool {
        self.role == Role::Manager
    }

    /// Says whether a peer may connect at all.
    pub fn admits(&self, peer: &Id52) -> bool {
        if self.manager == Some(*peer) {
            return true;
        }
        match (&self.rules, &self.policy) {
            (Rules::Master { config }, _) => {
                config.machine_of(peer).is_some()
                    || config
                        .manager()
                        .config_editors
                        .as_ref()
                        .is_some_and(|list| config.expand(list).contains(peer))
            }
            (Rules::Own { .. }, Some(policy)) => policy.manager() == peer || self.admitted.contains(peer),
            _ => false,
        }
    }

    /// Decides whether a caller may run something on this device.
    ///
    /// # Errors
    /// The reason, for this device's own log: a caller is told only that it was denied.
    pub fn authorize_run(
        &self,
        caller: &Id52,
        argv: &[String],
        ceilings: &Ceilings,
    ) -> Result<Authorized<Run>, RunDenied> {
        self.authorize(caller, Run { argv: argv.to_vec() }, ceilings)
    }

    /// Decides whether a caller may connect to a service of this device.
    ///
    /// # Errors
    /// As [`Self::authorize_run`].
    pub fn authorize_reach(
        &self,
        caller: &Id52,
        service: &ServiceName,
        ceilings: &Ceilings,
    ) -> Result<Authorized<Reach>, RunDenied> {
        self.authorize(caller, Reach { service: service.clone() }, ceilings)
    }

    fn authorize<A: Action<Target = MachineName>>(
        &self,
        caller: &Id52,
        action: A,
        ceilings: &Ceilings,
    ) -> Result<Authorized<A>, RunDenied> {
        let (Some(policy), Some(own)) = (&self.policy, &self.own_name) else {
            return Err(RunDenied::NoRules);
        };
        authorize_under(policy, ceilings, caller, own, action).map_err(RunDenied::Rules)
    }

    /// Decides whether a caller may open a shell on this device.
    ///
    /// # Errors
    /// As [`Self::authorize_run`].
    pub fn authorize_shell(
        &self,
        caller: &Id52,
        ceilings: &Ceilings,
    ) -> Result<Authorized<Shell>, RunDenied> {
        self.authorize(caller, Shell, ceilings)
    }

    /// Finds a machine to dial.
    ///
    /// # Errors
    /// When there is no config yet, or it does not name the machine.
    pub fn target(&self, wanted: &MachineSelector) -> Result<TargetMachine, ClusterError> {
        let found = match (&self.rules, wanted) {
            (Rules::Absent, _) => return Err(ClusterError::NoConfig(self.alias.clone())),
            (_, MachineSelector::Id(id)) if *id == self.own_id => {
                Some(TargetMachine { name: self.own_name.clone(), id52: *id, addresses: Vec::new() })
            }
            (_, MachineSelector::Name(name)) if Some(name) == self.own_name.as_ref() => {
                Some(TargetMachine { name: Some(name.clone()), id52: self.own_id, addresses: Vec::new() })
            }
            (Rules::Master { config }, MachineSelector::Name(name)) => {
                config.machines().get(name).map(|entry| TargetMachine {
                    name: Some(name.clone()),
                    id52: entry.id52,
                    addresses: entry.addresses.clone(),
                })
            }
            (Rules::Master { config }, MachineSelector::Id(id)) => {
                config.machine_of(id).map(|(name, entry)| TargetMachine {
                    name: Some(name.clone()),
                    id52: *id,
                    addresses: entry.addresses.clone(),
                })
            }
            (Rules::Own { config, .. }, MachineSelector::Name(name)) => {
                config.directory().machines().get(name).map(|entry| TargetMachine {
                    name: Some(name.clone()),
                    id52: entry.id52,
                    addresses: entry.addresses.clone(),
                })
            }
            (Rules::Own { config, .. }, MachineSelector::Id(id)) => {
                let directory = config.directory();
                let found = directory.machines().iter().find(|(_, entry)| entry.id52 == *id);
                // A machine where nothing but a service with a cluster-wide name is this device's to reach.
                let hosting = || directory.services().values().find(|service| service.id52 == *id);
                match found {
                    Some((name, entry)) => Some((name, &entry.addresses)),
                    None => hosting().map(|service| (&service.machine, &service.addresses)),
                }
                .map(|(name, addresses)| TargetMachine {
                    name: Some(name.clone()),
                    id52: *id,
                    addresses: addresses.clone(),
                })
            }
        };
        found.ok_or_else(|| ClusterError::UnknownMachine {
            cluster: self.alias.clone(),
            machine: wanted.to_string(),
            nearest: self.nearest(&wanted.to_string()),
        })
    }

    /// What this device may reach, for patterns.
    ///
    /// # Errors
    /// When there is no config yet.
    pub fn reachable(&self) -> Result<Reachable, ClusterError> {
        match &self.rules {
            Rules::Master { config } => Ok(Reachable::of_manager(config, &self.own_id)),
            Rules::Own { config, .. } => Ok(Reachable::of_machine(config)),
            Rules::Absent => Err(ClusterError::NoConfig(self.alias.clone())),
        }
    }

    /// The machines that this device knows, by name.
    pub fn known_machines(&self) -> Vec<(MachineName, Id52)> {
        match &self.rules {
            Rules::Master { config } => {
                config.machines().iter().map(|(name, entry)| (name.clone(), entry.id52)).collect()
            }
            Rules::Own { config, .. } => {
                config.directory().machines().iter().map(|(name, entry)| (name.clone(), entry.id52)).collect()
            }
            Rules::Absent => Vec::new(),
        }
    }

    /// Finds the name of a peer, as far as this device may know it.
    pub fn name_of(&self, peer: &Id52) -> Option<MachineName> {
        match &self.rules {
            Rules::Master { config } => config.machine_of(peer).map(|(name, _)| name.clone()),
            Rules::Own { config, .. } => config.directory().callers().get(peer).cloned().or_else(|| {
                let mut machines = config.directory().machines().iter();
                machines.find(|(_, entry)| entry.id52 == *peer).map(|(name, _)| name.clone())
            }),
            Rules::Absent => None,
        }
    }

    fn nearest(&self, wanted: &str) -> Option<MachineName> {
        let names: Vec<_> = self.known_machines().into_iter().map(|(name, _)| name).collect();
        malai_model::config::nearest_word(wanted, names.iter().map(MachineName::as_str))
            .and_then(|name| name.parse().ok())
    }
}

/// Why this device does not run something; for its own log.
#[derive(Debug, thiserror::Error)]
pub enum RunDenied {
    /// It has no rules: no config has come, or it is a manager that is no machine.
    #[error("this device has no rules by which anybody may do anything")]
    NoRules,
    /// Its rules do not let the caller.
    #[error("{}", .0.reason())]
    Rules(Denied),
}

impl RunDenied {
    /// Whether it is this device's own `malai.toml` that forbids it.
    pub fn is_ceiling(&self) -> bool {
        match self {
            Self::NoRules => false,
            Self::Rules(denied) => matches!(
                denied.reason(),
                DenyReason::UserCeiling { .. } | DenyReason::ShellCeiling | DenyReason::ServicesCeiling
            ),
        }
    }
}

fn key_id(keys: &dyn KeyStore, key: KeyRef, alias: &ClusterAlias) -> Result<Id52, ClusterError> {
    super::load_key(keys, key, alias).map(|secret| secret.id52())
}

pub(super) fn required_text(home: &Home, path: &Path) -> Result<String, ClusterError> {
    home.load_text(path)?.ok_or_else(|| ClusterError::FileMissing(path.to_owned()))
}

/// Finds a cluster of this home, if it has one of that name.
pub(crate) fn find_cluster(home: &Home, alias: &ClusterAlias) -> Result<Option<ClusterDir>, ClusterError> {
    match home.cluster(alias) {
        Ok(dir) => Ok(Some(dir)),
        // An empty directory is what a crash leaves of making one.
        Err(HomeError::UnknownCluster { .. } | HomeError::EmptyCluster { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
