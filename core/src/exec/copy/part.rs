//! Unfinished copies: siblings of the files that they will replace.
//!
//! The name tells whose it is, not what version of it: whatever is in it, chunks are compared before anything is added,
//! so an old one is worth something too, and none is left behind when the file changes between two tries.
//!
//! A lock keeps two copies from writing one. The other copy may be dead without knowing it: its machine waits for a
//! client whose connection was lost. So there is a second name, and what the locked one has is copied from it.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use malai_model::wire::copy::FileMeta;

use super::Links;
use super::at::{self, Kind};

const MARK: &[u8] = b".malai-part-";
/// How much of a file's name its part shows: with the rest it stays below any file system's limit.
const SHOWN: usize = 200;
const DIGITS: usize = 16;

/// An unfinished copy, open and locked.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    name: OsString,
}

/// The two unfinished copies that a file may have.
const NUMBERS: [u8; 2] = [1, 2];

/// What the first unfinished copy of a file is called.
pub(super) fn part_name(name: &OsStr) -> OsString {
    numbered_name(name, NUMBERS[0])
}

fn numbered_name(name: &OsStr, number: u8) -> OsString {
    let bytes = name.as_bytes();
    let digest = blake3::Hasher::new().update(&[number]).update(bytes).finalize().to_hex();
    let shown = bytes.get(..SHOWN).unwrap_or(bytes);
    OsString::from_vec([b".", shown, MARK, &digest.as_bytes()[..DIGITS]].concat())
}

/// Says whether a name is that of an unfinished copy.
pub(super) fn is_part_name(name: &OsStr) -> bool {
    shown_of(name.as_bytes()).is_some()
}

/// Says whether a name is that of an unfinished copy of a file whose name passes the check. The check gets names that
/// were not too long to be shown in full; others are taken to pass.
pub(super) fn is_part_of(name: &OsStr, check: impl Fn(&[u8]) -> bool) -> bool {
    shown_of(name.as_bytes()).is_some_and(|shown| shown.len() >= SHOWN || check(shown))
}

fn shown_of(name: &[u8]) -> Option<&[u8]> {
    let rest = name.strip_prefix(b".")?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
    let shown = rest.strip_suffix(MARK)?;
    digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(shown)
}

impl Part {
    /// Opens what there is of an unfinished copy; `None` if there is nothing.
    pub(super) fn find(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<Self>> {
        let mut free: Option<Self> = None;
        let mut busy = None;
        for number in NUMBERS {
            let name = numbered_name(name, number);
            match Self::adopt(dir, name.clone()) {
                // The longer one; of the other there is no more need.
                Ok(Some(part)) => match free.take() {
                    Some(first) if first.length()? >= part.length()? => {
                        part.discard(dir);
                        free = Some(first);
                    }
                    Some(first) => {
                        first.discard(dir);
                        free = Some(part);
                    }
                    None => free = Some(part),
                },
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => busy = Some(name),
                Ok(None) | Err(_) => {}
            }
        }
        match (free, busy) {
            (None, Some(busy)) => Self::take_over(dir, name, &busy).map(Some),
            (free, _) => Ok(free),
        }
    }

    /// Copies what another copy has, which is not touched: it may be at work.
    fn take_over(dir: &OwnedFd, name: &OsStr, busy: &OsStr) -> io::Result<Self> {
        let mut theirs = at::open_read_at(dir, busy, Links::Keep)?;
        let mut part = Self::begin(dir, name)?;
        let copied = io::copy(&mut theirs, &mut part.file);
        if copied.is_err() {
            part.continue_at(0)?;
        }
        Ok(part)
    }

    /// Makes an empty one. One that is there and that nobody writes is emptied.
    pub(super) fn begin(dir: &OwnedFd, name: &OsStr) -> io::Result<Self> {
        let mut last = busy();
        for number in NUMBERS {
            match Self::begin_as(dir, numbered_name(name, number)) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => last = error,
                begun => return begun,
            }
        }
        Err(last)
    }

