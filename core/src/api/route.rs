//! The way to machines: through the daemon when one runs, else dialled by this process itself.

#[cfg(all(feature = "daemon", unix))]
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

#[cfg(all(feature = "daemon", unix))]
use bytes::Bytes;
use malai_model::code::ErrorCode;
use malai_model::name::ServiceName;
use malai_model::wire::ExecRequest;
#[cfg(all(feature = "daemon", unix))]
use malai_model::wire::Request;
use tokio::sync::OnceCell;

#[cfg(all(feature = "daemon", unix))]
use super::socket::{self, OpenAnswer};
use super::{ApiReply, ApiRequest, ClientOptions, OpenRequest, OpenedView, Place, RunRequest, handle};
use crate::cluster::ClusterError;
use crate::error::Error;
#[cfg(all(feature = "daemon", unix))]
use crate::error::SocketError;
use crate::exec::{ExecError, RunningCommand};
use crate::home::Home;
use crate::node::{Mode, Node, NodeError, NodeOptions};
use crate::p2p::{P2pError, Redial, Redialling, Stream, WeakConnection};
#[cfg(all(feature = "daemon", unix))]
use crate::p2p::{PathView, first_frame, new_resume_token};
use crate::service::{ServiceConnection, ServiceError};
use crate::task::Scope;

/// The longest request that is sent before the stream is there: what a socket takes at once.
#[cfg(all(feature = "daemon", unix))]
const AHEAD: usize = 16 * 1024;
/// How long to wait for a daemon that is gone and may be back at once.
#[cfg(all(feature = "daemon", unix))]
const RESTART: Duration = Duration::from_secs(3);

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
    /// Whether the daemon carried a stream once.
    #[cfg(all(feature = "daemon", unix))]
    through_daemon: AtomicBool,
    closed: AtomicBool,
}

/// What became of asking the daemon for a stream. Unless it was opened, nothing was said to any machine, and the daemon says
/// nothing later.
#[cfg(all(feature = "daemon", unix))]
enum ThroughDaemon {
    Opened(Box<Opened>),
    /// It cannot carry this one.
    Unsupported,
    /// There is none that answers.
    Absent,
}

