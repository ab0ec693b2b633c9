//! How a session begins: its record, its process, and what that says of it.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use malai_model::wire::SessionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Entry, RECORD, Sessions, State, run_blocking};
use crate::host::{Executable, LocalUser, Process, SpawnRequest};
use crate::terminal::error::SessionError;
use crate::terminal::host::SESSION_PROGRAM;
use crate::terminal::job::{HostJob, HostReply, SessionJob};
use crate::terminal::life;
use crate::terminal::record::SessionRecord;
use crate::timeouts;

/// The longest answer of a session's process at its start, in bytes.
const MAX_REPLY: u64 = 64 * 1024;
/// How long a session's process may take to start its program.
const START: Duration = timeouts::HANDSHAKE;

impl Sessions {
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
            restricted: record.effect.restricted,
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
