//! Every task has an owner.
//!
//! A [`Scope`] owns tasks: it names them, ends them, and waits for them. Nothing in malai spawns a task outside one.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// How long a task that has to run and ended is left alone before it is begun again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Owns a group of tasks.
///
/// It has two stages of ending: [`Scope::stop`] asks (tasks that watch [`Scope::stopping`] finish what they do), then
/// [`Scope::shutdown`] drops what is left when its deadline is over. A child stops with its parent, not the other way.
///
/// Cloning gives another handle to the same scope.
#[derive(Debug, Clone)]
pub struct Scope {
    stop: CancellationToken,
    kill: CancellationToken,
    tracker: TaskTracker,
}

/// How a shutdown ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownOutcome {
    /// Every task ended by itself.
    Drained,
    /// So many tasks were dropped at the deadline.
    Dropped(usize),
}

impl Default for Scope {
    fn default() -> Self {
        Self::new()
    }
}

impl Scope {
    /// Makes a scope without a parent.
    pub fn new() -> Self {
        Self { stop: CancellationToken::new(), kill: CancellationToken::new(), tracker: TaskTracker::new() }
    }

    /// Makes a scope that stops and is killed with this one, and whose tasks this one waits for too. Only the outermost
    /// one is shut down: a child is asked to [`Scope::stop`], for it cannot wait for its own tasks alone.
    pub fn child(&self) -> Self {
        Self { stop: self.stop.child_token(), kill: self.kill.child_token(), tracker: self.tracker.clone() }
    }

    /// Runs a task that this scope owns. It is dropped at its next await when the scope is killed; a panic ends this
    /// task alone and is logged.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let kill = self.kill.clone();
        let guarded = Guarded { name, finished: false };
        self.tracker.spawn(
            async move {
                let mut guarded = guarded;
                let output = kill.run_until_cancelled(future).await;
                guarded.finished = true;
                output
            }
            .instrument(tracing::debug_span!("task", name)),
        )
    }

    /// Runs a task that is dropped as soon as the scope is asked to stop: for loops with nothing to finish.
    pub fn spawn_until_stop<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<Option<F::Output>>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let stop = self.stop.clone();
        self.spawn(name, async move { stop.run_until_cancelled(future).await })
    }

    /// Runs a task that must run as long as the scope: if it ends or panics before the scope stops, that is logged and it
    /// is begun again after a pause.
    pub fn keep<M, F>(&self, name: &'static str, make: M)
    where
        M: Fn() -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let scope = self.clone();
        self.spawn_until_stop(name, async move {
            loop {
                let ended = scope.spawn_until_stop(name, make()).await;
                if scope.is_stopping() {
                    return;
                }
                tracing::error!(
                    task = name,
                    panicked = ended.is_err(),
                    "a task that has to run ended: begun again"
                );
                tokio::time::sleep(RESTART_PAUSE).await;
            }
        });
    }

    /// Resolves when the scope is asked to stop. Cancel safe.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Says whether the scope was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Asks all tasks to finish; returns at once.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Asks all tasks to finish, waits at most `deadline`, then drops those left.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownOutcome {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok() {
            return ShutdownOutcome::Drained;
        }
        let left = self.tracker.len();
        self.kill.cancel();
        self.tracker.wait().await;
        ShutdownOutcome::Dropped(left)
    }
}

/// Notices a task that unwinds, so that no panic is silent.
struct Guarded {
    name: &'static str,
    finished: bool,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !self.finished && std::thread::panicking() {
            tracing::error!(task = self.name, "a task panicked; the rest goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_watches_for_the_stop_is_drained() {
        let scope = Scope::new();
        let inner = scope.clone();
        scope.spawn("polite", async move { inner.stopping().await });
        assert_eq!(scope.shutdown(Duration::from_secs(5)).await, ShutdownOutcome::Drained);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_dropped_at_the_deadline() {
        let scope = Scope::new();
        scope.spawn("stubborn", std::future::pending::<()>());
        assert_eq!(scope.shutdown(Duration::from_secs(1)).await, ShutdownOutcome::Dropped(1));
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_task_only() {
        let scope = Scope::new();
        let bad = scope.spawn("bad", async { panic!("on purpose") });
        let good = scope.spawn("good", async { 7 });
        assert!(bad.await.is_err());
        assert_eq!(good.await.expect("joins"), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_to_run_is_begun_again_after_a_panic_and_stops_with_its_scope() {
        let scope = Scope::new();
        let begun = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (counted, running) = (begun.clone(), std::sync::Arc::new(tokio::sync::Notify::new()));
        let third = running.clone();
        scope.keep("kept", move || {
            let (number, third) = (counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst), third.clone());
            async move {
                match number {
                    0 => panic!("on purpose"),
                    1 => {}
                    _ => {
                        third.notify_one();
                        std::future::pending::<()>().await;
                    }
                }
            }
        });
        tokio::time::timeout(Duration::from_secs(60), running.notified()).await.expect("begins a third time");
        assert_eq!(begun.load(std::sync::atomic::Ordering::SeqCst), 3);
        assert_eq!(scope.shutdown(Duration::from_secs(5)).await, ShutdownOutcome::Drained);
    }

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_not_the_other_way() {
        let parent = Scope::new();
        let (one, two) = (parent.child(), parent.child());
        one.stop();
        assert!(one.is_stopping() && !two.is_stopping() && !parent.is_stopping());
        parent.stop();
        assert!(two.is_stopping());
    }
}
