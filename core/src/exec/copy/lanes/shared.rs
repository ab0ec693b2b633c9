//! What the reader, the writer and whoever opens lanes share.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::writer::Writing;

/// How long a lane that was named may take to be there.
const ARRIVAL: Duration = Duration::from_secs(20);

pub(super) type LaneInput = Box<dyn Read + Send>;
pub(super) type LaneOutput = Box<dyn Write + Send>;

pub(super) struct Shared {
    pub(super) writing: Mutex<Writing>,
    /// What is to be done about the writing by whoever holds it next.
    pub(super) orders: Mutex<Orders>,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
    arrived: Mutex<BTreeMap<u8, LaneInput>>,
    changed: Condvar,
    given_up: AtomicBool,
    /// Bytes that passed, both ways.
    pub(super) passed: AtomicU64,
    /// Told when it is a large copy.
    pub(super) large: tokio::sync::Notify,
}

#[derive(Default)]
pub(super) struct Orders {
    /// Words to be said at the next boundary.
    pub(super) words: Vec<u8>,
    pub(super) lanes: Vec<(u8, LaneOutput)>,
}

impl Orders {
    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty() && self.lanes.is_empty()
    }
}

impl Shared {
    pub(super) fn new(output: LaneOutput) -> Self {
        Self {
            writing: Mutex::new(Writing::new(output)),
            orders: Mutex::default(),
            threads: Mutex::default(),
            arrived: Mutex::default(),
            changed: Condvar::new(),
            given_up: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            large: tokio::sync::Notify::new(),
        }
    }

    /// Counts; a copy is large when more than `LARGE` bytes have passed.
    pub(super) fn count(&self, bytes: usize) {
        let before = self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
        if before < super::writer::LARGE && before + bytes as u64 >= super::writer::LARGE {
            self.large.notify_one();
        }
    }

    pub(super) fn arrive(&self, lane: u8, input: LaneInput) {
        lock(&self.arrived).insert(lane, input);
        self.changed.notify_all();
    }

    /// Nobody will open lanes any more: a reader that waits for one fails.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
        let _guard = lock(&self.arrived);
        self.changed.notify_all();
    }

    /// Waits for a lane that the other end has sent something over.
    pub(super) fn take_arrived(&self, lane: u8) -> io::Result<LaneInput> {
        let until = Instant::now() + ARRIVAL;
        let mut arrived = lock(&self.arrived);
        loop {
            if let Some(input) = arrived.remove(&lane) {
                return Ok(input);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.given_up.load(Ordering::SeqCst) {
                let text = "bytes of the copy were sent over a stream that is not there";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            arrived = self.changed.wait_timeout(arrived, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
