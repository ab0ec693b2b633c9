//! `peers.json`: where peers were last seen. Hints only: a wrong one costs a failed attempt, a lost file
//! costs a look-up.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use malai_model::id::Id52;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Home, HomeError, WriteGuard};

/// The most peers that are remembered; those not seen for longest are forgotten first.
const MAX_PEERS: usize = 10_000;
/// The most addresses that are remembered of one peer.
const MAX_ADDRESSES: usize = 8;

/// The last known addresses of peers, and the ports that this device's own identities had.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Peers {
    #[serde(default, deserialize_with = "known_entries")]
    peers: BTreeMap<Id52, PeerHint>,
    #[serde(default, deserialize_with = "known_entries")]
    own_ports: BTreeMap<Id52, u16>,
}

/// Where a peer was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHint {
    /// Its addresses, the one that worked last first.
    pub addresses: Vec<SocketAddr>,
    /// When one of them worked.
    pub last_seen: Timestamp,
}

impl Peers {
    /// What is known of a peer.
    pub fn hint(&self, id52: &Id52) -> Option<&PeerHint> {
        self.peers.get(id52)
    }

    /// All peers that are remembered.
    pub fn iter(&self) -> impl Iterator<Item = (&Id52, &PeerHint)> {
        self.peers.iter()
    }

    /// Remembers that a peer was reached; its earlier addresses stay behind the new ones. Returns whether
    /// that changed more than the time.
    pub fn insert(&mut self, id52: Id52, addresses: &[SocketAddr], seen: Timestamp) -> bool {
        let hint = self.peers.entry(id52).or_insert(PeerHint { addresses: Vec::new(), last_seen: seen });
        let before = hint.addresses.clone();
        hint.addresses = unite(addresses, &before);
        hint.last_seen = hint.last_seen.max(seen);
        let changed = hint.addresses != before;
        self.forget_oldest();
        changed
    }

    /// Forgets a peer, here: [`Home::save_peers`] takes back what the file still has of it.
    pub fn remove(&mut self, id52: &Id52) {
        self.peers.remove(id52);
    }

    /// The port that an identity of this device was last bound to: peers try it first, so it is worth having
    /// again.
    pub fn own_port(&self, id52: &Id52) -> Option<u16> {
        self.own_ports.get(id52).copied()
    }

    /// Remembers the port of an identity of this device. Returns whether it is another than before.
    pub fn set_own_port(&mut self, id52: Id52, port: u16) -> bool {
        self.own_ports.insert(id52, port) != Some(port)
    }

    /// Takes what another process learned: what was seen later comes first.
    pub fn merge(&mut self, other: Self) {
        for (id52, theirs) in other.peers {
            let Some(ours) = self.peers.get_mut(&id52) else {
                self.peers.insert(id52, theirs);
                continue;
            };
            let (first, second) = if theirs.last_seen > ours.last_seen {
                (&theirs.addresses, &ours.addresses)
            } else {
                (&ours.addresses, &theirs.addresses)
            };
            ours.addresses = unite(first, second);
            ours.last_seen = ours.last_seen.max(theirs.last_seen);
        }
        for (id52, port) in other.own_ports {
            self.own_ports.entry(id52).or_insert(port);
        }
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        while self.peers.len() > MAX_PEERS {
            let oldest = self.peers.iter().min_by_key(|(_, hint)| hint.last_seen).map(|(id52, _)| *id52);
            let Some(oldest) = oldest else { return };
            self.peers.remove(&oldest);
        }
    }
}

fn unite(first: &[SocketAddr], second: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut united: Vec<SocketAddr> = Vec::new();
    for address in first.iter().chain(second) {
        if united.len() < MAX_ADDRESSES && !united.contains(address) {
            united.push(*address);
        }
    }
    united
}

/// Reads a map and passes over the entries that this version cannot read: a newer version may have written
/// them.
fn known_entries<'de, D, T>(deserializer: D) -> Result<BTreeMap<Id52, T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let raw = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
    let known = |(id52, value): (String, serde_json::Value)| {
        Some((id52.parse().ok()?, serde_json::from_value(value).ok()?))
    };
    Ok(raw.into_iter().filter_map(known).collect())
}

