//! `ClusterConfig`: a cluster's rules, compiled. Who holds one holds something valid.
//!
//! It is made by [`super::compile`] alone, from the master `cluster.toml`; a machine's own personalised file compiles to
//! a [`super::machine::MachineConfig`], which wraps the same types.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::Id52;
use crate::name::{CommandName, GroupName, MachineName, ServiceName, TestName};

/// A whole cluster, as its manager wrote it. References are resolved, names are unique, groups have no cycles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    pub(crate) manager: ManagerEntry,
    pub(crate) machines: BTreeMap<MachineName, MachineEntry>,
    pub(crate) services: BTreeMap<ServiceName, ServiceEntry>,
    pub(crate) groups: BTreeMap<GroupName, PrincipalList>,
    pub(crate) tests: BTreeMap<TestName, AclTest>,
}

/// `[cluster-manager]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerEntry {
    /// The root's id52.
    pub id52: Id52,
    /// What the cluster calls itself; members choose aliases of their own.
    pub cluster_name: String,
    /// Who may read and edit the config from afar; absent: nobody but the manager.
    pub config_editors: Option<PrincipalList>,
}

/// A list as it is written after `allow_from`, `members` and their like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrincipalList(pub Vec<PrincipalRef>);

/// One word of such a list. In a compiled config every reference names something that exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrincipalRef {
    /// `*`: every `[machine.*]` entry.
    AllMachines,
    /// `cluster-manager`: the root, whatever its key is after rotations.
    Manager,
    /// An id52, whether or not a machine has it.
    Id(Id52),
    /// A machine.
    Machine(MachineName),
    /// A group, which may hold groups.
    Group(GroupName),
}

/// `[machine.X]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineEntry {
    /// Who it is.
    pub id52: Id52,
    /// Where it may be found: `host:port`, hints only.
    pub addresses: Vec<String>,
    /// Who may run any program; absent: nobody.
    pub allow_from: Option<PrincipalList>,
    /// Who may open a shell; absent: as `allow_from`.
    pub allow_shell: Option<PrincipalList>,
    /// Who may use it as an exit to the internet; absent: nobody.
    pub allow_proxy: Option<PrincipalList>,
    /// Networks beyond the public ones that the exit may reach, in CIDR form.
    pub proxy_to: Vec<String>,
    /// The user that commands and shells run as; absent: the daemon's own.
    pub username: Option<UserName>,
    /// Rules by the word that the caller types.
    pub commands: BTreeMap<CommandName, CommandRule>,
    /// Services that are named within the machine: `ssh.web01.company`.
    pub services: BTreeMap<ServiceName, ServiceEntry>,
}

/// `[machine.X.command.Y]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRule {
    /// Replaces the machine's `allow_from` for this word; absent: inherited.
    pub allow_from: Option<PrincipalList>,
    /// The words to run, never empty; absent: the command's own name.
    pub command: Option<Vec<String>>,
    /// What the caller may add.
    pub args: ArgsRule,
    /// Runs as this user; absent: as the machine's `username`.
    pub username: Option<UserName>,
}

/// Which words a caller may add to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgsRule {
    /// No further word.
    None,
    /// Any words.
    Any,
    /// Each further word matches at least one of the globs.
    Globs(Vec<ArgGlob>),
}

/// A glob for one argument: `*` matches any run of characters but `/`, `?` one character but `/`; every other character
/// stands for itself. Words with `..` or a leading `-` match only a glob that is the very same text (section 4 of the
/// specification).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArgGlob(pub(crate) String);

/// A user's name on a target: `[a-z_][a-z0-9_-]{0,31}`, optionally ending in `$`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(pub(crate) String);

/// `[service.X]`, `[machine.M.tcp.X]` or `[machine.M.http.X]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The machine that hosts it.
    pub machine: MachineName,
    /// How clients speak to it.
    pub protocol: ServiceProtocol,
    /// The port that the hosting machine dials, 1 to 65535.
    pub port: u16,
    /// The host that the hosting machine dials; `127.0.0.1` unless written.
    pub host: String,
    /// Who may reach it; absent: nobody.
    pub allow_from: Option<PrincipalList>,
    /// Starts the service when somebody needs it.
    pub on_demand: Option<OnDemand>,
}

