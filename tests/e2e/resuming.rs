//! Commands over a link that drops.

use std::time::Duration;

use malai_testkit::Cluster;
use sha2::{Digest, Sha256};

use crate::{SOON, net};

/// Longer than a connection that hears nothing lives, which is 15 s.
fn away() -> Duration {
    Duration::from_secs(if std::env::var_os("MALAI_E2E_FULL").is_some() { 30 } else { 20 })
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
fn a_command_over_a_link_that_drops_ends_with_the_right_bytes_and_status() {
    let net = net();
    let Some((cluster, link)) = Cluster::linked(&net) else {
        eprintln!("not run: there is no IPv6 on loopback");
        return;
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
