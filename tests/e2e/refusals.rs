//! Who may not.

use std::path::PathBuf;

use malai_testkit::{Cluster, TestNet, await_until};

use crate::commands::is_gone;
use crate::{SOON, net, open_cluster};

/// A file that a refused command would have made.
fn mark(net: &TestNet) -> (PathBuf, String) {
    let path = net.path().join("mark");
    let text = path.to_string_lossy().into_owned();
    (path, text)
}

#[test]
fn a_strangers_key_is_refused_and_nothing_is_run() {
    let net = net();
    let cluster = open_cluster(&net);
    let config = cluster.home("web01").read("clusters/company/machine.toml");
    // Somebody else's cluster claims web01 as a machine of its own, with every right for the stranger.
    let other = Cluster::named(&net, "other", "other-manager", &["stranger"]);
    let id = cluster.id52("web01");
    other.edit(|text| format!("{text}\n[machine.web01]\nid52 = \"{id}\"\nallow_from = \"stranger\"\n"));
    let stranger = other.home("stranger");
    await_until("the stranger to know of web01", SOON, || {
        stranger.read("clusters/other/machine.toml").is_some_and(|text| text.contains(&id))
    });
    let (path, text) = mark(&net);
    let output = stranger.malai(["--json", "web01.other", "touch", &text]).exits(255);
    assert!(!path.exists());
    output.fails_with("p2p.not_admitted");
    // Nor did web01 take what the other manager sent it.
    assert_eq!(cluster.home("web01").read("clusters/company/machine.toml"), config);
    assert_eq!(cluster.home("web01").read("clusters/other/machine.toml"), None);
    cluster.home("laptop").malai(["web01.company", "touch", &text]).ok();
}

#[test]
fn a_member_without_rights_on_a_machine_is_refused() {
    let net = net();
    let added = [("web01", "allow_from = \"laptop\"")];
    let cluster = Cluster::with_config(&net, &["web01", "db01", "laptop"], &added, "");
    let (path, text) = mark(&net);
    let address = format!("{}.company", cluster.id52("web01"));
    for address in ["web01.company", &address] {
        let output = cluster.home("db01").malai(["--json", address, "touch", &text]).exits(255);
        assert!(!path.exists() && output.stdout.is_empty(), "{output:?}");
        let code = output.error_code();
        let refused = ["p2p.not_admitted", "acl.denied", "address.unknown_machine"];
        assert!(code.as_deref().is_some_and(|code| refused.contains(&code)), "{output:?}");
    }
    cluster.home("laptop").malai(["web01.company", "touch", &text]).ok();
    assert!(path.exists());
}

#[test]
fn the_manager_has_no_rights_of_its_own() {
    let net = net();
    let cluster = open_cluster(&net);
    let (path, text) = mark(&net);
    let output = cluster.manager().malai(["--json", "web01.company", "touch", &text]).exits(255);
    assert!(!path.exists(), "{output:?}");
    output.fails_with("acl.denied");
}

#[test]
fn a_right_to_one_command_is_a_right_to_no_other() {
    let net = net();
    let text = "[machine.web01.command.uname]\nallow_from = \"laptop\"\nargs = \"none\"\n";
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[], text);
    let laptop = cluster.home("laptop");
    laptop.malai(["web01.company", "uname"]).ok();
    for words in [
        &["id"][..],
        &["/bin/uname"],
        &["/usr/bin/uname"],
        &["./uname"],
        &["sh", "-c", "uname"],
        &["env", "uname"],
        &["uname", "-a"],
        &["uname", ""],
        &["uname "],
        &["UNAME"],
    ] {
        let output = laptop.malai(["--json", "web01.company"].iter().chain(words));
        // The last but one is split on the client, and so is the very command that is allowed.
        if words == ["uname "] {
            output.ok();
            continue;
        }
        assert!(output.stdout.is_empty(), "{words:?}: {output:?}");
        output.exits(255).fails_with("acl.denied");
    }
}

#[test]
fn whoever_may_copy_below_a_folder_makes_no_way_out_of_it_by_a_link() {
    let net = net();
    let [site, outside, tree] = ["site", "outside", "tree"].map(|name| {
        let path = net.path().join("files").join(name);
        std::fs::create_dir_all(&path).expect("makes a folder");
        path
    });
    std::fs::write(outside.join("secret"), "of others").expect("writes");
    std::os::unix::fs::symlink(&outside, tree.join("way")).expect("links");
    let evil = net.path().join("files/evil");
    std::fs::write(&evil, "evil").expect("writes");
    let rule =
        |more: &str| format!("[machine.web01.command.malai-cp]\nallow_from = \"laptop\"\nargs = {more}\n");
    let below = rule(&format!("[\"put\", \"get\", \"{}/*\"]", site.display()));
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[], &below);
    let laptop = cluster.home("laptop");
    let there = |name: &str| format!("web01.company:{}/{name}", site.display());
    let here = |path: &std::path::Path| path.display().to_string();
    // A link as such may be copied: it is a file like others.
    laptop.malai(["cp", &format!("{}/.", here(&tree)), &there("")]).ok();
    assert!(site.join("way").is_symlink());
    let put = ["--json", "cp", &here(&evil), &there("way")];
    laptop.malai(put).exits(1).fails_with("copy.storage");
    let output = laptop.malai(["cp", &there("way"), &here(&net.path().join("files/got"))]).exits(1);
    assert!(output.stderr_text().contains("a symbolic link lies in the path"), "{output:?}");
    let names: Vec<_> = std::fs::read_dir(&outside).expect("lists").collect();
    assert_eq!(names.len(), 1, "{names:?}");
    // Nor by a word that was let in as another one: it would be a path in the user's home.
    let words = ["--json", "web01.company", "malai-cp", "put", "put"];
    assert_eq!(laptop.malai(words).exits(2).stdout, b"");
    // Whoever may copy anything may go through links, as with scp.
    cluster.edit(|text| text.replace(&below, &rule("\"any\"")));
    await_until("the wider right", SOON, || {
        laptop.malai(["cp", &here(&evil), &there("way")]).code == Some(0)
    });
    assert_eq!(std::fs::read(outside.join("evil")).expect("is there"), b"evil");
}

