//! Dialling: a member's endpoint, connections to machines, commands on them.

use std::sync::Arc;
use std::time::Duration;

use malai_model::address::{ClusterRef, KnownCluster, resolve};
use malai_model::id::Id52;
use malai_model::name::ClusterAlias;
use malai_model::wire::local::{OpenRequest, OpenedView, Place, RunRequest, SingleWord};
use malai_model::wire::{ConfigHave, ExecRequest};

use super::member::MemberNetwork;
#[cfg(unix)]
use super::serve::Asker;
use super::{Member, Mode, Node, NodeError};
use crate::cluster::{self, ClusterError, LoadedCluster, Rules, TargetMachine};
use crate::exec::{ExecError, RunningCommand};
use crate::home::Role;
use crate::identity::KeyRef;
use crate::p2p::{
    self, Connection, Endpoint, EndpointOptions, P2pError, PathView, Pool, Protocol, Redial, Redialling,
    Serve, Stream,
};

/// A machine that an address means.
pub(crate) struct Found {
    pub(crate) member: Arc<Member>,
    pub(crate) target: TargetMachine,
    /// What stood behind the address.
    pub(crate) argv: Vec<String>,
    /// How long reaching it may take, if somebody said so.
    within: Option<Duration>,
}

impl Found {
    /// Whether it is this very device.
    pub(crate) fn place(&self) -> Place {
        if self.target.id52 == self.member.own_id() { Place::Here } else { Place::Elsewhere }
    }

