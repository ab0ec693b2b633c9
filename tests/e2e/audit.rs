//! What is recorded of what happened, and that nobody can change it unseen.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use malai_testkit::{Cluster, TestHome, await_some, await_until, is_root};
use serde_json::Value;

use crate::shells::{sessions, shell};
use crate::{SOON, net, not_run, open_cluster};

/// A word that nobody else would come upon.
const SECRET: &str = "hunter2-in-the-clear";

/// The records of a home, oldest first.
fn records(home: &TestHome) -> Vec<Value> {
    let output = home.malai(["audit", "show", "--json"]).ok();
    output.text().lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn find(home: &TestHome, fits: impl Fn(&Value) -> bool) -> Value {
    await_some("a record", SOON, || records(home).into_iter().find(&fits))
}

fn named(home: &TestHome, event: &str) -> Value {
    find(home, |record| record["event"] == event)
}

fn of_command(home: &TestHome, event: &str, command: &str) -> Value {
    find(home, |record| record["event"] == event && record["command"] == command)
}

/// Everything that the audit log of a home holds.
fn all_bytes(home: &TestHome) -> String {
    let dir = home.path().join("audit");
    let files = std::fs::read_dir(dir).expect("there is a log").flatten();
    files.map(|file| std::fs::read_to_string(file.path()).expect("is text")).collect()
}

fn verifies(home: &TestHome) -> Value {
    home.malai(["--json", "audit", "verify"]).ok().json()
}

fn require_audit(home: &TestHome) {
    home.add_to_malai_toml("[host]\naudit = \"required\"");
    home.malai(["rescan"]).ok();
}

#[test]
fn a_command_leaves_two_records_and_none_of_its_arguments() {
    let net = net();
    let cluster = open_cluster(&net);
    let (web01, laptop) = (cluster.home("web01"), cluster.home("laptop"));
    let mut command = laptop.command(["web01.company", "sh", "-c", "exit 3", SECRET]);
    command = command.env("LC_SECRET", SECRET);
    command.run().exits(3);
    let ended = of_command(web01, "command-ended", "sh");
    assert_eq!((&ended["status"], &ended["outcome"]), (&3.into(), &"exited".into()), "{ended}");
    assert!(ended["duration_ms"].is_u64(), "{ended}");
    let started = of_command(web01, "command-started", "sh");
    assert_eq!(started["seq"], ended["started"]);
    for record in [&started, &ended] {
        assert_eq!(record["peer"], cluster.id52("laptop"));
        assert_eq!((&record["name"], &record["cluster"]), (&"laptop".into(), &"company".into()));
        assert_eq!(record["here"], Value::Null);
    }
    assert!(started["user"].is_string(), "{started}");
    laptop.malai(["web01.company", "no-such-program", SECRET]).exits(127);
    let failed = of_command(web01, "command-ended", "no-such-program");
    assert_eq!((&failed["outcome"], &failed["code"]), (&"failed".into(), &"command.not_found".into()));
    assert!(!all_bytes(web01).contains(SECRET));
    assert_eq!(verifies(web01)["whole"], true);
    let mode = |path: PathBuf| std::fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    let dir = web01.path().join("audit");
    assert_eq!((mode(dir.clone()), mode(dir.join("current.jsonl"))), (0o700, 0o600));
}

#[test]
fn a_denial_is_recorded_with_its_reason_and_without_arguments() {
    let net = net();
    let text = "[machine.web01.command.uname]\nallow_from = \"laptop\"\n";
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[], text);
    let (web01, laptop) = (cluster.home("web01"), cluster.home("laptop"));
    laptop.malai(["--json", "web01.company", "passwd", SECRET]).exits(255).fails_with("acl.denied");
    let denied = find(web01, |record| record["event"] == "denied" && record["wanted"] == "command");
    assert_eq!((&denied["asked"], &denied["name"]), (&"passwd".into(), &"laptop".into()), "{denied}");
    assert!(denied["reason"].as_str().is_some_and(|why| why.contains("allow_from is absent")), "{denied}");
    laptop.malai(["--json", "--detach", "web01.company", "top"]).exits(255).fails_with("acl.denied");
    let denied = find(web01, |record| record["event"] == "denied" && record["wanted"] == "session");
    assert_eq!(denied["asked"], "top");
    assert!(!all_bytes(web01).contains(SECRET));
    // What was allowed is among what is shown of that peer, and of nobody else.
    laptop.malai(["web01.company", "uname"]).ok();
    of_command(web01, "command-ended", "uname");
    let shown = |peer: &str| web01.malai(["audit", "show", "--peer", peer]).ok().text().to_owned();
    let of_laptop = shown("laptop");
    assert!(of_laptop.contains("DENIED laptop") && of_laptop.contains("\"uname\""), "{of_laptop}");
    assert_eq!(shown("db01"), "");
    assert_eq!(web01.malai(["audit", "show", "--since", "2099-01-01"]).ok().text(), "");
    web01.malai(["audit", "show", "--since", "yesterday"]).exits(2);
}

