//! What this node carries for processes of its own user: streams to machines over its connections, and requests to
//! this very device.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use malai_model::id::Id52;
use malai_model::wire::local::CarriedView;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::outbound::Found;
use super::serve::Asker;
use super::{Member, Node};
use crate::p2p::{BridgeEnd, P2pError, PathView, Stream, bridge};

/// The socket of a process that a stream is carried for.
pub(crate) struct Carried {
    pub(crate) socket: UnixStream,
    /// What was read of it already.
    pub(crate) leftover: BytesMut,
    /// The process at its other end, where the system says.
    pub(crate) pid: Option<i32>,
    /// Whether it comes back by itself when the stream ends: a stop does not wait for it.
    pub(crate) returns: bool,
}

/// The streams that are carried now.
#[derive(Default)]
pub(crate) struct CarriedStreams {
    entries: Mutex<Entries>,
    changed: Notify,
    /// Ends all of them.
    end: CancellationToken,
}

#[derive(Default)]
struct Entries {
    next: u64,
    open: BTreeMap<u64, Open>,
}

struct Open {
    view: CarriedView,
    returns: bool,
}

/// A stream that is carried. Dropping it says that it is over.
struct Entry {
    streams: Arc<CarriedStreams>,
    number: u64,
}

impl CarriedStreams {
    fn enter(self: &Arc<Self>, view: CarriedView, returns: bool) -> Entry {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let number = entries.next;
        entries.next += 1;
        entries.open.insert(number, Open { view, returns });
        Entry { streams: Arc::clone(self), number }
    }

    /// All of them, oldest first.
    pub(super) fn list(&self) -> Vec<CarriedView> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.open.values().map(|open| open.view.clone()).collect()
    }

    /// Waits until there is none but those that come back by themselves, at most so long.
    pub(super) async fn finished(&self, at_most: Duration) {
        self.settle(at_most, |entries| entries.open.values().all(|open| open.returns)).await;
    }

    /// Waits until there is none, at most so long.
    pub(super) async fn gone(&self, at_most: Duration) {
        self.settle(at_most, |entries| entries.open.is_empty()).await;
    }

    async fn settle(&self, at_most: Duration, done: impl Fn(&Entries) -> bool) {
        let settled = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                // From here on no change is missed.
                changed.as_mut().enable();
                if done(&self.entries.lock().unwrap_or_else(PoisonError::into_inner)) {
                    return;
                }
                changed.await;
            }
        };
        // Whether they ended by themselves or not, the caller goes on.
        _ = tokio::time::timeout(at_most, settled).await;
    }

    /// Ends those that are left; each process is told.
    pub(super) fn end(&self) {
        self.end.cancel();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.streams.entries.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&self.number);
        self.streams.changed.notify_waiters();
    }
}

impl Node {
    /// Carries a fresh stream to a machine for the process on a socket, until either is done with it.
    pub(crate) fn carry(&self, found: &Found, stream: Stream, carried: Carried) {
        let Carried { socket, leftover, pid, returns } = carried;
        let member = &found.member;
        let view = CarriedView {
            cluster: member.alias().clone(),
            peer: found.target.id52,
            name: found.target.name.clone(),
            pid: pid.and_then(|pid| u32::try_from(pid).ok()),
            since: self.now(),
        };
        let entry = self.inner.carried.enter(view, returns);
        let (scope, end) = (member.scope.clone(), self.inner.carried.end.clone());
        let (alias, peer) = (member.alias().clone(), found.target.id52);
        member.scope.spawn("carried", async move {
            let carried = bridge(stream, socket, leftover, end, &scope).await;
            drop(entry);
            log_end(&alias, &peer, &carried);
        });
    }

    /// Serves what a process of this user asks of this very device, by the gate that peers pass: the same rules, limits
    /// and log.
    pub(crate) fn serve_own_socket(&self, member: &Arc<Member>, carried: Carried) {
        let Carried { socket, leftover, .. } = carried;
        let own = member.own_id();
        match Stream::over_socket(socket, leftover, own, PathView::here(), &member.scope) {
            Ok(stream) => self.take(member, Asker::here(own), stream),
            Err(error) => tracing::warn!(%error, "a process of this device cannot be served"),
        }
    }
}

fn log_end(cluster: &malai_model::name::ClusterAlias, peer: &Id52, end: &Result<BridgeEnd, P2pError>) {
    match end {
        Ok(BridgeEnd::Complete | BridgeEnd::ProcessGone) => {}
        Ok(BridgeEnd::PeerLost) => {
            tracing::info!(%cluster, %peer, "the connection that a command used was lost");
        }
        Ok(BridgeEnd::Cancelled) => tracing::info!(%cluster, %peer, "a command was left: the daemon stops"),
        Err(error) => tracing::debug!(%cluster, %peer, %error, "a stream could not be carried"),
    }
}
