//! A process group and its end.

use std::sync::OnceLock;
use std::time::Duration;

use malai_model::wire::{CommandEnd, Signal};
use nix::errno::Errno;
use nix::sys::signal::{self, killpg};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep, timeout_at};

use super::HostError;
use super::members::{Bond, has_members, signal_session};
use super::reaper::collect_later;
use super::watch::{Collect, Watch, look};

/// How long a process has to be gone after SIGKILL before it is given up.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// A command's process group: the process that was started, and all that it started and that did not leave
/// the group by itself (as daemons do by `setsid`). Under a terminal it is the session instead: a shell makes a group of
/// each job.
///
/// The first process stays on the process table until this value is given up, so the group's number cannot be
/// given to strangers meanwhile and every signal hits the right group. There are two ways to give it up:
/// [`ProcessGroup::finish`] leaves what the command started in the background alone, as ssh does; dropping
/// kills the whole group.
#[derive(Debug)]
pub struct ProcessGroup {
    leader: Pid,
    bond: Bond,
    watch: Watch,
    end: OnceLock<CommandEnd>,
    collected: bool,
}

impl ProcessGroup {
    /// Takes a child that leads a group of its own. Needs a runtime.
    pub(super) fn new(leader: Pid) -> Self {
        Self::of(leader, Bond::Group)
    }

    /// Takes a child that leads a session of its own. Needs a runtime.
    pub(super) fn of_session(leader: Pid) -> Self {
        Self::of(leader, Bond::Session)
    }

    fn of(leader: Pid, bond: Bond) -> Self {
        Self { leader, bond, watch: Watch::new(leader), end: OnceLock::new(), collected: false }
    }

    /// The process id of the first process, which is the group's too.
    pub fn pid(&self) -> u32 {
        self.leader.as_raw().unsigned_abs()
    }

    /// Waits until the first process has ended. Others of the group may go on, and may hold its pipes open.
    ///
    /// # Errors
    /// [`HostError::Watch`] if another part of this program collected the process.
    ///
    /// # Cancel safety
    /// Cancel safe; several may wait.
    pub async fn wait(&self) -> Result<CommandEnd, HostError> {
        if let Some(end) = self.end.get() {
            return Ok(*end);
        }
        let end = self.watch.ended().await.map_err(|source| HostError::Watch { pid: self.pid(), source })?;
        Ok(*self.end.get_or_init(|| end))
    }

    /// Delivers a signal to every process of the group (of a session: of its leader's); to none, if all have ended.
    ///
    /// # Errors
    /// [`HostError::Signal`] if all that is left belongs to another user.
    pub fn signal(&self, signal: Signal) -> Result<(), HostError> {
        self.send(match signal {
            Signal::Int => signal::SIGINT,
            Signal::Term => signal::SIGTERM,
            Signal::Hup => signal::SIGHUP,
            Signal::Quit => signal::SIGQUIT,
            Signal::Kill => signal::SIGKILL,
            Signal::Usr1 => signal::SIGUSR1,
            Signal::Usr2 => signal::SIGUSR2,
        })
    }

    fn send(&self, signal: signal::Signal) -> Result<(), HostError> {
        match killpg(self.leader, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            // macOS says so, too, when only processes that ended are left.
            Err(Errno::EPERM) if self.end.get().is_some() => Ok(()),
            Err(error) => Err(HostError::Signal { pid: self.pid(), source: error.into() }),
        }
    }

    /// Ends the whole group: SIGHUP now, SIGKILL after `grace` to what is left of it then, whether or not the
    /// first process is. Returns as soon as all are gone, where the system tells (Linux); else after `grace`.
    ///
    /// # Errors
    /// [`HostError::Survived`], [`HostError::Watch`].
    ///
    /// # Cancel safety
    /// Not cancel safe: it stops in between. Dropping the group still kills it.
    pub async fn hang_up(&self, grace: Duration) -> Result<CommandEnd, HostError> {
        let deadline = Instant::now() + grace;
        self.send_all(signal::SIGHUP);
        // What is stopped would not hear it.
        self.send_all(signal::SIGCONT);
        if let Ok(end) = timeout_at(deadline, self.wait()).await {
            end?;
            self.members_gone(deadline).await;
        }
        self.send_all(signal::SIGKILL);
        match timeout_at(Instant::now() + KILL_PATIENCE, self.wait()).await {
            Ok(end) => end,
            Err(_) => Err(HostError::Survived { pid: self.pid() }),
        }
    }

    async fn members_gone(&self, deadline: Instant) {
        let mut pause = Duration::from_millis(2);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || has_members(self.leader, self.bond) == Some(false) {
                return;
            }
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// To the end of it all: whom it cannot reach is only logged.
    fn send_all(&self, signal: signal::Signal) {
        self.log(self.send(signal));
        if self.bond == Bond::Session {
            signal_session(self.leader, signal);
        }
    }

    fn log(&self, sent: Result<(), HostError>) {
        if let Err(error) = sent {
            tracing::warn!(pid = self.pid(), %error, "a process of another user cannot be ended");
        }
    }

    /// Waits for the first process and lets the group go: what it started in the background lives on.
    ///
    /// # Errors
    /// [`HostError::Watch`].
    ///
    /// # Cancel safety
    /// Dropping the future kills the group, as dropping the group does.
    pub async fn finish(mut self) -> Result<CommandEnd, HostError> {
        let end = self.wait().await?;
        // An error means that somebody else collected it; the end is known all the same.
        let _ = look(self.leader, Collect::Yes);
        self.collected = true;
        Ok(end)
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if self.collected {
            return;
        }
        self.send_all(signal::SIGKILL);
        if matches!(look(self.leader, Collect::Yes), Ok(None)) {
            collect_later(self.leader);
        }
    }
}
