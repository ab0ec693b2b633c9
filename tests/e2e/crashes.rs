//! `kill -9` at any instant.

use malai_testkit::{Cluster, await_until};

use crate::{SOON, net};

/// A file that was cut off has no signature at its end.
fn is_whole(text: &str) -> bool {
    text.contains("[signature]") && text.ends_with('\n')
}

#[test]
fn killing_daemons_during_distribution_tears_no_file_and_loses_no_config() {
    let net = net();
    let mut cluster =
        Cluster::with_config(&net, &["web01", "laptop"], &[("web01", "allow_from = \"laptop\"")], "");
    for round in 0..12_u64 {
        let command = format!(
            "[machine.web01.command.round-{round}]\nallow_from = \"laptop\"\ncommand = \"echo {round}\"\n"
        );
        cluster.manager().edit_cluster_toml("company", |text| format!("{text}\n{command}"));
        let rescan = cluster.manager().command(["rescan"]).spawn();
        // A different instant each round; no wait for anything is meant.
        std::thread::sleep(std::time::Duration::from_millis(round * 7 % 40));
        let victim = if round % 2 == 0 { cluster.member("web01") } else { &mut cluster.manager };
        victim.daemon.take().expect("runs").kill();
        let _ = rescan.wait(SOON);
        let text = cluster.home("web01").read("clusters/company/machine.toml").expect("web01 has a config");
        assert!(is_whole(&text), "round {round} left a torn file:\n{text}");
        let victim = if round % 2 == 0 { cluster.member("web01") } else { &mut cluster.manager };
        victim.start();
    }
    cluster.rescan();
    cluster.await_distributed();
    let laptop = cluster.home("laptop");
    for round in 0..12 {
        let name = format!("round-{round}");
        assert_eq!(laptop.malai(["web01.company", &name]).ok().text(), round.to_string());
    }
    laptop.malai(["--json", "web01.company", "round-12"]).exits(127);
}

#[test]
fn a_killed_daemon_leaves_a_home_that_starts_again() {
    let net = net();
    let mut cluster =
        Cluster::with_config(&net, &["web01", "laptop"], &[("web01", "allow_from = \"laptop\"")], "");
    for _ in 0..3 {
        cluster.member("web01").daemon.take().expect("runs").kill();
        cluster.member("web01").start();
        await_until("web01 to answer again", SOON, || {
            cluster.home("laptop").malai(["web01.company", "true"]).code == Some(0)
        });
    }
}
