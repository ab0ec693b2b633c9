//! Members and strangers that want to harm.

use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use malai_core::home::{Create, Home};
use malai_core::identity::{FileKeyStore, KeyRef, load_required};
use malai_core::model::cluster::{Invite, Token};
use malai_core::model::id::Id52;
use malai_core::model::wire::{Notice, Request, SessionId, SessionInfo, WindowSize};
use malai_core::p2p::{
    Admission, Discovery, Endpoint, EndpointOptions, NetworkOptions, Protocol, Relays, Serve, Stream,
    Transport,
};
use malai_core::task::Scope;
use malai_testkit::{Cluster, Signal, TestHome, TestNet, await_until};
use tokio::runtime::Runtime;

use crate::commands::is_gone;
use crate::{SOON, net, open_cluster};

#[test]
fn a_revocation_reaches_a_machine_all_whose_sessions_are_taken() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("web01").stop();
    cluster.home("web01").add_to_malai_toml("[limits]\nsessions = 2\nsessions_per_peer = 2");
    cluster.member("web01").start();
    let laptop = cluster.home("laptop");
    let mut held: Vec<_> = (0..2)
        .map(|_| {
            laptop.command(["web01.company", "sh", "-c", "echo on; exec sleep 1000"]).open_stdin().spawn()
        })
        .collect();
    for session in &held {
        session.wait_for_line(SOON, |line| line == "on");
    }
    laptop.malai(["--json", "web01.company", "true"]).fails_with("limit.reached");
    cluster.edit(|text| text.replace("allow_from = \"laptop\"", ""));
    for session in held.drain(..) {
        let output = session.wait(SOON).exits(255);
        assert!(output.stderr_text().contains("taken away"), "{output:?}");
    }
}

#[test]
fn wrong_tokens_at_one_invite_lock_nobody_out_of_another() {
    let net = net();
    let cluster = Cluster::new(&net, &[]);
    let (known, other) = (cluster.invite(&[]), cluster.invite(&[]));
    let real: Invite = known.parse().expect("an invite");
    let wrong =
        Invite::new(*real.id52(), Token::from_bytes([7; 16]), real.hints().to_vec()).expect("an invite");
    let stranger = TestHome::new(&net, "stranger");
    let word = wrong.to_word();
    // Refused for good a few times, then asked to wait.
    await_until("the stranger to be slowed down", SOON, || {
        stranger.malai(["machine", "init", &word, "company"]).code == Some(0)
    });
    let honest = TestHome::new(&net, "honest");
    cluster.join(&honest, &other);
    cluster.id52("honest");
}

#[test]
fn a_machine_that_was_removed_does_not_come_back_by_a_used_up_invite() {
    let net = net();
    let cluster = Cluster::new(&net, &[]);
    let invite = cluster.invite(&[]);
    let removed = TestHome::new(&net, "removed");
    cluster.join(&removed, &invite);
    let id = cluster.id52("removed");
    cluster.edit(|text| text.replace(&format!("[machine.removed]\nid52 = \"{id}\"\n"), ""));
    // With the identity that it had, it asks again.
    removed.write("clusters/company/cluster-info.toml", "");
    removed.write("clusters/company/invite", &invite);
    let output =
        removed.malai(["--json", "machine", "init", &invite, "company", "--name", "removed"]).exits(1);
    output.fails_with("invite.used_up");
    assert!(!cluster.manager().cluster_toml("company").contains(&id));
}

