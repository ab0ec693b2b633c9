//! The sessions of this home: their directories and records, what they are asked, and their end.

mod ask;
mod end;
mod start;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use malai_model::id::Id52;
use malai_model::wire::SessionId;

use super::error::SessionError;
use super::record::{SessionEnd, SessionRecord};
use crate::home::{Home, HomeError};
use crate::host::OwnProgram;

/// The file with a session's record.
const RECORD: &str = "session.json";

/// The sessions that live on this machine for the clusters of one home. Cheap to clone.
///
/// Only the daemon of the home has one: the home's lock keeps others away.
#[derive(Debug, Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    home: Home,
    program: OwnProgram,
    entries: Mutex<BTreeMap<SessionId, Entry>>,
    gone: Gone,
}

/// Hears of each session once when its process is no more. Called from any thread; must not block.
pub trait SessionWatch: Send + Sync {
    /// Hears of one.
    fn gone(&self, record: &SessionRecord, end: Option<&SessionEnd>);
}

impl<F: Fn(&SessionRecord, Option<&SessionEnd>) + Send + Sync> SessionWatch for F {
    fn gone(&self, record: &SessionRecord, end: Option<&SessionEnd>) {
        self(record, end);
    }
}

struct Gone(Arc<dyn SessionWatch>);

impl std::fmt::Debug for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gone")
    }
}

#[derive(Debug, Clone)]
struct Entry {
    record: SessionRecord,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its process is being started: nobody may take it for dead.
    Starting,
    /// It can be talked to.
    Runs,
}

impl Sessions {
    /// Finds the sessions of a home again, clears away those that are dead, and ends those whose record cannot be read.
    /// Blocks for some milliseconds; for seconds, if there is one of the latter.
    ///
    /// `program` is started for each session; it has to act as a session's process when it is called
    /// [`SESSION_PROGRAM`](super::SESSION_PROGRAM). `gone` hears of those that are no more, also of what is found dead here.
    ///
    /// # Errors
    /// [`SessionError::Home`] if the directory of sessions cannot be read.
    pub fn open(home: Home, program: OwnProgram, gone: Arc<dyn SessionWatch>) -> Result<Self, SessionError> {
        let mut entries = BTreeMap::new();
        for session in ids_in(&home.sessions_dir())? {
            let dir = dir_of(&home, &session);
            match home.load_json::<SessionRecord>(&dir.join(RECORD)) {
                Ok(Some(record)) if record.session == session => {
                    entries.insert(session, Entry { record, state: State::Runs });
                }
                Ok(_) => tracing::warn!(%session, "a session has no record of its own"),
                Err(error) => tracing::warn!(%session, %error, "a session's record cannot be read"),
            }
        }
        let sessions =
            Self { inner: Arc::new(Inner { home, program, entries: Mutex::new(entries), gone: Gone(gone) }) };
        sessions.sweep_blocking();
        if !sessions.unowned().is_empty() {
            sessions.end_unowned_blocking()?;
        }
        Ok(sessions)
    }

    /// The records of all sessions that are not known to be dead, oldest first.
    pub fn records(&self) -> Vec<SessionRecord> {
        let mut records: Vec<_> = self
            .entries()
            .values()
            .filter(|entry| entry.state == State::Runs)
            .map(|e| e.record.clone())
            .collect();
        records.sort_by(|a, b| (a.started, &a.session).cmp(&(b.started, &b.session)));
        records
    }

    /// How many sessions an owner has, those being started among them.
    pub fn count(&self, owner: &Id52) -> usize {
        self.entries().values().filter(|entry| entry.record.owner == *owner).count()
    }

    /// How many sessions there are, those being started among them.
    pub fn total(&self) -> usize {
        self.entries().len()
    }

    fn dir(&self, session: &SessionId) -> PathBuf {
        dir_of(&self.inner.home, session)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<SessionId, Entry>> {
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn blocking<T: Default + Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let sessions = self.clone();
        run_blocking(move || work(&sessions)).await.unwrap_or_default()
    }
}

fn dir_of(home: &Home, session: &SessionId) -> PathBuf {
    home.sessions_dir().join(session.as_str())
}

fn ids_in(dir: &Path) -> Result<Vec<SessionId>, SessionError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(HomeError::io("list", dir, source).into());
        }
    };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(ids.collect())
}

/// Runs what blocks in a thread of its own.
async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SessionError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| SessionError::Interrupted(error.to_string()))
}

/// Drives some futures together to their ends.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

#[cfg(test)]
mod tests;
