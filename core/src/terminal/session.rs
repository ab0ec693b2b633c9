//! A session without its files: its screen, its clients, and what each is to get. No IO.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use malai_model::code::ErrorCode;
use malai_model::wire::{
    AttachMode, AttachSession, Attached, CommandEnd, DetachReason, ResumeToken, SessionId, SessionInfo,
    WindowSize, WireError,
};
use tokio::time::Instant;

use super::job::Opener;
use super::opening::Opening;
use super::outbox::Outbox;
use super::protocol::{EndReason, FromHost, INPUT_WINDOW};
use super::recent::Recent;
use super::screen::{History, Screen};

/// The most clients that look on.
const MAX_WATCHERS: usize = 16;
/// How many clients are remembered that typed, so that one that comes back does not type twice.
const MAX_TOKENS: usize = 8;
/// How much may wait for the client that types before the program has to.
const CONTROL_BACKLOG: usize = 64 * 1024;
/// How much may wait for one that looks on before it is skipped ahead.
const WATCH_BACKLOG: usize = 256 * 1024;
/// How many typed bytes may wait for the program in all: a client that comes back has its window anew, before what it
/// typed earlier was read.
const MOST_INPUT: usize = 4 * INPUT_WINDOW as usize;
/// Above this the terminal itself answers no more to a program that asks and does not read.
const MOST_ANSWERS: usize = INPUT_WINDOW as usize;
/// Typed bytes are acknowledged when so many were typed since the last time.
const ACKNOWLEDGE: u64 = INPUT_WINDOW / 4;

/// By how much longer the end is kept while somebody is attached who does not say that it was seen.
const ATTACHED_LINGER: u32 = 6;

/// Tells the connections of a session apart; from 1.
pub(super) type ClientId = u64;

/// Who types what the terminal itself answers.
const NOBODY: ClientId = 0;

/// The state of a session.
#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    argv: Vec<String>,
    user: String,
    screen: Screen,
    recent: Recent,
    clients: Vec<Client>,
    /// Typed bytes that the program has not read.
    input: VecDeque<Typed>,
    /// How many they are.
    input_bytes: usize,
    tokens: VecDeque<(ResumeToken, u64)>,
    /// Up to this place of the output its questions were answered here, since nobody was attached: a client that got
    /// them now would answer again.
    answered: u64,
    started: Timestamp,
    active: Timestamp,
    /// When something happened last or somebody was attached.
    pub(super) idle_since: Instant,
    ended: Option<CommandEnd>,
    /// Whether somebody knows how it ended.
    seen: bool,
    /// When the client that typed was lost, unless one came since.
    control_lost: Option<Instant>,
    /// It is being ended: nobody is waited for.
    hurries: bool,
    /// As long as it is not known whether anybody knows of the session.
    opening: Option<Opening>,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    mode: AttachMode,
    outbox: Outbox,
    token: ResumeToken,
    /// Bytes that came on this connection, that were typed, and that it was told were.
    came: u64,
    typed: u64,
    told: u64,
    /// It gets nothing until what waits is written; then the whole screen.
    skipped: bool,
}

#[derive(Debug)]
struct Typed {
    by: ClientId,
    bytes: Bytes,
}

/// A client broke the protocol: its connection is to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misbehaved;

impl Session {
    pub(super) fn new(id: SessionId, argv: Vec<String>, user: String, window: WindowSize) -> Self {
        let now = Timestamp::now();
        Self {
            id,
            argv,
            user,
            screen: Screen::new(window),
            recent: Recent::default(),
            clients: Vec::new(),
            input: VecDeque::new(),
            input_bytes: 0,
            tokens: VecDeque::new(),
            answered: 0,
            started: now,
            active: now,
            idle_since: Instant::now(),
            ended: None,
            seen: false,
            control_lost: None,
            hurries: false,
            opening: None,
        }
    }

    /// A client is about to attach that says when it knows that it is.
    pub(super) fn expect(&mut self, opener: Opener) {
        self.opening = Some(Opening::new(opener));
    }

    /// A client knows that it is attached: it says so, or does what it does only then.
    pub(super) fn confirmed(&mut self, id: ClientId) {
        self.opening = self.opening.take().filter(|opening| !opening.is_by(id));
    }