#[test]
fn a_hang_up_ends_malai_and_a_command_that_ignores_it() {
    let net = net();
    let cluster = open_cluster(&net);
    let script = "trap '' HUP INT TERM; echo $$; while :; do sleep 1; done";
    let running = cluster.home("laptop").command(["web01.company", "sh", "-c", script]).open_stdin().spawn();
    let pid = running.wait_for_line(SOON, |line| !line.is_empty());
    running.signal(Signal::SIGHUP);
    running.wait(SOON).exits(129);
    await_until("the end of the command", SOON, || is_gone(&pid));
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let net = net();
    let cluster = open_cluster(&net);
    let full = std::fs::File::options().write(true).open("/dev/full").expect("opens");
    let mut command = cluster.home("laptop").plain_command(["web01.company", "echo", "hi"]);
    let output = command.stdout(full).stderr(std::process::Stdio::piped()).output().expect("runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(255) && stderr.contains("write the output"), "{output:?}");
}

#[test]
fn a_broken_state_stops_a_rescan_before_anything_is_applied() {
    let net = net();
    let cluster = open_cluster(&net);
    let manager = cluster.manager();
    manager.write("clusters/company/state.json", "{");
    let before = manager.read("clusters/company/applied.toml");
    manager.edit_cluster_toml("company", |text| text.replace("allow_from = \"laptop\"", ""));
    manager.malai(["rescan"]).exits(1);
    assert_eq!(manager.read("clusters/company/applied.toml"), before);
}

struct Anybody;

impl Admission for Anybody {
    fn admits(&self, _peer: &Id52, _protocol: Protocol) -> bool {
        true
    }
}

/// A machine's key, served by what is not malai: whoever asks for sessions is told of `each` at a time, and so many times,
/// all but the last with the word that more follow.
struct Babbler {
    runtime: Runtime,
    endpoint: Arc<Endpoint>,
    /// How many messages were taken.
    taken: Arc<AtomicUsize>,
}

impl Babbler {
    fn start(net: &TestNet, home: &TestHome, times: usize, each: usize) -> Self {
        let keys = FileKeyStore::new(Home::open(home.path().to_owned(), Create::No).expect("a home"));
        let key = KeyRef::Machine("company".parse().expect("an alias"));
        let options = EndpointOptions {
            secret: load_required(&keys, &key).expect("the key is there"),
            network: NetworkOptions {
                bind: (Ipv4Addr::LOCALHOST, 0).into(),
                discovery: Discovery { local: true, mdns: false, dns: false },
                relays: Relays::None,
                runtime_dir: Some(net.runtime_dir().join("malai")),
            },
            serve: Some(Serve { protocols: vec![Protocol::Member], admission: Arc::new(Anybody) }),
            preferred_port: None,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("starts a runtime");
        let scope = Scope::new();
        let bound = runtime.block_on(Endpoint::bind(options, Transport::Quic, &scope)).expect("binds");
        let endpoint = Arc::new(bound);
        let taken = Arc::new(AtomicUsize::new(0));
        let (serving, counter) = (Arc::clone(&endpoint), Arc::clone(&taken));
        runtime.spawn(async move {
            while let Some(connection) = serving.accept().await {
                let (tasks, counter) = (scope.clone(), Arc::clone(&counter));
                scope.spawn("connection", async move {
                    while let Ok(stream) = connection.accept_stream().await {
                        tasks.spawn("stream", babble(stream, times, each, Arc::clone(&counter)));
                    }
                });
            }
        });
        Self { runtime, endpoint, taken }
    }
}

impl Drop for Babbler {
    fn drop(&mut self) {
        // One that only vanishes is taken for one that may answer yet.
        self.runtime.block_on(self.endpoint.close());
    }
}

async fn babble(stream: Stream, times: usize, each: usize, taken: Arc<AtomicUsize>) {
    let Stream { sender, mut receiver } = stream;
    let Ok(Some(Request::ListSessions {})) = receiver.message::<Request>().await else { return };
    let info = SessionInfo {
        session: SessionId::from_random([7; 8]),
        argv: Vec::new(),
        user: "root".to_owned(),
        started: jiff::Timestamp::UNIX_EPOCH,
        active: jiff::Timestamp::UNIX_EPOCH,
        attached: false,
        watchers: 0,
        window: WindowSize::default(),
        title: String::new(),
        ended: None,
    };
    for left in (0..times).rev() {
        let sessions = vec![info.clone(); each];
        if sender.send_message(&Notice::Sessions { sessions, more: left > 0 }).await.is_err() {
            return;
        }
        taken.fetch_add(1, Ordering::Relaxed);
    }
    _ = sender.finish().await;
}

#[test]
fn a_list_of_sessions_without_end_is_not_listened_to_for_ever() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("web01").stop();
    // The most that anybody is told of is 65,536; what is under way is not taken yet.
    for (times, each, most) in [(2000, 200, 350), (100_000, 0, 2000)] {
        let babbler = Babbler::start(&net, cluster.home("web01"), times, each);
        let output = cluster.home("laptop").malai(["--json", "sessions", "web01.company"]).exits(1);
        assert!(output.stderr_text().contains("more sessions than anybody can look at"), "{output:?}");
        output.fails_with("wire.malformed");
        let taken = babbler.taken.load(Ordering::Relaxed);
        assert!(taken > 0 && taken < most, "{taken} messages of {each}");
    }
    // A list that ends is taken, however it is cut.
    let _babbler = Babbler::start(&net, cluster.home("web01"), 100, 100);
    let output = cluster.home("laptop").malai(["--json", "sessions", "web01.company"]).ok();
    assert_eq!(output.json()["sessions"].as_array().map(Vec::len), Some(10_000));
}

#[test]
fn a_machine_that_sends_what_nobody_asked_it_for_is_named_and_nothing_is_written_anywhere() {
    let net = net();
    let dir = |name: &str| {
        let path = net.path().join(name);
        std::fs::create_dir_all(&path).expect("makes a folder");
        path
    };
    let (bad, good, here, there) = (dir("bad/.ssh"), dir("good"), dir("here"), dir("there"));
    let bad = bad.parent().expect("is in a folder");
    std::fs::write(bad.join(".bashrc"), "evil").expect("writes");
    std::fs::write(bad.join(".ssh/authorized_keys"), "evil").expect("writes");
    std::fs::write(good.join("notes.txt"), "asked for").expect("writes");
    // In all else it is as a machine is: only whose path it reads it decides by itself.
    let script = net.path().join("own-mind");
    let reads = |path: &str| {
        let (malai, dir) = (net.binary().display(), net.path().display());
        let text = format!("#!/bin/sh\nexec {malai} malai-cp get {dir}/{path}\n");
        std::fs::write(&script, text).expect("writes the script");
        std::fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("sets its mode");
    };
    let text = format!(
        "[machine.web01.command.malai-cp]\nallow_from = \"laptop\"\ncommand = \"{}\"\nargs = \"any\"\n\
         [machine.db01.command.malai-cp]\nallow_from = \"laptop\"\n",
        script.display()
    );
    let cluster = Cluster::with_config(&net, &["web01", "db01", "laptop"], &[], &text);
    let laptop = cluster.home("laptop");
    let targets =
        [(format!("db01.company:{}", there.display()), &there), (here.display().to_string(), &here)];
    for (_, folder) in &targets {
        std::fs::write(folder.join("kept"), "mine").expect("writes");
    }
    for (path, name) in [("bad/.bashrc", ".bashrc"), ("bad/.ssh", ".ssh"), ("bad/.", "\"\"")] {
        reads(path);
        for (target, folder) in &targets {
            for options in [&[][..], &["--delete"]] {
                let words = [&["--json", "cp"], options, &["web01.company:notes.txt", target]].concat();
                laptop.malai(words).exits(1).fails_with("copy.outside");
                let names: Vec<_> = std::fs::read_dir(folder).expect("lists").flatten().collect();
                assert!(names.len() == 1 && names[0].file_name() == "kept", "{path} {target}: {names:?}");
            }
            let told = laptop.malai(["cp", "web01.company:notes.txt", target]).exits(1).stderr_text();
            assert!(told.contains(name) && told.contains("do not trust the machine"), "{told}");
        }
    }
    // What was asked for goes the same way.
    reads("good/notes.txt");
    for (target, folder) in &targets {
        laptop.malai(["cp", "web01.company:notes.txt", target]).ok();
        assert_eq!(std::fs::read(folder.join("notes.txt")).expect("is there"), b"asked for");
    }
}
