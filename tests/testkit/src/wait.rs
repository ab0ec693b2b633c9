//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Waits until the condition holds.
///
/// # Panics
///
/// When it does not within the deadline; `what` says what was awaited.
#[track_caller]
pub fn await_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    await_some(what, deadline, || condition().then_some(()));
}

/// Waits until there is a value, and returns it.
///
/// # Panics
///
/// When there is none within the deadline; `what` says what was awaited.
#[track_caller]
pub fn await_some<T>(what: &str, deadline: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(started.elapsed() < deadline, "still waiting after {deadline:?} for: {what}");
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(100));
    }
}
