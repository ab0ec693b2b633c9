//! The files: `current.jsonl`, and those that were full, named by the number of their first line.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use malai_model::audit::{AuditEvent, AuditRecord, Head, RecordDigest, read_head};

use super::AuditError;
use crate::home::ensure_private_dir;

/// The file that is appended to.
pub(super) const CURRENT: &str = "current.jsonl";
/// How the others end.
pub(super) const SUFFIX: &str = ".jsonl";
/// How much of a file's end is read to go on from its last line.
const TAIL: u64 = 64 * 1024;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditLimits {
    /// How large a file grows, in bytes.
    pub file_bytes: u64,
    /// How many full files are kept beside the one that is appended to; older ones are removed.
    pub full_files: usize,
}

impl Default for AuditLimits {
    fn default() -> Self {
        Self { file_bytes: 16 * 1024 * 1024, full_files: 15 }
    }
}

/// The directory as one process sees it, and where the chain ends.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    limits: AuditLimits,
    /// The directory itself, which is what is locked, and which one it is.
    handle: Option<(File, (u64, u64))>,
    current: Option<Current>,
    head: Head,
    unsynced: Unsynced,
}

/// The file that is appended to.
#[derive(Debug)]
struct Current {
    file: Arc<File>,
    identity: (u64, u64),
    length: u64,
    first: u64,
}

/// What the disk may not have yet.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    files: Vec<Arc<File>>,
    dir: Option<PathBuf>,
}

impl Unsynced {
    /// Waits until the disk has it. Blocks.
    pub(super) fn sync(&self) -> Result<(), AuditError> {
        for file in &self.files {
            file.sync_data().map_err(|error| AuditError::io("sync", Path::new(CURRENT), error))?;
        }
        if let Some(dir) = &self.dir {
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(|error| AuditError::io("sync", dir, error))?;
        }
        Ok(())
    }

    fn add(&mut self, file: &Arc<File>) {
        if !self.files.iter().any(|known| Arc::ptr_eq(known, file)) {
            self.files.push(Arc::clone(file));
        }
    }
}

impl Files {
    pub(super) fn new(dir: PathBuf, limits: AuditLimits) -> Self {
        Self { dir, limits, handle: None, current: None, head: Head::EMPTY, unsynced: Unsynced::default() }
    }

