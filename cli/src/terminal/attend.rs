//! Shows a session and types into it, until one of them has enough.

use std::pin::Pin;
use std::time::Duration;

use malai_core::Bytes;
use malai_core::api::{
    AttachError, AttachedSession, Client, Link, OpenedView, SessionControl, SessionEvent, SessionEvents,
};
use malai_core::model::text::escape_control;
use malai_core::model::wire::{AttachMode, CommandEnd, DetachReason, Signal};
use malai_core::task::Scope;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::escape::{Command, EscapeChar, Escapes, Typed};
use super::raw::{self, RawMode};
use super::screen::Screen;
use super::tty::{Side, Tty};
use crate::commands::{Context, Outcome};
use crate::error::Failure;
use crate::signals::Signals;
use crate::streams;

/// How many bytes that were typed may wait here while the session takes nothing: more than anybody types, so that
/// escapes are heard meanwhile, and a large paste waits in the terminal.
const HELD: usize = 1024 * 1024;
/// How long a connection is lost before that is said.
const LOST_IN_SILENCE: Duration = Duration::from_millis(1500);
/// How long a machine has to end a session that was hung up.
const HANGING_UP: Duration = Duration::from_secs(5);
/// What ends the input of a program under a terminal.
const END_OF_INPUT: &[u8] = b"\x04";
const CTRL_C: u8 = 3;

/// How this terminal takes part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) mode: AttachMode,
    pub(crate) escape: EscapeChar,
}

/// Why the session is shown no more.
enum Left {
    Ended(CommandEnd),
    Detached(DetachReason),
    Failed(AttachError),
    /// Nobody reads stdout.
    Unread,
    Signal(Signal),
    /// The person has enough of a connection that is lost, or of a session that does not end.
    HungUp,
}

/// Shows a session until it ends, or this client leaves it. The status is the program's own.
pub(crate) async fn attend(
    context: &Context,
    client: &Client,
    mut signals: Signals,
    attached: AttachedSession,
    place: Place,
) -> Outcome {
    let machine = attached.machine.shown();
    let session = attached.client.control.session().clone();
    let detached = attached.client.detached;
    if detached > 0 && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        context.output.note(&format!(
            "[malai: {detached} other {} of yours there, with nobody attached: `malai sessions {machine}`]",
            if detached == 1 { "session" } else { "sessions" },
        ));
    }
    let terminal = RawMode::enter().map_err(|error| Failure::local("set up the terminal", &error))?;
    let scope = Scope::new();
    let screen = Screen::start(&scope).map_err(|error| Failure::local("open stdout", &error))?;
    let shown = Shown {
        client,
        machine: &attached.machine,
        place,
        terminal: terminal.as_ref(),
        screen: screen.clone(),
        control: attached.client.control.clone(),
        scope: &scope,
    };
    let left = shown.run(&mut signals, attached.client.input, attached.client.events).await;
    scope.stop();
    if !matches!(left, Left::Signal(Signal::Hup) | Left::Unread) {
        tokio::select! {
            () = screen.flush() => {}
            _ = signals.next() => {}
        }
        screen.tidy().await;
    }
    // What a terminal that is held did not take by now it never will.
    scope.shutdown(Duration::ZERO).await;
    drop(terminal);
    let come_back = || format!("come back with `malai shell {machine} --attach {session}`");
    let note = |text: String| context.output.note(&format!("[malai: {text}]"));
    match left {
        Left::Ended(end) => Ok(end.shell_status()),
        Left::Unread => Ok(128 + 13),
        Left::Detached(DetachReason::Asked) => {
            note(format!("detached from {session}, which goes on; {}", come_back()));
            Ok(0)
        }
        Left::Detached(DetachReason::TakenOver) => {
            note(format!("{session} was taken over by another terminal of yours"));
            Ok(0)
        }
        Left::Signal(signal) => {
            if signal != Signal::Hup {
                note(format!("left {session}, which goes on; {}", come_back()));
            }
            Ok(128 + crate::signals::number(signal))
        }
        Left::HungUp => {
            note(format!("left {session}, which may go on; {}", come_back()));
            Ok(crate::output::OWN_FAILURE)
        }
        Left::Failed(error) => Err(malai_core::Error::from(error).into()),
    }
}

struct Shown<'a> {
    client: &'a Client,
    machine: &'a OpenedView,
    place: Place,
    terminal: Option<&'a RawMode>,
    screen: Screen,
    control: SessionControl,
    scope: &'a Scope,
}

