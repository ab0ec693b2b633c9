//! Sessions whose client goes in the instant in which they are opened.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use malai_testkit::{Cluster, Signal, Terminal, TestHome, UdpLink, await_until};

use crate::commands::is_gone;
use crate::shells::sessions;
use crate::{SOON, net, not_run};

/// How long word takes from one device to the other: long enough to act on what only one of them knows.
const LATE: Duration = Duration::from_millis(1500);
/// How long it may take until a machine notices that a client's process is gone that dialled by itself.
const LOST: Duration = Duration::from_secs(60);

/// The laptop dials by itself, the desk goes through its daemon; either far from web01, which gives up soon what it
/// keeps for those that may come back.
fn far_cluster(net: &malai_testkit::TestNet) -> Option<(Cluster, UdpLink)> {
    let (mut cluster, link) = Cluster::linked(net)?;
    cluster.member("web01").stop();
    cluster.home("web01").add_to_malai_toml("[limits]\nresume = \"1s\"");
    cluster.member("web01").start();
    cluster.home("desk").malai(["web01.company", "true"]).ok();
    link.delay(LATE);
    Some((cluster, link))
}

/// Begins to open a session, and returns when its program runs and its client cannot know yet; and the program's id.
fn begin(cluster: &Cluster, home: &TestHome) -> (Terminal, String) {
    let file: PathBuf = cluster.home("web01").path().join(format!("pid-of-{}", home.name()));
    _ = std::fs::remove_file(&file);
    let script = format!("echo $$ > {}; echo it-is-there; exec sleep 1000", file.display());
    let words = ["--connect-timeout", "30s", "-t", "web01.company", "sh", "-c", &script];
    let terminal = home.terminal(words).spawn();
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    await_until("the program", SOON, || read().ends_with('\n'));
    assert!(!terminal.screen().shows("it-is-there"), "{:?}", terminal.screen());
    (terminal, read())
}

#[test]
fn a_session_whose_client_gives_up_while_it_is_opened_ends() {
    let net = net();
    let Some((cluster, link)) = far_cluster(&net) else {
        not_run("there is no IPv6 on loopback");
        return;
    };
    let mut programs = Vec::new();
    for home in [cluster.home("desk"), cluster.home("laptop")] {
        for signal in [Signal::SIGINT, Signal::SIGKILL] {
            let (terminal, program) = begin(&cluster, home);
            terminal.signal(signal);
            programs.push((home.name(), signal, program));
        }
    }
    for (home, signal, program) in programs {
        await_until(&format!("the end after {signal} at {home}"), LOST, || is_gone(&program));
    }
    link.delay(Duration::ZERO);
    for name in ["desk", "laptop"] {
        await_until("that nothing is left", SOON, || sessions(cluster.home(name)).is_empty());
    }
    let left = || std::fs::read_dir(cluster.home("web01").path().join("sessions")).expect("lists").count();
    await_until("that no directory is left", SOON, || left() == 0);
}

#[test]
fn a_session_whose_daemon_is_killed_while_it_is_opened_ends() {
    let net = net();
    let Some((mut cluster, link)) = far_cluster(&net) else {
        not_run("there is no IPv6 on loopback");
        return;
    };
    let (terminal, program) = begin(&cluster, cluster.home("desk"));
    cluster.member("web01").daemon.take().expect("runs").kill();
    terminal.kill();
    await_until("its end", SOON, || is_gone(&program));
    link.delay(Duration::ZERO);
    cluster.member("web01").start();
    await_until("an answer", LOST, || {
        cluster.home("desk").malai(["sessions", "web01.company"]).code == Some(0)
    });
    assert!(sessions(cluster.home("desk")).is_empty());
}

#[test]
fn a_session_that_its_client_has_seen_goes_on_when_that_is_killed() {
    let net = net();
    let Some((cluster, link)) = far_cluster(&net) else {
        not_run("there is no IPv6 on loopback");
        return;
    };
    let (terminal, program) = begin(&cluster, cluster.home("desk"));
    // Nothing is typed: that it was shown is enough, as soon as word of that is there. An answer takes as long.
    terminal.wait_for_text("it-is-there");
    assert_eq!(sessions(cluster.home("desk")).len(), 1);
    terminal.kill();
    link.delay(Duration::ZERO);
    await_until("that it is alone", SOON, || {
        sessions(cluster.home("desk")).iter().any(|session| session["attached"] == false)
    });
    // Longer than web01's `resume`, after which one that is unclaimed goes: asked all the while.
    let over = Instant::now() + Duration::from_secs(2);
    await_until("two seconds more of it", SOON, || {
        assert!(!is_gone(&program));
        assert_eq!(sessions(cluster.home("desk")).len(), 1);
        Instant::now() > over
    });
}
