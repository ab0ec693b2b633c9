//! Nodes with homes of their own on one network in memory, and the words to ask them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use malai_core::api::{
    self, ApiReply, ApiRequest, ClusterView, CreateInviteRequest, FailedView, JoinClusterRequest, JoinVia,
    JoinedView, NewInviteView, OpenRules, RescanView, RoleView, RunRequest,
};
use malai_core::clock::{ManualClock, SharedClock, SystemClock};
use malai_core::exec::{CommandEvent, RunningCommand};
use malai_core::home::{Create, Home};
use malai_core::host::OwnProgram;
use malai_core::identity::{KeyRef, KeyStore, MemoryKeyStore, load_required};
use malai_core::model::cluster::DistributionState;
use malai_core::model::code::ErrorCode;
use malai_core::model::id::{Id52, SecretKey};
use malai_core::model::name::ClusterAlias;
use malai_core::model::wire::CommandEnd;
use malai_core::node::{Mode, Node, NodeOptions};
use malai_core::p2p::memory::Network;
use malai_core::p2p::{
    Connection, Discovery, Endpoint, EndpointOptions, NetworkOptions, Protocol, Relays, Transport,
};
use malai_core::task::Scope;

/// No honest step takes longer, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long nodes try to reach each other: short, since in memory an answer takes no time.
pub(crate) const REACH: Duration = Duration::from_millis(300);

/// Awaits with a deadline.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("within the test's patience")
}

