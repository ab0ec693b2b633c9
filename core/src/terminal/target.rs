//! The machine's side of an attached client: its stream, joined to the session's process.

use bytes::Bytes;
use malai_model::wire::{CommandEnd, DetachReason, Notice, WireError};
use tokio_util::sync::CancellationToken;

use super::connection::{HostConnection, HostEvent, HostReader, HostWriter};
use super::error::SessionError;
use super::protocol::EndReason;
use crate::p2p::{Channel, Incoming, P2pError, Stream, StreamReceiver, StreamSender, stream_code};
use crate::timeouts;

/// How a client's time at a session ended.
#[derive(Debug)]
pub enum SessionOutcome {
    /// The program ended.
    Ended(CommandEnd),
    /// The client left, or another took its place; the session goes on.
    Detached(DetachReason),
    /// The client was lost; the session goes on.
    CallerLost,
    /// The client that opened the session gave up before it knew that it was attached: the session is to end, for nobody
    /// knows of it.
    Abandoned,
    /// The right was taken away, and the session was ended.
    Revoked,
    /// The session failed, or malai ended it otherwise; the client has been told.
    Failed(SessionError),
}

/// Whether a client knows that it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attending {
    /// It has known the session before, or does not say when it does.
    Knows,
    /// It opened the session, and says when it knows: whatever it says is said then.
    WillSay,
}

/// Joins an attached client to its session until one of them has gone.
///
/// `revoked` ends the session: the right to it was taken away. When the peer is lost the session learns at once, and goes
/// on without it; one that gave up before it knew of the session is told apart from one whose connection was lost.
pub async fn serve(
    connection: HostConnection,
    stream: Stream,
    mut attending: Attending,
    revoked: CancellationToken,
) -> SessionOutcome {
    let Stream { sender, mut receiver } = stream;
    let attached = connection.attached().clone();
    let (mut reader, mut writer) = connection.split();
    let outcome = {
        let talk = async {
            sender.send_message(&Notice::Attached(attached)).await?;
            tokio::select! {
                biased;
                last = copy_output(&mut reader, &sender) => last,
                lost = copy_input(&mut receiver, &mut writer, &mut attending) => Err(lost),
            }
        };
        tokio::select! {
            biased;
            () = revoked.cancelled() => None,
            talk = talk => Some(talk),
        }
    };
    // What the client still says is nobody's concern; and now its last word is waited for until its machine has it.
    drop(receiver);
    match outcome {
        None => {
            // Told at once, ended at once: a client that reads nothing does not keep the session alive.
            let told = Notice::Failed(WireError::taken_away("the session"));
            let telling = async {
                _ = tokio::time::timeout(timeouts::REPLY, last_word(sender, &told)).await;
            };
            tokio::join!(telling, end(&mut reader, &mut writer));
            SessionOutcome::Revoked
        }
        Some(Err(lost)) => {
            tracing::debug!(error = %lost, ?attending, "a session's client is gone");
            if attending == Attending::WillSay && gave_up(&lost, &sender) {
                SessionOutcome::Abandoned
            } else {
                SessionOutcome::CallerLost
            }
        }
        Some(Ok(Last::Ended(end))) => {
            if last_word(sender, &Notice::Ended(end)).await
                && let Err(error) = writer.seen().await
            {
                tracing::debug!(%error, "a session's process went before it heard that its end was seen");
            }
            SessionOutcome::Ended(end)
        }
        Some(Ok(Last::Detached(reason))) => {
            last_word(sender, &Notice::Detached { reason }).await;
            SessionOutcome::Detached(reason)
        }
        Some(Ok(Last::Failed(error))) => {
            last_word(sender, &Notice::Failed(error.to_wire())).await;
            SessionOutcome::Failed(error)
        }
    }
}

/// The last thing that a session says to a client.
enum Last {
    Ended(CommandEnd),
    Detached(DetachReason),
    Failed(SessionError),
}

