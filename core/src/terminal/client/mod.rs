//! The caller's side of a session: it types, it shows, and it comes back by itself when its connection is lost.

mod driver;
mod error;
mod shared;
mod shown;
#[cfg(all(test, unix))]
mod tests;
mod typed;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use malai_model::wire::{
    AttachMode, AttachSession, Attached, CommandEnd, DetachReason, Notice, OpenSession, Request, ResumeToken,
    SessionId, SessionInfo, WindowSize, WireError,
};

use self::driver::Driver;
pub use self::error::AttachError;
use self::shared::Shared;
use self::shown::Shown;
use crate::p2p::{PathView, Stream, new_resume_token};
use crate::task::Scope;
use crate::timeouts;

/// Opens further streams to the machine of a session.
pub trait Redial: Send + Sync + 'static {
    /// Opens a fresh stream to the same machine; nothing was said on it yet. It brings a deadline of its own.
    fn redial(&self) -> Pin<Box<dyn Future<Output = Result<Stream, WireError>> + Send + '_>>;
}

/// A place at a session. Dropping its events leaves the session, which goes on without this client.
///
/// When the connection is lost it comes back by itself, with backoff, for as long as its events are held: no byte of
/// output is lost or comes twice, and what was typed meanwhile arrives. What cannot get better (the session is gone, the
/// right was taken away) ends it.
#[derive(Debug)]
pub struct SessionClient {
    /// How many other sessions of this identity nobody is attached to there, if this one is a shell that was opened.
    pub detached: u32,
    /// Types.
    pub input: SessionInput,
    /// Yields output, and what becomes of the connection and the session.
    pub events: SessionEvents,
    /// Resizes, detaches, tells the state.
    pub control: SessionControl,
}

/// Types into a session.
#[derive(Debug)]
pub struct SessionInput {
    shared: Arc<Shared>,
    mode: AttachMode,
}

/// Yields what happens at a session.
#[derive(Debug)]
pub struct SessionEvents(Arc<Shared>);

/// Steers a client of a session. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionControl(Arc<Shared>);

/// What happens at a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// Bytes for the terminal, in order.
    Output(Bytes),
    /// The connection is lost, and another is being made.
    Reconnecting {
        /// Why it was lost; may hold text of the peer: show it escaped.
        reason: String,
    },
    /// Another connection is there.
    Reconnected,
    /// This client is no longer attached; the session goes on. Nothing follows.
    Detached(DetachReason),
    /// Its program ended. Nothing follows.
    Ended(CommandEnd),
}

/// What the first bytes of the next connection shall be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum OnReturn {
    /// The output goes on where it stopped.
    #[default]
    Continue,
    /// The screen is drawn anew, for something else was written on it.
    Redraw,
}

/// How a client stands with its session.
#[derive(Debug, Clone)]
pub struct SessionStatus {
    /// Which session.
    pub session: SessionId,
    /// The connection.
    pub link: Link,
    /// How many bytes were typed.
    pub typed: u64,
    /// How many of them wait to be sent.
    pub unsent: usize,
    /// How many bytes of the session's output came since it began, those before this client included.
    pub received: u64,
}

/// The connection of a client.
#[derive(Debug, Clone)]
pub enum Link {
    /// It is attached.
    Attached {
        /// Since when.
        since: Instant,
        /// How it travels, as far as this process knows; as it was when it attached.
        path: Option<PathView>,
    },
    /// It is lost.
    Lost {
        /// Since when.
        since: Instant,
        /// What the last attempt failed with. May hold text of the peer: show it escaped.
        reason: String,
    },
}

/// How many sessions a machine may list: one that goes on and on wants the memory of whoever asks.
const MOST_LISTED: usize = 65_536;
/// And how many bytes of words and titles.
const MOST_LISTED_BYTES: usize = 64 * 1024 * 1024;

/// What a client is at its session.
struct Place {
    client: ResumeToken,
    mode: AttachMode,
    window: WindowSize,
    /// It opened the session: the machine waits for word that it knows of it.
    is_new: bool,
}

impl SessionClient {
    /// Starts a session on a fresh stream and attaches to it. `scope` owns the client's task.
    ///
    /// # Errors
    /// What the machine refused it for, or what the connection failed with: then no session runs, or it ends.
    ///
    /// # Cancel safety
    /// As with an error.
    pub async fn open(
        stream: Stream,
        mut request: OpenSession,
        redial: Arc<dyn Redial>,
        scope: &Scope,
    ) -> Result<Self, AttachError> {
        let client = new_resume_token()?;
        request.client = Some(client.clone());
        request.confirms = true;
        let window = request.window;
        let (stream, attached) = driver::attach(stream, &Request::OpenSession(request)).await?;
        let place = Place { client, mode: AttachMode::Control, window, is_new: true };
        Ok(Self::start(stream, &attached, place, redial, scope))
    }

    /// Attaches to a session of one's own; `session` absent: to the only one that nobody is attached to, or the only one.
    ///
    /// # Errors
    /// When there is no such session, or it may not be attached to any more.
    pub async fn attach(
        stream: Stream,
        session: Option<SessionId>,
        mode: AttachMode,
        window: WindowSize,
        redial: Arc<dyn Redial>,
        scope: &Scope,
    ) -> Result<Self, AttachError> {
        let client = new_resume_token()?;
        let request = AttachSession { session, mode, client: client.clone(), window, received: None };
        let (stream, attached) = driver::attach(stream, &Request::AttachSession(request)).await?;
        let place = Place { client, mode, window, is_new: false };
        Ok(Self::start(stream, &attached, place, redial, scope))
    }

