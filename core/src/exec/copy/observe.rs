//! What a copy tells whoever looks on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use malai_model::code::ErrorCode;
use malai_model::wire::copy::CopyRole;

/// How often progress is told at most.
const EVERY: Duration = Duration::from_millis(100);

/// Something that could not be done while the rest went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyProblem {
    /// Which end had it.
    pub side: CopyRole,
    /// The stable code.
    pub code: ErrorCode,
    /// What it is about, below the root as that end was given it. A peer may have chosen it: escape it.
    pub path: String,
    /// What is wrong with it. Escape it.
    pub message: String,
}

/// How far a copy is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Files that the source has named so far.
    pub named_files: u64,
    /// Their bytes.
    pub named_bytes: u64,
    /// Files that are done: written, there already, or failed.
    pub done_files: u64,
    /// Bytes that are done, or did not have to come.
    pub done_bytes: u64,
    /// Bytes that came over the network.
    pub moved_bytes: u64,
    /// What is being copied. Escape it.
    pub current: String,
}

/// Looks on while something is copied. Called from a thread of the copy's: it should return soon.
pub trait CopyObserver: Send + Sync {
    /// Something could not be done.
    fn problem(&self, problem: &CopyProblem);
    /// It got further; told at most ten times a second.
    fn progress(&self, progress: &CopyProgress);
}

/// Nobody looks on: the other end is told.
impl CopyObserver for () {
    fn problem(&self, _problem: &CopyProblem) {}
    fn progress(&self, _progress: &CopyProgress) {}
}

/// Counts, and tells now and then.
pub(super) struct Tally {
    observer: Arc<dyn CopyObserver>,
    pub(super) progress: CopyProgress,
    told: Instant,
}

impl Tally {
    pub(super) fn new(observer: Arc<dyn CopyObserver>) -> Self {
        Self { observer, progress: CopyProgress::default(), told: Instant::now() }
    }

    /// Tells, unless it has just done so. The text is made only then.
    pub(super) fn tell(&mut self, current: impl FnOnce() -> Option<String>) {
        if self.told.elapsed() < EVERY {
            return;
        }
        if let Some(current) = current() {
            self.progress.current = current;
        }
        self.tell_now();
    }

    pub(super) fn tell_now(&mut self) {
        self.told = Instant::now();
        self.observer.progress(&self.progress);
    }

    pub(super) fn problem(&self, problem: &CopyProblem) {
        self.observer.problem(problem);
    }
}
