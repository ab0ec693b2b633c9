//! What comes out of a socket.

use std::io;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use malai_model::code::ErrorCode;

use super::{Answers, Control, Loss, Socket, SocketRecv, lock, wake};
use crate::p2p::raw::RawEnd;

/// The longest control, in bytes.
const MAX_CONTROL: usize = 16 * 1024;
/// How much of what nobody wants is read at once.
const SKIPPED: usize = 4 * 1024;
/// How much is read at once where less is wanted: a head, and often all that is behind it.
const AHEAD: usize = 4 * 1024;

#[derive(Debug)]
pub(super) struct Input {
    /// Read of the socket before the stream began.
    leftover: BytesMut,
    state: State,
    /// The head or the control that is coming in.
    partial: BytesMut,
    /// Why no more bytes come, if so.
    over: Option<Over>,
    /// Nobody takes the bytes any more: those that come are skipped, for what is said beside and behind them.
    unwanted: bool,
    stopped: Option<u32>,
    acknowledged: bool,
    loss: Option<Loss>,
    waiting: Vec<Waker>,
}

/// Where in the chunks the next byte belongs.
#[derive(Debug, Clone, Copy)]
enum State {
    Head,
    ControlHead,
    Control(usize),
    Data(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Finished,
    Reset(u32),
}

impl Input {
    pub(super) fn new(leftover: BytesMut) -> Self {
        Self {
            leftover,
            state: State::Head,
            partial: BytesMut::new(),
            over: None,
            unwanted: false,
            stopped: None,
            acknowledged: false,
            loss: None,
            waiting: Vec::new(),
        }
    }

    pub(super) fn loss(&self) -> Option<&Loss> {
        self.loss.as_ref()
    }

    /// Whether whoever waits for what is said beside the bytes has to read it by itself: nobody takes bytes any more.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_some() || self.unwanted
    }

