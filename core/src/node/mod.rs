//! The composition root: a home's clusters, their endpoints, and the one gate through which requests come in.
//!
//! A node either serves (a daemon: it listens, distributes, receives) or only dials (a command line, an app). Several
//! nodes live in one process without knowing of each other.

mod apply;
mod audit;
#[cfg(all(feature = "daemon", unix))]
mod carried;
mod commands;
mod configs;
mod error;
mod invites;
mod join;
mod manager;
mod member;
mod outbound;
mod peers;
mod serve;
mod services;
#[cfg(all(feature = "host", unix))]
mod sessions;
mod targets;
mod view;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

#[cfg(all(feature = "host", unix))]
use malai_model::acl::Ceilings;
use malai_model::audit::AuditEvent;
use malai_model::cluster::{Lockout, LockoutLimits};
#[cfg(all(feature = "host", unix))]
use malai_model::config::UserName;
use malai_model::config::{DeviceConfig, Discovery, Relays};
use malai_model::diagnostic::Diagnostic;
use malai_model::name::ClusterAlias;

#[cfg(all(feature = "daemon", unix))]
pub(crate) use self::carried::Carried;
pub use self::error::NodeError;
pub use self::member::Member;
#[cfg(all(feature = "daemon", unix))]
pub(crate) use self::outbound::Found;
pub(crate) use self::targets::Reading;
use self::work::OpenWork;
use crate::audit::{AuditLimits, AuditLog, Urgency};
use crate::clock::SharedClock;
use crate::cluster::{self, ClusterError, LoadedCluster};
use crate::home::Home;
use crate::identity::KeyStore;
use crate::p2p::{self, NetworkOptions, Transport};
use crate::task::Scope;

/// What a node works with. Cheap to clone.
#[derive(Clone)]
pub struct NodeOptions {
    /// Where its files are.
    pub home: Home,
    /// Where its private keys are.
    pub keys: Arc<dyn KeyStore>,
    /// What time it is.
    pub clock: SharedClock,
    /// How it reaches others.
    pub transport: Transport,
    /// Where processes of this user on this machine find each other; absent: they do not.
    pub runtime_dir: Option<PathBuf>,
    /// How long reaching a peer may take.
    pub connect_timeout: Duration,
    /// The version that it answers with.
    pub version: &'static str,
    /// The malai program, for commands and sessions that are processes of malai's own; absent: this device has none.
    #[cfg(all(feature = "host", unix))]
    pub own_program: Option<crate::host::OwnProgram>,
}

/// Whether a node takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It only dials.
    Dial,
    /// It listens, distributes and receives.
    Serve,
}

/// A running node. Cheap to clone: clones are the same node.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    options: NodeOptions,
    mode: Mode,
    scope: Scope,
    device: RwLock<Arc<DeviceConfig>>,
    members: RwLock<BTreeMap<ClusterAlias, Arc<Member>>>,
    work: Arc<OpenWork>,
    #[cfg(all(feature = "daemon", unix))]
    carried: Arc<carried::CarriedStreams>,
    lockout: Mutex<Lockout<invites::Source>>,
    peers: peers::PeerBook,
    audit: AuditLog,
    /// One change of files at a time within this process; between processes the home's lock does it.
    changing: tokio::sync::Mutex<()>,
    started: jiff::Timestamp,
    #[cfg(all(feature = "host", unix))]
    exec: crate::exec::ExecTarget,
    /// The sessions that live here; a node that only dials has none.
    #[cfg(all(feature = "host", unix))]
    sessions: std::sync::OnceLock<crate::terminal::Sessions>,
    #[cfg(all(feature = "host", unix))]
    opening: sessions::Opening,
}

