//! The hosting machine's side of a service: a TCP connection on this device, spliced with a caller's stream.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use malai_model::acl::{Authorized, Reach};
use malai_model::code::ErrorCode;
use malai_model::config::ServiceProtocol;
use malai_model::name::ServiceName;
use malai_model::wire::{Notice, WireError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;

use super::ServiceError;
use crate::p2p::{Channel, Incoming, P2pError, Stream, StreamReceiver, StreamSender};
use crate::timeouts;

/// How much is read from a service at once: large reads are what makes bulk cheap.
const READ_BLOCK: usize = 256 * 1024;
/// The largest piece handed to the stream at once: a frame's, so that none is cut in two.
const SEND_PIECE: usize = malai_model::wire::frame::MAX_DATA;

/// How a connection to a service ended on the machine that hosts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceOutcome {
    /// Both sides ended it.
    Closed,
    /// The caller was lost, and the service's connection was reset.
    CallerLost,
    /// The right was taken away, and the service's connection was reset.
    Revoked,
}

/// Connects an authorised caller with a service of this device, and passes bytes on until both have ended, however long
/// they say nothing.
///
/// `revoked` ends it: the right to it was taken away. `kept` says for how long the stream outlives its connection, if it
/// does: the caller is told, and the service notices nothing.
///
/// # Errors
/// Of this side: the service does not answer, or broke off. The caller has been told.
pub async fn serve_service(
    authorized: &Authorized<Reach>,
    stream: Stream,
    revoked: CancellationToken,
    kept: Option<Duration>,
) -> Result<ServiceOutcome, ServiceError> {
    let service = &authorized.action().service;
    let Stream { sender, mut receiver } = stream;
    let connected = tokio::select! {
        biased;
        () = revoked.cancelled() => None,
        connected = dial(authorized) => Some(connected),
    };
    let mut tcp = match connected {
        None => {
            drop(receiver);
            last_word(sender, &taken_away(service)).await;
            return Ok(ServiceOutcome::Revoked);
        }
        Some(Ok(tcp)) => tcp,
        Some(Err(error)) => {
            drop(receiver);
            last_word(sender, &failed(&error)).await;
            return Err(error);
        }
    };
    let spliced = tokio::select! {
        biased;
        () = revoked.cancelled() => None,
        spliced = splice(&mut tcp, &sender, &mut receiver, kept) => Some(spliced),
    };
    // Nothing more is taken from the caller: then finishing waits until it has the last word.
    drop(receiver);
    match spliced {
        Some(Ok(())) => {
            // It may take its time with the last of what the service said.
            let nothing = None::<&Notice>;
            // A stream that outlives its connection waits until a loss of it is noticed; from then on its own time counts.
            let patience = timeouts::REPLY + kept.map_or(Duration::ZERO, |_| timeouts::IDLE);
            if let Err(error) = sender.conclude(nothing, patience, revoked.cancelled()).await {
                tracing::debug!(%error, "the caller is gone before the end");
            }
            Ok(ServiceOutcome::Closed)
        }
        Some(Err(Broke::Service(source))) => {
            let error = ServiceError::Broken { service: service.clone(), source };
            last_word(sender, &failed(&error)).await;
            Err(error)
        }
        Some(Err(Broke::Caller(error))) => {
            tracing::debug!(%error, "a service's caller is gone");
            reset(tcp);
            Ok(ServiceOutcome::CallerLost)
        }
        None => {
            reset(tcp);
            last_word(sender, &taken_away(service)).await;
            Ok(ServiceOutcome::Revoked)
        }
    }
}

/// Why bytes are no longer passed on.
enum Broke {
    Service(std::io::Error),
    Caller(P2pError),
}

impl From<P2pError> for Broke {
    fn from(error: P2pError) -> Self {
        Self::Caller(error)
    }
}

async fn dial(authorized: &Authorized<Reach>) -> Result<TcpStream, ServiceError> {
    let service = authorized.action().service.clone();
    let effect = authorized.effect();
    match effect.protocol {
        ServiceProtocol::Tcp => {}
        // As plain bytes a caller could claim any identity in its heads.
        ServiceProtocol::Http { .. } => return Err(ServiceError::Http(service)),
    }
    if effect.on_demand.is_some() {
        return Err(ServiceError::OnDemand(service));
    }
    let dialled = TcpStream::connect((effect.host.as_str(), effect.port));
    let source = match tokio::time::timeout(timeouts::SERVICE_CONNECT, dialled).await {
        Ok(Ok(tcp)) => {
            // Whoever types into it waits for each key.
            if let Err(error) = tcp.set_nodelay(true) {
                tracing::debug!(%error, "a service's connection delays small writes");
            }
            return Ok(tcp);
        }
        Ok(Err(source)) => source,
        Err(_) => std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer within {} s", timeouts::SERVICE_CONNECT.as_secs()),
        ),
    };
    // The caller is told the reason, not where its rules lead.
    tracing::info!(%service, host = effect.host, port = effect.port, error = %source, "a service does not answer");
    Err(ServiceError::Unreachable { service, source })
}

