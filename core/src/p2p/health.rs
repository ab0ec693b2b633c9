//! Whether a connection that was idle still lives.
//!
//! A process that was killed says nothing, and neither does a way that vanished: the transport notices after its idle
//! time, 15 s, and until then what is sent waits in vain. So whoever takes up a connection that was not heard of just
//! now asks first, and does not wait long for the answer.
//!
//! Over a long round trip (10 ms) that costs too much for every call: there a connection is taken to live for 8 s after
//! the last sign of life, as long as the transport keeps to the way on which it came.
//!
//! Whoever gets one unasked sends something at once, so it is *watched* instead, near or far: if nothing comes back in
//! little more than a round trip it is asked beside, then another one is made, and if that succeeds and the old one is
//! still silent, it is given up: what was sent on it fails, or goes on over the other, after a second or some ten round
//! trips instead of the transport's idle time.

use std::time::Duration;

use malai_model::wire::{Notice, Request};
use tokio::time::Instant;

use super::connection::Connection;
use super::error::P2pError;
use crate::timeouts;

/// For so long, or for three round trips if that is longer, a connection that was heard of is taken to live: commands
/// one after the other are spared the question, and in less time nobody starts a daemon anew.
const TRUSTED: Duration = Duration::from_millis(20);
/// From this round trip on the question costs what somebody who types feels: then a connection is taken to live as long
/// as it may have been silent while it does, which is the time between two signs of life and between two looks.
const FAR: Duration = Duration::from_millis(10);
const TRUSTED_FAR: Duration =
    timeouts::KEEP_ALIVE.saturating_add(LOOK_EVERY).saturating_add(Duration::from_secs(1));
/// How often connections that are kept are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How much longer than one and a half round trips whoever was sent something may take to say that it came.
const ANSWER: Duration = Duration::from_millis(100);
/// The least and the most time to answer before another connection is tried beside.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What is known of a connection's life.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When it certainly lived.
    heard: Option<Instant>,
    /// What had come when somebody last looked, and when that was.
    received: u64,
    looked: Instant,
    /// The way on which it was heard: what went over to another one has yet to show that this carries anything.
    way: String,
}

impl Pulse {
    /// Of a connection that was just made.
    pub(super) fn of(connection: &Connection) -> Self {
        let now = Instant::now();
        Self {
            heard: Some(now),
            received: connection.received(),
            looked: now,
            way: connection.path().address,
        }
    }

    /// Whether it was heard of just now.
    pub(super) fn is_fresh(&mut self, connection: &Connection) -> bool {
        self.look(connection);
        if connection.path().address != self.way {
            return false;
        }
        let rtt = connection.rtt();
        let trusted = if rtt < FAR { TRUSTED.max(rtt * 3) } else { TRUSTED_FAR.max(rtt * 3) };
        self.heard.is_some_and(|heard| heard.elapsed() <= trusted)
    }

    #[cfg(test)]
    pub(super) fn pretend_way(&mut self, way: &str) {
        way.clone_into(&mut self.way);
    }

    /// Notes whether something has come.
    pub(super) fn look(&mut self, connection: &Connection) {
        let (now, received) = (Instant::now(), connection.received());
        // What came since somebody looked came after that.
        if received > self.received {
            self.heard = self.heard.max(Some(self.looked));
        }
        (self.received, self.looked) = (received, now);
    }

    /// Whoever takes the connection up next asks first.
    pub(super) fn doubt(&mut self) {
        self.heard = None;
    }
}

impl Connection {
    /// Waits a little more than a round trip, and says whether anything came back of what is sent on it now. `false` says
    /// little: perhaps nothing was sent.
    pub(super) async fn is_heard(&self) -> bool {
        let rtt = self.rtt();
        // What is under way already says nothing of the peer's life now. On a short way it is here before a timer is.
        let under_way = if rtt < FAR { Duration::ZERO } else { rtt * 3 / 4 };
        if !under_way.is_zero() {
            tokio::time::sleep(under_way).await;
        }
        let before = self.received();
        tokio::time::sleep(ANSWER.saturating_add(rtt * 3 / 2).saturating_sub(under_way)).await;
        self.received() > before
    }

    /// How long an answer may take before it is worth to try something else.
    pub(super) fn patience(&self) -> Duration {
        (self.rtt() * 4 + Duration::from_millis(50)).clamp(PATIENCE.0, PATIENCE.1)
    }

    /// Asks the peer whether it is there and waits for any answer; `false` if the connection is over instead.
    pub(super) async fn answers(&self) -> bool {
        let asked = async {
            let mut stream = self.open_stream().await?;
            stream.sender.send_message(&Request::Ping {}).await?;
            stream.receiver.message::<Notice>().await
        };
        match asked.await {
            // To be turned away is an answer, too.
            Ok(_) | Err(P2pError::StreamReset { .. } | P2pError::Malformed { .. }) => true,
            Err(error) => {
                tracing::debug!(peer = %self.peer(), %error, "an idle connection is over");
                false
            }
        }
    }
}
