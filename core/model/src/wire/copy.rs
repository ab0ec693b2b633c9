//! What the two ends of a copy say to each other: frames over two pipes, one each way.
//!
//! One end is the *source*, the other the *sink*; which of them is the machine that was asked does not matter, so that
//! a client can tie two machines together by passing bytes on. A frame is a kind (1 byte), a length (3 bytes, big
//! endian) and so many bytes. This module is the codec over byte slices; `malai-core::exec::copy` has the two ends.
//!
//! The source walks its tree and sends [`Frame::Dir`], [`Frame::File`], [`Frame::Link`] and [`Frame::Leave`] ahead, at
//! most [`MAX_UNANSWERED`] files further than the sink has answered. The sink answers each file, in order, with
//! [`Frame::Want`] or [`Frame::Have`]. The source sends those wanted, in the order of the answers: [`Frame::Begin`],
//! [`Frame::Data`], [`Frame::End`]. So nothing waits for a round trip, however many files there are.
//!
//! Names are single components, as bytes. Only the root of each end is a path, and that stands in the command line
//! where rules see it: nothing in here can name anything outside it.

pub mod lanes;

use bytes::BufMut;

/// The version of this protocol. Within it, kinds from `0x80` on may be added and are ignored by those who do not
/// know them, and fields may be added at the end of a frame.
pub const VERSION: u16 = 1;
/// The most bytes of a file in one frame.
pub const MAX_BLOCK: usize = 256 * 1024;
/// The largest payload of a frame that carries no bytes of a file.
pub const MAX_SMALL: usize = 16 * 1024;
/// How many bytes stand before the bytes of a file in their frame: kind, length, digest.
pub const DATA_HEAD: usize = HEADER + DIGEST;
/// The length of a frame's head.
pub const HEADER: usize = 4;
/// The length of a BLAKE3 digest.
pub const DIGEST: usize = 32;
/// The most digests in one [`Frame::Basis`].
pub const MAX_DIGESTS: usize = 128;
/// What a digest of a [`Frame::Basis`] covers, in bytes.
pub const CHUNK: u64 = 1024 * 1024;
/// The longest name of a file.
pub const MAX_NAME: usize = 255;
/// The longest target of a symbolic link, and the longest path in a [`Frame::Problem`].
pub const MAX_PATH: usize = 4096;
/// The longest text of a [`Frame::Problem`] or [`Frame::Fatal`].
pub const MAX_TEXT: usize = 2048;
/// How many files a source may be ahead of what it has sent in full.
pub const MAX_UNANSWERED: usize = 2048;
/// How many directories the files that a source is ahead by may be in.
pub const MAX_OPEN_DIRS: usize = 64;
/// How deep directories may be nested.
pub const MAX_DEPTH: usize = 256;
/// The largest size of a file that is believed.
pub const MAX_SIZE: u64 = 1 << 62;

const MAGIC: &[u8; 8] = b"malai-cp";

/// Which end of a copy somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyRole {
    /// It reads.
    Source,
    /// It writes.
    Sink,
}

/// When a file was last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtime {
    /// Seconds since 1970; negative before.
    pub secs: i64,
    /// Nanoseconds, below a thousand million.
    pub nanos: u32,
}

/// What a file is besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMeta {
    /// Its length in bytes.
    pub size: u64,
    /// When its bytes were last changed.
    pub mtime: Mtime,
    /// Its permission bits, at most `0o777`.
    pub mode: u16,
}

/// What a sink has already of a file that it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Nothing that is worth comparing.
    None,
    /// So many bytes of an unfinished copy: the source goes on after the last chunk that is the same.
    Part(u64),
    /// A whole file of the same size: the source says [`Frame::Same`] if all of it is the same.
    Whole(u64),
}

/// How the bytes of a file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileEnd {
    /// They are all here.
    Whole,
    /// The file changed while it was read.
    Changed,
    /// It could not be read, which the source has said why.
    Failed,
}

