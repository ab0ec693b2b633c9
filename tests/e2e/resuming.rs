//! Commands over a link that drops.

use std::net::UdpSocket;
use std::time::Duration;

use malai_testkit::{Cluster, TestNet, UdpLink};
use sha2::{Digest, Sha256};

use crate::{SOON, net, open_cluster};

/// Longer than a connection that hears nothing lives, which is 15 s.
fn away() -> Duration {
    Duration::from_secs(if std::env::var_os("MALAI_E2E_FULL").is_some() { 30 } else { 20 })
}

/// A cluster in which the laptop reaches web01 through a link and in no other way. `None` where there is no IPv6.
pub(crate) fn linked_cluster(net: &TestNet) -> Option<(Cluster, UdpLink)> {
    let port = UdpSocket::bind("[::1]:0").ok()?.local_addr().ok()?.port();
    let link = UdpLink::between_families(port)?;
    let mut cluster = open_cluster(net);
    let hint = format!("addresses = [\"{}\"]", link.address());
    cluster.manager().add_to_machine(&cluster.alias, "web01", &hint);
    cluster.rescan();
    cluster.await_distributed();
    for (name, bind) in [("web01", format!("[::1]:{port}")), ("laptop", "127.0.0.1:0".to_owned())] {
        let member = cluster.member(name);
        member.stop();
        let toml = format!("[network]\nbind = \"{bind}\"\nrelays = \"none\"\ndiscovery = []\n");
        member.home.write("malai.toml", &toml);
        // Where others were seen is another way.
        let _none = std::fs::remove_file(member.home.path().join("peers.json"));
    }
    cluster.member("web01").start();
    Some((cluster, link))
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
fn a_command_over_a_link_that_drops_ends_with_the_right_bytes_and_status() {
    let net = net();
    let Some((cluster, link)) = linked_cluster(&net) else {
        eprintln!("not run: there is no IPv6 on loopback");
        return;
    };
    // Some ten seconds of output, in bursts.
    let (bursts, lines) = (400, 5000);
    let script = format!(
        "echo note >&2; i=0; while [ $i -lt {bursts} ]; do seq $((i * {lines})) $((i * {lines} + {lines} - 1)); \
         i=$((i + 1)); sleep 0.02; done; exit 5"
    );
    let laptop = cluster.home("laptop");
    let running = laptop.command(["web01.company", "sh", "-c", &script]).digest_stdout().spawn();
    running.wait_for_bytes(SOON, 1_000_000);
    link.cut();
    std::thread::sleep(away());
    link.mend();
    let output = running.wait(SOON + away()).exits(5);
    let mut expected = Sha256::new();
    for number in 0..bursts * lines {
        expected.update(format!("{number}\n"));
    }
    assert_eq!(output.stdout_sha256, Some(data_encoding::HEXLOWER.encode(&expected.finalize())));
    assert_eq!(output.stderr_text(), "note\n");
    let log = cluster.home("web01").read("malai.log").expect("the target has a log");
    assert!(log.contains("goes on over another connection"), "the connection was lost:\n{log}");
}
