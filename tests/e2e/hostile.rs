//! Members and strangers that want to harm.

use malai_core::model::cluster::{Invite, Token};
use malai_testkit::{Cluster, Signal, TestHome, await_until};

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