/// Asks again and again until the answer is yes.
#[track_caller]
pub(crate) fn until<F, A>(what: &str, mut condition: F) -> impl Future<Output = ()>
where
    F: FnMut() -> A,
    A: Future<Output = bool>,
{
    let place = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        while !condition().await {
            assert!(begun.elapsed() < PATIENCE, "{place}: still waiting for {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) fn alias(text: &str) -> ClusterAlias {
    text.parse().expect("an alias")
}

/// The cluster that most tests are about, as every home calls it.
pub(crate) fn company() -> ClusterAlias {
    alias("company")
}

/// A place for homes, a network and a clock.
pub(crate) struct World {
    pub(crate) network: Network,
    /// Moves only when it is told to, for tests that ask for it.
    pub(crate) clock: Option<ManualClock>,
    /// What the nodes take for the malai program.
    own_program: Option<OwnProgram>,
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { network: Network::new(), clock: None, own_program: None, dir }
    }

    /// With a clock that stands still until it is moved.
    pub(crate) fn with_manual_clock() -> Self {
        let start = jiff::Timestamp::from_second(1_800_000_000).expect("a time");
        Self { clock: Some(ManualClock::new(start)), ..Self::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Whose nodes take that for the malai program.
    pub(crate) fn with_own_program(path: &str) -> Self {
        Self { own_program: Some(OwnProgram::at(path)), ..Self::new() }
    }

    /// Starts a node that serves, with a home of that name.
    pub(crate) async fn node(&self, name: &str) -> TestNode {
        self.node_with(name, "").await
    }

    /// As [`Self::node`], with a `malai.toml`.
    pub(crate) async fn node_with(&self, name: &str, device: &str) -> TestNode {
        let root = self.path(name);
        let home = Home::open(root, Create::Yes).expect("a home");
        std::fs::write(home.device_config(), device).expect("malai.toml is written");
        let keys = Arc::new(MemoryKeyStore::new());
        let node = start(self, home.clone(), Arc::clone(&keys)).await;
        TestNode { name: name.to_owned(), node, home, keys }
    }

    /// An endpoint with somebody's key, to say on the wire whatever a test wants said.
    pub(crate) async fn endpoint(&self, secret: SecretKey) -> Endpoint {
        let options = EndpointOptions { secret, network: offline(), serve: None, preferred_port: None };
        Endpoint::bind(options, Transport::Memory(self.network.clone()), &Scope::new()).await.expect("binds")
    }
}

pub(crate) fn offline() -> NetworkOptions {
    NetworkOptions {
        bind: ([127, 0, 0, 1], 0).into(),
        discovery: Discovery { local: false, mdns: false, dns: false },
        relays: Relays::None,
        runtime_dir: None,
    }
}

async fn start(world: &World, home: Home, keys: Arc<MemoryKeyStore>) -> Node {
    let clock: SharedClock = match &world.clock {
        Some(clock) => Arc::new(clock.clone()),
        None => Arc::new(SystemClock),
    };
    let options = NodeOptions {
        home,
        keys,
        clock,
        transport: Transport::Memory(world.network.clone()),
        runtime_dir: None,
        connect_timeout: REACH,
        version: "0.0.0-test",
        own_program: world.own_program.clone(),
    };
    Node::start(options, Mode::Serve).await.expect("the node starts")
}

/// A node that serves, with its home and its keys.
pub(crate) struct TestNode {
    pub(crate) name: String,
    pub(crate) node: Node,
    pub(crate) home: Home,
    pub(crate) keys: Arc<MemoryKeyStore>,
}

impl TestNode {
    /// Ends the node; the home and the keys stay.
    pub(crate) async fn stop(&self) {
        self.node.close(Duration::ZERO).await;
    }

    /// Starts it again after [`Self::stop`].
    pub(crate) async fn restart(&mut self, world: &World) {
        self.node = start(world, self.home.clone(), Arc::clone(&self.keys)).await;
    }

    pub(crate) async fn ask(&self, request: ApiRequest) -> Result<ApiReply, FailedView> {
        match soon(api::handle(&self.node, request)).await {
            ApiReply::Failed(failed) => Err(failed),
            reply => Ok(reply),
        }
    }

    pub(crate) async fn init(&self, cluster: &ClusterAlias) -> Id52 {
        let request = ApiRequest::InitCluster { alias: cluster.clone(), cluster_name: None };
        match self.ask(request).await {
            Ok(ApiReply::Cluster(view)) => view.id52,
            other => panic!("{}: {other:?}", self.name),
        }
    }

    /// Makes an invite for so many machines to the company.
    pub(crate) async fn invite(&self, max_uses: u32) -> NewInviteView {
        let request = CreateInviteRequest {
            cluster: company(),
            label: None,
            expires_in: Some(Duration::from_secs(3600)),
            max_uses: Some(max_uses),
            groups: Vec::new(),
            open: OpenRules::Refuse,
        };
        self.invite_as(request).await
    }

    pub(crate) async fn invite_as(&self, request: CreateInviteRequest) -> NewInviteView {
        match self.ask(ApiRequest::CreateInvite(request)).await {
            Ok(ApiReply::Invite(view)) => view,
            other => panic!("{}: {other:?}", self.name),
        }
    }

    /// How often an invite of the company was used.
    pub(crate) async fn uses(&self, invite: &Id52) -> u32 {
        match self.ask(ApiRequest::ListInvites { cluster: company() }).await {
            Ok(ApiReply::Invites { invites }) => {
                invites.iter().find(|view| view.id52 == *invite).expect("the invite is listed").uses
            }
            other => panic!("{}: {other:?}", self.name),
        }
    }

    /// Joins the company under this node's own name.
    pub(crate) async fn join(&self, invite: &str) -> Result<JoinedView, ErrorCode> {
        self.join_as(invite, &company(), &self.name).await
    }

    pub(crate) async fn join_as(
        &self,
        invite: &str,
        cluster: &ClusterAlias,
        name: &str,
    ) -> Result<JoinedView, ErrorCode> {
        let request = JoinClusterRequest {
            via: JoinVia::Invite(invite.to_owned()),
            alias: cluster.clone(),
            name: Some(name.parse().expect("a name")),
        };
        match self.ask(ApiRequest::Join(request)).await {
            Ok(ApiReply::Joined(view)) => Ok(view),
            Ok(other) => panic!("{}: {other:?}", self.name),
            Err(failed) => Err(failed.error.code),
        }
    }

    /// Puts the files in force.
    pub(crate) async fn rescan(&self) -> Result<RescanView, ErrorCode> {
        self.rescan_or(false).await
    }

    async fn rescan_or(&self, check: bool) -> Result<RescanView, ErrorCode> {
        match self.ask(ApiRequest::Rescan { check }).await {
            Ok(ApiReply::Rescanned(view)) => Ok(view),
            Ok(other) => panic!("{}: {other:?}", self.name),
            Err(failed) => Err(failed.error.code),
        }
    }

    /// The company, as this node shows it.
    pub(crate) async fn view(&self) -> ClusterView {
        self.view_of(&company()).await
    }

    pub(crate) async fn view_of(&self, cluster: &ClusterAlias) -> ClusterView {
        match self.ask(ApiRequest::Info {}).await {
            Ok(ApiReply::Info(info)) => info
                .clusters
                .into_iter()
                .find(|view| view.alias == *cluster)
                .expect("the home has the cluster"),
            other => panic!("{}: {other:?}", self.name),
        }
    }

    /// The company's config as its admin edits it.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.home.cluster_config(&company())).expect("cluster.toml")
    }

    pub(crate) fn write_text(&self, text: &str) {
        std::fs::write(self.home.cluster_config(&company()), text).expect("cluster.toml is written");
    }

    /// The config that this machine obeys, byte for byte.
    pub(crate) fn machine_text(&self) -> String {
        std::fs::read_to_string(self.home.machine_config(&company())).unwrap_or_default()
    }

    /// What this manager noted about deliveries.
    pub(crate) fn state(&self) -> DistributionState {
        let text = std::fs::read_to_string(self.home.state_file(&company())).expect("state.json");
        DistributionState::parse(&text).expect("is what malai writes")
    }

    /// Edits `cluster.toml` and puts it in force.
    pub(crate) async fn edit(&self, change: impl FnOnce(String) -> String) -> RescanView {
        self.write_text(&change(self.text()));
        self.rescan().await.expect("the edit compiles")
    }

    /// Waits until every machine has what it should have.
    pub(crate) async fn settled(&self) {
        until("every machine to have its config", || async {
            self.rescan_or(true).await.expect("compiles").deliveries == 0
        })
        .await;
    }

    /// [`Self::edit`], then [`Self::settled`].
    pub(crate) async fn apply(&self, change: impl FnOnce(String) -> String) {
        self.edit(change).await;
        self.settled().await;
    }

    pub(crate) fn secret(&self, key: &KeyRef) -> SecretKey {
        load_required(self.keys.as_ref() as &dyn KeyStore, key).expect("the key is there")
    }

    /// This device's identity as a machine of the company.
    pub(crate) fn machine_secret(&self) -> SecretKey {
        self.secret(&KeyRef::Machine(company()))
    }

    pub(crate) fn machine_id(&self) -> Id52 {
        self.machine_secret().id52()
    }

    pub(crate) fn root_secret(&self) -> SecretKey {
        self.secret(&KeyRef::ClusterRoot(company()))
    }

    /// Starts a command.
    pub(crate) async fn run(&self, words: &[&str]) -> Result<RunningCommand, ErrorCode> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let request = RunRequest { words, ..RunRequest::default() };
        soon(self.node.run(request)).await.map_err(|error| error.code())
    }

    /// Runs a command without input to its end.
    pub(crate) async fn outcome(&self, words: &[&str]) -> Result<(String, CommandEnd), ErrorCode> {
        let mut running = self.run(words).await?;
        // It may have ended already.
        _ = running.input.end().await;
        read_to_end(&mut running).await
    }
}

/// Reads a command's stdout up to its end.
pub(crate) async fn read_to_end(running: &mut RunningCommand) -> Result<(String, CommandEnd), ErrorCode> {
    let mut text = Vec::new();
    loop {
        match soon(running.output.next()).await {
            Ok(CommandEvent::Stdout(bytes)) => text.extend_from_slice(&bytes),
            Ok(CommandEvent::Stderr(_)) => {}
            Ok(CommandEvent::Ended(end)) => return Ok((String::from_utf8_lossy(&text).into_owned(), end)),
            Err(error) => return Err(error.code()),
        }
    }
}

/// Reads the first line that a command prints.
pub(crate) async fn first_line(running: &mut RunningCommand) -> String {
    let mut text = String::new();
    while !text.ends_with('\n') {
        match soon(running.output.next()).await.expect("the command runs") {
            CommandEvent::Stdout(bytes) => text.push_str(std::str::from_utf8(&bytes).expect("text")),
            other => panic!("{other:?} before a line"),
        }
    }
    text.trim_end().to_owned()
}

/// Says whether a process group has nobody left who runs; who is dead and not collected yet counts as gone.
pub(crate) fn is_gone(group: i32) -> bool {
    let number = nix::unistd::Pid::from_raw(group);
    if nix::sys::signal::killpg(number, None) == Err(nix::errno::Errno::ESRCH) {
        return true;
    }
    // Elsewhere than on Linux there is nothing to read here, and the dead count until they are collected.
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().all(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        fields.get(2) != Some(&group.to_string().as_str()) || matches!(fields.first(), Some(&("Z" | "X")))
    })
}

