//! The end that reads.
//!
//! Two threads: one walks and sends, the other takes the sink's answers in, so that neither end ever waits for the other
//! to take what it says.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use malai_model::code::ErrorCode;
use malai_model::wire::copy::{
    Basis, CHUNK, CopyRole, DATA_HEAD, DIGEST, FileEnd, FileMeta, Frame, MAX_BLOCK, MAX_OPEN_DIRS,
    MAX_UNANSWERED, SinkTotals,
};

use super::at::{self, Kind};
use super::channel::{FrameReader, FrameWriter, peer};
use super::observe::Tally;
use super::sink::last_words;
use super::walk::{Folder, Step, Walk, meta_of};
use super::{CopyError, CopyObserver, CopyProblem, Links, PathLinks};

/// What a source reads.
#[derive(Debug, Clone)]
pub struct SourceRequest {
    /// Files and directories. A root that is a link is followed; one whose last part is `.` or `..` stands for what is
    /// in it.
    pub roots: Vec<PathBuf>,
    /// What becomes of links.
    pub links: Links,
    /// What becomes of links on the way to the roots.
    pub path_links: PathLinks,
}

/// A file that was named to the sink.
#[derive(Debug)]
struct Named {
    id: u64,
    folder: Arc<Folder>,
    name: OsString,
    meta: FileMeta,
}

/// What the sink wants.
#[derive(Debug)]
enum Job {
    Send { file: Named, from: u64 },
    Same { id: u64 },
}

#[derive(Debug, Default)]
struct State {
    /// Named and not answered yet, in order.
    unanswered: VecDeque<Named>,
    jobs: VecDeque<Job>,
    /// Files and bytes that the sink needs nothing of.
    had: (u64, u64),
    finished: Option<SinkTotals>,
    failed: Option<CopyError>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what the request names and sends it to the sink at the other end. Returns what the sink did, and how many
/// problems this end had.
///
/// # Errors
/// When the other end goes away, gives up or breaks the protocol.
pub fn run_source(
    input: impl Read + Send + 'static,
    output: impl Write,
    request: SourceRequest,
    observer: Arc<dyn CopyObserver>,
) -> Result<(SinkTotals, u64), CopyError> {
    let output = FrameWriter::new(output);
    let shared = Arc::new(Shared::default());
    let (answers, links, looker_on) = (shared.clone(), request.links, observer.clone());
    // It ends with its pipe. Nobody waits for it: when this end fails first, the pipe's other end may still be open.
    std::thread::Builder::new()
        .name("copy-answers".to_owned())
        .spawn(move || {
            let mut answers = Answers { input: FrameReader::new(input), shared: answers, links, basis: None };
            let outcome = answers.take_all(&*looker_on);
            let mut state = answers.shared.lock();
            match outcome {
                Ok(totals) => state.finished = Some(totals),
                Err(error) => state.failed = Some(error),
            }
            drop(state);
            answers.shared.changed.notify_all();
        })
        .map_err(CopyError::Broken)?;
    let mut sender = Sender {
        output,
        walk: Walk::new(request.roots, request.links, request.path_links),
        links: request.links,
        shared,
        tally: Tally::new(observer),
        next_id: 0,
        problems: 0,
        block: vec![0; DATA_HEAD + MAX_BLOCK],
    };
    // Greeted only now: one that gave up at once has said why, and is listened to.
    match sender.output.greet(CopyRole::Source).and_then(|()| sender.send_all()) {
        Ok(totals) => Ok((totals, sender.problems)),
        Err(error) => {
            let error = sender.better(error);
            last_words(&mut sender.output, &error);
            Err(error)
        }
    }
}

/// The thread that sends.
struct Sender<W: Write> {
    output: FrameWriter<W>,
    walk: Walk,
    links: Links,
    shared: Arc<Shared>,
    tally: Tally,
    next_id: u64,
    problems: u64,
    /// Bytes of a file, behind room for their head.
    block: Vec<u8>,
}

enum Turn {
    Walk,
    Job(Job),
    Over,
    Wait,
}

impl<W: Write> Sender<W> {
    fn send_all(&mut self) -> Result<SinkTotals, CopyError> {
        let mut walked = false;
        loop {
            match self.turn(walked)? {
                Turn::Walk => match self.walk.step() {
                    Some(step) => self.tell(step)?,
                    None => walked = true,
                },
                Turn::Job(Job::Send { file, from }) => self.send_file(&file, from)?,
                Turn::Job(Job::Same { id }) => self.output.send(&Frame::Same { id })?,
                Turn::Over => break,
                Turn::Wait => {
                    self.output.flush()?;
                    let state = self.shared.lock();
                    let idle = |state: &mut State| {
                        state.jobs.is_empty() && state.failed.is_none() && !state.unanswered.is_empty()
                    };
                    drop(self.shared.changed.wait_while(state, idle));
                }
            }
        }
        self.output.send(&Frame::Done { problems: self.problems })?;
        self.output.flush()?;
        self.tally.tell_now();
        let state = self.shared.lock();
        let waiting = |state: &mut State| state.finished.is_none() && state.failed.is_none();
        let mut state =
            self.shared.changed.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
        match state.failed.take() {
            Some(error) => Err(error),
            None => Ok(state.finished.unwrap_or_default()),
        }
    }

