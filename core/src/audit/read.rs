//! Reading the log, while others may append to it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use malai_model::audit::{ChainReport, Head, Verifier};
use malai_model::wire::local::KnownRecord;

use super::AuditError;
use super::files::{CURRENT, full_files};
use crate::home::Home;

/// How long writers are waited for before the files are looked at all the same.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// The longest line that is taken for one, in bytes. Ours are shorter by far.
const MAX_LINE: usize = 1024 * 1024;

/// The files as they were at one moment, oldest first.
#[derive(Debug)]
pub struct AuditFiles {
    files: Vec<Snapshot>,
}

#[derive(Debug)]
struct Snapshot {
    path: PathBuf,
    file: File,
    length: u64,
}

/// A line and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct FileLine<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its number there, from 1.
    pub number: u64,
    /// Its bytes, without the line break.
    pub bytes: &'a [u8],
    /// Whether it has its line break: the last one of a log may lack it after a crash.
    pub whole: bool,
}

/// What a check of all files came to.
#[derive(Debug)]
pub struct AuditCheck {
    /// Of the chain.
    pub report: ChainReport,
    /// How many files there are.
    pub files: usize,
    /// In which file and line the first break is.
    pub place: Option<(PathBuf, u64)>,
    /// What became of the record that was to be in it, if it is not.
    pub known: Option<KnownRecord>,
}

impl AuditFiles {
    /// Opens all files of a home at once: what is appended, put aside or removed afterwards changes nothing.
    ///
    /// # Errors
    /// When one cannot be opened. No log at all is an empty one.
    pub fn open(home: &Home) -> Result<Self, AuditError> {
        let dir = home.audit_dir();
        let handle = match File::open(&dir) {
            Ok(handle) => handle,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { files: Vec::new() });
            }
            Err(error) => return Err(AuditError::io("open", &dir, error)),
        };
        let begun = Instant::now();
        while handle.try_lock_shared().is_err() && begun.elapsed() < LOCK_PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut paths = full_files(&dir)?;
        let current = dir.join(CURRENT);
        if current.exists() {
            paths.push(current);
        }
        let files = paths.into_iter().map(|path| {
            let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
            let (length, file) = opened.map_err(|error| AuditError::io("open", &path, error))?;
            Ok(Snapshot { path, file, length })
        });
        let files = files.collect::<Result<Vec<_>, AuditError>>();
        // Closing alone would leave the lock to a child process that is between fork and exec.
        _ = handle.unlock();
        Ok(Self { files: files? })
    }

    /// Reads line by line, from the oldest, until told to stop.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn lines(self, mut each: impl FnMut(FileLine<'_>) -> ControlFlow<()>) -> Result<(), AuditError> {
        for Snapshot { path, file, length } in self.files {
            let mut reader = BufReader::with_capacity(256 * 1024, file.take(length));
            let mut line = Vec::new();
            for number in 1.. {
                line.clear();
                let read = (&mut reader).take(MAX_LINE as u64).read_until(b'\n', &mut line);
                if read.map_err(|error| AuditError::io("read", &path, error))? == 0 {
                    break;
                }
                let whole = line.pop_if(|last| *last == b'\n').is_some();
                if each(FileLine { path: &path, number, bytes: &line, whole }).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Checks the chain over all files of a home, and whether a record that was its end once is still part of it: without
/// that nobody can tell that lines were removed from the end.
///
/// # Errors
/// When a file cannot be read. A chain that breaks is no error of the check.
pub fn check(home: &Home, known: Option<Head>) -> Result<AuditCheck, AuditError> {
    let files = AuditFiles::open(home)?;
    let (count, last) = (files.files.len(), files.files.last().map(|file| file.path.clone()));
    let mut verifier = Verifier::new();
    let (mut place, mut found) = (None, known.is_none());
    files.lines(|line| {
        if !line.whole && last.as_deref() == Some(line.path) && line.bytes.len() < MAX_LINE {
            verifier.torn_end();
            return ControlFlow::Continue(());
        }
        verifier.line(line.bytes);
        found |= known.is_some() && verifier.head() == known;
        if place.is_none() && verifier.is_broken() {
            place = Some((line.path.to_owned(), line.number));
        }
        ControlFlow::Continue(())
    })?;
    let report = verifier.finish();
    let known = known.filter(|_| !found).map(|known| match (report.first, report.head) {
        (Some(first), _) if known.seq < first => KnownRecord::TooOld,
        (_, Some(head)) if known.seq <= head.seq => KnownRecord::Changed,
        _ => KnownRecord::CutOff,
    });
    Ok(AuditCheck { report, files: count, place, known })
}