/// Starts a command that prints its group's number and stays, and returns both.
pub(crate) async fn staying(node: &TestNode, machine: &str) -> (RunningCommand, i32) {
    let words = [machine, "sh", "-c", "echo $$; exec sleep 1000"];
    let mut running = node.run(&words).await.expect("runs");
    let group = first_line(&mut running).await.parse().expect("a number");
    assert!(!is_gone(group));
    (running, group)
}

/// A connection to a peer under the member protocol.
pub(crate) async fn connected(endpoint: &Endpoint, peer: Id52) -> Connection {
    soon(endpoint.connect(peer, Protocol::Member, &[], PATIENCE)).await.expect("connects")
}

/// A manager and its machines, all with a config.
pub(crate) struct Company {
    pub(crate) world: World,
    pub(crate) manager: TestNode,
    pub(crate) machines: Vec<TestNode>,
}

impl Company {
    /// Joins machines of these names by invite, and gives the laptop every program of web01.
    pub(crate) async fn new(names: &[&str]) -> Self {
        Self::with_devices(&names.iter().map(|name| (*name, "")).collect::<Vec<_>>()).await
    }

    /// As [`Self::new`], each machine with a `malai.toml`.
    pub(crate) async fn with_devices(names: &[(&str, &str)]) -> Self {
        Self::in_world(World::new(), names).await
    }

