//! Sessions: shells, and programs under a terminal.

use std::pin::Pin;
use std::sync::Arc;

use malai_model::wire::{CommandEnd, OpenSession, SessionId, WireError};

use super::{
    AttachRequest, Client, OpenRequest, Opened, OpenedView, Route, SessionRequest, SessionView, SessionsView,
};
use crate::error::Error;
use crate::node::load_device;
use crate::p2p::Stream;
use crate::terminal::{AttachError, Redial, SessionClient};

/// A place at a session on a machine.
#[derive(Debug)]
pub struct AttachedSession {
    /// The machine.
    pub machine: OpenedView,
    /// The place.
    pub client: SessionClient,
}

impl Client {
    /// Whether words name nothing but a machine. Then they mean a shell there: an address alone, or an alias for one.
    ///
    /// # Errors
    /// When `malai.toml` cannot be read.
    pub fn is_bare_address(&self, words: &[String]) -> Result<bool, Error> {
        let [word] = words else { return Ok(false) };
        let (device, _) = load_device(self.home())?;
        Ok(device.aliases.get(word).is_none_or(|words| words.len() == 1))
    }

    /// Starts a session and attaches to it: a shell, or a program under a terminal.
    ///
    /// # Errors
    /// When the address does not resolve, the machine cannot be reached, or it refuses.
    ///
    /// # Cancel safety
    /// A session that a cancelled call started ends.
    pub async fn open_session(&self, request: SessionRequest) -> Result<AttachedSession, Error> {
        let (opened, session) = self.open_for_new_session(request, true).await?;
        // A second shell does no harm, and the first ends: its client never knew of it. A program must not run twice.
        let repetition = if session.argv.is_none() { Repetition::Harmless } else { Repetition::Harmful };
        let open = async |stream: Stream, redial: Arc<dyn Redial>| {
            SessionClient::open(stream, session.clone(), redial, self.tasks()).await
        };
        let (machine, client) = self.ask_perhaps_twice(opened, repetition, open).await?;
        Ok(AttachedSession { machine, client })
    }

    /// Starts a session that nobody is attached to.
    ///
    /// # Errors
    /// As [`Self::open_session`].
    pub async fn start_session(&self, request: SessionRequest) -> Result<(OpenedView, SessionId), Error> {
        let (opened, session) = self.open_for_new_session(request, false).await?;
        let started = SessionClient::start_detached(opened.stream, session).await;
        let session = started.map_err(|error| of_machine(&opened.view, error))?;
        Ok((opened.view, session))
    }

    /// Attaches to a session of this identity.
    ///
    /// # Errors
    /// When the machine cannot be reached, there is no such session, or attaching to it is no longer allowed.
    pub async fn attach_session(&self, request: AttachRequest) -> Result<AttachedSession, Error> {
        let AttachRequest { address, session, mode, window } = request;
        let open = OpenRequest { words: vec![address], returns: true, ..OpenRequest::default() };
        let opened = Box::pin(self.route().open(&open)).await?;
        let attach = async |stream: Stream, redial: Arc<dyn Redial>| {
            SessionClient::attach(stream, session.clone(), mode, window, redial, self.tasks()).await
        };
        let (machine, client) = self.ask_perhaps_twice(opened, Repetition::Harmless, attach).await?;
        Ok(AttachedSession { machine, client })
    }

    /// Lists the sessions of this identity on a machine, oldest first.
    ///
    /// # Errors
    /// When the machine cannot be reached.
    pub async fn sessions(&self, address: String) -> Result<SessionsView, Error> {
        let opened = self.open_bare(address).await?;
        let list = async |stream: Stream, _| SessionClient::list(stream).await;
        let (machine, sessions) = self.ask_perhaps_twice(opened, Repetition::Harmless, list).await?;
        let sessions = sessions.into_iter().map(SessionView::from).collect();
        Ok(SessionsView { machine: machine.shown(), sessions })
    }

    /// Ends a session of this identity: its programs get SIGHUP, and SIGKILL if they do not heed it.
    ///
    /// # Errors
    /// When the machine cannot be reached, or there is no such session.
    pub async fn end_session(&self, address: String, session: SessionId) -> Result<CommandEnd, Error> {
        let opened = self.open_bare(address).await?;
        let ended = SessionClient::end(opened.stream, session).await;
        ended.map_err(|error| of_machine(&opened.view, error))
    }

    /// Asks on a stream, and, if its connection is lost before the answer, perhaps once more on another: the connection
    /// may have been dead when it was taken up.
    async fn ask_perhaps_twice<T>(
        &self,
        opened: Opened,
        repetition: Repetition,
        ask: impl AsyncFn(Stream, Arc<dyn Redial>) -> Result<T, AttachError>,
    ) -> Result<(OpenedView, T), Error> {
        let Opened { stream, view } = opened;
        let answer = match ask(stream, redial(self.route(), &view)).await {
            Err(error) if error.is_lost() && repetition == Repetition::Harmless => {
                tracing::debug!(%error, "asked once more over another connection");
                let Opened { stream, view } = Box::pin(self.route().reopen_session(&view)).await?;
                ask(stream, redial(self.route(), &view)).await
            }
            answer => answer,
        };
        let answer = answer.map_err(|error| of_machine(&view, error))?;
        Ok((view, answer))
    }

    /// Opens the stream on which a session can be asked for, and makes the request for it. `returns`: whether a client is to
    /// attach to it.
    async fn open_for_new_session(
        &self,
        request: SessionRequest,
        returns: bool,
    ) -> Result<(Opened, OpenSession), Error> {
        let SessionRequest { words, single_word, env, window } = request;
        let open = OpenRequest { words, single_word, returns, ..OpenRequest::default() };
        let mut opened = Box::pin(self.route().open(&open)).await?;
        let argv = std::mem::take(&mut opened.view.argv);
        let argv = (!argv.is_empty()).then_some(argv);
        Ok((opened, OpenSession { argv, env, window, client: None, confirms: false }))
    }

    async fn open_bare(&self, address: String) -> Result<Opened, Error> {
        let open = OpenRequest { words: vec![address], ..OpenRequest::default() };
        Box::pin(self.route().open(&open)).await
    }
}

/// The user knows a name, not an id52. That a machine admits nobody of this identity shows at the first answer.
fn of_machine(view: &OpenedView, error: AttachError) -> Error {
    match error {
        AttachError::Network(source) => super::route::reach(view, source),
        other => other.into(),
    }
}

/// What it does if the same is asked twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repetition {
    Harmless,
    Harmful,
}

fn redial(route: &Route, machine: &OpenedView) -> Arc<dyn Redial> {
    Arc::new(ByRoute { route: route.clone(), machine: machine.clone() })
}

struct ByRoute {
    route: Route,
    machine: OpenedView,
}

impl Redial for ByRoute {
    fn redial(&self) -> Pin<Box<dyn Future<Output = Result<Stream, WireError>> + Send + '_>> {
        Box::pin(async {
            let opened = self.route.reopen_session(&self.machine).await.map_err(|error| error.to_wire())?;
            Ok(opened.stream)
        })
    }
}