impl Node {
    /// Reads the home and makes a node. In [`Mode::Dial`] nothing but `malai.toml` is read until it is needed; in
    /// [`Mode::Serve`] everything is read, compiled and put in force, all or nothing, and then it listens.
    ///
    /// # Errors
    /// With everything that is wrong with the files, or when the network cannot be set up.
    pub async fn start(options: NodeOptions, mode: Mode) -> Result<Self, NodeError> {
        let (device, warnings) = load_device(&options.home)?;
        for warning in &warnings {
            tracing::warn!(file = %warning.file, "{}", warning.message);
        }
        #[cfg(all(feature = "host", unix))]
        let exec =
            crate::exec::ExecTarget::new(crate::host::LocalUser::current()?, options.own_program.clone());
        let started = options.clock.now();
        let peers = peers::PeerBook::load(&options.home);
        // What only dials may be gone the next moment.
        let urgency = if mode == Mode::Serve { Urgency::Soon } else { Urgency::AtOnce };
        let clock = Arc::clone(&options.clock);
        let audit = AuditLog::new(&options.home, clock, urgency, AuditLimits::default());
        let node = Self {
            inner: Arc::new(Inner {
                options,
                mode,
                scope: Scope::new(),
                work: Arc::new(OpenWork::new(
                    device.limits.sessions_per_peer as usize,
                    device.limits.sessions as usize,
                )),
                #[cfg(all(feature = "daemon", unix))]
                carried: Arc::default(),
                device: RwLock::new(Arc::new(device)),
                members: RwLock::new(BTreeMap::new()),
                lockout: Mutex::new(Lockout::new(LockoutLimits::default())),
                peers,
                audit,
                changing: tokio::sync::Mutex::new(()),
                started,
                #[cfg(all(feature = "host", unix))]
                exec,
                #[cfg(all(feature = "host", unix))]
                sessions: std::sync::OnceLock::new(),
                #[cfg(all(feature = "host", unix))]
                opening: sessions::Opening::default(),
            }),
        };
        node.inner.audit.start(&node.inner.scope);
        if mode == Mode::Serve {
            let (version, pid) = (node.inner.options.version.to_owned(), std::process::id());
            node.record_of_device(AuditEvent::DaemonStarted { version, pid });
            // Whatever fails here takes down what was begun: no task outlives a node that did not start.
            if let Err(error) = node.serve_all().await {
                node.close(Duration::ZERO).await;
                return Err(error);
            }
        }
        Ok(node)
    }

    /// Stops taking requests and waits at most `at_most` for those that run, and for the streams that are carried for
    /// others. Clients of sessions are not waited for, and served meanwhile: they come back to the next daemon.
    ///
    /// # Cancel safety
    /// Cancel safe: no request is taken any more, and [`Node::close`] does the rest.
    pub async fn finish(&self, at_most: Duration) {
        for member in self.members().into_values() {
            member.stop_accepting();
        }
        #[cfg(all(feature = "daemon", unix))]
        tokio::join!(self.inner.work.finished(at_most), self.inner.carried.finished(at_most));
        #[cfg(not(all(feature = "daemon", unix)))]
        self.inner.work.finished(at_most).await;
    }

    /// Says that all that was asked is answered: closing waits for nobody then.
    pub(crate) fn hurry(&self) {
        for member in self.members().values() {
            if let Some(network) = member.network.get() {
                network.endpoint.hurry();
            }
        }
    }

    /// Stops taking requests, waits at most `drain` for those that run, ends the rest, and closes the network.
    pub async fn close(&self, drain: Duration) {
        self.finish(drain).await;
        let members: Vec<_> = self.members().into_values().collect();
        for member in &members {
            member.let_go();
        }
        self.inner.scope.stop();
        #[cfg(all(feature = "daemon", unix))]
        {
            // Before the network goes: so they are told why.
            self.inner.carried.end();
            self.inner.carried.gone(crate::timeouts::LAST_WORD * 2).await;
        }
        // With its connection a command's caller is lost, and that ends it. Nobody's right was taken away.
        for member in &members {
            member.close().await;
        }
        self.inner.scope.shutdown(crate::timeouts::CLOSE + crate::timeouts::HANGUP_GRACE).await;
        self.inner.peers.flush(&self.inner.options.home);
        if self.inner.mode == Mode::Serve {
            self.record_of_device(AuditEvent::DaemonStopped {});
        }
        // Last: what was cut off is recorded, too.
        if tokio::time::timeout(crate::timeouts::CLOSE, self.inner.audit.close()).await.is_err() {
            tracing::error!("the audit log was not written to its end: the disk does not answer");
        }
    }