    /// Until when somebody has to come, if it is not known whether anybody knows of the session.
    pub(super) fn claimed_until(&self) -> Option<Instant> {
        self.opening.as_ref().filter(|_| self.is_alone()).map(Opening::until)
    }

    /// Nobody came.
    pub(super) fn is_unclaimed(&mut self) {
        self.opening = None;
        self.saw_end();
    }

    fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.id == id)
    }

    fn control(&self) -> Option<&Client> {
        self.clients.iter().find(|client| client.mode == AttachMode::Control)
    }

    /// The size of the terminal.
    pub(super) fn window(&self) -> WindowSize {
        self.screen.window()
    }

    /// How it is.
    pub(super) fn info(&self) -> SessionInfo {
        let watchers = self.clients.iter().filter(|client| client.mode == AttachMode::Watch).count();
        SessionInfo {
            session: self.id.clone(),
            argv: self.argv.clone(),
            user: self.user.clone(),
            started: self.started,
            active: self.active,
            attached: self.control().is_some(),
            watchers: u32::try_from(watchers).unwrap_or(u32::MAX),
            window: self.window(),
            title: self.screen.title().to_owned(),
            ended: self.ended,
        }
    }

    /// Shows what the program wrote: to the screen and to everybody. What it asks is answered if nobody else does.
    pub(super) fn show(&mut self, bytes: &[u8]) {
        self.touch();
        self.screen.feed(bytes);
        self.recent.push(bytes);
        for client in &mut self.clients {
            if client.skipped {
                continue;
            }
            let waits_for_nobody = client.mode == AttachMode::Watch || self.hurries;
            if waits_for_nobody && client.outbox.waiting() + bytes.len() > WATCH_BACKLOG {
                client.outbox.clear();
                client.skipped = true;
                continue;
            }
            client.outbox.show(bytes);
        }
        let replies = self.screen.take_replies();
        // Else the client's own terminal answers.
        if self.control().is_none() && !replies.is_empty() {
            self.answered = self.recent.end();
            if self.input_bytes + replies.len() <= MOST_ANSWERS {
                self.queue_input(NOBODY, replies.into());
            }
        }
    }

    /// Shows the screen to those that were skipped and have nothing waiting any more.
    pub(super) fn catch_up(&mut self) {
        for index in 0..self.clients.len() {
            let is_watch = self.clients[index].mode == AttachMode::Watch;
            if !is_watch || !self.clients[index].skipped || self.clients[index].outbox.waiting() > 0 {
                continue;
            }
            let redraw = self.screen.redraw(History::Without);
            let attached = Attached {
                session: self.id.clone(),
                input: 0,
                output: self.recent.end(),
                redraw: redraw.len() as u64,
                detached: 0,
            };
            let ended = self.ended;
            let client = &mut self.clients[index];
            client.skipped = false;
            client.outbox.say(&FromHost::Attached(attached));
            client.outbox.show(&redraw);
            if let Some(end) = ended {
                client.outbox.say(&FromHost::Ended(end));
            }
        }
    }

    /// Nothing was shown for a while: if nobody has anything coming, memory is given back.
    pub(super) fn rest(&mut self) {
        if self.clients.iter().all(|client| client.outbox.waiting() == 0) {
            self.recent.rest();
        }
    }

    /// It is being ended: from now on the program waits for nobody, and a client that is behind misses what it did not
    /// take.
    pub(super) fn hurry(&mut self) {
        self.hurries = true;
    }

    /// Whether the program may show more now: as long as the client that types takes it, or there is none.
    pub(super) fn has_room(&self) -> bool {
        self.hurries || self.control().is_none_or(|client| client.outbox.waiting() < CONTROL_BACKLOG)
    }

    /// Attaches a client. If it types, whoever did so before has to go; returns the size that the terminal gets then.
    pub(super) fn attach(
        &mut self,
        id: ClientId,
        request: &AttachSession,
        outbox: Outbox,
    ) -> Option<WindowSize> {
        let watchers = self.clients.iter().filter(|client| client.mode == AttachMode::Watch).count();
        if request.mode == AttachMode::Watch && watchers >= MAX_WATCHERS {
            outbox.say(&FromHost::Failed(WireError {
                code: ErrorCode::LimitReached,
                message: format!("look on at session {}: {MAX_WATCHERS} clients do so already", self.id),
                hint: Some("end one of them".to_owned()),
            }));
            outbox.close();
            return None;
        }
        self.touch();
        // Whoever comes but the one that opened it, or for the second time, knows what it is called.
        self.opening = self.opening.take().and_then(|opening| opening.attached(id, &request.client));
        let mut resized = None;
        if request.mode == AttachMode::Control {
            self.take_over();
            self.control_lost = None;
            let before = self.window();
            let now = self.screen.resize(request.window);
            resized = (now != before).then_some(now);
        }
        let exact = request.received.filter(|received| *received >= self.answered);
        let missing = exact.and_then(|received| self.recent.since(received));
        let (redraw, bytes) = match missing {
            Some(missing) => (0, missing),
            None => {
                let history = if request.received.is_some() { History::Without } else { History::With };
                let redraw = self.screen.redraw(history);
                (redraw.len() as u64, redraw)
            }
        };
        let before = if redraw == 0 { bytes.len() as u64 } else { 0 };
        outbox.say(&FromHost::Attached(Attached {
            session: self.id.clone(),
            input: self.input_of(&request.client),
            output: self.recent.end() - before,
            redraw,
            detached: 0,
        }));
        outbox.show(&bytes);
        if let Some(end) = self.ended {
            outbox.say(&FromHost::Ended(end));
        }
        self.clients.push(Client {
            id,
            mode: request.mode,
            outbox,
            token: request.client.clone(),
            came: 0,
            typed: 0,
            told: 0,
            skipped: false,
        });
        resized
    }

    fn take_over(&mut self) {
        if let Some(index) = self.clients.iter().position(|client| client.mode == AttachMode::Control) {
            let client = self.clients.remove(index);
            // What it had coming is the other's now; and it may be that it takes nothing any more.
            client.outbox.clear();
            client.outbox.say(&FromHost::Detached { reason: DetachReason::TakenOver });
            client.outbox.close();
        }
    }

    fn input_of(&self, token: &ResumeToken) -> u64 {
        self.tokens.iter().find(|(known, _)| known == token).map_or(0, |(_, count)| *count)
    }

    fn count_input(&mut self, token: &ResumeToken, length: u64) {
        let count = match self.tokens.iter().position(|(known, _)| known == token) {
            Some(index) => self.tokens.remove(index).map_or(0, |(_, count)| count),
            None => 0,
        };
        self.tokens.push_back((token.clone(), count + length));
        if self.tokens.len() > MAX_TOKENS {
            self.tokens.pop_front();
        }
    }

    /// A client typed. What one that only looks on types is dropped.
    pub(super) fn typed(&mut self, id: ClientId, bytes: Bytes) -> Result<(), Misbehaved> {
        self.confirmed(id);
        let ended = self.ended.is_some();
        let length = bytes.len() as u64;
        let Some(client) = self.client(id) else { return Ok(()) };
        client.came += length;
        if client.came - client.told > INPUT_WINDOW {
            return Err(Misbehaved);
        }
        let token = client.token.clone();
        if client.mode == AttachMode::Watch || ended {
            self.was_typed(id, length);
            return Ok(());
        }
        if self.input_bytes + bytes.len() > MOST_INPUT {
            return Err(Misbehaved);
        }
        self.count_input(&token, length);
        self.queue_input(id, bytes);
        self.touch();
        Ok(())
    }

    fn queue_input(&mut self, by: ClientId, bytes: Bytes) {
        self.input_bytes += bytes.len();
        self.input.push_back(Typed { by, bytes });
    }

    /// What the program is to read next.
    pub(super) fn next_input(&self) -> Option<Bytes> {
        self.input.front().map(|typed| typed.bytes.clone())
    }

    /// The program's terminal took so much of what is next.
    pub(super) fn took_input(&mut self, length: usize) {
        let Some(typed) = self.input.front_mut() else { return };
        let length = length.min(typed.bytes.len());
        drop(typed.bytes.split_to(length));
        self.input_bytes -= length;
        let by = typed.by;
        if typed.bytes.is_empty() {
            self.input.pop_front();
        }
        self.was_typed(by, length as u64);
    }

    /// Nobody reads any more.
    pub(super) fn drop_input(&mut self) {
        self.input_bytes = 0;
        while let Some(typed) = self.input.pop_front() {
            self.was_typed(typed.by, typed.bytes.len() as u64);
        }
    }

    fn was_typed(&mut self, id: ClientId, length: u64) {
        let Some(client) = self.client(id) else { return };
        client.typed += length;
        if client.typed - client.told >= ACKNOWLEDGE {
            client.told = client.typed;
            client.outbox.say(&FromHost::Taken { input: client.told });
        }
    }

    /// The window of a client has another size. That of one that looks on does not count. Returns the size that the
    /// terminal gets.
    pub(super) fn resize(&mut self, id: ClientId, window: WindowSize) -> Option<WindowSize> {
        self.confirmed(id);
        if self.client(id)?.mode == AttachMode::Watch {
            return None;
        }
        let before = self.window();
        let now = self.screen.resize(window);
        (now != before).then_some(now)
    }

    /// A client asks to leave.
    pub(super) fn detach(&mut self, id: ClientId) {
        self.confirmed(id);
        if let Some(client) = self.remove(id) {
            client.outbox.say(&FromHost::Detached { reason: DetachReason::Asked });
            client.outbox.close();
        }
    }

    /// A client has gone.
    pub(super) fn gone(&mut self, id: ClientId) {
        if let Some(client) = self.remove(id) {
            if client.mode == AttachMode::Control {
                self.control_lost = Some(Instant::now());
            }
            if let Some(opening) = &mut self.opening {
                opening.gone(id);
            }
            client.outbox.clear();
            client.outbox.close();
        }
    }

    fn remove(&mut self, id: ClientId) -> Option<Client> {
        let index = self.clients.iter().position(|client| client.id == id)?;
        self.touch();
        Some(self.clients.remove(index))
    }

    /// The program ended, and all that it showed was shown. Everybody is told.
    pub(super) fn end(&mut self, end: CommandEnd, reason: Option<EndReason>) {
        self.ended = Some(end);
        self.idle_since = Instant::now();
        self.drop_input();
        let last = match reason {
            Some(EndReason::Revoked) => {
                FromHost::Failed(WireError::taken_away(format_args!("session {}", self.id)))
            }
            Some(EndReason::Asked | EndReason::Other) | None => FromHost::Ended(end),
        };
        let hears = |client: &&Client| !client.skipped || client.mode == AttachMode::Control;
        for client in self.clients.iter().filter(hears) {
            client.outbox.say(&last);
        }
    }

    /// Somebody knows how it ended.
    pub(super) fn saw_end(&mut self) {
        self.seen = self.ended.is_some();
    }

    /// A client knows how it ended. One that looks on does not know it for the one that types, nor for one that was lost
    /// and may come back within `linger`.
    pub(super) fn saw_end_by(&mut self, id: ClientId, linger: Duration) {
        let Some(mode) = self.client(id).map(|client| client.mode) else { return };
        let may_come_back = self.control_lost.is_some_and(|at| at.elapsed() < linger);
        if mode == AttachMode::Control || self.control().is_none() && !may_come_back {
            self.saw_end();
        }
    }

    /// Whether a connection is an attached client's.
    pub(super) fn is_client(&self, id: ClientId) -> bool {
        self.clients.iter().any(|client| client.id == id)
    }

    /// When the end is kept for nobody any more. Somebody who is attached is waited for longer, not for ever.
    pub(super) fn lingers_until(&self, linger: Duration) -> Option<Instant> {
        let linger = if self.is_alone() { linger } else { linger * ATTACHED_LINGER };
        self.ended.map(|_| self.idle_since + linger)
    }

    /// How the program ended.
    pub(super) fn ended(&self) -> Option<CommandEnd> {
        self.ended
    }

    /// Whether nobody has to be told how it ended any more: one was, or nobody came for so long.
    pub(super) fn is_over(&self, linger: Duration) -> bool {
        self.lingers_until(linger).is_some_and(|until| self.seen || until <= Instant::now())
    }

    /// Whether nobody is attached.
    pub(super) fn is_alone(&self) -> bool {
        self.clients.is_empty()
    }

    /// Nothing more is said to anybody.
    pub(super) fn close(&mut self) {
        self.clients.drain(..).for_each(|client| client.outbox.close());
    }

    fn touch(&mut self) {
        self.active = Timestamp::now();
        self.idle_since = Instant::now();
    }
}