    /// Decides what to do next. The walk goes first, as far ahead as it may: so answers come back while bytes go out.
    fn turn(&mut self, walked: bool) -> Result<Turn, CopyError> {
        let mut state = self.shared.lock();
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        let (files, bytes) = std::mem::take(&mut state.had);
        self.tally.progress.done_files += files;
        self.tally.progress.done_bytes += bytes;
        let ahead = state.unanswered.len() + state.jobs.len();
        let may_walk = !walked && ahead < MAX_UNANSWERED && self.walk.open_beside() < MAX_OPEN_DIRS;
        Ok(if may_walk {
            Turn::Walk
        } else if let Some(job) = state.jobs.pop_front() {
            Turn::Job(job)
        } else if state.unanswered.is_empty() {
            if walked { Turn::Over } else { Turn::Walk }
        } else {
            Turn::Wait
        })
    }

    /// When writing fails, what the other end said before says more.
    fn better(&self, error: CopyError) -> CopyError {
        if !matches!(error, CopyError::Broken(_)) {
            return error;
        }
        let state = self.shared.lock();
        // It is over once the pipe is: not for ever, for the other direction may be open still.
        let patience = std::time::Duration::from_secs(1);
        let waiting = |state: &mut State| state.failed.is_none();
        let waited = self.shared.changed.wait_timeout_while(state, patience, waiting);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.failed.take().unwrap_or(error)
    }

    fn tell(&mut self, step: Step) -> Result<(), CopyError> {
        match step {
            Step::File { folder, name, sent_as, meta } => {
                let id = self.next_id;
                self.next_id += 1;
                self.tally.progress.named_files += 1;
                self.tally.progress.named_bytes += meta.size;
                let sent = sent_as.unwrap_or_else(|| name.clone());
                // Before it is sent: the answer may be quick.
                self.shared.lock().unanswered.push_back(Named { id, folder, name, meta });
                self.output.send(&Frame::File { name: sent.as_bytes(), meta })?;
                self.tally.tell(|| None);
            }
            Step::Dir { name, mode, mtime, path } => {
                self.output.send(&Frame::Dir { name: name.as_bytes(), mode, mtime })?;
                self.tally.tell(|| Some(path.to_string_lossy().into_owned()));
            }
            Step::Link { name, target, mtime } => {
                self.output.send(&Frame::Link { name: name.as_bytes(), target: target.as_bytes(), mtime })?;
            }
            Step::Leave { complete } => self.output.send(&Frame::Leave { complete })?,
            Step::Passed { name, path, why } => {
                if why.is_worth_a_word() {
                    self.problem(&path, ErrorCode::CopyStorage, why.to_string())?;
                }
                if let Some(name) = &name {
                    self.output.send(&Frame::Passed { name: name.as_bytes() })?;
                }
            }
            Step::Unlisted { path, error } => {
                self.problem(&path, ErrorCode::CopyStorage, error.to_string())?;
            }
        }
        Ok(())
    }

