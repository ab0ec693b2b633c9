//! Where a peer may be: hints, and the other processes of this user.
//!
//! What this finds are addresses to try, never trusted: the handshake decides who answers. mDNS, DNS and
//! relays are look-ups of the QUIC endpoint's own.

mod rendezvous;

use std::net::SocketAddr;
use std::time::Duration;

use malai_model::id::Id52;

pub(super) use rendezvous::{Rendezvous, Ticket};

/// Addresses to try, and in words where they came from.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) relays: Vec<iroh::RelayUrl>,
    /// What a report of failure lists.
    pub(super) tried: Vec<String>,
}

impl Candidates {
    fn add(&mut self, address: SocketAddr, source: &str) {
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
            self.tried.push(format!("{address} ({source})"));
        }
    }

    /// Adds relays that a peer may be at.
    pub(super) fn add_relays(&mut self, urls: &[String]) {
        urls.iter().for_each(|url| self.add_relay(url));
    }

    fn add_relay(&mut self, text: &str) {
        match text.parse() {
            Ok(url) if self.relays.contains(&url) => {}
            Ok(url) => {
                self.relays.push(url);
                self.tried.push(format!("relay {text}"));
            }
            Err(_) => self.tried.push(format!("{text} (no URL)")),
        }
    }

    /// Collects what is known of a peer, within a deadline for names that must be resolved.
    pub(super) async fn collect(
        peer: &Id52,
        hints: &[String],
        rendezvous: Option<&Rendezvous>,
        deadline: Duration,
    ) -> Self {
        let mut found = Self::default();
        if let Some(rendezvous) = rendezvous {
            match rendezvous.look_up(peer) {
                Ok(addresses) => addresses.into_iter().for_each(|address| found.add(address, "this machine")),
                Err(error) => found.tried.push(format!("this machine's runtime directory: {error}")),
            }
        }
        for hint in hints {
            if let Ok(address) = hint.parse() {
                found.add(address, "hint");
            } else if hint.contains("://") {
                found.add_relay(hint);
            } else {
                // Without other candidates the name is worth the whole wait; else it may not hold them up.
                let patience = if found.addresses.is_empty() { deadline / 2 } else { deadline / 8 };
                match tokio::time::timeout(patience, tokio::net::lookup_host(hint)).await {
                    Ok(Ok(addresses)) => {
                        for address in addresses {
                            found.add(address, hint);
                        }
                    }
                    Ok(Err(error)) => found.tried.push(format!("{hint} ({error})")),
                    Err(_) => found.tried.push(format!("{hint} (its name did not resolve in time)")),
                }
            }
        }
        found
    }
}