    fn start(
        stream: Stream,
        attached: &Attached,
        place: Place,
        redial: Arc<dyn Redial>,
        scope: &Scope,
    ) -> Self {
        let Place { client, mode, window, is_new } = place;
        let mut shown = Shown::default();
        shown.attach(attached, None);
        let shared = Shared::new(attached.session.clone(), window, shown.received());
        let driver = Driver { shared: Arc::clone(&shared), redial, client, mode, shown, confirms: is_new };
        let over = Arc::clone(&shared);
        scope.spawn("session", async move {
            // However the task ends, whoever waits hears of it.
            let _over = Over(over);
            driver.run(stream).await;
        });
        Self {
            detached: attached.detached,
            input: SessionInput { shared: Arc::clone(&shared), mode },
            events: SessionEvents(Arc::clone(&shared)),
            control: SessionControl(shared),
        }
    }

    /// Starts a session on a fresh stream without attaching to it.
    ///
    /// It runs on also if its answer does not arrive: what was meant to run by itself is not stopped halfway.
    ///
    /// # Errors
    /// What the machine refused it for, or what the connection failed with; [`AttachError::MayRun`] when no answer came.
    pub async fn start_detached(stream: Stream, mut request: OpenSession) -> Result<SessionId, AttachError> {
        request.client = None;
        let asked = driver::ask_once(stream, &Request::OpenSession(request), timeouts::REPLY).await;
        match asked.map_err(AttachError::of_start)? {
            (_, _, Notice::Opened { session }) => Ok(session),
            _ => Err(AttachError::OutOfTurn("not which session it started")),
        }
    }

    /// Lists one's own sessions on a machine, oldest first.
    ///
    /// # Errors
    /// What the machine refused it for, or what the connection failed with.
    pub async fn list(stream: Stream) -> Result<Vec<SessionInfo>, AttachError> {
        let (_sender, mut receiver, mut notice) =
            driver::ask_once(stream, &Request::ListSessions {}, timeouts::REPLY).await?;
        let (mut all, mut bytes) = (Vec::new(), 0);
        loop {
            let Notice::Sessions { sessions, more } = notice else {
                return Err(AttachError::OutOfTurn("not which sessions there are"));
            };
            let goes_on = !sessions.is_empty();
            bytes += sessions.iter().map(weight).sum::<usize>();
            all.extend(sessions);
            if !more {
                return Ok(all);
            }
            if !goes_on || all.len() > MOST_LISTED || bytes > MOST_LISTED_BYTES {
                return Err(AttachError::OutOfTurn("more sessions than anybody can look at"));
            }
            let next = tokio::time::timeout(timeouts::REPLY, receiver.message::<Notice>()).await;
            notice = next
                .map_err(|_| AttachError::Unanswered)??
                .ok_or(AttachError::OutOfTurn("not all of the sessions"))?;
        }
    }

    /// Ends a session of one's own, and waits until it has ended.
    ///
    /// # Errors
    /// When there is no such session, or what the connection failed with.
    pub async fn end(stream: Stream, session: SessionId) -> Result<CommandEnd, AttachError> {
        // Its programs have their time to heed it.
        let within = timeouts::HANGUP_GRACE + timeouts::REPLY;
        let (_, _, notice) = driver::ask_once(stream, &Request::EndSession { session }, within).await?;
        driver::ended(notice)
    }
}

/// How much memory a listed session takes, but for what each does.
fn weight(info: &SessionInfo) -> usize {
    let words: usize = info.argv.iter().map(|word| size_of::<String>() + word.len()).sum();
    words + info.user.len() + info.title.len()
}

/// Says that the client is over, if its task did not get to it.
struct Over(Arc<Shared>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.finish_if_not();
    }
}

impl SessionInput {
    /// Types; returns when the bytes are taken over. While the connection is lost, up to 64 KiB are. What whoever looks
    /// on types goes nowhere.
    ///
    /// # Errors
    /// When it is over for this client.
    ///
    /// # Cancel safety
    /// A cancelled call has typed a prefix.
    pub async fn write(&self, bytes: Bytes) -> Result<(), AttachError> {
        match self.mode {
            AttachMode::Control => self.shared.type_bytes(bytes).await,
            AttachMode::Watch => Ok(()),
        }
    }
}

impl SessionEvents {
    /// Waits for what happens next.
    ///
    /// # Errors
    /// Why it is over for this client.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost.
    pub async fn next(&mut self) -> Result<SessionEvent, AttachError> {
        self.0.next().await
    }
}

impl Drop for SessionEvents {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl SessionControl {
    /// Which session it is.
    pub fn session(&self) -> &SessionId {
        &self.0.session
    }

    /// Says how large the terminal is now.
    pub fn resize(&self, window: WindowSize) {
        self.0.resize(window);
    }

    /// Leaves the session; [`SessionEvent::Detached`] follows.
    pub fn detach(&self) {
        self.0.detach();
    }

    /// Has the screen drawn anew: something else was written on it. Output that comes before is not lost.
    pub fn redraw(&self) {
        self.0.redraw();
    }

    /// How this client stands with its session.
    pub fn status(&self) -> SessionStatus {
        self.0.status()
    }
}
