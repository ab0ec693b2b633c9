//! Sessions of peers on this device: who may start, see, attach to and end one, and for how long.
//!
//! A session belongs to the identity that started it, in its cluster; for everybody else it does not exist.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::audit::{Begun, record_session_gone};
use super::serve::{
    Asker, ServeProblem, answer, denied_to_caller, denied_to_owner, in_time, loggable, refuse,
};
use super::work::Ticket;
use super::{Member, Node};
use crate::cluster::{LoadedCluster, RunDenied};
use crate::p2p::Stream;
use crate::terminal::{
    self, Attending, Audience, EndReason, Opener, SessionAsk, SessionEffect, SessionEnd, SessionGrant,
    SessionJob, SessionOutcome, SessionRecord, Sessions,
};
use jiff::Timestamp;
use malai_model::audit::{Outcome, Wanted};
use malai_model::code::ErrorCode;
use malai_model::id::Id52;
use malai_model::wire::local::Place;
use malai_model::wire::{
    AttachMode, AttachSession, CommandEnd, Notice, OpenSession, SessionId, SessionInfo, WireError,
};

/// How often what dead sessions left is cleared away.
const SWEEP_EVERY: std::time::Duration = std::time::Duration::from_secs(60);
/// How much of a list goes into one message, in bytes of JSON.
const LISTED_AT_ONCE: usize = 32 * 1024;
/// How long the words of a listed program may be, in bytes.
const LISTED_WORDS: usize = 4 * 1024;
/// How many sessions whose program has ended are kept beyond those that may run, of a peer and in all.
const ENDED_KEPT: usize = 64;
/// The signal that ends what does not heed another, where the end of a session is not told.
const SIGKILL: u8 = 9;

/// Sessions that are about to start, by their owner: they count until they run.
#[derive(Debug, Default)]
pub(super) struct Opening(Mutex<HashMap<Id52, usize>>);

struct Reserved<'a> {
    opening: &'a Opening,
    peer: Id52,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut opening = self.opening.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = opening.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                opening.remove(&self.peer);
            }
        }
    }
}

impl Node {
    /// Finds the sessions again that an earlier daemon of this home started.
    pub(super) async fn find_sessions(&self) {
        let Some(program) = self.inner.exec.own_program().cloned() else {
            tracing::warn!("no sessions can be started here: the malai program is not known");
            return;
        };
        let opened = self
            .blocking(move |node| {
                let audit = node.audit().clone();
                let gone = Arc::new(move |record: &SessionRecord, end: Option<&SessionEnd>| {
                    record_session_gone(&audit, record, end);
                });
                Ok(Sessions::open(node.home().clone(), program, gone))
            })
            .await;
        match opened {
            Ok(Ok(sessions)) => {
                let found = sessions.records().len();
                if found > 0 {
                    tracing::info!("found {found} sessions that went on meanwhile");
                }
                _ = self.inner.sessions.set(sessions);
            }
            Ok(Err(error)) => tracing::error!(%error, "no sessions can be started here"),
            Err(error) => tracing::error!(%error, "no sessions can be started here"),
        }
    }