/// What a sink did in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SinkTotals {
    /// Files and links that were written.
    pub files: u64,
    /// Files and links that were there already.
    pub skipped: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Bytes that did not have to come, since an unfinished copy had them.
    pub resumed: u64,
    /// What was deleted since the source does not have it.
    pub deleted: u64,
    /// What it could not do.
    pub problems: u64,
}

/// One frame. Texts and bytes point into what was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The first frame of each end.
    Hello {
        /// The newest version that the end speaks.
        version: u16,
        /// Which end it is.
        role: CopyRole,
    },
    /// Something could not be done; the rest goes on.
    Problem {
        /// A stable code.
        code: &'a str,
        /// What it is about, as the end calls it: for showing only.
        path: &'a [u8],
        /// What is wrong with it.
        message: &'a str,
    },
    /// The end gives up; nothing follows.
    Fatal {
        /// A stable code.
        code: &'a str,
        /// Reads after "failed to".
        message: &'a str,
    },
    /// A file. Source.
    File {
        /// Its name in the directory that was entered last.
        name: &'a [u8],
        /// What it is now.
        meta: FileMeta,
    },
    /// A directory, which is entered: what follows is in it. The name is empty if it is the root itself. Source.
    Dir {
        /// Its name.
        name: &'a [u8],
        /// Its permission bits, at most `0o1777`.
        mode: u16,
        /// When its list was last changed.
        mtime: Mtime,
    },
    /// The directory that was entered last is over. Source.
    Leave {
        /// Whether everything up to here could be listed: else nothing may be deleted for not being in it.
        complete: bool,
    },
    /// A symbolic link. Source.
    Link {
        /// Its name.
        name: &'a [u8],
        /// What it says. Never followed.
        target: &'a [u8],
        /// When it was made.
        mtime: Mtime,
    },
    /// Something of that name is here and is not copied. Source.
    Passed {
        /// Its name.
        name: &'a [u8],
    },
    /// The next file that was wanted follows, from this byte. Source.
    Begin {
        /// Its number: files are counted from 0 in the order that they were named in.
        id: u64,
        /// Where its bytes begin; what is before is the same in the sink's unfinished copy.
        offset: u64,
        /// What it is now, which may be newer than what was said first.
        meta: FileMeta,
    },
    /// Bytes of the file that was begun. Source.
    Data {
        /// Their BLAKE3 digest.
        digest: &'a [u8; DIGEST],
        /// At most [`MAX_BLOCK`].
        bytes: &'a [u8],
    },
    /// The file that was begun is over. Source.
    End {
        /// How.
        end: FileEnd,
    },
    /// The next file that was wanted is what the sink has. Source.
    Same {
        /// Its number.
        id: u64,
    },
    /// Everything was named and sent. Source.
    Done {
        /// How many problems the source had.
        problems: u64,
    },
    /// The file's bytes are wanted. Its [`Frame::Basis`] was sent before. Sink.
    Want {
        /// Its number.
        id: u64,
        /// What the sink has of it.
        basis: Basis,
    },
    /// The file's bytes are not wanted. Sink.
    Have {
        /// Its number.
        id: u64,
    },
    /// Digests of what the sink has, chunk after chunk from the beginning. Sink.
    Basis {
        /// The file's number.
        id: u64,
        /// BLAKE3 digests, 32 bytes each.
        digests: &'a [u8],
    },
    /// Everything is written. Sink.
    Finished(SinkTotals),
    /// Of a later version, to be ignored.
    Ignored,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopyFrameProblem {
    /// The kind is none of this version, and may not be ignored.
    #[error("a copy frame of the unknown kind {0:#04x}")]
    Kind(u8),
    /// The length cannot be right for the kind.
    #[error("a copy frame of kind {kind:#04x} with {length} bytes")]
    Length {
        /// The kind.
        kind: u8,
        /// The length.
        length: usize,
    },
    /// A field has no value that it may have.
    #[error("a copy frame of kind {kind:#04x} whose {field} cannot be")]
    Field {
        /// The kind.
        kind: u8,
        /// Which field.
        field: &'static str,
    },
}

