//! A network in the memory of one process, with faults on demand: for tests of everything above.
//!
//! It carries raw bytes as QUIC streams would: ordered, with a window, with resets; so the credited stream
//! above runs unchanged. One lock for the whole network keeps it simple.

mod pipe;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use malai_model::id::Id52;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::connection::{CloseReason, Connection, Counters, Link as AnyLink};
use super::error::{CLOSE_NORMAL, CLOSE_NOT_ADMITTED, P2pError};
use super::hooks::Gate;
use super::options::{Protocol, Serve};
use super::raw::{RawRecv, RawSend};
use crate::task::Scope;
use pipe::pipe;
pub(super) use pipe::{PipeRecv, PipeSend};

/// The network. Cloning gives another handle.
#[derive(Debug, Clone, Default)]
pub struct Network(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    nodes: HashMap<Id52, Listener>,
    links: Vec<std::sync::Weak<Session>>,
    /// Pairs whose bytes do not pass, smaller id first.
    parted: HashSet<(Id52, Id52)>,
    /// Pairs that nobody can connect, smaller id first; the connections that they have go on.
    refused: HashSet<(Id52, Id52)>,
    /// Who does not read at all.
    stalled: HashSet<Id52>,
    /// How many bytes still pass between two before their connection breaks.
    left: HashMap<(Id52, Id52), usize>,
    delay: Duration,
    /// Every reader and writer that waits; any change wakes all.
    waiting: Vec<Waker>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Listener {
    gate: Option<Arc<Gate>>,
    protocols: Vec<Protocol>,
    accepted: mpsc::Sender<Connection>,
    scope: Scope,
    counters: Arc<Counters>,
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pair(a: Id52, b: Id52) -> (Id52, Id52) {
    if a < b { (a, b) } else { (b, a) }
}

impl World {
    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
        self.changed.notify_waiters();
    }

    fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
    }
}

impl Network {
    /// Makes an empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets nothing pass between two until [`Network::heal`]; what is sent meanwhile arrives then.
    pub fn partition(&self, a: Id52, b: Id52) {
        lock(&self.0).parted.insert(pair(a, b));
    }

    /// Makes every further attempt to connect two fail at once, as without a route; connections that are there go on.
    pub fn refuse(&self, a: Id52, b: Id52) {
        lock(&self.0).refused.insert(pair(a, b));
    }

    /// Ends a partition.
    pub fn heal(&self, a: Id52, b: Id52) {
        let mut world = lock(&self.0);
        world.parted.remove(&pair(a, b));
        world.wake();
    }

    /// Breaks the connections between two, as an idle timeout would.
    pub fn cut(&self, a: Id52, b: Id52) {
        let sessions: Vec<Arc<Session>> =
            lock(&self.0).links.iter().filter_map(std::sync::Weak::upgrade).collect();
        for session in sessions.iter().filter(|session| session.pair == pair(a, b)) {
            session.lose(&self.0);
        }
    }

    /// Lets nothing pass any more on the connections that are open between two, and tells nobody; new ones work. So it is
    /// for whoever was connected to a process that was killed and started anew.
    pub fn silence(&self, a: Id52, b: Id52) {
        let sessions: Vec<Arc<Session>> =
            lock(&self.0).links.iter().filter_map(std::sync::Weak::upgrade).collect();
        for session in sessions.iter().filter(|session| session.pair == pair(a, b)) {
            session.silent.store(true, Ordering::Release);
        }
    }

    /// Breaks the connection between two as soon as so many more bytes have passed, both ways together.
    pub fn cut_after(&self, a: Id52, b: Id52, bytes: usize) {
        lock(&self.0).left.insert(pair(a, b), bytes);
    }

    /// Makes every byte take so long, one way.
    pub fn delay(&self, by: Duration) {
        lock(&self.0).delay = by;
    }

    /// Makes an endpoint read nothing, as a stopped process does.
    pub fn stall(&self, who: Id52) {
        lock(&self.0).stalled.insert(who);
    }

    /// Ends a stall.
    pub fn resume(&self, who: Id52) {
        let mut world = lock(&self.0);
        world.stalled.remove(&who);
        world.wake();
    }

    pub(super) fn join(
        &self,
        id: Id52,
        serve: Option<Serve>,
        accepted: mpsc::Sender<Connection>,
        scope: &Scope,
        counters: Arc<Counters>,
    ) -> Node {
        let protocols = serve.as_ref().map(|serve| serve.protocols.clone()).unwrap_or_default();
        let gate =
            serve.map(|serve| Arc::new(Gate { admission: serve.admission, counters: counters.clone() }));
        let listener =
            Listener { gate, protocols, accepted, scope: scope.clone(), counters: counters.clone() };
        lock(&self.0).nodes.insert(id, listener);
        Node { network: self.clone(), id, scope: scope.clone(), counters }
    }
}

/// An endpoint's place in the network.
#[derive(Debug)]
pub(super) struct Node {
    network: Network,
    id: Id52,
    scope: Scope,
    counters: Arc<Counters>,
}

impl Node {
    pub(super) async fn connect(
        &self,
        peer: Id52,
        protocol: Protocol,
        deadline: Duration,
    ) -> Result<Connection, P2pError> {
        let begun = Instant::now();
        loop {
            let changed = lock(&self.network.0).changed.clone();
            let changed = changed.notified();
            if let Some(outcome) = self.try_connect(peer, protocol) {
                return outcome;
            }
            let left = deadline.saturating_sub(begun.elapsed());
            if tokio::time::timeout(left, changed).await.is_err() {
                let tried = vec!["memory".to_owned()];
                return Err(P2pError::Unreachable { peer, tried, after: begun.elapsed() });
            }
        }
    }

