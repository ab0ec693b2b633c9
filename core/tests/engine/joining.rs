//! Joining by invite, and not joining.

use std::sync::Arc;
use std::time::Duration;

use malai_core::api::{ApiRequest, RoleView};
use malai_core::cluster::{PendingJoin, dial_invite};
use malai_core::identity::{KeyRef, make_secret_key};
use malai_core::model::cluster::{Invite, JoinTerms, Token, accept_join};
use malai_core::model::code::ErrorCode;
use malai_core::model::id::{Id52, SecretKey};
use malai_core::model::wire::{JoinAccepted, JoinRequest};
use malai_core::p2p::{Admission, Endpoint, EndpointOptions, Protocol, Serve, Transport};
use malai_core::task::Scope;

use crate::harness::*;

async fn managed(world: &World) -> TestNode {
    let manager = world.node("manager").await;
    manager.init(&company()).await;
    manager
}

/// Registers with a key, as a machine without a daemon would.
async fn register(
    world: &World,
    secret: SecretKey,
    invite: &str,
    name: &str,
) -> Result<JoinAccepted, ErrorCode> {
    let endpoint = world.endpoint(secret).await;
    let join = PendingJoin {
        alias: company(),
        invite: invite.parse().expect("an invite"),
        name: Some(name.parse().expect("a name")),
    };
    let answer = soon(dial_invite(&endpoint, &join, REACH)).await.map_err(|error| error.code());
    endpoint.close().await;
    answer
}

fn key() -> SecretKey {
    make_secret_key().expect("a key")
}

#[tokio::test]
async fn joining_registers_and_grants_nothing() {
    let company = Company::new(&["web01", "laptop", "db01"]).await;
    let text = company.manager.text();
    let rules = text.lines().filter(|line| line.starts_with("allow_")).count();
    assert_eq!(rules, 1, "only what the test itself allowed:\n{text}");
    let db01 = company.machine("db01");
    assert!(db01.view().await.machines.is_empty(), "it may reach nothing");
    let refused = db01.run(&["web01.company", "true"]).await.err();
    assert_eq!(refused, Some(ErrorCode::AddressUnknownMachine));
    // Nor when it knows where to go.
    let address = format!("{}.company", company.machine("web01").machine_id());
    assert!(db01.run(&[&address, "true"]).await.is_err());
    db01.stop().await;
    let as_db01 = company.world.endpoint(db01.machine_secret()).await;
    let connection = connected(&as_db01, company.machine("web01").machine_id()).await;
    let reason = soon(connection.closed()).await;
    assert_eq!(reason.text, "not admitted");
}

#[tokio::test]
async fn registering_again_keeps_the_name_and_counts_once() {
    let world = World::new();
    let manager = managed(&world).await;
    let invite = manager.invite(2).await;
    let secret = key();
    let first = register(&world, secret.clone(), &invite.invite, "web01").await.expect("joins");
    let again = register(&world, secret.clone(), &invite.invite, "other").await.expect("answers again");
    assert_eq!((first.machine.as_str(), again.machine.as_str()), ("web01", "web01"));
    assert_eq!(manager.uses(&invite.view.id52).await, 1);
    assert_eq!(manager.text().matches(&secret.id52().to_string()).count(), 1);
    register(&world, key(), &invite.invite, "web02").await.expect("there is room for another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_registrations_of_one_machine_at_once_are_one() {
    let world = Arc::new(World::new());
    let manager = managed(&world).await;
    let invite = manager.invite(2).await;
    let (secret, invite_id) = (key(), invite.view.id52);
    // One endpoint, many connections: a machine whose answers got lost asks again.
    let endpoint = Arc::new(world.endpoint(secret.clone()).await);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let (endpoint, word) = (Arc::clone(&endpoint), invite.invite.clone());
        asking.spawn(async move {
            let name = Some("web01".parse().expect("a name"));
            let join = PendingJoin { alias: company(), invite: word.parse().expect("an invite"), name };
            dial_invite(&endpoint, &join, PATIENCE).await.map(|answer| answer.machine.to_string())
        });
    }
    let names = soon(asking.join_all()).await;
    assert!(names.iter().all(|name| name.as_ref().is_ok_and(|name| name == "web01")), "{names:?}");
    assert_eq!(manager.uses(&invite_id).await, 1);
    assert_eq!(machines_in(&manager.text()), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invite_for_three_takes_three_of_eight_at_once() {
    let world = World::new();
    let manager = managed(&world).await;
    let invite = manager.invite(3).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (endpoint, word) = (world.endpoint(key()).await, invite.invite.clone());
        asking.spawn(async move {
            let join = PendingJoin { alias: company(), invite: word.parse().expect("an invite"), name: None };
            dial_invite(&endpoint, &join, PATIENCE).await.map(|_| ()).map_err(|error| error.code())
        });
    }
    let outcomes = soon(asking.join_all()).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 3, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Err(ErrorCode::InviteUsedUp)).count(), 5);
    assert_eq!(machines_in(&manager.text()), 3);
}

