//! A stream that outlives its connection: it is put down when the connection is lost, and taken up on another one
//! at the byte where it stopped.
//!
//! What makes it exact: offsets are absolute, the sender keeps what its receiver has not said to have consumed, and
//! each side tells the other how far it has received ([`LaneState`]) before anything else flows.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use malai_model::wire::frame::{self, Head, Lane};
use malai_model::wire::{LaneState, Request, ResumeStream, ResumeToken};

use super::outgoing::Outgoing;
use super::reader::Reader;
use super::suspended::{Flow, Resumption};
use super::{Shared, Stream, lock};
use crate::p2p::error::{P2pError, stream_code};
use crate::p2p::raw::RawEnd;
use crate::timeouts;

/// What goes on with a stream. Holding it does not keep the stream.
#[derive(Debug, Clone)]
pub struct ResumeHandle(Weak<Shared>);

impl Stream {
    /// Makes the stream outlive its connection: if that is lost, the stream waits up to `linger` for another one.
    /// Both sides have to do so; if the other one does not after all, [`ResumeHandle::no_longer`] says so.
    ///
    /// What was sent before is not sent again: call it when the peer is known to have that.
    pub fn resumable(&self, linger: Duration) -> ResumeHandle {
        let shared = &self.sender.shared;
        lock(&shared.out).retain(Resumption::new(linger));
        ResumeHandle(Arc::downgrade(shared))
    }
}

impl ResumeHandle {
    /// Resolves when the stream waits for another connection, with the reason, or to `None` when it will never need
    /// one: it ended, failed, or was dropped. Cancel safe.
    pub async fn lost(&self) -> Option<P2pError> {
        poll_fn(|cx| {
            let Some(shared) = self.0.upgrade() else { return Poll::Ready(None) };
            let mut out = lock(&shared.out);
            let gone = out.sender_gone && out.receiver_gone;
            match &mut out.resumption {
                Some(resumption) if !gone && resumption.flow != Flow::Over => {
                    if let (Flow::Suspended, Some(reason)) = (resumption.flow, &resumption.lost) {
                        return Poll::Ready(Some(reason.clone()));
                    }
                    resumption.watching.register(cx);
                    Poll::Pending
                }
                _ => Poll::Ready(None),
            }
        })
        .await
    }

    /// Goes on over a fresh stream to the same peer, which knows this one by the token.
    ///
    /// # Errors
    /// Why the stream does not go on there: [`P2pError::StreamUnknown`] if the peer does not have it any more,
    /// [`P2pError::StreamReset`] if it refused, what ended the fresh stream's connection, [`P2pError::Ended`] if
    /// this stream does not wait for a connection. It goes on waiting, unless the peer broke the protocol.
    ///
    /// # Cancel safety
    /// A cancelled call leaves the stream waiting.
    pub async fn resume_over(&self, fresh: Stream, token: ResumeToken) -> Result<(), P2pError> {
        let lanes = {
            let shared = self.0.upgrade().ok_or(P2pError::Ended)?;
            let states = lock(&shared.queue).states();
            let out = lock(&shared.out);
            let waits = out.resumption.as_ref().is_some_and(|resumption| resumption.flow == Flow::Suspended);
            if !waits {
                return Err(P2pError::Ended);
            }
            states
        };
        fresh.sender.send_message(&Request::Resume(ResumeStream { token, lanes })).await?;
        let attempt = Attempt(self);
        {
            let shared = self.0.upgrade().ok_or(P2pError::Ended)?;
            shared.call(fresh)?;
        }
        let answered = poll_fn(|cx| self.poll_answered(cx));
        let outcome = match tokio::time::timeout(timeouts::REPLY, answered).await {
            Ok(outcome) => outcome,
            Err(_) => Err(P2pError::lost("the peer did not answer")),
        };
        drop(attempt);
        outcome
    }