const HELLO: u8 = 0x01;
const PROBLEM: u8 = 0x02;
const FATAL: u8 = 0x03;
const FILE: u8 = 0x10;
const DIR: u8 = 0x11;
const LEAVE: u8 = 0x12;
const LINK: u8 = 0x13;
const PASSED: u8 = 0x14;
const BEGIN: u8 = 0x15;
const DATA: u8 = 0x16;
const END: u8 = 0x17;
const SAME: u8 = 0x18;
const DONE: u8 = 0x19;
const WANT: u8 = 0x20;
const HAVE: u8 = 0x21;
const BASIS: u8 = 0x22;
const FINISHED: u8 = 0x23;
const IGNORABLE: u8 = 0x80;

/// Says whether a name may be one component of a path below a root: not empty, no way up, no path, no NUL.
pub fn is_component(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// Reads a frame's head: its kind and the length of its payload, which is bounded by the kind.
///
/// # Errors
/// When there is no such kind, or it cannot be so long.
pub fn decode_head(head: [u8; HEADER]) -> Result<(u8, usize), CopyFrameProblem> {
    let [kind, a, b, c] = head;
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    let limit = match kind {
        DATA => DIGEST + MAX_BLOCK,
        HELLO..=FATAL | FILE..=DONE | WANT..=FINISHED | IGNORABLE.. => MAX_SMALL,
        _ => return Err(CopyFrameProblem::Kind(kind)),
    };
    if length > limit {
        return Err(CopyFrameProblem::Length { kind, length });
    }
    Ok((kind, length))
}

/// Says whether a frame of this kind carries bytes of a file.
pub fn is_data(kind: u8) -> bool {
    kind == DATA
}

/// Reads a payload whose head was read.
///
/// # Errors
/// When it is malformed. Bytes after the known fields are a later version's and ignored, but in frames that end in
/// bytes of any number.
pub fn decode_payload(kind: u8, payload: &[u8]) -> Result<Frame<'_>, CopyFrameProblem> {
    let mut fields = Fields { kind, whole: payload.len(), rest: payload };
    let frame = match kind {
        HELLO => {
            if fields.take(MAGIC.len())? != MAGIC {
                return Err(fields.bad("magic"));
            }
            let version = fields.u16()?;
            let role = match fields.u8()? {
                0 => CopyRole::Source,
                1 => CopyRole::Sink,
                _ => return Err(fields.bad("role")),
            };
            Frame::Hello { version, role }
        }
        PROBLEM => Frame::Problem {
            code: fields.text(64)?,
            path: fields.bytes(MAX_PATH)?,
            message: fields.text(MAX_TEXT)?,
        },
        FATAL => Frame::Fatal { code: fields.text(64)?, message: fields.text(MAX_TEXT)? },
        FILE => Frame::File { meta: fields.meta()?, name: fields.name()? },
        DIR => {
            let mode = fields.mode(0o1777)?;
            let mtime = fields.mtime()?;
            let name = fields.bytes(MAX_NAME)?;
            if !name.is_empty() && !is_component(name) {
                return Err(fields.bad("name"));
            }
            Frame::Dir { name, mode, mtime }
        }
        LEAVE => Frame::Leave { complete: fields.flag()? },
        LINK => {
            let mtime = fields.mtime()?;
            let name = fields.name()?;
            let target = fields.bytes(MAX_PATH)?;
            if target.is_empty() || target.contains(&0) {
                return Err(fields.bad("target"));
            }
            Frame::Link { name, target, mtime }
        }
        PASSED => Frame::Passed { name: fields.name()? },
        BEGIN => {
            let (id, offset, meta) = (fields.u64()?, fields.u64()?, fields.meta()?);
            if offset > meta.size {
                return Err(fields.bad("offset"));
            }
            Frame::Begin { id, offset, meta }
        }
        DATA => {
            let digest = fields.digest()?;
            if fields.rest.is_empty() {
                return Err(CopyFrameProblem::Length { kind, length: payload.len() });
            }
            Frame::Data { digest, bytes: fields.rest }
        }
        END => Frame::End {
            end: match fields.u8()? {
                0 => FileEnd::Whole,
                1 => FileEnd::Changed,
                2 => FileEnd::Failed,
                _ => return Err(fields.bad("end")),
            },
        },
        SAME => Frame::Same { id: fields.u64()? },
        DONE => Frame::Done { problems: fields.u64()? },
        WANT => {
            let (id, basis, length) = (fields.u64()?, fields.u8()?, fields.u64()?);
            if length > MAX_SIZE {
                return Err(fields.bad("length"));
            }
            let basis = match basis {
                0 => Basis::None,
                1 => Basis::Part(length),
                2 => Basis::Whole(length),
                _ => return Err(fields.bad("basis")),
            };
            Frame::Want { id, basis }
        }
        HAVE => Frame::Have { id: fields.u64()? },
        BASIS => {
            let id = fields.u64()?;
            let digests = fields.rest;
            if digests.is_empty()
                || !digests.len().is_multiple_of(DIGEST)
                || digests.len() > MAX_DIGESTS * DIGEST
            {
                return Err(CopyFrameProblem::Length { kind, length: payload.len() });
            }
            Frame::Basis { id, digests }
        }
        FINISHED => Frame::Finished(SinkTotals {
            files: fields.u64()?,
            skipped: fields.u64()?,
            bytes: fields.u64()?,
            resumed: fields.u64()?,
            deleted: fields.u64()?,
            problems: fields.u64()?,
        }),
        IGNORABLE.. => Frame::Ignored,
        _ => return Err(CopyFrameProblem::Kind(kind)),
    };
    Ok(frame)
}