#[tokio::test]
async fn a_wrong_token_an_expired_and_a_used_up_invite_are_refused() {
    let world = World::with_manual_clock();
    let manager = managed(&world).await;
    let invite = manager.invite(1).await;
    let right: Invite = invite.invite.parse().expect("an invite");
    let wrong = Invite::new(*right.id52(), Token::from_bytes([7; 16]), Vec::new()).expect("an invite");
    let before = manager.text();

    let refused = register(&world, key(), &wrong.to_word(), "web01").await.err();
    assert_eq!(refused, Some(ErrorCode::InviteUnknown));
    let secret = key();
    register(&world, secret.clone(), &invite.invite, "web01").await.expect("joins");
    let refused = register(&world, key(), &invite.invite, "web02").await.err();
    assert_eq!(refused, Some(ErrorCode::InviteUsedUp));
    assert_ne!(manager.text(), before);
    let before = manager.text();

    let invite = manager.invite(5).await;
    world.clock.as_ref().expect("a clock").advance(Duration::from_secs(3600));
    let refused = register(&world, key(), &invite.invite, "web02").await.err();
    assert_eq!(refused, Some(ErrorCode::InviteExpired));
    assert_eq!((manager.uses(&invite.view.id52).await, manager.text()), (0, before));
}

#[tokio::test]
async fn a_revoked_invite_is_refused_and_says_so() {
    let world = World::new();
    let manager = managed(&world).await;
    let invite = manager.invite(5).await;
    let before = manager.text();
    let revoke = ApiRequest::RevokeInvite { cluster: company(), invite: invite.invite.clone() };
    manager.ask(revoke).await.expect("is revoked");
    let node = world.node("web01").await;
    let refused = node.join(&invite.invite).await;
    assert!(matches!(refused, Err(ErrorCode::InviteRevoked)), "{refused:?}");
    assert_eq!(manager.text(), before);
    assert!(!node.home.cluster_dir(&company()).exists(), "the alias is free for a better invite");
}

