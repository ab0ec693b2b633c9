//! A session that runs: its program's terminal, its clients' connections, and the state between them.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use malai_model::wire::CommandEnd;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::life;
use super::outbox::Outbox;
use super::protocol::{EndReason, Frame, FrameReader, FromHost, Hello, ToHost};
use super::session::{ClientId, Session};
use super::socket::{check_peer, no_hello};
use crate::host::{HostError, ProcessGroup, PtyMaster, PtyProcess};
use crate::task::Scope;
use crate::timeouts;
use crate::two_way::UnixSocket;

/// How much is read from the terminal at once, in bytes.
const READ: usize = 16 * 1024;
/// The most connections at a time: watchers, the client that types, and those that ask.
const MAX_CONNECTIONS: usize = 64;
/// How long a terminal that a program still has open is listened to when the session's first process has ended.
const DRAIN: Duration = Duration::from_millis(300);
/// How long nothing has to happen until a session gives memory back.
const REST: Duration = Duration::from_secs(10);
/// How often a session looks whether its directory is there: without it nobody can reach it.
const LOOK: Duration = Duration::from_secs(30);
/// How often a terminal that nobody has open is looked at while the session's first process runs.
const CLOSED: Duration = Duration::from_secs(1);

/// How long a session waits for what.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// With nobody attached and nothing shown; absent: for ever.
    pub(super) idle: Option<Duration>,
    /// Whether a client is about to attach.
    pub(super) audience: bool,
    /// For somebody to see how it ended.
    pub(super) linger: Duration,
    /// Between SIGHUP and SIGKILL.
    pub(super) grace: Duration,
    /// Between two looks at its directory.
    pub(super) look: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle: None,
            audience: false,
            linger: Duration::from_secs(600),
            grace: timeouts::HANGUP_GRACE,
            look: LOOK,
        }
    }
}

/// What a connection brings.
enum Event {
    /// Its first request.
    Asked(ClientId, ToHost, Outbox),
    /// What came after.
    Said(ClientId, ToHost),
    /// Typed bytes.
    Typed(ClientId, Bytes),
    /// It has gone.
    Gone(ClientId),
}

/// One that was accepted: it is given up when this is dropped.
struct Connection {
    id: ClientId,
    _held: oneshot::Sender<Infallible>,
}

type Ending = std::pin::Pin<Box<dyn Future<Output = Result<CommandEnd, HostError>> + Send>>;

/// A session that runs.
pub(super) struct Running {
    session: Session,
    master: PtyMaster,
    group: Option<Arc<ProcessGroup>>,
    listener: UnixListener,
    /// The lock in its directory: held as long as the session lives.
    lock: std::fs::File,
    look_at: Instant,
    /// The user whose daemon may connect.
    daemon: u32,
    patience: Patience,
    scope: Scope,
    /// Oldest first.
    connections: Vec<Connection>,
    events: mpsc::Receiver<Event>,
    events_in: mpsc::Sender<Event>,
    /// A client took something.
    written: Arc<Notify>,
    next_client: ClientId,
    /// How the session's first process ended.
    exited: Option<CommandEnd>,
    /// When the terminal is looked at next: it had nothing, or nobody had it open.
    read_after: Option<Instant>,
    /// Until when the program's first words wait for a client.
    audience_until: Option<Instant>,
    drained_at: Option<Instant>,
    /// Whether nothing has happened for a while.
    rests: bool,
    ending: Option<(EndReason, Ending)>,
    /// Where the end is left for whoever looks later.
    end_file: Option<std::fs::File>,
    /// Those who wait for the end.
    asked_end: Vec<Outbox>,
}

