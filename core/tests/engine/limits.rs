//! What one peer can take from the others: nothing; and what two clusters share: nothing.

use malai_core::Bytes;
use malai_core::model::code::ErrorCode;
use malai_core::model::wire::{CommandEnd, Notice, Request};
use malai_core::p2p::{Channel, P2pError, Stream, stream_code};

use crate::harness::*;

const DONE: CommandEnd = CommandEnd::Exited { status: 0 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_has_so_many_sessions_and_another_has_its_own() {
    let device = "[limits]\nsessions_per_peer = 3\n";
    let company = Company::with_devices(&[("web01", device), ("laptop", ""), ("db01", "")]).await;
    company.manager.apply(|text| allow(&deny(&text, "laptop"), "web01", "laptop, db01")).await;
    let (laptop, db01) = (company.machine("laptop"), company.machine("db01"));
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(laptop.run(&["web01.company", "cat"]).await.expect("runs"));
    }
    for _ in 0..3 {
        let refused = laptop.run(&["web01.company", "true"]).await.err();
        assert_eq!(refused, Some(ErrorCode::LimitReached));
    }
    assert_eq!(db01.outcome(&["web01.company", "true"]).await.expect("runs").1, DONE);
    let mut first = running.remove(0);
    soon(first.input.end()).await.expect("ends");
    assert_eq!(read_to_end(&mut first).await.expect("ends").1, DONE);
    until("the place of the one that ended", || async {
        laptop.outcome(&["web01.company", "true"]).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_peers_together_have_so_many_sessions() {
    let device = "[limits]\nsessions_per_peer = 2\nsessions = 3\n";
    let company = Company::with_devices(&[("web01", device), ("laptop", ""), ("db01", "")]).await;
    company.manager.apply(|text| allow(&deny(&text, "laptop"), "web01", "laptop, db01")).await;
    let (laptop, db01) = (company.machine("laptop"), company.machine("db01"));
    let _two = [
        laptop.run(&["web01.company", "cat"]).await.expect("runs"),
        laptop.run(&["web01.company", "cat"]).await.expect("runs"),
    ];
    let _third = db01.run(&["web01.company", "cat"]).await.expect("runs");
    assert_eq!(db01.run(&["web01.company", "true"]).await.err(), Some(ErrorCode::LimitReached));
    // A full machine still hears its manager: else a right could not be taken away from it.
    let serial = company.machine("web01").view().await.serial;
    company.manager.apply(|text| deny(&text, "laptop, db01")).await;
    assert!(company.machine("web01").view().await.serial > serial);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_stalled_streams_keep_nobody_else_waiting_and_are_given_back() {
    let device = "[limits]\nhandshake = \"2s\"\n";
    let company = Company::with_devices(&[("web01", device), ("laptop", ""), ("db01", "")]).await;
    company.manager.apply(|text| allow(&deny(&text, "laptop"), "web01", "laptop, db01")).await;
    let laptop = company.machine("laptop");
    laptop.stop().await;
    let endpoint = company.world.endpoint(laptop.machine_secret()).await;
    let connection = connected(&endpoint, company.machine("web01").machine_id()).await;
    let mut stalled: Vec<Stream> = Vec::new();
    for _ in 0..1000 {
        let stream = connection.open_stream().await.expect("opens");
        // Bytes of nothing, and never the message that says what for.
        stream.sender.send(Channel::Main, Bytes::from_static(b"x")).await.expect("is sent");
        stalled.push(stream);
    }
    let outcome = company.machine("db01").outcome(&["web01.company", "true"]).await;
    assert_eq!(outcome.expect("runs").1, DONE);
    let mut codes = Vec::new();
    for stream in &mut stalled {
        match soon(stream.receiver.message::<Notice>()).await {
            Err(P2pError::StreamReset { code }) => codes.push(code),
            other => panic!("{other:?}"),
        }
    }
    let count = |wanted| codes.iter().filter(|code| **code == wanted).count();
    assert_eq!((count(stream_code::STALLED), count(stream_code::BUSY)), (256, 744));
    let mut stream = connection.open_stream().await.expect("opens");
    stream.sender.send_message(&Request::Ping {}).await.expect("is sent");
    let answer = soon(stream.receiver.message::<Notice>()).await;
    assert!(matches!(answer, Ok(Some(Notice::Pong { .. }))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_nobody_knows_ends_its_stream_alone() {
    let company = Company::new(&["web01", "laptop"]).await;
    let laptop = company.machine("laptop");
    let running = laptop.run(&["web01.company", "cat"]).await.expect("runs");
    laptop.stop().await;
    drop(running);
    let endpoint = company.world.endpoint(laptop.machine_secret()).await;
    let connection = connected(&endpoint, company.machine("web01").machine_id()).await;
    for message in [
        serde_json::json!({"type": "teleport"}),
        serde_json::json!({"type": "exec"}),
        serde_json::json!({"type": "exec", "argv": "true"}),
        serde_json::json!([1, 2]),
        serde_json::json!(null),
    ] {
        let mut stream = connection.open_stream().await.expect("opens");
        stream.sender.send_message(&message).await.expect("is sent");
        match soon(stream.receiver.message::<Notice>()).await {
            Ok(Some(Notice::Failed(error))) => {
                assert_eq!(error.code, ErrorCode::WireUnsupported, "{message}")
            }
            other => panic!("{other:?} to {message}"),
        }
    }
    // Words that are no command, from one who may run any.
    let mut stream = connection.open_stream().await.expect("opens");
    let empty = serde_json::json!({"type": "exec", "argv": []});
    stream.sender.send_message(&empty).await.expect("is sent");
    let answer = soon(stream.receiver.message::<Notice>()).await;
    assert!(matches!(answer, Ok(Some(Notice::Failed(_)))), "{answer:?}");
    assert!(!connection.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_of_one_name_in_one_process_share_nothing() {
    let one = Company::new(&["web01", "laptop"]).await;
    let world = &one.world;
    // The same names, the same network, another root.
    let manager = world.node("other-manager").await;
    manager.init(&company()).await;
    let invite = manager.invite(10).await.invite;
    let (web01, laptop) = (world.node("other-web01").await, world.node("other-laptop").await);
    web01.join_as(&invite, &company(), "web01").await.expect("joins");
    laptop.join_as(&invite, &company(), "laptop").await.expect("joins");
    manager.apply(|text| allow(&text, "web01", "laptop")).await;
    let run = ["web01.company", "sh", "-c", "echo $MALAI_CLIENT_ID52"];
    assert_eq!(laptop.outcome(&run).await.expect("runs").0.trim(), laptop.machine_id().to_string());
    let first = one.machine("laptop");
    assert_eq!(first.outcome(&run).await.expect("runs").0.trim(), first.machine_id().to_string());

    // Neither reaches into the other, whatever it knows.
    let foreign = one.machine("web01").machine_id();
    let refused = laptop.run(&[&format!("{foreign}.company"), "true"]).await.err();
    assert_eq!(refused, Some(ErrorCode::AddressUnknownMachine));
    let endpoint = world.endpoint(manager.root_secret()).await;
    assert_eq!(soon(connected(&endpoint, foreign).await.closed()).await.text, "not admitted");

    // A change here is none there.
    let serials = one.serials().await;
    manager.apply(|text| deny(&text, "laptop")).await;
    assert_eq!(one.serials().await, serials);
    assert_eq!(first.outcome(&run).await.expect("runs").1, DONE);
    assert!(laptop.run(&run).await.is_err());

    // And one home in both has two identities that nobody can connect.
    let both = world.node("both").await;
    let invite = one.manager.invite(1).await.invite;
    both.join_as(&invite, &alias("a"), "both").await.expect("joins");
    let invite = manager.invite(1).await.invite;
    both.join_as(&invite, &alias("b"), "both").await.expect("joins");
    let (a, b) = (both.view_of(&alias("a")).await, both.view_of(&alias("b")).await);
    assert!(a.id52 != b.id52 && a.manager != b.manager);
    let ids = [a.id52.to_string(), a.manager.expect("pinned").to_string()];
    assert!(ids.iter().all(|id| !manager.text().contains(id)));
}
