//! The way through the daemon: where it is looked for, what it is asked for, and what becomes of that.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use malai_model::code::ErrorCode;
use malai_model::wire::{ExecRequest, Request};

use super::{Opened, Route};
use crate::api::socket::{self, OpenAnswer};
use crate::api::{ApiReply, ApiRequest, OpenRequest};
use crate::error::{Error, SocketError};
use crate::exec::ExecError;
use crate::node::{NodeError, NodeOptions};
use crate::p2p::{PathView, Stream, first_frame, new_resume_token};

/// The longest request that is sent before the stream is there: what a socket takes at once.
const AHEAD: usize = 16 * 1024;
/// How long to wait for a daemon that is gone and may be back at once.
const RESTART: Duration = Duration::from_secs(3);

/// Where the daemon is looked for.
pub(super) struct Socket {
    path: PathBuf,
    /// Whether somebody named it: then its absence is an error, not a reason to go without.
    named: bool,
    /// Whether the daemon carried a stream once.
    carried: AtomicBool,
}

impl Socket {
    /// The one that somebody named, or the home's own.
    pub(super) fn of(named: Option<PathBuf>, options: &NodeOptions) -> Result<Self, Error> {
        let carried = AtomicBool::new(false);
        Ok(match named {
            Some(path) => Self { path, named: true, carried },
            None => {
                let path = options.home.socket_path(options.runtime_dir.as_deref())?;
                Self { path, named: false, carried }
            }
        })
    }

    fn absent(&self) -> Error {
        SocketError::SocketAbsent { path: self.path.clone() }.into()
    }
}

/// What became of asking the daemon for a stream. Unless it was opened, nothing was said to any machine, and the daemon says
/// nothing later.
pub(super) enum ThroughDaemon {
    Opened(Box<Opened>),
    /// It cannot carry this one.
    Unsupported,
    /// There is none that answers.
    Absent,
}

impl Route {
    /// `first`: what the stream begins with, if it is written behind the request.
    pub(super) async fn open_through_daemon(
        &self,
        request: &OpenRequest,
        first: Bytes,
    ) -> Result<ThroughDaemon, Error> {
        let socket = &self.0.socket;
        let Some(connection) = socket::connect(&socket.path).await? else {
            if socket.named {
                return Err(socket.absent());
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
                socket.carried.store(true, Ordering::Release);
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
            Err(error) if !socket.named => {
                tracing::debug!(%error, "the daemon does not answer");
                Ok(ThroughDaemon::Absent)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a stream to run a program. The request to run it goes to the daemon together with that for the stream, which
    /// spares the time to go there and back; then it is returned, since the stream has begun with just that.
    pub(super) async fn open_to_run(
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

    /// A daemon that carried streams and is gone is about to come back, more often than not: it restarts.
    pub(super) async fn await_daemon(&self) -> Result<(), Error> {
        let socket = &self.0.socket;
        if !socket.carried.load(Ordering::Acquire) {
            return Ok(());
        }
        let until = tokio::time::Instant::now() + RESTART;
        while socket::connect(&socket.path).await?.is_none() && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// What the daemon answers; `None` where none runs and none has to.
    pub(super) async fn ask_daemon(&self, request: &ApiRequest) -> Result<Option<ApiReply>, Error> {
        let socket = &self.0.socket;
        match socket::connect(&socket.path).await? {
            Some(connection) => Ok(Some(socket::ask(connection, request).await?)),
            None if socket.named => Err(socket.absent()),
            None => Ok(None),
        }
    }

    pub(in crate::api) async fn has_daemon(&self) -> Result<bool, Error> {
        Ok(socket::connect(&self.0.socket.path).await?.is_some())
    }
}
