//! Time as a parameter, so that expiry and lock-outs can be tested without waiting.

use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time of day.
pub trait Clock: Send + Sync + 'static {
    /// Returns the present instant.
    fn now(&self) -> Timestamp;
}

/// The clock of the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that everybody shares.
pub type SharedClock = Arc<dyn Clock>;

/// A clock that stands still until it is moved.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<std::sync::Mutex<Timestamp>>);

#[cfg(any(test, feature = "testing"))]
impl ManualClock {
    /// Starts at an instant.
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(std::sync::Mutex::new(start)))
    }

    /// Moves forward.
    pub fn advance(&self, by: std::time::Duration) {
        let mut now = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *now += by;
    }
}

#[cfg(any(test, feature = "testing"))]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
