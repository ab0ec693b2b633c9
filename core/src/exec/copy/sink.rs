//! The end that writes.

mod files;
mod folders;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use malai_model::code::ErrorCode;
use malai_model::wire::copy::{
    Basis, CHUNK, CopyRole, DIGEST, FileEnd, FileMeta, Frame, MAX_DEPTH, MAX_DIGESTS, MAX_OPEN_DIRS,
    MAX_UNANSWERED, Mtime, SinkTotals,
};

use super::at::{self, Kind, Stat};
use super::channel::{FrameReader, FrameWriter, peer};
use super::delete::delete_others;
use super::observe::Tally;
use super::part::{Part, is_part_name, part_name};
use super::receive::{Queue, Receiving, Refused, Wanted};
use super::roots::{RootGuard, Roots};
use super::source::{problem_of, read_full};
use super::{CopyError, CopyObserver, CopyProblem, Links, PathLinks};

/// How many unfinished copies may be offered at once: each holds a file open.
const OFFERED: usize = 16;

/// What becomes of what the destination has and the source has not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Extraneous {
    /// It stays.
    #[default]
    Keep,
    /// It is deleted, in directories that are copied.
    Delete,
}

/// When a file that is there is taken to be the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compare {
    /// If its size and time are.
    #[default]
    Times,
    /// If its bytes are.
    Content,
}

/// Where and how a sink writes.
#[derive(Debug, Clone)]
pub struct SinkRequest {
    /// An existing directory is written into; one with a slash at the end is made if it is not there. Anything else is
    /// what the one root of the source will be called.
    pub destination: PathBuf,
    /// What becomes of what the source does not have.
    pub extraneous: Extraneous,
    /// When a file needs not be copied.
    pub compare: Compare,
    /// What the source was asked for; absent: whoever runs the source decides.
    pub roots: Option<Roots>,
    /// What becomes of links on the way to the destination.
    pub path_links: PathLinks,
}

/// An open directory of the destination. When the last that needs it lets go, it gets its mode and time.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    path: PathBuf,
    parent: Option<Rc<Folder>>,
    /// What it gets at the end; absent for a directory that was only written into.
    meta: Option<(u16, Mtime)>,
    /// What the source has in it; present if the rest is to be deleted.
    names: Option<RefCell<HashSet<Vec<u8>>>>,
    /// Whether the source has told all that it has.
    told_all: Cell<bool>,
    open: Rc<Cell<usize>>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

impl Folder {
    fn note(&self, name: &OsStr) {
        if let Some(names) = &self.names {
            names.borrow_mut().insert(name.as_bytes().to_vec());
        }
    }
}

/// Where the roots of the source go.
#[derive(Debug)]
enum Top {
    Into(Rc<Folder>),
    As { parent: Rc<Folder>, name: OsString, used: bool },
}

#[derive(Debug)]
enum Level {
    In(Rc<Folder>),
    /// It could not be made or entered: what comes for it is not wanted.
    Nowhere,
}

struct Sink<R, W: Write> {
    input: FrameReader<R>,
    output: FrameWriter<W>,
    request: SinkRequest,
    open: Rc<Cell<usize>>,
    /// Absent once all is done.
    top: Option<Top>,
    levels: Vec<Level>,
    next_id: u64,
    wanted: Queue,
    receiving: Option<Receiving>,
    guard: Option<RootGuard>,
    totals: SinkTotals,
    tally: Tally,
}

