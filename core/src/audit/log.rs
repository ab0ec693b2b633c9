//! The one place in a process through which records go to the files.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use malai_model::audit::{AuditEvent, AuditRecord, Coalescer, Denial};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::files::Files;
use super::{AuditError, AuditLimits};
use crate::clock::SharedClock;
use crate::home::Home;
use crate::task::Scope;

/// How many records wait to be written at most: some megabytes.
const QUEUE: usize = 8192;
/// How long the lock on the files is waited for. Another process holds it for one write.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const LOCK_PAUSE: Duration = Duration::from_millis(1);
/// How long after a write the disk has it, where nobody waits for that.
const SYNC_WITHIN: Duration = Duration::from_secs(1);
/// How often a log of trouble says so again at most, while records go on to be lost.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The audit log of a home. Cheap to clone: clones are the same log.
#[derive(Clone)]
pub struct AuditLog {
    shared: Arc<Shared>,
}

/// When a record that nobody waits for is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Before the call returns, if nobody else is writing: for a process that may end at any moment.
    AtOnce,
    /// By a task, together with others: for a daemon.
    Soon,
}

/// How sure a record has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It outlives this process, however that ends.
    Written,
    /// It outlives the machine.
    OnDisk,
}

/// A record that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its number.
    pub seq: u64,
    /// After how many writes the disk has to have it.
    writes: u64,
}

struct Shared {
    clock: SharedClock,
    urgency: Urgency,
    queue: Mutex<Queue>,
    files: tokio::sync::Mutex<Files>,
    /// Wakes the task.
    wake: Notify,
    /// Held by whoever has the disk take what was written; the others wait for that.
    syncing: Arc<tokio::sync::Mutex<()>>,
    /// How many writes there were, and how many of them the disk has for sure.
    written: AtomicU64,
    on_disk: AtomicU64,
    coalescer: Mutex<Coalescer>,
    trouble: Mutex<Trouble>,
    #[cfg(test)]
    syncs: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Entry>,
    /// Records that could not be written so far; to be recorded when that works again.
    lost: u64,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.lost == 0
    }
}

struct Entry {
    record: AuditRecord,
    done: Option<oneshot::Sender<Result<Written, AuditError>>>,
}

/// What was told of failures: the log of an audit log that fails shall not be filled by that.
#[derive(Default)]
struct Trouble {
    told: Option<Instant>,
    failing: bool,
}

impl AuditLog {
    /// Makes the log of a home. Nothing is read or made before the first record.
    pub fn new(home: &Home, clock: SharedClock, urgency: Urgency, limits: AuditLimits) -> Self {
        let files = Files::new(home.audit_dir(), limits);
        Self {
            shared: Arc::new(Shared {
                clock,
                urgency,
                queue: Mutex::default(),
                files: tokio::sync::Mutex::new(files),
                wake: Notify::new(),
                syncing: Arc::default(),
                written: AtomicU64::new(0),
                on_disk: AtomicU64::new(0),
                coalescer: Mutex::default(),
                trouble: Mutex::default(),
                #[cfg(test)]
                syncs: AtomicU64::new(0),
            }),
        }
    }

    /// Runs what writes records that nobody waits for, counts of denials, and syncs.
    pub fn start(&self, scope: &Scope) {
        let shared = Arc::clone(&self.shared);
        scope.keep("audit", move || {
            let shared = Arc::clone(&shared);
            async move { shared.run().await }
        });
    }

    /// What time it is, by the clock that records are stamped with.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Records something that has happened. A failure is told in the log of this process, and the gap is recorded.
    pub fn record(&self, record: AuditRecord) {
        if !self.shared.push(Entry { record, done: None }) {
            return;
        }
        if self.shared.urgency == Urgency::AtOnce
            && let Ok(mut files) = self.shared.files.try_lock()
            && matches!(files.try_lock(), Ok(true))
        {
            self.shared.write(&mut files);
            return;
        }
        self.shared.wake.notify_one();
    }