impl Shown<'_> {
    async fn run(
        &self,
        signals: &mut Signals,
        input: malai_core::api::SessionInput,
        events: SessionEvents,
    ) -> Left {
        let (Ok(mut resized), Ok(mut continued)) = (
            signal(SignalKind::window_change()),
            signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw())),
        ) else {
            return Left::Signal(Signal::Term);
        };
        // It may have changed before anybody listened.
        self.control.resize(raw::window());
        let mut escapes = Escapes::new(self.place.escape);
        let mut stdin = start_stdin(self.scope);
        let (typed, mut waiting) = mpsc::channel::<Bytes>(1);
        self.scope.spawn_until_stop("type", async move {
            while let Some(bytes) = waiting.recv().await {
                if input.write(bytes).await.is_err() {
                    return;
                }
            }
            // Held until the session is left.
            std::future::pending::<()>().await;
        });
        let mut held = Vec::new();
        let mut stdin_open = true;
        let mut hanging_up: Option<Pin<Box<dyn Future<Output = ()> + '_>>> = None;
        let machine = self.machine.shown();
        let (screen, control) = (self.screen.clone(), self.control.clone());
        let mut showing = std::pin::pin!(show(screen, control, &machine, self.place.escape, events));
        loop {
            tokio::select! {
                left = &mut showing => return left,
                signal = signals.next() => return Left::Signal(signal),
                Some(()) = resized.recv() => self.control.resize(raw::window()),
                Some(()) = continued.recv() => self.resume(),
                () = over(&mut hanging_up) => return Left::HungUp,
                free = typed.reserve(), if !held.is_empty() => match free {
                    Ok(free) => free.send(std::mem::take(&mut held).into()),
                    // The session is over, which its events tell.
                    Err(_) => {
                        stdin_open = false;
                        held.clear();
                    }
                },
                block = stdin.recv(), if stdin_open && held.len() < HELD => {
                    let parts = match block {
                        Some(block) => escapes.feed(&block),
                        None => {
                            stdin_open = false;
                            // A terminal that ended is gone, and its signal comes. A file or a pipe has no Ctrl-D.
                            if self.terminal.is_some() {
                                continue;
                            }
                            vec![Typed::Bytes(END_OF_INPUT.to_vec())]
                        }
                    };
                    let mut bytes = Vec::new();
                    for part in parts {
                        match part {
                            Typed::Bytes(part) => bytes.extend(part),
                            Typed::Command(Command::HangUp) => match self.place.mode {
                                AttachMode::Watch => self.control.detach(),
                                AttachMode::Control if hanging_up.is_some() || self.is_lost() => {
                                    return Left::HungUp;
                                }
                                AttachMode::Control => hanging_up = Some(Box::pin(self.hang_up())),
                            },
                            Typed::Command(command) => self.command(command).await,
                        }
                    }
                    match self.place.mode {
                        AttachMode::Control => held.append(&mut bytes),
                        // Whoever only looks on has nothing else to interrupt.
                        AttachMode::Watch if bytes.contains(&CTRL_C) => self.control.detach(),
                        AttachMode::Watch => {}
                    }
                }
            }
        }
    }

    /// Does what was said to malai.
    async fn command(&self, command: Command) {
        match command {
            Command::Help => self.screen.say(self.help()),
            Command::Status => self.screen.say(self.status()),
            Command::Redraw => self.control.redraw(),
            Command::Detach => self.control.detach(),
            Command::Suspend => self.suspend().await,
            // Where the loop is.
            Command::HangUp => {}
        }
    }

    fn is_lost(&self) -> bool {
        matches!(self.control.status().link, Link::Lost { .. })
    }

    /// Ends the session; that it has ended shows at its events. Resolves when they had their time.
    async fn hang_up(&self) {
        let end = self.client.end_session(self.machine.address_by_id(), self.control.session().clone());
        match tokio::time::timeout(HANGING_UP, end).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the session could not be ended"),
            Err(_) => return,
        }
        tokio::time::sleep(HANGING_UP).await;
    }

    async fn suspend(&self) {
        let Some(terminal) = self.terminal else { return };
        self.screen.tidy().await;
        terminal.pause();
        raw::stop_here();
        // Where nothing can stop it, it goes on at once, and nothing says so.
        self.resume();
    }

    fn resume(&self) {
        if let Some(terminal) = self.terminal {
            terminal.resume();
            self.control.resize(raw::window());
            self.control.redraw();
        }
    }

    fn status(&self) -> String {
        let status = self.control.status();
        let link = match status.link {
            Link::Attached { since, path } => {
                let path = path.map_or_else(
                    || "through the daemon".to_owned(),
                    |path| {
                        let how = if path.relayed { "relayed by" } else { "directly at" };
                        format!("{how} {}, {:.1} ms", path.address, path.rtt.as_secs_f64() * 1000.0)
                    },
                );
                format!("attached for {}, {path}", lasting(since.elapsed()))
            }
            Link::Lost { since, reason } => {
                format!("not attached for {}: failed to {reason}", lasting(since.elapsed()))
            }
        };
        let machine = self.machine.shown();
        let (typed, unsent, received) = (status.typed, status.unsent, status.received);
        lines(&[
            format!("{} on {machine}: {link}", status.session),
            format!(
                "{typed} bytes typed, {unsent} of them not sent yet; {received} bytes shown since it began"
            ),
        ])
    }

    fn help(&self) -> String {
        let EscapeChar::Is(_) = self.place.escape else { return String::new() };
        let escape = self.place.escape;
        lines(&[
            "at the beginning of a line:".to_owned(),
            format!("{escape}.   hang up: end the session (where the connection is lost: leave)"),
            format!("{escape}d   detach: the session goes on"),
            format!("{escape}s   show the state of the connection"),
            format!("{escape}r   draw the screen anew"),
            format!("{escape}^Z  suspend malai"),
            format!("{escape}?   this help"),
            format!("{escape}{escape}   type {escape} itself"),
        ])
    }
}

