//! malai end to end: real processes, real connections on loopback, a home for each device.
//!
//! Each test makes a net of its own. For everything allowed there is something refused, by its code.

mod clusters;
mod commands;
mod configs;
mod crashes;
mod daemons;
mod hostile;
mod invites;
mod refusals;
mod resuming;
mod streams;

use std::time::Duration;

use malai_testkit::{Cluster, TestNet};

/// How long something may take that takes no time on an idle machine.
const SOON: Duration = Duration::from_secs(30);

fn net() -> TestNet {
    TestNet::new(env!("CARGO_BIN_EXE_malai"))
}

/// A cluster where the laptop may run anything on web01.
fn open_cluster(net: &TestNet) -> Cluster {
    Cluster::with_config(net, &["web01", "laptop"], &[("web01", "allow_from = \"laptop\"")], "")
}

/// Sizes are an eighth of what is promised, so that a dev build on two cores gets through; `MALAI_E2E_FULL=1` has them
/// whole.
fn scaled(full: u64) -> u64 {
    if std::env::var_os("MALAI_E2E_FULL").is_some() { full } else { full / 8 }
}
