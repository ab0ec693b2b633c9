//! The sending half of a stream.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use malai_model::wire::frame::{Lane, MAX_DATA};
use serde::Serialize;
use tokio::time::Instant;

use super::outgoing::Outgoing;
use super::suspended::Flow;
use super::{Channel, RawEnd, Shared, lock};
use crate::p2p::error::{P2pError, stream_code};

/// How often it is looked whether a peer is still owed something.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sends messages and bytes.
///
/// Its methods take `&self`, so that several tasks can send at once; the order between them is theirs to
/// keep. Dropped without [`StreamSender::finish`], it tells the peer that what came is not all.
#[derive(Debug)]
pub struct StreamSender {
    pub(super) shared: Arc<Shared>,
}

/// What a lost connection means to a stream that waits for its last acknowledgement.
enum Outlived {
    /// The peer has everything.
    Over,
    /// It was put down, and is to be asked again.
    GoesOn,
}

impl StreamSender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Sends bytes; returns when all of them are accepted, which waits while the receiver has not taken
    /// enough of what was sent before.
    ///
    /// # Errors
    /// [`P2pError::StreamReset`] if the peer wants no more, [`P2pError::Ended`] after [`StreamSender::end`],
    /// and what ended the connection.
    ///
    /// # Cancel safety
    /// A cancelled call has sent a prefix of the bytes; [`StreamSender::sent_offset`] says up to where. The
    /// stream goes on.
    pub async fn send(&self, channel: Channel, mut bytes: Bytes) -> Result<(), P2pError> {
        poll_fn(|cx| self.poll_with(cx, |out| out.accept(channel.lane(), &mut bytes))).await
    }

    /// Sends one message.
    ///
    /// # Errors
    /// As [`StreamSender::send`]; [`P2pError::MessageTooLarge`] if its JSON is over 64 KiB.
    ///
    /// # Cancel safety
    /// A cancelled call has sent the message or nothing of it.
    pub async fn send_message<T: Serialize + ?Sized>(&self, message: &T) -> Result<(), P2pError> {
        let message = encode(message)?;
        poll_fn(|cx| self.poll_with(cx, |out| out.accept_message(&message))).await
    }

    /// Says that nothing more comes on a channel. Ending it twice is no error.
    ///
    /// # Errors
    /// What ended the stream or the connection before.
    ///
    /// # Cancel safety
    /// It does not wait.
    pub async fn end(&self, channel: Channel) -> Result<(), P2pError> {
        let mut out = lock(&self.shared.out);
        out.check()?;
        out.end(channel.lane());
        self.shared.flush(&mut out);
        out.check()
    }

    /// Ends everything that is not ended yet and hands it over. When the peer has ended too, or the receiving
    /// half is gone, it also waits until the peer's transport has acknowledged everything; the connection may
    /// be closed then.
    ///
    /// A stream that outlives its connection waits for both: until then it may have to send all of it again. So take
    /// what the peer sends meanwhile, or drop the receiving half before.
    ///
    /// # Errors
    /// What kept the peer from getting all: [`P2pError::StreamReset`] if it wants no more, also by ending its
    /// own direction while data still waited for credit.
    ///
    /// # Cancel safety
    /// Cancelled before all is handed over, it gives the stream up as if the half was dropped.
    pub async fn finish(self) -> Result<(), P2pError> {
        self.finishing().await
    }

    /// As [`Self::finish`], with a last message before, if there is one, for a peer that may take its time with what it
    /// is owed and no more than that: it is given up when `revoked` resolves, and let go when everything that is for it
    /// was handed over `patience` ago and it has not acknowledged that.
    ///
    /// # Errors
    /// As [`Self::finish_with`]; [`P2pError::StreamReset`] if it was given up, [`stream_code::STALLED`] if it was let go.
    ///
    /// # Cancel safety
    /// As [`Self::finish`].
    pub async fn conclude<T: Serialize + ?Sized>(
        self,
        message: Option<&T>,
        patience: Duration,
        revoked: impl Future<Output = ()>,
    ) -> Result<(), P2pError> {
        let finishing = async {
            if let Some(message) = message {
                self.put_last(message).await?;
            }
            self.finishing().await
        };
        let code = tokio::select! {
            biased;
            () = revoked => stream_code::REVOKED,
            done = finishing => return done,
            () = self.owes_nothing_for(patience) => stream_code::STALLED,
        };
        self.reset(code);
        Err(P2pError::StreamReset { code })
    }

    /// Resolves when there was nothing for so long that the peer is owed: no data, that is.
    async fn owes_nothing_for(&self, patience: Duration) {
        let mut since = None;
        loop {
            if lock(&self.shared.out).owes() {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() >= patience {
                return;
            }
            tokio::time::sleep(LOOK_EVERY.min(patience)).await;
        }
    }

    async fn finishing(&self) -> Result<(), P2pError> {
        loop {
            poll_fn(|cx| {
                self.poll_with(cx, |out| {
                    out.check()?;
                    Lane::ALL.into_iter().for_each(|lane| out.end(lane));
                    if !out.is_ended() && out.grantless {
                        return Err(P2pError::StreamReset { code: stream_code::CANCELLED });
                    }
                    Ok(out.is_ended())
                })
            })
            .await?;
            // Handed over: only now may the rest wait for room in the transport.
            poll_fn(|cx| {
                self.poll_with(cx, |out| {
                    out.check()?;
                    Ok(out.is_handed_over())
                })
            })
            .await?;
            let (acknowledged, cuts) = {
                let mut out = lock(&self.shared.out);
                if !(out.is_ended() && out.is_handed_over()) {
                    // Put down in between, and perhaps taken up: some is to be sent again.
                    continue;
                }
                let acknowledged = out.is_finished().then(|| {
                    if out.raw.acknowledges_by_reading() {
                        self.shared.drive(&mut out);
                    }
                    out.raw.acknowledged()
                });
                (acknowledged, out.cuts())
            };
            let Some(acknowledged) = acknowledged else { return Ok(()) };
            let acknowledged = tokio::select! {
                biased;
                acknowledged = acknowledged => acknowledged,
                // A connection that was left may never say a word again.
                () = self.put_down_since(cuts) => continue,
            };
            if lock(&self.shared.out).cuts() != cuts {
                // That was of a connection before the present one.
                continue;
            }
            match acknowledged {
                // A peer that ended everything may stop reading before the last acknowledgement.
                Ok(()) => return Ok(()),
                Err(RawEnd::Code(code)) if code != stream_code::MOVED => return Ok(()),
                Err(end) => match self.outlive(end, cuts).await? {
                    Outlived::Over => return Ok(()),
                    Outlived::GoesOn => {}
                },
            }
        }
    }

    /// Resolves when the stream was put down since; never, if it cannot be.
    async fn put_down_since(&self, cuts: u64) {
        if lock(&self.shared.out).resumption.is_none() {
            return std::future::pending().await;
        }
        // Why it failed meanwhile, whoever waits for this finds out.
        _ = poll_fn(|cx| self.poll_with(cx, |out| Ok(out.cuts() != cuts))).await;
    }

    /// Waits until the reader finds out what becomes of a stream whose connection is lost: it is put down, unless the
    /// peer's last word had come before.
    async fn outlive(&self, end: RawEnd, cuts: u64) -> Result<Outlived, P2pError> {
        if lock(&self.shared.out).resumption.is_none() {
            return Err(self.shared.failure(end));
        }
        let decided = poll_fn(|cx| {
            self.poll_with(cx, |out| {
                if out.grantless {
                    return Ok(true);
                }
                out.check()?;
                Ok(out.cuts() != cuts)
            })
        })
        .await;
        if lock(&self.shared.out).grantless {
            // The peer has read everything to the end, or it would not have ended.
            return Ok(Outlived::Over);
        }
        decided.map(|()| Outlived::GoesOn)
    }

    /// Sends a last message and finishes: one write, so that a short exchange takes few packets.
    ///
    /// # Errors
    /// As [`StreamSender::send_message`] and [`StreamSender::finish`].
    ///
    /// # Cancel safety
    /// As [`StreamSender::finish`].
    pub async fn finish_with<T: Serialize + ?Sized>(self, message: &T) -> Result<(), P2pError> {
        self.put_last(message).await?;
        self.finish().await
    }

    async fn put_last<T: Serialize + ?Sized>(&self, message: &T) -> Result<(), P2pError> {
        let message = encode(message)?;
        poll_fn(|cx| {
            self.poll_with(cx, |out| {
                let accepted = out.accept_message(&message)?;
                if accepted {
                    Lane::ALL.into_iter().for_each(|lane| out.end(lane));
                }
                Ok(accepted)
            })
        })
        .await
    }

    /// Gives up: the peer learns that what came is not all. Codes: [`stream_code`].
    pub fn reset(&self, code: u32) {
        let mut out = lock(&self.shared.out);
        out.abort(code);
        self.shared.flush(&mut out);
    }

    pub(crate) fn path(&self) -> crate::p2p::PathView {
        self.shared.connection().path()
    }

    /// Says whether what the stream travels on ended without anybody wanting it.
    #[cfg(all(feature = "host", unix))]
    pub(crate) fn is_lost(&self) -> bool {
        self.shared.connection().is_lost()
    }

    /// Returns how many bytes were accepted on a channel since the stream began.
    pub fn sent_offset(&self, channel: Channel) -> u64 {
        lock(&self.shared.out).accepted(channel.lane())
    }

    /// Tries, hands over what came of it, and waits if it was not all.
    fn poll_with(
        &self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&mut Outgoing) -> Result<bool, P2pError>,
    ) -> Poll<Result<(), P2pError>> {
        let mut out = lock(&self.shared.out);
        loop {
            let accepted = attempt(&mut out);
            let waited = !out.is_flushed();
            self.shared.flush(&mut out);
            match accepted {
                Err(error) => return Poll::Ready(Err(error)),
                Ok(true) => return Poll::Ready(out.check()),
                // Flushing made room: try again rather than wait for a wake that has been.
                Ok(false) if waited && out.is_flushed() => {}
                Ok(false) => {
                    out.waiting.register(cx);
                    // Credit comes in through the driver alone.
                    self.shared.drive(&mut out);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        let mut out = lock(&self.shared.out);
        out.sender_gone = true;
        out.abort(stream_code::CANCELLED);
        self.shared.flush(&mut out);
        self.shared.abandon(&mut out);
    }
}

impl Shared {
    /// Lets the QUIC stream go when nobody uses either half.
    pub(super) fn abandon(&self, out: &mut Outgoing) {
        if !(out.sender_gone && out.receiver_gone) {
            return;
        }
        let waits = |flow| matches!(flow, Flow::Suspended | Flow::Awaiting);
        if out.resumption.as_ref().is_some_and(|resumption| waits(resumption.flow)) {
            out.put_down(Flow::Over, stream_code::CANCELLED);
            out.end_raw();
        }
        out.over();
        if !out.is_flushed() {
            out.reset_raw(stream_code::CANCELLED);
        }
        if let Some(driver) = &out.driver {
            driver.wake_by_ref();
        }
    }
}

/// The bytes of a message that is the first thing on a stream.
#[cfg(all(feature = "daemon", unix))]
pub(crate) fn first_frame<T: Serialize + ?Sized>(message: &T) -> Result<Bytes, P2pError> {
    use bytes::BytesMut;
    use malai_model::wire::frame;

    let message = encode(message)?;
    let mut bytes = BytesMut::with_capacity(frame::DATA_HEAD + message.len());
    let head = frame::Head::Data { lane: Lane::Messages, offset: 0, length: message.len() };
    frame::encode(&head, &mut bytes);
    bytes.extend_from_slice(&message);
    Ok(bytes.freeze())
}

fn encode<T: Serialize + ?Sized>(message: &T) -> Result<Bytes, P2pError> {
    let bytes = serde_json::to_vec(message)
        .map_err(|error| P2pError::Malformed { reason: format!("a message that is no JSON: {error}") })?;
    if bytes.len() > MAX_DATA {
        return Err(P2pError::MessageTooLarge { length: bytes.len(), limit: MAX_DATA });
    }
    Ok(bytes.into())
}
