//! A client's task: one connection after the other, as one session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use malai_model::wire::{
    AttachMode, AttachSession, Attached, CommandEnd, DetachReason, Notice, Request, ResumeToken, WireError,
};

use super::shared::{Ask, Shared};
use super::shown::Shown;
use super::typed::Gap;
use super::{AttachError, Link, OnReturn, Redial, SessionEvent};
use crate::p2p::{Channel, Incoming, P2pError, Stream, StreamReceiver, StreamSender, jittered};
use crate::timeouts;

/// The pause after the first failed attempt to come back, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long a machine has to say that the client is detached.
const DETACHING: Duration = Duration::from_secs(2);

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) redial: Arc<dyn Redial>,
    pub(super) client: ResumeToken,
    pub(super) mode: AttachMode,
    pub(super) shown: Shown,
    /// Whether the machine waits for word that this client knows of the session.
    pub(super) confirms: bool,
}

/// How a connection ended.
enum Over {
    /// And with it everything, for this client.
    Final(Result<SessionEvent, AttachError>),
    /// The session goes on, so another is made.
    Lost(AttachError),
    /// It was given up, to get the screen anew.
    Redraw,
    /// Nobody is there to show it to.
    Gone,
}

impl Driver {
    /// Runs until it is over for this client. `first` is attached already.
    pub(super) async fn run(mut self, first: Stream) {
        let mut stream = first;
        if self.confirms {
            // Before anything is shown or typed. If it does not arrive, coming back says as much.
            _ = stream.sender.send_message(&Notice::Confirm {}).await;
        }
        let last = loop {
            self.shared.set_link(Link::Attached { since: Instant::now(), path: stream.path() });
            let over = talk(&self.shared, &mut self.shown, self.mode, stream).await;
            let lost = match over {
                Over::Final(last) => break Some(last),
                Over::Gone => break None,
                Over::Redraw => {
                    self.shared.set_on_return(OnReturn::Redraw);
                    None
                }
                Over::Lost(reason) => Some(reason),
            };
            match self.come_back(lost).await {
                Ok(again) => stream = again,
                Err(last) => break last,
            }
        };
        let failed = match last {
            Some(Ok(event)) => {
                self.shared.push(event);
                None
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        self.shared.finish(failed);
    }

    /// Attaches again, for as long as that may succeed and somebody waits.
    async fn come_back(
        &mut self,
        lost: Option<AttachError>,
    ) -> Result<Stream, Option<Result<SessionEvent, AttachError>>> {
        let mut told = false;
        let since = Instant::now();
        let mut failed = lost;
        let mut pause = PAUSES.0;
        loop {
            if let Some(error) = &failed {
                tracing::debug!(session = %self.shared.session, %error, "not attached");
                self.shared.set_link(Link::Lost { since, reason: error.to_string() });
                if !std::mem::replace(&mut told, true) {
                    self.shared.push(SessionEvent::Reconnecting { reason: error.to_string() });
                }
            }
            let shared = Arc::clone(&self.shared);
            let attempt = tokio::select! {
                biased;
                leaving = leaving(&shared) => return Err(leaving),
                attempt = self.attempt() => attempt,
            };
            match attempt {
                Ok(stream) => {
                    if told {
                        self.shared.push(SessionEvent::Reconnected);
                    }
                    return Ok(stream);
                }
                Err(error) if error.may_pass() => failed = Some(error),
                Err(error) => return Err(Some(Err(error))),
            }
            tokio::select! {
                leaving = leaving(&self.shared) => return Err(leaving),
                () = tokio::time::sleep(jittered(pause)) => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn attempt(&mut self) -> Result<Stream, AttachError> {
        let stream = self.redial.redial().await.map_err(AttachError::Remote)?;
        let (window, received) = self.shared.to_attach(self.shown.received());
        let request = AttachSession {
            session: Some(self.shared.session.clone()),
            mode: self.mode,
            client: self.client.clone(),
            window,
            received,
        };
        let attached = attach(stream, &Request::AttachSession(request)).await;
        let (stream, attached) = attached.inspect_err(|_| self.shared.not_attached(received))?;
        if self.mode == AttachMode::Control {
            self.shared.resume_typing(attached.input).map_err(|gap| match gap {
                Gap::Lost(count) => AttachError::TypedLost(count),
                Gap::Impossible => AttachError::OutOfTurn("it has more than was typed"),
            })?;
        }
        tracing::debug!(session = %self.shared.session, ?attached, asked = received, "attached again");
        self.shown.attach(&attached, received);
        self.shared.attached(window);
        Ok(stream)
    }
}

/// Asks to be attached and waits for the answer.
pub(super) async fn attach(stream: Stream, request: &Request) -> Result<(Stream, Attached), AttachError> {
    let Stream { sender, mut receiver } = stream;
    let answer = async {
        sender.send_message(request).await?;
        receiver.message::<Notice>().await
    };
    let answer = tokio::time::timeout(timeouts::REPLY, answer).await;
    match answer.map_err(|_| AttachError::Unanswered)?? {
        Some(Notice::Attached(attached)) => Ok((Stream { sender, receiver }, attached)),
        Some(Notice::Failed(error)) => Err(AttachError::Remote(error)),
        Some(_) => Err(AttachError::OutOfTurn("not whether this client is attached")),
        None => Err(AttachError::Network(P2pError::lost("the stream ended before this client was attached"))),
    }
}

/// Passes everything on, both ways, until the connection ends.
async fn talk(shared: &Shared, shown: &mut Shown, mode: AttachMode, stream: Stream) -> Over {
    let Stream { sender, receiver } = stream;
    tokio::select! {
        over = listen(shared, shown, receiver) => over,
        over = speak(shared, &sender) => over,
        never = type_on(shared, mode, &sender) => match never {},
    }
}

/// Sends what is typed. A failure shows at the receiving half, which may have more to say before that.
async fn type_on(shared: &Shared, mode: AttachMode, sender: &StreamSender) -> std::convert::Infallible {
    if mode == AttachMode::Control {
        loop {
            let piece = shared.piece().await;
            let length = piece.len();
            if sender.send(Channel::Main, piece).await.is_err() {
                break;
            }
            shared.sent(length);
        }
    }
    std::future::pending().await
}

/// Says what is asked for beside typing.
async fn speak(shared: &Shared, sender: &StreamSender) -> Over {
    loop {
        match shared.ask().await {
            // If it does not arrive the connection is over, which shows at the receiving half.
            Ask::Resize(window) => _ = sender.send_message(&Notice::Resize { window }).await,
            Ask::Redraw => return Over::Redraw,
            Ask::Gone => return Over::Gone,
            Ask::Detach => {
                if sender.send_message(&Notice::Detach {}).await.is_ok() {
                    tokio::time::sleep(DETACHING).await;
                }
                return Over::Final(Ok(SessionEvent::Detached(DetachReason::Asked)));
            }
        }
    }
}

/// Takes the output and the machine's last word. The latter may overtake output that waits for credit: it is told when
/// everything is here.
async fn listen(shared: &Shared, shown: &mut Shown, mut receiver: StreamReceiver) -> Over {
    let mut last: Option<Result<SessionEvent, WireError>> = None;
    loop {
        shared.output_room().await;
        match receiver.next().await {
            Ok(Some(Incoming::Data(Channel::Main, bytes))) => {
                let new = shown.take(bytes);
                shared.set_received(shown.received());
                shared.push(SessionEvent::Output(new));
            }
            Ok(Some(Incoming::Data(Channel::Stderr, _) | Incoming::End(_))) => {}
            Ok(Some(Incoming::Message(text))) => match serde_json::from_slice(&text) {
                Ok(Notice::Ended(end)) => last = Some(Ok(SessionEvent::Ended(end))),
                Ok(Notice::Detached { reason }) => last = Some(Ok(SessionEvent::Detached(reason))),
                Ok(Notice::Failed(error)) => last = Some(Err(error)),
                // Whoever looks on and was too slow gets the screen anew.
                Ok(Notice::Attached(attached)) => shown.attach(&attached, None),
                // A later version may say more.
                Ok(_) | Err(_) => {}
            },
            Ok(None) => {
                let lost = || AttachError::Network(P2pError::lost("the stream ended before the session did"));
                return conclude(last).unwrap_or_else(|| Over::Lost(lost()));
            }
            Err(error) => {
                let error = AttachError::Network(error);
                return conclude(last).unwrap_or_else(|| match error.may_pass() {
                    true => Over::Lost(error),
                    false => Over::Final(Err(error)),
                });
            }
        }
    }
}

fn conclude(last: Option<Result<SessionEvent, WireError>>) -> Option<Over> {
    Some(match last? {
        Ok(event) => Over::Final(Ok(event)),
        Err(error) => {
            let error = AttachError::Remote(error);
            if error.may_pass() { Over::Lost(error) } else { Over::Final(Err(error)) }
        }
    })
}

/// Resolves when nobody waits for the connection any more.
async fn leaving(shared: &Shared) -> Option<Result<SessionEvent, AttachError>> {
    loop {
        match shared.ask().await {
            Ask::Gone => return None,
            Ask::Detach => return Some(Ok(SessionEvent::Detached(DetachReason::Asked))),
            Ask::Redraw => shared.set_on_return(OnReturn::Redraw),
            // The window is told when attaching.
            Ask::Resize(_) => {}
        }
    }
}

/// Lists or ends sessions: one question, one answer after the other until it is complete.
pub(super) async fn ask_once(
    stream: Stream,
    request: &Request,
    within: Duration,
) -> Result<(StreamSender, StreamReceiver, Notice), AttachError> {
    let Stream { sender, mut receiver } = stream;
    let answer = async {
        sender.send_message(request).await?;
        receiver.message::<Notice>().await
    };
    let answer = tokio::time::timeout(within, answer).await;
    match answer.map_err(|_| AttachError::Unanswered)?? {
        Some(Notice::Failed(error)) => Err(AttachError::Remote(error)),
        Some(notice) => Ok((sender, receiver, notice)),
        None => Err(AttachError::OutOfTurn("it said nothing")),
    }
}

pub(super) fn ended(notice: Notice) -> Result<CommandEnd, AttachError> {
    match notice {
        Notice::Ended(end) => Ok(end),
        _ => Err(AttachError::OutOfTurn("not whether the session ended")),
    }
}
