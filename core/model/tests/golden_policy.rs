//! What is stored and sent, as it stands in files and on the wire: a change here is a change of format.

use std::collections::BTreeMap;

use jiff::Timestamp;
use malai_model::cluster::{
    Backoff, DistributionState, Invite, InviteBook, InviteRecord, JoinTerms, Token, accept_join, plan,
};
use malai_model::code::ErrorCode;
use malai_model::config::{ClusterConfig, compile, personalize};
use malai_model::id::{Id52, SecretKey};
use malai_model::name::MachineName;
use malai_model::wire::{
    AttachMode, AttachSession, Attached, CommandEnd, ConfigHave, DetachReason, ExecRequest, JoinRequest,
    LaneState, Notice, OpenSession, PullReply, PushReply, Request, ResumeStream, ResumeToken, SessionId,
    SessionInfo, Signal, WindowSize, WireError,
};
use serde::{Serialize, de::DeserializeOwned};

fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[number; 32])
}

fn id(number: u8) -> Id52 {
    key(number).id52()
}

fn name(text: &str) -> MachineName {
    text.parse().expect("a name")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

fn config() -> ClusterConfig {
    let text = r#"
[cluster-manager]
id52 = "<1>"
cluster_name = "company"
config_editors = "admins"
[machine.web01]
id52 = "<2>"
addresses = ["web01.example.com:4242"]
allow_from = "admins"
allow_shell = []
allow_proxy = "laptop"
proxy_to = ["10.0.0.0/8"]
username = "webservice"
[machine.web01.command.restart-nginx]
allow_from = "admins,db01"
command = "sudo systemctl restart 'nginx main'"
username = "nginx"
[machine.web01.command.tail]
args = ["-f", "/var/log/*.log"]
[machine.web01.tcp.ssh]
port = 22
allow_from = "laptop"
[machine.db01]
id52 = "<3>"
allow_from = "web01"
[machine.db01.command.dump]
allow_from = "laptop"
[machine.db01.tcp.mysql]
port = 3306
allow_from = "web01"
[machine.laptop]
id52 = "<4>"
[service.admin]
machine = "web01"
protocol = "http"
port = 8080
allow_from = "admins"
command = "python3 -m http.server 8080"
startup_time = "10s"
health_check = "curl -fsS localhost:8080/health"
[service.wiki]
machine = "laptop"
protocol = "http"
port = 80
allow_from = "web01"
[group.admins]
members = "laptop,cluster-manager,<9>"
[group.servers]
members = "web01,db01"
"#;
    let text = (1..=9).fold(text.to_owned(), |text, n| text.replace(&format!("<{n}>"), &id(n).to_string()));
    match compile("cluster.toml", &text).into_result() {
        Ok((config, _)) => config,
        Err(problems) => panic!("{problems}"),
    }
}

#[test]
fn a_personalised_file() {
    let body = personalize(&config(), &name("web01")).expect("it exists");
    insta::assert_snapshot!("machine_toml", body.sign(12, &"0a".repeat(32), &key(1)));
    insta::assert_snapshot!("machine_toml_digest", body.digest());
    let laptop = personalize(&config(), &name("laptop")).expect("it exists");
    insta::assert_snapshot!("machine_toml_of_a_client", laptop.sign(1, &"0a".repeat(32), &key(1)));
}

#[test]
fn state_json() {
    let mut state = DistributionState {
        cluster_alias: "company".to_owned(),
        master_config_hash: Some("ab".repeat(32)),
        last_distribution: Some(at(1_760_000_000)),
        ..DistributionState::default()
    };
    let plan = plan(&config(), &state, at(1_760_000_000));
    state.record_success(&plan.deliveries[0], at(1_760_000_001));
    let error = "p2p.unreachable: nobody answers";
    state.record_failure(&plan.deliveries[1], error, at(1_760_000_002), &Backoff::default(), 0);
    state.record_refused(&plan.deliveries[2], "config.invalid: does not compile");
    let text = state.to_text();
    insta::assert_snapshot!("state_json", text);
    assert_eq!(DistributionState::parse(&text).expect("it reads back"), state);
}

#[test]
fn a_state_of_the_first_design_is_read() {
    let text = format!(
        r#"{{"cluster_alias": "company", "master_config_hash": "abc123", "last_distribution": "2025-01-15T10:30:00Z",
        "machine_states": {{"{}": {{"machine_alias": "web01", "personalized_config": "[machine.web01]",
        "personalized_config_hash": "m789", "last_sync": "2025-01-15T10:30:00Z", "sync_status": "success"}}}}}}"#,
        id(2)
    );
    let state = DistributionState::parse(&text).expect("it is read");
    let machine = &state.machine_states[&id(2)];
    assert_eq!((machine.serial, machine.personalized_config_hash.as_deref()), (0, Some("m789")));
    assert!(state.to_text().contains("personalized_config\": \"[machine.web01]"));
}