/// Lines of malai's own between the session's: the terminal is raw.
fn lines(texts: &[String]) -> String {
    let mut all = "\r\n".to_owned();
    for text in texts {
        all.push_str(&format!("[malai] {}\x1b[K\r\n", escape_control(text)));
    }
    all
}

async fn over(work: &mut Option<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

fn lasting(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds @ 100..6_000 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// Writes output as it comes. A connection that is lost for more than a moment is said on the last line, and the screen
/// is drawn anew when it is back.
async fn show(
    screen: Screen,
    control: SessionControl,
    machine: &str,
    escape: EscapeChar,
    mut events: SessionEvents,
) -> Left {
    let on_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let mut lost = false;
    let mut said = false;
    loop {
        let event = if lost && !said && on_terminal {
            match tokio::time::timeout(LOST_IN_SILENCE, events.next()).await {
                Ok(event) => event,
                Err(_) => {
                    said = true;
                    screen.say(lost_line(machine, escape));
                    continue;
                }
            }
        } else {
            events.next().await
        };
        match event {
            Ok(SessionEvent::Output(bytes)) => {
                if !screen.show(bytes).await {
                    return Left::Unread;
                }
            }
            Ok(SessionEvent::Reconnecting { reason }) => {
                tracing::debug!(reason = %escape_control(&reason), "the connection is lost");
                lost = true;
            }
            Ok(SessionEvent::Reconnected) => {
                lost = false;
                if std::mem::take(&mut said) {
                    control.redraw();
                }
            }
            Ok(SessionEvent::Detached(reason)) => return Left::Detached(reason),
            Ok(SessionEvent::Ended(end)) => return Left::Ended(end),
            Err(error) => return Left::Failed(error),
        }
    }
}

/// On the last line, with the cursor left where it is.
fn lost_line(machine: &str, escape: EscapeChar) -> String {
    let leave = match escape {
        EscapeChar::Is(_) => format!("{escape}. leaves"),
        EscapeChar::None => "close the terminal to leave".to_owned(),
    };
    let text = format!("the connection to {machine} is lost; trying again. {leave}");
    format!("\x1b7\x1b[999;1H\x1b[0;7m[malai: {}]\x1b[0m\x1b[K\x1b8", escape_control(&text))
}

/// Reads stdin: where it is a terminal that can be waited for, without a thread.
fn start_stdin(scope: &Scope) -> mpsc::Receiver<Bytes> {
    let Some(tty) = Tty::again(rustix::stdio::stdin(), Side::Input) else { return streams::stdin(1) };
    let (blocks, waiting) = mpsc::channel::<Bytes>(1);
    scope.spawn_until_stop("stdin", async move {
        let mut block = vec![0; streams::STDIN_BLOCK];
        while let Ok(count @ 1..) = tty.read(&mut block).await {
            if blocks.send(Bytes::copy_from_slice(&block[..count])).await.is_err() {
                return;
            }
        }
    });
    waiting
}