/// Writes a frame. What is longer than it may be is cut where it is for showing only ([`Frame::Problem`],
/// [`Frame::Fatal`]); anything else that is too long would not be read by the other end.
pub fn encode(frame: &Frame<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.put_u32(0);
    let kind = match frame {
        Frame::Hello { version, role } => {
            out.put_slice(MAGIC);
            out.put_u16(*version);
            out.put_u8(u8::from(*role == CopyRole::Sink));
            HELLO
        }
        Frame::Problem { code, path, message } => {
            put_bytes(out, code.as_bytes());
            put_bytes(out, path.get(..MAX_PATH).unwrap_or(path));
            put_bytes(out, shorten(message).as_bytes());
            PROBLEM
        }
        Frame::Fatal { code, message } => {
            put_bytes(out, code.as_bytes());
            put_bytes(out, shorten(message).as_bytes());
            FATAL
        }
        Frame::File { name, meta } => {
            put_meta(out, meta);
            put_bytes(out, name);
            FILE
        }
        Frame::Dir { name, mode, mtime } => {
            out.put_u16(*mode);
            put_mtime(out, *mtime);
            put_bytes(out, name);
            DIR
        }
        Frame::Leave { complete } => {
            out.put_u8(u8::from(*complete));
            LEAVE
        }
        Frame::Link { name, target, mtime } => {
            put_mtime(out, *mtime);
            put_bytes(out, name);
            put_bytes(out, target);
            LINK
        }
        Frame::Passed { name } => {
            put_bytes(out, name);
            PASSED
        }
        Frame::Begin { id, offset, meta } => {
            out.put_u64(*id);
            out.put_u64(*offset);
            put_meta(out, meta);
            BEGIN
        }
        Frame::Data { digest, bytes } => {
            out.put_slice(*digest);
            out.put_slice(bytes);
            DATA
        }
        Frame::End { end } => {
            out.put_u8(match end {
                FileEnd::Whole => 0,
                FileEnd::Changed => 1,
                FileEnd::Failed => 2,
            });
            END
        }
        Frame::Same { id } => {
            out.put_u64(*id);
            SAME
        }
        Frame::Done { problems } => {
            out.put_u64(*problems);
            DONE
        }
        Frame::Want { id, basis } => {
            out.put_u64(*id);
            let (kind, length) = match basis {
                Basis::None => (0, 0),
                Basis::Part(length) => (1, *length),
                Basis::Whole(length) => (2, *length),
            };
            out.put_u8(kind);
            out.put_u64(length);
            WANT
        }
        Frame::Have { id } => {
            out.put_u64(*id);
            HAVE
        }
        Frame::Basis { id, digests } => {
            out.put_u64(*id);
            out.put_slice(digests);
            BASIS
        }
        Frame::Finished(totals) => {
            for number in
                [totals.files, totals.skipped, totals.bytes, totals.resumed, totals.deleted, totals.problems]
            {
                out.put_u64(number);
            }
            FINISHED
        }
        Frame::Ignored => IGNORABLE,
    };
    let length = out.len() - start - HEADER;
    put_head(&mut out[start..start + HEADER], kind, length);
}

