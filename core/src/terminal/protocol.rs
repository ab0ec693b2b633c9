//! What a daemon and a session's process say to each other.
//!
//! After an upgrade a newer daemon talks to older processes, so this only grows: both sides begin with a hello, messages
//! of unknown types and unknown fields are passed over, and nothing changes its meaning.
//!
//! A frame is a byte for its kind, three bytes for its length (big-endian), and so many bytes: a message's JSON, or bytes
//! of the terminal. The daemon asks one thing on a connection. When it attaches, bytes go both ways: towards the daemon as
//! it takes them, towards the session within a window ([`INPUT_WINDOW`]), so that what the program does not read yet never
//! stands in the way of a message.

use std::io;

use bytes::Bytes;
use malai_model::wire::{
    AttachSession, Attached, CommandEnd, DetachReason, SessionInfo, WindowSize, WireError,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};

/// The version of this protocol.
pub(super) const PROTOCOL: u32 = 1;
/// The longest frame, in bytes.
pub(super) const MAX_FRAME: usize = 64 * 1024;
/// How many typed bytes may be on their way that the program has not read, in bytes.
pub(super) const INPUT_WINDOW: u64 = 64 * 1024;

const MESSAGE: u8 = 0;
const DATA: u8 = 1;
const HEAD: usize = 4;
/// How much is read at once where less is wanted: a head, and often all that is behind it.
const AHEAD: usize = 4 * 1024;

/// Why a session is ended by malai.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// Its owner asked for it.
    Asked,
    /// The right to it was taken away.
    Revoked,
    /// A reason of a newer daemon.
    #[serde(other)]
    Other,
}

/// The first word of each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The highest version of the protocol that the sender speaks.
    pub(super) protocol: u32,
    /// Its version of malai, for people.
    #[serde(default)]
    pub(super) version: String,
}

impl Hello {
    pub(super) fn own() -> Self {
        Self { protocol: PROTOCOL, version: crate::VERSION.to_owned() }
    }
}

/// From the daemon to the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum ToHost {
    /// The first word.
    Hello(Hello),
    /// How is it? Answered by [`FromHost::Info`].
    Info {},
    /// A client comes. Answered by [`FromHost::Attached`].
    Attach(AttachSession),
    /// The client's terminal has another size.
    Resize {
        /// Which.
        window: WindowSize,
    },
    /// The client that opened the session knows that it is attached.
    Confirm {},
    /// The client leaves. Answered by [`FromHost::Detached`].
    Detach {},
    /// The client knows how the program ended: nobody else has to be told.
    Seen {},
    /// End. Answered by [`FromHost::Ended`] when all is over.
    End {
        /// Why.
        reason: EndReason,
    },
    /// Something that a newer daemon says.
    #[serde(other)]
    Other,
}

/// From the session to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum FromHost {
    /// The first word.
    Hello(Hello),
    /// How it is.
    Info(SessionInfo),
    /// The client is attached; bytes follow. It comes again when a client that looks on was too slow: what follows
    /// then draws the screen anew.
    Attached(Attached),
    /// So many of the bytes that came on this connection were typed.
    Taken {
        /// Their number.
        input: u64,
    },
    /// The client is no longer attached.
    Detached {
        /// Why.
        reason: DetachReason,
    },
    /// The program ended; nothing follows.
    Ended(CommandEnd),
    /// It was refused, or malai ended it; nothing follows.
    Failed(WireError),
    /// Something that a newer session says.
    #[serde(other)]
    Other,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame<M> {
    /// A message.
    Message(M),
    /// Bytes of the terminal.
    Data(Bytes),
}

/// The head of a frame of bytes.
pub(super) fn data_head(length: usize) -> [u8; HEAD] {
    head(DATA, length)
}

fn head(kind: u8, length: usize) -> [u8; HEAD] {
    debug_assert!(length <= MAX_FRAME);
    let [_, a, b, c] = u32::try_from(length).unwrap_or(0).to_be_bytes();
    [kind, a, b, c]
}

/// A message as a frame.
///
/// # Errors
/// If its JSON is too long.
pub(super) fn encode<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(message)?;
    if json.len() > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
    }
    let mut frame = Vec::with_capacity(HEAD + json.len());
    frame.extend_from_slice(&head(MESSAGE, json.len()));
    frame.extend_from_slice(&json);
    Ok(frame)
}

