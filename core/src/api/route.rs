//! The way to machines: through the daemon when one runs, else dialled by this process itself.

#[cfg(all(feature = "daemon", unix))]
mod daemon;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use malai_model::code::ErrorCode;
use malai_model::name::ServiceName;
use malai_model::wire::ExecRequest;
use tokio::sync::OnceCell;

#[cfg(all(feature = "daemon", unix))]
use self::daemon::{Socket, ThroughDaemon};
use super::{ApiReply, ApiRequest, ClientOptions, OpenRequest, OpenedView, Place, RunRequest, handle};
use crate::cluster::ClusterError;
use crate::error::Error;
use crate::exec::{ExecError, RunningCommand};
use crate::home::Home;
use crate::node::{Mode, Node, NodeError, NodeOptions};
use crate::p2p::{P2pError, Redial, Redialling, Stream, WeakConnection};
use crate::service::{ServiceConnection, ServiceError};
use crate::task::Scope;

/// The way to machines. Everything that talks to one asks it for a stream: commands, sessions, services, copies.
///
/// Cheap to clone, and `'static`: a task of its own may keep one, to open the same stream again when its connection was
/// lost.
///
/// ```no_run
/// # use malai_core::api::{Client, OpenRequest};
/// # use malai_core::model::wire::{Notice, Request};
/// # async fn ask(client: &Client) -> Result<(), malai_core::Error> {
/// let route = client.route().clone();
/// let request = OpenRequest { words: vec!["web01.company".into()], ..OpenRequest::default() };
/// let mut opened = route.open(&request).await?;
/// let asked = opened.stream.sender.send_message(&Request::Ping {}).await;
/// asked.map_err(|error| opened.failed(error))?;
/// let answer = opened.stream.receiver.message::<Notice>().await.map_err(|error| opened.failed(error))?;
/// // Lost? The same machine again, whatever it is called by now:
/// let again = route.reopen(&opened.view).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Route(Arc<Inner>);

struct Inner {
    options: NodeOptions,
    #[cfg(all(feature = "daemon", unix))]
    socket: Socket,
    /// Made when it is first needed: a command that goes through the daemon reads no config and no key.
    node: OnceCell<Node>,
    /// Owns what streams over the daemon's socket need.
    scope: Scope,
    /// The streams that were opened and are not over.
    open: Mutex<Vec<WeakConnection>>,
    closed: AtomicBool,
}

/// A stream to a machine. Nothing was said on it yet: the first message is the user's, a
/// [`Request`](malai_model::wire::Request).
#[derive(Debug)]
pub struct Opened {
    /// The stream.
    pub stream: Stream,
    /// Where it leads, and what was typed behind the address.
    pub view: OpenedView,
}

impl Opened {
    /// Says of a failure of the stream which machine it is about, as the user knows it. That a machine admits nobody of
    /// this identity shows at its first answer, not before.
    pub fn failed(&self, source: P2pError) -> Error {
        reach(&self.view, source)
    }
}

pub(super) fn reach(view: &OpenedView, source: P2pError) -> Error {
    NodeError::from(ClusterError::Reach { machine: view.shown(), source }).into()
}

/// Reaches the machine of an earlier stream. It does not keep the route: its streams end with that.
struct SameMachine {
    route: Weak<Inner>,
    view: OpenedView,
}

impl Redial for SameMachine {
    fn redial(&self) -> Redialling {
        let (route, view) = (self.route.upgrade().map(Route), self.view.clone());
        Box::pin(async move {
            let Some(route) = route else { return Err(P2pError::Closed) };
            match Box::pin(route.reopen(&view)).await {
                Ok(opened) => Ok(opened.stream),
                Err(error) => Err(unreached(&view, &error)),
            }
        })
    }
}

/// What keeps a stream from going on, in the words of the network: some of it is for good.
fn unreached(view: &OpenedView, error: &Error) -> P2pError {
    match (error, error.code()) {
        (Error::Closed, _) => P2pError::Closed,
        (_, ErrorCode::PeerNotAdmitted) => P2pError::NotAdmitted { peer: view.id52 },
        (_, ErrorCode::PeerIncompatible) => P2pError::Incompatible { peer: view.id52 },
        (error, _) => P2pError::lost(error.to_wire().message),
    }
}

impl Route {
    pub(super) fn new(options: ClientOptions) -> Result<Self, Error> {
        #[cfg(all(feature = "daemon", unix))]
        let named = options.socket.clone();
        let options = options.into_node_options()?;
        // Only where there can be a daemon: a phone's paths are too long for a socket.
        #[cfg(all(feature = "daemon", unix))]
        let socket = Socket::of(named, &options)?;
        Ok(Self(Arc::new(Inner {
            options,
            #[cfg(all(feature = "daemon", unix))]
            socket,
            node: OnceCell::new(),
            scope: Scope::new(),
            open: Mutex::default(),
            closed: AtomicBool::new(false),
        })))
    }

    pub(super) fn home(&self) -> &Home {
        &self.0.options.home
    }

    /// Resolves an address and opens a stream to the machine that it means; this device is one as well.
    ///
    /// # Errors
    /// When the address means no machine that this device may reach, or the machine does not answer.
    ///
    /// # Cancel safety
    /// A cancelled call opens nothing.
    pub async fn open(&self, request: &OpenRequest) -> Result<Opened, Error> {
        self.check()?;
        #[cfg(all(feature = "daemon", unix))]
        if let ThroughDaemon::Opened(opened) = self.open_through_daemon(request, bytes::Bytes::new()).await? {
            return Ok(*opened);
        }
        self.dial(request).await
    }

