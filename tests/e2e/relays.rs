//! Over a real relay of one's own, plain HTTP on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use malai_testkit::{Cluster, TestHome, TestNet, await_until};

use crate::shells::{ask, shell};
use crate::{SOON, net, not_run};

/// How long it may take until a lost connection is noticed, or is there again.
const LOST: Duration = Duration::from_secs(60);

/// A word that only the desk may say.
const DESK_ONLY: &str = "[machine.web01.command.secret]\nallow_from = \"desk\"\ncommand = \"echo told\"\n";

/// A relay that can go and come back.
struct Relay {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    server: Option<Server>,
}

impl Relay {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let mut relay = Self {
            runtime: runtime.expect("starts a runtime"),
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            server: None,
        };
        relay.come();
        relay.address = relay.server.as_ref().and_then(Server::http_addr).expect("listens");
        relay
    }

    fn come(&mut self) {
        let mut config = ServerConfig::default();
        config.relay = Some(RelayConfig::new(self.address));
        let server = self.runtime.block_on(Server::spawn(config));
        self.server = Some(server.expect("starts a relay"));
    }

    fn go(&mut self) {
        let server = self.server.take().expect("runs");
        self.runtime.block_on(server.shutdown()).expect("stops");
    }

    /// A machine, and two that may run anything on it: the laptop has no daemon, the desk has one. All of them know the
    /// relay and nothing else. `apart`: the machine has IPv6 and the others have not, so that there is no direct way.
    fn cluster(&self, net: &TestNet, apart: bool) -> Cluster {
        let rule = "allow_from = \"laptop, desk\"";
        let mut cluster =
            Cluster::with_config(net, &["web01", "laptop", "desk"], &[("web01", rule)], DESK_ONLY);
        for name in ["web01", "laptop", "desk"] {
            let member = cluster.member(name);
            member.stop();
            let bind = if apart && name == "web01" { "[::1]:0" } else { "127.0.0.1:0" };
            let relay = self.address;
            let toml =
                format!("[network]\nbind = \"{bind}\"\nrelays = [\"http://{relay}\"]\ndiscovery = []\n");
            member.home.write("malai.toml", &toml);
            // Where others were seen is another way.
            let _none = std::fs::remove_file(member.home.path().join("peers.json"));
        }
        cluster.member("web01").start();
        cluster.member("desk").start();
        cluster
    }
}

/// What `malai ping` says of the way to web01.
fn is_relayed(home: &TestHome) -> bool {
    let output = home.malai(["--json", "ping", "-c", "1", "web01.company"]).ok();
    let lines: Vec<serde_json::Value> =
        output.text().lines().map(|line| serde_json::from_str(line).expect("is JSON")).collect();
    let reply = lines.iter().find_map(|line| line["relayed"].as_bool());
    reply.unwrap_or_else(|| panic!("{output:?}"))
}

/// What `malai status` says of the way to web01, in words and in JSON.
fn status_is_relayed(home: &TestHome) -> (bool, bool) {
    let shown = home.malai(["status"]).ok();
    let line = shown.text().lines().find(|line| line.contains("web01.company"));
    let words: Vec<&str> = line.unwrap_or_else(|| panic!("{shown:?}")).split_whitespace().collect();
    let (relayed, direct) = (words.contains(&"relayed"), words.contains(&"direct"));
    assert_ne!(relayed, direct, "{shown:?}");
    let told = home.malai(["--json", "status"]).ok().json();
    let mut connections = told["connections"].as_array().expect("is a list").iter();
    let told = connections.find(|connection| connection["name"] == "web01");
    (relayed, told.and_then(|told| told["relayed"].as_bool()).expect("says it"))
}

#[test]
fn commands_and_shells_go_through_a_relay_where_no_direct_way_is_and_outlive_its_restart() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return not_run("there is no IPv6 on loopback");
    }
    let net = net();
    let mut relay = Relay::start();
    let cluster = relay.cluster(&net, true);
    let (laptop, desk) = (cluster.home("laptop"), cluster.home("desk"));
    for home in [laptop, desk] {
        assert_eq!(home.malai(["web01.company", "echo", "over-it"]).ok().text(), "over-it");
        assert!(is_relayed(home));
        let bytes = 3_000_000;
        let script = format!("head -c {bytes} /dev/zero");
        assert_eq!(home.malai(["web01.company", "sh", "-c", &script]).ok().stdout.len(), bytes);
    }
    assert_eq!(status_is_relayed(desk), (true, true));
    assert_eq!(desk.malai(["web01.company", "secret"]).ok().text(), "told");
    laptop.malai(["--json", "web01.company", "secret"]).exits(255).fails_with("acl.denied");
    let both = [shell(laptop), shell(desk)];
    both.iter().for_each(|terminal| ask(terminal, 1));
    relay.go();
    both.iter().for_each(|terminal| terminal.type_text("echo said-$((2+0))\r"));
    for terminal in &both {
        terminal.wait_within(LOST, "word of it", |screen| screen.shows("is lost"));
    }
    relay.come();
    for terminal in &both {
        terminal.wait_within(LOST, "the answer", |screen| screen.shows("said-2") && !screen.shows("is lost"));
        ask(terminal, 3);
    }
}

#[test]
fn a_relay_only_helps_to_find_a_machine_that_can_be_reached_directly() {
    let net = net();
    let relay = Relay::start();
    let cluster = relay.cluster(&net, false);
    for name in ["laptop", "desk"] {
        assert_eq!(cluster.home(name).malai(["web01.company", "echo", "found"]).ok().text(), "found");
    }
    await_until("the direct way", SOON, || !is_relayed(cluster.home("desk")));
    await_until("word of it", SOON, || status_is_relayed(cluster.home("desk")) == (false, false));
}

#[test]
fn two_command_lines_share_no_relay_and_a_daemon_that_starts_takes_over_what_ran_without_it() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return not_run("there is no IPv6 on loopback");
    }
    let net = net();
    let relay = Relay::start();
    let mut cluster = relay.cluster(&net, true);
    let first = shell(cluster.home("laptop"));
    ask(&first, 1);
    // Whoever was first keeps the relay.
    let second =
        cluster.home("laptop").malai(["--connect-timeout", "2s", "web01.company", "true"]).exits(255);
    assert!(second.stderr_text().contains("malai daemon"), "{second:?}");
    ask(&first, 2);
    cluster.member("laptop").start();
    first.type_text("echo said-$((3+0))\r");
    first.wait_within(LOST, "the answer", |screen| screen.shows("said-3") && !screen.shows("is lost"));
    let laptop = cluster.home("laptop");
    assert_eq!(laptop.malai(["web01.company", "echo", "both"]).ok().text(), "both");
    assert!(is_relayed(laptop));
    ask(&first, 4);
}