    fn poll_answered(&self, cx: &mut Context<'_>) -> Poll<Result<(), P2pError>> {
        let Some(shared) = self.0.upgrade() else { return Poll::Ready(Err(P2pError::Ended)) };
        let mut out = lock(&shared.out);
        let failure = out.check().err();
        let Some(resumption) = &mut out.resumption else { return Poll::Ready(Err(P2pError::Ended)) };
        match resumption.flow {
            Flow::Flowing => Poll::Ready(Ok(())),
            // Without a refusal it went on, and has lost that connection too.
            Flow::Suspended => Poll::Ready(resumption.refusal.take().map_or(Ok(()), Err)),
            Flow::Over => Poll::Ready(Err(failure.unwrap_or(P2pError::Ended))),
            Flow::Awaiting => {
                resumption.watching.register(cx);
                Poll::Pending
            }
        }
    }

    /// Changes how long the stream waits for another connection. If it waits already, that is not made shorter.
    pub fn set_linger(&self, linger: Duration) {
        if let Some(shared) = self.0.upgrade()
            && let Some(resumption) = &mut lock(&shared.out).resumption
        {
            resumption.linger = linger;
        }
    }

    /// Says that the stream ends with its connection after all.
    pub fn no_longer(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        {
            let mut out = lock(&shared.out);
            if out.resumption.as_ref().is_some_and(|resumption| resumption.flow == Flow::Flowing) {
                out.over();
                return;
            }
        }
        self.fail(P2pError::lost("it ended with its connection"));
    }

    /// Fails the stream for a reason, unless it has a connection.
    pub fn fail(&self, error: P2pError) {
        if let Some(shared) = self.0.upgrade() {
            shared.give_up(error, |resumption| resumption.flow != Flow::Flowing);
        }
    }

    /// Takes a stream up on what a peer opened for it. The caller of this has made sure that it is the same peer.
    ///
    /// # Errors
    /// [`P2pError::StreamUnknown`] if it is over; [`P2pError::Malformed`] if the peer cannot have come so far or
    /// sent more than it may: then the stream is over.
    pub(in crate::p2p) fn accept(&self, fresh: Stream, lanes: &[LaneState; 3]) -> Result<(), P2pError> {
        match self.0.upgrade() {
            Some(shared) => shared.accept(fresh, lanes),
            None => {
                refuse(fresh);
                Err(P2pError::StreamUnknown)
            }
        }
    }
}

/// Tells a peer that the stream that it wants to go on with is not here.
pub(in crate::p2p) fn refuse(fresh: Stream) {
    fresh.sender.reset(stream_code::UNKNOWN);
}

/// An attempt to go on; dropped before the answer it leaves the stream as it was.
struct Attempt<'a>(&'a ResumeHandle);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let Some(shared) = self.0.0.upgrade() else { return };
        let mut reader = lock(&shared.reader);
        if reader.awaiting {
            shared.suspend(&mut reader, P2pError::Ended);
        }
    }
}

impl Shared {
    /// Says whether the end of the raw bytes is one that the stream outlives, and puts it down if so.
    pub(super) fn outlives(self: &Arc<Self>, reader: &mut Reader, end: RawEnd) -> bool {
        if !lock(&self.out).is_resumable() {
            return false;
        }
        if lock(&self.queue).has_everything() && lock(&self.out).is_acknowledged() {
            // Only the peer's word that it ended is missing, and the peer may be gone: there is nothing to go on with.
            self.finished(reader);
            return true;
        }
        let lost = match end {
            RawEnd::Code(code) => code == stream_code::MOVED,
            RawEnd::Lost => self.connection().is_lost(),
        };
        if !lost && !reader.awaiting {
            return false;
        }
        let reason = match end {
            RawEnd::Code(stream_code::MOVED) => P2pError::lost("the peer left this connection"),
            RawEnd::Code(stream_code::UNKNOWN) => P2pError::StreamUnknown,
            end => self.failure(end),
        };
        self.suspend(reader, reason);
        true
    }

