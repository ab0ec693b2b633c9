//! What a source may call its roots.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use malai_model::wire::copy::Frame;

use super::CopyError;
use super::walk::root_name;

/// The names of the paths that somebody asked a source for. A source that sends others wants to write where nobody let it:
/// `.bashrc` to one who wanted `notes.txt`.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    names: HashSet<OsString>,
    /// Whether one of them stands for what is in it.
    nameless: bool,
}

/// Looks at what a source announces, in order: only roots are checked, what is in them is theirs.
#[derive(Debug, Clone)]
pub(super) struct RootGuard {
    roots: Roots,
    depth: usize,
}

impl Roots {
    /// The names that a source gives to these paths.
    pub fn of(paths: &[PathBuf]) -> Self {
        let mut roots = Self::default();
        for path in paths {
            match root_name(path) {
                Some(name) => _ = roots.names.insert(name),
                None => roots.nameless = true,
            }
        }
        roots
    }

    fn has(&self, name: &[u8]) -> bool {
        if name.is_empty() { self.nameless } else { self.names.contains(std::ffi::OsStr::from_bytes(name)) }
    }
}

impl RootGuard {
    pub(super) fn new(roots: Roots) -> Self {
        Self { roots, depth: 0 }
    }

    /// Looks at a frame of the source.
    ///
    /// # Errors
    /// [`CopyError::Unasked`] for a root that nobody asked for; a link as a root is one, since a source follows those.
    pub(super) fn see(&mut self, frame: &Frame<'_>) -> Result<(), CopyError> {
        let (name, is_asked) = match frame {
            Frame::File { name, .. } => (*name, !name.is_empty() && self.roots.has(name)),
            Frame::Dir { name, .. } => (*name, self.roots.has(name)),
            Frame::Link { name, .. } => (*name, false),
            Frame::Leave { .. } => {
                self.depth = self.depth.saturating_sub(1);
                return Ok(());
            }
            _ => return Ok(()),
        };
        if self.depth == 0 && !is_asked {
            return Err(CopyError::Unasked { name: OsString::from_vec(name.to_vec()) });
        }
        self.depth += usize::from(matches!(frame, Frame::Dir { .. }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use malai_model::wire::copy::{FileMeta, Mtime};

    use super::*;

    const TIME: Mtime = Mtime { secs: 0, nanos: 0 };

    fn file(name: &[u8]) -> Frame<'_> {
        Frame::File { name, meta: FileMeta { size: 1, mtime: TIME, mode: 0o644 } }
    }

    fn dir(name: &[u8]) -> Frame<'_> {
        Frame::Dir { name, mode: 0o755, mtime: TIME }
    }

    fn guard(paths: &[&str]) -> RootGuard {
        RootGuard::new(Roots::of(&paths.iter().map(PathBuf::from).collect::<Vec<_>>()))
    }

    #[test]
    fn what_was_asked_for_and_all_that_is_in_it_is_let_in() {
        let mut guard = guard(&["/srv/notes.txt", "site/"]);
        for frame in [
            file(b"notes.txt"),
            dir(b"site"),
            dir(b"css"),
            file(b".bashrc"),
            Frame::Link { name: b"l", target: b"/", mtime: TIME },
            Frame::Leave { complete: true },
            Frame::Leave { complete: true },
        ] {
            guard.see(&frame).expect("was asked for");
        }
    }

    #[test]
    fn whatever_else_is_a_root_is_not() {
        let link = Frame::Link { name: b"notes.txt", target: b"/etc/passwd", mtime: TIME };
        for frame in [file(b".bashrc"), dir(b".ssh"), dir(b""), file(b""), link] {
            let refused = guard(&["notes.txt"]).see(&frame).expect_err("was not asked for");
            assert_eq!(refused.code(), malai_model::code::ErrorCode::CopyOutside, "{frame:?}");
        }
        // Also behind a directory that was left, and more often than it was entered.
        let mut left = guard(&["site"]);
        for frame in [dir(b"site"), Frame::Leave { complete: true }, Frame::Leave { complete: true }] {
            left.see(&frame).expect("was asked for");
        }
        assert!(left.see(&file(b".bashrc")).is_err());
    }

    #[test]
    fn a_root_that_stands_for_what_is_in_it_has_no_name_and_needs_none() {
        for contents in [".", "site/.", "/", ".."] {
            guard(&[contents]).see(&dir(b"")).expect("was asked for");
            assert!(guard(&[contents]).see(&file(b"index.html")).is_err());
        }
    }
}
