//! Configs on their way: one delivery, one answer, one question.

use malai_model::code::ErrorCode;
use malai_model::wire::{ConfigHave, PullReply, PushReply, Request, WireError};

use super::ClusterError;
use bytes::Bytes;

use crate::p2p::{Channel, Connection, P2pError, Stream, StreamReceiver, StreamSender};
use crate::timeouts;

/// How a machine answered a delivery.
#[derive(Debug)]
pub enum DeliveryOutcome {
    /// It goes by the config now.
    Accepted {
        /// Its serial.
        serial: u64,
    },
    /// It has one with a serial as high: the signed text that it has.
    Behind {
        /// The text that the machine goes by.
        text: String,
    },
    /// It refused for another reason.
    Refused(WireError),
}

/// Sends a machine its config and waits for its answer.
///
/// # Errors
/// When the connection fails or the answer does not come in time.
pub async fn deliver(
    connection: &Connection,
    text: &str,
    limit: usize,
) -> Result<DeliveryOutcome, ClusterError> {
    in_time(async {
        let Stream { sender, mut receiver } = connection.open_stream().await?;
        sender.send_message(&Request::PushConfig { length: text.len() as u64 }).await?;
        let sent = send_text(&sender, text).await;
        // A machine that refuses what was announced stops reading; its answer says why.
        let reply = match (receiver.message::<PushReply>().await, sent) {
            (Ok(Some(reply)), _) => Some(reply),
            (_, Err(error)) => return Err(error.into()),
            (reply, Ok(())) => reply?,
        };
        let outcome = match reply {
            Some(PushReply::Accepted { serial }) => DeliveryOutcome::Accepted { serial },
            Some(PushReply::Refused { error, length })
                if error.code == ErrorCode::ConfigStale && length > 0 =>
            {
                DeliveryOutcome::Behind { text: read_text(&mut receiver, length, limit).await? }
            }
            Some(PushReply::Refused { error, .. }) => DeliveryOutcome::Refused(error),
            Some(_) | None => return Err(ClusterError::OutOfTurn("no answer to a config")),
        };
        Ok(outcome)
    })
    .await
}

/// Answers a machine that asks for its config: `text` if that is not what it has. Returns the serial that it confirmed.
///
/// # Errors
/// When the connection fails.
pub async fn answer_pull(stream: Stream, text: Option<&str>) -> Result<Option<u64>, ClusterError> {
    let Stream { sender, mut receiver } = stream;
    let Some(text) = text else {
        sender.send_message(&PullReply::Current {}).await?;
        sender.finish().await?;
        return Ok(None);
    };
    in_time(async {
        sender.send_message(&PullReply::Config { length: text.len() as u64 }).await?;
        send_text(&sender, text).await?;
        match receiver.message::<PushReply>().await? {
            Some(PushReply::Accepted { serial }) => Ok(Some(serial)),
            Some(PushReply::Refused { error, .. }) => Err(ClusterError::Remote(error)),
            Some(_) | None => Ok(None),
        }
    })
    .await
}

/// Asks the manager for this device's config. `take` verifies the text and puts it in force, and its answer goes back to
/// the manager. Returns the serial that it returned; `None` if there is nothing new.
///
/// # Errors
/// When the connection fails, the manager has none, or `take` refuses it.
pub async fn fetch_config<F>(
    connection: &Connection,
    have: Option<ConfigHave>,
    listening: bool,
    limit: usize,
    take: impl FnOnce(String) -> F,
) -> Result<Option<u64>, ClusterError>
where
    F: Future<Output = Result<u64, ClusterError>>,
{
    in_time(async {
        let Stream { sender, mut receiver } = connection.open_stream().await?;
        sender.send_message(&Request::PullConfig { have, listening }).await?;
        let length = match receiver.message::<PullReply>().await? {
            Some(PullReply::Current {}) => return Ok(None),
            Some(PullReply::Config { length }) => length,
            Some(PullReply::Failed(error)) => return Err(ClusterError::Remote(error)),
            Some(_) | None => return Err(ClusterError::OutOfTurn("no answer to the question for a config")),
        };
        let text = read_text(&mut receiver, length, limit).await?;
        match take(text).await {
            Ok(serial) => {
                // With our half of the receiving gone, finishing waits until the manager has the word.
                drop(receiver);
                sender.finish_with(&PushReply::Accepted { serial }).await?;
                Ok(Some(serial))
            }
            Err(error) => {
                let told = WireError::of(error.code(), &error, error.hint());
                drop(receiver);
                sender.finish_with(&PushReply::Refused { error: told, length: 0 }).await?;
                Err(error)
            }
        }
    })
    .await
}

pub(crate) async fn send_text(sender: &StreamSender, text: &str) -> Result<(), P2pError> {
    if !text.is_empty() {
        sender.send(Channel::Main, Bytes::copy_from_slice(text.as_bytes())).await?;
    }
    sender.end(Channel::Main).await
}

/// Reads a text of a length that the peer announced, refusing one over the limit before reading it.
pub(crate) async fn read_text(
    receiver: &mut StreamReceiver,
    length: u64,
    limit: usize,
) -> Result<String, ClusterError> {
    if length > limit as u64 {
        return Err(ClusterError::TooLarge { length, limit });
    }
    let mut text = Vec::new();
    while let Some(bytes) = receiver.data(Channel::Main).await? {
        if (text.len() + bytes.len()) as u64 > length {
            return Err(ClusterError::OutOfTurn("more bytes than announced"));
        }
        text.extend_from_slice(&bytes);
    }
    if text.len() as u64 != length {
        return Err(ClusterError::OutOfTurn("fewer bytes than announced"));
    }
    String::from_utf8(text).map_err(|_| ClusterError::OutOfTurn("a config that is not UTF-8"))
}

async fn in_time<T>(work: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
    match tokio::time::timeout(timeouts::REPLY, work).await {
        Ok(done) => done,
        Err(_) => Err(P2pError::Lost { reason: "no answer in time".to_owned() }.into()),
    }
}
