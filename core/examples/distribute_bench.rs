//! A change that concerns 3 of 200 machines: how many files are sent, and how long until the last is in force. Then one
//! command on all of them at once, beside the same on one.
//!
//! 200 nodes with homes of their own in one process, over the network in memory.
//!
//! `cargo run --release -p malai-core --example distribute_bench --all-features -- [machines]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use malai_core::api::{
    self, ApiReply, ApiRequest, Client, ClientOptions, ClusterView, JoinClusterRequest, JoinVia, ManyEvent,
    ManyRequest, TargetOutcome,
};
use malai_core::clock::SystemClock;
use malai_core::home::{Create, Home};
use malai_core::identity::MemoryKeyStore;
use malai_core::model::id::Id52;
use malai_core::model::name::ClusterAlias;
use malai_core::node::{Mode, Node, NodeOptions};
use malai_core::p2p::{Transport, memory};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How many machines the change concerns.
const CHANGED: usize = 3;
/// What runs on all of them at once.
const PROBE: [&str; 2] = ["sleep", "1"];
/// Longer than the whole may take, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Outcome<()> {
    let machines = std::env::args().nth(1).map_or(Ok(200), |arg| arg.parse::<usize>())?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(Box::pin(run(machines)))
}

/// A node and its home.
struct Member {
    node: Node,
    home: Home,
    keys: Arc<MemoryKeyStore>,
}