    /// `None` while nothing passes between the two.
    fn try_connect(&self, peer: Id52, protocol: Protocol) -> Option<Result<Connection, P2pError>> {
        let world = &self.network.0;
        let (gate, accepted, scope, counters) = {
            let mut world = lock(world);
            if world.refused.contains(&pair(self.id, peer)) {
                let tried = vec!["memory".to_owned()];
                return Some(Err(P2pError::Unreachable { peer, tried, after: Duration::ZERO }));
            }
            let listener = world.nodes.get(&peer)?;
            if listener.gate.is_none()
                || world.parted.contains(&pair(self.id, peer))
                || world.stalled.contains(&peer)
            {
                return None;
            }
            if !listener.protocols.contains(&protocol) {
                return Some(Err(P2pError::Incompatible { peer }));
            }
            let found = (
                listener.gate.clone()?,
                listener.accepted.clone(),
                listener.scope.clone(),
                listener.counters.clone(),
            );
            world.links.retain(|link| link.strong_count() > 0);
            found
        };
        let (to_peer, from_us) = mpsc::unbounded_channel();
        let (to_us, from_peer) = mpsc::unbounded_channel();
        let session = Arc::new(Session {
            silent: AtomicBool::new(false),
            pair: pair(self.id, peer),
            closed: Mutex::new(None),
            lost: AtomicBool::new(false),
            notify: Notify::new(),
        });
        lock(world).links.push(Arc::downgrade(&session));
        let link =
            |me: Id52, open: mpsc::UnboundedSender<Pipes>, incoming: mpsc::UnboundedReceiver<Pipes>| Link {
                me,
                world: world.clone(),
                session: session.clone(),
                open,
                incoming: tokio::sync::Mutex::new(incoming),
            };
        let ours = link(self.id, to_peer, from_peer);
        let theirs = link(peer, to_us, from_us);
        let ours =
            Connection::new(AnyLink::Memory(ours), peer, protocol, self.scope.clone(), self.counters.clone());
        if gate.admits(Some(self.id), Some(protocol)) {
            let theirs = Connection::new(AnyLink::Memory(theirs), self.id, protocol, scope, counters);
            // Full or gone: then it is as if the peer did not accept, and the caller's deadlines decide.
            let _unaccepted = accepted.try_send(theirs);
        } else {
            let text = "not admitted".to_owned();
            session.close(world, CloseReason { code: CLOSE_NOT_ADMITTED, text });
        }
        Some(Ok(ours))
    }

    pub(super) fn close(&self) {
        let sessions: Vec<Arc<Session>> = {
            let mut world = lock(&self.network.0);
            world.nodes.remove(&self.id);
            world.links.iter().filter_map(std::sync::Weak::upgrade).collect()
        };
        for session in
            sessions.iter().filter(|session| session.pair.0 == self.id || session.pair.1 == self.id)
        {
            session.close(&self.network.0, CloseReason::normal());
        }
    }
}

/// A connection's state, common to both ends.
#[derive(Debug)]
struct Session {
    pair: (Id52, Id52),
    /// Nothing passes.
    silent: AtomicBool,
    closed: Mutex<Option<CloseReason>>,
    /// Nobody closed it.
    lost: AtomicBool,
    notify: Notify,
}

impl Session {
    /// Ends it as an idle timeout would.
    fn lose(&self, world: &Mutex<World>) {
        self.lost.store(true, Ordering::Release);
        let text = "the peer did not answer any more".to_owned();
        self.close(world, CloseReason { code: CLOSE_NORMAL, text });
    }

    fn close(&self, world: &Mutex<World>, reason: CloseReason) {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.notify.notify_waiters();
        lock(world).wake();
    }

    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire)
    }

    fn reason(&self) -> Option<CloseReason> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn closed(&self) -> CloseReason {
        loop {
            let notified = self.notify.notified();
            if let Some(reason) = self.reason() {
                return reason;
            }
            notified.await;
        }
    }
}

pub(super) type Pipes = (PipeSend, PipeRecv);

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Link {
    me: Id52,
    world: Arc<Mutex<World>>,
    session: Arc<Session>,
    open: mpsc::UnboundedSender<Pipes>,
    incoming: tokio::sync::Mutex<mpsc::UnboundedReceiver<Pipes>>,
}

impl Link {
    pub(super) fn open(&self) -> Option<(RawSend, RawRecv)> {
        if self.session.reason().is_some() {
            return None;
        }
        let (a, b) = self.session.pair;
        let peer = if self.me == a { b } else { a };
        let (mut our_send, their_recv) = pipe(self, peer);
        let (their_send, our_recv) = pipe(self, self.me);
        our_send.announce_with(self.open.clone(), (their_send, their_recv));
        Some((RawSend::Memory(our_send), RawRecv::Memory(our_recv)))
    }

    pub(super) async fn accept(&self) -> Option<(RawSend, RawRecv)> {
        let mut incoming = self.incoming.lock().await;
        tokio::select! {
            biased;
            _ = self.session.closed() => None,
            pipes = incoming.recv() => match pipes {
                Some((send, recv)) => Some((RawSend::Memory(send), RawRecv::Memory(recv))),
                None => {
                    self.close(CloseReason::normal());
                    None
                }
            },
        }
    }

    pub(super) fn close(&self, reason: CloseReason) {
        self.session.close(&self.world, reason);
    }

    pub(super) async fn closed(&self) -> CloseReason {
        self.session.closed().await
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.session.reason()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.session.lost.load(Ordering::Acquire)
    }

    pub(super) fn rtt(&self) -> Duration {
        lock(&self.world).delay * 2
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close(CloseReason::normal());
    }
}