/// Passes bytes on until both sides have ended.
async fn splice(
    tcp: &mut TcpStream,
    sender: &StreamSender,
    receiver: &mut StreamReceiver,
    kept: Option<Duration>,
) -> Result<(), Broke> {
    let resume_ms = kept.map(|linger| u64::try_from(linger.as_millis()).unwrap_or(u64::MAX));
    sender.send_message(&Notice::Started { resume_ms }).await?;
    let (read, write) = tcp.split();
    let mut down = pin!(copy_down(read, sender));
    {
        let mut up = pin!(copy_up(receiver, write));
        tokio::select! {
            ended = &mut down => {
                ended?;
                // The service has said all; what the caller has to say still goes there.
                return Ok(up.await?);
            }
            ended = &mut up => ended?,
        }
    }
    // The caller has said all, or the service hears no more; what the service has to say still goes to the caller.
    tokio::select! {
        biased;
        ended = down => ended,
        error = caller_lost(receiver) => Err(Broke::Caller(error)),
    }
}

/// From the service to the caller, up to the end of what the service says.
async fn copy_down(mut from: ReadHalf<'_>, sender: &StreamSender) -> Result<(), Broke> {
    let mut block = BytesMut::with_capacity(READ_BLOCK);
    loop {
        if block.capacity() < SEND_PIECE {
            block = BytesMut::with_capacity(READ_BLOCK);
        }
        match from.read_buf(&mut block).await {
            Ok(0) => return Ok(sender.end(Channel::Main).await?),
            Ok(_) => {
                while !block.is_empty() {
                    let piece = block.split_to(block.len().min(SEND_PIECE)).freeze();
                    sender.send(Channel::Main, piece).await?;
                }
            }
            Err(error) => return Err(Broke::Service(error)),
        }
    }
}

/// From the caller to the service, up to the end of what the caller says, or until the service hears no more: then its
/// other direction tells why.
async fn copy_up(receiver: &mut StreamReceiver, mut to: WriteHalf<'_>) -> Result<(), P2pError> {
    let mut waiting: Option<Bytes> = None;
    loop {
        if let Some(bytes) = &mut waiting {
            // A service that does not read keeps nobody from noticing that the caller is gone.
            tokio::select! {
                written = to.write(bytes) => match written {
                    Ok(count) if count > 0 => {
                        drop(bytes.split_to(count));
                        if bytes.is_empty() {
                            waiting = None;
                        }
                    }
                    Ok(_) | Err(_) => return Ok(()),
                },
                message = receiver.message::<serde::de::IgnoredAny>() => {
                    if message?.is_none() {
                        return Err(hung_up());
                    }
                }
            }
            continue;
        }
        match receiver.next().await? {
            Some(Incoming::Data(Channel::Main, bytes)) => waiting = (!bytes.is_empty()).then_some(bytes),
            Some(Incoming::End(Channel::Main)) => {
                // If it fails the service is gone, which its other direction tells.
                _ = to.shutdown().await;
                return Ok(());
            }
            Some(_) => {}
            None => return Err(hung_up()),
        }
    }
}

/// Waits until the caller is gone; what it still says is dropped.
async fn caller_lost(receiver: &mut StreamReceiver) -> P2pError {
    loop {
        match receiver.next().await {
            Ok(Some(_)) => {}
            Ok(None) => return hung_up(),
            Err(error) => return error,
        }
    }
}

/// Breaks a service's connection off, so that it cannot take what came for all there is.
fn reset(tcp: TcpStream) {
    if let Err(error) = tcp.set_zero_linger() {
        tracing::debug!(%error, "a service's connection ends without a reset");
    }
}

fn hung_up() -> P2pError {
    P2pError::Lost { reason: "the caller hung up".to_owned() }
}

fn taken_away(service: &ServiceName) -> Notice {
    Notice::Failed(WireError {
        code: ErrorCode::AclRevoked,
        message: format!("go on with the service {service}: the right to reach it was taken away or changed"),
        hint: Some("connect again; if that is refused, ask the cluster's manager".to_owned()),
    })
}

fn failed(error: &ServiceError) -> Notice {
    Notice::Failed(WireError::of(error.code(), error, error.hint()))
}

/// Sends a last word. If the caller is gone there is nobody to tell, which is no failure of ours.
async fn last_word(sender: StreamSender, notice: &Notice) {
    // A caller that does not take it keeps its request open for no longer than this.
    if let Ok(Err(error)) = tokio::time::timeout(timeouts::REPLY, sender.finish_with(notice)).await {
        tracing::debug!(%error, "the caller is gone before the last word");
    }
}
