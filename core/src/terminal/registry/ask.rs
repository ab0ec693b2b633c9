//! What sessions are asked: which there are, how they are, and to take a client.

use std::time::Duration;

use malai_model::id::Id52;
use malai_model::name::ClusterAlias;
use malai_model::wire::{AttachSession, SessionId, SessionInfo, WindowSize};

use super::{Sessions, join_all};
use crate::terminal::connection::{HostConnection, ask_info};
use crate::terminal::error::{SessionError, UnknownSession};
use crate::terminal::record::SessionRecord;

/// So many sessions are asked at once.
const AT_ONCE: usize = 32;

impl Sessions {
    /// Finds a session of an owner; without a name, the only one that nobody is attached to, or the only one.
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
        let infos = self.infos(own().collect()).await;
        let here = infos.into_iter().filter_map(|(record, info)| Some((record, info?.attached)));
        let (taken, free): (Vec<_>, Vec<_>) = here.partition(|(_, attached)| *attached);
        match (free.len(), taken.len()) {
            (1, _) => free,
            // A client that was killed counts as attached until its connection is given up.
            (0, 1) => taken,
            (0, _) => return Err(SessionError::Unknown(UnknownSession::None)),
            (several, _) => return Err(SessionError::Unknown(UnknownSession::Several(several))),
        }
        .into_iter()
        .next()
        .map(|(record, _)| record)
        .ok_or(SessionError::Unknown(UnknownSession::None))
    }

    /// How the sessions of an owner are, oldest first. One that does not answer is told of as its record has it.
    pub async fn list(&self, cluster: &ClusterAlias, owner: &Id52) -> Vec<SessionInfo> {
        let own = self.records().into_iter().filter(|r| r.owner == *owner && r.cluster == *cluster).collect();
        let infos = self.infos(own).await;
        infos.into_iter().filter_map(|(_, info)| info).collect()
    }

    /// How many sessions of an owner run that nobody is attached to, of the 32 oldest and those that answer in time.
    pub async fn count_detached(&self, cluster: &ClusterAlias, owner: &Id52, within: Duration) -> u32 {
        let own = self.records().into_iter().filter(|r| r.owner == *owner && r.cluster == *cluster);
        let own: Vec<SessionRecord> = own.take(AT_ONCE).collect();
        let asked = own.iter().map(|record| tokio::time::timeout(within, self.info(record)));
        let is_detached = |info: &SessionInfo| !info.attached && info.ended.is_none();
        let answers = join_all(asked).await.into_iter();
        answers.map(|info| u32::from(matches!(info, Ok(Ok(info)) if is_detached(&info)))).sum()
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
