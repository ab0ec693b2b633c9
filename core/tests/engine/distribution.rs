//! Who gets a new config, when, and what becomes of it when the network does not help.

use std::time::{Duration, Instant};

use malai_core::model::cluster::SyncStatus;
use malai_core::model::name::MachineName;

use crate::harness::{company as cluster, *};

const FIVE: [&str; 5] = ["web01", "web02", "db01", "db02", "laptop"];

fn names(before: &[(String, u64)], after: &[(String, u64)]) -> Vec<String> {
    let grown = before.iter().zip(after).filter(|(before, after)| before != after);
    grown.map(|((name, before), (_, after))| format!("{name}+{}", after - before)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_machines_that_a_change_concerns_get_a_file_and_one_each() {
    let company = Company::new(&FIVE).await;
    let before = company.serials().await;
    // The laptop learns of db01, which learns who may do what; nobody else is concerned.
    let view = company.manager.edit(|text| allow(&text, "db01", "laptop")).await;
    assert_eq!(view.deliveries, 2);
    company.manager.settled().await;
    let after = company.serials().await;
    assert_eq!(names(&before, &after), ["db01+1", "laptop+1"]);

    // What means the same is no change; nor is a rescan of the same text.
    let view = company.manager.edit(|text| format!("# a note\n{text}")).await;
    assert_eq!(view.deliveries, 0);
    company.manager.rescan().await.expect("compiles");
    company.manager.settled().await;
    assert_eq!(company.serials().await, after);

    let mut company = company;
    company.manager.stop().await;
    let Company { world, manager, .. } = &mut company;
    manager.restart(world).await;
    company.manager.settled().await;
    assert_eq!(company.serials().await, after, "a start is no change");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_with_errors_changes_nothing_anywhere() {
    let company = Company::new(&["web01", "laptop"]).await;
    let before = company.serials().await;
    let applied = std::fs::read(company.manager.home.applied_config(&cluster())).expect("applied.toml");
    let good = company.manager.text();
    company.manager.write_text(&format!("{}allow_from = \"nobody-such\"\n", deny(&good, "laptop")));
    assert!(company.manager.rescan().await.is_err());
    let now = std::fs::read(company.manager.home.applied_config(&cluster())).expect("applied.toml");
    assert_eq!(now, applied);
    let outcome = company.machine("laptop").outcome(&["web01.company", "echo", "on"]).await;
    assert_eq!(outcome.expect("runs").0, "on\n");
    company.manager.write_text(&good);
    company.manager.rescan().await.expect("compiles");
    company.manager.settled().await;
    assert_eq!(company.serials().await, before);
}

/// Parts a machine from its manager, and breaks what is open between them.
fn part(company: &Company, name: &str) {
    let (manager, machine) = (company.manager.root_secret().id52(), company.machine(name).machine_id());
    company.world.network.partition(manager, machine);
    company.world.network.cut(manager, machine);
}

fn heal(company: &Company, name: &str) {
    let (manager, machine) = (company.manager.root_secret().id52(), company.machine(name).machine_id());
    company.world.network.heal(manager, machine);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_machine_is_pending_is_tried_again_and_gets_the_newest() {
    let company = Company::new(&["web01", "laptop", "db01"]).await;
    let id52 = company.machine("db01").machine_id();
    part(&company, "db01");
    company.manager.edit(|text| allow(&text, "db01", "laptop")).await;
    until("two failed attempts", || async { company.manager.state().machine_states[&id52].attempts >= 2 })
        .await;
    let state = company.manager.state().machine_states[&id52].clone();
    assert_eq!(state.sync_status, SyncStatus::Pending);
    assert!(state.last_error.is_some_and(|error| error.contains("reach")));
    let name: MachineName = "db01".parse().expect("a name");
    let shown = company.manager.view().await.machines.into_iter().find(|machine| machine.name == name);
    assert_eq!(shown.and_then(|machine| machine.sync).map(|sync| sync.status), Some("pending".to_owned()));
    assert!(!company.machine("db01").machine_text().contains("allow_from"));
    // Everybody else has the change, and another one.
    company.manager.edit(|text| allow(&deny(&text, "laptop"), "db01", "web01")).await;
    until("the laptop's config", || async { company.machine("laptop").view().await.machines.is_empty() })
        .await;

    heal(&company, "db01");
    company.manager.settled().await;
    assert!(
        company.machine("db01").machine_text().contains(&company.machine("web01").machine_id().to_string())
    );
    let state = company.manager.state().machine_states[&id52].clone();
    assert_eq!((state.sync_status, state.attempts, state.last_error), (SyncStatus::Success, 0, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waits_between_attempts_grow() {
    let company = Company::new(&["web01", "laptop", "db01"]).await;
    let id52 = company.machine("db01").machine_id();
    part(&company, "db01");
    company.manager.edit(|text| allow(&text, "db01", "laptop")).await;
    let mut waits = Vec::new();
    for attempt in 1..=3 {
        until("the next attempt", || async {
            company.manager.state().machine_states[&id52].attempts >= attempt
        })
        .await;
        let state = company.manager.state().machine_states[&id52].clone();
        let due = state.next_attempt.expect("another attempt");
        waits.push(due.duration_since(jiff::Timestamp::now()).as_secs_f64());
    }
    // 1, 2 and 4 s, each shortened by up to a half, and by what reading it took.
    assert!(waits[0] <= 1.0 && waits[1] <= 2.0 && waits[2] <= 4.0 && waits[2] > 1.0, "{waits:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_hangs_in_the_middle_of_it_holds_up_nobody_else() {
    let company = Company::new(&["web01", "laptop", "db01"]).await;
    company.manager.apply(|text| allow(&text, "db01", "laptop")).await;
    // Connected, and then it reads nothing any more.
    company.world.network.stall(company.machine("db01").machine_id());
    company
        .manager
        .edit(|text| text.replace("[machine.db01]\nallow_from = \"laptop\"", "[machine.db01]"))
        .await;
    until("the laptop's config", || async { company.machine("laptop").view().await.machines.len() == 1 })
        .await;
    // While that delivery hangs, a right is taken away elsewhere.
    let (mut running, group) = staying(company.machine("laptop"), "web01.company").await;
    let begun = Instant::now();
    company.manager.edit(|text| deny(&text, "laptop")).await;
    assert!(read_to_end(&mut running).await.is_err());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "a right was taken away {took:?} late");
    until("the end of the group", || async { is_gone(group) }).await;

    company.world.network.resume(company.machine("db01").machine_id());
    company.manager.settled().await;
    assert!(!company.machine("db01").machine_text().contains("allow_from"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_in_the_middle_of_it_leaves_every_machine_with_a_whole_config() {
    let company = Company::new(&FIVE).await;
    for round in 0..4 {
        let (before, after) = (["laptop", "laptop, db02"][round % 2], ["laptop, db02", "laptop"][round % 2]);
        let change = |text: String| {
            let text = deny(&text, before);
            ["web01", "web02", "db01"].iter().fold(text, |text, machine| allow(&text, machine, after))
        };
        let editing = company.manager.edit(change);
        let parting = async {
            tokio::time::sleep(Duration::from_millis(round as u64 * 3)).await;
            part(&company, "web02");
            part(&company, "db01");
        };
        tokio::join!(editing, parting);
        until("the config of who is not parted", || async {
            let text = company.machine("web01").machine_text();
            text.contains(&company.machine("db02").machine_id().to_string()) == (round % 2 == 0)
        })
        .await;
        heal(&company, "web02");
        heal(&company, "db01");
        company.manager.settled().await;
        for name in ["web01", "web02", "db01"] {
            let outcome = company.machine("laptop").outcome(&[&format!("{name}.company"), "true"]).await;
            assert!(outcome.is_ok(), "round {round}, {name}: {outcome:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_was_away_asks_for_what_it_missed() {
    let mut company = Company::new(&["web01", "laptop", "db01"]).await;
    company.manager.settled().await;
    company.machine("db01").stop().await;
    company.manager.edit(|text| allow(&text, "db01", "laptop")).await;
    let id52 = company.machine("db01").machine_id();
    until("a failed attempt", || async { company.manager.state().machine_states[&id52].attempts >= 1 }).await;
    let Company { world, machines, .. } = &mut company;
    machines[2].restart(world).await;
    until("the config", || async { company.machine("db01").machine_text().contains("allow_from") }).await;
    company.manager.settled().await;
}