#[test]
fn a_daemon_that_is_killed_leaves_a_chain_that_holds_and_goes_on() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let words = ["web01.company", "sh", "-c", "echo runs; exec sleep 1000"];
    let running = cluster.home("laptop").command(words).spawn();
    running.wait_for_line(SOON, |line| line == "runs");
    let started = of_command(cluster.home("web01"), "command-started", "sh");
    cluster.member("web01").daemon.take().expect("runs").kill();
    let before = verifies(cluster.home("web01"));
    // As a crash of the machine leaves it: the last line is not whole.
    let file = cluster.home("web01").path().join("audit/current.jsonl");
    let text = std::fs::read_to_string(&file).expect("reads");
    std::fs::write(&file, format!("{text}{{\"schema\":1,\"se")).expect("writes");
    cluster.member("web01").start();
    running.kill();
    let web01 = cluster.home("web01");
    assert_eq!(named(web01, "torn-line")["bytes"], 15);
    await_until("the machine to answer", SOON, || {
        cluster.home("laptop").malai(["web01.company", "true"]).code == Some(0)
    });
    of_command(web01, "command-ended", "true");
    let after = verifies(web01);
    assert!(after["records"].as_u64() > before["records"].as_u64(), "{before} {after}");
    let end = before["end"].as_str().expect("an end");
    web01.malai(["audit", "verify", "--known", end]).ok();
    let records = records(web01);
    let ended = |record: &&Value| record["event"] == "command-ended" && record["started"] == started["seq"];
    assert_eq!(records.iter().find(ended), None, "nobody was there to see its end");
    let starts = records.iter().filter(|record| record["event"] == "daemon-started").count();
    assert_eq!(starts, 2);
}

#[test]
fn a_line_that_was_changed_is_found() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.home("laptop").malai(["web01.company", "true"]).ok();
    of_command(cluster.home("web01"), "command-ended", "true");
    cluster.member("web01").stop();
    let web01 = cluster.home("web01");
    let good = verifies(web01);
    let file = web01.path().join("audit/current.jsonl");
    let text = std::fs::read_to_string(&file).expect("reads");
    let line = text.lines().position(|line| line.contains("command-started")).expect("is recorded");
    web01.write("audit/current.jsonl", &text.replacen("\"command\":\"true\"", "\"command\":\"nice\"", 1));
    let output = web01.malai(["audit", "verify"]).exits(1);
    // It is the line behind it that tells.
    let place = format!("{} line {}", file.display(), line + 2);
    assert!(output.text().contains("BROKEN") && output.text().contains(&place), "{output:?}");
    let found = web01.malai(["--json", "audit", "verify"]).exits(1).json();
    assert_eq!((&found["whole"], &found["first_break"]["line"]), (&false.into(), &(line + 2).into()));
    // A line that was removed from the end shows to whoever knows the end.
    let lines: Vec<&str> = text.lines().collect();
    let cut: String = lines[..lines.len() - 1].iter().map(|line| format!("{line}\n")).collect();
    web01.write("audit/current.jsonl", &cut);
    web01.malai(["audit", "verify"]).ok();
    let end = good["end"].as_str().expect("an end");
    let output = web01.malai(["audit", "verify", "--known", end]).exits(1);
    assert!(output.text().contains("ends before"), "{output:?}");
    web01.write("audit/current.jsonl", &text);
    web01.malai(["audit", "verify", "--known", end]).ok();
}