/// Writes the head of a data frame, for who has the bytes in place behind it: `head` is as long as [`DATA_HEAD`].
///
/// # Panics
/// When it is not.
pub fn encode_data_head(head: &mut [u8], digest: &[u8; DIGEST], length: usize) {
    put_head(&mut head[..HEADER], DATA, DIGEST + length);
    head[HEADER..DATA_HEAD].copy_from_slice(digest);
}

fn put_head(head: &mut [u8], kind: u8, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    head.copy_from_slice(&[kind, length[1], length[2], length[3]]);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
    out.put_slice(bytes);
}

fn put_meta(out: &mut Vec<u8>, meta: &FileMeta) {
    out.put_u64(meta.size);
    out.put_u16(meta.mode);
    put_mtime(out, meta.mtime);
}

fn put_mtime(out: &mut Vec<u8>, mtime: Mtime) {
    out.put_i64(mtime.secs);
    out.put_u32(mtime.nanos);
}

fn shorten(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Takes fields off the front of a payload.
struct Fields<'a> {
    kind: u8,
    whole: usize,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn bad(&self, field: &'static str) -> CopyFrameProblem {
        CopyFrameProblem::Field { kind: self.kind, field }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], CopyFrameProblem> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(CopyFrameProblem::Length { kind: self.kind, length: self.whole });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CopyFrameProblem> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn digest(&mut self) -> Result<&'a [u8; DIGEST], CopyFrameProblem> {
        let length = CopyFrameProblem::Length { kind: self.kind, length: self.whole };
        self.take(DIGEST)?.try_into().map_err(|_| length)
    }

    fn u8(&mut self) -> Result<u8, CopyFrameProblem> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, CopyFrameProblem> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, CopyFrameProblem> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn flag(&mut self) -> Result<bool, CopyFrameProblem> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.bad("flag")),
        }
    }

    fn bytes(&mut self, limit: usize) -> Result<&'a [u8], CopyFrameProblem> {
        let length = usize::from(self.u16()?);
        if length > limit {
            return Err(CopyFrameProblem::Length { kind: self.kind, length });
        }
        self.take(length)
    }

    fn text(&mut self, limit: usize) -> Result<&'a str, CopyFrameProblem> {
        let bytes = self.bytes(limit)?;
        std::str::from_utf8(bytes).map_err(|_| self.bad("text"))
    }

    fn name(&mut self) -> Result<&'a [u8], CopyFrameProblem> {
        let name = self.bytes(MAX_NAME)?;
        if is_component(name) { Ok(name) } else { Err(self.bad("name")) }
    }

    fn mode(&mut self, most: u16) -> Result<u16, CopyFrameProblem> {
        let mode = self.u16()?;
        if mode & !most == 0 { Ok(mode) } else { Err(self.bad("mode")) }
    }

    fn mtime(&mut self) -> Result<Mtime, CopyFrameProblem> {
        let secs = i64::from_be_bytes(self.array()?);
        let nanos = u32::from_be_bytes(self.array()?);
        if nanos < 1_000_000_000 { Ok(Mtime { secs, nanos }) } else { Err(self.bad("time")) }
    }

    fn meta(&mut self) -> Result<FileMeta, CopyFrameProblem> {
        let size = self.u64()?;
        if size > MAX_SIZE {
            return Err(self.bad("size"));
        }
        Ok(FileMeta { size, mode: self.mode(0o777)?, mtime: self.mtime()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, CopyFrameProblem> {
        let Some(head) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let (kind, length) = decode_head(*head)?;
        let Some(payload) = bytes.get(HEADER..HEADER + length) else { return Ok(None) };
        Ok(Some((decode_payload(kind, payload)?, HEADER + length)))
    }

    #[derive(Debug, Clone)]
    struct Parts {
        number: u64,
        other: u64,
        secs: i64,
        nanos: u32,
        mode: u16,
        pick: u8,
        name: Vec<u8>,
        path: Vec<u8>,
        text: String,
        digest: [u8; DIGEST],
    }

    fn parts() -> impl Strategy<Value = Parts> {
        let numbers =
            (0..=MAX_SIZE, 0..=MAX_SIZE, any::<i64>(), 0..1_000_000_000_u32, 0..=0o777_u16, 0..19_u8);
        let name = prop::collection::vec(any::<u8>(), 1..MAX_NAME)
            .prop_filter("a component", |name| is_component(name));
        let path = prop::collection::vec(1_u8.., 1..600);
        (numbers, name, path, "\\PC{0,200}", any::<[u8; DIGEST]>()).prop_map(
            |((number, other, secs, nanos, mode, pick), name, path, text, digest)| Parts {
                number,
                other,
                secs,
                nanos,
                mode,
                pick,
                name,
                path,
                text,
                digest,
            },
        )
    }

    fn frame(parts: &Parts) -> Frame<'_> {
        let Parts { number, other, secs, nanos, mode, .. } = *parts;
        let mtime = Mtime { secs, nanos };
        let meta = FileMeta { size: number.max(other), mtime, mode };
        let name = parts.name.as_slice();
        match parts.pick {
            0 => Frame::Hello { version: mode, role: CopyRole::Source },
            1 => Frame::Hello { version: mode, role: CopyRole::Sink },
            2 => Frame::Problem { code: "copy.storage", path: &parts.path, message: &parts.text },
            3 => Frame::Fatal { code: "copy.storage", message: &parts.text },
            4 => Frame::File { name, meta },
            5 => Frame::Dir { name: if mode % 2 == 0 { name } else { b"" }, mode, mtime },
            6 => Frame::Leave { complete: mode % 2 == 0 },
            7 => Frame::Link { name, target: &parts.path, mtime },
            8 => Frame::Passed { name },
            9 => Frame::Begin { id: number, offset: number.min(other), meta },
            10 => Frame::Data { digest: &parts.digest, bytes: &parts.path },
            11 => {
                Frame::End { end: [FileEnd::Whole, FileEnd::Changed, FileEnd::Failed][usize::from(mode % 3)] }
            }
            12 => Frame::Same { id: number },
            13 => Frame::Done { problems: number },
            14 => Frame::Want { id: number, basis: Basis::None },
            15 => Frame::Want { id: number, basis: Basis::Part(other) },
            16 => Frame::Have { id: number },
            17 => Frame::Basis { id: number, digests: &parts.digest },
            _ => Frame::Finished(SinkTotals { files: number, deleted: other, ..SinkTotals::default() }),
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(parts in parts()) {
            let frame = frame(&parts);
            let mut bytes = Vec::new();
            encode(&frame, &mut bytes);
            prop_assert_eq!(decode(&bytes), Ok(Some((frame, bytes.len()))));
        }

        #[test]
        fn a_part_of_a_frame_is_never_taken_for_another(parts in parts(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            encode(&frame(&parts), &mut bytes);
            prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), Ok(None));
        }

        #[test]
        fn no_input_panics_and_every_name_that_passes_is_a_component(
            kind in any::<u8>(), payload in prop::collection::vec(any::<u8>(), 0..400)
        ) {
            match decode_payload(kind, &payload) {
                Ok(Frame::File { name, .. } | Frame::Link { name, .. } | Frame::Passed { name }) => {
                    prop_assert!(is_component(name));
                }
                Ok(Frame::Dir { name, .. }) => prop_assert!(name.is_empty() || is_component(name)),
                Ok(_) | Err(_) => {}
            }
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_no_names() {
        let meta = FileMeta { size: 1, mtime: Mtime { secs: 0, nanos: 0 }, mode: 0o644 };
        let long = vec![b'a'; MAX_NAME + 1];
        for name in [&b""[..], b".", b"..", b"/", b"/etc", b"a/b", b"../x", b"a\0b", &long] {
            let mut bytes = Vec::new();
            encode(&Frame::File { name, meta }, &mut bytes);
            assert!(decode(&bytes).is_err(), "{name:?}");
            if !name.is_empty() {
                bytes.clear();
                encode(&Frame::Dir { name, mode: 0o755, mtime: meta.mtime }, &mut bytes);
                assert!(decode(&bytes).is_err(), "{name:?}");
            }
        }
    }

    #[test]
    fn huge_lengths_are_refused_before_anything_is_kept_for_them() {
        assert!(matches!(decode_head([DATA, 0xff, 0xff, 0xff]), Err(CopyFrameProblem::Length { .. })));
        assert!(matches!(decode_head([FILE, 0x01, 0, 0]), Err(CopyFrameProblem::Length { .. })));
        assert_eq!(decode_head([0x05, 0, 0, 0]), Err(CopyFrameProblem::Kind(0x05)));
        assert_eq!(decode_head([0xfe, 0, 1, 0]), Ok((0xfe, 256)));
    }

    #[test]
    fn set_user_and_group_bits_cannot_be_said() {
        let meta = FileMeta { size: 1, mtime: Mtime { secs: 0, nanos: 0 }, mode: 0o4755 };
        let mut bytes = Vec::new();
        encode(&Frame::File { name: b"a", meta }, &mut bytes);
        assert!(matches!(decode(&bytes), Err(CopyFrameProblem::Field { field: "mode", .. })));
    }

    #[test]
    fn the_bytes_of_a_frame_are_stable() {
        let mtime = Mtime { secs: 2, nanos: 3 };
        let meta = FileMeta { size: 1, mtime, mode: 0o644 };
        let frames = [
            Frame::Hello { version: VERSION, role: CopyRole::Sink },
            Frame::File { name: b"ab", meta },
            Frame::Dir { name: b"", mode: 0o755, mtime },
            Frame::Begin { id: 1, offset: 1, meta },
            Frame::Data { digest: &[7; DIGEST], bytes: b"x" },
            Frame::End { end: FileEnd::Changed },
            Frame::Want { id: 5, basis: Basis::Part(CHUNK) },
        ];
        let lines: Vec<String> = frames
            .iter()
            .map(|frame| {
                let mut bytes = Vec::new();
                encode(frame, &mut bytes);
                data_encoding::HEXLOWER.encode(&bytes)
            })
            .collect();
        assert_eq!(
            lines,
            [
                "0100000b6d616c61692d6370000101",
                "1000001a000000000000000101a400000000000000020000000300026162",
                "1100001001ed0000000000000002000000030000",
                "150000260000000000000001000000000000000100000000000000\
                 0101a4000000000000000200000003",
                "160000210707070707070707070707070707070707070707070707070707070707070707\
                 78",
                "1700000101",
                "200000110000000000000005010000000000100000",
            ]
        );
    }
}
