//! The daemon's end of a connection to a session's process.

use std::io;
use std::path::Path;

use bytes::{Buf, Bytes, BytesMut};
use malai_model::wire::{
    AttachSession, Attached, CommandEnd, DetachReason, SessionId, SessionInfo, WindowSize, WireError,
};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::error::SessionError;
use super::protocol::{
    EndReason, Frame, FrameReader, FromHost, Hello, INPUT_WINDOW, MAX_FRAME, ToHost, data_head, encode,
};
use super::socket::{connect, hung_up, no_hello, nobody_listens};
use crate::timeouts;
use crate::two_way::{ReadHalf, UnixSocket, WriteHalf};

/// A client's place at a session: the daemon's end of it. Dropping it is as if the client had gone: the session goes on.
#[derive(Debug)]
pub struct HostConnection {
    attached: Attached,
    reader: HostReader,
    writer: HostWriter,
}

/// What a session says to an attached client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// Bytes for the client's terminal.
    Data(Bytes),
    /// What follows draws the screen anew: the client, who looks on, was too slow.
    Attached(Attached),
    /// The client is no longer attached; the session goes on.
    Detached(DetachReason),
    /// The program ended; nothing follows.
    Ended(CommandEnd),
    /// Malai ended it; nothing follows.
    Failed(WireError),
}

/// The receiving half.
#[derive(Debug)]
pub struct HostReader {
    session: SessionId,
    frames: FrameReader<ReadHalf>,
    taken: watch::Sender<u64>,
}

/// The sending half.
#[derive(Debug)]
pub struct HostWriter {
    socket: WriteHalf,
    /// Whole frames that are not written yet: writing can be given up and taken up again.
    unsent: BytesMut,
    typed: u64,
    taken: watch::Receiver<u64>,
}

impl HostConnection {
    /// How the client is attached.
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// Has the client told how many other sessions of its owner nobody is attached to.
    pub fn tell_detached(&mut self, count: u32) {
        self.attached.detached = count;
    }

    /// Takes it apart, so that both ways can be used at once.
    pub fn split(self) -> (HostReader, HostWriter) {
        (self.reader, self.writer)
    }

    /// Connects and attaches.
    pub(super) async fn attach(
        session: &SessionId,
        dir: &Path,
        request: &AttachSession,
    ) -> Result<Self, SessionError> {
        within(session, timeouts::REPLY, async {
            let (mut reader, mut writer) = open(session, dir).await?;
            writer.say(&ToHost::Attach(request.clone())).await?;
            loop {
                match reader.frames.message().await? {
                    FromHost::Attached(attached) => return Ok(Ok(Self { attached, reader, writer })),
                    FromHost::Failed(error) => return Ok(Err(SessionError::Refused(error))),
                    _ => {}
                }
            }
        })
        .await?
    }
}

/// Asks a session how it is.
pub(super) async fn ask_info(session: &SessionId, dir: &Path) -> Result<SessionInfo, SessionError> {
    within(session, timeouts::HANDSHAKE / 4, async {
        let (mut reader, mut writer) = open(session, dir).await?;
        writer.say(&ToHost::Info {}).await?;
        loop {
            if let FromHost::Info(info) = reader.frames.message().await? {
                return Ok(info);
            }
        }
    })
    .await
}

/// Has a session end, and waits until it has.
pub(super) async fn ask_end(
    session: &SessionId,
    dir: &Path,
    reason: EndReason,
) -> Result<CommandEnd, SessionError> {
    within(session, timeouts::HANGUP_GRACE + timeouts::REPLY, async {
        let (mut reader, mut writer) = open(session, dir).await?;
        writer.say(&ToHost::End { reason }).await?;
        loop {
            if let FromHost::Ended(end) = reader.frames.message().await? {
                return Ok(end);
            }
        }
    })
    .await
}

async fn open(session: &SessionId, dir: &Path) -> io::Result<(HostReader, HostWriter)> {
    let stream = connect(dir).await?;
    let (mut reader, mut writer) = halves(session, stream)?;
    writer.say(&ToHost::Hello(Hello::own())).await?;
    match reader.frames.message().await? {
        FromHost::Hello(_) => Ok((reader, writer)),
        _ => Err(no_hello()),
    }
}

fn halves(session: &SessionId, stream: UnixStream) -> io::Result<(HostReader, HostWriter)> {
    let (read, write) = UnixSocket::from_tokio(stream)?.halves();
    let (taken, taken_seen) = watch::channel(0);
    let reader = HostReader { session: session.clone(), frames: FrameReader::new(read), taken };
    Ok((reader, HostWriter { socket: write, unsent: BytesMut::new(), typed: 0, taken: taken_seen }))
}