    /// Clears away what dead sessions left, now and then, and looks again whether those that live may: one whose end
    /// failed is not forgotten.
    pub(super) fn keep_sessions(&self) {
        let node = self.clone();
        self.inner.scope.spawn_until_stop("sessions", async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                if let Some(sessions) = node.inner.sessions.get() {
                    sessions.sweep().await;
                }
                node.members().values().for_each(|member| node.authorise_sessions(member));
                node.end_foreign_sessions();
            }
        });
    }

    /// Asks every session of a cluster, attached or not, whether it is still allowed, and ends those that are not.
    pub(super) fn authorise_sessions(&self, member: &Member) {
        let loaded = member.loaded();
        self.end_sessions("its right was taken away", |record| {
            record.cluster == loaded.alias && !self.may_stay(&loaded, record)
        });
    }

    /// Ends the sessions of clusters that are not this home's any more.
    pub(super) fn end_foreign_sessions(&self) {
        let members = self.members();
        self.end_sessions("its cluster is gone", |record| {
            members.get(&record.cluster).is_none_or(|member| member.own_id() != record.own)
        });
    }

    fn end_sessions(&self, why: &'static str, over: impl Fn(&SessionRecord) -> bool) {
        let Some(sessions) = self.inner.sessions.get() else { return };
        for record in sessions.records().into_iter().filter(over) {
            let (node, sessions) = (self.clone(), sessions.clone());
            self.inner.scope.spawn("end session", async move {
                tracing::warn!(
                    cluster = %record.cluster, peer = %record.owner, session = %record.session,
                    "a session is ended: {why}"
                );
                match sessions.end(&record, EndReason::Revoked).await {
                    Ok(end) => node.record_session_end(&record, Outcome::Revoked, end),
                    Err(error) => {
                        tracing::error!(session = %record.session, %error, "a session could not be ended");
                    }
                }
            });
        }
    }

    fn may_stay(&self, loaded: &LoadedCluster, record: &SessionRecord) -> bool {
        loaded.own_id == record.own
            && loaded.admits(&record.owner)
            && self
                .decide_session(loaded, &record.owner, &record.ask)
                .is_ok_and(|grant| grant.effect() == record.effect)
    }

    fn decide_session(
        &self,
        loaded: &LoadedCluster,
        peer: &Id52,
        ask: &SessionAsk,
    ) -> Result<SessionGrant, RunDenied> {
        match ask {
            SessionAsk::Shell {} => loaded.authorize_shell(peer, &self.ceilings()).map(SessionGrant::Shell),
            SessionAsk::Run { argv } => {
                loaded.authorize_run(peer, argv, &self.ceilings()).map(SessionGrant::Run)
            }
        }
    }

    /// Decides, and has the ticket revoked when the decision would be another one.
    fn decide_while(
        &self,
        member: &Arc<Member>,
        peer: Id52,
        ask: &SessionAsk,
        ticket: &Ticket,
    ) -> Result<SessionGrant, RunDenied> {
        let granted = Arc::new(OnceLock::<SessionEffect>::new());
        let (node, first, asked) = (self.clone(), Arc::clone(&granted), ask.clone());
        ticket.allow_while(Box::new(move |loaded| {
            match (node.decide_session(loaded, &peer, &asked), first.get()) {
                (Ok(grant), Some(effect)) => grant.effect() == *effect,
                (decision, None) => decision.is_ok(),
                (Err(_), _) => false,
            }
        }));
        let loaded = member.loaded();
        let grant = self.decide_session(&loaded, &peer, ask)?;
        granted.get_or_init(|| grant.effect());
        if !Arc::ptr_eq(&loaded, &member.loaded()) {
            // The rules changed before it was known what they granted, so nobody could compare.
            self.inner.work.authorise_again(&member.loaded());
        }
        Ok(grant)
    }

    /// Starts a session for a peer and, unless it shall run by itself, joins the two.
    pub(super) async fn serve_open_session(
        &self,
        member: &Arc<Member>,
        asker: Asker,
        stream: Stream,
        request: OpenSession,
        ticket: Ticket,
    ) -> Result<(), ServeProblem> {
        let peer = asker.peer;
        if self.has_no_room(member, &peer) {
            self.refuse_busy(member, asker, stream);
            return Ok(());
        }
        let ask = match &request.argv {
            None => SessionAsk::Shell {},
            Some(argv) => SessionAsk::Run { argv: argv.clone() },
        };
        let (started, begun) = match self.start_session(member, asker, &ask, &request, &ticket).await {
            Ok(started) => started,
            Err(refused) => {
                refuse(stream, refused).await;
                return Ok(());
            }
        };
        let record = started.record();
        let (alias, session, user) = (member.alias(), &record.session, &record.user);
        tracing::info!(cluster = %alias, %peer, command = word_of(&ask), %session, user, "a session starts");
        match started {
            Started::Alone(record) => {
                begun.runs_alone();
                answer(stream.sender, &Notice::Opened { session: record.session }).await
            }
            Started::Attached(record, connection) => {
                let attending = if request.confirms { Attending::WillSay } else { Attending::Knows };
                self.attend(member, peer, &record, (stream, *connection, attending), &ticket, begun).await;
                Ok(())
            }
        }
    }

    async fn start_session(
        &self,
        member: &Arc<Member>,
        asker: Asker,
        ask: &SessionAsk,
        request: &OpenSession,
        ticket: &Ticket,
    ) -> Result<(Started, Begun), WireError> {
        let peer = asker.peer;
        let sessions = self.hosted_sessions()?;
        let grant = self.decide_or_tell(member, asker, ask, ticket)?;
        let reserved = self.reserve(sessions, peer).await?;
        let (command, effect) = (asked_word(ask), grant.effect());
        let mut begun =
            self.begin_session(&member.loaded(), asker, command, effect.username.as_deref()).await?;
        let job = SessionJob {
            grant,
            cluster: member.alias().clone(),
            own: member.own_id(),
            env: request.env.clone(),
            window: request.window,
            idle: self.device().limits.idle_session,
            audience: if request.client.is_some() { Audience::Expected } else { Audience::None },
            opener: self.opener(request),
        };
        let record = match sessions.start(job).await {
            Ok(record) => record,
            Err(error) => {
                tracing::info!(cluster = %member.alias(), %peer, %error, "a session could not be started");
                let told = error.to_wire();
                begun.failed(told.code);
                return Err(told);
            }
        };
        begun.session_opened(&record.session);
        drop(reserved);
        // A change of the rules asks those that run; this one was about to.
        let gone = self.members().get(member.alias()).is_none_or(|now| !Arc::ptr_eq(now, member));
        if gone || ticket.revoked.is_cancelled() || !self.may_stay(&member.loaded(), &record) {
            _ = sessions.end(&record, EndReason::Revoked).await;
            begun.session_left(&SessionOutcome::Revoked);
            return Err(WireError::taken_away("the session"));
        }
        let Some(client) = request.client.clone() else { return Ok((Started::Alone(record), begun)) };
        let attach = AttachSession {
            session: Some(record.session.clone()),
            mode: AttachMode::Control,
            client,
            window: request.window,
            // From its first byte on.
            received: Some(0),
        };
        match sessions.attach(&record, &attach).await {
            Ok(connection) => Ok((Started::Attached(record, Box::new(connection)), begun)),
            Err(error) => {
                // Nobody knows its name yet.
                _ = sessions.end(&record, EndReason::Asked).await;
                let told = error.to_wire();
                begun.failed(told.code);
                Err(told)
            }
        }
    }

    /// The client that has to say that it knows of its session, if it does say that.
    fn opener(&self, request: &OpenSession) -> Option<Opener> {
        let client = request.client.clone().filter(|_| request.confirms)?;
        Some(Opener { client, kept: self.device().limits.resume })
    }

    /// Lets a peer attach to a session of its own, if it may still do what the session does.
    pub(super) async fn serve_attach_session(
        &self,
        member: &Arc<Member>,
        asker: Asker,
        stream: Stream,
        request: AttachSession,
        ticket: Ticket,
    ) -> Result<(), ServeProblem> {
        let peer = asker.peer;
        if self.is_crowded(member, &peer) {
            self.refuse_busy(member, asker, stream);
            return Ok(());
        }
        let attached = async {
            let sessions = self.hosted_sessions()?;
            let found = sessions.find(member.alias(), &peer, request.session.as_ref()).await;
            let record = found.map_err(|error| error.to_wire())?;
            let grant = self.decide_or_tell(member, asker, &record.ask, &ticket)?;
            if grant.effect() != record.effect || record.own != member.own_id() {
                self.record_denial(
                    &member.loaded(),
                    asker,
                    wanted(&record.ask),
                    &"its right is another one now",
                );
                return Err(WireError::taken_away("the session"));
            }
            let loaded = member.loaded();
            let begun = self.begin_attaching(&loaded, asker, &record.session, request.mode).await?;
            match sessions.attach(&record, &request).await {
                Ok(connection) => Ok((record, connection, begun)),
                Err(error) => {
                    let told = error.to_wire();
                    begun.failed(told.code);
                    Err(told)
                }
            }
        };
        match attached.await {
            Ok((record, connection, begun)) => {
                let (alias, session, mode) = (member.alias(), &record.session, request.mode);
                tracing::info!(cluster = %alias, %peer, %session, ?mode, "a client attaches to a session");
                self.attend(member, peer, &record, (stream, connection, Attending::Knows), &ticket, begun)
                    .await;
            }
            Err(refused) => refuse(stream, refused).await,
        }
        Ok(())
    }

    /// Joins a client to its session until one of them has gone, or this daemon is about to: then the client comes back
    /// to the next one.
    async fn attend(
        &self,
        member: &Arc<Member>,
        peer: Id52,
        record: &SessionRecord,
        (stream, connection, attending): (Stream, terminal::HostConnection, Attending),
        ticket: &Ticket,
        begun: Begun,
    ) {
        let (alias, session) = (member.alias(), &record.session);
        ticket.returns();
        let outcome = tokio::select! {
            outcome = terminal::serve(connection, stream, attending, ticket.revoked.clone()) => outcome,
            () = member.lets_go() => return,
        };
        let command = word_of(&record.ask);
        begun.session_left(&outcome);
        match outcome {
            SessionOutcome::Ended(end) => {
                let status = end.shell_status();
                tracing::info!(cluster = %alias, %peer, command, %session, status, "a session ended");
            }
            SessionOutcome::Detached(reason) => {
                tracing::info!(cluster = %alias, %peer, %session, ?reason, "a client left a session, which goes on");
            }
            SessionOutcome::CallerLost => {
                tracing::info!(cluster = %alias, %peer, %session, "a session goes on: its client is gone");
            }
            SessionOutcome::Abandoned => {
                tracing::info!(cluster = %alias, %peer, %session, "a session ends: its client gave up while it was opened");
                if let Some(sessions) = self.inner.sessions.get()
                    && let Err(error) = sessions.end(record, EndReason::Asked).await
                {
                    tracing::error!(%session, %error, "a session that nobody knows of could not be ended");
                }
            }
            SessionOutcome::Revoked => {
                tracing::warn!(cluster = %alias, %peer, %session, "a session was ended: its right was taken away");
            }
            SessionOutcome::Failed(error) => {
                tracing::info!(cluster = %alias, %peer, %session, %error, "a session is over");
            }
        }
    }

    /// Tells a peer of its own sessions.
    pub(super) async fn serve_list_sessions(
        &self,
        member: &Arc<Member>,
        peer: Id52,
        stream: Stream,
    ) -> Result<(), ServeProblem> {
        let sessions = match self.hosted_sessions() {
            Ok(sessions) => sessions.list(member.alias(), &peer).await,
            Err(refused) => {
                refuse(stream, refused).await;
                return Ok(());
            }
        };
        let mut parts = in_parts(sessions).into_iter().peekable();
        // Both halves: the peer asks nothing more, and may leave while it is told.
        let Stream { sender, receiver: _receiver } = stream;
        in_time(async {
            while let Some(sessions) = parts.next() {
                let more = parts.peek().is_some();
                sender.send_message(&Notice::Sessions { sessions, more }).await?;
            }
            sender.finish().await
        })
        .await
    }

    /// Ends a session of a peer's own. That needs no right but that it is its own.
    pub(super) async fn serve_end_session(
        &self,
        member: &Arc<Member>,
        peer: Id52,
        stream: Stream,
        session: SessionId,
    ) -> Result<(), ServeProblem> {
        let ended = async {
            let sessions = self.hosted_sessions()?;
            let found = sessions.find(member.alias(), &peer, Some(&session)).await;
            let record = found.map_err(|error| error.to_wire())?;
            tracing::info!(cluster = %member.alias(), %peer, %session, "a session is ended by its owner");
            let end = sessions.end(&record, EndReason::Asked).await.map_err(|error| error.to_wire())?;
            self.record_session_end(&record, Outcome::Asked, end);
            Ok(end)
        };
        match ended.await {
            Ok(end) => {
                let end = end.unwrap_or(CommandEnd::Killed { signal: SIGKILL });
                answer(stream.sender, &Notice::Ended(end)).await
            }
            Err(refused) => {
                refuse(stream, refused).await;
                Ok(())
            }
        }
    }

    /// Whether a peer has sessions here that it may come back to.
    pub(super) fn has_sessions(&self, member: &Member, peer: &Id52) -> bool {
        let records = self.inner.sessions.get().map(Sessions::records).unwrap_or_default();
        records.iter().any(|record| record.owner == *peer && record.cluster == *member.alias())
    }

    fn hosted_sessions(&self) -> Result<&Sessions, WireError> {
        self.inner.sessions.get().ok_or_else(|| WireError {
            code: ErrorCode::SessionFailed,
            message: "host a session: no daemon runs here that could".to_owned(),
            hint: Some("start it there: `malai daemon`; its log says why, if it runs".to_owned()),
        })
    }

    /// Decides; a refusal is logged with its reason, and told without.
    fn decide_or_tell(
        &self,
        member: &Arc<Member>,
        asker: Asker,
        ask: &SessionAsk,
        ticket: &Ticket,
    ) -> Result<SessionGrant, WireError> {
        let Asker { peer, place, .. } = asker;
        self.decide_while(member, peer, ask, ticket).map_err(|denied| {
            self.record_denial(&member.loaded(), asker, wanted(ask), &denied);
            let command = word_of(ask);
            tracing::warn!(cluster = %member.alias(), %peer, command, reason = %denied, "denied a session");
            let what = match ask {
                SessionAsk::Shell {} => "open a shell".to_owned(),
                SessionAsk::Run { .. } => format!("run {command:?}"),
            };
            match place {
                Place::Elsewhere => denied_to_caller(&what, &denied, member.loaded().own_name.as_ref()),
                Place::Here => denied_to_owner(&what, &denied),
            }
        })
    }

    /// Makes room for one more session of a peer. Sessions that nobody is attached to count as any others; those whose
    /// program has ended do not, as long as there are not too many of them, too.
    async fn reserve(&self, sessions: &Sessions, peer: Id52) -> Result<Reserved<'_>, WireError> {
        if let Some(reserved) = self.try_reserve(sessions, peer, &BTreeMap::new()) {
            return Ok(reserved);
        }
        // Which have ended they alone know, so they are asked only where it matters.
        let ended = ended(sessions).await;
        let mut own = sessions.records();
        own.retain(|record| record.owner == peer && ended.contains_key(&record.session));
        own.sort_by_key(|record| ended.get(&record.session).copied());
        // Each that ended keeps a process and its screen for a while: the newest are those that somebody may come back to.
        // Another peer's are not this one's to end.
        for record in own.iter().rev().skip(ENDED_KEPT) {
            if let Err(error) = sessions.end(record, EndReason::Asked).await {
                tracing::warn!(session = %record.session, %error, "what is left of a session could not be cleared away");
            }
        }
        self.try_reserve(sessions, peer, &ended).ok_or_else(|| WireError {
            code: ErrorCode::LimitReached,
            message: "start another session: there are as many as may be".to_owned(),
            hint: Some("`malai sessions <machine>` lists yours, and --end ends one".to_owned()),
        })
    }

    fn try_reserve(
        &self,
        sessions: &Sessions,
        peer: Id52,
        ended: &BTreeMap<SessionId, Timestamp>,
    ) -> Option<Reserved<'_>> {
        let limits = &self.device().limits;
        let mut opening = self.inner.opening.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What is being started counts here until it is among those that run.
        let starting = opening.get(&peer).copied().unwrap_or(0);
        let in_all = opening.values().sum::<usize>();
        let records = sessions.records();
        let has_room = |records: &[&SessionRecord], starting: usize, limit: u32| {
            let running = records.iter().filter(|record| !ended.contains_key(&record.session)).count();
            let limit = limit as usize;
            starting + running < limit && starting + records.len() < limit + ENDED_KEPT.max(limit / 4)
        };
        let all: Vec<_> = records.iter().collect();
        let own: Vec<_> = records.iter().filter(|record| record.owner == peer).collect();
        if !has_room(&own, starting, limits.sessions_per_peer) || !has_room(&all, in_all, limits.sessions) {
            return None;
        }
        opening.insert(peer, starting + 1);
        Some(Reserved { opening: &self.inner.opening, peer })
    }
}

