//! Deleting at the destination what the source does not have. Links are removed, never followed.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use malai_model::wire::copy::MAX_DEPTH;

use super::at::{self, Listing};
use super::{Links, part};

/// What deleting came to.
#[derive(Debug, Default)]
pub(super) struct Deleted {
    pub(super) count: u64,
    pub(super) failed: Vec<(PathBuf, io::Error)>,
}

/// How many failures are told one by one.
const TOLD: usize = 100;

impl Deleted {
    fn fail(&mut self, path: PathBuf, error: io::Error) {
        if self.failed.len() < TOLD {
            self.failed.push((path, error));
        }
    }
}

/// Deletes from a directory what is not among the names. What is unfinished of a name among them stays.
pub(super) fn delete_others(dir: &OwnedFd, path: &Path, names: &HashSet<Vec<u8>>) -> Deleted {
    let mut deleted = Deleted::default();
    let keep = |name: &OsStr| {
        names.contains(name.as_bytes()) || part::is_part_of(name, |whose| names.contains(whose))
    };
    delete_in(dir, path, 0, &mut deleted, &keep);
    deleted
}

fn delete_in(dir: &OwnedFd, path: &Path, depth: usize, deleted: &mut Deleted, keep: &dyn Fn(&OsStr) -> bool) {
    // Listed before anything goes: what a listing shows of a directory that changes differs between systems.
    let others = Listing::of(dir).and_then(|names| {
        names
            .filter(|entry| !entry.as_ref().is_ok_and(|(name, _)| keep(name)))
            .collect::<io::Result<Vec<_>>>()
    });
    match others {
        Ok(others) => others.into_iter().for_each(|(name, _)| delete_one(dir, path, &name, depth, deleted)),
        Err(error) => deleted.fail(path.to_owned(), error),
    }
}

fn delete_one(dir: &OwnedFd, path: &Path, name: &OsString, depth: usize, deleted: &mut Deleted) {
    let shown = path.join(name);
    // A directory is opened first: it and nothing that takes its place is emptied.
    let removed = match at::open_dir_at(dir, name, Links::Keep) {
        Ok(inner) if depth < MAX_DEPTH => {
            delete_in(&inner, &shown, depth + 1, deleted, &|_| false);
            at::remove_dir_at(dir, name)
        }
        Ok(_) => Err(io::Error::other("nested too deeply")),
        Err(_) => at::unlink_at(dir, name),
    };
    match removed {
        Ok(()) => deleted.count += 1,
        Err(error) => deleted.fail(shown, error),
    }
}
