//! Clusters over time: who has which config, and who needs whom.

use malai_testkit::{Cluster, TestHome, await_until};

use crate::{SOON, net, open_cluster};

#[test]
fn a_new_machine_may_do_nothing_until_the_config_says_so() {
    let net = net();
    let cluster = Cluster::new(&net, &["web01", "laptop"]);
    let laptop = cluster.home("laptop");
    laptop.malai(["web01.company", "true"]).exits(255);
    cluster.manager().add_to_machine("company", "web01", "allow_from = \"laptop\"");
    // Edited, not applied.
    laptop.malai(["web01.company", "true"]).exits(255);
    cluster.rescan();
    cluster.await_distributed();
    assert_eq!(laptop.malai(["web01.company", "echo", "in"]).ok().text(), "in");
    // A right in one direction is none in the other.
    cluster.home("web01").malai(["laptop.company", "true"]).exits(255);
}

#[test]
fn registration_keeps_the_comments_of_the_config() {
    let net = net();
    let mut cluster = Cluster::new(&net, &["web01"]);
    let note = "# the on-call phone is in the drawer\n";
    cluster.edit(|text| format!("{note}{text}"));
    let invite = cluster.invite(&[]);
    let home = TestHome::new(&net, "web02");
    cluster.join(&home, &invite);
    let text = cluster.manager().cluster_toml("company");
    assert!(text.contains(note.trim()) && text.contains("[machine.web02]"), "{text}");
    cluster.manager.stop();
}

#[test]
fn a_taken_name_gets_a_suffix() {
    let net = net();
    let cluster = Cluster::new(&net, &["web01"]);
    let invite = cluster.invite(&[]);
    let second = TestHome::new(&net, "second");
    second.malai(["machine", "init", &invite, "company", "--name", "web01"]).ok();
    let text = cluster.manager().cluster_toml("company");
    let names: Vec<&str> = text.lines().filter(|line| line.starts_with("[machine.web01")).collect();
    assert_eq!(names.len(), 2, "{text}");
    assert_ne!(names[0], names[1]);
}

#[test]
fn an_invite_can_be_read_from_stdin_where_no_list_of_processes_has_it() {
    let net = net();
    let cluster = Cluster::new(&net, &["web01"]);
    let invite = cluster.invite(&[]);
    let second = TestHome::new(&net, "second");
    second
        .command(["machine", "init", "-", "company", "--name", "web02"])
        .stdin(format!("{invite}\n"))
        .run()
        .ok();
    assert!(cluster.manager().cluster_toml("company").contains("[machine.web02]"));
    let nothing = second.command(["--json", "machine", "init", "-", "other"]).stdin("").run();
    nothing.exits(1).fails_with("invite.invalid");
}

#[test]
fn two_clusters_live_in_one_home_with_an_identity_each() {
    let net = net();
    let first = Cluster::named(&net, "company", "manager1", &["web01"]);
    let second = Cluster::named(&net, "family", "manager2", &["nas"]);
    let laptop = TestHome::new(&net, "laptop");
    for cluster in [&first, &second] {
        let invite = cluster.invite(&[]);
        cluster.join(&laptop, &invite);
    }
    let _daemon = laptop.start_daemon();
    for (cluster, machine) in [(&first, "web01"), (&second, "nas")] {
        cluster.manager().add_to_machine(&cluster.alias, machine, "allow_from = \"laptop\"");
        cluster.rescan();
        cluster.await_distributed();
    }
    let caller = ["printenv", "MALAI_CLIENT_ID52"];
    await_until("the laptop's own config of both", SOON, || {
        ["web01.company", "nas.family"].iter().all(|address| laptop.malai([address, "true"]).code == Some(0))
    });
    let id = |address: &str| laptop.malai([address].iter().chain(&caller)).ok().text().to_owned();
    assert_eq!(id("web01.company"), first.id52("laptop"));
    assert_eq!(id("nas.family"), second.id52("laptop"));
    assert_ne!(first.id52("laptop"), second.id52("laptop"));
    laptop.malai(["--json", "web01.family", "true"]).exits(255).fails_with("address.unknown_machine");
}