/// Carries what the session shows to the client, until the session's last word.
async fn copy_output(reader: &mut HostReader, sender: &StreamSender) -> Result<Last, P2pError> {
    loop {
        match reader.next().await {
            Ok(HostEvent::Data(bytes)) => sender.send(Channel::Main, bytes).await?,
            Ok(HostEvent::Attached(attached)) => sender.send_message(&Notice::Attached(attached)).await?,
            Ok(HostEvent::Ended(end)) => return Ok(Last::Ended(end)),
            Ok(HostEvent::Detached(reason)) => return Ok(Last::Detached(reason)),
            Ok(HostEvent::Failed(error)) => return Ok(Last::Failed(SessionError::Refused(error))),
            Err(error) => return Ok(Last::Failed(error)),
        }
    }
}

/// Whether a client that is gone went because it wanted to: else it may come back over another connection.
fn gave_up(lost: &P2pError, sender: &StreamSender) -> bool {
    match lost {
        P2pError::StreamReset { code } => *code != stream_code::MOVED,
        _ => !sender.is_lost(),
    }
}

/// Carries what the client types and says to the session, until the client is lost.
async fn copy_input(
    receiver: &mut StreamReceiver,
    writer: &mut HostWriter,
    attending: &mut Attending,
) -> P2pError {
    let mut waiting = Bytes::new();
    loop {
        let said = if waiting.is_empty() {
            match receiver.next().await {
                Ok(Some(Incoming::Data(Channel::Main, bytes))) => {
                    waiting = bytes;
                    *attending = Attending::Knows;
                    continue;
                }
                Ok(Some(Incoming::Data(..) | Incoming::End(_))) => continue,
                Ok(Some(Incoming::Message(text))) => match serde_json::from_slice(&text) {
                    Ok(notice) => notice,
                    Err(_) => continue,
                },
                Ok(None) => return lost(),
                Err(error) => return error,
            }
        } else {
            // The program may not read: what the client says beside its typing gets through all the same.
            tokio::select! {
                biased;
                message = receiver.message::<serde_json::Value>() => match message {
                    Ok(Some(said)) => match serde_json::from_value(said) {
                        Ok(notice) => notice,
                        Err(_) => continue,
                    },
                    Ok(None) => return lost(),
                    Err(error) => return error,
                },
                written = writer.write(&mut waiting) => {
                    if written.is_err() {
                        return gone().await;
                    }
                    continue;
                }
            }
        };
        *attending = Attending::Knows;
        let told = match said {
            Notice::Confirm {} => writer.confirm().await,
            Notice::Resize { window } => writer.resize(window).await,
            Notice::Detach {} => writer.detach().await,
            _ => Ok(()),
        };
        if told.is_err() {
            return gone().await;
        }
    }
}

/// The session's process has gone: the other way says so, and how.
async fn gone() -> P2pError {
    std::future::pending().await
}

fn lost() -> P2pError {
    P2pError::Lost { reason: "the client hung up".to_owned() }
}

async fn end(reader: &mut HostReader, writer: &mut HostWriter) {
    let ending = async {
        writer.end(EndReason::Revoked).await.map_err(|_| ())?;
        loop {
            match reader.next().await {
                Ok(HostEvent::Ended(_) | HostEvent::Failed(_) | HostEvent::Detached(_)) => return Ok(()),
                Ok(HostEvent::Data(_) | HostEvent::Attached(_)) => {}
                Err(SessionError::Gone { .. }) => return Ok(()),
                Err(_) => return Err(()),
            }
        }
    };
    match tokio::time::timeout(timeouts::HANGUP_GRACE + timeouts::REPLY, ending).await {
        Ok(Ok(())) => {}
        Ok(Err(())) | Err(_) => {
            tracing::warn!("a session whose right was taken away does not say that it ended")
        }
    }
}

/// Sends a last word; says whether the client's machine has it. If the client is gone there is nobody to tell, which is
/// no failure of ours.
async fn last_word(sender: StreamSender, notice: &Notice) -> bool {
    match sender.finish_with(notice).await {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, "the client is gone before the last word");
            false
        }
    }
}