#[tokio::test]
async fn guessing_tokens_is_slowed_then_locked_out_then_forgiven() {
    let world = World::with_manual_clock();
    let clock = world.clock.clone().expect("a clock");
    let manager = managed(&world).await;
    let invite = manager.invite(5).await;
    let id52 = *invite.invite.parse::<Invite>().expect("an invite").id52();
    let guess =
        |n: u8| Invite::new(id52, Token::from_bytes([n; 16]), Vec::new()).expect("an invite").to_word();
    let mut codes = Vec::new();
    for n in 0..8 {
        codes.push(register(&world, key(), &guess(n), "web01").await.expect_err("is refused"));
    }
    assert_eq!(codes[0], ErrorCode::InviteUnknown);
    assert_eq!(codes[7], ErrorCode::PeerLockedOut, "{codes:?}");
    // The right one has to wait too, or it would tell a guesser when it was right.
    let waiting = register(&world, key(), &invite.invite, "web01").await.err();
    assert_eq!(waiting, Some(ErrorCode::PeerLockedOut));
    clock.advance(Duration::from_secs(900));
    register(&world, key(), &invite.invite, "web01").await.expect("is forgiven");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_with_errors_leaves_the_join_pending_until_it_is_mended() {
    let world = World::new();
    let manager = managed(&world).await;
    let invite = manager.invite(1).await;
    let good = manager.text();
    manager.write_text(&format!("{good}\n[machine.broken]\nid52 = unquoted\n"));
    let node = world.node("web01").await;
    let joined = node.join(&invite.invite).await.expect("waits");
    assert_eq!(joined.waiting.map(|error| error.code), Some(ErrorCode::InvitePending));
    assert_eq!(manager.uses(&invite.view.id52).await, 0);
    assert!(manager.text().ends_with("unquoted\n"), "the edit under way is not touched");
    manager.write_text(&good);
    // Nobody asks it to: its daemon tries again.
    until("the config", || async { node.view().await.role == RoleView::Machine }).await;
    assert_eq!(manager.uses(&invite.view.id52).await, 1);
    // And it is where its manager looks for it.
    manager.apply(|text| allow(&text, "web01", "web01")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_is_away_is_joined_when_it_is_back_and_joining_again_does_no_harm() {
    let world = World::new();
    let mut manager = managed(&world).await;
    let invite = manager.invite(1).await;
    manager.stop().await;
    let node = world.node("web01").await;
    for _ in 0..2 {
        let joined = node.join(&invite.invite).await.expect("waits");
        assert_eq!(joined.waiting.map(|error| error.code), Some(ErrorCode::PeerUnreachable));
    }
    let waiting = node.view().await;
    assert_eq!((waiting.role, waiting.manager), (RoleView::Waiting, None));
    manager.restart(&world).await;
    // Asked for by hand, while the daemon asks by itself.
    match node.join(&invite.invite).await {
        Ok(_) | Err(ErrorCode::HomeClusterExists) => {}
        Err(code) => panic!("{code}"),
    }
    until("the config", || async { node.view().await.role == RoleView::Machine }).await;
    assert_eq!(manager.uses(&invite.view.id52).await, 1);
    manager.apply(|text| allow(&text, "web01", "web01")).await;
}

#[tokio::test]
async fn an_edit_under_way_is_neither_lost_nor_put_in_force_by_a_registration() {
    let world = World::new();
    let manager = managed(&world).await;
    let invite = manager.invite(2).await;
    register(&world, key(), &invite.invite, "web01").await.expect("joins");
    let lines = "# the shop's front\nallow_from = \"web01\" # for now\n";
    let edited = after_header(&manager.text(), "web01", lines);
    manager.write_text(&edited);
    register(&world, key(), &invite.invite, "web02").await.expect("joins");

    let on_disk = manager.text();
    assert!(on_disk.starts_with(edited.trim_end()), "{on_disk}");
    assert!(on_disk.contains("\n[machine.web02]"));
    let applied = std::fs::read_to_string(manager.home.applied_config(&company())).expect("applied.toml");
    assert!(applied.contains("\n[machine.web02]") && !applied.contains("for now"), "{applied}");
    manager.rescan().await.expect("the edit is put in force when it is asked for");
    let applied = std::fs::read_to_string(manager.home.applied_config(&company())).expect("applied.toml");
    assert_eq!(applied, on_disk);
}

#[tokio::test]
async fn a_taken_name_gets_a_suffix_also_when_only_the_edit_under_way_has_it() {
    let world = World::new();
    let manager = managed(&world).await;
    let invite = manager.invite(5).await;
    let name = |answer: Result<JoinAccepted, ErrorCode>| answer.expect("joins").machine.to_string();
    assert_eq!(name(register(&world, key(), &invite.invite, "web01").await), "web01");
    assert_eq!(name(register(&world, key(), &invite.invite, "web01").await), "web01-2");
    manager.write_text(&format!("{}\n[group.ops]\nmembers = \"web01\"\n", manager.text()));
    assert_eq!(name(register(&world, key(), &invite.invite, "ops").await), "ops-2");
    manager.rescan().await.expect("compiles");
}

/// Lets everybody in.
struct Anybody;

impl Admission for Anybody {
    fn admits(&self, _peer: &Id52, _protocol: Protocol) -> bool {
        true
    }
}

/// Answers on a stolen invite's identity, with whatever the thief makes of the joiner's request.
async fn thief(
    world: &World,
    invite: SecretKey,
    answer: impl Fn(&Id52, JoinRequest) -> JoinAccepted,
) -> Result<(), malai_core::p2p::P2pError> {
    let serve = Serve { protocols: vec![Protocol::Invite], admission: Arc::new(Anybody) };
    let options =
        EndpointOptions { secret: invite, network: offline(), serve: Some(serve), preferred_port: None };
    let scope = Scope::new();
    let endpoint = Endpoint::bind(options, Transport::Memory(world.network.clone()), &scope).await?;
    let Some(connection) = endpoint.accept().await else { return Ok(()) };
    let mut stream = connection.accept_stream().await?;
    let request = stream.receiver.message::<JoinRequest>().await?.expect("a request");
    stream.sender.finish_with(&answer(&connection.peer(), request)).await?;
    connection.closed().await;
    endpoint.close().await;
    Ok(())
}

#[tokio::test]
async fn who_stole_an_invites_key_cannot_make_a_joiner_pin_the_root_of_somebody_else() {
    let world = World::new();
    let manager = managed(&world).await;
    let root = manager.root_secret();
    let invite = manager.invite(5).await;
    let stolen = manager.secret(&KeyRef::Invite(company(), invite.view.id52));
    manager.stop().await;
    let other = key();
    let terms = || JoinTerms {
        cluster_name: "company".to_owned(),
        machine: "web01".parse().expect("a name"),
        next_root: "00".repeat(32),
        addresses: Vec::new(),
    };
    // Named but not signed by it; and a true answer of that root, but to another machine.
    let claimed =
        JoinAccepted { manager: root.id52(), ..accept_join(&other, &stolen.id52(), &key().id52(), terms()) };
    let replayed = accept_join(&root, &stolen.id52(), &key().id52(), terms());
    for (name, answer) in [("one", claimed), ("two", replayed)] {
        let node = world.node(name).await;
        let (joined, served) = soon(async {
            tokio::join!(node.join(&invite.invite), thief(&world, stolen.clone(), |_, _| answer.clone()))
        })
        .await;
        served.expect("the thief answers");
        assert!(matches!(joined, Err(ErrorCode::InviteForged)), "{joined:?}");
        assert!(!node.home.cluster_dir(&company()).exists(), "nothing is pinned");
    }
}
