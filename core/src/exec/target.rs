//! The target's side of a command: a process, its pipes, and the stream to the caller.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use malai_model::acl::{Authorized, Run, RunEffect};
use malai_model::config::UserName;
use malai_model::wire::{CommandEnd, ExecRequest, Notice, WireError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::host::{
    Caller, Executable, HostError, LocalUser, OwnProgram, Process, ProcessGroup, SpawnRequest,
    build_environment,
};
use crate::p2p::{Channel, Incoming, P2pError, Stream, StreamReceiver, StreamSender};
use crate::timeouts;

/// How much is read from a pipe at once: large reads are what makes bulk output cheap.
const READ_BLOCK: usize = 256 * 1024;
/// The largest piece handed to the stream at once: a frame's, so that none is cut in two.
const SEND_PIECE: usize = malai_model::wire::frame::MAX_DATA;

/// Runs commands for callers who were authorised.
#[derive(Debug, Clone)]
pub struct ExecTarget {
    user: Arc<LocalUser>,
    own_program: Option<OwnProgram>,
}

/// How a command's run ended on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetOutcome {
    /// The command ended by itself.
    Ended(CommandEnd),
    /// The caller was lost, and the command was hung up.
    CallerLost,
    /// The right was taken away, and the command was hung up.
    Revoked,
}

impl ExecTarget {
    /// Makes a target. `user` is the one that this process runs as, and that commands run as whose rules name none;
    /// `own_program` is for the commands that malai itself brings along (`malai-cp`).
    pub fn new(user: LocalUser, own_program: Option<OwnProgram>) -> Self {
        Self { user: Arc::new(user), own_program }
    }

    /// The malai program, if this device has one.
    pub fn own_program(&self) -> Option<&OwnProgram> {
        self.own_program.as_ref()
    }

    /// Finds the user that an effect means: the one that its rule names, else the one that this process runs as. Never
    /// another: a name that is not known here, or that this process may not become, is an error.
    ///
    /// Looked up anew each time, so that a user who was removed has no more rights; it costs some ten microseconds where
    /// users are in a file.
    ///
    /// # Errors
    /// [`HostError::UnknownUser`], [`HostError::ForeignUser`], [`HostError::Users`].
    pub async fn user_for(&self, username: Option<&UserName>) -> Result<LocalUser, HostError> {
        let Some(wanted) = username.filter(|wanted| wanted.as_str() != self.user.name) else {
            return Ok((*self.user).clone());
        };
        let wanted = wanted.as_str().to_owned();
        let user = blocking(move || LocalUser::named(&wanted), HostError::Users).await?;
        user.check_switch()?;
        Ok(user)
    }

    /// The user that this process runs as.
    pub fn user_name(&self) -> &str {
        &self.user.name
    }