/// Writes what the source at the other end sends. Returns what it did, and how many problems the source had.
///
/// # Errors
/// When the destination cannot be used, or the other end goes away, gives up, breaks the protocol or sends what was not
/// asked for.
pub fn run_sink(
    input: impl Read,
    output: impl Write,
    request: SinkRequest,
    observer: Arc<dyn CopyObserver>,
) -> Result<(SinkTotals, u64), CopyError> {
    let (mut input, mut output) = (FrameReader::new(input), FrameWriter::new(output));
    let open = Rc::new(Cell::new(0));
    let top = match Top::find(&request, &open) {
        Ok(top) => top,
        Err(source) => {
            let error = CopyError::Destination { path: request.destination, source };
            last_words(&mut output, &error);
            return Err(error);
        }
    };
    output.greet(CopyRole::Sink)?;
    input.greet(CopyRole::Source)?;
    let guard = request.roots.clone().map(RootGuard::new);
    let mut sink = Sink {
        input,
        output,
        request,
        open,
        top: Some(top),
        levels: Vec::new(),
        next_id: 0,
        wanted: Queue::default(),
        receiving: None,
        guard,
        totals: SinkTotals::default(),
        tally: Tally::new(observer),
    };
    let outcome = sink.take_all();
    if let Err(error) = &outcome {
        last_words(&mut sink.output, error);
    }
    outcome.map(|problems| (sink.totals, problems))
}

/// Tells the other end why this one gives up, if that is not the other end's own doing.
pub(super) fn last_words(output: &mut FrameWriter<impl Write>, error: &CopyError) {
    if matches!(error, CopyError::Broken(_) | CopyError::Peer { .. }) {
        return;
    }
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    let message = format!("{error}{cause}");
    // If it cannot be told any more, it notices the end.
    _ = output.send(&Frame::Fatal { code: error.code().as_str(), message: &message });
    _ = output.flush();
}

impl Top {
    fn find(request: &SinkRequest, open: &Rc<Cell<usize>>) -> io::Result<Self> {
        let path = &request.destination;
        let delete = request.extraneous == Extraneous::Delete;
        let into = |fd| Self::Into(folder(fd, path.clone(), None, None, delete, open));
        let slash = path.as_os_str().as_bytes().ends_with(b"/");
        let links = request.path_links;
        match at::open_dir_path(path, links) {
            Ok(fd) => return Ok(into(fd)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && slash => {
                at::make_dir_path(path, links)?;
                return Ok(into(at::open_dir_path(path, links)?));
            }
            // Something that is no directory may be replaced, unless a directory was asked for.
            Err(error) if slash => return Err(error),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
                    || error.raw_os_error() == Some(nix::libc::ELOOP) => {}
            Err(error) => return Err(error),
        }
        let name = super::walk::root_name(path).ok_or(io::ErrorKind::NotFound)?;
        let shown = path.parent().unwrap_or(Path::new("")).to_owned();
        let parent = folder(at::open_dir_path(at::parent_of(path), links)?, shown, None, None, false, open);
        Ok(Self::As { parent, name, used: false })
    }
}

fn folder(
    fd: OwnedFd,
    path: PathBuf,
    parent: Option<Rc<Folder>>,
    meta: Option<(u16, Mtime)>,
    delete: bool,
    open: &Rc<Cell<usize>>,
) -> Rc<Folder> {
    open.set(open.get() + 1);
    let names = delete.then(RefCell::default);
    Rc::new(Folder { fd, path, parent, meta, names, told_all: Cell::new(false), open: open.clone() })
}

impl<R: Read, W: Write> Sink<R, W> {
    fn take_all(&mut self) -> Result<u64, CopyError> {
        loop {
            if self.input.is_empty() {
                self.output.flush()?;
            }
            let frame = self.input.next()?;
            if let Some(guard) = &mut self.guard {
                guard.see(&frame)?;
            }
            match frame {
                Frame::File { name, meta } => {
                    let name = OsStr::from_bytes(name).to_owned();
                    self.file(name, meta)?;
                }
                Frame::Dir { name, mode, mtime } => {
                    let name = OsStr::from_bytes(name).to_owned();
                    self.dir(name, mode, mtime)?;
                }
                Frame::Leave { complete } => self.leave(complete)?,
                Frame::Link { name, target, mtime } => {
                    let (name, target) =
                        (OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(target).to_owned());
                    self.link(name, &target, mtime)?;
                }
                Frame::Passed { name } => {
                    let name = OsStr::from_bytes(name).to_owned();
                    if let Some(Level::In(folder)) = self.levels.last() {
                        folder.note(&name);
                    }
                }
                Frame::Begin { id, offset, meta } => self.begin(id, offset, meta)?,
                Frame::Data { digest, bytes } => {
                    let Some(receiving) = &mut self.receiving else {
                        return Err(CopyError::OutOfTurn("bytes of no file"));
                    };
                    let count = bytes.len() as u64;
                    let taken = receiving.take(bytes, digest);
                    self.taken(count, taken)?;
                }
                Frame::End { end } => self.end(end)?,
                Frame::Same { id } => self.same(id)?,
                Frame::Problem { code, path, message } => {
                    self.tally.problem(&problem_of(CopyRole::Source, code, path, message));
                }
                Frame::Fatal { code, message } => return Err(peer(code, message)),
                Frame::Done { problems } => {
                    self.done()?;
                    return Ok(problems);
                }
                _ => return Err(CopyError::OutOfTurn("a source says no such thing")),
            }
        }
    }

