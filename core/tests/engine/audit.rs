//! What nodes record of what happens, in whatever number it does.

use std::ops::ControlFlow;

use malai_core::audit::{AuditFiles, check};
use malai_core::model::audit::{AuditEvent, AuditRecord, Outcome, Wanted};
use malai_core::model::code::ErrorCode;
use malai_core::model::id::SecretKey;
use malai_core::model::wire::{Notice, PushReply, Request};
use malai_core::p2p::{Protocol, Stream};
use tokio::net::TcpListener;

use crate::harness::*;

/// What a node has recorded so far.
fn events(node: &TestNode) -> Vec<AuditEvent> {
    let mut events = Vec::new();
    let files = AuditFiles::open(&node.home).expect("opens");
    files
        .lines(|line| {
            let record: AuditRecord = serde_json::from_slice(line.bytes).expect("is a record");
            events.push(record.event);
            ControlFlow::Continue(())
        })
        .expect("reads");
    events
}

async fn recorded(node: &TestNode, fits: impl Fn(&AuditEvent) -> bool) {
    until("a record", || async { events(node).iter().any(&fits) }).await;
}

#[track_caller]
fn assert_whole(node: &TestNode) {
    let checked = check(&node.home, None).expect("reads");
    assert_eq!((checked.report.broken, checked.report.torn), (None, false));
}

