//! Walking the trees of a source, one name at a time.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use malai_model::wire::copy::{FileMeta, MAX_DEPTH, MAX_PATH, Mtime, is_component};

use super::at::{self, Kind, Listing, Stat};
use super::{Links, PathLinks, part};

/// An open directory of the source.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    /// As the user calls it.
    path: PathBuf,
    open: Arc<AtomicUsize>,
}

impl Folder {
    fn new(fd: OwnedFd, path: PathBuf, open: &Arc<AtomicUsize>) -> Arc<Self> {
        open.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { fd, path, open: open.clone() })
    }

    /// How a name in it is shown.
    pub(super) fn shown(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a step of the walk came upon.
#[derive(Debug)]
pub(super) enum Step {
    File {
        folder: Arc<Folder>,
        name: OsString,
        sent_as: Option<OsString>,
        meta: FileMeta,
    },
    /// Entered; without a name if it is a root that stands for what is in it.
    Dir {
        name: OsString,
        mode: u16,
        mtime: Mtime,
        path: PathBuf,
    },
    Link {
        name: OsString,
        target: OsString,
        mtime: Mtime,
    },
    Leave {
        complete: bool,
    },
    /// It is here, but it is not copied.
    Passed {
        name: Option<OsString>,
        path: PathBuf,
        why: Why,
    },
    /// A directory could not be listed to its end.
    Unlisted {
        path: PathBuf,
        error: io::Error,
    },
}

/// Why something is not copied.
#[derive(Debug)]
pub(super) enum Why {
    Failed(io::Error),
    Special,
    TooDeep,
    Loop,
    Unnameable,
    Unfinished,
}

/// A walk that is under way.
#[derive(Debug)]
pub(super) struct Walk {
    roots: VecDeque<PathBuf>,
    links: Links,
    path_links: PathLinks,
    levels: Vec<Level>,
    open: Arc<AtomicUsize>,
    /// Whether everything could be listed so far.
    complete: bool,
}

#[derive(Debug)]
struct Level {
    folder: Arc<Folder>,
    /// Absent after it failed.
    names: Option<Listing>,
    id: (u64, u64),
}

pub(super) fn meta_of(stat: &Stat) -> FileMeta {
    FileMeta { size: stat.size, mtime: stat.mtime, mode: stat.mode & 0o777 }
}

impl Walk {
    pub(super) fn new(roots: Vec<PathBuf>, links: Links, path_links: PathLinks) -> Self {
        Self {
            roots: roots.into(),
            links,
            path_links,
            levels: Vec::new(),
            open: Arc::default(),
            complete: true,
        }
    }

    /// How many directories are open beside those that the walk is in.
    pub(super) fn open_beside(&self) -> usize {
        self.open.load(Ordering::Relaxed).saturating_sub(self.levels.len())
    }

    /// Takes the next step; `None` at the end.
    pub(super) fn step(&mut self) -> Option<Step> {
        let Some(level) = self.levels.last_mut() else {
            let root = self.roots.pop_front()?;
            return Some(self.root(root));
        };
        match level.names.as_mut().and_then(Iterator::next) {
            None => {
                self.levels.pop();
                Some(Step::Leave { complete: self.complete })
            }
            Some(Err(error)) => {
                self.complete = false;
                level.names = None;
                let path = level.folder.path.clone();
                Some(Step::Unlisted { path, error })
            }
            Some(Ok((name, _))) => {
                let folder = level.folder.clone();
                Some(self.entry(folder, name))
            }
        }
    }

    fn root(&mut self, path: PathBuf) -> Step {
        let (name, result) = (root_name(&path), at::stat_path(&path, self.path_links));
        let passed =
            |name: &Option<OsString>, why| Step::Passed { name: name.clone(), path: path.clone(), why };
        let stat = match result {
            Ok(stat) => stat,
            Err(error) => {
                self.complete = false;
                return passed(&name, Why::Failed(error));
            }
        };
        match (stat.kind, name) {
            (Kind::Dir, name) => match at::open_dir_path(&path, self.path_links) {
                Ok(fd) => self.enter(fd, name.unwrap_or_default(), path),
                Err(error) => {
                    self.complete = false;
                    passed(&name, Why::Failed(error))
                }
            },
            (Kind::File, Some(name)) => {
                // The root may be a link, which is followed: so it is the real one that is opened.
                let real = match self.path_links {
                    PathLinks::Follow => path.canonicalize(),
                    PathLinks::Refuse => Ok(path.clone()),
                };
                let opened = real.and_then(|real| {
                    let last = real.file_name().ok_or(io::ErrorKind::NotFound)?.to_owned();
                    Ok((at::open_dir_path(at::parent_of(&real), self.path_links)?, last))
                });
                match opened {
                    Ok((fd, last)) => {
                        let shown = path.parent().unwrap_or(Path::new("")).to_owned();
                        let folder = Folder::new(fd, shown, &self.open);
                        Step::File { folder, name: last, sent_as: Some(name), meta: meta_of(&stat) }
                    }
                    Err(error) => passed(&Some(name), Why::Failed(error)),
                }
            }
            (_, name) => passed(&name, Why::Special),
        }
    }

    fn entry(&mut self, folder: Arc<Folder>, name: OsString) -> Step {
        let path = folder.shown(&name);
        if !is_component(name.as_bytes()) {
            self.complete = false;
            return Step::Passed { name: None, path, why: Why::Unnameable };
        }
        if part::is_part_name(&name) {
            return Step::Passed { name: Some(name), path, why: Why::Unfinished };
        }
        match self.look(&folder, &name) {
            Ok(step) => step,
            Err(why) => {
                self.complete &= !matches!(why, Why::Failed(_) | Why::TooDeep);
                Step::Passed { name: Some(name), path, why }
            }
        }
    }

    fn look(&mut self, folder: &Arc<Folder>, name: &OsStr) -> Result<Step, Why> {
        let stat = at::stat_at(&folder.fd, name, self.links).map_err(Why::Failed)?;
        match stat.kind {
            Kind::File => Ok(Step::File {
                folder: folder.clone(),
                name: name.to_owned(),
                sent_as: None,
                meta: meta_of(&stat),
            }),
            Kind::Link => {
                let target = at::read_link_at(&folder.fd, name).map_err(Why::Failed)?;
                if target.is_empty() || target.len() > MAX_PATH {
                    return Err(Why::Unnameable);
                }
                Ok(Step::Link { name: name.to_owned(), target, mtime: stat.mtime })
            }
            Kind::Dir => {
                if self.levels.len() >= MAX_DEPTH {
                    return Err(Why::TooDeep);
                }
                if self.links == Links::Follow && self.levels.iter().any(|level| level.id == stat.id) {
                    return Err(Why::Loop);
                }
                let fd = at::open_dir_at(&folder.fd, name, self.links).map_err(Why::Failed)?;
                Ok(self.enter(fd, name.to_owned(), folder.shown(name)))
            }
            Kind::Other => Err(Why::Special),
        }
    }

    fn enter(&mut self, fd: OwnedFd, name: OsString, path: PathBuf) -> Step {
        let opened = at::stat_of(&fd).and_then(|stat| Ok((stat, Listing::of(&fd)?)));
        match opened {
            Ok((stat, names)) => {
                let folder = Folder::new(fd, path.clone(), &self.open);
                self.levels.push(Level { folder, names: Some(names), id: stat.id });
                Step::Dir { name, mode: stat.mode, mtime: stat.mtime, path }
            }
            Err(error) => {
                self.complete = false;
                Step::Passed {
                    name: Some(name).filter(|name| !name.is_empty()),
                    path,
                    why: Why::Failed(error),
                }
            }
        }
    }
}

/// What a root is called at the destination; `None` if it stands for what is in it: `.`, `/`, `x/.`, `..`.
pub(super) fn root_name(path: &Path) -> Option<OsString> {
    let bytes = path.as_os_str().as_bytes();
    let trimmed = &bytes[..bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1)];
    // By hand: `Path` passes over a last `.`.
    let last = trimmed.rsplit(|byte| *byte == b'/').next()?;
    is_component(last).then(|| OsStr::from_bytes(last).to_owned())
}

impl Why {
    pub(super) fn is_worth_a_word(&self) -> bool {
        !matches!(self, Self::Unfinished)
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error}"),
            Self::Special => f.write_str("neither a file nor a directory nor a link: not copied"),
            Self::TooDeep => write!(f, "more than {MAX_DEPTH} directories deep: not copied"),
            Self::Loop => f.write_str("a link to a directory that it is in: not followed"),
            Self::Unnameable => f.write_str("a name or target that is too long: not copied"),
            Self::Unfinished => f.write_str("an unfinished copy: not copied"),
        }
    }
}