    pub(super) fn stopped(&self) -> Option<u32> {
        self.stopped
    }

    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
    }

    /// What the peer said of what was sent to it.
    pub(super) fn told(&self) -> Option<Result<(), RawEnd>> {
        if self.acknowledged {
            Some(Ok(()))
        } else if let Some(code) = self.stopped {
            Some(Err(RawEnd::Code(code)))
        } else {
            self.loss.as_ref().map(|_| Err(RawEnd::Lost))
        }
    }

    /// Notes that the connection behind is gone; the first reason counts.
    pub(super) fn lose(&mut self, loss: Loss) {
        self.loss.get_or_insert(loss);
        wake(&mut self.waiting);
    }

    fn torn(&mut self, reason: &str) {
        self.lose(Loss { code: ErrorCode::PeerLost, reason: reason.to_owned(), resumable: true });
    }

    /// Reads bytes of the stream into `buffer`, as much as its spare capacity holds; 0 at the end.
    fn poll_data(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<Result<usize, RawEnd>> {
        loop {
            if self.loss.is_some() {
                return Poll::Ready(Err(RawEnd::Lost));
            }
            match self.over {
                Some(Over::Finished) => return Poll::Ready(Ok(0)),
                Some(Over::Reset(code)) => return Poll::Ready(Err(RawEnd::Code(code))),
                None => {}
            }
            let State::Data(left) = self.state else {
                ready!(self.poll_head(socket, cx));
                continue;
            };
            match ready!(fill(&mut self.leftover, socket, cx, buffer, left)) {
                Ok(0) => self.torn("the process that carried the stream has ended"),
                Ok(count) => {
                    self.state = if count == left { State::Head } else { State::Data(left - count) };
                    return Poll::Ready(Ok(count));
                }
                Err(error) => self.torn(&error.to_string()),
            }
        }
    }

    /// Reads what is said beside the bytes, once there are no more of them.
    pub(super) fn poll_beside(&mut self, socket: &Socket, cx: &mut Context<'_>) -> Poll<()> {
        let State::Data(left) = self.state else { return self.poll_head(socket, cx) };
        if self.over.is_some() {
            self.torn("more came than all");
            return Poll::Ready(());
        }
        let mut skipped = BytesMut::with_capacity(SKIPPED);
        match ready!(fill(&mut self.leftover, socket, cx, &mut skipped, left)) {
            Ok(0) => self.torn("the process that carried the stream has ended"),
            Ok(count) => self.state = if count == left { State::Head } else { State::Data(left - count) },
            Err(error) => self.torn(&error.to_string()),
        }
        Poll::Ready(())
    }

    /// Reads one head, or one control.
    fn poll_head(&mut self, socket: &Socket, cx: &mut Context<'_>) -> Poll<()> {
        let wanted = match self.state {
            State::Control(length) => length,
            _ => 4,
        };
        while self.partial.len() < wanted {
            let missing = wanted - self.partial.len();
            match ready!(fill(&mut self.leftover, socket, cx, &mut self.partial, missing)) {
                Ok(0) => {
                    self.torn("the process that carried the stream has ended");
                    return Poll::Ready(());
                }
                Ok(_) => {}
                Err(error) => {
                    self.torn(&error.to_string());
                    return Poll::Ready(());
                }
            }
        }
        self.state = match self.state {
            State::Head | State::Data(_) => match self.partial.get_u32() as usize {
                0 => State::ControlHead,
                length => State::Data(length),
            },
            State::ControlHead => match self.partial.get_u32() as usize {
                length if length <= MAX_CONTROL => State::Control(length),
                _ => {
                    self.torn("the process that carries the stream says too much at once");
                    return Poll::Ready(());
                }
            },
            State::Control(length) => {
                let control = serde_json::from_slice(&self.partial[..length]);
                self.partial.advance(length);
                match control {
                    Ok(control) => self.control(socket, control),
                    Err(error) => self.torn(&format!("what its carrier says cannot be read: {error}")),
                }
                State::Head
            }
        };
        Poll::Ready(())
    }

    fn control(&mut self, socket: &Socket, control: Control) {
        match control {
            Control::Finish {} => {
                self.over.get_or_insert(Over::Finished);
                if socket.answers == Answers::AtOnce {
                    // Lock order: the input, then the output.
                    lock(&socket.output).say(&Control::Acknowledged {});
                }
            }
            Control::Reset { code } => {
                self.over.get_or_insert(Over::Reset(code));
            }
            Control::Stop { code } => {
                self.stopped.get_or_insert(code);
            }
            Control::Acknowledged {} => self.acknowledged = true,
            Control::Lost(loss) => self.lose(loss),
            Control::Later => {}
        }
        wake(&mut self.waiting);
    }
}

/// Reads once, at most so many bytes: what is left over first.
fn fill(
    leftover: &mut BytesMut,
    socket: &Socket,
    cx: &mut Context<'_>,
    into: &mut BytesMut,
    most: usize,
) -> Poll<io::Result<usize>> {
    if into.capacity() == into.len() {
        into.reserve(most.min(AHEAD));
    }
    let most = most.min(into.capacity() - into.len());
    if leftover.is_empty() {
        if most >= AHEAD {
            return socket.stream.poll_read_buf(cx, into, most);
        }
        leftover.reserve(AHEAD);
        ready!(socket.stream.poll_read_buf(cx, leftover, AHEAD))?;
    }
    let count = leftover.len().min(most);
    into.extend_from_slice(&leftover[..count]);
    leftover.advance(count);
    Poll::Ready(Ok(count))
}

impl SocketRecv {
    pub(in crate::p2p) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<Result<usize, RawEnd>> {
        let read = lock(&self.0.input).poll_data(&self.0, cx, buffer);
        self.0.flush();
        read
    }

    pub(in crate::p2p) fn stop(&mut self, code: u32) {
        {
            let mut input = lock(&self.0.input);
            input.unwanted = true;
            wake(&mut input.waiting);
        }
        lock(&self.0.output).say(&Control::Stop { code });
        self.0.flush();
    }

    /// Tells the other end that all of what it finished has arrived.
    pub(super) fn acknowledge(&self) {
        lock(&self.0.output).say(&Control::Acknowledged {});
        self.0.flush();
    }
}

impl Drop for SocketRecv {
    fn drop(&mut self) {
        let over = {
            let input = lock(&self.0.input);
            input.over.is_some() || input.loss.is_some()
        };
        if !over {
            self.stop(0);
        }
    }
}