    /// Puts the stream down. What is queued stays; what is under way comes again.
    pub(super) fn suspend(self: &Arc<Self>, reader: &mut Reader, reason: P2pError) {
        reader.put_down(&mut lock(&self.queue));
        let mut out = lock(&self.out);
        let Some(resumption) = &mut out.resumption else { return };
        resumption.cut = false;
        if resumption.flow == Flow::Flowing {
            tracing::debug!(error = %reason, "a stream waits for another connection");
            resumption.cuts += 1;
            resumption.lost = Some(reason);
            self.linger(resumption);
        } else {
            resumption.refusal = Some(reason);
        }
        out.put_down(Flow::Suspended, stream_code::MOVED);
    }

    /// Fails the stream if it has waited for too long, or if whatever it belongs to stops.
    fn linger(self: &Arc<Self>, resumption: &Resumption) {
        let (cut, linger, scope) = (resumption.cuts, resumption.linger, self.connection().scope().clone());
        let (shared, stopping) = (Arc::downgrade(self), scope.clone());
        scope.spawn("linger", async move {
            tokio::select! {
                () = lingered(&shared, linger) => {}
                () = stopping.stopping() => {}
                () = gone(&shared, cut) => return,
            }
            let Some(shared) = shared.upgrade() else { return };
            let reason = lock(&shared.out).resumption.as_ref().and_then(|resumption| resumption.lost.clone());
            if let Some(reason) = reason {
                shared
                    .give_up(reason, |resumption| resumption.cuts == cut && resumption.flow != Flow::Flowing);
            }
        });
    }

    /// Fails the stream for good, if it is still so.
    fn give_up(self: &Arc<Self>, error: P2pError, still: impl FnOnce(&Resumption) -> bool) {
        let mut reader = lock(&self.reader);
        {
            let mut out = lock(&self.out);
            if !out.resumption.as_ref().is_some_and(still) {
                return;
            }
            out.put_down(Flow::Over, stream_code::CANCELLED);
            out.end_raw();
            out.fail(error.clone());
            if let Some(driver) = &out.driver {
                driver.wake_by_ref();
            }
        }
        reader.stop(stream_code::CANCELLED);
        lock(&self.queue).fail(error);
    }

    /// Takes up the raw halves of a stream that this side opened, and waits for the peer's word.
    fn call(self: &Arc<Self>, fresh: Stream) -> Result<(), P2pError> {
        let mut halves = fresh.into_raw()?;
        if halves.connection.peer() != self.connection().peer() {
            halves.send.reset(stream_code::CANCELLED);
            return Err(P2pError::Closed);
        }
        let mut reader = lock(&self.reader);
        let mut out = lock(&self.out);
        if !out.resumption.as_ref().is_some_and(|resumption| resumption.flow == Flow::Suspended) {
            halves.send.reset(stream_code::CANCELLED);
            return Err(P2pError::Ended);
        }
        self.set_connection(halves.connection);
        reader.take_up(halves.recv);
        reader.awaiting = true;
        if let Some(resumption) = &mut out.resumption {
            resumption.refusal = None;
        }
        out.take_up(halves.send, halves.framed, Flow::Awaiting);
        self.go_on(&mut out);
        Ok(())
    }

    /// The peer says that the stream goes on here.
    pub(super) fn resumed(
        self: &Arc<Self>,
        queue: &super::reader::Queue,
        lanes: &[LaneState; 3],
    ) -> Result<(), String> {
        let mut out = lock(&self.out);
        out.check_states(lanes)?;
        if let Some(resumption) = &mut out.resumption {
            resumption.flow = Flow::Flowing;
            resumption.lost = None;
            resumption.watching.wake();
        }
        // What was consumed since the peer was asked, it does not know yet.
        out.tell_granted(queue.granted());
        out.rewind(lanes);
        self.go_on(&mut out);
        Ok(())
    }