async fn within<T>(
    session: &SessionId,
    deadline: std::time::Duration,
    talk: impl Future<Output = io::Result<T>>,
) -> Result<T, SessionError> {
    match tokio::time::timeout(deadline, talk).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(told(session, error)),
        Err(_) => Err(SessionError::Unanswered {
            session: session.clone(),
            source: io::Error::new(io::ErrorKind::TimedOut, "it took too long"),
        }),
    }
}

fn told(session: &SessionId, error: io::Error) -> SessionError {
    let session = session.clone();
    if nobody_listens(&error) || hung_up(&error) {
        return SessionError::Gone { session };
    }
    match error.kind() {
        io::ErrorKind::InvalidData => SessionError::Malformed { session, problem: error.to_string() },
        _ => SessionError::Unanswered { session, source: error },
    }
}

impl HostReader {
    /// Takes what comes next.
    ///
    /// # Errors
    /// [`SessionError::Gone`] when the session's process ended without a word, [`SessionError::Malformed`].
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<HostEvent, SessionError> {
        loop {
            let frame = self.frames.next().await.map_err(|error| told(&self.session, error))?;
            let message = match frame {
                None => return Err(SessionError::Gone { session: self.session.clone() }),
                Some(Frame::Data(bytes)) => return Ok(HostEvent::Data(bytes)),
                Some(Frame::Message(message)) => message,
            };
            return Ok(match message {
                FromHost::Attached(attached) => HostEvent::Attached(attached),
                FromHost::Detached { reason } => HostEvent::Detached(reason),
                FromHost::Ended(end) => HostEvent::Ended(end),
                FromHost::Failed(error) => HostEvent::Failed(error),
                FromHost::Taken { input } => {
                    self.taken.send_replace(input);
                    continue;
                }
                FromHost::Hello(_) | FromHost::Info(_) | FromHost::Other => continue,
            });
        }
    }
}

impl HostWriter {
    /// Types bytes. Waits while the program does not read what was typed before; [`HostReader::next`] has to be called
    /// meanwhile, since that is where it says so.
    ///
    /// # Errors
    /// When the session's process has gone.
    ///
    /// # Cancel safety
    /// What is left in `bytes` was not typed.
    pub async fn write(&mut self, bytes: &mut Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            self.flush().await?;
            let room = loop {
                let ahead = self.typed.saturating_sub(*self.taken.borrow_and_update());
                match INPUT_WINDOW.saturating_sub(ahead) {
                    0 => self.taken.changed().await.map_err(|_| io::ErrorKind::BrokenPipe)?,
                    room => break usize::try_from(room).unwrap_or(MAX_FRAME).min(MAX_FRAME),
                }
            };
            let piece = bytes.split_to(bytes.len().min(room));
            self.typed += piece.len() as u64;
            self.unsent.extend_from_slice(&data_head(piece.len()));
            self.unsent.extend_from_slice(&piece);
        }
        self.flush().await
    }

    /// Tells the size of the client's terminal.
    ///
    /// # Errors
    /// When the session's process has gone.
    ///
    /// # Cancel safety
    /// It is told with what is written next.
    pub async fn resize(&mut self, window: WindowSize) -> io::Result<()> {
        self.say(&ToHost::Resize { window }).await
    }

    /// Says that the client that opened the session knows of it: it comes back if it is lost.
    ///
    /// # Errors
    /// When the session's process has gone.
    ///
    /// # Cancel safety
    /// It is told with what is written next.
    pub async fn confirm(&mut self) -> io::Result<()> {
        self.say(&ToHost::Confirm {}).await
    }

    /// Leaves; the session answers [`HostEvent::Detached`] behind the last bytes.
    ///
    /// # Errors
    /// When the session's process has gone.
    pub async fn detach(&mut self) -> io::Result<()> {
        self.say(&ToHost::Detach {}).await
    }

    /// Says that the client knows how the program ended: the session need not keep it for the next one.
    ///
    /// # Errors
    /// When the session's process has gone.
    pub async fn seen(&mut self) -> io::Result<()> {
        self.say(&ToHost::Seen {}).await
    }

    /// Has the session end; it answers [`HostEvent::Ended`] when all is over.
    ///
    /// # Errors
    /// When the session's process has gone.
    pub async fn end(&mut self, reason: EndReason) -> io::Result<()> {
        self.say(&ToHost::End { reason }).await
    }

    async fn say(&mut self, message: &ToHost) -> io::Result<()> {
        self.unsent.extend_from_slice(&encode(message)?);
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        while self.unsent.has_remaining() {
            if self.socket.write_buf(&mut self.unsent).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}