impl Member {
    async fn start(root: std::path::PathBuf, network: &memory::Network) -> Outcome<Self> {
        let home = Home::open(root, Create::Yes)?;
        let keys = Arc::new(MemoryKeyStore::new());
        let options = NodeOptions {
            home: home.clone(),
            keys: keys.clone(),
            clock: Arc::new(SystemClock),
            transport: Transport::Memory(network.clone()),
            runtime_dir: None,
            connect_timeout: Duration::from_secs(5),
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

    /// The serial of the config in force: each file that is taken raises it.
    async fn serial(&self) -> Outcome<u64> {
        Ok(self.view().await?.serial.unwrap_or(0))
    }

    async fn rescan(&self, check: bool) -> Outcome<usize> {
        match self.ask(ApiRequest::Rescan { check }).await? {
            ApiReply::Rescanned(view) => Ok(view.deliveries),
            other => Err(format!("{other:?}").into()),
        }
    }
}

async fn run(machines: usize) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let network = memory::Network::new();
    let alias: ClusterAlias = "company".parse()?;
    let manager = Member::start(dir.path().join("manager"), &network).await?;
    let request = ApiRequest::InitCluster { alias: alias.clone(), cluster_name: None };
    let ApiReply::Cluster(cluster) = manager.ask(request).await? else { return Err("no cluster".into()) };
    let root = cluster.id52;

    let mut members = Vec::with_capacity(machines);
    let mut text = std::fs::read_to_string(manager.home.cluster_config(&alias))?;
    for number in 0..machines {
        let (member, id52) = joined(dir.path().join(format!("m{number}")), &network, &alias, root).await?;
        text.push_str(&format!("\n[machine.m{number}]\nid52 = \"{id52}\"\nallow_from = \"ops\"\n"));
        members.push(member);
    }
    text.push_str("\n[group.ops]\nmembers = \"m0\"\n");
    std::fs::write(manager.home.cluster_config(&alias), &text)?;
    let begun = Instant::now();
    manager.rescan(false).await?;
    settle(&manager).await?;
    let first = begun.elapsed();

    let before = serials(&members).await?;
    // m1 gets another rule, m0 loses sight of it, m2 gains it: three files, of which none is like the one before.
    let old = section(&text, 1);
    let changed = text.replacen(&old, &old.replace("\"ops\"", "\"m2\""), 1);
    std::fs::write(manager.home.cluster_config(&alias), changed)?;
    let begun = Instant::now();
    let planned = manager.rescan(false).await?;
    while sum(&before, &serials_of(&members, CHANGED).await?) < CHANGED as u64 {
        if begun.elapsed() > PATIENCE {
            return Err("the change did not arrive".into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    settle(&manager).await?;
    let sent = sum(&before, &serials(&members).await?);
    report(&format!("machines={machines}"));
    report(&format!("first_seconds={:.3}", first.as_secs_f64()));
    report(&format!("changed={planned}"));
    report(&format!("sent={sent}"));
    report(&format!("seconds={seconds:.3}"));
    at_once(&members, &network).await?;
    manager.node.close(Duration::ZERO).await;
    for member in &members {
        member.node.close(Duration::ZERO).await;
    }
    if (planned, sent) != (CHANGED, CHANGED as u64) {
        return Err(
            format!("{sent} files were sent, {planned} planned, where {CHANGED} machines changed").into()
        );
    }
    Ok(())
}

/// One command on all machines that m0 may use, and on one.
async fn at_once(members: &[Member], network: &memory::Network) -> Outcome<()> {
    let [first, ..] = members else { return Ok(()) };
    first.node.close(Duration::ZERO).await;
    let mut options = ClientOptions::new(first.home.root().to_owned());
    options.keys = Some(first.keys.clone());
    options.transport = Transport::Memory(network.clone());
    let client = Client::open(options).await?;
    let (_, alone) = run_on(&client, vec!["m2.company".to_owned()]).await?;
    // All but its own.
    let (targets, all) = run_on(&client, (1..=9).map(|digit| format!("m{digit}*.company")).collect()).await?;
    report(&format!("targets={targets}"));
    report(&format!("single_seconds={:.3}", alone.as_secs_f64()));
    report(&format!("all_seconds={:.3}", all.as_secs_f64()));
    client.close().await;
    Ok(())
}

/// How many machines it was, and how long it took.
async fn run_on(client: &Client, patterns: Vec<String>) -> Outcome<(usize, Duration)> {
    let request = ManyRequest::new(patterns, PROBE.map(str::to_owned).to_vec());
    let begun = Instant::now();
    let mut run = client.run_many(request).await?;
    let mut ended = 0;
    while let Some(events) = run.next_batch().await {
        for event in events {
            if let ManyEvent::Ended { end, .. } = event {
                if end.outcome != TargetOutcome::Ok {
                    return Err(format!("a machine: {end:?}").into());
                }
                ended += 1;
            }
        }
    }
    Ok((ended, begun.elapsed()))
}

/// A machine that has pinned the manager and waits.
async fn joined(
    root_dir: std::path::PathBuf,
    network: &memory::Network,
    alias: &ClusterAlias,
    root: Id52,
) -> Outcome<(Member, Id52)> {
    let member = Member::start(root_dir, network).await?;
    let request = JoinClusterRequest { via: JoinVia::Manager(root), alias: alias.clone(), name: None };
    let ApiReply::Joined(joined) = member.ask(ApiRequest::Join(request)).await? else {
        return Err("not joined".into());
    };
    Ok((member, joined.id52))
}

/// Waits until every machine has what it should have.
async fn settle(manager: &Member) -> Outcome<()> {
    let begun = Instant::now();
    while manager.rescan(true).await? > 0 {
        if begun.elapsed() > PATIENCE {
            return Err("the machines did not get their configs".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn serials(members: &[Member]) -> Outcome<Vec<u64>> {
    serials_of(members, members.len()).await
}

/// Of the first so many.
async fn serials_of(members: &[Member], count: usize) -> Outcome<Vec<u64>> {
    let mut serials = Vec::with_capacity(count);
    for member in &members[..count] {
        serials.push(member.serial().await?);
    }
    Ok(serials)
}

/// How much they grew.
fn sum(before: &[u64], after: &[u64]) -> u64 {
    before.iter().zip(after).map(|(before, after)| after - before).sum()
}

/// A machine's section in the config's text.
fn section(text: &str, number: usize) -> String {
    let start = text.find(&format!("\n[machine.m{number}]")).unwrap_or(0);
    let end = text[start + 1..].find("\n[").map_or(text.len(), |at| start + 1 + at);
    text[start..end].to_owned()
}

#[expect(clippy::print_stdout, reason = "a program whose purpose is to print figures")]
fn report(line: &str) {
    println!("{line}");
}
