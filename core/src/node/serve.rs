//! The one inbound gate: a peer's stream → what it wants → may it → the feature that does it.

use std::net::SocketAddr;
use std::sync::Arc;
#[cfg(all(feature = "host", unix))]
use std::time::Duration;

use malai_model::audit::Wanted;
use malai_model::code::ErrorCode;
use malai_model::id::Id52;
#[cfg(all(feature = "host", unix))]
use malai_model::name::MachineName;
#[cfg(all(feature = "host", unix))]
use malai_model::wire::ResumeToken;
#[cfg(all(feature = "host", unix))]
use malai_model::wire::local::Place;
use malai_model::wire::{Notice, Request, WireError};

use super::work::{Room, Ticket};
use super::{Member, Node, NodeError};
#[cfg(all(feature = "host", unix))]
use crate::cluster::RunDenied;
use crate::cluster::{self, ClusterError};
#[cfg(all(feature = "host", unix))]
use crate::p2p::Kept;
use crate::p2p::{CloseReason, Connection, P2pError, Stream, StreamSender, stream_code};
use crate::timeouts;

impl Node {
    /// Opens a member's endpoint and takes requests on it.
    pub(super) async fn listen(&self, member: &Arc<Member>) -> Result<(), NodeError> {
        self.network(member).await?;
        let (node, accepting) = (self.clone(), Arc::clone(member));
        member.scope.keep("accept", move || {
            let (node, accepting) = (node.clone(), Arc::clone(&accepting));
            async move { node.accept(accepting).await }
        });
        Ok(())
    }

    async fn accept(&self, member: Arc<Member>) {
        let Some(network) = member.network.get() else { return };
        while let Some(connection) = network.endpoint.accept().await {
            let (node, member) = (self.clone(), Arc::clone(&member));
            let scope = member.scope.clone();
            scope.spawn("connection", async move { node.serve_connection(&member, connection).await });
        }
    }

