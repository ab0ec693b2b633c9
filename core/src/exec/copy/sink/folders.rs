//! Directories and links.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::rc::Rc;

use malai_model::code::ErrorCode;

use super::at::{self, Kind};
use super::{
    CopyError, Extraneous, Folder, Level, MAX_DEPTH, MAX_OPEN_DIRS, Mtime, Sink, Top, delete_others, enter,
    folder, part_name,
};

impl<R: Read, W: Write> Sink<R, W> {
    pub(super) fn dir(&mut self, name: OsString, mode: u16, mtime: Mtime) -> Result<(), CopyError> {
        if self.levels.len() >= MAX_DEPTH || self.open.get() > MAX_DEPTH + MAX_OPEN_DIRS + 4 {
            return Err(CopyError::OutOfTurn("more directories at once than there may be"));
        }
        if name.is_empty() {
            match (self.levels.is_empty(), &self.top) {
                (false, _) => return Err(CopyError::OutOfTurn("a directory without a name")),
                (true, Some(Top::Into(folder))) => {
                    self.levels.push(Level::In(folder.clone()));
                    return Ok(());
                }
                (true, _) => {}
            }
        }
        let Some((parent, name)) = self.place(name)? else {
            self.levels.push(Level::Nowhere);
            return Ok(());
        };
        let path = parent.path.join(&name);
        match enter(&parent.fd, &name) {
            Ok(fd) => {
                let delete = self.request.extraneous == Extraneous::Delete;
                let entered = folder(fd, path, Some(parent), Some((mode, mtime)), delete, &self.open);
                self.levels.push(Level::In(entered));
            }
            Err(error) => {
                self.levels.push(Level::Nowhere);
                self.problem(&path, ErrorCode::CopyStorage, error.to_string())?;
            }
        }
        Ok(())
    }

    pub(super) fn leave(&mut self, complete: bool) -> Result<(), CopyError> {
        match self.levels.pop() {
            Some(Level::In(folder)) => {
                folder.told_all.set(complete);
                self.release(folder)
            }
            Some(Level::Nowhere) => Ok(()),
            None => Err(CopyError::OutOfTurn("the end of no directory")),
        }
    }

    pub(super) fn link(&mut self, name: OsString, target: &OsStr, mtime: Mtime) -> Result<(), CopyError> {
        let Some((folder, name)) = self.place(name)? else { return Ok(()) };
        let (fd, made) = (&folder.fd, at::find_at(&folder.fd, &name));
        let made = made.and_then(|there| match there {
            None => at::make_link_at(fd, &name, target).map(|()| true),
            Some(there) if there.kind == Kind::Dir => {
                Err(io::Error::other("a directory is here, and a link comes"))
            }
            Some(there) if there.kind == Kind::Link && at::read_link_at(fd, &name)? == target => {
                Ok(there.mtime != mtime)
            }
            Some(_) => {
                let part = part_name(&name);
                if at::find_at(fd, &part)?.is_some() {
                    at::unlink_at(fd, &part)?;
                }
                at::make_link_at(fd, &part, target)?;
                at::rename_at(fd, &part, &name).map(|()| true)
            }
        });
        let dated = made.and_then(|made| {
            if made {
                at::set_link_mtime(fd, &name, mtime)?;
            }
            Ok(made)
        });
        match dated {
            Ok(true) => self.totals.files += 1,
            Ok(false) => self.totals.skipped += 1,
            Err(error) => self.failed(&folder, &name, &error)?,
        }
        self.release(folder)
    }

    /// Lets a directory go; if nobody else needs it, it is complete: the rest is deleted, and it gets its mode and time.
    pub(super) fn release(&mut self, folder: Rc<Folder>) -> Result<(), CopyError> {
        let mut next = Some(folder);
        while let Some(mut folder) = next.take().and_then(Rc::into_inner) {
            if let Some(names) = folder.names.take()
                && folder.told_all.get()
            {
                let deleted = delete_others(&folder.fd, &folder.path, &names.into_inner());
                self.totals.deleted += deleted.count;
                for (path, error) in deleted.failed {
                    self.problem(&path, ErrorCode::CopyStorage, error.to_string())?;
                }
            }
            if let Some((mode, mtime)) = folder.meta {
                let dressed = at::set_mtime(&folder.fd, mtime).and_then(|()| at::set_mode(&folder.fd, mode));
                if let Err(error) = dressed {
                    self.problem(&folder.path, ErrorCode::CopyStorage, error.to_string())?;
                }
            }
            next = folder.parent.take();
        }
        Ok(())
    }
}
