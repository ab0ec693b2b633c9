//! A home's background process, kept in the foreground.

use std::time::Duration;

use crate::process::{Output, Running};
use crate::{DEADLINE, Signal, TestHome, await_until};

/// A running `malai daemon --foreground`. Dropping it kills its process group.
#[derive(Debug)]
pub struct Daemon {
    home: TestHome,
    running: Running,
}

impl Daemon {
    pub(crate) fn spawn(home: &TestHome) -> Self {
        let stderr = home.net().stderr_file(home.name());
        // What a failed test prints is the log, by default without what only helps to find its cause.
        let verbose = std::env::var_os("MALAI_E2E_VERBOSE").map(|_| "-vv");
        let words = verbose.into_iter().chain(["daemon", "--foreground"]);
        let running = home.command(words).stderr_to(stderr).spawn();
        Self { home: home.clone(), running }
    }

    /// Waits until the daemon answers `malai status`.
    ///
    /// # Panics
    ///
    /// When it ends or does not answer in time.
    #[track_caller]
    pub fn await_ready(&mut self) {
        let Self { home, running } = self;
        await_until(&format!("the daemon of {}", home.name()), DEADLINE, || {
            assert!(!running.has_ended(), "the daemon of {} ended instead of answering", home.name());
            home.malai(["status", "--json"]).code == Some(0)
        });
    }

    /// Returns the process's id.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Says whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.running.has_ended()
    }

    /// Sends a signal to the daemon alone.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Asks the daemon to finish and waits for it.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    #[track_caller]
    pub fn stop(self) -> Output {
        self.running.signal(Signal::SIGTERM);
        self.running.wait(DEADLINE)
    }

    /// Waits for a daemon that ends by itself.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    #[track_caller]
    pub fn wait(self, deadline: Duration) -> Output {
        self.running.wait(deadline)
    }

    /// Kills the daemon at once, as a crash would.
    pub fn kill(self) {
        self.running.kill();
    }
}
