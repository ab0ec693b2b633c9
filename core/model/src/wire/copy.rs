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

mod decode;
mod encode;
pub mod lanes;

pub use decode::{decode_head, decode_payload, is_data};
pub use encode::{encode, encode_data_head};

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
