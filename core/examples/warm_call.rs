//! Calls over a connection that is open already: a small request, and a command that does nothing.
//!
//! A manager, a machine and a caller in one process, over QUIC on loopback.
//!
//! `cargo run --release -p malai-core --example warm_call --all-features -- [calls]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use malai_core::api::{self, ApiReply, ApiRequest, ClusterView, JoinClusterRequest, JoinVia, RunRequest};
use malai_core::clock::SystemClock;
use malai_core::exec::CommandEvent;
use malai_core::home::{Create, Home};
use malai_core::identity::{KeyRef, KeyStore, MemoryKeyStore};
use malai_core::model::name::ClusterAlias;
use malai_core::model::wire::{CommandEnd, Notice, Request};
use malai_core::node::{Mode, Node, NodeOptions};
use malai_core::p2p::{
    Discovery, Endpoint, EndpointOptions, NetworkOptions, Pool, Relays, Stream, Transport,
};
use malai_core::task::Scope;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const REACH: Duration = Duration::from_secs(5);
/// Nothing but loopback: no look-ups, no relays.
const DEVICE: &str = "[network]\nbind = \"127.0.0.1:0\"\nrelays = \"none\"\ndiscovery = []\n";

fn main() -> Outcome<()> {
    let quick = std::env::var_os("MALAI_BENCH_QUICK").is_some();
    let calls = std::env::args().nth(1).map(|arg| arg.parse::<usize>()).transpose()?;
    let calls = calls.unwrap_or(if quick { 200 } else { 2_000 });
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(Box::pin(run(calls)))
}

/// A node, its home and its keys.
struct Member {
    node: Node,
    home: Home,
    keys: Arc<MemoryKeyStore>,
}

impl Member {
    async fn start(root: PathBuf) -> Outcome<Self> {
        let home = Home::open(root, Create::Yes)?;
        std::fs::write(home.device_config(), DEVICE)?;
        let keys = Arc::new(MemoryKeyStore::new());
        let options = NodeOptions {
            home: home.clone(),
            keys: Arc::clone(&keys) as Arc<dyn KeyStore>,
            clock: Arc::new(SystemClock),
            transport: Transport::Quic,
            runtime_dir: None,
            connect_timeout: REACH,
            version: malai_core::VERSION,
            own_program: None,
        };
        Ok(Self { node: Box::pin(Node::start(options, Mode::Serve)).await?, home, keys })
    }

    async fn ask(&self, request: ApiRequest) -> Outcome<ApiReply> {
        match api::handle(&self.node, request).await {
            ApiReply::Failed(failed) => Err(failed.error.message.into()),
            reply => Ok(reply),
        }
    }

