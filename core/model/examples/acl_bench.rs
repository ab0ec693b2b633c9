//! Measures what a decision and a compilation cost in a large cluster: 10,000 machines and 1,000 nested groups.
//!
//! `cargo run -p malai-model --example acl_bench [--release]`

#![expect(clippy::print_stdout, reason = "a measuring program's output")]
#![expect(clippy::disallowed_methods, reason = "a measuring program reads the clock")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use malai_model::acl::{Policy, Reach, Run, Shell, authorize};
use malai_model::cluster::{DistributionState, plan};
use malai_model::config::{Personalizer, compile};
use malai_model::id::{Id52, SecretKey};
use malai_model::name::MachineName;

const MACHINES: usize = 10_000;
const GROUPS: usize = 1_000;
const ROUNDS: usize = 101;
const DECISIONS: u32 = 2_000;

fn id(number: usize) -> Id52 {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    SecretKey::from_bytes(&bytes).id52()
}

/// How the groups hold each other.
#[derive(Clone, Copy)]
enum Nesting {
    /// A chain a thousand deep, each with ten machines of its own: the hardest for deciding.
    Chain,
    /// Ten groups of a hundred groups of ten machines: as an organisation has them.
    Tree,
}

fn text(ids: &[Id52], nesting: Nesting) -> String {
    let mut text = format!("[cluster-manager]\nid52 = \"{}\"\ncluster_name = \"big\"\n", id(usize::MAX));
    for (number, id) in ids.iter().enumerate() {
        // Ten machines are admins, who reach everything; others reach the few machines of their team.
        let team = number / 10;
        let _ = write!(
            text,
            "[machine.m{number}]\nid52 = \"{id}\"\nallow_from = \"g0\"\n\
             [machine.m{number}.command.deploy]\nallow_from = \"m{}\"\nargs = [\"v*\"]\n\
             [machine.m{number}.tcp.ssh]\nport = 22\nallow_from = \"m{}\"\n",
            team * 10,
            team * 10 + 1
        );
    }
    for number in 0..GROUPS {
        let inner = match nesting {
            Nesting::Chain if number > 0 => format!("g{},", number - 1),
            Nesting::Chain | Nesting::Tree => String::new(),
        };
        let own: Vec<String> = (number * 10..number * 10 + 10).map(|machine| format!("m{machine}")).collect();
        let _ = write!(text, "[group.g{number}]\nmembers = \"{inner}{}\"\n", own.join(","));
    }
    for number in 0..10 {
        let inner: Vec<String> =
            (number * 100..number * 100 + 100).map(|group| format!("g{group}")).collect();
        let _ = write!(text, "[group.top{number}]\nmembers = \"{}\"\n", inner.join(","));
    }
    let bottom = id(usize::MAX - 1);
    let _ = write!(text, "[machine.bottom]\nid52 = \"{bottom}\"\nallow_from = \"top9\"\n");
    text
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = work();
    println!("{what:<48} {:>10.1} ms", start.elapsed().as_secs_f64() * 1e3);
    value
}

/// Short rounds and their median: what else runs on the machine falls into a few of them only.
fn each(what: &str, mut decision: impl FnMut(usize) -> bool) {
    let mut allowed = 0;
    let mut rounds: Vec<Duration> = Vec::new();
    for round in 0..ROUNDS {
        let start = Instant::now();
        allowed += (0..DECISIONS as usize).filter(|turn| decision(round * DECISIONS as usize + turn)).count();
        rounds.push(start.elapsed() / DECISIONS);
    }
    rounds.sort_unstable();
    let (median, worst) = (rounds[ROUNDS / 2].as_nanos(), rounds[ROUNDS - 1].as_nanos());
    let all = ROUNDS * DECISIONS as usize;
    println!("{what:<48} {median:>10} ns   (worst round {worst} ns; {allowed} of {all} allowed)");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ids: Vec<Id52> = (0..MACHINES).map(id).collect();
    let chain = text(&ids, Nesting::Chain);
    println!("{MACHINES} machines, {GROUPS} nested groups, {} KiB of text", chain.len() / 1024);
    let (config, _) =
        timed("parse and compile the text", || compile("cluster.toml", &chain)).into_result()?;
    let policy = timed("compile the policy, groups in a chain", || Policy::of_cluster(&config));
    let (tree, _) = compile("cluster.toml", &text(&ids, Nesting::Tree)).into_result()?;
    timed("compile the policy, groups in a tree", || Policy::of_cluster(&tree));
    let personalizer = timed("turn the config around", || Personalizer::new(&tree));
    let names: Vec<MachineName> = (0..MACHINES).map(|n| format!("m{n}").parse()).collect::<Result<_, _>>()?;
    timed("personalise all", || names.iter().filter_map(|name| personalizer.personalize(name)).count());
    let now = jiff::Timestamp::UNIX_EPOCH;
    let mut state = DistributionState::default();
    let first = timed("plan the first distribution", || plan(&tree, &state, now));
    first.deliveries.iter().for_each(|delivery| state.record_success(delivery, now));
    let again = timed("plan when nothing changed", || plan(&tree, &state, now));
    println!("{} deliveries, then {}", first.deliveries.len(), again.deliveries.len());

    // Strides that are coprime with the counts, so that no cache line is the last one's neighbour.
    let at = |turn: usize, stride: usize| (turn * stride) % MACHINES;
    let bottom: MachineName = "bottom".parse()?;
    let ls = || Run { argv: vec!["ls".to_owned(), "-l".to_owned()] };
    let deploy = || Run { argv: vec!["deploy".to_owned(), "v1.2".to_owned()] };
    let ssh = Reach { service: "ssh".parse()? };
    each("run, denied", |turn| {
        black_box(authorize(&policy, &ids[at(turn, 7919)], &names[at(turn, 7907)], ls())).is_ok()
    });
    each("run through a thousand groups, allowed", |turn| {
        black_box(authorize(&policy, &ids[at(turn, 7919)], &bottom, ls())).is_ok()
    });
    each("run with a rule and a glob", |turn| {
        let number = at(turn, 7919);
        black_box(authorize(&policy, &ids[number / 10 * 10], &names[number], deploy())).is_ok()
    });
    each("shell", |turn| {
        black_box(authorize(&policy, &ids[at(turn, 7919) % 10], &names[at(turn, 7907)], Shell)).is_ok()
    });
    each("service", |turn| {
        black_box(authorize(&policy, &ids[at(turn, 7919)], &names[at(turn, 7907)], ssh.clone())).is_ok()
    });
    each("stranger", |turn| {
        black_box(authorize(&policy, personalizer.policy().manager(), &names[at(turn, 7907)], Shell)).is_ok()
    });
    Ok(())
}
