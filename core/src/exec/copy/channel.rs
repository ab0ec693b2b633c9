//! Frames over a reader and a writer.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};

use malai_model::code::ErrorCode;
use malai_model::wire::copy::{
    CopyRole, DATA_HEAD, DIGEST, Frame, HEADER, VERSION, decode_head, decode_payload, encode,
    encode_data_head,
};

use super::CopyError;

/// How much is read from, and gathered for, the other end at once.
const BUFFER: usize = 128 * 1024;

/// Reads frames.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    inner: BufReader<R>,
    payload: Vec<u8>,
}

/// Writes frames; they leave when enough are gathered, or at [`FrameWriter::flush`].
#[derive(Debug)]
pub(super) struct FrameWriter<W: Write> {
    inner: BufWriter<W>,
    scratch: Vec<u8>,
}

impl<R: Read> FrameReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner: BufReader::with_capacity(BUFFER, inner), payload: Vec::new() }
    }

    /// Says whether the next frame may have to be waited for.
    pub(super) fn is_empty(&self) -> bool {
        self.inner.buffer().len() < HEADER
    }

    /// Reads a frame. Nothing of it outlives the next call.
    pub(super) fn next(&mut self) -> Result<Frame<'_>, CopyError> {
        loop {
            let mut head = [0; HEADER];
            self.inner.read_exact(&mut head).map_err(CopyError::Broken)?;
            let (kind, length) = decode_head(head).map_err(CopyError::Malformed)?;
            self.payload.resize(length, 0);
            self.inner.read_exact(&mut self.payload).map_err(CopyError::Broken)?;
            // Decoded twice when it is ignored, for the borrow to be short.
            if decode_payload(kind, &self.payload).map_err(CopyError::Malformed)? != Frame::Ignored {
                return decode_payload(kind, &self.payload).map_err(CopyError::Malformed);
            }
        }
    }

    /// Reads the first frame, which says who the other end is.
    pub(super) fn greet(&mut self, expected: CopyRole) -> Result<(), CopyError> {
        // Something else than a copy may be talking: it is not to be waited for to make up a whole frame.
        let first = self.inner.fill_buf().map_err(CopyError::Broken)?.first().copied();
        if first.is_some_and(|kind| !matches!(kind, 0x01 | 0x03)) {
            return Err(CopyError::OutOfTurn("it does not begin as a copy does"));
        }
        match self.next()? {
            Frame::Hello { version, role } if version >= VERSION => {
                if role == expected {
                    Ok(())
                } else {
                    Err(CopyError::OutOfTurn("both ends want the same part"))
                }
            }
            Frame::Hello { version, .. } => Err(CopyError::Version { theirs: version }),
            Frame::Fatal { code, message } => Err(peer(code, message)),
            _ => Err(CopyError::OutOfTurn("it did not say first who it is")),
        }
    }
}

/// Turns the last words of the other end into a failure.
pub(super) fn peer(code: &str, message: &str) -> CopyError {
    let code = code.parse().unwrap_or(ErrorCode::Unknown);
    CopyError::Peer { code, message: message.to_owned() }
}

impl<W: Write> FrameWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner: BufWriter::with_capacity(BUFFER, inner), scratch: Vec::new() }
    }

    pub(super) fn send(&mut self, frame: &Frame<'_>) -> Result<(), CopyError> {
        self.scratch.clear();
        encode(frame, &mut self.scratch);
        self.inner.write_all(&self.scratch).map_err(CopyError::Broken)
    }

    /// Sends the bytes of a file that lie in a block behind room for the head.
    pub(super) fn send_data(&mut self, block: &mut [u8], length: usize) -> Result<(), CopyError> {
        let digest: [u8; DIGEST] = *blake3::hash(&block[DATA_HEAD..DATA_HEAD + length]).as_bytes();
        encode_data_head(&mut block[..DATA_HEAD], &digest, length);
        self.inner.write_all(&block[..DATA_HEAD + length]).map_err(CopyError::Broken)
    }

    pub(super) fn flush(&mut self) -> Result<(), CopyError> {
        self.inner.flush().map_err(CopyError::Broken)
    }

    pub(super) fn greet(&mut self, role: CopyRole) -> Result<(), CopyError> {
        self.send(&Frame::Hello { version: VERSION, role })?;
        self.flush()
    }
}
