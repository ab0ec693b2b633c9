//! Joining, and not joining.

use std::time::{Duration, Instant};

use malai_testkit::{Cluster, TestHome, TestNet, await_until};

use crate::net;

/// Tries to join and asserts that it is refused by this code, and that the config stays as it was.
fn refused(net: &TestNet, cluster: &Cluster, name: &str, invite: &str, code: &str) {
    let before = cluster.manager().cluster_toml("company");
    let home = TestHome::new(net, name);
    home.malai(["--json", "machine", "init", invite, "company", "--name", name]).exits(1).fails_with(code);
    assert_eq!(cluster.manager().cluster_toml("company"), before);
}

#[test]
fn a_used_up_invite_is_refused() {
    let net = net();
    let cluster = Cluster::new(&net, &[]);
    let invite = cluster.invite(&["--max-uses", "1"]);
    cluster.join(&TestHome::new(&net, "first"), &invite);
    refused(&net, &cluster, "second", &invite, "invite.used_up");
}

#[test]
fn joining_again_counts_once() {
    let net = net();
    let cluster = Cluster::new(&net, &[]);
    let invite = cluster.invite(&["--max-uses", "2"]);
    let home = TestHome::new(&net, "first");
    cluster.join(&home, &invite);
    // The same home under the same alias is a member already.
    let again = home.malai(["--json", "machine", "init", &invite, "company", "--name", "first"]);
    again.exits(1).fails_with("home.cluster_exists");
    cluster.join(&TestHome::new(&net, "second"), &invite);
    refused(&net, &cluster, "third", &invite, "invite.used_up");
}

#[test]
fn a_revoked_invite_cannot_join_by_any_of_its_names() {
    let net = net();
    let cluster = Cluster::new(&net, &[]);
    let first = cluster.invite(&["--alias", "conf"]);
    let second = cluster.invite(&[]);
    cluster.manager().malai(["cluster", "revoke-invite", "company", "conf"]).ok();
    cluster.manager().malai(["cluster", "revoke-invite", "company", &second]).ok();
    refused(&net, &cluster, "one", &first, "invite.revoked");
    refused(&net, &cluster, "two", &second, "invite.revoked");
}

#[test]
fn an_expired_invite_is_refused() {
    let net = net();
    let cluster = Cluster::new(&net, &[]);
    let made = Instant::now();
    let invite = cluster.invite(&["--expires", "1s"]);
    await_until("the expiry", Duration::from_secs(10), || made.elapsed() > Duration::from_secs(3));
    refused(&net, &cluster, "late", &invite, "invite.expired");
}

#[test]
fn a_text_that_is_no_invite_is_refused() {
    let net = net();
    let cluster = Cluster::new(&net, &[]);
    let invite = cluster.invite(&[]);
    refused(&net, &cluster, "short", &invite[..invite.len() / 2], "invite.invalid");
    refused(&net, &cluster, "word", "hello", "invite.invalid");
}

#[test]
fn the_list_shows_every_invite_and_no_token() {
    let net = net();
    let cluster = Cluster::new(&net, &[]);
    let invite = cluster.invite(&["--alias", "conf", "--max-uses", "5", "--expires", "2d"]);
    let listed = cluster.manager().malai(["cluster", "list-invites", "company", "--json"]).ok();
    listed.json();
    assert!(listed.text().contains("conf") && !listed.text().contains(&invite), "{listed:?}");
    let logs = net.logs();
    assert!(!logs.contains(&invite), "an invite is a secret:\n{logs}");
}

#[test]
fn a_rule_for_everybody_needs_an_invite_that_is_called_open() {
    let net = net();
    let cluster = Cluster::with_config(&net, &["web01"], &[("web01", "allow_from = \"*\"")], "");
    let manager = cluster.manager();
    let output = manager.malai(["cluster", "create-invite", "company"]).exits(1);
    assert!(output.stdout.is_empty() && output.stderr_text().contains("web01"), "{output:?}");
    manager.malai(["--json", "cluster", "create-invite", "company"]).fails_with("invite.open_rule");
    cluster.invite(&["--open"]);
}

#[test]
fn a_manager_that_is_off_is_joined_later() {
    let net = net();
    let mut cluster = Cluster::new(&net, &[]);
    let invite = cluster.invite(&[]);
    cluster.manager.stop();
    let home = TestHome::new(&net, "web01");
    // It keeps identity and invite, and says that the manager did not answer.
    let _ = home.malai(["machine", "init", &invite, "company", "--name", "web01"]);
    let _daemon = home.start_daemon();
    cluster.manager.start();
    await_until("the registration", Duration::from_secs(60), || {
        cluster.manager().cluster_toml("company").contains("[machine.web01]")
    });
    await_until("its config", Duration::from_secs(60), || {
        home.read("clusters/company/machine.toml").is_some()
    });
}

#[test]
fn a_pinned_root_registers_nothing_and_takes_config_from_that_root_alone() {
    let net = net();
    let cluster = Cluster::new(&net, &[]);
    let home = TestHome::new(&net, "web01");
    let output = home.malai(["machine", "init", &cluster.root(), "company"]).ok();
    assert!(!cluster.manager().cluster_toml("company").contains("\n[machine."));
    let id = output
        .text()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .find(|word| word.len() == 52 && *word != cluster.root())
        .unwrap_or_else(|| panic!("the own id52 is printed: {output:?}"))
        .to_owned();
    let _daemon = home.start_daemon();
    cluster.edit(|text| format!("{text}\n[machine.web01]\nid52 = \"{id}\"\n"));
    await_until("its config", Duration::from_secs(60), || {
        home.read("clusters/company/machine.toml").is_some()
    });
}
