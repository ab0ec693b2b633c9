//! The caller's side of a service: bytes both ways, each direction with an end of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use malai_model::name::ServiceName;
use malai_model::wire::{Notice, Request, ResumeToken};

use super::ServiceError;
use crate::p2p::{
    Channel, Incoming, P2pError, Redial, Stream, StreamReceiver, StreamSender, keep_resumed, new_resume_token,
};
use crate::task::Scope;
use crate::timeouts;

/// A connection to a service. Dropping both its parts breaks it off, which the service sees as a reset.
#[derive(Debug)]
pub struct ServiceConnection {
    /// Sends to the service.
    pub input: ServiceInput,
    /// Receives from it.
    pub output: ServiceOutput,
}

/// Sends bytes to a service, with back-pressure.
#[derive(Debug)]
pub struct ServiceInput(Arc<StreamSender>);

/// Receives a service's bytes. A consumer that pauses makes the service wait, not the connection to its machine.
#[derive(Debug)]
pub struct ServiceOutput {
    receiver: Box<StreamReceiver>,
    // Kept: dropping the last one gives the stream up.
    _sender: Arc<StreamSender>,
    ended: bool,
}

impl ServiceConnection {
    /// Asks for a service on a fresh stream and waits until it is connected.
    ///
    /// # Errors
    /// What the hosting machine refused it for, or what the connection failed with; [`ServiceError::Unanswered`] after
    /// [`timeouts::REPLY`].
    pub async fn start(mut stream: Stream, service: ServiceName) -> Result<Self, ServiceError> {
        Self::ask(&mut stream, service, None).await?;
        Ok(Self::over(stream))
    }

    /// As [`Self::start`]; if the connection to the machine is lost, the one to the service goes on over another one
    /// that `redial` makes, for as long as the machine keeps it. What does so is a task of `scope`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_resumable(
        mut stream: Stream,
        service: ServiceName,
        redial: Arc<dyn Redial>,
        scope: &Scope,
    ) -> Result<Self, ServiceError> {
        let token = new_resume_token()?;
        if let Some(linger) = Self::ask(&mut stream, service, Some(token.clone())).await? {
            keep_resumed(scope, stream.resumable(linger), token, redial);
        }
        Ok(Self::over(stream))
    }

    /// Asks, and waits until the service is connected; returns for how long the machine keeps it without a connection.
    async fn ask(
        stream: &mut Stream,
        service: ServiceName,
        resume: Option<ResumeToken>,
    ) -> Result<Option<Duration>, ServiceError> {
        let answer = async {
            stream.sender.send_message(&Request::Connect { service, resume }).await?;
            stream.receiver.message::<Notice>().await
        };
        // Longer than the machine waits for the service itself.
        let answer = tokio::time::timeout(timeouts::REPLY, answer).await;
        match answer.map_err(|_| ServiceError::Unanswered)?? {
            Some(Notice::Started { resume_ms }) => Ok(resume_ms.map(Duration::from_millis)),
            Some(Notice::Failed(error)) => Err(ServiceError::Remote(error)),
            Some(_) => Err(ServiceError::OutOfTurn("not whether the service is connected")),
            None => Err(ServiceError::OutOfTurn("the stream ended before the service was connected")),
        }
    }

    fn over(stream: Stream) -> Self {
        let Stream { sender, receiver } = stream;
        let sender = Arc::new(sender);
        Self {
            input: ServiceInput(Arc::clone(&sender)),
            output: ServiceOutput { receiver: Box::new(receiver), _sender: sender, ended: false },
        }
    }
}

impl ServiceInput {
    /// Hands over bytes; returns when they are on their way, which waits while the service does not read.
    ///
    /// # Errors
    /// When the service or the connection ended.
    ///
    /// # Cancel safety
    /// A cancelled call has sent a prefix of the bytes.
    pub async fn write(&self, bytes: Bytes) -> Result<(), ServiceError> {
        Ok(self.0.send(Channel::Main, bytes).await?)
    }

    /// Says that nothing more comes; the service reads the end of its input and may go on answering.
    ///
    /// # Errors
    /// When the connection failed.
    pub async fn end(&self) -> Result<(), ServiceError> {
        Ok(self.0.end(Channel::Main).await?)
    }
}

impl ServiceOutput {
    /// Waits for bytes of the service; `None` when it sends no more. It may still receive.
    ///
    /// # Errors
    /// When the right to it was taken away, or a connection broke.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ServiceError> {
        while !self.ended {
            match self.receiver.next().await? {
                Some(Incoming::Data(Channel::Main, bytes)) => return Ok(Some(bytes)),
                Some(Incoming::End(Channel::Main)) => self.ended = true,
                None => return Err(ServiceError::Network(lost())),
                Some(other) => refused(other)?,
            }
        }
        Ok(None)
    }

    /// Waits, after the end of the output, until the service has got everything that was sent to it, or has gone.
    ///
    /// # Errors
    /// As [`Self::next`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&mut self) -> Result<(), ServiceError> {
        while let Some(incoming) = self.receiver.next().await? {
            refused(incoming)?;
        }
        Ok(())
    }
}

/// What may stand between the bytes: why there are no more.
fn refused(incoming: Incoming) -> Result<(), ServiceError> {
    let Incoming::Message(text) = incoming else { return Ok(()) };
    match serde_json::from_slice(&text) {
        Ok(Notice::Failed(error)) => Err(ServiceError::Remote(error)),
        // A later version may say more while a connection lasts.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn lost() -> P2pError {
    P2pError::Lost { reason: "the stream ended before the service did".to_owned() }
}

#[cfg(all(test, unix))]
mod tests {
    use malai_model::code::ErrorCode;
    use malai_model::id::Id52;

    use super::*;

    fn id(number: u8) -> Id52 {
        fastn_id52::SecretKey::from_bytes(&[number; 32]).id52().parse().expect("is an id52")
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_takes_a_request_and_says_nothing_is_not_waited_for_for_ever() {
        let scope = Scope::new();
        let (ours, theirs) = Stream::pair(&scope, id(1), id(2)).expect("makes a pair");
        let started = ServiceConnection::start(ours, "ssh".parse().expect("is a name"));
        let started = tokio::time::timeout(timeouts::REPLY * 2, started).await.expect("has a deadline");
        let error = started.expect_err("is not answered");
        assert_eq!(error.code(), ErrorCode::Timeout);
        assert!(error.hint().is_some());
        drop(theirs);
    }

    struct Nowhere;

    impl Redial for Nowhere {
        fn redial(&self) -> crate::p2p::Redialling {
            panic!("an older machine keeps nothing to go on with")
        }
    }

    #[tokio::test]
    async fn with_an_older_machine_a_connection_ends_with_the_network_s() {
        let scope = Scope::new();
        let (ours, theirs) = Stream::pair(&scope, id(1), id(2)).expect("makes a pair");
        let service = "ssh".parse().expect("is a name");
        let started = ServiceConnection::start_resumable(ours, service, Arc::new(Nowhere), &scope);
        let answer = async {
            let Stream { sender, mut receiver } = theirs;
            let asked = receiver.message::<serde_json::Value>().await.expect("receives").expect("asks");
            assert_eq!((&asked["type"], &asked["service"]), (&"connect".into(), &"ssh".into()));
            sender.send_message(&serde_json::json!({ "type": "started" })).await.expect("sends");
            (sender, receiver)
        };
        let (started, theirs) = tokio::join!(started, answer);
        let mut connection = started.expect("is connected");
        drop(theirs);
        assert!(connection.output.next().await.is_err());
        drop(connection);
        scope.shutdown(Duration::from_secs(30)).await;
    }
}
