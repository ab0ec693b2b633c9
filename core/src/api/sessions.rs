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
        let (opened, session) = self.ask_for_session(request, true).await?;
        let redial = redial(self.route(), &opened);
        let client = SessionClient::open(opened.stream, session, redial, self.tasks()).await;
        attached(opened.view, client)
    }

    /// Starts a session that nobody is attached to.
    ///
    /// # Errors
    /// As [`Self::open_session`].
    pub async fn start_session(&self, request: SessionRequest) -> Result<(OpenedView, SessionId), Error> {
        let (opened, session) = self.ask_for_session(request, false).await?;
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
        let redial = redial(self.route(), &opened);
        let client = SessionClient::attach(opened.stream, session, mode, window, redial, self.tasks()).await;
        attached(opened.view, client)
    }

    /// Lists the sessions of this identity on a machine, oldest first.
    ///
    /// # Errors
    /// When the machine cannot be reached.
    pub async fn sessions(&self, address: String) -> Result<SessionsView, Error> {
        let opened = self.open_bare(address).await?;
        let listed = SessionClient::list(opened.stream).await;
        let sessions = listed.map_err(|error| of_machine(&opened.view, error))?;
        let sessions = sessions.into_iter().map(SessionView::from).collect();
        Ok(SessionsView { machine: opened.view.shown(), sessions })
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

    /// `returns`: whether a client is to attach to it.
    async fn ask_for_session(
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

fn attached(
    machine: OpenedView,
    client: Result<SessionClient, AttachError>,
) -> Result<AttachedSession, Error> {
    match client {
        Ok(client) => Ok(AttachedSession { machine, client }),
        Err(error) => Err(of_machine(&machine, error)),
    }
}

/// The user knows a name, not an id52. That a machine admits nobody of this identity shows at the first answer.
fn of_machine(view: &OpenedView, error: AttachError) -> Error {
    match error {
        AttachError::Network(source) => super::route::reach(view, source),
        other => other.into(),
    }
}

fn redial(route: &Route, opened: &Opened) -> Arc<dyn Redial> {
    Arc::new(Again { route: route.clone(), machine: opened.view.clone() })
}

struct Again {
    route: Route,
    machine: OpenedView,
}

impl Redial for Again {
    fn redial(&self) -> Pin<Box<dyn Future<Output = Result<Stream, WireError>> + Send + '_>> {
        Box::pin(async {
            let opened = self.route.reopen_session(&self.machine).await.map_err(|error| error.to_wire())?;
            Ok(opened.stream)
        })
    }
}