/// Where the daemon is looked for.
#[cfg(all(feature = "daemon", unix))]
struct Socket {
    path: std::path::PathBuf,
    /// Whether somebody named it: then its absence is an error, not a reason to go without.
    named: bool,
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
struct Again {
    route: Weak<Inner>,
    view: OpenedView,
}

impl Redial for Again {
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
        let socket = match named {
            Some(path) => Socket { path, named: true },
            None => Socket { path: options.home.socket_path(options.runtime_dir.as_deref())?, named: false },
        };
        Ok(Self(Arc::new(Inner {
            options,
            #[cfg(all(feature = "daemon", unix))]
            socket,
            node: OnceCell::new(),
            scope: Scope::new(),
            open: Mutex::default(),
            #[cfg(all(feature = "daemon", unix))]
            through_daemon: AtomicBool::new(false),
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
        if let ThroughDaemon::Opened(opened) = self.open_through_daemon(request, Bytes::new()).await? {
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

    /// `first`: what the stream begins with, if it is written behind the request.
    #[cfg(all(feature = "daemon", unix))]
    async fn open_through_daemon(&self, request: &OpenRequest, first: Bytes) -> Result<ThroughDaemon, Error> {
        let Socket { path, named } = &self.0.socket;
        let Some(connection) = socket::connect(path).await? else {
            if *named {
                return Err(SocketError::SocketAbsent { path: path.clone() }.into());
            }
            tracing::debug!("no daemon runs");
            return Ok(ThroughDaemon::Absent);
        };
        let mut request = request.clone();
        request.connect_timeout.get_or_insert(self.0.options.connect_timeout);
        let answer = if first.is_empty() {
            socket::open(connection, request).await
        } else {
            socket::open_and_run(connection, request, &crate::p2p::chunk(&first)).await
        };
        match answer {
            Ok(OpenAnswer::Opened { view, stream, leftover }) => {
                self.0.through_daemon.store(true, Ordering::Release);
                let way = PathView {
                    address: view.address.clone(),
                    relayed: view.relayed,
                    rtt: Duration::from_micros(view.rtt_us),
                };
                let stream =
                    Stream::over_socket_after(first, stream, leftover, view.id52, way, &self.0.scope)
                        .map_err(SocketError::Unanswered)?;
                tracing::debug!(machine = view.shown(), address = view.address, "through the daemon");
                self.enter(&stream);
                Ok(ThroughDaemon::Opened(Box::new(Opened { stream, view })))
            }
            Ok(OpenAnswer::Failed(failed)) if failed.error.code == ErrorCode::WireUnsupported => {
                if first.is_empty() {
                    tracing::debug!("the daemon is of another version and cannot carry streams");
                } else {
                    tracing::debug!("the daemon wants to be asked first");
                }
                Ok(ThroughDaemon::Unsupported)
            }
            Ok(OpenAnswer::Failed(failed)) => Err(Error::failed(failed)),
            Err(error @ SocketError::Late) => Err(error.into()),
            // What was asked for was a way, and this is another one.
            Err(error) if !named => {
                tracing::debug!(%error, "the daemon does not answer");
                Ok(ThroughDaemon::Absent)
            }
            Err(error) => Err(error.into()),
        }
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
        Arc::new(Again { route: Arc::downgrade(&self.0), view: earlier.clone() })
    }

    /// A daemon that carried streams and is gone is about to come back, more often than not: it restarts.
    #[cfg(all(feature = "daemon", unix))]
    async fn await_daemon(&self) -> Result<(), Error> {
        if !self.0.through_daemon.load(Ordering::Acquire) {
            return Ok(());
        }
        let until = tokio::time::Instant::now() + RESTART;
        while socket::connect(&self.0.socket.path).await?.is_none() && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
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

    /// Opens a stream to run a program. The request to run it goes to the daemon together with that for the stream, which
    /// spares the time to go there and back; then it is returned, since the stream has begun with just that.
    #[cfg(all(feature = "daemon", unix))]
    async fn open_to_run(
        &self,
        open: &OpenRequest,
        env: &BTreeMap<String, String>,
    ) -> Result<(Opened, Option<ExecRequest>), Error> {
        self.check()?;
        // A single word may be an alias with a program in it, and a machine alone runs nothing.
        let Some(argv) = open.words.get(1..).filter(|argv| !argv.is_empty()) else {
            return Ok((self.open(open).await?, None));
        };
        let failed = |error: ExecError| Error::from(NodeError::from(error));
        let token = new_resume_token().map_err(|error| failed(error.into()))?;
        let exec = ExecRequest { argv: argv.to_vec(), env: env.clone(), resume: Some(token) };
        let first = first_frame(&Request::Exec(exec.clone())).map_err(|error| failed(error.into()))?;
        if first.len() > AHEAD {
            return Ok((self.open(open).await?, None));
        }
        let at_once = OpenRequest { followed_by: Some(argv.to_vec()), ..open.clone() };
        match self.open_through_daemon(&at_once, first).await? {
            ThroughDaemon::Opened(opened) => Ok((*opened, Some(exec))),
            ThroughDaemon::Unsupported => Ok((self.open(open).await?, None)),
            ThroughDaemon::Absent => Ok((self.dial(open).await?, None)),
        }
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
        if let Some(connection) = socket::connect(&self.0.socket.path).await? {
            return reply(socket::ask(connection, &request).await?);
        } else if self.0.socket.named {
            return Err(SocketError::SocketAbsent { path: self.0.socket.path.clone() }.into());
        }
        reply(handle(self.node().await?, request).await)
    }

    #[cfg(all(feature = "daemon", unix))]
    pub(super) async fn has_daemon(&self) -> Result<bool, Error> {
        Ok(socket::connect(&self.0.socket.path).await?.is_some())
    }
}

fn reply(reply: ApiReply) -> Result<ApiReply, Error> {
    match reply {
        ApiReply::Failed(failed) => Err(Error::failed(failed)),
        reply => Ok(reply),
    }
}
