//! The caller's side of a command.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use malai_model::wire::{CommandEnd, ExecRequest, Notice, Request, Signal};

use super::ExecError;
use crate::p2p::{
    Channel, Incoming, P2pError, Redial, Stream, StreamReceiver, StreamSender, keep_resumed, new_resume_token,
};
use crate::task::Scope;
use crate::timeouts;

/// For how long a target is looked for again to which a request was sent that it has not confirmed.
const UNCONFIRMED: Duration = timeouts::REPLY;

/// A command that runs somewhere. Dropping all its parts hangs it up, as closing a terminal would.
#[derive(Debug)]
pub struct RunningCommand {
    /// Feeds its stdin.
    pub input: CommandInput,
    /// Yields its output and its end.
    pub output: CommandOutput,
    /// Sends it signals.
    pub control: CommandControl,
}

/// Feeds a command's stdin, with back-pressure.
#[derive(Debug)]
pub struct CommandInput(Arc<StreamSender>);

/// Sends signals to a command's process group. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CommandControl(Arc<StreamSender>);

/// Yields a command's output as it comes. A consumer that pauses makes the command wait, not the connection.
#[derive(Debug)]
pub struct CommandOutput {
    receiver: StreamReceiver,
    // Kept: dropping the last one gives the stream up, which the target takes for a hang-up.
    _sender: Arc<StreamSender>,
    /// How it ended, told before all of its output was here.
    ended: Option<CommandEnd>,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandEvent {
    /// Bytes of its standard output.
    Stdout(Bytes),
    /// Bytes of its standard error.
    Stderr(Bytes),
    /// It ended; nothing follows.
    Ended(CommandEnd),
}

impl RunningCommand {
    /// Asks for a command on a fresh stream and waits until it runs.
    ///
    /// # Errors
    /// What the target refused it for, or what the connection failed with; [`ExecError::Unanswered`] after
    /// [`timeouts::START`].
    pub async fn start(mut stream: Stream, request: ExecRequest) -> Result<Self, ExecError> {
        Self::ask(&mut stream, request).await?;
        Ok(Self::over(stream))
    }

    /// As [`RunningCommand::start`]; if the connection is lost, the command goes on over another one that `redial` makes,
    /// for as long as the target keeps it. What does so is a task of `scope`. If the target does not know the command
    /// there it is not asked for again: it may have run.
    ///
    /// # Errors
    /// As [`RunningCommand::start`].
    pub async fn start_resumable(
        mut stream: Stream,
        request: ExecRequest,
        redial: Arc<dyn Redial>,
        scope: &Scope,
    ) -> Result<Self, ExecError> {
        let token = request.resume.clone().map_or_else(new_resume_token, Ok)?;
        let request = ExecRequest { resume: Some(token.clone()), ..request };
        // From its first word on: whether that arrived, the target alone knows.
        let handle = stream.resumable(UNCONFIRMED);
        keep_resumed(scope, handle.clone(), token, redial);
        match Self::ask(&mut stream, request).await {
            Ok(Some(linger)) => handle.set_linger(linger),
            Ok(None) => handle.no_longer(),
            Err(ExecError::Network(P2pError::StreamUnknown)) => {
                let reason = "the connection was lost before the machine said that the command runs";
                return Err(P2pError::lost(reason).into());
            }
            Err(error) => return Err(error),
        }
        Ok(Self::over(stream))
    }

    /// Asks, and waits until the command runs; returns for how long its target keeps it without a connection.
    async fn ask(stream: &mut Stream, request: ExecRequest) -> Result<Option<Duration>, ExecError> {
        let answer = async {
            stream.sender.send_message(&Request::Exec(request)).await?;
            stream.receiver.message::<Notice>().await
        };
        let answer = tokio::time::timeout(timeouts::START, answer).await;
        match answer.map_err(|_| ExecError::Unanswered)?? {
            Some(Notice::Started { resume_ms }) => Ok(resume_ms.map(Duration::from_millis)),
            Some(Notice::Failed(error)) => Err(ExecError::Remote(error)),
            Some(_) => Err(ExecError::OutOfTurn("not whether the command runs")),
            None => Err(ExecError::OutOfTurn("the stream ended before the command began")),
        }
    }

