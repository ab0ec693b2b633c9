//! A machine far away whose daemon was killed a moment ago: connections to it look alive.

use std::time::{Duration, Instant};

use malai_testkit::Cluster;

use crate::{net, not_run};

/// One way: from 10 ms for a round trip on, a connection is not asked before it is used.
const WAY: Duration = Duration::from_millis(20);
/// What nobody waits for: the transport's idle time is 15 s.
const LIMIT: Duration = Duration::from_secs(8);

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    assert!(begun.elapsed() < LIMIT, "{what} took {:?}", begun.elapsed());
    done
}

#[test]
fn what_is_asked_of_a_machine_that_was_just_restarted_is_answered_soon() {
    let net = net();
    let Some((mut cluster, link)) = Cluster::linked(&net) else {
        not_run("there is no IPv6 on loopback");
        return;
    };
    link.delay(WAY);
    let ran = net.path().join("ran");
    let script = "echo it-runs; exec sleep 1000";
    let session = cluster.home("desk").malai(["--detach", "web01.company", "sh", "-c", script]).ok();
    let session = session.text().trim().to_owned();
    let restart = |cluster: &mut Cluster| {
        cluster.home("desk").malai(["web01.company", "true"]).ok();
        let web01 = cluster.member("web01");
        web01.daemon.take().expect("runs").kill();
        web01.start();
    };

    restart(&mut cluster);
    let listed = timed("the list", || cluster.home("desk").malai(["sessions", "web01.company"]).ok());
    assert!(listed.text().contains(&session), "{listed:?}");

    restart(&mut cluster);
    timed("attaching", || {
        let mut watcher =
            cluster.home("desk").terminal(["shell", "web01.company", "--watch", &session]).spawn();
        watcher.wait_for_line("it-runs");
        watcher.type_text("\x03");
        assert_eq!(watcher.wait(), 0);
    });

    restart(&mut cluster);
    timed("a shell", || {
        let terminal = cluster.home("desk").terminal(["web01.company"]).spawn();
        terminal.type_text("echo said-$((1+0))\r");
        terminal.wait_for_line("said-1");
        terminal.kill();
    });

    restart(&mut cluster);
    let once = format!("echo once >> {}", ran.display());
    let output =
        timed("a command", || cluster.home("desk").malai(["--json", "web01.company", "sh", "-c", &once]));
    let times = std::fs::read_to_string(&ran).unwrap_or_default().matches("once").count();
    match output.code {
        Some(0) => assert_eq!(times, 1),
        _ => {
            assert_eq!(times, 0, "{output:?}");
            output.exits(255).fails_with("p2p.lost");
        }
    }
    timed("the next command", || cluster.home("desk").malai(["web01.company", "true"]).ok());
}

#[test]
fn a_call_without_a_daemon_costs_two_round_trips() {
    let net = net();
    let Some((cluster, link)) = Cluster::linked(&net) else {
        not_run("there is no IPv6 on loopback");
        return;
    };
    // So long that a slow machine does not matter: the handshake, the request with its answer, and nothing for the end.
    let way = Duration::from_millis(500);
    link.delay(way);
    let output = cluster.home("laptop").malai(["web01.company", "echo", "said"]).ok();
    assert_eq!(output.text(), "said");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(output.elapsed > way * 4 && output.elapsed < way * 11 / 2, "{:?}", output.elapsed);
}
