//! Denials of one peer within a second are one record and a count: nobody fills the log by being refused.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::event::{AuditEvent, AuditRecord, By, Wanted};
use crate::id::Id52;
use crate::name::ClusterAlias;

/// For how long denials are counted before the count is recorded.
const WINDOW: Duration = Duration::from_secs(1);
/// For how long they are at most: the longer somebody goes on the longer it is, or who may do nothing could have the
/// older records rotated away.
const LONGEST_WINDOW: Duration = Duration::from_secs(60);
/// How many words of what was asked for are kept.
const WORDS: usize = 8;
/// How many peers are told apart at once; the others of a cluster share one count.
const PEERS: usize = 1024;

/// One denial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// When.
    pub time: Timestamp,
    /// In which cluster.
    pub cluster: ClusterAlias,
    /// Who.
    pub by: By,
    /// What sort of thing.
    pub wanted: Wanted,
    /// Which.
    pub asked: Option<String>,
    /// Why.
    pub reason: String,
}

/// Decides which denials are recorded by themselves and which are counted.
#[derive(Debug, Default)]
pub struct Coalescer {
    windows: BTreeMap<Key, Window>,
}

/// What became of the time that was waited for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// To be recorded.
    pub records: Vec<AuditRecord>,
    /// When to ask again; absent: nothing is being counted.
    pub next: Option<Timestamp>,
}

/// Of whom a count is; no peer: strangers, and those beyond [`PEERS`].
type Key = (ClusterAlias, Option<Id52>, Wanted);

#[derive(Debug)]
struct Window {
    began: Timestamp,
    length: Duration,
    counted: Option<Counted>,
}

#[derive(Debug)]
struct Counted {
    by: By,
    asked: Vec<String>,
    count: u64,
}

impl Coalescer {
    /// Takes a denial. Returns what is to be recorded at once: it, if it is the first; before it the count of an earlier
    /// time, if that is over.
    pub fn denied(&mut self, denial: Denial) -> Vec<AuditRecord> {
        let mut records = Vec::new();
        let stranger = matches!(denial.wanted, Wanted::Connection | Wanted::Join);
        let peer = (!stranger).then_some(denial.by.peer);
        let mut key = (denial.cluster.clone(), peer, denial.wanted);
        if !self.windows.contains_key(&key) && self.windows.len() >= PEERS {
            key.1 = None;
        }
        let mut length = WINDOW;
        if let Some(window) = self.windows.get_mut(&key) {
            if !window.is_over(denial.time) {
                window.count(denial);
                return records;
            }
            // Still at it when the time was over: the next time is longer.
            if window.counted.is_some() {
                length = (window.length * 2).min(LONGEST_WINDOW);
            }
            records.extend(window.record(&key, denial.time));
        }
        self.windows.insert(key, Window { began: denial.time, length, counted: None });
        records.push(denial.into_record());
        records
    }

    /// Ends the times that are over and returns their counts.
    pub fn due(&mut self, now: Timestamp) -> Summary {
        let mut summary = Summary::default();
        self.windows.retain(|key, window| {
            if !window.is_over(now) {
                let end = window.end();
                summary.next = Some(summary.next.map_or(end, |next| next.min(end)));
                return true;
            }
            let Some(record) = window.record(key, now) else { return false };
            summary.records.push(record);
            // The flood may go on: then the next one is counted at once, and not told by itself.
            let length = (window.length * 2).min(LONGEST_WINDOW);
            *window = Window { began: now, length, counted: None };
            let end = window.end();
            summary.next = Some(summary.next.map_or(end, |next| next.min(end)));
            true
        });
        summary
    }

    /// Ends all of them: this device stops.
    pub fn finish(&mut self, now: Timestamp) -> Vec<AuditRecord> {
        let windows = std::mem::take(&mut self.windows);
        windows.into_iter().filter_map(|(key, mut window)| window.record(&key, now)).collect()
    }
}

impl Window {
    fn end(&self) -> Timestamp {
        self.began.checked_add(self.length).unwrap_or(Timestamp::MAX)
    }

    /// A clock that was set back ends it, too: nothing is counted for ever.
    fn is_over(&self, now: Timestamp) -> bool {
        now >= self.end() || now < self.began
    }

    fn count(&mut self, denial: Denial) {
        let counted = self.counted.get_or_insert_with(|| Counted {
            by: denial.by.clone(),
            asked: Vec::new(),
            count: 0,
        });
        counted.count += 1;
        counted.by = denial.by;
        if let Some(asked) = denial.asked
            && counted.asked.len() < WORDS
            && !counted.asked.contains(&asked)
        {
            counted.asked.push(asked);
        }
    }

    fn record(&mut self, key: &Key, now: Timestamp) -> Option<AuditRecord> {
        let Counted { by, asked, count } = self.counted.take()?;
        let within = now.duration_since(self.began).as_millis();
        let event = AuditEvent::DeniedAgain {
            by,
            wanted: key.2,
            asked,
            count,
            within_ms: u64::try_from(within).unwrap_or_default(),
        };
        Some(AuditRecord::of_cluster(now, &key.0, event))
    }
}