    /// Records that somebody was denied something: by itself, or as one of many within the same second.
    pub fn denied(&self, denial: Denial) {
        let records = locked(&self.shared.coalescer).denied(denial);
        let counted = records.is_empty();
        records.into_iter().for_each(|record| self.record(record));
        if counted {
            // So that the count is recorded when its time is over.
            self.shared.wake.notify_one();
        }
    }

    /// Records something that must not happen unrecorded, before it happens. Those who come at once are written
    /// together, and share one sync.
    ///
    /// # Errors
    /// When it could not be written, or is not on the disk for sure where that was asked for.
    ///
    /// # Cancel safety
    /// Dropped, the record is written all the same, or not.
    pub async fn record_before(
        &self,
        record: AuditRecord,
        durability: Durability,
    ) -> Result<Written, AuditError> {
        let (done, mut told) = oneshot::channel();
        if !self.shared.push(Entry { record, done: Some(done) }) {
            return Err(AuditError::Overrun);
        }
        self.shared.write_waiting(|| !told.is_empty()).await;
        let written = told.try_recv().unwrap_or(Err(AuditError::Busy))?;
        match durability {
            Durability::OnDisk => self.shared.sync_through(written.writes).await?,
            Durability::Written => self.shared.wake.notify_one(),
        }
        Ok(written)
    }

    /// Writes what waits, the counts too, and has the disk take it.
    pub async fn close(&self) {
        let now = self.shared.clock.now();
        let counts = locked(&self.shared.coalescer).finish(now);
        for record in counts {
            self.shared.push(Entry { record, done: None });
        }
        self.shared.write_waiting(|| false).await;
        self.shared.sync_or_tell().await;
    }

    /// How often the disk was waited for.
    #[cfg(test)]
    pub(super) fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Lets a record wait to be written; `false` if there are too many.
    fn push(&self, entry: Entry) -> bool {
        let mut queue = locked(&self.queue);
        if queue.waiting.len() >= QUEUE {
            queue.lost += 1;
            return false;
        }
        queue.waiting.push(entry);
        true
    }

    fn take_waiting(&self) -> Queue {
        std::mem::take(&mut *locked(&self.queue))
    }

    /// Takes the records that somebody waits for; the others wait on for a lock that is held meanwhile.
    fn take_those_who_wait(&self) -> Queue {
        let mut queue = locked(&self.queue);
        let (waited_for, others) =
            std::mem::take(&mut queue.waiting).into_iter().partition(|entry| entry.done.is_some());
        queue.waiting = others;
        Queue { waiting: waited_for, lost: 0 }
    }

    /// Writes what waits; `done` says whether somebody else has done all that matters meanwhile.
    async fn write_waiting(&self, done: impl Fn() -> bool) {
        let mut files = self.files.lock().await;
        if done() || locked(&self.queue).is_empty() {
            return;
        }
        let begun = Instant::now();
        loop {
            match files.try_lock() {
                Ok(true) => return self.write(&mut files),
                Ok(false) if begun.elapsed() < LOCK_PATIENCE => tokio::time::sleep(LOCK_PAUSE).await,
                Ok(false) => return self.fail(&AuditError::Busy, self.take_those_who_wait()),
                Err(error) => return self.fail(&error, self.take_waiting()),
            }
        }
    }

    /// Writes what waits in one write, and unlocks. Waits for nothing but the system: of all that may be done in the
    /// caller's thread this is the cheapest, a thread of its own would cost more than the write.
    fn write(&self, files: &mut Files) {
        let queue = self.take_waiting();
        let now = self.clock.now();
        let lost = (queue.lost > 0)
            .then(|| AuditRecord::of_device(now, AuditEvent::RecordsLost { count: queue.lost }));
        let records = lost.iter().chain(queue.waiting.iter().map(|entry| &entry.record));
        let appended = files.append(records, now);
        files.unlock();
        match appended {
            Ok(last) => {
                let writes = self.written.fetch_add(1, Ordering::Relaxed) + 1;
                // Numbers are given in the order of the queue, without a gap.
                let first = (last + 1).saturating_sub(queue.waiting.len() as u64);
                for (seq, entry) in (first..).zip(queue.waiting) {
                    if let Some(done) = entry.done {
                        _ = done.send(Ok(Written { seq, writes }));
                    }
                }
                self.recovered(queue.lost);
            }
            Err(error) => self.fail(&error, queue),
        }
    }