    /// What a front is told of a stream to it.
    pub(crate) fn view(&self, path: PathView) -> OpenedView {
        OpenedView {
            cluster: self.member.alias().clone(),
            machine: self.target.name.clone(),
            id52: self.target.id52,
            place: self.place(),
            argv: self.argv.clone(),
            address: path.address,
            relayed: path.relayed,
            rtt_us: u64::try_from(path.rtt.as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// Says how it is reached again for a stream that lost its connection.
    pub(super) fn redial(&self, node: &Node) -> Arc<dyn Redial> {
        node.redial(&self.member, &self.target.id52, &self.target.addresses)
    }

    /// Its address as a user knows it.
    fn name(&self) -> String {
        match &self.target.name {
            Some(name) => format!("{name}.{}", self.member.alias()),
            None => format!("{}.{}", self.target.id52, self.member.alias()),
        }
    }

    /// The user knows a name, not an id52.
    fn reach(&self, source: P2pError) -> NodeError {
        ClusterError::Reach { machine: self.name(), source }.into()
    }
}

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
                    // On a relay the newest connection of an identity receives everything: whoever was first keeps it, but
                    // for a daemon, through which the others go on.
                    tracing::debug!(cluster = %loaded.alias, "the identity is in use: dialling over direct paths only");
                    if network.relays != p2p::Relays::None {
                        network.relays = p2p::Relays::InUse;
                    }
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
        self.connect_within(member, peer, addresses, self.inner.options.connect_timeout).await
    }

    async fn connect_within(
        &self,
        member: &Arc<Member>,
        peer: &Id52,
        addresses: &[String],
        within: Duration,
    ) -> Result<Connection, NodeError> {
        let network = self.network(member).await?;
        let mut hints = addresses.to_vec();
        hints.extend(self.inner.peers.hints(peer));
        let connection = network.pool.get(*peer, &hints, within).await?;
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

    /// Turns what was typed into a machine of a cluster. If the config in force does not have the machine, the manager is
    /// asked once, since it may have been added meanwhile.
    ///
    /// # Errors
    /// When it means none that this device may know.
    pub(crate) async fn find(&self, request: &OpenRequest) -> Result<Found, NodeError> {
        let (member, target, argv) = self.find_words(request).await?;
        Ok(Found { member, target, argv, within: request.connect_timeout })
    }

    /// Opens a stream to a machine that was found: over the network, or to this device itself.
    ///
    /// # Errors
    /// When the machine cannot be reached.
    ///
    /// # Cancel safety
    /// A cancelled call opens nothing.
    pub(crate) async fn open(&self, found: &Found) -> Result<(Stream, PathView), NodeError> {
        let Found { member, target, within, .. } = found;
        #[cfg(unix)]
        if found.place() == Place::Here {
            return Ok((self.open_own(member)?, PathView::here()));
        }
        let within = within.unwrap_or(self.inner.options.connect_timeout);
        let opened = async {
            let connection = self.connect_within(member, &target.id52, &target.addresses, within).await?;
            Ok((connection.open_stream().await?, connection.path()))
        };
        opened.await.map_err(|error| match error {
            NodeError::Network(source) => found.reach(source),
            other => other,
        })
    }

    /// Resolves an address and runs a program there.
    ///
    /// # Errors
    /// When the address does not resolve, the machine cannot be reached, or it refuses.
    pub async fn run(&self, request: RunRequest) -> Result<RunningCommand, NodeError> {
        let RunRequest { words, single_word, env } = request;
        let found = self.find(&OpenRequest { words, single_word, ..OpenRequest::default() }).await?;
        let exec = ExecRequest { argv: found.argv.clone(), env, resume: None };
        if exec.argv.is_empty() {
            return Err(ClusterError::NoProgram { machine: found.name() }.into());
        }
        let (stream, _) = self.open(&found).await?;
        let started = match found.place() {
            Place::Here => RunningCommand::start(stream, exec).await,
            Place::Elsewhere => {
                let redial = found.redial(self);
                RunningCommand::start_resumable(stream, exec, redial, &found.member.scope).await
            }
        };
        started.map_err(|error| match error {
            // That a peer admits nobody of this identity shows at the first answer.
            ExecError::Network(source) => found.reach(source),
            other => other.into(),
        })
    }

    /// Asks this very device by the gate that peers pass: the same rules, limits and log. Returns the caller's end.
    #[cfg(unix)]
    fn open_own(&self, member: &Arc<Member>) -> Result<Stream, P2pError> {
        let own = member.own_id();
        let (ours, theirs) = Stream::pair(&member.scope, own, own)
            .map_err(|error| P2pError::Lost { reason: format!("no socket could be made: {error}") })?;
        self.take(member, Asker::here(own), theirs);
        Ok(ours)
    }

    async fn find_words(
        &self,
        request: &OpenRequest,
    ) -> Result<(Arc<Member>, TargetMachine, Vec<String>), NodeError> {
        let OpenRequest { words, single_word, .. } = request;
        let known = self.known_clusters()?;
        let device = self.device();
        let (to_resolve, as_they_are) = match single_word {
            SingleWord::Split => (words.as_slice(), &[][..]),
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
            Err(error) if member.loaded().role != Role::Manager => match self.sync(&member).await {
                Ok(true) => member.loaded().target(&machine)?,
                Ok(false) => return Err(error.into()),
                Err(unasked) => {
                    tracing::debug!(cluster = %cluster, error = %unasked, "the manager could not be asked");
                    return Err(error.into());
                }
            },
            Err(error) => return Err(error.into()),
        };
        Ok((member, target, argv))
    }

    pub(super) fn known_clusters(&self) -> Result<Vec<KnownCluster>, NodeError> {
        let known = |alias: ClusterAlias, role: Role| {
            let info = self.home().load_cluster_info(&alias)?.unwrap_or_default();
            let mut ids: Vec<Id52> = info.manager.into_iter().chain(info.chain).collect();
            if role == Role::Manager {
                ids.push(self.member(&alias).map(|member| member.own_id())?);
            }
            Ok(KnownCluster { alias, domain: info.domain, ids })
        };
        match self.inner.mode {
            // Those that are served, whatever lies in the home meanwhile.
            Mode::Serve => {
                let members = self.members();
                members.into_iter().map(|(alias, member)| known(alias, member.loaded().role)).collect()
            }
            Mode::Dial => self.home().clusters()?.into_iter().map(|dir| known(dir.alias, dir.role)).collect(),
        }
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