#[test]
fn invites_toml() {
    let record = InviteRecord {
        label: "conf-2025".to_owned(),
        token_hash: Token::from_bytes([1; 16]).hash(),
        created: at(1_760_000_000),
        expires: at(1_762_592_000),
        max_uses: 50,
        uses: vec![id(2), id(3)],
        revoked: Some(at(1_760_000_001)),
        groups: vec!["guests".parse().expect("a name")],
        open: true,
        extra: BTreeMap::new(),
    };
    let book = InviteBook { invite: BTreeMap::from([(id(7), record)]), extra: BTreeMap::new() };
    let text = book.to_text().expect("it is TOML");
    insta::assert_snapshot!("invites_toml", text);
    assert_eq!(InviteBook::parse(&text).expect("it reads back"), book);
}

#[test]
fn an_invite() {
    let hints = ["192.168.1.10:4242", "[2001:db8::1]:4242", "web01.example.com:4242"].map(str::to_owned);
    let invite = Invite::new(id(7), Token::from_bytes([1; 16]), hints.to_vec()).expect("good hints");
    insta::assert_snapshot!("invite", *invite.to_word());
}

/// One line of JSON for each message, each of which reads back.
fn lines<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(messages: &[T]) -> String {
    let line = |message: &T| {
        let line = serde_json::to_string(message).expect("it is JSON");
        assert_eq!(&serde_json::from_str::<T>(&line).expect("it reads back"), message);
        line
    };
    messages.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn wire_messages() {
    let error = || WireError {
        code: ErrorCode::AclDenied,
        message: "denied".to_owned(),
        hint: Some("ask".to_owned()),
    };
    let bare = WireError { hint: None, ..error() };
    let have = ConfigHave { serial: 12, digest: "ab".repeat(32) };
    let token = ResumeToken::from_random([0xcd; 16]);
    let session = SessionId::from_random([3; 8]);
    insta::assert_snapshot!(
        "wire_request",
        lines(&[
            Request::Ping {},
            Request::Exec(ExecRequest {
                argv: vec!["ps".to_owned(), "aux".to_owned()],
                env: BTreeMap::from([("TERM".to_owned(), "xterm".to_owned())]),
                resume: Some(token.clone()),
            }),
            Request::OpenSession(OpenSession {
                argv: None,
                env: BTreeMap::new(),
                window: WindowSize::default(),
                client: Some(token.clone()),
                confirms: true,
            }),
            // Of an older client.
            Request::OpenSession(OpenSession {
                argv: None,
                env: BTreeMap::new(),
                window: WindowSize::default(),
                client: Some(token.clone()),
                confirms: false,
            }),
            Request::OpenSession(OpenSession {
                argv: Some(vec!["top".to_owned()]),
                env: BTreeMap::new(),
                window: WindowSize::default(),
                client: None,
                confirms: false,
            }),
            Request::AttachSession(AttachSession {
                session: Some(session.clone()),
                mode: AttachMode::Watch,
                client: token.clone(),
                window: WindowSize::default(),
                received: Some(7),
            }),
            Request::ListSessions {},
            Request::EndSession { session: session.clone() },
            Request::Connect { service: "ssh".parse().expect("a name"), resume: None },
            Request::Connect { service: "ssh".parse().expect("a name"), resume: Some(token.clone()) },
            Request::Resume(ResumeStream { token, lanes: [LaneState::default(); 3] }),
            Request::PushConfig { length: 1000 },
            Request::PullConfig { have: None, listening: false },
            Request::PullConfig { have: Some(have), listening: true },
        ])
    );
    let signals =
        [Signal::Int, Signal::Term, Signal::Hup, Signal::Quit, Signal::Kill, Signal::Usr1, Signal::Usr2];
    let mut notices = vec![
        Notice::Pong { version: "0.1.0".to_owned() },
        Notice::Started { resume_ms: None },
        Notice::Started { resume_ms: Some(120_000) },
        Notice::Attached(Attached { session: session.clone(), input: 1, output: 2, redraw: 3, detached: 0 }),
        Notice::Attached(Attached { session: session.clone(), input: 1, output: 2, redraw: 3, detached: 4 }),
        Notice::Opened { session: session.clone() },
        Notice::Sessions {
            sessions: vec![SessionInfo {
                session,
                argv: vec!["top".to_owned()],
                user: "root".to_owned(),
                started: jiff::Timestamp::UNIX_EPOCH,
                active: jiff::Timestamp::UNIX_EPOCH,
                attached: true,
                watchers: 1,
                window: WindowSize::default(),
                title: "t".to_owned(),
                ended: Some(CommandEnd::Exited { status: 0 }),
            }],
            more: false,
        },
        Notice::Resize { window: WindowSize { columns: 100, rows: 30, width: 1, height: 2 } },
        Notice::Confirm {},
        Notice::Detach {},
        Notice::Detached { reason: DetachReason::TakenOver },
        Notice::Ended(CommandEnd::Exited { status: 3 }),
        Notice::Ended(CommandEnd::Killed { signal: 9 }),
        Notice::Failed(error()),
        Notice::Failed(bare),
    ];
    notices.extend(signals.map(|signal| Notice::Signal { signal }));
    insta::assert_snapshot!("wire_notice", lines(&notices));
    insta::assert_snapshot!(
        "wire_push_reply",
        lines(&[PushReply::Accepted { serial: 12 }, PushReply::Refused { error: error(), length: 7 },])
    );
    insta::assert_snapshot!(
        "wire_pull_reply",
        lines(&[PullReply::Current {}, PullReply::Config { length: 7 }, PullReply::Failed(error()),])
    );
    let token = Token::from_bytes([0xab; 16]).to_hex();
    insta::assert_snapshot!(
        "wire_join_request",
        lines(&[
            JoinRequest { token: token.to_string(), name: None },
            JoinRequest { token: token.to_string(), name: Some(name("web01")) },
        ])
    );
    let terms = JoinTerms {
        cluster_name: "company".to_owned(),
        machine: name("web01"),
        next_root: "0a".repeat(32),
        addresses: vec!["h:1".to_owned()],
    };
    insta::assert_snapshot!("wire_join_accepted", lines(&[accept_join(&key(1), &id(7), &id(2), terms)]));
}

#[test]
fn messages_of_a_newer_peer_are_read_as_far_as_they_are_known() {
    let read = |text: &str| serde_json::from_str::<Request>(text);
    assert_eq!(read(r#"{"type":"ping","new":1}"#).ok(), Some(Request::Ping {}));
    let exec = read(r#"{"type":"exec","argv":["ls"],"pty":true}"#).ok();
    assert_eq!(
        exec,
        Some(Request::Exec(ExecRequest { argv: vec!["ls".to_owned()], env: BTreeMap::new(), resume: None }))
    );
    assert!(read(r#"{"type":"later"}"#).is_err());
    let failed: Notice = serde_json::from_str(r#"{"type":"failed","code":"later.code","message":"m"}"#)
        .expect("an unknown code is read");
    assert!(matches!(failed, Notice::Failed(error) if error.code == ErrorCode::Unknown));
}