impl Running {
    pub(super) fn new(
        session: Session,
        program: PtyProcess,
        listener: UnixListener,
        lock: std::fs::File,
        daemon: u32,
        patience: Patience,
    ) -> Self {
        let (events_in, events) = mpsc::channel(32);
        let audience_until = patience.audience.then(|| Instant::now() + timeouts::HANDSHAKE);
        Self {
            session,
            master: program.master,
            group: Some(Arc::new(program.group)),
            listener,
            lock,
            look_at: Instant::now() + patience.look,
            daemon,
            patience,
            scope: Scope::new(),
            connections: Vec::new(),
            events,
            events_in,
            written: Arc::new(Notify::new()),
            next_client: 1,
            exited: None,
            read_after: None,
            audience_until,
            drained_at: None,
            rests: false,
            ending: None,
            asked_end: Vec::new(),
            end_file: None,
        }
    }

    /// Leaves in a file how the program ended, when it has.
    pub(super) fn leave_end_in(&mut self, file: std::fs::File) {
        self.end_file = Some(file);
    }

    /// Runs until the program has ended and somebody knows, or nobody came for a long time.
    pub(super) async fn run_to_end(&mut self) {
        let mut block = vec![0; READ];
        loop {
            self.session.catch_up();
            if self.session.is_over(self.patience.linger) && self.asked_end.is_empty() {
                break;
            }
            let deadline = self.next_deadline();
            let (wants_read, input) = (self.wants_read(), self.session.next_input());
            let running = self.exited.is_none();
            tokio::select! {
                event = self.events.recv() => if let Some(event) = event { self.take(event) },
                accepted = self.listener.accept() => self.accept(accepted.map(|(stream, _)| stream)).await,
                read = self.master.read(&mut block), if wants_read => match read {
                    Ok(0) | Err(_) => self.terminal_closed(),
                    Ok(count) => {
                        self.session.show(&block[..count]);
                        if self.exited.is_some() && self.ending.is_none() {
                            self.drained_at = Some(Instant::now() + DRAIN);
                        }
                    }
                },
                wrote = type_into(&self.master, input.as_ref()), if input.is_some() => match wrote {
                    Ok(count) => self.session.took_input(count),
                    Err(_) => self.session.drop_input(),
                },
                () = self.written.notified() => {}
                end = wait(self.group.as_deref()), if running && self.ending.is_none() => self.exited(end),
                end = ended(&mut self.ending) => {
                    if let Some((_, ending)) = &mut self.ending {
                        *ending = Box::pin(std::future::pending());
                    }
                    self.exited(end);
                }
                () = sleep_until(deadline) => {}
            }
            self.heed_time();
        }
        self.finish().await;
    }

    /// What is left to write is written, for a moment; what the program left in the background lives on.
    async fn finish(&mut self) {
        let ended_by_us = self.ending.take().is_some();
        for outbox in self.asked_end.drain(..) {
            outbox.close();
        }
        if let Some(Ok(group)) = self.group.take().map(Arc::try_unwrap)
            && !ended_by_us
            && let Err(error) = group.finish().await
        {
            tracing::debug!(%error, "the program was collected by another");
        }
        self.session.close();
        self.scope.shutdown(timeouts::LAST_WORD).await;
    }

    fn wants_read(&self) -> bool {
        self.session.ended().is_none()
            && self.read_after.is_none()
            && self.audience_until.is_none()
            && self.session.has_room()
    }

    fn next_deadline(&self) -> Instant {
        // Only what can be acted on when its time has come: anything else would be due again at once.
        let is_idle = self.session.is_alone() && self.ending.is_none() && self.session.ended().is_none();
        let idle = self.patience.idle.filter(|_| is_idle).map(|idle| self.session.idle_since + idle);
        let linger = self.session.lingers_until(self.patience.linger).filter(|_| self.asked_end.is_empty());
        let drained = self.drained_at.filter(|_| self.wants_read());
        let rest = (!self.rests).then(|| self.session.idle_since + REST);
        let claimed = self.session.claimed_until();
        let times = [idle, linger, drained, rest, claimed, self.read_after, self.audience_until];
        times.into_iter().flatten().fold(self.look_at, Instant::min)
    }