    fn begin_as(dir: &OwnedFd, name: OsString) -> io::Result<Self> {
        let file = match at::make_file_at(dir, &name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if let Some(mut part) = Self::adopt(dir, name.clone())? {
                    part.continue_at(0)?;
                    return Ok(part);
                }
                // No file of this user's alone, so nothing to write into: out of the way.
                at::unlink_at(dir, &name)?;
                at::make_file_at(dir, &name)?
            }
            made => made?,
        };
        lock(&file)?;
        let part = Self { file, name };
        if part.is_in_place(dir)? { Ok(part) } else { Err(busy()) }
    }

    /// Opens what is there under the name, if it is a plain file of this user's with no other name: somebody else who may
    /// write to the directory could have put a link there.
    fn adopt(dir: &OwnedFd, name: OsString) -> io::Result<Option<Self>> {
        let Ok(file) = at::open_write_at(dir, &name) else { return Ok(None) };
        let stat = at::stat_of(&file)?;
        let own = stat.uid == nix::unistd::geteuid().as_raw();
        if stat.kind != Kind::File || stat.links != 1 || !own {
            return Ok(None);
        }
        lock(&file)?;
        let part = Self { file, name };
        // Whoever had the lock may have made it the file itself, which must not be touched any more.
        if part.is_in_place(dir)? { Ok(Some(part)) } else { Err(busy()) }
    }

    fn is_in_place(&self, dir: &OwnedFd) -> io::Result<bool> {
        let own = at::stat_of(&self.file)?;
        Ok(at::find_at(dir, &self.name)?.is_some_and(|there| there.id == own.id))
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(at::stat_of(&self.file)?.size)
    }

    /// Reads it from the beginning.
    pub(super) fn reader(&mut self) -> io::Result<&mut File> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(&mut self.file)
    }

    /// Cuts it there; what is written next follows.
    pub(super) fn continue_at(&mut self, offset: u64) -> io::Result<()> {
        self.file.set_len(offset)?;
        self.file.seek(SeekFrom::Start(offset))?;
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Makes it the file. Until then what was there before is whole.
    pub(super) fn finish(self, dir: &OwnedFd, name: &OsStr, meta: &FileMeta) -> io::Result<()> {
        let done = at::set_mode(&self.file, meta.mode)
            .and_then(|()| at::set_mtime(&self.file, meta.mtime))
            .and_then(|()| at::rename_at(dir, &self.name, name));
        if done.is_err() {
            self.discard(dir);
        }
        done
    }

    /// Throws it away.
    pub(super) fn discard(self, dir: &OwnedFd) {
        if let Err(error) = at::unlink_at(dir, &self.name) {
            tracing::debug!(%error, "an unfinished copy could not be removed");
        }
    }
}

fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(busy()),
        // Some network file systems have no locks: then two copies at once are the user's to avoid.
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "an unfinished copy cannot be locked");
            Ok(())
        }
    }
}

fn busy() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "another copy is writing it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_told_from_a_file_and_fits_any_name() {
        for name in [&b"a"[..], b"x.tar.gz", b".hidden", b"\xff\xfe", &[b'n'; 255]] {
            let part = part_name(OsStr::from_bytes(name));
            assert!(part.len() <= 255 && is_part_name(&part), "{part:?}");
            assert!(is_part_of(&part, |shown| shown == name));
            assert!(!is_part_name(OsStr::from_bytes(name)));
        }
        let long = |last| part_name(OsStr::from_bytes(&[&[b'n'; 240][..], last].concat()));
        assert_ne!(long(b"1"), long(b"2"));
        for name in
            ["", ".", ".malai-part-", ".a.malai-part-0123456789abcdeg", "a.malai-part-0123456789abcdef"]
        {
            assert!(!is_part_name(OsStr::new(name)), "{name}");
        }
    }
}