    /// Runs an authorised command to its end, over the caller's stream. `cluster` is what the command is told.
    ///
    /// `revoked` ends it: the right to it was taken away. When the caller is gone the process group gets SIGHUP, and
    /// SIGKILL a little later. `kept` says for how long the stream outlives its connection, if it does: the caller is
    /// told.
    ///
    /// # Errors
    /// Of this side: the command could not be started or watched. The caller has been told.
    pub async fn serve(
        &self,
        authorized: Authorized<Run>,
        request: &ExecRequest,
        cluster: &str,
        stream: Stream,
        revoked: CancellationToken,
        kept: Option<Duration>,
    ) -> Result<TargetOutcome, HostError> {
        let Stream { sender, receiver } = stream;
        if revoked.is_cancelled() {
            // The rules changed between the decision and this line.
            drop(receiver);
            last_word(sender, &Notice::Failed(WireError::taken_away("the command"))).await;
            return Ok(TargetOutcome::Revoked);
        }
        let process = match self.spawn(&authorized, request, cluster).await {
            Ok(process) => process,
            Err(error) => {
                drop(receiver);
                last_word(sender, &failed(&error)).await;
                return Err(error);
            }
        };
        let Process { stdin, stdout, stderr, group } = process;
        let outcome = {
            let talk = async {
                let resume_ms = kept.map(|linger| u64::try_from(linger.as_millis()).unwrap_or(u64::MAX));
                sender.send_message(&Notice::Started { resume_ms }).await?;
                let outputs = async {
                    tokio::try_join!(
                        copy_output(stdout, &sender, Channel::Main),
                        copy_output(stderr, &sender, Channel::Stderr),
                    )
                };
                // What the command started in the background may hold its pipes open: as with ssh, output ends when
                // the last of them lets go.
                let ended = async {
                    outputs.await?;
                    Ok::<_, P2pError>(group.wait().await)
                };
                tokio::select! {
                    biased;
                    ended = ended => ended,
                    lost = copy_input(receiver, stdin, &group) => Err(lost),
                }
            };
            tokio::select! {
                biased;
                () = revoked.cancelled() => None,
                talk = talk => Some(talk),
            }
        };
        match outcome {
            Some(Ok(Ok(end))) => {
                // First: a caller may take its time with the last of the output.
                let collected = group.finish().await;
                conclude(sender, &Notice::Ended(end), &revoked, kept).await;
                collected?;
                Ok(TargetOutcome::Ended(end))
            }
            Some(Ok(Err(error))) => {
                conclude(sender, &failed(&error), &revoked, kept).await;
                Err(error)
            }
            Some(Err(lost)) => {
                tracing::debug!(error = %lost, "a command's caller is gone");
                drop(sender);
                hang_up(&group).await;
                Ok(TargetOutcome::CallerLost)
            }
            None => {
                let told = Notice::Failed(WireError::taken_away("the command"));
                // Told at once, killed at once: neither waits for the other, and a caller that reads nothing does not
                // keep the command alive.
                tokio::join!(last_word(sender, &told), hang_up(&group));
                Ok(TargetOutcome::Revoked)
            }
        }
    }

    async fn spawn(
        &self,
        authorized: &Authorized<Run>,
        request: &ExecRequest,
        cluster: &str,
    ) -> Result<Process, HostError> {
        let effect = authorized.effect();
        let user = self.user_for(effect.username.as_ref()).await?;
        let caller = Caller {
            id52: *authorized.caller(),
            machine: authorized.caller_name().cloned(),
            cluster: cluster.to_owned(),
            restricted: effect.restricted,
        };
        let request = SpawnRequest {
            argv: effect.argv.clone(),
            env: build_environment(&user, &caller, &request.env),
            dir: user.home.clone(),
            program: self.executable(effect)?,
            user,
        };
        if request.user.is_own() {
            return Process::spawn(&request);
        }
        // A copy of this process takes its time.
        let program = effect.argv.first().map(PathBuf::from).unwrap_or_default();
        blocking(move || Process::spawn(&request), |source| HostError::Start { program, source }).await
    }

    fn executable(&self, effect: &RunEffect) -> Result<Executable, HostError> {
        let Some(name) = effect.argv.first().filter(|word| BUILT_IN.contains(&word.as_str())) else {
            return Ok(Executable::Named);
        };
        let own = self.own_program.clone().ok_or_else(|| HostError::NoOwnProgram { name: name.clone() })?;
        Ok(Executable::Own(own))
    }
}

/// The commands that are malai itself, under another name. A rule may name them, and nothing in a search path is taken
/// for one.
const BUILT_IN: [&str; 1] = ["malai-cp"];

/// Does what may block in a thread where that hurts nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
    panicked: impl FnOnce(std::io::Error) -> HostError,
) -> Result<T, HostError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => Err(panicked(std::io::Error::other(panic))),
    }
}

fn failed(error: &HostError) -> Notice {
    Notice::Failed(WireError::of(error.code(), error, error.hint()))
}

