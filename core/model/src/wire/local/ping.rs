//! What a machine answered to a ping.

use serde::{Deserialize, Serialize};

use crate::id::Id52;
use crate::name::{ClusterAlias, MachineName};

/// A machine that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingView {
    /// In which cluster.
    pub cluster: ClusterAlias,
    /// Its name there, if it is known by one.
    pub machine: Option<MachineName>,
    /// Its identity.
    pub id52: Id52,
    /// Whether it is this device: then nothing went over a network.
    pub local: bool,
    /// The round trip of a request over the connection, in microseconds.
    pub rtt_us: u64,
    /// How long connecting took, in microseconds; next to nothing if there was a connection.
    pub connect_us: u64,
    /// Where it is, `ip:port` or the relay's URL. Empty for this device.
    pub address: String,
    /// Whether the traffic goes through a relay.
    pub relayed: bool,
    /// The version of malai that answered. From a peer: show it escaped.
    pub version: String,
}
