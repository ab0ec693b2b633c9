//! A file on its way into the destination.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::rc::Rc;

use malai_model::wire::copy::{DIGEST, FileMeta};

use super::part::Part;
use super::sink::Folder;

/// A file that was wanted and has not begun yet.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) id: u64,
    pub(super) folder: Rc<Folder>,
    pub(super) name: OsString,
    pub(super) size: u64,
    /// The unfinished copy that was offered, and how much of it.
    pub(super) offered: Option<(Part, u64)>,
    /// Whether the file that is there was offered for comparing.
    pub(super) compared: bool,
    pub(super) meta: FileMeta,
}

/// The files that were wanted, in order, and how many of them hold an unfinished copy open.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) files: VecDeque<Wanted>,
    pub(super) offering: usize,
}

/// The file whose bytes come.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) folder: Rc<Folder>,
    pub(super) name: OsString,
    pub(super) meta: FileMeta,
    /// Its size when it was named.
    pub(super) named: u64,
    /// How many of its bytes are here.
    pub(super) at: u64,
    part: Option<Part>,
    /// Whether it failed here: then what comes of it is thrown away.
    pub(super) failed: bool,
}

/// Why bytes could not be taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// More than the file has.
    TooMany,
    /// They are not those of the digest.
    Digest,
    Storage(io::Error),
}

impl Receiving {
    /// Begins with what is offered, which is cut at the offset.
    pub(super) fn begin(wanted: Wanted, meta: FileMeta, offset: u64) -> (Self, io::Result<()>) {
        let Wanted { folder, name, size, offered, .. } = wanted;
        let mut part = offered.map(|(part, _)| part);
        let cut = part.as_mut().map_or(Ok(()), |part| part.continue_at(offset));
        (Self { folder, name, meta, named: size, at: offset, part, failed: cut.is_err() }, cut)
    }

    pub(super) fn take(&mut self, bytes: &[u8], digest: &[u8; DIGEST]) -> Result<(), Refused> {
        if bytes.len() as u64 > self.meta.size - self.at {
            return Err(Refused::TooMany);
        }
        self.at += bytes.len() as u64;
        if self.failed {
            return Ok(());
        }
        if blake3::hash(bytes).as_bytes() != digest {
            self.fail();
            return Err(Refused::Digest);
        }
        let written = self.part().and_then(|part| part.write(bytes));
        written.map_err(|error| {
            self.fail();
            Refused::Storage(error)
        })
    }

    fn part(&mut self) -> io::Result<&mut Part> {
        match &mut self.part {
            Some(part) => Ok(part),
            none => Ok(none.insert(Part::begin(&self.folder.fd, &self.name)?)),
        }
    }

    /// Makes it the file; all of its bytes are here.
    pub(super) fn finish(mut self) -> (Rc<Folder>, OsString, io::Result<()>) {
        let done = self.part().map(|_| ()).and_then(|()| match self.part.take() {
            Some(part) => part.finish(&self.folder.fd, &self.name, &self.meta),
            None => Ok(()),
        });
        (self.folder, self.name, done)
    }

    /// Throws away what is here.
    pub(super) fn fail(&mut self) {
        self.failed = true;
        if let Some(part) = self.part.take() {
            part.discard(&self.folder.fd);
        }
    }
}
