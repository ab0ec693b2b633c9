//! Collects processes whose owner is gone.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::Pid;

use super::watch::{Collect, look};

/// How often processes that were killed and have not ended yet are looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// Collects a child that was killed, as soon as it has ended. Returns at once.
///
/// A thread of its own, since this is called where no runtime may be left; it exists only once something was
/// handed over.
pub(super) fn collect_later(pid: Pid) {
    static REAPER: Mutex<Option<Sender<Pid>>> = Mutex::new(None);
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = &*reaper
        && sender.send(pid).is_ok()
    {
        return;
    }
    let (sender, receiver) = mpsc::channel::<Pid>();
    let started = std::thread::Builder::new().name("malai-reaper".to_owned()).spawn(move || {
        let mut left: Vec<Pid> = Vec::new();
        loop {
            let next = match left.is_empty() {
                true => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => receiver.recv_timeout(INTERVAL),
            };
            match next {
                Ok(pid) => left.push(pid),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // An error means that somebody else collected it.
            left.retain(|pid| matches!(look(*pid, Collect::Yes), Ok(None)));
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "a killed process stays on the process table");
        return;
    }
    let _ = sender.send(pid);
    *reaper = Some(sender);
}