    fn over(stream: Stream) -> Self {
        let Stream { sender, receiver } = stream;
        let sender = Arc::new(sender);
        Self {
            input: CommandInput(Arc::clone(&sender)),
            control: CommandControl(Arc::clone(&sender)),
            output: CommandOutput { receiver, _sender: sender, ended: None },
        }
    }
}

impl CommandInput {
    /// Hands over bytes for stdin; returns when they are on their way. What a command that reads no more is sent goes
    /// nowhere, which is no error.
    ///
    /// # Errors
    /// When the command ended or the connection failed.
    pub async fn write(&self, bytes: Bytes) -> Result<(), ExecError> {
        Ok(self.0.send(Channel::Main, bytes).await?)
    }

    /// Ends stdin: the command reads EOF.
    ///
    /// # Errors
    /// When the connection failed.
    pub async fn end(&self) -> Result<(), ExecError> {
        Ok(self.0.end(Channel::Main).await?)
    }
}

impl CommandControl {
    /// Returns how long a round trip to the command's machine takes now; over a daemon's socket, how long it took when
    /// the command was asked for.
    pub fn rtt(&self) -> Duration {
        self.0.path().rtt
    }

    /// Delivers a signal to the command's process group.
    ///
    /// # Errors
    /// When the connection failed.
    pub async fn signal(&self, signal: Signal) -> Result<(), ExecError> {
        Ok(self.0.send_message(&Notice::Signal { signal }).await?)
    }
}

impl CommandOutput {
    /// Waits for what the command does next. After [`CommandEvent::Ended`] it is over.
    ///
    /// # Errors
    /// When the target ended it, for example because the right to it was taken away, or the connection failed.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost.
    pub async fn next(&mut self) -> Result<CommandEvent, ExecError> {
        let Self { receiver, ended, .. } = self;
        loop {
            match receiver.next().await? {
                Some(Incoming::Data(Channel::Main, bytes)) => return Ok(CommandEvent::Stdout(bytes)),
                Some(Incoming::Data(Channel::Stderr, bytes)) => return Ok(CommandEvent::Stderr(bytes)),
                Some(Incoming::End(_)) => {}
                // The last of the output may wait for credit while the word that the command ended, which travels
                // beside it, does not: the end is told when everything is here.
                Some(Incoming::Message(text)) => match serde_json::from_slice(&text) {
                    Ok(Notice::Ended(end)) => *ended = Some(end),
                    Ok(Notice::Failed(error)) => return Err(ExecError::Remote(error)),
                    // A later version may say more while a command runs.
                    Ok(_) | Err(_) => {}
                },
                None => {
                    return match ended {
                        Some(end) => Ok(CommandEvent::Ended(*end)),
                        None => Err(ExecError::Network(P2pError::Lost {
                            reason: "the stream ended before the command did".to_owned(),
                        })),
                    };
                }
            }
        }
    }
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
    async fn a_target_that_takes_a_command_and_says_nothing_is_not_waited_for_for_ever() {
        let scope = Scope::new();
        let (ours, theirs) = Stream::pair(&scope, id(1), id(2)).expect("makes a pair");
        let request = ExecRequest { argv: vec!["true".to_owned()], env: Default::default(), resume: None };
        let started = RunningCommand::start(ours, request);
        let started = tokio::time::timeout(timeouts::START * 2, started).await.expect("has a deadline");
        let error = started.expect_err("is not answered");
        assert_eq!(error.code(), ErrorCode::Timeout);
        assert!(error.hint().is_some());
        drop(theirs);
    }
}
