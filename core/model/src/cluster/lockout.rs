//! Slowing down and locking out whoever keeps failing: a peer, an invite, a source address.
//!
//! Not responsible for what a failure is, nor for whom a lock-out may never touch (config delivery): the caller asks only
//! where it applies.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use jiff::Timestamp;

/// When somebody is slowed down, locked out, forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockoutLimits {
    /// So many failures cost nothing: people mistype.
    pub free: u32,
    /// The wait after the first failure beyond those; each further one doubles it.
    pub first_wait: Duration,
    /// At so many failures it is locked out.
    pub lock_at: u32,
    /// For so long; each failure after that locks out again.
    pub lock_for: Duration,
    /// After so long without a failure everything is forgotten.
    pub forget_after: Duration,
    /// How many keys are remembered at most.
    pub capacity: usize,
}

impl Default for LockoutLimits {
    fn default() -> Self {
        Self {
            free: 3,
            first_wait: Duration::from_millis(500),
            lock_at: 10,
            lock_for: Duration::from_secs(300),
            forget_after: Duration::from_secs(900),
            capacity: 4096,
        }
    }
}

/// What the state says to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Go on.
    Go,
    /// Too soon: refuse, or answer only after this wait.
    Wait(Duration),
    /// Locked out: refuse (`peer.locked_out`) for this long.
    LockedOut(Duration),
}

/// Failed attempts by key. Memory is bounded by [`LockoutLimits::capacity`].
#[derive(Debug, Clone)]
pub struct Lockout<K> {
    limits: LockoutLimits,
    failures: HashMap<K, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Timestamp,
    blocked_until: Timestamp,
}

impl<K: Eq + Hash + Clone> Lockout<K> {
    /// Remembers nobody yet.
    pub fn new(limits: LockoutLimits) -> Self {
        Self { limits, failures: HashMap::new() }
    }

    /// Says whether an attempt may go on now.
    pub fn check(&self, key: &K, now: Timestamp) -> Attempt {
        let Some(failures) = self.failures.get(key).filter(|failures| !self.is_forgotten(failures, now))
        else {
            return Attempt::Go;
        };
        let left = Duration::try_from(failures.blocked_until.duration_since(now)).unwrap_or_default();
        if left.is_zero() {
            Attempt::Go
        } else if failures.count >= self.limits.lock_at {
            Attempt::LockedOut(left)
        } else {
            Attempt::Wait(left)
        }
    }

    /// Notes a failure.
    pub fn record_failure(&mut self, key: &K, now: Timestamp) {
        let before = self.failures.get(key).filter(|failures| !self.is_forgotten(failures, now));
        let count = before.map_or(0, |failures| failures.count).saturating_add(1);
        let wait = if count >= self.limits.lock_at {
            self.limits.lock_for
        } else if count > self.limits.free {
            let doublings = (count - self.limits.free - 1).min(16);
            (self.limits.first_wait * 2_u32.pow(doublings)).min(self.limits.lock_for)
        } else {
            Duration::ZERO
        };
        let blocked_until = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        if !self.failures.contains_key(key) {
            self.make_room(now);
        }
        self.failures.insert(key.clone(), Failures { count, last: now, blocked_until });
    }

    /// Notes a success: earlier failures are forgiven.
    pub fn record_success(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// Says how many keys are remembered.
    pub fn remembered(&self) -> usize {
        self.failures.len()
    }

    fn is_forgotten(&self, failures: &Failures, now: Timestamp) -> bool {
        let quiet = Duration::try_from(now.duration_since(failures.last)).unwrap_or_default();
        quiet >= self.limits.forget_after && now >= failures.blocked_until
    }

    fn make_room(&mut self, now: Timestamp) {
        if self.failures.len() < self.limits.capacity {
            return;
        }
        let mut failures = std::mem::take(&mut self.failures);
        failures.retain(|_, failures| !self.is_forgotten(failures, now));
        self.failures = failures;
        if self.failures.len() < self.limits.capacity {
            return;
        }
        // Whoever floods the table with new keys must not wash out those that are locked: the least guilty goes first.
        let least = self.failures.iter().min_by_key(|(_, failures)| (failures.count, failures.last));
        if let Some(key) = least.map(|(key, _)| key.clone()) {
            self.failures.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lockout() -> Lockout<u32> {
        let limits = LockoutLimits {
            free: 2,
            first_wait: seconds(1),
            lock_at: 5,
            lock_for: seconds(60),
            forget_after: seconds(300),
            capacity: 8,
        };
        Lockout::new(limits)
    }

    #[test]
    fn failures_slow_down_then_lock_out_then_pass() {
        let mut lockout = lockout();
        let mut verdicts = Vec::new();
        for _ in 0..6 {
            lockout.record_failure(&1, at(0));
            verdicts.push(lockout.check(&1, at(0)));
        }
        let locked = Attempt::LockedOut(seconds(60));
        let waits = [Attempt::Wait(seconds(1)), Attempt::Wait(seconds(2)), locked, locked];
        assert_eq!(verdicts[..2], [Attempt::Go, Attempt::Go]);
        assert_eq!(verdicts[2..], waits);
        assert_eq!(lockout.check(&1, at(59)), Attempt::LockedOut(seconds(1)));
        assert_eq!(lockout.check(&1, at(60)), Attempt::Go);
        lockout.record_failure(&1, at(60));
        assert_eq!(lockout.check(&1, at(60)), locked);
        assert_eq!(lockout.check(&2, at(60)), Attempt::Go);
    }

    #[test]
    fn quiet_or_success_clears_the_slate() {
        let mut lockout = lockout();
        for _ in 0..5 {
            lockout.record_failure(&1, at(0));
            lockout.record_failure(&2, at(0));
        }
        lockout.record_success(&1);
        assert_eq!(lockout.check(&1, at(0)), Attempt::Go);
        lockout.record_failure(&2, at(300));
        assert_eq!(lockout.check(&2, at(300)), Attempt::Go);
    }

    #[test]
    fn a_clock_that_goes_back_frees_nobody_and_locks_nobody_for_ever() {
        let mut lockout = lockout();
        for _ in 0..5 {
            lockout.record_failure(&1, at(1000));
        }
        assert_eq!(lockout.check(&1, at(900)), Attempt::LockedOut(seconds(160)));
        lockout.record_failure(&1, at(900));
        assert_eq!(lockout.check(&1, at(960)), Attempt::Go);
    }

    #[test]
    fn a_flood_of_keys_neither_grows_the_table_nor_frees_who_is_locked() {
        let mut lockout = lockout();
        for _ in 0..5 {
            lockout.record_failure(&0, at(0));
        }
        for key in 1..10_000 {
            lockout.record_failure(&key, at(1));
        }
        assert_eq!(lockout.remembered(), 8);
        assert_eq!(lockout.check(&0, at(1)), Attempt::LockedOut(seconds(59)));
    }

    #[test]
    fn counting_never_overflows() {
        let mut lockout = Lockout::new(LockoutLimits { lock_at: u32::MAX, ..LockoutLimits::default() });
        for _ in 0..100 {
            lockout.record_failure(&1, Timestamp::MAX);
        }
        assert!(matches!(lockout.check(&1, Timestamp::MIN), Attempt::Wait(_)));
    }
}