#[test]
fn a_program_learns_whether_a_rule_restricts_its_words_also_in_a_session() {
    let net = net();
    let rule =
        |args: &str| format!("[machine.web01.command.printenv]\nallow_from = \"laptop\"\nargs = {args}\n");
    let (narrow, wide) = (rule("[\"MALAI_RESTRICTED\"]"), rule("\"any\""));
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[], &narrow);
    let laptop = cluster.home("laptop");
    let words = ["web01.company", "printenv", "MALAI_RESTRICTED"];
    assert_eq!(laptop.malai(words).ok().text(), "1");
    let mut terminal = laptop.terminal(["-t"].into_iter().chain(words)).spawn();
    terminal.wait_for_line("1");
    assert_eq!(terminal.wait(), 0);
    cluster.edit(|text| text.replace(&narrow, &wide));
    await_until("the wider right", SOON, || laptop.malai(words).code == Some(1));
    assert_eq!(laptop.terminal(["-t"].into_iter().chain(words)).spawn().wait(), 1);
}

#[test]
fn a_denial_says_how_to_ask_and_the_reason_stays_on_the_target() {
    let net = net();
    let text = "[machine.web01.command.uname]\nallow_from = \"laptop\"\n";
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[], text);
    let output = cluster.home("laptop").malai(["web01.company", "id"]).exits(255);
    let stderr = output.stderr_text();
    assert!(stderr.starts_with("error: ") && stderr.contains("\nhint: "), "{stderr}");
    assert!(
        stderr.contains("web01") && !stderr.contains("allow_from"),
        "the rule is not the caller's business: {stderr}"
    );
    let log = cluster.home("web01").read("malai.log").expect("the target has a log");
    let line = log.lines().find(|line| line.contains("denied a command")).expect("the denial is in it");
    assert!(line.contains("command=\"id\"") && line.contains("allow_from is absent"), "{line}");
    assert!(line.contains(&cluster.id52("laptop")), "{line}");
}

#[test]
fn a_right_taken_away_ends_the_command_that_used_it() {
    let net = net();
    let cluster = open_cluster(&net);
    let words = ["--json", "web01.company", "sh", "-c", "echo $$; exec sleep 1000"];
    let running = cluster.home("laptop").command(words).spawn();
    let pid = running.wait_for_line(SOON, |line| !line.is_empty());
    cluster.edit(|text| text.replace("allow_from = \"laptop\"", ""));
    running.wait(SOON).exits(255).fails_with("acl.revoked");
    await_until("the end of the remote program", SOON, || is_gone(&pid));
    cluster.home("laptop").malai(["web01.company", "true"]).exits(255);
}

#[test]
fn a_right_that_stays_keeps_its_command_running_through_an_edit() {
    let net = net();
    let cluster = open_cluster(&net);
    let mut running = cluster.home("laptop").command(["web01.company", "cat"]).open_stdin().spawn();
    running.write("before\n");
    running.wait_for_line(SOON, |line| line == "before");
    cluster.edit(|text| format!("{text}\n[machine.web01.command.uptime]\nallow_from = \"laptop\"\n"));
    cluster.await_distributed();
    running.write("after\n");
    running.wait_for_line(SOON, |line| line == "after");
    running.close_stdin();
    running.wait(SOON).ok();
}

#[test]
fn a_config_that_was_edited_by_hand_is_not_gone_by() {
    let net = net();
    let mut cluster = open_cluster(&net);
    // A daemon would go by what it read when it started.
    cluster.member("laptop").stop();
    // The client's own copy of the config is edited to say more: it is not asked.
    let laptop = cluster.home("laptop");
    let file = laptop.in_cluster("company", "machine.toml");
    let text = std::fs::read_to_string(&file).expect("the laptop has its config");
    std::fs::write(&file, text.replacen("[cluster", "# changed\n[cluster", 1)).expect("writes it");
    let output = laptop.malai(["--json", "web01.company", "true"]);
    output.exits(255).fails_with("config.forged");
}
