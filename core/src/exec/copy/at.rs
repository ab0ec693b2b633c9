//! The system calls on one name in an open directory. None of them follows a link unless it is told to.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use malai_model::wire::copy::Mtime;
use nix::dir::{Dir, OwningIter, Type};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::{Links, PathLinks};

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    Link,
    Other,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) mtime: Mtime,
    ctime: Mtime,
    /// With the sticky bit, without set-user and set-group.
    pub(super) mode: u16,
    pub(super) links: u64,
    pub(super) uid: u32,
    pub(super) id: (u64, u64),
}

#[expect(
    clippy::unnecessary_cast,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "the types of these fields differ between systems"
)]
fn stat(raw: &FileStat) -> Stat {
    let kind = match SFlag::from_bits_truncate(raw.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFDIR => Kind::Dir,
        SFlag::S_IFLNK => Kind::Link,
        _ => Kind::Other,
    };
    Stat {
        kind,
        size: raw.st_size as u64,
        mtime: Mtime { secs: raw.st_mtime as i64, nanos: raw.st_mtime_nsec as u32 },
        ctime: Mtime { secs: raw.st_ctime as i64, nanos: raw.st_ctime_nsec as u32 },
        mode: (raw.st_mode as u32 & 0o1777) as u16,
        links: raw.st_nlink as u64,
        uid: raw.st_uid as u32,
        id: (raw.st_dev as u64, raw.st_ino as u64),
    }
}

impl Stat {
    /// Says whether a file is as it was: neither its bytes nor anything about it was changed.
    pub(super) fn is_as_before(&self, before: &Self) -> bool {
        self.size == before.size && self.mtime == before.mtime && self.ctime == before.ctime
    }
}

fn flags(links: Links) -> OFlag {
    let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    match links {
        Links::Keep => flags | OFlag::O_NOFOLLOW,
        Links::Follow => flags,
    }
}

pub(super) fn stat_of(fd: impl AsFd) -> io::Result<Stat> {
    Ok(stat(&fstat(fd)?))
}

pub(super) fn stat_at(dir: &OwnedFd, name: &OsStr, links: Links) -> io::Result<Stat> {
    let flags = match links {
        Links::Keep => AtFlags::AT_SYMLINK_NOFOLLOW,
        Links::Follow => AtFlags::empty(),
    };
    Ok(stat(&fstatat(dir, name, flags)?))
}

/// Looks at what a path of the user's leads to.
pub(super) fn stat_path(path: &Path, links: PathLinks) -> io::Result<Stat> {
    if links == PathLinks::Follow {
        return Ok(stat(&fstatat(AT_FDCWD, path, AtFlags::empty())?));
    }
    let Some(name) = path.file_name() else { return stat_of(open_dir_path(path, links)?) };
    let there = stat_at(&open_dir_path(parent_of(path), links)?, name, Links::Keep)?;
    if there.kind == Kind::Link { Err(a_link()) } else { Ok(there) }
}

