//! Frames to bytes.

use bytes::BufMut;

use super::*;

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
