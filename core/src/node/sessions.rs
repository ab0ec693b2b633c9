//! Sessions of peers on this device: who may start, see, attach to and end one, and for how long.
//!
//! A session belongs to the identity that started it, in its cluster; for everybody else it does not exist.

mod keep;
mod listed;
mod room;

use std::sync::Arc;
use std::time::Duration;

use malai_model::audit::Wanted;
use malai_model::code::ErrorCode;
use malai_model::id::Id52;
use malai_model::wire::local::Place;
use malai_model::wire::{AttachMode, AttachSession, Notice, OpenSession, WireError};

pub(super) use self::room::Opening;
use super::audit::Begun;
use super::serve::{Asker, ServeProblem, answer, denied_to_caller, denied_to_owner, loggable, refuse};
use super::work::Ticket;
use super::{Member, Node};
use crate::cluster::{LoadedCluster, RunDenied};
use crate::p2p::Stream;
use crate::terminal::{
    self, Attending, Audience, EndReason, Opener, SessionAsk, SessionEffect, SessionGrant, SessionJob,
    SessionOutcome, SessionRecord, Sessions,
};

/// How long a shell that is opened waits for word of others.
const COUNT: Duration = Duration::from_millis(50);

impl Node {
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

    /// Decides, and has the ticket revoked when what `began` might no longer go on; absent: what is granted now.
    fn decide_while(
        &self,
        member: &Arc<Member>,
        peer: Id52,
        (ask, began): (&SessionAsk, Option<&SessionEffect>),
        ticket: &Ticket,
    ) -> Result<SessionGrant, RunDenied> {
        let (node, asked) = (self.clone(), ask.clone());
        let decide =
            move |loaded: &_| node.decide_session(loaded, &peer, &asked).ok().map(|grant| grant.effect());
        let granted = ticket.allow_as_granted(decide, SessionEffect::goes_on_under);
        let loaded = member.loaded();
        let grant = self.decide_session(&loaded, &peer, ask)?;
        self.was_granted(member, &loaded, &granted, began.cloned().unwrap_or_else(|| grant.effect()));
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
        let grant = self.decide_or_tell(member, asker, (ask, None), ticket)?;
        let reserved = self.reserve(sessions, peer).await?;
        let detached = match ask {
            SessionAsk::Shell {} => sessions.count_detached(member.alias(), &peer, COUNT).await,
            SessionAsk::Run { .. } => 0,
        };
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
            Ok(mut connection) => {
                connection.tell_detached(detached);
                Ok((Started::Attached(record, Box::new(connection)), begun))
            }
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
            let began = Some(&record.effect);
            let grant = self.decide_or_tell(member, asker, (&record.ask, began), &ticket)?;
            if !record.effect.goes_on_under(&grant.effect()) || record.own != member.own_id() {
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
        (ask, began): (&SessionAsk, Option<&SessionEffect>),
        ticket: &Ticket,
    ) -> Result<SessionGrant, WireError> {
        let Asker { peer, place, .. } = asker;
        self.decide_while(member, peer, (ask, began), ticket).map_err(|denied| {
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