/// How many denials of a sort are recorded, and in how many records.
fn denials(node: &TestNode, sort: Wanted) -> (u64, usize) {
    let counts: Vec<u64> = events(node)
        .iter()
        .filter_map(|event| match event {
            AuditEvent::Denied { wanted, .. } if *wanted == sort => Some(1),
            AuditEvent::DeniedAgain { wanted, count, .. } if *wanted == sort => Some(*count),
            _ => None,
        })
        .collect();
    (counts.iter().sum(), counts.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_denied_commands_is_two_records_a_second_and_none_is_uncounted() {
    let company = Company::new(&["web01", "laptop"]).await;
    company
        .manager
        .apply(|text| {
            format!("{}\n[machine.web01.command.uptime]\nallow_from = \"laptop\"\n", deny(&text, "laptop"))
        })
        .await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let begun = std::time::Instant::now();
    for _ in 0..300 {
        assert_eq!(laptop.outcome(&["web01.company", "id", "-u"]).await, Err(ErrorCode::AclDenied));
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).expect("is small");
    until("the count", || async { denials(web01, Wanted::Command).0 == 300 }).await;
    let (_, records) = denials(web01, Wanted::Command);
    assert!(records <= 2 * (seconds + 2), "{records} records in {seconds} s");
    assert_whole(web01);
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_share_one_count_however_many_they_are() {
    let company = Company::new(&["web01", "laptop"]).await;
    let web01 = company.machine("web01");
    let target = web01.machine_id();
    for number in 1..=40_u8 {
        let endpoint = company.world.endpoint(SecretKey::from_bytes(&[number; 32])).await;
        let refused = soon(endpoint.connect(target, Protocol::Member, &[], REACH)).await;
        if let Ok(connection) = refused {
            soon(connection.closed()).await;
        }
        endpoint.close().await;
    }
    until("the count", || async { denials(web01, Wanted::Connection).0 >= 40 }).await;
    let (_, records) = denials(web01, Wanted::Connection);
    assert!(records < 15, "{records} records");
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_of_somebody_else_than_the_manager_is_a_denial() {
    let company = Company::new(&["web01", "laptop"]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    laptop.stop().await;
    let endpoint = company.world.endpoint(laptop.machine_secret()).await;
    let connection = connected(&endpoint, web01.machine_id()).await;
    let Stream { sender, mut receiver } = soon(connection.open_stream()).await.expect("opens");
    sender.send_message(&Request::PushConfig { length: 3 }).await.expect("is sent");
    let reply = soon(receiver.message::<PushReply>()).await.expect("is answered");
    assert!(matches!(reply, Some(PushReply::Refused { .. })), "{reply:?}");
    recorded(web01, |event| {
        matches!(event, AuditEvent::Denied { wanted: Wanted::Config, by, .. }
        if by.peer == laptop.machine_id())
    })
    .await;
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_recorded_from_its_opening_to_its_end_and_a_denied_one_by_name() {
    let backend = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = backend.local_addr().expect("an address").port();
    let company = Company::new(&["web01", "laptop", "db01"]).await;
    let rules = format!(
        "\n[machine.web01.tcp.ssh]\nport = {port}\nallow_from = \"laptop\"\n\
         [machine.web01.command.uptime]\nallow_from = \"db01\"\n"
    );
    company.manager.apply(|text| format!("{}{rules}", deny(&text, "laptop"))).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let connection = soon(laptop.node.connect_service("ssh.web01.company")).await.expect("is allowed");
    let (tcp, _) = soon(backend.accept()).await.expect("is connected");
    recorded(
        web01,
        |event| matches!(event, AuditEvent::ServiceOpened { service, .. } if service.as_str() == "ssh"),
    )
    .await;
    company.manager.apply(|text| text.replace("allow_from = \"laptop\"\n", "")).await;
    recorded(web01, |event| {
        matches!(event, AuditEvent::ServiceClosed { outcome: Outcome::Revoked, started: Some(_), .. })
    })
    .await;
    drop((connection, tcp));
    // Whoever is admitted can ask for it, allowed or not.
    let db01 = company.machine("db01");
    db01.stop().await;
    let endpoint = company.world.endpoint(db01.machine_secret()).await;
    let peer = connected(&endpoint, web01.machine_id()).await;
    let Stream { sender, mut receiver } = soon(peer.open_stream()).await.expect("opens");
    let service = "ssh".parse().expect("a name");
    sender.send_message(&Request::Connect { service, resume: None }).await.expect("is sent");
    let told = soon(receiver.message::<Notice>()).await.expect("is answered");
    assert!(
        matches!(told, Some(Notice::Failed(ref error)) if error.code == ErrorCode::AclDenied),
        "{told:?}"
    );
    recorded(web01, |event| matches!(event, AuditEvent::Denied { wanted: Wanted::Service, asked: Some(name), by, .. }
        if name == "ssh" && by.peer == db01.machine_id() && by.name.as_ref().is_some_and(|n| n.as_str() == "db01")))
    .await;
    assert_whole(web01);
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_commands_at_once_where_the_disk_is_waited_for_have_two_records_each() {
    let company = Company::with_devices(&[("web01", "[host]\naudit = \"required\"\n"), ("laptop", "")]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let mut running = Vec::new();
    for _ in 0..100 {
        running.push(laptop.run(&["web01.company", "cat"]).await.expect("runs"));
    }
    for command in &mut running {
        soon(command.input.end()).await.expect("ends");
        read_to_end(command).await.expect("ends");
    }
    let ends = || {
        let ended = |event: &AuditEvent| match event {
            AuditEvent::CommandEnded { started, status: Some(0), .. } => *started,
            _ => None,
        };
        events(web01).iter().filter_map(ended).collect::<std::collections::BTreeSet<u64>>()
    };
    until("a hundred ends, each of another start", || async { ends().len() == 100 }).await;
    assert_whole(web01);
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_when_a_node_stops_is_recorded_as_cut_off_and_rights_taken_away_as_such() {
    let company = Company::new(&["web01", "laptop"]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let (_first, _) = staying(laptop, "web01.company").await;
    company.manager.apply(|text| deny(&text, "laptop")).await;
    recorded(web01, |event| matches!(event, AuditEvent::CommandEnded { outcome: Outcome::Revoked, .. }))
        .await;
    company.manager.apply(|text| allow(&text, "web01", "laptop")).await;
    until("the right to be back", || async { laptop.outcome(&["web01.company", "true"]).await.is_ok() })
        .await;
    let (_second, _) = staying(laptop, "web01.company").await;
    web01.stop().await;
    let events = events(web01);
    let last: Vec<_> = events.iter().rev().take(2).collect();
    assert!(matches!(last[0], AuditEvent::DaemonStopped {}), "{last:?}");
    assert!(
        matches!(
            last[1],
            AuditEvent::CommandEnded {
                outcome: Outcome::CallerLost | Outcome::Stopped,
                started: Some(_),
                ..
            }
        ),
        "{last:?}"
    );
    assert_whole(web01);
    company.stop().await;
}
