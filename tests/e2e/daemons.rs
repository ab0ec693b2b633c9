//! The background process itself.

use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;

use malai_testkit::{Cluster, TestHome, await_until};

use crate::{SOON, net, open_cluster};

#[test]
fn a_second_daemon_is_refused_and_told_the_firsts_pid() {
    let net = net();
    let cluster = Cluster::new(&net, &["web01"]);
    let first = cluster.machines[0].daemon.as_ref().expect("runs").pid().to_string();
    for words in [&["daemon", "--foreground"][..], &["daemon"]] {
        let output = cluster.home("web01").malai(words).exits(1);
        assert!(output.stderr_text().contains(&first), "{output:?}");
    }
    cluster.home("web01").malai(["--json", "daemon", "--foreground"]).fails_with("daemon.running");
    cluster.home("web01").malai(["status"]).ok();
}

#[test]
fn the_daemon_says_when_it_is_ready_and_nothing_on_stdout() {
    let net = net();
    let cluster = Cluster::new(&net, &[]);
    let home = TestHome::new(&net, "web01");
    cluster.join(&home, &cluster.invite(&[]));
    let path = net.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("binds the socket of a service manager");
    socket.set_read_timeout(Some(SOON)).expect("sets a deadline");
    let running = home.command(["daemon", "--foreground"]).env("NOTIFY_SOCKET", &path).spawn();
    let mut message = [0; 512];
    let count = socket.recv(&mut message).expect("the daemon says something");
    let text = String::from_utf8_lossy(&message[..count]);
    assert!(text.lines().any(|line| line == "READY=1"), "{text}");
    home.malai(["status"]).ok();
    running.signal(malai_testkit::Signal::SIGTERM);
    let output = running.wait(SOON).ok();
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn the_daemon_detaches_once_everything_is_loaded_and_e_prints_exports() {
    let net = net();
    let home = TestHome::new(&net, "manager");
    home.malai(["cluster", "init", "company"]).ok();
    let output = home.malai(["daemon", "-e"]).ok();
    let lines: Vec<&str> = output.text().lines().collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line.starts_with("export ")), "{output:?}");
    home.malai(["status", "--json"]).ok().json();
    // Again: it runs already, and says the same.
    assert_eq!(home.malai(["daemon", "-e"]).ok().stdout, output.stdout);
}

#[test]
fn a_stopping_daemon_lets_running_commands_finish() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let gate = net.path().join("gate");
    let script = format!("echo running; while [ ! -e {} ]; do sleep 0.05; done; echo done", gate.display());
    let running = cluster.home("laptop").command(["web01.company", "sh", "-c", &script]).spawn();
    running.wait_for_line(SOON, |line| line == "running");
    let daemon = cluster.member("web01").daemon.take().expect("runs");
    daemon.signal(malai_testkit::Signal::SIGTERM);
    // It takes nothing new meanwhile.
    await_until("the refusal of new commands", SOON, || {
        cluster.home("laptop").malai(["--connect-timeout", "1s", "web01.company", "true"]).code == Some(255)
    });
    std::fs::write(&gate, "").expect("opens the gate");
    assert!(running.wait(SOON).ok().text().ends_with("done"));
    daemon.wait(SOON).ok();
}

#[test]
fn a_second_signal_ends_the_drain() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let running = cluster
        .home("laptop")
        .command(["web01.company", "sh", "-c", "echo running; exec sleep 1000"])
        .spawn();
    running.wait_for_line(SOON, |line| line == "running");
    let daemon = cluster.member("web01").daemon.take().expect("runs");
    daemon.signal(malai_testkit::Signal::SIGTERM);
    await_until("the refusal of new commands", SOON, || {
        cluster.home("laptop").malai(["--connect-timeout", "1s", "web01.company", "true"]).code == Some(255)
    });
    daemon.signal(malai_testkit::Signal::SIGTERM);
    // The drain alone would take 30 s.
    daemon.wait(std::time::Duration::from_secs(20)).ok();
    running.wait(SOON).exits(255);
}

#[test]
fn info_and_status_are_json_when_asked() {
    let net = net();
    let cluster = open_cluster(&net);
    for home in [cluster.manager(), cluster.home("web01")] {
        assert!(home.malai(["info"]).ok().text().contains("company"));
        for words in [["info", "--json"], ["status", "--json"]] {
            assert!(home.malai(words).ok().json().is_object());
        }
    }
}

#[test]
fn what_needs_a_daemon_says_so_without_one() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("laptop").stop();
    let laptop = cluster.home("laptop");
    laptop.malai(["--json", "status"]).exits(1).fails_with("daemon.absent");
    // A command needs none.
    laptop.malai(["web01.company", "true"]).ok();
}

#[test]
fn a_daemon_whose_home_was_replaced_leaves_the_socket_of_the_one_that_is_there_now() {
    let net = net();
    let home = TestHome::new(&net, "laptop");
    let old = home.start_daemon();
    let aside = net.path().join("aside");
    std::fs::rename(home.path(), &aside).expect("puts the home aside");
    std::fs::DirBuilder::new().mode(0o700).create(home.path()).expect("makes another one");
    std::fs::copy(aside.join("malai.toml"), home.path().join("malai.toml")).expect("copies");
    let new = home.start_daemon();
    let socket = home.path().join("malai.sock");
    old.stop();
    assert!(socket.exists());
    home.malai(["status"]).ok();
    new.stop();
    assert!(!socket.exists());
}