/// The sessions whose program has ended, and when they last showed anything.
async fn ended(sessions: &Sessions) -> BTreeMap<SessionId, Timestamp> {
    let mut owners: Vec<_> =
        sessions.records().into_iter().map(|record| (record.cluster, record.owner)).collect();
    owners.sort();
    owners.dedup();
    let mut ended = BTreeMap::new();
    for (cluster, owner) in owners {
        let infos = sessions.list(&cluster, &owner).await;
        ended.extend(
            infos.into_iter().filter(|info| info.ended.is_some()).map(|info| (info.session, info.active)),
        );
    }
    ended
}

enum Started {
    Alone(SessionRecord),
    Attached(SessionRecord, Box<terminal::HostConnection>),
}

impl Started {
    fn record(&self) -> &SessionRecord {
        match self {
            Self::Alone(record) | Self::Attached(record, _) => record,
        }
    }
}

/// What a log line calls it: the word that decided, never the arguments.
fn word_of(ask: &SessionAsk) -> String {
    match ask {
        SessionAsk::Shell {} => "(shell)".to_owned(),
        SessionAsk::Run { argv } => loggable(argv.first().map_or("", String::as_str)),
    }
}

/// What a denial of it is recorded as.
fn wanted(ask: &SessionAsk) -> (Wanted, Option<&str>) {
    match ask {
        SessionAsk::Shell {} => (Wanted::Shell, None),
        SessionAsk::Run { .. } => (Wanted::Session, asked_word(ask)),
    }
}