impl Denial {
    fn into_record(self) -> AuditRecord {
        let Self { time, cluster, by, wanted, asked, reason } = self;
        AuditRecord { time, cluster: Some(cluster), event: AuditEvent::Denied { by, wanted, asked, reason } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SecretKey;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + ms).expect("a time")
    }

    fn denial(ms: i64, peer: u8, wanted: Wanted, asked: &str) -> Denial {
        Denial {
            time: at(ms),
            cluster: "company".parse().expect("an alias"),
            by: By { peer: SecretKey::from_bytes(&[peer; 32]).id52(), name: None, here: false },
            wanted,
            asked: Some(asked.to_owned()),
            reason: "allow_from is absent".to_owned(),
        }
    }

    fn count(records: &[AuditRecord]) -> Vec<u64> {
        let count = |record: &AuditRecord| match record.event {
            AuditEvent::Denied { .. } => 1,
            AuditEvent::DeniedAgain { count, .. } => count,
            ref other => panic!("{other:?}"),
        };
        records.iter().map(count).collect()
    }

    #[test]
    fn a_flood_of_one_peer_is_a_record_and_a_count_each_second() {
        let mut coalescer = Coalescer::default();
        let mut records = Vec::new();
        for ms in 0..3000 {
            records.extend(coalescer.denied(denial(ms, 1, Wanted::Command, "id")));
            records.extend(coalescer.due(at(ms)).records);
        }
        records.extend(coalescer.finish(at(3000)));
        assert_eq!(count(&records).iter().sum::<u64>(), 3000, "none is lost");
        assert!(records.len() <= 6, "{records:#?}");
    }

    #[test]
    fn peers_and_sorts_of_things_are_told_apart() {
        let mut coalescer = Coalescer::default();
        for (peer, wanted) in [(1, Wanted::Command), (2, Wanted::Command), (1, Wanted::Service)] {
            assert_eq!(count(&coalescer.denied(denial(0, peer, wanted, "x"))), [1]);
            assert_eq!(count(&coalescer.denied(denial(1, peer, wanted, "y"))), [0_u64; 0]);
        }
        let summary = coalescer.due(at(1001));
        assert_eq!(count(&summary.records), [1, 1, 1]);
    }

    #[test]
    fn what_was_asked_for_meanwhile_is_not_hidden_by_the_first() {
        let mut coalescer = Coalescer::default();
        for (ms, word) in [(0, "true"), (1, "true"), (2, "passwd"), (3, "true")] {
            coalescer.denied(denial(ms, 1, Wanted::Command, word));
        }
        let records = coalescer.due(at(1000)).records;
        let [AuditRecord { event: AuditEvent::DeniedAgain { asked, count: 3, .. }, .. }] = &records[..]
        else {
            panic!("{records:?}")
        };
        assert_eq!(asked, &["true", "passwd"]);
    }

    #[test]
    fn a_lone_denial_is_recorded_at_once_and_leaves_nothing() {
        let mut coalescer = Coalescer::default();
        assert_eq!(count(&coalescer.denied(denial(0, 1, Wanted::Shell, "x"))), [1]);
        assert_eq!(coalescer.due(at(500)).next, Some(at(1000)));
        assert_eq!(coalescer.due(at(1000)), Summary::default());
        assert!(coalescer.windows.is_empty());
    }

    #[test]
    fn strangers_are_counted_together_and_ever_more_rarely() {
        let mut coalescer = Coalescer::default();
        let mut records = Vec::new();
        // Ten minutes, a new identity each time.
        for number in 0..60_000_i64 {
            let peer = u8::try_from(number % 250).expect("fits") + 1;
            records.extend(coalescer.denied(denial(number * 10, peer, Wanted::Connection, "x")));
            records.extend(coalescer.due(at(number * 10)).records);
        }
        records.extend(coalescer.finish(at(600_000)));
        assert_eq!(count(&records).iter().sum::<u64>(), 60_000, "none is lost");
        assert!(records.len() <= 30, "{}", records.len());
        assert!(coalescer.windows.len() <= 1);
    }

    #[test]
    fn many_peers_cost_bounded_memory() {
        let mut coalescer = Coalescer::default();
        let mut told = 0;
        for number in 0..5_000_u32 {
            let mut denial = denial(0, 1, Wanted::Command, "x");
            let mut key = [7; 32];
            key[..4].copy_from_slice(&number.to_le_bytes());
            denial.by.peer = SecretKey::from_bytes(&key).id52();
            told += count(&coalescer.denied(denial)).iter().sum::<u64>();
        }
        assert!(coalescer.windows.len() <= PEERS + 1);
        told += count(&coalescer.finish(at(10))).iter().sum::<u64>();
        assert_eq!(told, 5_000);
    }

    #[test]
    fn a_clock_that_is_set_back_ends_the_time() {
        let mut coalescer = Coalescer::default();
        coalescer.denied(denial(10_000, 1, Wanted::Command, "x"));
        coalescer.denied(denial(10_001, 1, Wanted::Command, "x"));
        assert_eq!(count(&coalescer.denied(denial(0, 1, Wanted::Command, "x"))), [1, 1]);
    }
}