    /// Finds where something of that name goes; `None`: nowhere.
    fn place(&mut self, name: OsString) -> Result<Option<(Rc<Folder>, OsString)>, CopyError> {
        let (folder, name) = match (self.levels.last(), &mut self.top) {
            (Some(Level::In(folder)), _) => (folder.clone(), name),
            (None, Some(Top::Into(folder))) => (folder.clone(), name),
            (Some(Level::Nowhere), _) => return Ok(None),
            (None, Some(Top::As { parent, name, used: used @ false })) => {
                *used = true;
                (parent.clone(), name.clone())
            }
            (None, _) => return Err(CopyError::OutOfTurn("it has more than the one root that has a name")),
        };
        folder.note(&name);
        if is_part_name(&name) {
            self.problem(
                &folder.path.join(&name),
                ErrorCode::CopyOutside,
                "the name of an unfinished copy".into(),
            )?;
            return Ok(None);
        }
        Ok(Some((folder, name)))
    }

    fn done(&mut self) -> Result<(), CopyError> {
        if !self.levels.is_empty() || !self.wanted.files.is_empty() || self.receiving.is_some() {
            return Err(CopyError::OutOfTurn("an end before the end"));
        }
        if let Some(Top::Into(folder) | Top::As { parent: folder, .. }) = self.top.take() {
            self.release(folder)?;
        }
        self.tally.tell_now();
        self.output.send(&Frame::Finished(self.totals))?;
        self.output.flush()
    }

    fn failed(&mut self, folder: &Folder, name: &OsStr, error: &io::Error) -> Result<(), CopyError> {
        self.problem(&folder.path.join(name), ErrorCode::CopyStorage, error.to_string())
    }

    fn problem(&mut self, path: &Path, code: ErrorCode, message: String) -> Result<(), CopyError> {
        self.totals.problems += 1;
        let bytes = path.as_os_str().as_bytes();
        self.output.send(&Frame::Problem { code: code.as_str(), path: bytes, message: &message })?;
        let path = path.to_string_lossy().into_owned();
        self.tally.problem(&CopyProblem { side: CopyRole::Sink, code, path, message });
        Ok(())
    }
}

/// Opens a directory that is there, or makes it. A link of that name is replaced: nothing is written through it.
fn enter(parent: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let opened = at::open_dir_at(parent, name, Links::Keep);
    match at::find_at(parent, name)? {
        _ if opened.is_ok() => return opened,
        None => {}
        Some(there) if there.kind == Kind::Link => at::unlink_at(parent, name)?,
        Some(there) if there.kind == Kind::Dir => return opened,
        Some(_) => return Err(io::Error::other("a file is here, and a directory comes")),
    }
    at::make_dir_at(parent, name)?;
    at::open_dir_at(parent, name, Links::Keep)
}
