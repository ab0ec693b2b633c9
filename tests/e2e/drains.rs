//! Daemons that end, asked to or killed, while shells are attached.

use std::time::{Duration, Instant};

use malai_testkit::{Signal, await_until};

use crate::shells::{ask, sessions, shell};
use crate::{SOON, Way, net, open_cluster};

#[test]
fn an_attached_shell_is_served_while_a_command_holds_the_drain_and_comes_back_after_it() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let mut terminal = shell(cluster.home("laptop"));
    ask(&terminal, 1);
    let gate = net.path().join("gate");
    let script = format!("echo running; while [ ! -e {} ]; do sleep 0.05; done; echo done", gate.display());
    let running = cluster.home("laptop").command(["web01.company", "sh", "-c", &script]).spawn();
    running.wait_for_line(SOON, |line| line == "running");
    let daemon = cluster.member("web01").daemon.take().expect("runs");
    daemon.signal(Signal::SIGTERM);
    let fresh = ["--connect-timeout", "1s", "web01.company", "true"];
    await_until("the refusal of new commands", SOON, || {
        cluster.home("laptop").malai(fresh).code == Some(255)
    });
    cluster.home("laptop").malai(["--json", "-t", "web01.company", "true"]).exits(255);
    ask(&terminal, 2);
    // Also over another stream, as after a lost connection.
    terminal.type_text("~r");
    ask(&terminal, 3);
    assert!(!terminal.screen().shows("is lost"), "{:?}", terminal.screen());
    std::fs::write(&gate, "").expect("opens the gate");
    assert!(running.wait(SOON).ok().text().ends_with("done"));
    daemon.wait(SOON).ok();
    terminal.wait_for("word of it", |screen| screen.shows("is lost"));
    cluster.member("web01").start();
    ask(&terminal, 4);
    terminal.type_text("exit 6\r");
    assert_eq!(terminal.wait(), 6);
}

#[test]
fn no_daemon_takes_longer_to_end_for_an_attached_shell() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let mut terminal = shell(cluster.home("laptop"));
    for (number, name) in [(1, "web01"), (3, "laptop")] {
        ask(&terminal, number);
        let daemon = cluster.member(name).daemon.take().expect("runs");
        let begun = Instant::now();
        daemon.stop();
        // The drain alone would take 30 s.
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {:?}", begun.elapsed());
        cluster.member(name).start();
        ask(&terminal, number + 1);
    }
    terminal.type_text("exit 6\r");
    assert_eq!(terminal.wait(), 6);
}

#[test]
fn an_attached_shell_goes_on_when_the_daemon_of_its_own_device_is_killed() {
    let net = net();
    let mut cluster = open_cluster(&net);
    Way::ThroughDaemon.assert(cluster.home("laptop"));
    let mut terminal = shell(cluster.home("laptop"));
    terminal.type_text("mine=kept\r");
    ask(&terminal, 1);
    for round in 2..4 {
        cluster.member("laptop").daemon.take().expect("runs").kill();
        terminal.type_text(format!("echo $mine-$(({round}+0))\r"));
        cluster.member("laptop").start();
        let screen =
            terminal.wait_within(SOON * 2, "the answer, and no word of a lost connection", |screen| {
                screen.shows(&format!("kept-{round}")) && !screen.shows("is lost")
            });
        assert_eq!(screen.text().matches(&format!("kept-{round}")).count(), 1, "{screen:?}");
    }
    assert_eq!(sessions(cluster.home("laptop")).len(), 1);
    terminal.type_text("exit 8\r");
    assert_eq!(terminal.wait(), 8);
}