impl Home {
    /// Reads `peers.json`. One that cannot be read is worth a warning and counts as empty.
    pub fn load_peers(&self) -> Peers {
        let path = self.peers_file();
        match self.load_json(&path) {
            Ok(peers) => peers.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the address hints are unreadable: ignored");
                Peers::default()
            }
        }
    }

    /// Writes `peers.json`, with what other processes learned meanwhile; returns the whole.
    ///
    /// # Errors
    /// Those of [`Home::write`].
    pub fn save_peers(&self, guard: &WriteGuard, peers: &Peers) -> Result<Peers, HomeError> {
        let mut whole = peers.clone();
        whole.merge(self.load_peers());
        self.save_json(guard, &self.peers_file(), &whole)?;
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use malai_model::id::SecretKey;

    use super::*;
    use crate::home::Create;

    fn id(n: u8) -> Id52 {
        SecretKey::from_bytes(&[n; 32]).id52()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn the_address_that_worked_last_comes_first_and_the_list_is_bounded() {
        let mut peers = Peers::default();
        for port in 1..20 {
            assert!(peers.insert(id(1), &[address(port)], at(port.into())));
        }
        assert!(!peers.insert(id(1), &[address(19)], at(30)), "nothing new but the time");
        let hint = peers.hint(&id(1)).expect("is known");
        assert_eq!(hint.addresses.len(), MAX_ADDRESSES);
        assert_eq!((hint.addresses[0], hint.last_seen), (address(19), at(30)));
    }

    #[test]
    fn the_number_of_peers_is_bounded_and_the_oldest_goes() {
        let mut peers = Peers::default();
        let hint = |n: usize| PeerHint { addresses: vec![address(1)], last_seen: at(n as i64) };
        for n in 0..MAX_PEERS {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
            peers.peers.insert(SecretKey::from_bytes(&bytes).id52(), hint(n + 1));
        }
        let oldest = *peers.peers.iter().min_by_key(|(_, hint)| hint.last_seen).expect("one").0;
        peers.insert(id(255), &[address(2)], at(1_000_000));
        assert_eq!(peers.peers.len(), MAX_PEERS);
        assert!(peers.hint(&oldest).is_none() && peers.hint(&id(255)).is_some());
    }

    #[tokio::test]
    async fn two_processes_do_not_lose_each_other_s_hints() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("h"), Create::Yes).expect("opens");
        let (mut one, mut two) = (home.load_peers(), home.load_peers());
        one.insert(id(1), &[address(1)], at(1));
        one.set_own_port(id(9), 4242);
        two.insert(id(2), &[address(2)], at(2));
        let guard = home.lock_for_writing().await.expect("the lock");
        home.save_peers(&guard, &one).expect("is saved");
        home.save_peers(&guard, &two).expect("is saved");
        let peers = home.load_peers();
        assert!(peers.hint(&id(1)).is_some() && peers.hint(&id(2)).is_some());
        assert_eq!(peers.own_port(&id(9)), Some(4242));
    }

    #[tokio::test]
    async fn a_broken_file_is_ignored_and_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("h"), Create::Yes).expect("opens");
        std::fs::write(home.peers_file(), b"{ torn").expect("is written");
        let mut peers = home.load_peers();
        assert_eq!(peers, Peers::default());
        peers.insert(id(1), &[address(1)], at(1));
        let guard = home.lock_for_writing().await.expect("the lock");
        home.save_peers(&guard, &peers).expect("is saved");
        assert_eq!(home.load_peers(), peers);
    }

    #[test]
    fn an_entry_that_cannot_be_read_does_not_cost_the_others() {
        let text = format!(
            r#"{{"peers":{{"nobody":{{}},"{}":{{"addresses":["x"],"last_seen":"?"}},
                "{}":{{"addresses":["127.0.0.1:1"],"last_seen":"2026-01-01T00:00:00Z","rtt":3}}}},"new":1}}"#,
            id(1),
            id(2)
        );
        let peers: Peers = serde_json::from_str(&text).expect("reads");
        assert_eq!(peers.iter().map(|(id52, _)| *id52).collect::<Vec<_>>(), [id(2)]);
    }
}