/// How a service is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceProtocol {
    /// Bytes.
    Tcp,
    /// Requests with heads that malai reads.
    Http {
        /// Adds the caller's identity; true unless written.
        inject_headers: bool,
        /// The backend speaks HTTPS.
        secure: bool,
    },
}

/// How a service is started, watched and stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDemand {
    /// The words to run, never empty.
    pub command: Vec<String>,
    /// Runs as this user; root only if it is written.
    pub username: Option<UserName>,
    /// How long it may take until it answers.
    pub startup_time: Duration,
    /// How long it runs on without connections.
    pub idle_timeout: Duration,
    /// The words of a check that succeeds when the service is ready.
    pub health_check: Option<Vec<String>>,
    /// When it is started again.
    pub restart_policy: RestartPolicy,
}

/// When a service that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Never.
    Never,
    /// After a status other than 0.
    OnFailure,
    /// Always.
    Always,
}

/// `[test.X]`: what must hold of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclTest {
    /// Whose rights are looked at. A group stands for each of its members: `allow` must hold for all of them, `deny`
    /// for all of them.
    pub from: PrincipalRef,
    /// What must be allowed.
    pub allow: Vec<AclTestCase>,
    /// What must be denied.
    pub deny: Vec<AclTestCase>,
}

/// One line of a test: `web01 run deploy --now`, `db01 shell`, `web01 proxy`, `service admin`, `config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AclTestCase {
    /// Running a program; argv is never empty.
    Run {
        /// Where.
        machine: MachineName,
        /// What is typed.
        argv: Vec<String>,
    },
    /// Opening a shell.
    Shell {
        /// Where.
        machine: MachineName,
    },
    /// Using a machine as exit.
    Proxy {
        /// Where.
        machine: MachineName,
    },
    /// Reaching a service; `machine` is set for a machine-scoped one (`service ssh.web01`).
    Service {
        /// The machine of a machine-scoped service.
        machine: Option<MachineName>,
        /// Which.
        service: ServiceName,
    },
    /// Editing the config.
    Config,
}

impl ClusterConfig {
    /// The manager's entry.
    pub fn manager(&self) -> &ManagerEntry {
        &self.manager
    }

    /// The machines by name.
    pub fn machines(&self) -> &BTreeMap<MachineName, MachineEntry> {
        &self.machines
    }

    /// The services with a cluster-wide name.
    pub fn services(&self) -> &BTreeMap<ServiceName, ServiceEntry> {
        &self.services
    }

    /// The groups, as they are written.
    pub fn groups(&self) -> &BTreeMap<GroupName, PrincipalList> {
        &self.groups
    }

    /// The ACL tests.
    pub fn tests(&self) -> &BTreeMap<TestName, AclTest> {
        &self.tests
    }

    /// Finds the machine that has an identity.
    pub fn machine_of(&self, id52: &Id52) -> Option<(&MachineName, &MachineEntry)> {
        self.machines.iter().find(|(_, entry)| entry.id52 == *id52)
    }

    /// Expands a list to identities: groups recursively, `*` to every machine.
    pub fn expand(&self, list: &PrincipalList) -> BTreeSet<Id52> {
        let mut ids = BTreeSet::new();
        let mut seen = BTreeSet::new();
        // A loop, not recursion: the depth of nesting is the file's choice, the stack is ours.
        let mut pending: Vec<&PrincipalRef> = list.0.iter().collect();
        while let Some(principal) = pending.pop() {
            match principal {
                PrincipalRef::AllMachines => ids.extend(self.machines.values().map(|m| m.id52)),
                PrincipalRef::Manager => {
                    ids.insert(self.manager.id52);
                }
                PrincipalRef::Id(id) => {
                    ids.insert(*id);
                }
                PrincipalRef::Machine(name) => ids.extend(self.machines.get(name).map(|m| m.id52)),
                PrincipalRef::Group(name) => {
                    if let Some(group) = self.groups.get(name)
                        && seen.insert(name)
                    {
                        pending.extend(&group.0);
                    }
                }
            }
        }
        ids
    }
}

impl ServiceProtocol {
    /// The word for it in config files: `tcp` or `http`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http { .. } => "http",
        }
    }
}

impl UserName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ArgGlob {
    /// The pattern as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