    /// Does what is due.
    fn heed_time(&mut self) {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.read_after) {
            self.read_after = None;
        }
        if is_due(self.audience_until) {
            self.audience_until = None;
        }
        if self.session.idle_since + REST > now {
            self.rests = false;
        } else if !self.rests {
            self.rests = true;
            self.session.rest();
        }
        if is_due(Some(self.look_at)) {
            self.look_at = now + self.patience.look;
            if has_no_name(&self.lock) {
                // Nobody can come for it any more.
                self.session.saw_end();
                if self.session.ended().is_none() && self.ending.is_none() {
                    tracing::warn!("the directory of this session is gone: it ends");
                    self.hang_up(EndReason::Other);
                }
            }
        }
        if is_due(self.session.claimed_until()) {
            self.session.is_unclaimed();
            if self.session.ended().is_none() && self.ending.is_none() {
                tracing::warn!("who opened this session has gone without knowing of it: it ends");
                self.hang_up(EndReason::Other);
            }
        }
        if self.session.ended().is_some() {
            return;
        }
        if is_due(self.drained_at) && self.wants_read() {
            self.is_drained();
            return;
        }
        let idle = self
            .patience
            .idle
            .is_some_and(|idle| self.session.is_alone() && self.session.idle_since.elapsed() >= idle);
        if idle && self.ending.is_none() {
            self.hang_up(EndReason::Other);
        }
    }

    fn terminal_closed(&mut self) {
        if self.exited.is_some() {
            self.is_drained();
        } else {
            // The program may have closed it and may open it again.
            self.read_after = Some(Instant::now() + CLOSED);
        }
    }

    fn exited(&mut self, end: Result<CommandEnd, HostError>) {
        // If it cannot be told it was killed, most likely.
        let end = end.unwrap_or(CommandEnd::Killed { signal: 9 });
        self.exited = Some(end);
        self.read_after = None;
        self.audience_until = None;
        self.drained_at = Some(Instant::now() + DRAIN);
        self.session.drop_input();
    }

    /// All that the program showed was shown.
    fn is_drained(&mut self) {
        let (Some(end), None) = (self.exited, self.session.ended()) else { return };
        self.session.end(end, self.ending.as_ref().map(|(reason, _)| *reason));
        if let Some(mut file) = self.end_file.take()
            && let Err(error) = life::leave_end(&mut file, end)
        {
            tracing::warn!(%error, "how the program ended is not left for later");
        }
        for outbox in &self.asked_end {
            outbox.say(&FromHost::Ended(end));
            outbox.close();
        }
        if !self.asked_end.is_empty() {
            self.asked_end.clear();
            self.session.saw_end();
        }
        if self.ending.is_some() {
            // Whoever wanted it ended does not want it kept.
            self.session.saw_end();
        }
    }

    fn hang_up(&mut self, reason: EndReason) {
        let Some(group) = &self.group else { return };
        self.session.hurry();
        let (group, grace) = (group.clone(), self.patience.grace);
        self.ending = Some((reason, Box::pin(async move { group.hang_up(grace).await })));
    }

    async fn accept(&mut self, accepted: io::Result<UnixStream>) {
        let stream = match accepted.and_then(|stream| check_peer(&stream, self.daemon).map(|()| stream)) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection is refused");
                // Out of files, say: later it may work again.
                tokio::time::sleep(Duration::from_millis(10)).await;
                return;
            }
        };
        if self.connections.len() >= MAX_CONNECTIONS {
            // Of clients there are fewer. Who comes may have come to end this session: the oldest that asks gives way.
            tracing::warn!("too many connections at once");
            let oldest =
                self.connections.iter().position(|connection| !self.session.is_client(connection.id));
            self.connections.remove(oldest.unwrap_or_default());
        }
        let id = self.next_client;
        self.next_client += 1;
        let (events, outbox) = (self.events_in.clone(), Outbox::new(self.written.clone()));
        let (held, gives_way) = oneshot::channel::<Infallible>();
        self.connections.push(Connection { id, _held: held });
        self.scope.spawn("client", async move {
            let served = tokio::select! {
                served = serve(stream, id, &events, &outbox) => served,
                _ = gives_way => Err(io::ErrorKind::ConnectionAborted.into()),
            };
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended");
            }
            // The session has gone if it does not take this.
            _ = events.send(Event::Gone(id)).await;
        });
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Asked(_, ToHost::Info {}, outbox) => {
                outbox.say(&FromHost::Info(self.session.info()));
                outbox.close();
            }
            Event::Asked(id, ToHost::Attach(request), outbox) => {
                let resized = self.session.attach(id, &request, outbox);
                self.resize(resized);
                self.audience_until = None;
            }
            Event::Asked(_, ToHost::End { reason }, outbox) => self.asked_to_end(reason, Some(outbox)),
            Event::Asked(_, _, outbox) => outbox.close(),
            Event::Said(id, ToHost::Confirm {}) => self.session.confirmed(id),
            Event::Said(id, ToHost::Resize { window }) => {
                let resized = self.session.resize(id, window);
                self.resize(resized);
            }
            Event::Said(id, ToHost::Detach {}) => self.session.detach(id),
            Event::Said(id, ToHost::Seen {}) => self.session.saw_end_by(id, self.patience.linger),
            Event::Said(_, ToHost::End { reason }) => self.asked_to_end(reason, None),
            Event::Said(..) => {}
            Event::Typed(id, bytes) => {
                if self.session.typed(id, bytes).is_err() {
                    tracing::warn!("a client typed more than it may");
                    self.session.gone(id);
                }
            }
            Event::Gone(id) => {
                self.connections.retain(|connection| connection.id != id);
                self.session.gone(id);
            }
        }
    }

    fn asked_to_end(&mut self, reason: EndReason, outbox: Option<Outbox>) {
        if let Some(end) = self.session.ended() {
            if let Some(outbox) = outbox {
                outbox.say(&FromHost::Ended(end));
                outbox.close();
            }
            self.session.saw_end();
            return;
        }
        self.asked_end.extend(outbox);
        if self.ending.is_none() {
            self.hang_up(reason);
        }
    }

    fn resize(&self, window: Option<malai_model::wire::WindowSize>) {
        if let Some(window) = window
            && let Err(error) = self.master.resize(window)
        {
            tracing::debug!(%error, "the terminal keeps its size");
        }
    }
}