    /// Of no particular type: that of the network's own futures goes deeper than the compiler does.
    fn dial<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Opened, Error>> + Send + 'a>> {
        Box::pin(async {
            let node = self.node().await?;
            let found = Box::pin(node.find(request)).await?;
            let (stream, path) = Box::pin(node.open(&found)).await?;
            let view = found.view(path);
            tracing::debug!(machine = view.shown(), address = view.address, "dialled directly");
            self.enter(&stream);
            Ok(Opened { stream, view })
        })
    }

    /// Opens another stream to the machine of an earlier one, for what goes on after a lost connection.
    ///
    /// # Errors
    /// As [`Self::open`].
    ///
    /// # Cancel safety
    /// A cancelled call opens nothing.
    pub async fn reopen(&self, earlier: &OpenedView) -> Result<Opened, Error> {
        self.reopen_by(OpenRequest::default(), earlier).await
    }

    /// As [`Self::reopen`], for a session.
    pub(super) async fn reopen_session(&self, earlier: &OpenedView) -> Result<Opened, Error> {
        self.reopen_by(OpenRequest { returns: true, ..OpenRequest::default() }, earlier).await
    }

    async fn reopen_by(&self, request: OpenRequest, earlier: &OpenedView) -> Result<Opened, Error> {
        #[cfg(all(feature = "daemon", unix))]
        self.await_daemon().await?;
        self.open(&OpenRequest { words: vec![earlier.address_by_id()], ..request }).await
    }

    /// Says how the machine of an earlier stream is reached again: for
    /// [`keep_resumed`](crate::p2p::keep_resumed).
    pub fn redial(&self, earlier: &OpenedView) -> Arc<dyn Redial> {
        Arc::new(SameMachine { route: Arc::downgrade(&self.0), view: earlier.clone() })
    }

    /// Runs a program on a machine.
    pub(super) async fn run(&self, request: RunRequest) -> Result<RunningCommand, Error> {
        let RunRequest { words, single_word, env } = request;
        let open = OpenRequest { words, single_word, ..OpenRequest::default() };
        #[cfg(all(feature = "daemon", unix))]
        let (Opened { stream, view }, sent) = self.open_to_run(&open, &env).await?;
        #[cfg(not(all(feature = "daemon", unix)))]
        let (Opened { stream, view }, sent) = (self.open(&open).await?, None);
        if view.argv.is_empty() {
            return Err(NodeError::from(ClusterError::NoProgram { machine: view.shown() }).into());
        }
        let exec = sent.unwrap_or_else(|| ExecRequest { argv: view.argv.clone(), env, resume: None });
        let started = match view.place {
            Place::Here => RunningCommand::start(stream, exec).await,
            Place::Elsewhere => {
                RunningCommand::start_resumable(stream, exec, self.redial(&view), &self.0.scope).await
            }
        };
        started.map_err(|error| match error {
            ExecError::Network(source) => reach(&view, source),
            other => other.into(),
        })
    }

    /// Connects to a service of the machine that a stream leads to.
    pub(super) async fn connect_service(
        &self,
        service: ServiceName,
        stream: Stream,
        view: &OpenedView,
    ) -> Result<ServiceConnection, Error> {
        let started = match view.place {
            Place::Here => ServiceConnection::start(stream, service).await,
            Place::Elsewhere => {
                let redial = self.redial(view);
                ServiceConnection::start_resumable(stream, service, redial, &self.0.scope).await
            }
        };
        started.map_err(|error| match error {
            ServiceError::Network(source) => reach(view, source),
            other => other.into(),
        })
    }

    /// Remembers a stream, so that it is hung up when the client is closed.
    fn enter(&self, stream: &Stream) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(WeakConnection::is_alive);
        open.push(stream.weak_connection());
    }

    pub(super) fn hurry(&self) {
        if let Some(node) = self.0.node.get() {
            node.hurry();
        }
    }

    pub(super) async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        let open = std::mem::take(&mut *self.0.open.lock().unwrap_or_else(PoisonError::into_inner));
        open.iter().for_each(WeakConnection::close);
        if let Some(node) = self.0.node.get() {
            node.close(Duration::ZERO).await;
        }
        self.0.scope.shutdown(Duration::ZERO).await;
    }

    fn check(&self) -> Result<(), Error> {
        if self.0.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    pub(super) async fn node(&self) -> Result<&Node, Error> {
        self.check()?;
        self.0
            .node
            // A start that failed or was dropped leaves nothing behind: the next call tries again.
            .get_or_try_init(|| async {
                Ok(Box::pin(Node::start(self.0.options.clone(), Mode::Dial)).await?)
            })
            .await
    }

    pub(super) async fn ask(&self, request: ApiRequest) -> Result<ApiReply, Error> {
        self.check()?;
        #[cfg(all(feature = "daemon", unix))]
        if let Some(answer) = self.ask_daemon(&request).await? {
            return reply(answer);
        }
        reply(handle(self.node().await?, request).await)
    }
}

fn reply(reply: ApiReply) -> Result<ApiReply, Error> {
    match reply {
        ApiReply::Failed(failed) => Err(Error::failed(failed)),
        reply => Ok(reply),
    }
}
