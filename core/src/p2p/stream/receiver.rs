//! The receiving half of a stream.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use malai_model::wire::frame::{Head, Lane};
use serde::de::DeserializeOwned;

use super::reader::{Item, Kind, Queue};
use super::{Channel, Shared, lock};
use crate::p2p::error::{P2pError, stream_code};

/// Receives messages and bytes.
///
/// Taking something out grants the peer credit for more. Dropped before the end, it tells the peer that
/// nothing more is wanted; the sending half goes on.
#[derive(Debug)]
pub struct StreamReceiver {
    shared: Arc<Shared>,
}

/// One thing that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A message's JSON.
    Message(Bytes),
    /// Bytes of a channel; their boundaries mean nothing.
    Data(Channel, Bytes),
    /// Nothing more comes on a channel.
    End(Channel),
}

impl StreamReceiver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Takes the next message; `None` when the peer has sent its last. Data that came before it stays for
    /// [`StreamReceiver::data`].
    ///
    /// # Errors
    /// [`P2pError::Malformed`] if it is not a `T`, [`P2pError::StreamReset`] if the peer gave up, and what
    /// ended the connection.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, P2pError> {
        let item = poll_fn(|cx| self.poll_take(cx, Some(Lane::Messages))).await?;
        let Some(Item { kind: Kind::Bytes(bytes), .. }) = item else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| P2pError::Malformed {
            reason: format!("a message that cannot be read: {error}"),
        })
    }

    /// Takes the next bytes of a channel; `None` at its end.
    ///
    /// # Errors
    /// [`P2pError::StreamReset`] if the peer gave up, and what ended the connection.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn data(&mut self, channel: Channel) -> Result<Option<Bytes>, P2pError> {
        let item = poll_fn(|cx| self.poll_take(cx, Some(channel.lane()))).await?;
        Ok(item.filter(|item| matches!(item.kind, Kind::Bytes(_))).map(Item::into_bytes))
    }

    /// Takes whatever came next, in the order of arrival; `None` when everything has ended.
    ///
    /// # Errors
    /// As [`StreamReceiver::data`].
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Incoming>, P2pError> {
        loop {
            let Some(item) = poll_fn(|cx| self.poll_take(cx, None)).await? else { return Ok(None) };
            let channel = match item.lane {
                Lane::Messages => None,
                Lane::Main => Some(Channel::Main),
                Lane::Stderr => Some(Channel::Stderr),
            };
            return Ok(Some(match (channel, &item.kind) {
                (Some(channel), Kind::Bytes(_)) => Incoming::Data(channel, item.into_bytes()),
                (Some(channel), Kind::End) => Incoming::End(channel),
                (None, Kind::Bytes(_)) => Incoming::Message(item.into_bytes()),
                // The end of the messages is the end of everything, or nobody's concern.
                (None, Kind::End) => continue,
            }));
        }
    }

    /// Tells the peer that nothing more is wanted, and drops what came. Codes: [`stream_code`].
    pub fn stop(&mut self, code: u32) {
        let mut queue = lock(&self.shared.queue);
        if queue.discarding {
            return;
        }
        queue.discarding = true;
        queue.items.clear();
        let complete = queue.is_complete();
        drop(queue);
        let mut out = lock(&self.shared.out);
        if !complete {
            out.control(&Head::Stop { code });
        }
        out.closable = true;
        self.shared.flush(&mut out);
    }

    /// Takes the first item (of a lane), reading where no driver does.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        lane: Option<Lane>,
    ) -> Poll<Result<Option<Item>, P2pError>> {
        loop {
            let mut queue = lock(&self.shared.queue);
            if let Some(item) = take(&mut queue, lane) {
                self.taken(queue, &item);
                return Poll::Ready(Ok(Some(item)));
            }
            let ended = match lane {
                Some(lane) => queue.is_ended(lane),
                None => Lane::ALL.into_iter().all(|lane| queue.is_ended(lane)),
            };
            if ended {
                return Poll::Ready(Ok(None));
            }
            if queue.discarding {
                return Poll::Ready(Err(P2pError::Ended));
            }
            if let Some(error) = queue.failed() {
                return Poll::Ready(Err(error));
            }
            queue.waiting = Some(cx.waker().clone());
            drop(queue);
            let mut reader = lock(&self.shared.reader);
            if reader.driven || reader.done {
                drop(reader);
                // It may have queued something between the two locks; then it has woken this task.
                return Poll::Pending;
            }
            if self.shared.poll_read(&mut reader, cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Grants what an item was worth. What still comes is read by the driver from now on, so that a peer that
    /// floods the stream is noticed even while nobody takes anything.
    fn taken(&self, mut queue: std::sync::MutexGuard<'_, Queue>, item: &Item) {
        let grant = queue.account(item, || self.shared.connection().rtt());
        let more = !queue.is_complete();
        drop(queue);
        if grant.is_none() && !more {
            return;
        }
        let mut out = lock(&self.shared.out);
        if let Some(grant) = grant {
            out.control(&Head::Window {
                lane: item.lane,
                consumed: grant.consumed,
                allowance: grant.allowance,
                window: grant.window,
            });
            self.shared.flush(&mut out);
        }
        if more {
            self.shared.drive(&mut out);
        }
    }
}

fn take(queue: &mut Queue, lane: Option<Lane>) -> Option<Item> {
    match lane {
        None => queue.items.pop_front(),
        Some(lane) => {
            let position = queue.items.iter().position(|item| item.lane == lane)?;
            queue.items.remove(position)
        }
    }
}

impl Drop for StreamReceiver {
    fn drop(&mut self) {
        self.stop(stream_code::CANCELLED);
        let mut out = lock(&self.shared.out);
        out.receiver_gone = true;
        self.shared.abandon(&mut out);
    }
}
