//! Members and strangers that want to harm.

use malai_core::model::cluster::{Invite, Token};
use malai_testkit::{Cluster, TestHome, await_until};

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