#[test]
fn where_the_audit_is_required_nothing_runs_that_cannot_be_recorded() {
    let net = net();
    let cluster = open_cluster(&net);
    let (web01, laptop) = (cluster.home("web01"), cluster.home("laptop"));
    require_audit(web01);
    laptop.malai(["web01.company", "true"]).ok();
    let dir = web01.path().join("audit");
    let aside = web01.path().join("aside");
    std::fs::rename(&dir, &aside).expect("moves");
    std::fs::write(&dir, "in the way").expect("writes");
    let mark = net.path().join("mark");
    let text = mark.to_string_lossy().into_owned();
    let refused = laptop.malai(["--json", "web01.company", "touch", &text]).exits(255);
    refused.fails_with("audit.failed");
    let refused = laptop.malai(["web01.company", "touch", &text]).exits(255);
    let told = refused.stderr_text();
    assert!(told.contains("audit = \"required\"") && !told.contains(&text), "{told}");
    // A session no more than a command.
    laptop
        .malai(["--json", "--detach", "web01.company", "touch", &text])
        .exits(255)
        .fails_with("audit.failed");
    assert!(!mark.exists());
    // The config that mends it still comes.
    web01.malai(["sync"]).ok();
    std::fs::remove_file(&dir).expect("removes");
    std::fs::rename(&aside, &dir).expect("moves");
    laptop.malai(["web01.company", "touch", &text]).ok();
    assert!(mark.exists());
    let lost = named(web01, "records-lost");
    assert!(lost["count"].as_u64() >= Some(3), "{lost}");
    assert_eq!(verifies(web01)["whole"], true);
}

#[test]
fn where_it_is_not_commands_run_and_the_log_warns() {
    let net = net();
    let cluster = open_cluster(&net);
    let (web01, laptop) = (cluster.home("web01"), cluster.home("laptop"));
    laptop.malai(["web01.company", "true"]).ok();
    let dir = web01.path().join("audit");
    let aside = web01.path().join("aside");
    of_command(web01, "command-ended", "true");
    std::fs::rename(&dir, &aside).expect("moves");
    std::fs::write(&dir, "in the way").expect("writes");
    for _ in 0..5 {
        laptop.malai(["web01.company", "true"]).ok();
    }
    let log = web01.read("malai.log").expect("a log");
    assert_eq!(log.matches("the audit log cannot be written").count(), 1, "{log}");
    std::fs::remove_file(&dir).expect("removes");
    std::fs::rename(&aside, &dir).expect("moves");
    laptop.malai(["web01.company", "uname"]).ok();
    of_command(web01, "command-ended", "uname");
    assert_eq!(verifies(web01)["whole"], true);
    assert!(web01.read("malai.log").expect("a log").contains("the audit log is written again"));
}

/// A file system of a few pages in the place of a directory, for as long as it is held.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).expect("makes the directory");
        let options = ["-t", "tmpfs", "-o", "size=32k,mode=0700", "none"];
        let mounted = Command::new("mount").args(options).arg(&at).output().ok()?;
        mounted.status.success().then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_tears_no_line_and_refuses_commands_where_that_is_required() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("web01").stop();
    let dir = cluster.home("web01").path().join("audit");
    std::fs::remove_dir_all(&dir).expect("removes");
    let disk = is_root().then(|| SmallDisk::mount(dir.clone())).flatten();
    if disk.is_none() {
        not_run("a small disk cannot be mounted here");
        return;
    }
    cluster.member("web01").start();
    let (web01, laptop) = (cluster.home("web01"), cluster.home("laptop"));
    laptop.malai(["web01.company", "true"]).ok();
    of_command(web01, "command-ended", "true");
    // As full as it gets.
    let filling = dir.join("filling");
    _ = std::fs::write(&filling, vec![0; 64 * 1024]);
    await_until("a record that does not fit", SOON, || {
        laptop.malai(["web01.company", "true"]).ok();
        web01.read("malai.log").is_some_and(|log| log.contains("the audit log cannot be written"))
    });
    assert_eq!(verifies(web01)["torn"], false);
    require_audit(web01);
    laptop.malai(["--json", "web01.company", "true"]).exits(255).fails_with("audit.failed");
    std::fs::remove_file(&filling).expect("makes room");
    laptop.malai(["web01.company", "uname"]).ok();
    of_command(web01, "command-ended", "uname");
    named(web01, "records-lost");
    assert_eq!(verifies(web01)["whole"], true);
    cluster.member("web01").stop();
    drop(disk);
}

