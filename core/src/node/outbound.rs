//! Dialling: a member's endpoint, connections to machines, commands on them.

use std::sync::Arc;

use malai_model::address::{ClusterRef, KnownCluster, resolve};
use malai_model::id::Id52;
use malai_model::wire::{ConfigHave, ExecRequest};

use super::member::MemberNetwork;
use super::{Member, Mode, Node, NodeError};
use crate::cluster::{self, ClusterError, LoadedCluster, Rules, TargetMachine};
use crate::exec::{ExecError, RunningCommand};
use crate::home::Role;
use crate::identity::KeyRef;
use crate::p2p::{
    self, Connection, Endpoint, EndpointOptions, P2pError, Pool, Protocol, Redial, Redialling, Serve,
};
use malai_model::wire::local::{RunRequest, SingleWord};

impl Node {
    /// The endpoint of a member, bound when it is first needed. It answers if this node serves, whoever needs it first.
    pub(super) async fn network<'m>(&self, member: &'m Arc<Member>) -> Result<&'m MemberNetwork, NodeError> {
        member
            .network
            .get_or_try_init(|| async {
                let loaded = member.loaded();
                let key = match loaded.role {
                    Role::Manager => KeyRef::ClusterRoot(loaded.alias.clone()),
                    Role::Machine | Role::Waiting => KeyRef::Machine(loaded.alias.clone()),
                };
                let secret = cluster::load_key(self.keys().as_ref(), key, &loaded.alias)?;
                let serving = self.inner.mode == Mode::Serve;
                let serve = serving
                    .then(|| Serve { protocols: vec![Protocol::Member], admission: member.admission() });
                let claim = self.home().claim_identity(&loaded.alias)?;
                let mut network =
                    if serving && !self.has_taken_port() { self.network_options() } else { self.any_port() };
                if claim.is_none() && !serving {
                    // On a relay the newest connection of an identity receives everything: whoever was first keeps it.
                    tracing::debug!(cluster = %loaded.alias, "the identity is in use: dialling over direct paths only");
                    network.relays = p2p::Relays::None;
                    network.discovery.dns = false;
                }
                let options = EndpointOptions {
                    secret,
                    network,
                    preferred_port: serving.then(|| self.inner.peers.own_port(&member.own_id())).flatten(),
                    serve,
                };
                let bound =
                    Endpoint::bind(options, self.inner.options.transport.clone(), &member.scope).await?;
                let endpoint = Arc::new(bound);
                if serving && let Some(address) = endpoint.addresses().first() {
                    self.inner.peers.set_own_port(&member.own_id(), address.port());
                }
                Ok(MemberNetwork { pool: Pool::new(Arc::clone(&endpoint), &member.scope), endpoint, _claim: claim })
            })
            .await
    }

    /// Whether a cluster of this node has the port that `malai.toml` names: the others take any.
    fn has_taken_port(&self) -> bool {
        let port = self.device().network.bind.port();
        let members = self.members();
        let mut bound = members.values().filter_map(|member| member.network.get());
        let taken =
            port != 0 && bound.any(|network| network.endpoint.addresses().iter().any(|at| at.port() == port));
        if taken {
            tracing::warn!(port, "another cluster of this home has the port already: this one takes any");
        }
        taken
    }

    /// Reaches a peer of a cluster, over a connection that is there already if possible.
    pub(crate) async fn connect(
        &self,
        member: &Arc<Member>,
        peer: &Id52,
        addresses: &[String],
    ) -> Result<Connection, NodeError> {
        let network = self.network(member).await?;
        let mut hints = addresses.to_vec();
        hints.extend(self.inner.peers.hints(peer));
        let connection = network.pool.get(*peer, &hints, self.inner.options.connect_timeout).await?;
        let path = connection.path();
        tracing::debug!(cluster = %member.alias(), %peer, address = path.address, relayed = path.relayed, "connected");
        if let Some(address) = connection.remote_address() {
            self.inner.peers.remember(peer, address, self.now());
        }
        Ok(connection)
    }

    /// Says how a peer is reached again for a stream that lost its connection.
    pub(crate) fn redial(&self, member: &Arc<Member>, peer: &Id52, addresses: &[String]) -> Arc<dyn Redial> {
        Arc::new(PeerRedial {
            node: self.clone(),
            member: Arc::clone(member),
            peer: *peer,
            addresses: addresses.to_vec(),
        })
    }

    /// Resolves an address and runs a program there: on another machine over the network, on this device at once.
    ///
    /// # Errors
    /// When the address does not resolve, the machine cannot be reached, or it refuses.
    pub async fn run(&self, request: RunRequest) -> Result<RunningCommand, NodeError> {
        let (member, target, argv) = self.find(&request.words, request.single_word).await?;
        if argv.is_empty() {
            return Err(ClusterError::NoProgram { machine: request.words.join(" ") }.into());
        }
        let exec = ExecRequest { argv, env: request.env, resume: None };
        if target.id52 == member.own_id() {
            return self.run_here(&member, &exec);
        }
        let started = async {
            let connection = self.connect(&member, &target.id52, &target.addresses).await?;
            let stream = connection.open_stream().await?;
            let redial = self.redial(&member, &target.id52, &target.addresses);
            Ok(RunningCommand::start_resumable(stream, exec, redial, &member.scope).await?)
        };
        started.await.map_err(|error| match error {
            // The user knows a name, not an id52. That a peer admits nobody of this identity shows at the first answer.
            NodeError::Network(source) | NodeError::Exec(ExecError::Network(source)) => {
                let name = target.name.as_ref().map_or_else(|| target.id52.to_string(), ToString::to_string);
                ClusterError::Reach { machine: format!("{name}.{}", member.alias()), source }.into()
            }
            other => other,
        })
    }

    /// This device is the target: the same check, the same process, no network.
    #[cfg(all(feature = "host", unix))]
    fn run_here(&self, member: &Arc<Member>, request: &ExecRequest) -> Result<RunningCommand, NodeError> {
        let loaded = member.loaded();
        let authorized =
            loaded.authorize_run(&member.own_id(), &request.argv, &self.ceilings()).map_err(|denied| {
                ClusterError::Denied {
                    what: request.argv.first().cloned().unwrap_or_default(),
                    machine: "this machine".to_owned(),
                    // Whoever owns the files may know why.
                    reason: denied.to_string(),
                }
            })?;
        let cluster = loaded.cluster_name.clone().unwrap_or_else(|| loaded.alias.to_string());
        Ok(self.inner.exec.start_local(&authorized, request, &cluster)?)
    }

    #[cfg(not(all(feature = "host", unix)))]
    fn run_here(&self, _member: &Arc<Member>, _request: &ExecRequest) -> Result<RunningCommand, NodeError> {
        Err(ClusterError::CannotHost.into())
    }

    /// Turns what was typed into a cluster, a machine and a program. If the config in force does not have the machine,
    /// the manager is asked once, since it may have been added meanwhile.
    async fn find(
        &self,
        words: &[String],
        single_word: SingleWord,
    ) -> Result<(Arc<Member>, TargetMachine, Vec<String>), NodeError> {
        let known = self.known_clusters()?;
        let device = self.device();
        let (to_resolve, as_they_are) = match single_word {
            SingleWord::Split => (words, &[][..]),
            SingleWord::Keep => words.split_at(words.len().min(1)),
        };
        let (found, mut argv) = resolve(to_resolve, &device.aliases, &known).map_err(ClusterError::from)?;
        argv.extend_from_slice(as_they_are);
        let ClusterRef::Known(cluster) = found.cluster else {
            return Err(ClusterError::ForeignCluster(found.to_string()).into());
        };
        let machine = found.machine;
        let member = self.member(&cluster)?;
        let first = member.loaded().target(&machine);
        let target = match first {
            Ok(target) => target,
            Err(error) if self.inner.mode == Mode::Dial && member.loaded().role != Role::Manager => {
                match self.sync(&member).await {
                    Ok(true) => member.loaded().target(&machine)?,
                    Ok(false) => return Err(error.into()),
                    Err(unasked) => {
                        tracing::debug!(cluster = %cluster, error = %unasked, "the manager could not be asked");
                        return Err(error.into());
                    }
                }
            }
            Err(error) => return Err(error.into()),
        };
        Ok((member, target, argv))
    }

    fn known_clusters(&self) -> Result<Vec<KnownCluster>, NodeError> {
        let mut known = Vec::new();
        for dir in self.home().clusters()? {
            let info = self.home().load_cluster_info(&dir.alias)?.unwrap_or_default();
            let mut ids: Vec<Id52> = info.manager.into_iter().chain(info.chain).collect();
            if dir.role == Role::Manager {
                ids.push(self.member(&dir.alias).map(|member| member.own_id())?);
            }
            known.push(KnownCluster { alias: dir.alias, domain: info.domain, ids });
        }
        Ok(known)
    }

    /// As [`Self::sync`]; a join that is still open is tried first.
    pub(crate) async fn sync_or_join(&self, member: &Arc<Member>) -> Result<bool, NodeError> {
        self.join_if_pending(member).await?;
        self.sync(member).await
    }

    /// Asks a cluster's manager for this device's config. Returns whether a new one is in force.
    pub(crate) async fn sync(&self, member: &Arc<Member>) -> Result<bool, NodeError> {
        let loaded = member.loaded();
        let Some(manager) = loaded.manager else {
            return Err(ClusterError::NoConfig(loaded.alias.clone()).into());
        };
        let connection = self.connect(member, &manager, &[]).await?;
        let limit = self.device().limits.config_bytes;
        let listening = self.inner.mode == Mode::Serve;
        let take = |text: String| async move { self.take_config(member, text).await };
        Ok(cluster::fetch_config(&connection, have(&loaded), listening, limit, take).await?.is_some())
    }

    /// Runs manager-side work on files in a thread where blocking hurts nobody.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, ClusterError> + Send + 'static,
    ) -> Result<T, ClusterError> {
        let node = self.clone();
        match tokio::task::spawn_blocking(move || work(&node)).await {
            Ok(done) => done,
            Err(panic) => Err(ClusterError::Panicked(panic.to_string())),
        }
    }

    /// All clusters, by alias: when serving those that are served, whatever lies in the home meanwhile; else those of the
    /// home.
    pub(crate) fn all_members(&self) -> Result<Vec<Arc<Member>>, ClusterError> {
        match self.inner.mode {
            Mode::Serve => Ok(self.members().into_values().collect()),
            Mode::Dial => self.home().clusters()?.iter().map(|dir| self.member(&dir.alias)).collect(),
        }
    }
}

fn have(loaded: &LoadedCluster) -> Option<ConfigHave> {
    match &loaded.rules {
        Rules::Own { config, text } => Some(ConfigHave {
            serial: config.recipient().serial,
            digest: malai_model::config::text_digest(text),
        }),
        Rules::Master { .. } | Rules::Absent => None,
    }
}

/// Reaches a peer again as it was reached first.
struct PeerRedial {
    node: Node,
    member: Arc<Member>,
    peer: Id52,
    addresses: Vec<String>,
}

impl Redial for PeerRedial {
    fn redial(&self) -> Redialling {
        let (node, member) = (self.node.clone(), Arc::clone(&self.member));
        let (peer, addresses) = (self.peer, self.addresses.clone());
        Box::pin(async move {
            match node.connect(&member, &peer, &addresses).await {
                Ok(connection) => connection.open_stream().await,
                Err(NodeError::Network(error)) => Err(error),
                Err(error) => Err(P2pError::Lost { reason: error.to_string() }),
            }
        })
    }
}