/// Opens the directory that a path of the user's leads to.
pub(super) fn open_dir_path(path: &Path, links: PathLinks) -> io::Result<OwnedFd> {
    let reading = flags(Links::Follow) | OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    if links == PathLinks::Follow {
        return Ok(openat(AT_FDCWD, path, reading, Mode::empty())?);
    }
    // One component at a time: whatever is swapped meanwhile, no link is followed.
    let start = if path.is_absolute() { Path::new("/") } else { Path::new(".") };
    let mut dir = openat(AT_FDCWD, start, PASSING | OFlag::O_CLOEXEC, Mode::empty())?;
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::ParentDir => OsStr::new(".."),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => continue,
        };
        let entered = openat(&dir, name, PASSING | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
        dir = match entered {
            Ok(entered) => entered,
            Err(_) if find_at(&dir, name)?.is_some_and(|there| there.kind == Kind::Link) => {
                return Err(a_link());
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(openat(&dir, ".", reading, Mode::empty())?)
}

/// Makes the directory that a path of the user's means.
pub(super) fn make_dir_path(path: &Path, links: PathLinks) -> io::Result<()> {
    let Some(name) = path.file_name().filter(|_| links == PathLinks::Refuse) else {
        return std::fs::create_dir(path);
    };
    Ok(mkdirat(&open_dir_path(parent_of(path), links)?, name, Mode::from_bits_truncate(0o777))?)
}

/// How a directory is opened that is only passed through: without a right to list it.
#[cfg(any(target_os = "linux", target_os = "android"))]
const PASSING: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const PASSING: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY);

pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn a_link() -> io::Error {
    io::Error::other(
        "a symbolic link lies in the path, and the rule that lets you in restricts paths: name what it leads to",
    )
}

/// As [`stat_at`] without following; `None` if there is nothing.
pub(super) fn find_at(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<Stat>> {
    match stat_at(dir, name, Links::Keep) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn open_dir_at(dir: &OwnedFd, name: &OsStr, links: Links) -> io::Result<OwnedFd> {
    Ok(openat(dir, name, flags(links) | OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?)
}

/// Opens for reading whatever is there: a pipe does not make it wait. Whether it is a file is the caller's to see.
pub(super) fn open_read_at(dir: &OwnedFd, name: &OsStr, links: Links) -> io::Result<File> {
    Ok(openat(dir, name, flags(links) | OFlag::O_RDONLY, Mode::empty())?.into())
}

/// Makes a file that must not be there.
pub(super) fn make_file_at(dir: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = flags(Links::Keep) | OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
    Ok(openat(dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into())
}

pub(super) fn open_write_at(dir: &OwnedFd, name: &OsStr) -> io::Result<File> {
    Ok(openat(dir, name, flags(Links::Keep) | OFlag::O_RDWR, Mode::empty())?.into())
}

/// Makes a directory that only its owner can use so far.
pub(super) fn make_dir_at(dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
    Ok(mkdirat(dir, name, Mode::S_IRWXU)?)
}

pub(super) fn make_link_at(dir: &OwnedFd, name: &OsStr, target: &OsStr) -> io::Result<()> {
    Ok(symlinkat(target, dir, name)?)
}

pub(super) fn read_link_at(dir: &OwnedFd, name: &OsStr) -> io::Result<OsString> {
    Ok(readlinkat(dir, name)?)
}

pub(super) fn rename_at(dir: &OwnedFd, from: &OsStr, to: &OsStr) -> io::Result<()> {
    Ok(renameat(dir, from, dir, to)?)
}

pub(super) fn unlink_at(dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
    Ok(unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?)
}

pub(super) fn remove_dir_at(dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
    Ok(unlinkat(dir, name, UnlinkatFlags::RemoveDir)?)
}

pub(super) fn set_mode(fd: impl AsFd, mode: u16) -> io::Result<()> {
    Ok(fchmod(fd, Mode::from_bits_truncate(mode.into()))?)
}

fn time(mtime: Mtime) -> TimeSpec {
    #[expect(clippy::useless_conversion, reason = "the types of these fields differ between systems")]
    TimeSpec::new(mtime.secs.into(), mtime.nanos.into())
}

pub(super) fn set_mtime(fd: impl AsFd, mtime: Mtime) -> io::Result<()> {
    Ok(futimens(fd, &TimeSpec::UTIME_OMIT, &time(mtime))?)
}

pub(super) fn set_link_mtime(dir: &OwnedFd, name: &OsStr, mtime: Mtime) -> io::Result<()> {
    let flag = UtimensatFlags::NoFollowSymlink;
    Ok(utimensat(dir, name, &TimeSpec::UTIME_OMIT, &time(mtime), flag)?)
}

/// The names in a directory, as they come.
pub(super) struct Listing(OwningIter);

impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listing").finish_non_exhaustive()
    }
}

impl Listing {
    /// Lists a directory, by a descriptor of its own.
    pub(super) fn of(dir: &OwnedFd) -> io::Result<Self> {
        let own = open_dir_at(dir, OsStr::new("."), Links::Keep)?;
        Ok(Self(Dir::from_fd(own)?.into_iter()))
    }
}

impl Iterator for Listing {
    /// A name, and whether the directory says that it is another directory.
    type Item = io::Result<(OsString, bool)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.0.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            let name: &CStr = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                let name = OsStr::from_bytes(name.to_bytes()).to_owned();
                return Some(Ok((name, entry.file_type() == Some(Type::Directory))));
            }
        }
    }
}