    fn fail(&self, error: &AuditError, queue: Queue) {
        let lost = queue.lost + queue.waiting.len() as u64;
        for done in queue.waiting.into_iter().filter_map(|entry| entry.done) {
            _ = done.send(Err(error.clone()));
        }
        if lost > 0 {
            locked(&self.queue).lost += lost;
            self.failed(error, lost);
        }
    }

    /// Waits until the disk has so many writes for sure.
    ///
    /// # Cancel safety
    /// Dropped, the sync goes on, and its turn lasts until it has ended: nobody takes it for done before.
    async fn sync_through(self: &Arc<Self>, writes: u64) -> Result<(), AuditError> {
        let turn = Arc::clone(&self.syncing).lock_owned().await;
        if self.on_disk.load(Ordering::Relaxed) >= writes {
            // Somebody else's sync had it.
            return Ok(());
        }
        let (unsynced, through) = {
            let mut files = self.files.lock().await;
            (files.take_unsynced(), self.written.load(Ordering::Relaxed))
        };
        #[cfg(test)]
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(self);
        let synced = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            match unsynced.sync() {
                Ok(()) => {
                    shared.on_disk.store(through, Ordering::Relaxed);
                    Ok(())
                }
                Err(error) => {
                    shared.files.blocking_lock().put_back(unsynced);
                    Err(error)
                }
            }
        });
        synced.await.map_err(|_| AuditError::Busy)?
    }

    async fn sync_or_tell(self: &Arc<Self>) {
        if let Err(error) = self.sync_through(self.written.load(Ordering::Relaxed)).await {
            self.failed(&error, 0);
        }
    }

    /// Writes records that nobody waits for, and counts when their time is over; and has the disk take what was written
    /// a little later.
    async fn run(self: &Arc<Self>) {
        let mut sync_at: Option<Instant> = None;
        loop {
            let now = self.clock.now();
            let summary = locked(&self.coalescer).due(now);
            for record in summary.records {
                self.push(Entry { record, done: None });
            }
            self.write_waiting(|| false).await;
            if self.written.load(Ordering::Relaxed) > self.on_disk.load(Ordering::Relaxed) {
                sync_at.get_or_insert_with(|| Instant::now() + SYNC_WITHIN);
            } else {
                sync_at = None;
            }
            let count_in = summary.next.map(|next| {
                let left = Duration::try_from(next.duration_since(now)).unwrap_or_default();
                Instant::now() + left.clamp(Duration::from_millis(10), TELL_EVERY)
            });
            let next = [sync_at, count_in].into_iter().flatten().min();
            tokio::select! {
                () = self.wake.notified() => {}
                () = at(next) => {
                    if sync_at.is_some_and(|due| due <= Instant::now()) {
                        sync_at = None;
                        self.sync_or_tell().await;
                    }
                }
            }
        }
    }

    fn failed(&self, error: &AuditError, lost: u64) {
        let mut trouble = locked(&self.trouble);
        trouble.failing = true;
        if trouble.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            trouble.told = Some(Instant::now());
            let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(%error, source, lost, "the audit log cannot be written");
        }
    }

    fn recovered(&self, lost: u64) {
        let mut trouble = locked(&self.trouble);
        if std::mem::take(&mut trouble.failing) {
            trouble.told = None;
            tracing::warn!(lost, "the audit log is written again");
        }
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