async fn hang_up(group: &ProcessGroup) {
    if let Err(error) = group.hang_up(timeouts::HANGUP_GRACE).await {
        tracing::warn!(pid = group.pid(), %error, "a command could not be ended");
    }
}

/// Sends a last word to a caller that gets nothing else any more. If it is gone, or does not take it, there is nobody to
/// tell, which is no failure of ours.
async fn last_word(sender: StreamSender, notice: &Notice) {
    match tokio::time::timeout(timeouts::REPLY, sender.finish_with(notice)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the caller is gone before the last word"),
        Err(_) => tracing::debug!("the caller does not take the last word"),
    }
}

/// Sends the rest of the output and a last word, for as long as the caller may have it.
async fn conclude(
    sender: StreamSender,
    notice: &Notice,
    revoked: &CancellationToken,
    kept: Option<Duration>,
) {
    // A stream that outlives its connection waits until a loss of it is noticed; from then on its own time counts.
    let patience = timeouts::REPLY + kept.map_or(Duration::ZERO, |_| timeouts::IDLE);
    if let Err(error) = sender.conclude(Some(notice), patience, revoked.cancelled()).await {
        tracing::debug!(%error, "the caller is gone before the last word");
    }
}

async fn copy_output(
    mut pipe: impl AsyncRead + Unpin,
    sender: &StreamSender,
    channel: Channel,
) -> Result<(), P2pError> {
    let mut block = BytesMut::with_capacity(READ_BLOCK);
    loop {
        if block.capacity() < SEND_PIECE {
            block = BytesMut::with_capacity(READ_BLOCK);
        }
        match pipe.read_buf(&mut block).await {
            Ok(0) => return sender.end(channel).await,
            Ok(_) => {
                while !block.is_empty() {
                    let piece = block.split_to(block.len().min(SEND_PIECE)).freeze();
                    sender.send(channel, piece).await?;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a command's output pipe failed");
                return sender.end(channel).await;
            }
        }
    }
}

/// Feeds stdin and delivers signals until the caller is gone. A command that closes its stdin early does not hurt: the
/// rest is read and thrown away, as `ssh` does.
async fn copy_input(
    mut receiver: StreamReceiver,
    stdin: impl tokio::io::AsyncWrite + Unpin,
    group: &ProcessGroup,
) -> P2pError {
    let mut stdin = Some(stdin);
    let mut waiting: Option<Bytes> = None;
    let deliver = |notice: Notice| {
        if let Notice::Signal { signal } = notice
            && let Err(error) = group.signal(signal)
        {
            tracing::debug!(%error, "a signal could not be delivered");
        }
    };
    loop {
        if let (Some(bytes), Some(pipe)) = (&mut waiting, &mut stdin) {
            tokio::select! {
                written = pipe.write(bytes) => match written {
                    Ok(count) if count > 0 => {
                        drop(bytes.split_to(count));
                        if bytes.is_empty() {
                            waiting = None;
                        }
                    }
                    Ok(_) | Err(_) => {
                        stdin = None;
                        waiting = None;
                    }
                },
                message = receiver.message::<Notice>() => match message {
                    Ok(Some(notice)) => deliver(notice),
                    Ok(None) => return lost(),
                    Err(error) => return error,
                },
            }
            continue;
        }
        match receiver.next().await {
            Ok(Some(Incoming::Data(Channel::Main, bytes))) => {
                waiting = (stdin.is_some() && !bytes.is_empty()).then_some(bytes);
            }
            Ok(Some(Incoming::End(Channel::Main))) => stdin = None,
            Ok(Some(Incoming::Data(..) | Incoming::End(_))) => {}
            Ok(Some(Incoming::Message(text))) => {
                if let Ok(notice) = serde_json::from_slice(&text) {
                    deliver(notice);
                }
            }
            Ok(None) => return lost(),
            Err(error) => return error,
        }
    }
}

fn lost() -> P2pError {
    P2pError::Lost { reason: "the caller hung up".to_owned() }
}
