//! Files, from their announcement to their name.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};

use malai_model::code::ErrorCode;

use super::at::{self, Kind};
use super::{
    Basis, CHUNK, Compare, CopyError, DIGEST, FileEnd, FileMeta, Folder, Frame, Links, MAX_DIGESTS,
    MAX_UNANSWERED, OFFERED, Part, Receiving, Refused, Sink, Stat, Wanted, read_full,
};

impl<R: Read, W: Write> Sink<R, W> {
    pub(super) fn file(&mut self, name: OsString, meta: FileMeta) -> Result<(), CopyError> {
        let id = self.next_id;
        self.next_id += 1;
        self.tally.progress.named_files += 1;
        let progress = &mut self.tally.progress;
        progress.named_bytes = progress.named_bytes.saturating_add(meta.size);
        if self.wanted.files.len() > MAX_UNANSWERED {
            return Err(CopyError::OutOfTurn("it names files and sends none"));
        }
        let Some((folder, name)) = self.place(name)? else { return self.have(id, &meta) };
        let there = match at::find_at(&folder.fd, &name) {
            Ok(there) => there,
            Err(error) => {
                self.failed(&folder, &name, &error)?;
                return self.have(id, &meta);
            }
        };
        let mut wanted = Wanted { id, folder, name, size: meta.size, offered: None, compared: false, meta };
        let basis = match there {
            Some(Stat { kind: Kind::Dir, .. }) => {
                let why = "a directory is here, and a file comes".to_owned();
                self.problem(&wanted.folder.path.join(&wanted.name), ErrorCode::CopyStorage, why)?;
                return self.have(id, &meta);
            }
            Some(there) if there.kind == Kind::File && there.size == meta.size => {
                if self.request.compare == Compare::Content {
                    self.compare(&wanted)?
                } else if there.mtime == meta.mtime {
                    self.mend(&wanted.folder, &wanted.name, &there, &meta)?;
                    self.totals.skipped += 1;
                    return self.have(id, &meta);
                } else {
                    self.offer(&mut wanted)?
                }
            }
            _ => self.offer(&mut wanted)?,
        };
        wanted.compared = matches!(basis, Basis::Whole(_));
        self.wanted.files.push_back(wanted);
        self.output.send(&Frame::Want { id, basis })
    }

    pub(super) fn have(&mut self, id: u64, meta: &FileMeta) -> Result<(), CopyError> {
        self.tally.progress.done_files += 1;
        let progress = &mut self.tally.progress;
        progress.done_bytes = progress.done_bytes.saturating_add(meta.size);
        self.tally.tell(|| None);
        self.output.send(&Frame::Have { id })
    }

    /// Sends digests of an unfinished copy, if there is one that is worth it.
    pub(super) fn offer(&mut self, wanted: &mut Wanted) -> Result<Basis, CopyError> {
        if wanted.size < CHUNK || self.wanted.offering >= OFFERED {
            return Ok(Basis::None);
        }
        let found = Part::find(&wanted.folder.fd, &wanted.name).and_then(|part| {
            let Some(mut part) = part else { return Ok(None) };
            let length = part.length()?.min(wanted.size) / CHUNK * CHUNK;
            part.reader()?;
            Ok(Some((part, length)))
        });
        // If it cannot be used, that shows when it is begun.
        let Ok(Some((mut part, length))) = found else { return Ok(Basis::None) };
        let Ok(reader) = part.reader() else { return Ok(Basis::None) };
        if length == 0 || !self.send_digests(wanted.id, reader, length)? {
            return Ok(Basis::None);
        }
        wanted.offered = Some((part, length));
        self.wanted.offering += 1;
        Ok(Basis::Part(length))
    }

    /// Sends digests of the file that is there.
    pub(super) fn compare(&mut self, wanted: &Wanted) -> Result<Basis, CopyError> {
        let opened = at::open_read_at(&wanted.folder.fd, &wanted.name, Links::Keep);
        let Ok(mut file) = opened else { return Ok(Basis::None) };
        Ok(match self.send_digests(wanted.id, &mut file, wanted.size)? {
            true => Basis::Whole(wanted.size),
            false => Basis::None,
        })
    }

    /// Returns whether all of them could be made.
    pub(super) fn send_digests(
        &mut self,
        id: u64,
        file: &mut impl Read,
        length: u64,
    ) -> Result<bool, CopyError> {
        let mut chunk = vec![0; usize::try_from(CHUNK).unwrap_or(usize::MAX)];
        let mut digests = Vec::with_capacity(MAX_DIGESTS * DIGEST);
        let mut left = length;
        while left > 0 {
            let want = usize::try_from(left.min(CHUNK)).unwrap_or(usize::MAX);
            if !read_full(file, &mut chunk[..want]).is_ok_and(|count| count == want) {
                return Ok(false);
            }
            digests.extend_from_slice(blake3::hash(&chunk[..want]).as_bytes());
            left -= want as u64;
            if left == 0 || digests.len() == MAX_DIGESTS * DIGEST {
                self.output.send(&Frame::Basis { id, digests: &digests })?;
                self.output.flush()?;
                digests.clear();
            }
        }
        Ok(true)
    }