    fn problem(&mut self, path: &Path, code: ErrorCode, message: String) -> Result<(), CopyError> {
        self.problems += 1;
        let bytes = path.as_os_str().as_bytes();
        self.output.send(&Frame::Problem { code: code.as_str(), path: bytes, message: &message })?;
        let path = path.to_string_lossy().into_owned();
        self.tally.problem(&CopyProblem { side: CopyRole::Source, code, path, message });
        Ok(())
    }

    fn send_file(&mut self, file: &Named, from: u64) -> Result<(), CopyError> {
        let shown = file.folder.shown(&file.name);
        self.tally.tell(|| Some(shown.to_string_lossy().into_owned()));
        let opened = at::open_read_at(&file.folder.fd, &file.name, self.links).and_then(|opened| {
            let stat = at::stat_of(&opened)?;
            Ok((opened, stat))
        });
        let (mut opened, before) = match opened {
            Ok((opened, stat)) if stat.kind == Kind::File && from <= stat.size => (opened, stat),
            other => {
                let (code, why) = match other {
                    Ok(_) => (ErrorCode::CopyMismatch, "it changed while it was copied".to_owned()),
                    Err(error) => (ErrorCode::CopyStorage, error.to_string()),
                };
                self.problem(&shown, code, why)?;
                self.output.send(&Frame::Begin { id: file.id, offset: 0, meta: file.meta })?;
                self.output.send(&Frame::End { end: FileEnd::Failed })?;
                self.done(file.meta.size);
                return Ok(());
            }
        };
        let meta = meta_of(&before);
        self.output.send(&Frame::Begin { id: file.id, offset: from, meta })?;
        // Said of what was named, so that it adds up.
        self.tally.progress.done_bytes += from;
        let mut at = from;
        let mut read = || -> std::io::Result<Result<FileEnd, CopyError>> {
            if from > 0 {
                std::io::Seek::seek(&mut opened, std::io::SeekFrom::Start(from))?;
            }
            while at < meta.size {
                let want = usize::try_from(meta.size - at).unwrap_or(MAX_BLOCK).min(MAX_BLOCK);
                let count = read_full(&mut opened, &mut self.block[DATA_HEAD..DATA_HEAD + want])?;
                if count < want {
                    return Ok(Ok(FileEnd::Changed));
                }
                if let Err(error) = self.output.send_data(&mut self.block, count) {
                    return Ok(Err(error));
                }
                at += count as u64;
                self.tally.progress.moved_bytes += count as u64;
                self.tally.progress.done_bytes += count as u64;
                self.tally.tell(|| Some(shown.to_string_lossy().into_owned()));
            }
            let whole = at::stat_of(&opened)?.is_as_before(&before);
            Ok(Ok(if whole { FileEnd::Whole } else { FileEnd::Changed }))
        };
        let end = match read() {
            Ok(Ok(FileEnd::Changed)) => {
                let why = "it changed while it was copied".to_owned();
                self.problem(&shown, ErrorCode::CopyMismatch, why)?;
                FileEnd::Changed
            }
            Ok(Ok(end)) => end,
            Ok(Err(error)) => return Err(error),
            Err(error) => {
                self.problem(&shown, ErrorCode::CopyStorage, error.to_string())?;
                FileEnd::Failed
            }
        };
        self.output.send(&Frame::End { end })?;
        self.done(0);
        Ok(())
    }