#[test]
fn machines_go_on_without_their_manager() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.manager.stop();
    assert_eq!(cluster.home("laptop").malai(["web01.company", "echo", "on"]).ok().text(), "on");
    cluster.member("web01").stop();
    cluster.member("web01").start();
    assert_eq!(cluster.home("laptop").malai(["web01.company", "echo", "on"]).ok().text(), "on");
    let denied = cluster.home("web01").malai(["laptop.company", "true"]);
    assert_eq!(denied.code, Some(255), "{denied:?}");
}

#[test]
fn a_machine_that_was_off_gets_what_it_missed_when_it_starts() {
    let net = net();
    let mut cluster = Cluster::new(&net, &["web01", "laptop"]);
    cluster.member("web01").stop();
    let before = cluster.home("web01").read("clusters/company/machine.toml");
    cluster.manager().add_to_machine("company", "web01", "allow_from = \"laptop\"");
    cluster.rescan();
    cluster.await_pending(&["web01"]);
    assert_eq!(cluster.home("web01").read("clusters/company/machine.toml"), before);
    cluster.member("web01").start();
    cluster.await_distributed();
    assert_eq!(cluster.home("laptop").malai(["web01.company", "echo", "late"]).ok().text(), "late");
}

#[test]
fn a_manager_that_was_off_serves_what_it_owes_when_it_starts() {
    let net = net();
    let mut cluster = Cluster::new(&net, &["web01", "laptop"]);
    cluster.manager.stop();
    cluster.manager().add_to_machine("company", "web01", "allow_from = \"laptop\"");
    cluster.home("laptop").malai(["web01.company", "true"]).exits(255);
    cluster.manager.start();
    cluster.await_distributed();
    cluster.home("laptop").malai(["web01.company", "true"]).ok();
}

#[test]
fn only_what_concerns_a_machine_reaches_it() {
    let net = net();
    let secret =
        "[machine.db01.command.backup]\nallow_from = \"db01\"\ncommand = \"tar czf /srv/hush.tgz /srv\"\n";
    let added = [("web01", "allow_from = \"laptop\"")];
    let cluster = Cluster::with_config(&net, &["web01", "db01", "laptop"], &added, secret);
    let text = cluster.home("web01").read("clusters/company/machine.toml").expect("web01 has its config");
    for foreign in ["hush", "db01", &cluster.id52("db01")] {
        assert!(!text.contains(foreign), "web01 knows {foreign}:\n{text}");
    }
    assert!(text.contains(&cluster.id52("laptop")), "{text}");
}

#[test]
fn twenty_machines_are_twenty_processes() {
    let net = net();
    let names: Vec<String> = (1..=20).map(|number| format!("web{number:02}")).collect();
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.push("laptop");
    let added: Vec<(&str, &str)> =
        names.iter().map(|name| (name.as_str(), "allow_from = \"laptop\"")).collect();
    let cluster = Cluster::with_config(&net, &all, &added, "");
    let laptop = cluster.home("laptop");
    for name in &names {
        let address = format!("{name}.company");
        let output = laptop.malai([&address, "sh", "-c", "echo $PPID"]).ok();
        let member = cluster.machines.iter().find(|member| member.home.name() == name).expect("is a member");
        let daemon = member.daemon.as_ref().expect("runs").pid();
        assert_eq!(output.text(), daemon.to_string(), "{name} runs what it is asked for by its own daemon");
    }
    // One edit that concerns one machine leaves the others' files alone.
    let file = |name: &str| cluster.home(name).read("clusters/company/machine.toml").expect("has its config");
    let before: Vec<String> = names.iter().map(|name| file(name)).collect();
    cluster.edit(|text| format!("{text}\n[machine.web07.command.uptime]\nallow_from = \"laptop\"\n"));
    cluster.await_distributed();
    for (name, before) in names.iter().zip(&before) {
        assert_eq!(file(name) != *before, name == "web07", "{name}");
    }
}
