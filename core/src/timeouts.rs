//! Every wait of the network layer, in one place.

use std::time::Duration;

/// How long reaching a peer may take before it is reported as unreachable.
pub const CONNECT: Duration = Duration::from_secs(5);
/// How long a peer may take to finish a handshake or send the first message of a stream.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a peer may take to answer a short request.
pub const REPLY: Duration = Duration::from_secs(10);
/// How long a machine may take to start a command: it may have to ask a directory for the user, or wait for a home that
/// is elsewhere.
pub const START: Duration = Duration::from_secs(30);
/// How long a peer has to hear a last word before its connection is closed: that it lost its rights, or that what runs over
/// it goes on elsewhere.
pub const LAST_WORD: Duration = Duration::from_secs(1);
/// How long closing an endpoint may take.
pub const CLOSE: Duration = Duration::from_secs(2);
/// How long closing an endpoint may take that serves nobody and was answered all that it asked: word that it goes is on its way by then. Whether that arrives
/// is no reason to wait a round trip at the end of every command.
pub const PARTING: Duration = Duration::from_millis(20);
/// How long a process group has between SIGHUP and SIGKILL.
pub const HANGUP_GRACE: Duration = Duration::from_secs(5);
/// How long a service may take to accept a connection on the machine that hosts it.
pub const SERVICE_CONNECT: Duration = Duration::from_secs(5);
/// How often an idle connection shows that it lives.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// After how long a connection on which nothing is heard is given up: what runs over it then goes on over another one,
/// sooner than a transport that has waited for so long would notice that the way is open again.
pub const IDLE: Duration = Duration::from_secs(15);
/// How long a pooled connection that nobody uses is kept.
pub const POOL_IDLE: Duration = Duration::from_secs(300);