/// Reads frames off a socket. Keeps what it has when a call is dropped, so that waiting for a frame can be given up.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    from: BufReader<R>,
    head: [u8; HEAD],
    have: usize,
    body: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from: BufReader::with_capacity(AHEAD, from), head: [0; HEAD], have: 0, body: Vec::new() }
    }

    /// Takes the next frame; `None` when the other side has gone.
    ///
    /// # Errors
    /// `InvalidData` for what is no frame; what the socket says.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn next<M: DeserializeOwned>(&mut self) -> io::Result<Option<Frame<M>>> {
        while self.have < HEAD {
            match self.from.read(&mut self.head[self.have..]).await? {
                0 if self.have == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.have += count,
            }
        }
        let [kind, a, b, c] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind > DATA || length > MAX_FRAME {
            return Err(invalid("that is no frame"));
        }
        while self.body.len() < length {
            // As it comes, not as it is announced: a peer does not make memory go by a promise.
            let missing = (length - self.body.len()).min(8 * 1024);
            self.body.reserve_exact(missing);
            let mut rest = (&mut self.from).take(missing as u64);
            if rest.read_buf(&mut self.body).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.have = 0;
        let body = std::mem::take(&mut self.body);
        if kind == DATA {
            return Ok(Some(Frame::Data(body.into())));
        }
        serde_json::from_slice(&body).map(|message| Some(Frame::Message(message))).map_err(io::Error::from)
    }

    /// Takes the next message, passing over everything else.
    pub(super) async fn message<M: DeserializeOwned>(&mut self) -> io::Result<M> {
        loop {
            match self.next().await? {
                Some(Frame::Message(message)) => return Ok(message),
                Some(Frame::Data(_)) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

pub(super) fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use malai_model::wire::{AttachMode, ResumeToken};

    use super::*;

    #[test]
    fn the_messages_are_stable() {
        let attach = AttachSession {
            session: None,
            mode: AttachMode::Control,
            client: ResumeToken::from_random([7; 16]),
            window: WindowSize::default(),
            received: Some(5),
        };
        let to_host = [
            ToHost::Hello(Hello { protocol: 1, version: "0.1.0".to_owned() }),
            ToHost::Info {},
            ToHost::Attach(attach),
            ToHost::Resize { window: WindowSize::default() },
            ToHost::Confirm {},
            ToHost::Detach {},
            ToHost::Seen {},
            ToHost::End { reason: EndReason::Revoked },
        ];
        let attached = Attached {
            session: "k3fq7aab".parse().expect("an id"),
            input: 1,
            output: 2,
            redraw: 3,
            detached: 0,
        };
        let from_host = [
            FromHost::Hello(Hello { protocol: 1, version: "0.1.0".to_owned() }),
            FromHost::Attached(attached),
            FromHost::Taken { input: 9 },
            FromHost::Detached { reason: DetachReason::TakenOver },
            FromHost::Ended(CommandEnd::Exited { status: 3 }),
        ];
        let text = |json: Result<String, serde_json::Error>| json.expect("is a text");
        let lines: Vec<String> = to_host
            .iter()
            .map(|message| text(serde_json::to_string(message)))
            .chain(from_host.iter().map(|message| text(serde_json::to_string(message))))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[tokio::test]
    async fn frames_are_read_however_they_are_cut_and_a_wait_may_be_given_up() {
        let (mut ours, theirs) = tokio::io::duplex(7);
        let mut bytes = encode(&ToHost::Detach {}).expect("is a frame");
        bytes.extend_from_slice(&data_head(5));
        bytes.extend_from_slice(b"hello");
        bytes.extend_from_slice(&data_head(0));
        let writing = async move {
            for byte in bytes {
                tokio::io::AsyncWriteExt::write_all(&mut ours, &[byte]).await.expect("is written");
                tokio::task::yield_now().await;
            }
        };
        let reading = async move {
            let mut frames = FrameReader::new(theirs);
            let mut got = Vec::new();
            loop {
                // Given up again and again.
                let next = tokio::select! {
                    biased;
                    next = frames.next::<ToHost>() => next.expect("reads"),
                    () = tokio::task::yield_now() => continue,
                };
                match next {
                    Some(frame) => got.push(frame),
                    None => return got,
                }
            }
        };
        let ((), got) = tokio::join!(writing, reading);
        let data = |bytes: &'static [u8]| Frame::Data(Bytes::from_static(bytes));
        assert_eq!(got, [Frame::Message(ToHost::Detach {}), data(b"hello"), data(b"")]);
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        for bad in [&[2, 0, 0, 0][..], &[0, 0xff, 0, 0], &[1, 1, 0, 1], &[0, 0, 0, 2, b'{', b'x']] {
            let error = FrameReader::new(bad).next::<ToHost>().await.expect_err("is refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad:?}");
        }
        for short in [&[0, 0][..], &[1, 0, 0, 9, 1]] {
            let error = FrameReader::new(short).next::<ToHost>().await.expect_err("is cut");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{short:?}");
        }
    }
}