    /// Tries to take the lock that keeps other processes from appending; `false` if one of them has it.
    pub(super) fn try_lock(&mut self) -> Result<bool, AuditError> {
        let handle = self.handle()?;
        match handle.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(AuditError::io("lock", &self.dir, error)),
        }
    }

    /// Gives it back.
    pub(super) fn unlock(&mut self) {
        if let Some((handle, _)) = &self.handle
            && let Err(error) = handle.unlock()
        {
            tracing::warn!(%error, "the lock of the audit log was not given back");
        }
    }

    fn handle(&mut self) -> Result<&File, AuditError> {
        // Somebody may have put another directory in its place.
        let there = fs::symlink_metadata(&self.dir).ok();
        let held = self.handle.as_ref().map(|(_, held)| *held);
        if held.is_none() || there.as_ref().map(identity) != held {
            self.current = None;
            self.handle = None;
            ensure_private_dir(&self.dir)?;
            let open = |error| AuditError::io("open", &self.dir, error);
            let handle = File::open(&self.dir).map_err(open)?;
            let meta = handle.metadata().map_err(open)?;
            if there.is_none()
                && let Some(parent) = self.dir.parent()
            {
                let synced = File::open(parent).and_then(|parent| parent.sync_all());
                synced.map_err(|error| AuditError::io("sync", parent, error))?;
            }
            self.handle = Some((handle, identity(&meta)));
        }
        self.handle.as_ref().map(|(handle, _)| handle).ok_or(AuditError::Busy)
    }

    /// Appends records in one write. Returns the number of the last one. The lock is held.
    ///
    /// # Errors
    /// When they cannot be written; then none of them is there.
    pub(super) fn append<'a>(
        &mut self,
        records: impl Iterator<Item = &'a AuditRecord>,
        now: Timestamp,
    ) -> Result<u64, AuditError> {
        let torn = self.refresh()?;
        let (mut head, mut text) = (self.head, Vec::with_capacity(1024));
        let note = torn.map(|bytes| AuditRecord::of_device(now, AuditEvent::TornLine { bytes }));
        let formless =
            |error| AuditError::io("write", &self.dir, io::Error::new(io::ErrorKind::InvalidData, error));
        if let Some(note) = note {
            head.append(&note, &mut text).map_err(formless)?;
        }
        for record in records {
            head.append(record, &mut text).map_err(formless)?;
        }
        let full = |current: &Current| {
            current.length > 0 && current.length + text.len() as u64 > self.limits.file_bytes
        };
        if self.current.as_ref().is_some_and(full) {
            self.rotate()?;
        }
        let path = self.dir.join(CURRENT);
        let first = self.head.seq.saturating_add(1);
        let Some(current) = &mut self.current else { return Err(AuditError::Busy) };
        if current.length == 0 {
            current.first = first;
        }
        if let Err(error) = (&*current.file).write_all(&text) {
            // What came to be there is cut off, now or, if that fails too, by whoever appends next.
            if current.file.set_len(current.length).is_err() {
                self.current = None;
            }
            return Err(AuditError::io("write", &path, error));
        }
        current.length += text.len() as u64;
        self.unsynced.add(&current.file);
        self.head = head;
        Ok(head.seq)
    }

    /// Makes sure that the file is the one that is there, and that the chain goes on from its last line. Returns how much
    /// of a torn line was cut off.
    fn refresh(&mut self) -> Result<Option<u64>, AuditError> {
        let path = self.dir.join(CURRENT);
        let there = match fs::symlink_metadata(&path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(AuditError::io("look at", &path, error)),
        };
        if let (Some(current), Some(there)) = (&self.current, &there)
            && current.identity == identity(there)
            && current.length == there.len()
        {
            return Ok(None);
        }
        self.current = None;
        if there.is_none() {
            self.unsynced.dir = Some(self.dir.clone());
        }
        let mut file = open_to_append(&path).map_err(|error| AuditError::io("open", &path, error))?;
        let read = |error| AuditError::io("read", &path, error);
        let meta = file.metadata().map_err(read)?;
        let end = End::of(&mut file).map_err(read)?;
        if end.whole == 0
            && let Some(newest) = full_files(&self.dir)?.pop()
        {
            // The first line of a file goes on from the last of the one before.
            let mut file = File::open(&newest).map_err(|error| AuditError::io("open", &newest, error))?;
            let before = End::of(&mut file).map_err(|error| AuditError::io("read", &newest, error))?;
            self.go_on_from(before.head);
        }
        if end.torn > 0 {
            file.set_len(end.whole).map_err(|error| AuditError::io("shorten", &path, error))?;
        }
        self.go_on_from(end.head);
        self.current = Some(Current {
            first: first_number(&mut file).map_err(read)?.unwrap_or(self.head.seq.saturating_add(1)),
            file: Arc::new(file),
            identity: identity(&meta),
            length: end.whole,
        });
        Ok((end.torn > 0).then_some(end.torn))
    }

    /// If somebody cut lines off, the number of what this process wrote last is the higher one: the gap shall show.
    fn go_on_from(&mut self, found: Head) {
        if found.seq >= self.head.seq {
            self.head = found;
        }
    }

    /// Puts the full file aside and removes the oldest.
    fn rotate(&mut self) -> Result<(), AuditError> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let path = self.dir.join(CURRENT);
        let mut aside = self.dir.join(format!("{:012}{SUFFIX}", current.first));
        for number in 1.. {
            if !aside.exists() {
                break;
            }
            aside = self.dir.join(format!("{:012}-{number}{SUFFIX}", current.first));
        }
        fs::rename(&path, &aside).map_err(|error| AuditError::io("put aside", &path, error))?;
        self.unsynced.dir = Some(self.dir.clone());
        let full = full_files(&self.dir)?;
        for old in &full[..full.len().saturating_sub(self.limits.full_files)] {
            if let Err(error) = fs::remove_file(old) {
                tracing::warn!(path = %old.display(), %error, "an old file of the audit log stays");
            }
        }
        let file = open_to_append(&path).map_err(|error| AuditError::io("open", &path, error))?;
        let meta = file.metadata().map_err(|error| AuditError::io("look at", &path, error))?;
        self.current = Some(Current {
            first: self.head.seq.saturating_add(1),
            file: Arc::new(file),
            identity: identity(&meta),
            length: 0,
        });
        Ok(())
    }

    /// Takes what the disk may not have yet, for somebody who sees to it.
    pub(super) fn take_unsynced(&mut self) -> Unsynced {
        std::mem::take(&mut self.unsynced)
    }

    /// Takes it back: the disk did not take it.
    pub(super) fn put_back(&mut self, unsynced: Unsynced) {
        unsynced.files.iter().for_each(|file| self.unsynced.add(file));
        self.unsynced.dir = self.unsynced.dir.take().or(unsynced.dir);
    }
}