    async fn serve_connection(&self, member: &Arc<Member>, connection: Connection) {
        let peer = connection.peer();
        let _entered = member.enter(connection.clone());
        // Each costs memory, and a peer that has as many as this wants nothing good: a request is told of its own limit
        // long before. The manager is never kept out.
        let most = self.device().limits.sessions_per_peer as usize * 2 + SPARE_CONNECTIONS;
        if member.inbound_of(&peer) > most && !cluster::is_manager(&member.loaded(), &peer) {
            tracing::warn!(cluster = %member.alias(), %peer, "closed a connection: the peer has too many");
            connection.close(CloseReason::crowded());
            return;
        }
        // The rules may have changed between the handshake and this line.
        if !member.loaded().admits(&peer) {
            connection.close(CloseReason::not_admitted());
            return;
        }
        tracing::debug!(cluster = %member.alias(), %peer, "a peer connected");
        loop {
            let stream = match connection.accept_stream().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(cluster = %member.alias(), %peer, %error, "a connection ended");
                    return;
                }
            };
            // The rules may have changed while the connection was open.
            if !member.loaded().admits(&peer) {
                turn_away(stream, stream_code::REVOKED);
                continue;
            }
            self.take(member, Asker::elsewhere(peer, connection.remote_address()), stream);
        }
    }

    /// Takes a request of somebody who may ask: counted, and served in a task of its own.
    pub(super) fn take(&self, member: &Arc<Member>, asker: Asker, stream: Stream) {
        let peer = asker.peer;
        // While the last commands run on, the manager is still heard: it may take their right away.
        let heard = member.is_accepting() || cluster::is_manager(&member.loaded(), &peer);
        let enter = |room| self.inner.work.enter(&member.loaded(), peer, room).map(|ticket| (ticket, room));
        let entered = heard.then(|| enter(Room::ForAnything)).flatten();
        // Whoever has all that it may have open, and lost its connection, must be able to go on with it. So must the client
        // of a session while the last commands run on.
        let may_go_on = || {
            let resumes = member.resumables.has(&peer);
            #[cfg(all(feature = "host", unix))]
            let resumes = resumes || !member.is_accepting() && self.has_sessions(member, &peer);
            resumes
        };
        let resumes = || may_go_on().then(|| enter(Room::ForResuming)).flatten();
        let Some((ticket, room)) = entered.or_else(resumes) else {
            self.refuse_busy(member, asker, stream);
            return;
        };
        let (node, member) = (self.clone(), Arc::clone(member));
        let scope = member.scope.clone();
        scope.spawn("request", async move { node.serve_stream(&member, asker, room, stream, ticket).await });
    }

    async fn serve_stream(
        &self,
        member: &Arc<Member>,
        asker: Asker,
        room: Room,
        mut stream: Stream,
        ticket: Ticket,
    ) {
        let first =
            tokio::time::timeout(self.device().limits.handshake, stream.receiver.message::<Request>()).await;
        let served = match first {
            Ok(Ok(Some(request))) => self.serve_request(member, asker, room, stream, request, ticket).await,
            Ok(Ok(None)) => Ok(()),
            Ok(Err(error)) => {
                refuse(stream, unsupported()).await;
                Err(ServeProblem::Network(error))
            }
            Err(_) => {
                turn_away(stream, stream_code::STALLED);
                Err(ServeProblem::Stalled)
            }
        };
        if let Err(problem) = served {
            tracing::info!(cluster = %member.alias(), peer = %asker.peer, "a request ended: {problem}");
        }
    }

    async fn serve_request(
        &self,
        member: &Arc<Member>,
        asker: Asker,
        room: Room,
        stream: Stream,
        request: Request,
        ticket: Ticket,
    ) -> Result<(), ServeProblem> {
        let Asker { peer, from, .. } = asker;
        match request {
            Request::Resume(resume) => {
                // Its own ticket stands for the right to it: while that is open, nobody took the right away.
                drop(ticket);
                member.resumables.resume(&peer, &resume.token, stream, &resume.lanes)?;
                tracing::info!(cluster = %member.alias(), %peer, "a request goes on over another connection");
                Ok(())
            }
            #[cfg(all(feature = "host", unix))]
            Request::AttachSession(request) if !member.is_accepting() => {
                self.serve_attach_session(member, asker, stream, request, ticket).await
            }
            _ if room == Room::ForResuming => {
                self.refuse_busy(member, asker, stream);
                Ok(())
            }
            Request::Ping {} => {
                // Whoever hears the answer may ask for more at once: this counts no longer.
                drop(ticket);
                answer(stream.sender, &Notice::Pong { version: self.inner.options.version.to_owned() }).await
            }
            Request::Exec(request) => self.serve_exec(member, asker, stream, request, ticket).await,
            Request::Connect { service, resume } => {
                self.serve_connect(member, asker, stream, service, resume, ticket).await
            }
            Request::PushConfig { length } => self.serve_push(member, asker, stream, length).await,
            Request::PullConfig { have, listening } => {
                // Where a command line calls from is gone in a moment; where a daemon listens is worth remembering.
                if listening && let Some(address) = from {
                    self.inner.peers.remember(&peer, address, self.now());
                }
                self.serve_pull(member, peer, stream, have).await
            }
            #[cfg(all(feature = "host", unix))]
            Request::OpenSession(request) => {
                self.serve_open_session(member, asker, stream, request, ticket).await
            }
            #[cfg(all(feature = "host", unix))]
            Request::AttachSession(request) => {
                self.serve_attach_session(member, asker, stream, request, ticket).await
            }
            #[cfg(all(feature = "host", unix))]
            Request::ListSessions {} => self.serve_list_sessions(member, peer, stream).await,
            #[cfg(all(feature = "host", unix))]
            Request::EndSession { session } => self.serve_end_session(member, peer, stream, session).await,
            _ => {
                refuse(stream, unsupported()).await;
                Ok(())
            }
        }
    }

    /// Whether there is no room for a request of a peer. What a manager may have beyond the limits, and while this device stops, is for its configs.
    #[cfg(all(feature = "host", unix))]
    pub(super) fn has_no_room(&self, member: &Member, peer: &Id52) -> bool {
        !member.is_accepting() || self.is_crowded(member, peer)
    }

    /// The same for one that goes on with what it has here.
    #[cfg(all(feature = "host", unix))]
    pub(super) fn is_crowded(&self, member: &Member, peer: &Id52) -> bool {
        cluster::is_manager(&member.loaded(), peer) && self.inner.work.is_over(peer)
    }

    /// Lets a stream outlive its connection, if its caller wants that and this device does so; says for how long.
    ///
    /// # Errors
    /// When the caller was told that this device does not know the stream: it has given up what it asks for on it.
    #[cfg(all(feature = "host", unix))]
    pub(super) fn keep(
        &self,
        member: &Member,
        peer: Id52,
        token: Option<ResumeToken>,
        stream: &Stream,
    ) -> Result<(Option<Kept>, Option<Duration>), P2pError> {
        let linger = self.device().limits.resume;
        let Some(token) = token else { return Ok((None, None)) };
        let kept = member.resumables.keep(peer, token, stream, linger)?;
        let linger = kept.as_ref().map(|_| linger);
        Ok((kept, linger))
    }

    /// Refuses a request that comes after its caller was told that it is not known here.
    #[cfg(all(feature = "host", unix))]
    pub(super) fn refuse_late(
        &self,
        member: &Member,
        asker: Asker,
        wanted: (Wanted, Option<&str>),
        stream: Stream,
    ) {
        let peer = asker.peer;
        tracing::warn!(cluster = %member.alias(), %peer, "refused a request that its caller had given up");
        self.record_denial(&member.loaded(), asker, wanted, &"it came late: its caller had given it up");
        turn_away(stream, stream_code::UNKNOWN);
    }

    /// Refuses a request for which there is no room, or no time.
    pub(super) fn refuse_busy(&self, member: &Member, asker: Asker, stream: Stream) {
        let peer = asker.peer;
        tracing::warn!(cluster = %member.alias(), %peer, "refused a request: too many at once, or stopping");
        self.record_denial(
            &member.loaded(),
            asker,
            (Wanted::Request, None),
            &"too many at once, or stopping",
        );
        turn_away(stream, stream_code::BUSY);
    }
}