/// The word by which the rule was found; a shell has none.
fn asked_word(ask: &SessionAsk) -> Option<&str> {
    match ask {
        SessionAsk::Shell {} => None,
        SessionAsk::Run { argv } => Some(argv.first().map_or("", String::as_str)),
    }
}

/// Cuts a list into messages that are not too large; at least one.
fn in_parts(sessions: Vec<SessionInfo>) -> Vec<Vec<SessionInfo>> {
    let mut parts = vec![Vec::new()];
    let mut size = 0;
    for mut session in sessions {
        shorten(&mut session.argv);
        let length = serde_json::to_vec(&session).map_or(0, |json| json.len());
        if size > 0 && size + length > LISTED_AT_ONCE {
            parts.push(Vec::new());
            size = 0;
        }
        size += length;
        if let Some(part) = parts.last_mut() {
            part.push(session);
        }
    }
    parts
}

/// A program may have been given very many words.
fn shorten(words: &mut Vec<String>) {
    let mut room = LISTED_WORDS;
    for at in 0..words.len() {
        if words[at].len() > room {
            let end = words[at].floor_char_boundary(room);
            words[at].truncate(end);
            words[at].push('…');
            words.truncate(at + 1);
            return;
        }
        room -= words[at].len();
    }
}

#[cfg(test)]
mod tests {
    use malai_model::wire::WindowSize;

    use super::*;

    #[test]
    fn a_long_list_goes_in_messages_that_fit_and_nothing_is_left_out() {
        let info = |number: u8| SessionInfo {
            session: SessionId::from_random([number; 8]),
            argv: vec!["é".repeat(3000), "x".repeat(100_000), "lost".to_owned()],
            user: "root".to_owned(),
            started: Timestamp::UNIX_EPOCH,
            active: Timestamp::UNIX_EPOCH,
            attached: false,
            watchers: 0,
            window: WindowSize::default(),
            title: "t".repeat(200),
            ended: None,
        };
        let parts = in_parts((0..32).map(info).collect());
        assert!(parts.len() > 1);
        let all: Vec<_> = parts.iter().flatten().map(|info| info.session.clone()).collect();
        assert_eq!(all, (0..32).map(|number| info(number).session).collect::<Vec<_>>());
        for part in &parts {
            let message = Notice::Sessions { sessions: part.clone(), more: true };
            assert!(
                serde_json::to_vec(&message).expect("is JSON").len() < malai_model::wire::frame::MAX_DATA
            );
        }
        assert_eq!(in_parts(Vec::new()), vec![Vec::new()]);
    }
}
