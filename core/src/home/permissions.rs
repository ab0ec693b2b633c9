//! Who may read what: modes and owners, checked on what is open and not on a name that may change meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use super::HomeError;

/// The mode of every directory that malai makes.
pub(super) const DIR_MODE: u32 = 0o700;
/// The mode of every file that malai makes.
pub(super) const FILE_MODE: u32 = 0o600;

/// Makes a directory that this user alone may enter, or checks one that exists: it may be no symbolic link,
/// belongs to this user, and nobody else has a right on it.
///
/// # Errors
/// [`HomeError::WrongType`], [`HomeError::ForeignOwner`], [`HomeError::LoosePermissions`], [`HomeError::Io`].
pub fn ensure_private_dir(path: &Path) -> Result<(), HomeError> {
    match make_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(HomeError::io("make the directory", path, error)),
    }
    let kind = fs::symlink_metadata(path).map_err(|e| HomeError::io("look at", path, e))?.file_type();
    if !kind.is_dir() {
        return Err(HomeError::WrongType { path: path.into(), found: describe(kind), wanted: "a directory" });
    }
    let dir = open_nofollow(path).map_err(|e| HomeError::io("open", path, e))?;
    check_private(&dir, path, DIR_MODE)
}

/// Makes one directory, 0700.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    dir_builder().create(path)
}

/// Makes a directory and those above it that are missing, each 0700.
pub(super) fn make_dirs(path: &Path) -> io::Result<()> {
    dir_builder().recursive(true).create(path)
}

fn describe(kind: fs::FileType) -> &'static str {
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a plain file"
    } else {
        "a special file"
    }
}

/// Opens a plain file to read; `Ok(None)` if there is none. Something else of that name is refused without
/// waiting for it, as a pipe would make us.
pub(super) fn open_plain(path: &Path) -> Result<Option<File>, HomeError> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(nix::libc::O_NONBLOCK);
    }
    match options.open(path) {
        Ok(file) => plain(file, path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HomeError::io("open", path, error)),
    }
}

fn plain(file: File, path: &Path) -> Result<File, HomeError> {
    let kind = file.metadata().map_err(|e| HomeError::io("look at", path, e))?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    Err(HomeError::WrongType { path: path.into(), found: describe(kind), wanted: "a plain file" })
}

/// Opens a file that holds a secret; `Ok(None)` if there is none. A symbolic link, a foreign file or one that
/// others may read is refused; owner and mode are those of the open file, so nobody can swap it in between.
pub(super) fn open_secret(path: &Path) -> Result<Option<File>, HomeError> {
    match open_nofollow(path) {
        Ok(file) => {
            let file = plain(file, path)?;
            check_private(&file, path, FILE_MODE)?;
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => match fs::symlink_metadata(path) {
            Ok(meta) if meta.file_type().is_symlink() => Err(HomeError::WrongType {
                path: path.into(),
                found: "a symbolic link",
                wanted: "a plain file",
            }),
            _ => Err(HomeError::io("open", path, error)),
        },
    }
}

#[cfg(unix)]
mod platform {
    use std::fs::{DirBuilder, File, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
    use std::path::Path;

    use super::{DIR_MODE, FILE_MODE, HomeError};

    pub(in crate::home) fn dir_builder() -> DirBuilder {
        let mut builder = DirBuilder::new();
        builder.mode(DIR_MODE);
        builder
    }

    pub(in crate::home) fn open_nofollow(path: &Path) -> io::Result<File> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    }

    pub(in crate::home) fn new_file(options: &mut OpenOptions) -> &mut OpenOptions {
        options.mode(FILE_MODE)
    }

    pub(in crate::home) fn check_private(open: &File, path: &Path, wanted: u32) -> Result<(), HomeError> {
        let meta = open.metadata().map_err(|e| HomeError::io("look at", path, e))?;
        let uid = nix::unistd::Uid::effective().as_raw();
        if meta.uid() != uid {
            return Err(HomeError::ForeignOwner { path: path.into(), owner: meta.uid(), uid });
        }
        let mode = meta.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(HomeError::LoosePermissions { path: path.into(), mode, wanted });
        }
        Ok(())
    }
}

#[cfg(not(unix))]
mod platform {
    //! Elsewhere the profile directory's access list is the boundary.

    use std::fs::{DirBuilder, File, OpenOptions};
    use std::io;
    use std::path::Path;

    use super::HomeError;

    pub(in crate::home) fn dir_builder() -> DirBuilder {
        DirBuilder::new()
    }

    pub(in crate::home) fn open_nofollow(path: &Path) -> io::Result<File> {
        File::open(path)
    }

    pub(in crate::home) fn new_file(options: &mut OpenOptions) -> &mut OpenOptions {
        options
    }

    pub(in crate::home) fn check_private(_: &File, _: &Path, _: u32) -> Result<(), HomeError> {
        Ok(())
    }
}

use platform::dir_builder;
pub(super) use platform::{check_private, new_file, open_nofollow};

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_directory_is_made_and_a_loose_or_linked_one_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let private = dir.path().join("run");
        ensure_private_dir(&private).expect("is made");
        ensure_private_dir(&private).expect("is there");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&private, &link).expect("a link");
        assert!(matches!(ensure_private_dir(&link), Err(HomeError::WrongType { .. })));
        fs::set_permissions(&private, fs::Permissions::from_mode(0o711)).expect("a mode");
        assert!(matches!(ensure_private_dir(&private), Err(HomeError::LoosePermissions { mode: 0o711, .. })));
    }
}