/// Who asks, as the connection says.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub(super) peer: Id52,
    from: Option<SocketAddr>,
    /// Whether it is the user of this very device, who owns its files.
    #[cfg(all(feature = "host", unix))]
    pub(super) place: Place,
}

impl Asker {
    fn elsewhere(peer: Id52, from: Option<SocketAddr>) -> Self {
        Self {
            peer,
            from,
            #[cfg(all(feature = "host", unix))]
            place: Place::Elsewhere,
        }
    }

    /// Whether it is the user of this very device.
    pub(super) fn is_here(&self) -> bool {
        #[cfg(all(feature = "host", unix))]
        let here = self.place == Place::Here;
        #[cfg(not(all(feature = "host", unix)))]
        let here = false;
        here
    }

    /// The user of this device, over a socket that nobody else can open.
    #[cfg(unix)]
    pub(super) fn here(own: Id52) -> Self {
        Self {
            peer: own,
            from: None,
            #[cfg(all(feature = "host", unix))]
            place: Place::Here,
        }
    }
}

/// Why a request was not served to its end; for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeProblem {
    #[error("{0}")]
    Network(#[from] P2pError),
    #[error("{0}")]
    Cluster(#[from] ClusterError),
    #[error("it stalled")]
    Stalled,
}

/// Ends both halves with the same code: whichever the peer looks at first says why.
fn turn_away(mut stream: Stream, code: u32) {
    stream.sender.reset(code);
    stream.receiver.stop(code);
}

/// Gives a short answer, which is all that comes.
pub(super) async fn answer(
    sender: StreamSender,
    message: &impl serde::Serialize,
) -> Result<(), ServeProblem> {
    in_time(sender.finish_with(message)).await
}

/// A peer that asks and does not take the answer keeps its request open for no longer than this.
pub(super) async fn in_time(telling: impl Future<Output = Result<(), P2pError>>) -> Result<(), ServeProblem> {
    match tokio::time::timeout(timeouts::REPLY, telling).await {
        Ok(told) => Ok(told?),
        Err(_) => Err(ServeProblem::Stalled),
    }
}

/// Tells the peer why nothing comes. If it is gone already there is nobody to tell.
pub(super) async fn refuse(stream: Stream, error: WireError) {
    let tell = async {
        stream.sender.send_message(&Notice::Failed(error)).await?;
        stream.sender.finish().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(timeouts::REPLY, tell).await {
        tracing::debug!(%error, "the peer left before it was refused");
    }
}

fn unsupported() -> WireError {
    WireError {
        code: ErrorCode::WireUnsupported,
        message: "understand the request: this version of malai does not know it".to_owned(),
        hint: Some("bring malai on both machines to the same version".to_owned()),
    }
}

/// How many connections a peer may have beyond twice its sessions.
const SPARE_CONNECTIONS: usize = 16;

/// The longest word of a peer that a log line holds, in bytes.
#[cfg(all(feature = "host", unix))]
const LOGGED_WORD: usize = 128;

/// A word of a peer's for a log line: escaped, and short, or a member could turn the log over by a few denied requests.
#[cfg(all(feature = "host", unix))]
pub(super) fn loggable(word: &str) -> String {
    let short = &word[..word.floor_char_boundary(LOGGED_WORD)];
    let shown = malai_model::text::escape_control(short);
    if short.len() < word.len() { format!("{shown}… ({} bytes)", word.len()) } else { shown.into_owned() }
}

/// What a caller is told: that it was denied and how to ask. The reason stays in this device's log.
#[cfg(all(feature = "host", unix))]
pub(super) fn denied_to_caller(what: &str, denied: &RunDenied, own: Option<&MachineName>) -> WireError {
    let here = own.map_or("that machine", MachineName::as_str);
    let hint = if denied.is_ceiling() {
        format!("the malai.toml of {here} itself forbids it, whatever the cluster allows")
    } else {
        format!("ask the cluster's manager for the right; the reason is in the malai.log of {here}")
    };
    WireError {
        code: ErrorCode::AclDenied,
        message: format!("{what}: not allowed on {here}"),
        hint: Some(hint),
    }
}

/// What this device's own user is told: whoever owns the files may know why.
#[cfg(all(feature = "host", unix))]
pub(super) fn denied_to_owner(what: &str, denied: &RunDenied) -> WireError {
    WireError {
        code: ErrorCode::AclDenied,
        message: format!("{what}: not allowed on this machine, {denied}"),
        hint: Some("ask the cluster's manager for the right".to_owned()),
    }
}

#[cfg(all(test, feature = "host", unix))]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_peer_is_short_and_plain_in_the_log() {
        assert_eq!(loggable("systemctl"), "systemctl");
        assert_eq!(loggable("a\nb"), "a\\nb");
        let long = loggable(&"é\u{1b}".repeat(20_000));
        assert!(long.len() < 1000 && long.ends_with("(60000 bytes)") && !long.contains('\u{1b}'), "{long}");
    }
}
