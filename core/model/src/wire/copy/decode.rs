//! Bytes to frames: everything here comes from a peer.

use super::*;

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
