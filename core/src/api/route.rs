//! The way to machines: through the daemon when one runs, else dialled by this process itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;

#[cfg(all(feature = "daemon", unix))]
use super::socket;
use super::{ApiReply, ApiRequest, ClientOptions, OpenRequest, OpenedView, RunRequest, handle};
use crate::cluster::ClusterError;
use crate::error::Error;
#[cfg(all(feature = "daemon", unix))]
use crate::error::SocketError;
use crate::exec::RunningCommand;
use crate::home::Home;
use crate::node::{Mode, Node, NodeError, NodeOptions};
use crate::p2p::{P2pError, Stream};

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
    closed: AtomicBool,
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
        let node = self.node().await?;
        let found = Box::pin(node.find(request)).await?;
        let (stream, path) = Box::pin(node.open(&found)).await?;
        let view = found.view(path);
        tracing::debug!(machine = view.shown(), address = view.address, "dialled directly");
        Ok(Opened { stream, view })
    }

    /// Opens another stream to the machine of an earlier one, for what goes on after a lost connection.
    ///
    /// # Errors
    /// As [`Self::open`].
    ///
    /// # Cancel safety
    /// A cancelled call opens nothing.
    pub async fn reopen(&self, earlier: &OpenedView) -> Result<Opened, Error> {
        self.open(&OpenRequest { words: vec![earlier.address_by_id()], ..OpenRequest::default() }).await
    }

    /// Runs a program on a machine.
    pub(super) async fn run(&self, request: RunRequest) -> Result<RunningCommand, Error> {
        Ok(self.node().await?.run(request).await?)
    }

    pub(super) async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        if let Some(node) = self.0.node.get() {
            node.close(Duration::ZERO).await;
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.0.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    async fn node(&self) -> Result<&Node, Error> {
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
        ApiReply::Failed(failed) => Err(Error::Failed(Box::new(failed))),
        reply => Ok(reply),
    }
}
