//! malai end to end: real processes, real connections on loopback, a home for each device.
//!
//! Each test makes a net of its own. For everything allowed there is something refused, by its code.

mod audit;
mod clusters;
mod comfort;
mod commands;
mod configs;
mod copies;
mod copy_streams;
mod crashes;
mod daemons;
mod databases;
mod drains;
mod far;
mod hostile;
mod invites;
mod many;
mod openings;
mod refusals;
mod relays;
mod resuming;
mod session_processes;
mod sessions;
mod shells;
mod socket;
mod streams;
mod users;

use std::time::Duration;

use malai_testkit::{Cluster, TestNet, not_run};

/// How long something may take that takes no time on an idle machine.
const SOON: Duration = Duration::from_secs(30);

fn net() -> TestNet {
    TestNet::new(env!("CARGO_BIN_EXE_malai"))
}

/// A cluster where the laptop may run anything on web01.
fn open_cluster(net: &TestNet) -> Cluster {
    Cluster::with_config(net, &["web01", "laptop"], &[("web01", "allow_from = \"laptop\"")], "")
}

/// Whether sizes and pauses have their full length.
fn full() -> bool {
    std::env::var_os("MALAI_E2E_FULL").is_some()
}

/// Sizes are an eighth of what is promised, so that a dev build on two cores gets through; `MALAI_E2E_FULL=1` has them
/// whole.
fn scaled(full: u64) -> u64 {
    if self::full() { full } else { full / 8 }
}

/// How a command reaches its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Over a connection of the daemon of this device.
    ThroughDaemon,
    /// Over one that the command line makes.
    Direct,
}

impl Way {
    /// Fails unless commands of a home go that way.
    #[track_caller]
    fn assert(self, home: &malai_testkit::TestHome) {
        let output = home.malai(["-v", "web01.company", "true"]).ok();
        let told = output.stderr_text();
        let ways = [told.contains("through the daemon"), told.contains("dialled directly")];
        assert_eq!(ways, [self == Self::ThroughDaemon, self == Self::Direct], "{told}");
    }
}

/// Tests twice what the laptop does with web01: through its daemon, and without one.
fn each_way(test: impl Fn(&Cluster)) {
    let net = net();
    let mut cluster = open_cluster(&net);
    Way::ThroughDaemon.assert(cluster.home("laptop"));
    test(&cluster);
    cluster.member("laptop").stop();
    Way::Direct.assert(cluster.home("laptop"));
    test(&cluster);
}
