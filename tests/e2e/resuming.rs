//! Commands and services over a link that drops.

use std::io::Read;
use std::net::{Shutdown, TcpListener};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use malai_testkit::Cluster;
use sha2::{Digest, Sha256};

use crate::{SOON, net, not_run};

/// Longer than a connection that hears nothing lives, which is 15 s.
fn away() -> Duration {
    Duration::from_secs(if crate::full() { 30 } else { 20 })
}

#[test]
fn a_command_over_a_link_that_drops_ends_with_the_right_bytes_and_status() {
    let net = net();
    let Some((cluster, link)) = Cluster::linked(&net) else {
        return not_run("there is no IPv6 on loopback");
    };
    // Some ten seconds of output, in bursts.
    let (bursts, lines) = (400, 5000);
    let script = format!(
        "echo note >&2; i=0; while [ $i -lt {bursts} ]; do seq $((i * {lines})) $((i * {lines} + {lines} - 1)); \
         i=$((i + 1)); sleep 0.02; done; exit 5"
    );
    let callers = ["laptop", "desk"];
    let running = callers.map(|name| {
        cluster.home(name).command(["web01.company", "sh", "-c", &script]).digest_stdout().spawn()
    });
    running.iter().for_each(|running| running.wait_for_bytes(SOON, 1_000_000));
    link.cut();
    std::thread::sleep(away());
    link.mend();
    let mut expected = Sha256::new();
    for number in 0..bursts * lines {
        expected.update(format!("{number}\n"));
    }
    let expected = data_encoding::HEXLOWER.encode(&expected.finalize());
    for running in running {
        let output = running.wait(SOON * 2 + away()).exits(5);
        assert_eq!(output.stdout_sha256.as_ref(), Some(&expected), "{output:?}");
        assert_eq!(output.stderr_text(), "note\n");
    }
    let log = cluster.home("web01").read("malai.log").expect("the target has a log");
    let resumed = log.matches("a request goes on over another connection").count();
    assert!(resumed >= callers.len(), "their connections were lost:\n{log}");
}

#[test]
fn bytes_through_stdio_over_a_link_that_drops_arrive_exactly_both_ways() {
    let net = net();
    let callers = ["laptop", "desk"];
    let service = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = service.local_addr().expect("an address").port();
    let rule = format!("[machine.web01.tcp.echo]\nport = {port}\nallow_from = \"{}\"\n", callers.join(", "));
    let Some((cluster, link)) = Cluster::linked_with(&net, &rule) else {
        return not_run("there is no IPv6 on loopback");
    };
    // What it hears it says: so much at once, the rest when the link is cut.
    let first = 1_000_000;
    let gate = Arc::new(Barrier::new(callers.len() + 1));
    let inner = Arc::clone(&gate);
    let echo = std::thread::spawn(move || {
        let connections = service.incoming().take(callers.len()).map(|tcp| {
            let (tcp, gate) = (tcp.expect("malai connects"), Arc::clone(&inner));
            std::thread::spawn(move || {
                std::io::copy(&mut (&tcp).take(first), &mut &tcp).expect("passes on");
                gate.wait();
                std::io::copy(&mut &tcp, &mut &tcp).expect("hears of no loss");
                tcp.shutdown(Shutdown::Write).expect("ends");
            })
        });
        connections.collect::<Vec<_>>().into_iter().for_each(|echo| echo.join().expect("hears of no loss"));
    });
    let bytes: Vec<u8> = (0..16_000_000_usize).map(|n| ((n * 31 + n / 1000) % 251) as u8).collect();
    let expected = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
    let running = callers.map(|name| {
        let stdio = cluster.home(name).command(["stdio", "echo.web01.company"]);
        stdio.stdin(bytes.clone()).digest_stdout().spawn()
    });
    running.iter().for_each(|running| running.wait_for_bytes(SOON, first));
    link.cut();
    gate.wait();
    std::thread::sleep(away());
    link.mend();
    for running in running {
        let output = running.wait(SOON * 2 + away()).ok();
        assert_eq!(output.stdout_sha256.as_ref(), Some(&expected), "{output:?}");
    }
    echo.join().expect("hears of no loss");
    let log = cluster.home("web01").read("malai.log").expect("the target has a log");
    let resumed = log.matches("a request goes on over another connection").count();
    assert!(resumed >= callers.len(), "their connections were lost:\n{log}");
}