#[test]
fn a_shell_is_recorded_from_its_start_to_its_end() {
    let net = net();
    let cluster = open_cluster(&net);
    let (web01, laptop) = (cluster.home("web01"), cluster.home("laptop"));
    let mut terminal = shell(laptop);
    let opened = named(web01, "session-opened");
    let started = named(web01, "session-started");
    assert_eq!((&opened["started"], &started["command"]), (&started["seq"], &"sh".into()));
    let session = opened["session"].as_str().expect("a name").to_owned();
    terminal.type_text("~d");
    assert_eq!(terminal.wait(), 0);
    let left = named(web01, "session-ended");
    assert_eq!((&left["outcome"], &left["session"]), (&"left".into(), &session.clone().into()));
    let mut again = laptop.terminal(["shell", "web01.company", "--attach", &session]).spawn();
    assert_eq!(named(web01, "session-attached")["mode"], "control");
    again.type_text(format!("echo {SECRET}; exit 4\r"));
    assert_eq!(again.wait(), 4);
    let ended = find(web01, |record| record["event"] == "session-ended" && record["status"] == 4);
    assert_eq!((&ended["outcome"], &ended["session"]), (&"exited".into(), &session.clone().into()));
    await_until("the end of the session", SOON, || sessions(laptop).is_empty());
    let gone = named(web01, "session-gone");
    assert_eq!((&gone["session"], &gone["status"]), (&session.into(), &4.into()));
    assert!(gone["duration_ms"].as_u64().is_some(), "{gone}");
    assert!(!all_bytes(web01).contains(SECRET));
    assert_eq!(verifies(web01)["whole"], true);
}

#[test]
fn clusters_invites_joins_keys_and_configs_are_recorded_and_no_secret_is() {
    let net = net();
    let cluster = Cluster::new(&net, &[]);
    let manager = cluster.manager();
    // Made without a daemon, which started afterwards.
    assert_eq!(named(manager, "key-made")["key"], "cluster-root");
    let invite = cluster.invite(&["--alias", "conf", "--max-uses", "1"]);
    let made = named(manager, "invite-created");
    assert_eq!((&made["label"], &made["max_uses"]), (&"conf".into(), &1.into()));
    let web01 = TestHome::new(&net, "web01");
    cluster.join(&web01, &invite);
    let joined = named(manager, "machine-joined");
    assert_eq!((&joined["name"], &joined["invite"]), (&"web01".into(), &made["invite"]));
    assert_eq!(joined["peer"], cluster.id52("web01"));
    assert_eq!(named(&web01, "joined")["manager"], cluster.root());
    assert_eq!(named(&web01, "key-made")["id52"], cluster.id52("web01"));
    let daemon = web01.start_daemon();
    let applied = named(&web01, "config-applied");
    assert_eq!((&applied["origin"], &applied["author"]), (&"manager".into(), &cluster.root().into()));
    assert!(applied["serial"].is_u64(), "{applied}");
    let late = TestHome::new(&net, "late");
    late.malai(["machine", "init", &invite, "company"]).exits(1);
    let refused = find(manager, |record| record["event"] == "denied" && record["wanted"] == "join");
    assert_eq!((&refused["asked"], &refused["reason"]), (&made["invite"], &"invite.used_up".into()));
    cluster.edit(|text| format!("{text}\n[group.admins]\nmembers = \"web01\"\n"));
    find(manager, |record| record["event"] == "config-applied" && record["origin"] == "rescan");
    manager.malai(["cluster", "revoke-invite", "company", "conf"]).ok();
    assert_eq!(named(manager, "invite-revoked")["invite"], made["invite"]);
    for home in [manager, &web01] {
        assert!(!all_bytes(home).contains(&invite), "an invite holds a secret");
        assert_eq!(verifies(home)["whole"], true);
    }
    daemon.stop();
    named(&web01, "daemon-stopped");
}

#[test]
fn what_a_device_asks_of_itself_is_recorded_with_a_daemon_and_without() {
    let net = net();
    let mut cluster = Cluster::with_config(&net, &["web01"], &[("web01", "allow_from = \"web01\"")], "");
    for round in 0..2 {
        let web01 = cluster.home("web01");
        web01.malai(["web01.company", "sh", "-c", "exit 5"]).exits(5);
        let ends = await_some("both ends", SOON, || {
            let all = records(web01);
            let ends: Vec<_> = all.into_iter().filter(|record| record["event"] == "command-ended").collect();
            (ends.len() == round + 1).then_some(ends)
        });
        assert_eq!((&ends[round]["status"], &ends[round]["here"]), (&5.into(), &true.into()));
        assert_eq!(verifies(web01)["whole"], true);
        cluster.member("web01").stop();
    }
}