/// The end of a file.
struct End {
    head: Head,
    /// How long its whole lines are.
    whole: u64,
    /// How much follows them without a line break.
    torn: u64,
}

impl End {
    fn of(file: &mut File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut from = length.saturating_sub(TAIL);
        loop {
            file.seek(SeekFrom::Start(from))?;
            let mut tail = Vec::new();
            file.take(length - from).read_to_end(&mut tail)?;
            if let Some(end) = Self::of_tail(&tail, from) {
                return Ok(end);
            }
            // A line longer than that is none of ours; still, nothing is guessed.
            from = from.saturating_sub(16 * TAIL);
        }
    }

    /// `None` if the last whole line, or one that can be read, may begin before the tail.
    fn of_tail(tail: &[u8], from: u64) -> Option<Self> {
        let Some(last_break) = tail.iter().rposition(|byte| *byte == b'\n') else {
            return (from == 0).then_some(Self { head: Head::EMPTY, whole: 0, torn: tail.len() as u64 });
        };
        let whole = &tail[..last_break];
        let torn = (tail.len() - last_break - 1) as u64;
        let whole_length = from + last_break as u64 + 1;
        let mut digest = None;
        let mut unreadable = 0;
        let mut lines = whole.rsplit(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            if lines.peek().is_none() && from > 0 {
                return None;
            }
            let digest = *digest.get_or_insert_with(|| RecordDigest::of(line));
            if let Ok(read) = read_head(line) {
                let head = Head { seq: read.seq.saturating_add(unreadable), digest };
                return Some(Self { head, whole: whole_length, torn });
            }
            // Somebody's hand: it stays, for the check to find.
            unreadable += 1;
        }
        let digest = digest.unwrap_or(RecordDigest::NONE);
        Some(Self { head: Head { seq: unreadable, digest }, whole: whole_length, torn })
    }
}

fn first_number(file: &mut File) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(0))?;
    let mut begin = Vec::new();
    file.take(TAIL).read_to_end(&mut begin)?;
    let line = begin.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(read_head(line).ok().map(|head| head.seq))
}

/// The files that were put aside, oldest first.
pub(super) fn full_files(dir: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let entries = fs::read_dir(dir).map_err(|error| AuditError::io("list", dir, error))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.ends_with(SUFFIX) && name != CURRENT
        })
        .map(|entry| entry.path())
        .collect();
    files.sort();
    Ok(files)
}

fn open_to_append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Neither a link to elsewhere nor a pipe that nobody reads.
        options.mode(0o600).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    Ok(file)
}

#[cfg(unix)]
fn identity(meta: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (meta.dev(), meta.ino())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> (u64, u64) {
    (0, 0)
}