    async fn view(&self) -> Outcome<ClusterView> {
        match self.ask(ApiRequest::Info {}).await? {
            ApiReply::Info(info) => Ok(info.clusters.into_iter().next().ok_or("no cluster")?),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// Where its identity listens.
    async fn addresses(&self) -> Outcome<Vec<String>> {
        match self.ask(ApiRequest::Status {}).await? {
            ApiReply::Status(status) => {
                Ok(status.listening.into_iter().flat_map(|listen| listen.addresses).collect())
            }
            other => Err(format!("{other:?}").into()),
        }
    }
}

async fn run(calls: usize) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let alias: ClusterAlias = "company".parse()?;
    let manager = Member::start(dir.path().join("manager")).await?;
    let request = ApiRequest::InitCluster { alias: alias.clone(), cluster_name: None };
    let ApiReply::Cluster(cluster) = manager.ask(request).await? else { return Err("no cluster".into()) };
    let (web01, laptop) =
        (Member::start(dir.path().join("web01")).await?, Member::start(dir.path().join("laptop")).await?);
    let mut text = std::fs::read_to_string(manager.home.cluster_config(&alias))?;
    for (name, member) in [("web01", &web01), ("laptop", &laptop)] {
        let via = JoinVia::Manager(cluster.id52);
        let request = JoinClusterRequest { via, alias: alias.clone(), name: None };
        let ApiReply::Joined(joined) = member.ask(ApiRequest::Join(request)).await? else {
            return Err("not joined".into());
        };
        let addresses = member.addresses().await?;
        text.push_str(&format!(
            "\n[machine.{name}]\nid52 = \"{}\"\naddresses = {addresses:?}\n",
            joined.id52
        ));
        if name == "web01" {
            text.push_str("allow_from = \"laptop\"\n");
        }
    }
    std::fs::write(manager.home.cluster_config(&alias), text)?;
    manager.ask(ApiRequest::Rescan { check: false }).await?;
    let begun = Instant::now();
    while web01.view().await?.serial.is_none() || laptop.view().await?.machines.is_empty() {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err("the machines did not get their configs".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let exec = percentiles(commands(&laptop.node, calls).await?);
    laptop.node.close(Duration::ZERO).await;
    let call = percentiles(pings(&laptop, &web01, &alias, calls).await?);
    report(&format!("calls={calls}"));
    report(&format!("p50_us={:.1}", call.0));
    report(&format!("p99_us={:.1}", call.1));
    report(&format!("exec_p50_us={:.1}", exec.0));
    report(&format!("exec_p99_us={:.1}", exec.1));
    web01.node.close(Duration::ZERO).await;
    manager.node.close(Duration::ZERO).await;
    Ok(())
}

/// A request of a few bytes and its answer, over a pool's connection, as every feature gets it.
async fn pings(
    caller: &Member,
    target: &Member,
    alias: &ClusterAlias,
    calls: usize,
) -> Outcome<Vec<Duration>> {
    let secret = caller.keys.load(&KeyRef::Machine(alias.clone()))?.ok_or("no key")?;
    let network = NetworkOptions {
        bind: ([127, 0, 0, 1], 0).into(),
        discovery: Discovery { local: false, mdns: false, dns: false },
        relays: Relays::None,
        runtime_dir: None,
    };
    let scope = Scope::new();
    let options = EndpointOptions { secret, network, serve: None, preferred_port: None };
    let endpoint = Arc::new(Endpoint::bind(options, Transport::Quic, &scope).await?);
    let pool = Pool::new(Arc::clone(&endpoint), &scope);
    let (peer, hints) = (target.view().await?.id52, target.addresses().await?);
    let mut took = Vec::with_capacity(calls);
    for number in 0..calls + calls / 10 {
        let begun = Instant::now();
        let Stream { sender, mut receiver } = pool.get(peer, &hints, REACH).await?.open_stream().await?;
        sender.send_message(&Request::Ping {}).await?;
        match receiver.message::<Notice>().await? {
            Some(Notice::Pong { .. }) => {}
            other => return Err(format!("{other:?}").into()),
        }
        // The first ones connect and warm up.
        if number >= calls / 10 {
            took.push(begun.elapsed());
        }
    }
    endpoint.close().await;
    Ok(took)
}

/// A command that does nothing, from asking for it to its end.
async fn commands(node: &Node, calls: usize) -> Outcome<Vec<Duration>> {
    let mut took = Vec::with_capacity(calls);
    for number in 0..calls + calls / 10 {
        let begun = Instant::now();
        let words = vec!["web01.company".to_owned(), "/bin/true".to_owned()];
        let mut running = Box::pin(node.run(RunRequest { words, ..RunRequest::default() })).await?;
        loop {
            match running.output.next().await? {
                CommandEvent::Ended(CommandEnd::Exited { status: 0 }) => break,
                CommandEvent::Ended(end) => return Err(format!("{end:?}").into()),
                CommandEvent::Stdout(_) | CommandEvent::Stderr(_) => {}
            }
        }
        if number >= calls / 10 {
            took.push(begun.elapsed());
        }
    }
    Ok(took)
}

/// The median and the 99th of a hundred, in microseconds.
fn percentiles(mut took: Vec<Duration>) -> (f64, f64) {
    took.sort_unstable();
    let at = |index: usize| took.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6);
    (at(took.len() / 2), at(took.len() * 99 / 100))
}

#[expect(clippy::print_stdout, reason = "a program whose purpose is to print figures")]
fn report(line: &str) {
    println!("{line}");
}