    /// Gives a file whose bytes are right the mode and time that it should have.
    pub(super) fn mend(
        &mut self,
        folder: &Folder,
        name: &OsStr,
        there: &Stat,
        meta: &FileMeta,
    ) -> Result<(), CopyError> {
        if there.mode & 0o777 == meta.mode && there.mtime == meta.mtime {
            return Ok(());
        }
        let mended = at::open_read_at(&folder.fd, name, Links::Keep).and_then(|file| {
            // By the descriptor: by its name it could be another by now.
            if at::stat_of(&file)?.id != there.id {
                return Ok(());
            }
            at::set_mtime(&file, meta.mtime)?;
            at::set_mode(&file, meta.mode)
        });
        match mended {
            Ok(()) => Ok(()),
            Err(error) => self.failed(folder, name, &error),
        }
    }

    pub(super) fn next_wanted(&mut self, id: u64) -> Result<Wanted, CopyError> {
        if self.receiving.is_some() {
            return Err(CopyError::OutOfTurn("a file begins within another"));
        }
        match self.wanted.files.pop_front() {
            Some(wanted) if wanted.id == id => {
                self.wanted.offering -= usize::from(wanted.offered.is_some());
                Ok(wanted)
            }
            _ => Err(CopyError::OutOfTurn("a file that is not the next one wanted")),
        }
    }

    pub(super) fn begin(&mut self, id: u64, offset: u64, meta: FileMeta) -> Result<(), CopyError> {
        let wanted = self.next_wanted(id)?;
        let offered = wanted.offered.as_ref().map_or(0, |(_, length)| *length);
        if offset > offered || !offset.is_multiple_of(CHUNK) {
            return Err(CopyError::OutOfTurn("a file that goes on where nothing was offered"));
        }
        self.totals.resumed += offset;
        self.tally.progress.done_bytes += offset;
        let (receiving, begun) = Receiving::begin(wanted, meta, offset);
        if let Err(error) = begun {
            self.failed(&receiving.folder.clone(), &receiving.name.clone(), &error)?;
        }
        self.receiving = Some(receiving);
        Ok(())
    }

    pub(super) fn taken(&mut self, count: u64, taken: Result<(), Refused>) -> Result<(), CopyError> {
        self.totals.bytes += count;
        self.tally.progress.moved_bytes += count;
        self.tally.progress.done_bytes += count;
        let Some(receiving) = &self.receiving else { return Ok(()) };
        let (folder, name) = (&receiving.folder, &receiving.name);
        match taken {
            Ok(()) => {
                self.tally.tell(|| Some(folder.path.join(name).to_string_lossy().into_owned()));
                Ok(())
            }
            Err(Refused::TooMany) => Err(CopyError::OutOfTurn("more bytes than the file has")),
            Err(Refused::Digest) => {
                let path = folder.path.join(name);
                self.problem(&path, ErrorCode::CopyMismatch, "what arrived is not what was sent".to_owned())
            }
            Err(Refused::Storage(error)) => {
                let path = folder.path.join(name);
                self.problem(&path, ErrorCode::CopyStorage, error.to_string())
            }
        }
    }

    pub(super) fn end(&mut self, end: FileEnd) -> Result<(), CopyError> {
        let Some(mut receiving) = self.receiving.take() else {
            return Err(CopyError::OutOfTurn("the end of no file"));
        };
        self.tally.progress.done_files += 1;
        match end {
            FileEnd::Whole if receiving.at != receiving.meta.size => {
                return Err(CopyError::OutOfTurn("a whole file that lacks bytes"));
            }
            FileEnd::Whole if !receiving.failed => {
                let (folder, name, done) = receiving.finish();
                match done {
                    Ok(()) => self.totals.files += 1,
                    Err(error) => self.failed(&folder, &name, &error)?,
                }
                self.release(folder)?;
            }
            // Why it is not here has been said, there or here.
            FileEnd::Whole => self.release(receiving.folder)?,
            FileEnd::Changed | FileEnd::Failed => {
                self.tally.progress.done_bytes += receiving.named.saturating_sub(receiving.at);
                receiving.fail();
                self.release(receiving.folder)?;
            }
        }
        self.tally.tell(|| None);
        Ok(())
    }

    pub(super) fn same(&mut self, id: u64) -> Result<(), CopyError> {
        let wanted = self.next_wanted(id)?;
        if !wanted.compared {
            return Err(CopyError::OutOfTurn("the same as a file that was not compared"));
        }
        let Wanted { folder, name, meta, .. } = wanted;
        match at::find_at(&folder.fd, &name) {
            Ok(Some(there)) => self.mend(&folder, &name, &there, &meta)?,
            Ok(None) => {}
            Err(error) => self.failed(&folder, &name, &error)?,
        }
        self.totals.skipped += 1;
        self.tally.progress.done_files += 1;
        let progress = &mut self.tally.progress;
        progress.done_bytes = progress.done_bytes.saturating_add(meta.size);
        self.release(folder)
    }
}
