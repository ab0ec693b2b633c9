//! The sessions of this home: their directories and records, what they are asked, and their end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use malai_model::id::Id52;
use malai_model::name::ClusterAlias;
use malai_model::wire::{AttachSession, CommandEnd, SessionId, SessionInfo, WindowSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::{HostConnection, ask_end, ask_info};
use super::error::{SessionError, UnknownSession};
use super::host::SESSION_PROGRAM;
use super::job::{HostJob, HostReply, SessionJob};
use super::life::{self, Life};
use super::protocol::EndReason;
use super::record::{SessionEnd, SessionRecord};
use crate::home::{Home, HomeError};
use crate::host::{Executable, LocalUser, OwnProgram, Process, SpawnRequest};
use crate::timeouts;

/// The file with a session's record.
const RECORD: &str = "session.json";
/// The longest answer of a session's process at its start, in bytes.
const MAX_REPLY: u64 = 64 * 1024;
/// How long a session's process may take to start its program.
const START: Duration = timeouts::HANDSHAKE;
/// How often a session's process is killed that does not end.
const KILLS: usize = 2;

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
    /// [`SESSION_PROGRAM`]. `gone` hears of those that are no more, also of what is found dead here.
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

    /// The sessions that live and have no record that can be read.
    fn unowned(&self) -> Vec<SessionId> {
        // One that is being started is among the entries before it has a directory.
        let in_dir = ids_in(&self.inner.home.sessions_dir()).unwrap_or_default();
        let known: BTreeSet<_> = self.entries().keys().cloned().collect();
        let lives = |session: &SessionId| !matches!(life::look(&self.dir(session)), Ok(Life::Dead(_)));
        in_dir.into_iter().filter(|session| !known.contains(session) && lives(session)).collect()
    }

    /// Ends those whose owner is not known: nobody could list them, and no change of the rules would reach them.
    async fn end_unowned(&self) {
        let unowned = self.blocking(|sessions| sessions.unowned()).await;
        let ends = unowned.iter().map(|session| async move {
            tracing::warn!(%session, "a session is ended: whose it is cannot be read");
            if let Err(error) = self.end_process(session, EndReason::Revoked).await {
                tracing::error!(%session, %error, "a session that nobody owns could not be ended");
            }
        });
        join_all(ends).await;
    }

    /// The same where there is no runtime to wait in.
    fn end_unowned_blocking(&self) -> Result<(), SessionError> {
        let ended = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(self.end_unowned());
                std::io::Result::Ok(())
            });
            thread.join().map_err(|_| std::io::Error::other("ending them panicked"))
        });
        ended.flatten().map_err(|error| SessionError::Interrupted(error.to_string()))
    }

    /// Starts a session.
    ///
    /// # Errors
    /// [`SessionError::User`], [`SessionError::Refused`] with what kept the program from starting (its code is that of a
    /// command), [`SessionError::Start`], [`SessionError::Silent`], [`SessionError::Home`].
    ///
    /// # Cancel safety
    /// Dropped in the middle, a session that was about to start may be left; nobody is attached to it.
    pub async fn start(&self, job: SessionJob) -> Result<SessionRecord, SessionError> {
        let user = match &job.grant.effect().username {
            Some(name) => name.clone(),
            None => LocalUser::current().map_err(SessionError::User)?.name,
        };
        let record = SessionRecord {
            session: self.new_id(),
            owner: *job.grant.caller(),
            cluster: job.cluster.clone(),
            own: job.own,
            ask: job.grant.ask(),
            effect: job.grant.effect(),
            user,
            started: Timestamp::now(),
        };
        let claim = Claim::new(self, record.clone());
        match self.start_process(&record, &job).await {
            Ok(()) => {
                claim.keep(record.clone());
                tracing::info!(
                    session = %record.session, owner = %record.owner, user = %record.user,
                    "a session began"
                );
                Ok(record)
            }
            Err(error) => {
                drop(claim);
                let session = record.session.clone();
                // If it lives it is too late: nobody was told of it.
                self.blocking(move |sessions| life::kill(&sessions.dir(&session))).await;
                self.await_end(&record.session).await;
                Err(error)
            }
        }
    }

    async fn start_process(&self, record: &SessionRecord, job: &SessionJob) -> Result<(), SessionError> {
        self.save(record).await?;
        let own = LocalUser::current().map_err(SessionError::User)?;
        let process = Process::spawn(&SpawnRequest {
            argv: vec![SESSION_PROGRAM.to_owned()],
            env: Vec::new(),
            dir: PathBuf::from("/"),
            user: own,
            program: Executable::Own(self.inner.program.clone()),
        })
        .map_err(SessionError::Start)?;
        let Process { mut stdin, stdout, stderr, group } = process;
        // Nothing of it is of interest, and closed it could not write at all.
        let _stderr = stderr;
        let order = HostJob {
            session: record.session.clone(),
            dir: self.dir(&record.session),
            owner: record.owner,
            owner_name: job.grant.caller_name().cloned(),
            cluster: record.cluster.clone(),
            argv: record.argv().to_vec(),
            effect: record.effect.clone(),
            env: job.env.clone(),
            window: job.window,
            idle_ms: job.idle.and_then(|idle| u64::try_from(idle.as_millis()).ok()),
            audience: job.audience,
            opener: job.opener.clone(),
        };
        let talk = async {
            stdin.write_all(&serde_json::to_vec(&order)?).await?;
            drop(stdin);
            let mut reply = Vec::new();
            stdout.take(MAX_REPLY).read_to_end(&mut reply).await?;
            std::io::Result::Ok(reply)
        };
        let told = tokio::time::timeout(START, talk).await;
        // What was started ends as soon as its copy, which is the session's process, is on its own.
        let reply = match told {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                tracing::warn!(session = %record.session, %error, "a session's process did not begin");
                return Err(SessionError::Silent);
            }
            Err(_) => return Err(SessionError::Silent),
        };
        if let Err(error) = group.finish().await {
            tracing::debug!(session = %record.session, %error, "a session's process was collected by another");
        }
        match serde_json::from_slice(&reply) {
            Ok(HostReply::Runs {}) => Ok(()),
            Ok(HostReply::Failed(error)) => Err(SessionError::Refused(error)),
            Err(_) => Err(SessionError::Silent),
        }
    }

    async fn save(&self, record: &SessionRecord) -> Result<(), SessionError> {
        let home = self.inner.home.clone();
        let path = self.dir(&record.session).join(RECORD);
        let record = record.clone();
        let guard = home.lock_for_writing().await?;
        run_blocking(move || home.save_json(&guard, &path, &record)).await??;
        Ok(())
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

    /// Finds a session of an owner; without a name, the only one that nobody is attached to.
    ///
    /// # Errors
    /// [`SessionError::Unknown`], the same for one that is not there and for another's.
    pub async fn find(
        &self,
        cluster: &ClusterAlias,
        owner: &Id52,
        session: Option<&SessionId>,
    ) -> Result<SessionRecord, SessionError> {
        let own = || self.records().into_iter().filter(|r| r.owner == *owner && r.cluster == *cluster);
        if let Some(session) = session {
            let unknown = || SessionError::Unknown(UnknownSession::Named(session.clone()));
            return own().find(|record| record.session == *session).ok_or_else(unknown);
        }
        let mut free = Vec::new();
        for (record, info) in self.infos(own().collect()).await {
            if info.is_some_and(|info| !info.attached) {
                free.push(record);
            }
        }
        match free.len() {
            1 => Ok(free.remove(0)),
            0 => Err(SessionError::Unknown(UnknownSession::None)),
            several => Err(SessionError::Unknown(UnknownSession::Several(several))),
        }
    }

    /// How the sessions of an owner are, oldest first. One that does not answer is told of as its record has it.
    pub async fn list(&self, cluster: &ClusterAlias, owner: &Id52) -> Vec<SessionInfo> {
        let own = self.records().into_iter().filter(|r| r.owner == *owner && r.cluster == *cluster).collect();
        let infos = self.infos(own).await;
        infos.into_iter().filter_map(|(_, info)| info).collect()
    }

    /// How a session is.
    ///
    /// # Errors
    /// [`SessionError::Gone`], and then its directory is cleared away; [`SessionError::Unanswered`],
    /// [`SessionError::Malformed`].
    pub async fn info(&self, record: &SessionRecord) -> Result<SessionInfo, SessionError> {
        let told = ask_info(&record.session, &self.dir(&record.session)).await;
        let mut info = self.unless_gone(record, told).await?;
        // What it says of itself is shown; whose it is and what it is called is ours to say.
        info.session = record.session.clone();
        info.user.clone_from(&record.user);
        info.argv = record.argv().to_vec();
        Ok(info)
    }

    async fn infos(&self, records: Vec<SessionRecord>) -> Vec<(SessionRecord, Option<SessionInfo>)> {
        /// So many are asked at once.
        const AT_ONCE: usize = 32;
        let mut told = Vec::with_capacity(records.len());
        for records in records.chunks(AT_ONCE) {
            let asked = records.iter().map(|record| async {
                let info = match self.info(record).await {
                    Ok(info) => Some(info),
                    Err(SessionError::Gone { .. }) => None,
                    Err(error) => {
                        tracing::warn!(session = %record.session, %error, "a session does not answer");
                        Some(info_of(record))
                    }
                };
                (record.clone(), info)
            });
            told.extend(join_all(asked).await);
        }
        told
    }

    /// Attaches a client: `request` says how, and `record` to which.
    ///
    /// # Errors
    /// [`SessionError::Refused`] when it has as many clients as it takes; [`SessionError::Gone`], and then its directory
    /// is cleared away; [`SessionError::Unanswered`], [`SessionError::Malformed`].
    ///
    /// # Cancel safety
    /// Cancel safe: a client that was attached is let go.
    pub async fn attach(
        &self,
        record: &SessionRecord,
        request: &AttachSession,
    ) -> Result<HostConnection, SessionError> {
        let told = HostConnection::attach(&record.session, &self.dir(&record.session), request).await;
        self.unless_gone(record, told).await
    }

    /// Ends a session: SIGHUP for all that runs in it, SIGKILL for what is left 5 s later. Clients that are attached
    /// hear of it. A session that does not answer is killed. Returns how the program ended, if that is known.
    ///
    /// # Errors
    /// [`SessionError::Unanswered`], [`SessionError::Gone`] or [`SessionError::Malformed`] if it can neither be asked nor
    /// killed: it lives on.
    ///
    /// # Cancel safety
    /// Once it is asked it ends, whether or not somebody waits.
    pub async fn end(
        &self,
        record: &SessionRecord,
        reason: EndReason,
    ) -> Result<Option<CommandEnd>, SessionError> {
        self.end_process(&record.session, reason).await
    }

    async fn end_process(
        &self,
        session: &SessionId,
        reason: EndReason,
    ) -> Result<Option<CommandEnd>, SessionError> {
        let dir = self.dir(session);
        let mut told = ask_end(session, &dir, reason).await;
        if matches!(told, Err(SessionError::Gone { .. })) && !self.await_end(session).await {
            // It hung up, which is not its death: its lock says that it lives.
            told = ask_end(session, &dir, reason).await;
        }
        // It says that it ended just before it goes.
        if matches!(told, Ok(_) | Err(SessionError::Gone { .. })) && self.await_end(session).await {
            tracing::info!(%session, "a session was ended");
            return Ok(told.ok());
        }
        tracing::warn!(%session, "a session does not end: it is killed");
        for _ in 0..KILLS {
            let name = session.clone();
            let killed = self.blocking(move |sessions| life::kill(&sessions.dir(&name))).await;
            if killed && self.await_end(session).await {
                return Ok(told.ok());
            }
        }
        Err(told.err().unwrap_or_else(|| SessionError::Unanswered {
            session: session.clone(),
            source: std::io::Error::other("it lives on"),
        }))
    }

    /// Clears away what dead sessions left, and ends those whose record cannot be read. Returns how many were dead.
    pub async fn sweep(&self) -> usize {
        let cleared = self.blocking(|sessions| sessions.sweep_blocking()).await;
        self.end_unowned().await;
        cleared
    }

    fn sweep_blocking(&self) -> usize {
        let in_dir = match ids_in(&self.inner.home.sessions_dir()) {
            Ok(ids) => ids,
            Err(error) => {
                tracing::warn!(%error, "sessions that ended cannot be looked for");
                Vec::new()
            }
        };
        let known: Vec<_> = self.entries().keys().cloned().collect();
        let mut all: Vec<_> = in_dir.into_iter().chain(known).collect();
        all.sort();
        all.dedup();
        all.iter().filter(|session| self.clear(session)).count()
    }

    /// Clears a session away, if it is dead and not being started.
    fn clear(&self, session: &SessionId) -> bool {
        let starting = |entries: &BTreeMap<SessionId, Entry>| {
            entries.get(session).is_some_and(|entry| entry.state == State::Starting)
        };
        if starting(&self.entries()) {
            return false;
        }
        let dir = self.dir(session);
        // Held until the directory is gone: a process that comes too late finds it taken, or missing.
        let _lock = match life::look(&dir) {
            Ok(Life::Dead(lock)) => lock,
            Ok(Life::Lives) => return false,
            Err(error) => {
                tracing::warn!(%session, %error, "whether a session lives is not known");
                return false;
            }
        };
        let end = life::left_end(&dir);
        let removed = self
            .inner
            .home
            .lock_for_writing_blocking()
            .and_then(|guard| self.inner.home.remove_dir(&guard, &dir));
        if let Err(error) = removed {
            tracing::warn!(%session, %error, "what a session left cannot be removed");
        }
        let entry = self.entries().remove(session);
        if let Some(entry) = entry {
            self.inner.gone.0.gone(&entry.record, end.as_ref());
        }
        true
    }

    /// Waits a little until the process of a session that says it ends is gone, and clears it away. Says whether it is.
    async fn await_end(&self, session: &SessionId) -> bool {
        let deadline = tokio::time::Instant::now() + timeouts::CLOSE;
        loop {
            let name = session.clone();
            if self.blocking(move |sessions| sessions.clear(&name)).await {
                return true;
            }
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn unless_gone<T>(
        &self,
        record: &SessionRecord,
        told: Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        if matches!(told, Err(SessionError::Gone { .. })) {
            let session = record.session.clone();
            self.blocking(move |sessions| sessions.clear(&session)).await;
        }
        told
    }

    fn new_id(&self) -> SessionId {
        loop {
            let mut bytes = [0; 8];
            // The id is no secret; without random numbers the time is good enough to tell sessions apart.
            if getrandom::fill(&mut bytes).is_err() {
                bytes =
                    Timestamp::now().as_nanosecond().to_le_bytes().first_chunk().copied().unwrap_or_default();
            }
            let session = SessionId::from_random(bytes);
            if !self.entries().contains_key(&session) && !self.dir(&session).exists() {
                return session;
            }
        }
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

/// A session that is being started: forgotten again unless it is kept.
struct Claim<'a> {
    sessions: &'a Sessions,
    session: SessionId,
    kept: bool,
}

impl<'a> Claim<'a> {
    fn new(sessions: &'a Sessions, record: SessionRecord) -> Self {
        let session = record.session.clone();
        sessions.entries().insert(session.clone(), Entry { record, state: State::Starting });
        Self { sessions, session, kept: false }
    }

    fn keep(mut self, record: SessionRecord) {
        self.kept = true;
        self.sessions.entries().insert(self.session.clone(), Entry { record, state: State::Runs });
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Some(entry) = self.sessions.entries().get_mut(&self.session)
        {
            // If it lives after all it is found by its directory, else it is swept.
            entry.state = State::Runs;
        }
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

/// What is known of a session without asking it.
fn info_of(record: &SessionRecord) -> SessionInfo {
    SessionInfo {
        session: record.session.clone(),
        argv: record.argv().to_vec(),
        user: record.user.clone(),
        started: record.started,
        active: record.started,
        attached: false,
        watchers: 0,
        window: WindowSize::default(),
        title: String::new(),
        ended: None,
    }
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
