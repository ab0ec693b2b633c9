//! Files that are not as they should be.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use malai_testkit::{Cluster, TestHome};

use crate::{net, open_cluster};

#[test]
fn a_key_that_others_may_read_is_refused_with_the_command_that_mends_it() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("laptop").stop();
    let laptop = cluster.home("laptop");
    let key = laptop.in_cluster("company", "machine.private-key");
    for mode in [0o644, 0o640, 0o604] {
        std::fs::set_permissions(&key, Permissions::from_mode(mode)).expect("sets the mode");
        let output = laptop.malai(["web01.company", "true"]).exits(255);
        assert!(
            output.stderr_text().contains("chmod 600") || output.stderr_text().contains("chmod 0600"),
            "{output:?}"
        );
        laptop.malai(["--json", "web01.company", "true"]).fails_with("home.loose_permissions");
        laptop.malai(["--json", "daemon", "--foreground"]).exits(1).fails_with("home.loose_permissions");
    }
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("sets the mode");
    laptop.malai(["web01.company", "true"]).ok();
}

#[test]
fn every_file_and_folder_of_a_home_is_its_users_alone() {
    fn check(path: &std::path::Path) {
        use std::os::unix::fs::MetadataExt;
        for entry in std::fs::read_dir(path).expect("reads a folder").filter_map(Result::ok) {
            let metadata = entry.metadata().expect("reads its metadata");
            let (mode, expected) = (metadata.mode() & 0o777, if metadata.is_dir() { 0o700 } else { 0o600 });
            assert_eq!(mode, expected, "{}: {mode:o}", entry.path().display());
            if metadata.is_dir() {
                check(&entry.path());
            }
        }
    }
    let net = net();
    let cluster = open_cluster(&net);
    check(cluster.manager().path());
    check(cluster.home("web01").path());
}

#[test]
fn two_roles_in_one_cluster_stop_the_daemon() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("web01").stop();
    let web01 = cluster.home("web01");
    web01.write("clusters/company/cluster.toml", &cluster.manager().cluster_toml("company"));
    let output = web01.malai(["daemon", "--foreground"]).exits(1);
    let stderr = output.stderr_text();
    assert!(stderr.contains("cluster.toml") && stderr.contains("machine.toml"), "{stderr}");
    web01.malai(["--json", "daemon"]).exits(1).fails_with("config.two_roles");
    web01.malai(["status"]).exits(1);
}

const BROKEN: &str = "\n[machine.web01.command.restart]\ncommand = sudo systemctl restart nginx\n";

#[test]
fn a_broken_config_starts_no_daemon_and_says_where_it_is_broken() {
    let net = net();
    let home = TestHome::new(&net, "manager");
    home.malai(["cluster", "init", "company"]).ok();
    let good = home.cluster_toml("company");
    home.edit_cluster_toml("company", |text| format!("{text}{BROKEN}"));
    let line = good.lines().count() + 3;
    for words in [&["daemon", "--foreground"][..], &["daemon"]] {
        let output = home.malai(words).exits(1);
        let stderr = output.stderr_text();
        assert!(stderr.contains(&format!("cluster.toml:{line}:")), "{stderr}");
        assert!(stderr.contains("sudo systemctl"), "the line is shown: {stderr}");
    }
    home.malai(["status"]).exits(1);
}

#[test]
fn all_errors_of_a_config_are_told_at_once() {
    let net = net();
    let home = TestHome::new(&net, "manager");
    home.malai(["cluster", "init", "company"]).ok();
    let wrong = "\n[group.a]\nmembers = \"b\"\n\n[group.b]\nmembers = \"a\"\n\n[service.x]\nmachine = \"nobody\"\n\
                 protocol = \"htpp\"\nport = 99999\n";
    home.edit_cluster_toml("company", |text| format!("{text}{wrong}"));
    let output = home.malai(["rescan", "--check"]).exits(1);
    let stderr = output.stderr_text();
    for word in ["nobody", "htpp", "99999"] {
        assert!(stderr.contains(word), "{word} is told: {stderr}");
    }
    home.malai(["--json", "rescan", "--check"]).fails_with("config.invalid");
}

#[test]
fn a_broken_config_at_rescan_leaves_the_running_one_alone() {
    let net = net();
    let cluster = open_cluster(&net);
    let before = cluster.home("web01").read("clusters/company/machine.toml");
    cluster.manager().edit_cluster_toml("company", |text| {
        format!("{}{BROKEN}", text.replace("allow_from = \"laptop\"", "allow_from = \"nobody-there\""))
    });
    for words in [&["rescan"][..], &["rescan", "--check"]] {
        cluster.manager().malai(words).exits(1);
    }
    assert_eq!(cluster.home("web01").read("clusters/company/machine.toml"), before);
    cluster.home("laptop").malai(["web01.company", "true"]).ok();
    // The manager's daemon is alive and takes the mended file.
    cluster.manager().edit_cluster_toml("company", |text| {
        text.replace(BROKEN, "").replace("allow_from = \"nobody-there\"", "allow_from = \"laptop\"")
    });
    cluster.manager().malai(["rescan"]).ok();
}

#[test]
fn a_check_applies_nothing() {
    let net = net();
    let cluster = Cluster::new(&net, &["web01", "laptop"]);
    cluster.manager().add_to_machine("company", "web01", "allow_from = \"laptop\"");
    cluster.manager().malai(["rescan", "--check"]).ok();
    cluster.home("laptop").malai(["web01.company", "true"]).exits(255);
}

#[test]
fn a_config_file_that_was_tampered_with_is_not_used() {
    let net = net();
    let mut cluster = Cluster::new(&net, &["web01", "laptop"]);
    cluster.member("web01").stop();
    cluster.manager.stop();
    let web01 = cluster.home("web01");
    let file = web01.in_cluster("company", "machine.toml");
    let text = std::fs::read_to_string(&file).expect("web01 has its config");
    let grant = format!("[machine.web01]\nallow_from = [\"{}\"]\n", cluster.id52("laptop"));
    let changed = text.replacen("[machine.web01]\n", &grant, 1);
    assert_ne!(changed, text, "the file has its own section:\n{text}");
    std::fs::write(&file, changed).expect("writes it");
    let output = web01.malai(["--json", "daemon", "--foreground"]);
    output.exits(1).fails_with("config.forged");
}