/// Whether a file was removed that is still open.
fn has_no_name(file: &std::fs::File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|meta| meta.nlink() == 0)
}

async fn type_into(master: &PtyMaster, bytes: Option<&Bytes>) -> io::Result<usize> {
    match bytes {
        Some(bytes) => master.write(bytes).await,
        None => std::future::pending().await,
    }
}

async fn wait(group: Option<&ProcessGroup>) -> Result<CommandEnd, HostError> {
    match group {
        Some(group) => group.wait().await,
        None => std::future::pending().await,
    }
}

async fn ended(ending: &mut Option<(EndReason, Ending)>) -> Result<CommandEnd, HostError> {
    match ending {
        Some((_, ending)) => ending.await,
        None => std::future::pending().await,
    }
}

/// Serves one connection: its hello, its request, and what follows.
async fn serve(
    stream: UnixStream,
    id: ClientId,
    events: &mpsc::Sender<Event>,
    outbox: &Outbox,
) -> io::Result<()> {
    let (read, mut write) = UnixSocket::from_tokio(stream)?.halves();
    let mut frames = FrameReader::new(read);
    outbox.say(&FromHost::Hello(Hello::own()));
    let reading = async {
        let first = async {
            match frames.message().await? {
                ToHost::Hello(_) => frames.message().await,
                _ => Err(no_hello()),
            }
        };
        let request = tokio::time::timeout(timeouts::HANDSHAKE, first).await??;
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        events.send(Event::Asked(id, request, outbox.clone())).await.map_err(gone)?;
        loop {
            let event = match frames.next().await? {
                Some(Frame::Message(said)) => Event::Said(id, said),
                Some(Frame::Data(bytes)) => Event::Typed(id, bytes),
                None => return Ok(()),
            };
            events.send(event).await.map_err(gone)?;
        }
    };
    tokio::select! {
        read = reading => read,
        written = outbox.write_to(&mut write) => written,
    }
}

#[cfg(test)]
mod tests;
