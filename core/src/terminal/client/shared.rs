//! What the parts of a client and its task share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use malai_model::wire::{SessionId, WindowSize};
use tokio::sync::Notify;

use super::typed::Typed;
use super::{AttachError, Link, OnReturn, SessionEvent, SessionStatus};

/// How many bytes of output may wait for whoever shows them; more waits in the stream and, behind it, in the session.
const OUTPUT_WAITING: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) session: SessionId,
    state: Mutex<State>,
    /// Something is to be taken by `next`.
    event: Notify,
    /// Output was taken.
    room: Notify,
    /// Something was typed.
    typed: Notify,
    /// What was typed is on its way.
    typing_room: Notify,
    /// The window changed, or something is asked for.
    asked: Notify,
}

#[derive(Debug)]
struct State {
    events: VecDeque<SessionEvent>,
    output_waiting: usize,
    typed: Typed,
    received: u64,
    window: WindowSize,
    resized: bool,
    detach: bool,
    redraw: bool,
    on_return: OnReturn,
    /// Nobody takes events any more.
    gone: bool,
    over: Option<Option<AttachError>>,
    link: Link,
}

/// What a front asks for beside typing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Resize(WindowSize),
    Detach,
    Redraw,
    /// Nobody takes events any more.
    Gone,
}

impl Shared {
    pub(super) fn new(session: SessionId, window: WindowSize, received: u64) -> Arc<Self> {
        Arc::new(Self {
            session,
            state: Mutex::new(State {
                events: VecDeque::new(),
                output_waiting: 0,
                typed: Typed::default(),
                received,
                window,
                resized: false,
                detach: false,
                redraw: false,
                on_return: OnReturn::Continue,
                gone: false,
                over: None,
                link: Link::Attached { since: Instant::now(), path: None },
            }),
            event: Notify::new(),
            room: Notify::new(),
            typed: Notify::new(),
            typing_room: Notify::new(),
            asked: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held ended one task; the state is consistent between statements that matter.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The front's side.

    /// Cancel safe.
    pub(super) async fn next(&self) -> Result<SessionEvent, AttachError> {
        loop {
            {
                let mut state = self.lock();
                if let Some(event) = state.events.pop_front() {
                    if let SessionEvent::Output(bytes) = &event {
                        state.output_waiting -= bytes.len();
                        self.room.notify_one();
                    }
                    return Ok(event);
                }
                if let Some(over) = &mut state.over {
                    return Err(over.take().unwrap_or(AttachError::Over));
                }
            }
            self.event.notified().await;
        }
    }

    /// Cancelled, a prefix is typed; returns how much when it is all, or the session is over.
    pub(super) async fn type_bytes(&self, mut bytes: Bytes) -> Result<(), AttachError> {
        loop {
            let mut room = std::pin::pin!(self.typing_room.notified());
            // From here on no change is missed.
            room.as_mut().enable();
            {
                let mut state = self.lock();
                if state.over.is_some() {
                    return Err(AttachError::Over);
                }
                let taken = state.typed.push(&bytes);
                drop(bytes.split_to(taken));
            }
            self.typed.notify_one();
            if bytes.is_empty() {
                return Ok(());
            }
            room.await;
        }
    }

    pub(super) fn resize(&self, window: WindowSize) {
        let mut state = self.lock();
        if state.window != window {
            state.window = window;
            state.resized = true;
            self.asked.notify_one();
        }
    }

    pub(super) fn detach(&self) {
        self.lock().detach = true;
        self.asked.notify_one();
    }

    pub(super) fn redraw(&self) {
        self.lock().redraw = true;
        self.asked.notify_one();
    }

    pub(super) fn set_on_return(&self, what: OnReturn) {
        self.lock().on_return = what;
    }

    pub(super) fn leave(&self) {
        self.lock().gone = true;
        self.asked.notify_one();
        self.room.notify_one();
    }

    pub(super) fn status(&self) -> SessionStatus {
        let state = self.lock();
        SessionStatus {
            session: self.session.clone(),
            link: state.link.clone(),
            typed: state.typed.total(),
            unsent: state.typed.waiting(),
            received: state.received,
        }
    }

    // The task's side.

    pub(super) fn push(&self, event: SessionEvent) {
        let mut state = self.lock();
        if let SessionEvent::Output(bytes) = &event {
            if bytes.is_empty() {
                return;
            }
            state.output_waiting += bytes.len();
        }
        state.events.push_back(event);
        drop(state);
        self.event.notify_one();
    }

    pub(super) fn finish(&self, failed: Option<AttachError>) {
        self.lock().over = Some(failed);
        self.event.notify_one();
        self.typing_room.notify_waiters();
    }

    pub(super) fn finish_if_not(&self) {
        let over = self.lock().over.is_some();
        if !over {
            self.finish(None);
        }
    }

    pub(super) fn set_link(&self, link: Link) {
        self.lock().link = link;
    }

    pub(super) fn set_received(&self, received: u64) {
        self.lock().received = received;
    }

    /// Waits until there is room for more output.
    pub(super) async fn output_room(&self) {
        while {
            let state = self.lock();
            state.output_waiting >= OUTPUT_WAITING && !state.gone
        } {
            self.room.notified().await;
        }
    }

    /// Waits for something to send.
    pub(super) async fn piece(&self) -> Bytes {
        loop {
            let piece = self.lock().typed.next_piece();
            if !piece.is_empty() {
                return piece;
            }
            self.typed.notified().await;
        }
    }

    pub(super) fn sent(&self, count: usize) {
        self.lock().typed.sent(count);
        self.typing_room.notify_waiters();
    }

    pub(super) fn resume_typing(&self, has: u64) -> Result<(), super::typed::Gap> {
        let resumed = self.lock().typed.resume_at(has);
        self.typing_room.notify_waiters();
        resumed
    }

    /// Waits until something is asked for, and takes it.
    pub(super) async fn ask(&self) -> Ask {
        loop {
            {
                let mut state = self.lock();
                if state.gone {
                    return Ask::Gone;
                }
                if state.detach {
                    return Ask::Detach;
                }
                if std::mem::take(&mut state.redraw) {
                    return Ask::Redraw;
                }
                if std::mem::take(&mut state.resized) {
                    return Ask::Resize(state.window);
                }
            }
            self.asked.notified().await;
        }
    }

    /// The window to attach with, and the place in the output to ask for.
    pub(super) fn to_attach(&self, received: u64) -> (WindowSize, Option<u64>) {
        let mut state = self.lock();
        state.resized = false;
        let on_return = std::mem::take(&mut state.on_return);
        (state.window, (on_return == OnReturn::Continue).then_some(received))
    }

    /// An attempt with this window succeeded: what was asked for meanwhile is done now.
    pub(super) fn attached(&self, window: WindowSize) {
        let mut state = self.lock();
        state.resized = state.window != window;
        state.redraw |= std::mem::take(&mut state.on_return) == OnReturn::Redraw;
        if state.resized || state.redraw {
            self.asked.notify_one();
        }
    }

    /// An attempt failed: what was to happen on the return still is.
    pub(super) fn not_attached(&self, asked: Option<u64>) {
        if asked.is_none() {
            self.lock().on_return = OnReturn::Redraw;
        }
    }
}