    pub(crate) fn home(&self) -> &Home {
        &self.inner.options.home
    }

    pub(crate) fn keys(&self) -> &Arc<dyn KeyStore> {
        &self.inner.options.keys
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.inner.options.clock.now()
    }

    pub(crate) fn device(&self) -> Arc<DeviceConfig> {
        Arc::clone(&self.inner.device.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What this device forbids whatever its clusters allow.
    #[cfg(all(feature = "host", unix))]
    pub(crate) fn ceilings(&self) -> Ceilings {
        let host = &self.device().host;
        let mut ceilings = Ceilings::none();
        if let Some(users) = &host.users {
            ceilings = ceilings.only_users(users.iter().cloned(), self.own_user());
        }
        if !host.shell {
            ceilings = ceilings.forbid_shell();
        }
        if !host.services {
            ceilings = ceilings.forbid_services();
        }
        ceilings
    }

    #[cfg(all(feature = "host", unix))]
    fn own_user(&self) -> Option<UserName> {
        self.inner.exec.user_name().parse().ok()
    }

    /// How long running requests may take to end at shutdown.
    #[cfg(feature = "daemon")]
    pub(crate) fn drain(&self) -> Duration {
        self.device().daemon.drain
    }

    pub(crate) fn members(&self) -> BTreeMap<ClusterAlias, Arc<Member>> {
        self.inner.members.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the endpoints of this node but a member's own are bound: an invite's, a joiner's. Only one can have the port
    /// that `malai.toml` names, and that is the one by which a member is found.
    pub(crate) fn any_port(&self) -> NetworkOptions {
        let mut network = self.network_options();
        network.bind.set_port(0);
        network
    }

    pub(crate) fn network_options(&self) -> NetworkOptions {
        let device = self.device();
        NetworkOptions {
            bind: device.network.bind,
            discovery: p2p::Discovery {
                local: device.network.discovery.contains(&Discovery::Local),
                mdns: device.network.discovery.contains(&Discovery::Mdns),
                dns: device.network.discovery.contains(&Discovery::Dns),
            },
            relays: match &device.network.relays {
                Relays::Default => p2p::Relays::Default,
                Relays::None => p2p::Relays::None,
                Relays::Custom(urls) => p2p::Relays::Custom(urls.clone()),
            },
            runtime_dir: self.inner.options.runtime_dir.clone(),
        }
    }

    /// Finds a cluster of this home; in [`Mode::Dial`] it is read when it is first asked for.
    pub(crate) fn member(&self, alias: &ClusterAlias) -> Result<Arc<Member>, ClusterError> {
        if let Some(member) = self.members().get(alias) {
            return Ok(Arc::clone(member));
        }
        if self.inner.mode == Mode::Dial
            && let Some(dir) = cluster::find_cluster(self.home(), alias)?
        {
            let loaded = LoadedCluster::load(self.home(), self.keys().as_ref(), &dir)?;
            return Ok(self.adopt(loaded));
        }
        let known = self.home().clusters()?.into_iter().map(|dir| dir.alias).collect();
        Err(ClusterError::Unknown { alias: alias.clone(), known })
    }

    pub(crate) fn adopt(&self, loaded: LoadedCluster) -> Arc<Member> {
        let member = Arc::new(Member::new(loaded, self.inner.scope.child(), self.inner.audit.clone()));
        let mut members = self.inner.members.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(members.entry(member.alias().clone()).or_insert(member))
    }

    pub(crate) fn forget(&self, alias: &ClusterAlias) -> Option<Arc<Member>> {
        self.inner.members.write().unwrap_or_else(PoisonError::into_inner).remove(alias)
    }
}

pub(crate) fn load_device(home: &Home) -> Result<(DeviceConfig, Vec<Diagnostic>), NodeError> {
    let path = home.device_config();
    let text = home.load_text(&path)?.unwrap_or_default();
    let file = path.display().to_string();
    let compiled = malai_model::config::compile_device(&file, &text).into_result();
    Ok(compiled.map_err(|problems| ClusterError::Config { file, problems })?)
}
