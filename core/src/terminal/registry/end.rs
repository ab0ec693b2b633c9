//! How sessions end: those that are to, those that nobody owns, and what the dead have left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use malai_model::wire::{CommandEnd, SessionId};

use super::{Entry, Sessions, State, ids_in, join_all};
use crate::terminal::connection::ask_end;
use crate::terminal::error::SessionError;
use crate::terminal::life::{self, Life};
use crate::terminal::protocol::EndReason;
use crate::terminal::record::SessionRecord;
use crate::timeouts;

/// How often a session's process is killed that does not end.
const KILLS: usize = 2;

impl Sessions {
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

    pub(super) async fn end_process(
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

    pub(super) fn sweep_blocking(&self) -> usize {
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
    pub(super) fn clear(&self, session: &SessionId) -> bool {
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
    pub(super) async fn await_end(&self, session: &SessionId) -> bool {
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

    /// The sessions that live and have no record that can be read.
    pub(super) fn unowned(&self) -> Vec<SessionId> {
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
    pub(super) fn end_unowned_blocking(&self) -> Result<(), SessionError> {
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
}
