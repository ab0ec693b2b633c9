//! Rights that are taken away while they are used.

use std::time::Duration;

use malai_core::Bytes;
use malai_core::cluster::{DeliveryOutcome, deliver};
use malai_core::exec::CommandEvent;
use malai_core::identity::{KeyRef, make_random};
use malai_core::model::code::ErrorCode;
use malai_core::model::config::{MAX_CONFIG_BYTES, Personalised, compile, personalize, root_digest};
use malai_core::model::wire::CommandEnd;
use malai_core::node::Node;

use crate::harness::{company as cluster, *};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_taken_away_ends_the_command_at_once_with_its_whole_group() {
    let company = Company::new(&["web01", "laptop", "db01"]).await;
    company.manager.apply(|text| allow(&deny(&text, "laptop"), "web01", "laptop, db01")).await;
    let (mut ends, group) = staying(company.machine("laptop"), "web01.company").await;
    let (mut stays, other) = staying(company.machine("db01"), "web01.company").await;
    company.manager.edit(|text| allow(&deny(&text, "laptop, db01"), "web01", "db01")).await;
    assert_eq!(read_to_end(&mut ends).await.err(), Some(ErrorCode::AclRevoked));
    until("the end of the group", || async { is_gone(group) }).await;
    assert!(!is_gone(other), "the other caller's right stays");
    // And the next one is not even let in.
    until("the refusal", || async {
        company.machine("laptop").run(&["web01.company", "true"]).await.is_err()
    })
    .await;
    drop(stays.input);
    assert!(tokio::time::timeout(Duration::from_millis(50), stays.output.next()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_ignores_the_hang_up_is_killed_and_its_children_too() {
    let company = Company::new(&["web01", "laptop"]).await;
    let script =
        "trap '' HUP TERM; (trap '' HUP; while :; do sleep 0.1; done) & echo $$; while :; do sleep 0.1; done";
    let mut running =
        company.machine("laptop").run(&["web01.company", "sh", "-c", script]).await.expect("runs");
    let group = first_line(&mut running).await.parse().expect("a number");
    company.manager.edit(|text| deny(&text, "laptop")).await;
    assert_eq!(read_to_end(&mut running).await.err(), Some(ErrorCode::AclRevoked));
    until("the end of the group", || async { is_gone(group) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_stays_keeps_its_command_running() {
    let company = Company::new(&["web01", "laptop"]).await;
    let mut running = company.machine("laptop").run(&["web01.company", "cat"]).await.expect("runs");
    let serial = company.machine("web01").view().await.serial;
    // The rule moves, the right does not.
    company
        .manager
        .apply(|text| {
            format!("{}\n[group.ops]\nmembers = \"laptop\"\n", allow(&deny(&text, "laptop"), "web01", "ops"))
        })
        .await;
    company
        .manager
        .apply(|text| format!("{text}\n[machine.web01.command.uptime]\nallow_from = \"web01\"\n"))
        .await;
    assert_ne!(company.machine("web01").view().await.serial, serial);
    soon(running.input.write(Bytes::from_static(b"still here\n"))).await.expect("it reads");
    soon(running.input.end()).await.expect("ends");
    let (text, end) = read_to_end(&mut running).await.expect("ends well");
    assert_eq!((text.as_str(), end), ("still here\n", CommandEnd::Exited { status: 0 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_alias_runs_cannot_change_under_a_running_command() {
    let company = Company::new(&["web01", "laptop"]).await;
    let rule = |words: &str| {
        format!("\n[machine.web01.command.wait]\nallow_from = \"laptop\"\ncommand = \"{words}\"\n")
    };
    company.manager.apply(|text| format!("{text}{}", rule("sleep 1000"))).await;
    let mut running = company.machine("laptop").run(&["web01.company", "wait"]).await.expect("runs");
    company.manager.edit(|text| text.replace("sleep 1000", "sleep 2000")).await;
    assert_eq!(read_to_end(&mut running).await.err(), Some(ErrorCode::AclRevoked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_machine_is_not_admitted_and_its_open_connections_are_closed() {
    let company = Company::new(&["web01", "laptop"]).await;
    let laptop = company.machine("laptop");
    laptop.stop().await;
    // Its key goes on being used, by somebody who never asks for a new config.
    let endpoint = company.world.endpoint(laptop.machine_secret()).await;
    let to_web01 = connected(&endpoint, company.machine("web01").machine_id()).await;
    let to_manager = connected(&endpoint, company.manager.root_secret().id52()).await;
    soon(to_web01.open_stream()).await.expect("opens");
    company.manager.edit(|text| remove(&deny(&text, "laptop"), "laptop")).await;
    for connection in [&to_web01, &to_manager] {
        assert_eq!(soon(connection.closed()).await.text, "not admitted");
    }
    for peer in [to_web01.peer(), to_manager.peer()] {
        let again = connected(&endpoint, peer).await;
        assert_eq!(soon(again.closed()).await.text, "not admitted");
        assert_eq!(
            again.open_stream().await.err().map(|error| error.code()),
            Some(ErrorCode::PeerNotAdmitted)
        );
    }
    assert!(!company.manager.state().machine_states.contains_key(&laptop.machine_id()));
}

/// How often the race is run; a soak repeats the whole test.
const ROUNDS: u32 = 100;
/// How often it is gone on with until both sides of the race are met.
const MOST_ROUNDS: u32 = ROUNDS * 4;
/// Commands that are begun around each change.
const CALLS: u32 = 6;

/// A generator whose seed a failure prints.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Begins a command after a while, and waits for its end. Returns whether it ran.
async fn call(node: Node, after: Duration, marker: &str) -> Result<bool, String> {
    tokio::time::sleep(after).await;
    let words = ["web01.company", "sleep", marker].map(str::to_owned).to_vec();
    let Ok(mut running) = node.run(malai_core::api::RunRequest { words, ..Default::default() }).await else {
        return Ok(false);
    };
    loop {
        match tokio::time::timeout(PATIENCE / 3, running.output.next()).await {
            Ok(Ok(CommandEvent::Stdout(_) | CommandEvent::Stderr(_))) => {}
            Ok(Ok(CommandEvent::Ended(end))) => return Err(format!("it ended by itself: {end:?}")),
            Ok(Err(_)) => return Ok(true),
            Err(_) => return Err("it survived".to_owned()),
        }
    }
}

/// The processes of this machine that the test's commands are.
fn alive(marker: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("lists processes").flatten();
    let mut found = Vec::new();
    for process in processes {
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if words.split(|byte| *byte == 0).any(|word| word == marker.as_bytes()) {
            found.push(process.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_change_nothing_that_was_started_under_the_old_rules_survives() {
    let seed = u64::from_le_bytes(make_random().expect("randomness")) | 1;
    let mut random = Random(seed);
    let company = Company::new(&["web01", "laptop"]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    // A right to something else stays: the caller is let in before and after, and only the command's own rule decides.
    let other = "\n[machine.web01.command.uptime]\nallow_from = \"laptop\" # also after\n";
    let text = format!("{}{other}", company.manager.text());
    let bodies: [Personalised; 2] = [deny(&text, "laptop"), text].map(|text| {
        let config = compile("cluster.toml", &text).into_result().expect("compiles").0;
        personalize(&config, &"web01".parse().expect("a name")).expect("is a machine")
    });
    let (root, next) = (company.manager.root_secret(), company.manager.secret(&KeyRef::NextRoot(cluster())));
    company.manager.stop().await;
    let endpoint = company.world.endpoint(root.clone()).await;
    let connection = connected(&endpoint, web01.machine_id()).await;
    let mut serial = web01.view().await.serial.expect("a config");
    let mut push = async |body: &Personalised| {
        serial += 1;
        let text = body.sign(serial, &root_digest(&next.id52()), &root);
        let outcome = soon(deliver(&connection, &text, MAX_CONFIG_BYTES)).await.expect("is answered");
        assert!(matches!(outcome, DeliveryOutcome::Accepted { .. }), "seed {seed}: {outcome:?}");
    };
    let [denied, allowed] = &bodies;
    let (mut ran, mut refused) = (0, 0);
    for round in 0..MOST_ROUNDS {
        if round >= ROUNDS && ran > 0 && refused > 0 {
            break;
        }
        // However slow the machine is now: what is not met yet is given more room.
        let (call_within, change_within) = (
            4000 * if refused == 0 { 1 + u64::from(round) } else { 1 },
            6000 * if ran == 0 { 1 + u64::from(round) } else { 1 },
        );
        push(allowed).await;
        // A number of its own, so that its processes can be told from all others.
        let marker = format!("{}", 1_000_000_000 + seed % 1_000_000 * 1000 + u64::from(round));
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..CALLS {
            let (node, marker) = (laptop.node.clone(), marker.clone());
            let after = Duration::from_micros(random.below(call_within));
            calls.spawn(async move { call(node, after, &marker).await });
        }
        tokio::time::sleep(Duration::from_micros(random.below(change_within))).await;
        push(denied).await;
        for outcome in soon(calls.join_all()).await {
            match outcome {
                Ok(true) => ran += 1,
                Ok(false) => refused += 1,
                Err(problem) => panic!("seed {seed}, round {round}: {problem}"),
            }
        }
        until("the end of all processes", || async { alive(&marker).is_empty() }).await;
    }
    assert!(
        ran > 0 && refused > 0,
        "seed {seed}: both sides of the race are met, {ran} ran, {refused} did not"
    );
}