    fn done(&mut self, bytes: u64) {
        self.tally.progress.done_files += 1;
        self.tally.progress.done_bytes += bytes;
    }
}

/// Reads until the room is full or the file ends.
pub(super) fn read_full(file: &mut impl Read, room: &mut [u8]) -> std::io::Result<usize> {
    let mut count = 0;
    while count < room.len() {
        match file.read(&mut room[count..]) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// The thread that takes the sink's answers in.
struct Answers<R> {
    input: FrameReader<R>,
    shared: Arc<Shared>,
    links: Links,
    /// The file whose basis is being compared.
    basis: Option<Comparison>,
}

/// How far a sink's basis is the same as the file.
struct Comparison {
    id: u64,
    /// Absent if the file cannot be read: then nothing is the same.
    file: Option<std::fs::File>,
    chunk: Vec<u8>,
    /// Bytes that digests came for, in whole chunks or to the end of the file.
    covered: u64,
    same: u64,
    differs: bool,
}

impl<R: Read> Answers<R> {
    fn take_all(&mut self, observer: &dyn CopyObserver) -> Result<SinkTotals, CopyError> {
        self.input.greet(CopyRole::Sink)?;
        loop {
            match self.input.next()? {
                Frame::Have { id } => {
                    let mut state = self.shared.lock();
                    let file = take_named(&mut state, id)?;
                    state.had.0 += 1;
                    state.had.1 += file.meta.size;
                }
                Frame::Want { id, basis } => self.want(id, basis)?,
                Frame::Basis { id, digests } => {
                    let comparison = match &mut self.basis {
                        Some(comparison) => comparison,
                        none => none.insert(Comparison::begin(&self.shared, self.links, id)?),
                    };
                    comparison.go_on(id, digests)?;
                    continue;
                }
                Frame::Problem { code, path, message } => {
                    observer.problem(&problem_of(CopyRole::Sink, code, path, message));
                    continue;
                }
                Frame::Fatal { code, message } => return Err(peer(code, message)),
                Frame::Finished(totals) => return Ok(totals),
                _ => return Err(CopyError::OutOfTurn("a sink says no such thing")),
            }
            self.shared.changed.notify_all();
        }
    }

    fn want(&mut self, id: u64, basis: Basis) -> Result<(), CopyError> {
        let comparison = self.basis.take().filter(|comparison| comparison.id == id);
        let (same, covered) = comparison.map_or((0, 0), |comparison| (comparison.same, comparison.covered));
        let mut state = self.shared.lock();
        let file = take_named(&mut state, id)?;
        let job = match basis {
            Basis::None => Job::Send { file, from: 0 },
            Basis::Part(length) | Basis::Whole(length) if length > file.meta.size || covered < length => {
                return Err(CopyError::OutOfTurn("it has more of a file than there is"));
            }
            Basis::Part(length) => Job::Send { file, from: same.min(length) },
            Basis::Whole(length) if same == length => {
                state.had.0 += 1;
                state.had.1 += file.meta.size;
                Job::Same { id }
            }
            Basis::Whole(_) => Job::Send { file, from: 0 },
        };
        state.jobs.push_back(job);
        Ok(())
    }
}

/// Takes the file that the sink answers: they are answered in order.
fn take_named(state: &mut State, id: u64) -> Result<Named, CopyError> {
    match state.unanswered.pop_front() {
        Some(file) if file.id == id => Ok(file),
        _ => Err(CopyError::OutOfTurn("it answers what was not asked")),
    }
}

/// Makes a problem of what the other end says.
pub(super) fn problem_of(side: CopyRole, code: &str, path: &[u8], message: &str) -> CopyProblem {
    CopyProblem {
        side,
        code: code.parse().unwrap_or(ErrorCode::Unknown),
        path: OsStr::from_bytes(path).to_string_lossy().into_owned(),
        message: message.to_owned(),
    }
}

impl Comparison {
    fn begin(shared: &Shared, links: Links, id: u64) -> Result<Self, CopyError> {
        let state = shared.lock();
        let Some(named) = state.unanswered.front().filter(|file| file.id == id) else {
            return Err(CopyError::OutOfTurn("it compares what was not asked"));
        };
        let opened = at::open_read_at(&named.folder.fd, &named.name, links);
        let file = opened.ok().filter(|file| at::stat_of(file).is_ok_and(|stat| stat.kind == Kind::File));
        drop(state);
        let chunk = vec![0; usize::try_from(CHUNK).unwrap_or(usize::MAX)];
        Ok(Self { id, file, chunk, covered: 0, same: 0, differs: false })
    }

    fn go_on(&mut self, id: u64, digests: &[u8]) -> Result<(), CopyError> {
        if id != self.id {
            return Err(CopyError::OutOfTurn("it compares two files at once"));
        }
        for digest in digests.chunks_exact(DIGEST) {
            self.covered += CHUNK;
            if self.differs {
                continue;
            }
            let count = match &mut self.file {
                // What cannot be read here cannot be read when it is sent, which will say why.
                Some(file) => read_full(file, &mut self.chunk).unwrap_or(0),
                None => 0,
            };
            self.differs = count == 0 || blake3::hash(&self.chunk[..count]).as_bytes() != digest;
            if !self.differs {
                self.same += count as u64;
            }
        }
        Ok(())
    }
}