    /// Takes up the raw halves of a stream that the peer opened for it, whether or not the old ones are known to be
    /// lost: the peer knows better.
    fn accept(self: &Arc<Self>, fresh: Stream, lanes: &[LaneState; 3]) -> Result<(), P2pError> {
        let mut reader = lock(&self.reader);
        if reader.done || !lock(&self.out).is_resumable() {
            drop(reader);
            refuse(fresh);
            return Err(P2pError::StreamUnknown);
        }
        let mut halves = match fresh.into_raw() {
            Ok(halves) if halves.framed.is_empty() => halves,
            Ok(_) => return Err(P2pError::Malformed { reason: "too much came with it".to_owned() }),
            Err(error) => return Err(error),
        };
        let possible = lock(&self.out).check_states(lanes);
        if let Err(reason) = possible {
            halves.send.reset(stream_code::MALFORMED);
            halves.recv.stop(stream_code::MALFORMED);
            self.violated(&mut reader, super::reader::Violation::malformed(reason.clone()));
            return Err(P2pError::Malformed { reason });
        }
        self.suspend(&mut reader, P2pError::lost("the peer goes on over another connection"));
        let (states, granted) = {
            let queue = lock(&self.queue);
            (queue.states(), queue.granted())
        };
        let mut out = lock(&self.out);
        self.set_connection(halves.connection);
        reader.take_up(halves.recv);
        let mut first = BytesMut::with_capacity(frame::MAX_HEAD);
        frame::encode(&Head::Resumed { lanes: states }, &mut first);
        out.take_up(halves.send, vec![first.freeze()], Flow::Flowing);
        if let Some(resumption) = &mut out.resumption {
            resumption.lost = None;
        }
        // What it was told of this may have been lost with the connection.
        out.tell_granted(granted);
        out.rewind(lanes);
        self.go_on(&mut out);
        Ok(())
    }

    /// Lets the driver see the new raw halves: nobody else reads, whoever did before.
    fn go_on(self: &Arc<Self>, out: &mut Outgoing) {
        self.flush(out);
        if let Some(driver) = &out.driver {
            driver.wake_by_ref();
        }
        self.drive(out);
        out.waiting.wake();
    }
}

/// Resolves when a stream has waited for as long as it shall, also if that was made longer meanwhile.
async fn lingered(shared: &Weak<Shared>, mut linger: Duration) {
    let since = tokio::time::Instant::now();
    loop {
        tokio::time::sleep_until(since + linger).await;
        let longer = shared
            .upgrade()
            .and_then(|shared| lock(&shared.out).resumption.as_ref().map(|resumption| resumption.linger));
        match longer {
            Some(longer) if longer > linger => linger = longer,
            _ => return,
        }
    }
}

/// Resolves when a stream does not wait any more since a certain cut.
async fn gone(shared: &Weak<Shared>, cut: u64) {
    poll_fn(|cx| {
        let Some(shared) = shared.upgrade() else { return Poll::Ready(()) };
        let mut out = lock(&shared.out);
        let dropped = out.sender_gone && out.receiver_gone;
        match &mut out.resumption {
            Some(resumption)
                if !dropped
                    && resumption.cuts == cut
                    && !matches!(resumption.flow, Flow::Flowing | Flow::Over) =>
            {
                resumption.watching.register(cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    })
    .await;
}

/// The lanes with what each was granted.
pub(super) type Granted = [(Lane, super::credit::Grant); 3];

#[cfg(test)]
impl Stream {
    /// Puts the stream down as if this side alone had noticed that its connection is lost.
    pub(in crate::p2p) fn lose_for_test(&self) -> bool {
        let shared = &self.sender.shared;
        let mut reader = lock(&shared.reader);
        let mut out = lock(&shared.out);
        // What a dead connection would do to the raw halves: nothing is told to the peer.
        std::mem::forget(std::mem::replace(&mut out.raw, crate::p2p::raw::RawSend::Detached));
        drop(out);
        reader.lose_raw_for_test();
        shared.suspend(&mut reader, P2pError::lost("a test"));
        true
    }
}