    /// As [`Self::with_devices`], in a world that was made before.
    pub(crate) async fn in_world(world: World, names: &[(&str, &str)]) -> Self {
        let manager = world.node("manager").await;
        manager.init(&company()).await;
        let invite = manager.invite(1000).await.invite;
        let mut machines = Vec::new();
        for (name, device) in names {
            let node = world.node_with(name, device).await;
            let joined = node.join(&invite).await.expect("joins");
            assert_eq!(joined.machine.map(|name| name.to_string()).as_deref(), Some(*name));
            machines.push(node);
        }
        let company = Self { world, manager, machines };
        company.manager.apply(|text| allow(&text, "web01", "laptop")).await;
        for machine in &company.machines {
            until("the first config", || async { machine.view().await.role == RoleView::Machine }).await;
        }
        // What a machine asked for by itself may cross a delivery: from here on everything is quiet.
        company.manager.settled().await;
        company
    }

    pub(crate) fn machine(&self, name: &str) -> &TestNode {
        self.machines.iter().find(|node| node.name == name).expect("a machine of that name")
    }

    /// The serials that the machines go by, by name.
    pub(crate) async fn serials(&self) -> Vec<(String, u64)> {
        let mut serials = Vec::new();
        for machine in &self.machines {
            serials.push((machine.name.clone(), machine.view().await.serial.unwrap_or(0)));
        }
        serials
    }

    /// Ends every node.
    pub(crate) async fn stop(&self) {
        for machine in &self.machines {
            machine.stop().await;
        }
        self.manager.stop().await;
    }
}

/// Lets callers run any program on a machine.
pub(crate) fn allow(text: &str, machine: &str, callers: &str) -> String {
    after_header(text, machine, &format!("allow_from = \"{callers}\"\n"))
}

/// Adds lines at the beginning of a machine's section.
pub(crate) fn after_header(text: &str, machine: &str, lines: &str) -> String {
    let header = format!("\n[machine.{machine}]\n");
    assert!(text.contains(&header), "no {machine} in:\n{text}");
    text.replacen(&header, &format!("{header}{lines}"), 1)
}

/// Takes [`allow`] back.
pub(crate) fn deny(text: &str, callers: &str) -> String {
    text.replace(&format!("allow_from = \"{callers}\"\n"), "")
}

/// Removes a machine's section.
pub(crate) fn remove(text: &str, machine: &str) -> String {
    let start = text.find(&format!("\n[machine.{machine}]")).expect("the machine is there") + 1;
    let end = text[start..].find("\n[").map_or(text.len(), |at| start + at + 1);
    format!("{}{}", &text[..start], &text[end..])
}

/// How many machines a config has.
pub(crate) fn machines_in(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("[machine.")).count()
}
