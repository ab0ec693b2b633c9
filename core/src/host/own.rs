//! The malai program itself, as something that can be started.

use std::io;
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::{os::fd::OwnedFd, sync::Arc};

/// The malai program, for what malai itself does in a process of its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OwnProgram {
    path: PathBuf,
    /// The running file itself: it may be replaced or removed while this process runs, and another user may not be
    /// able to reach its path.
    #[cfg(target_os = "linux")]
    running: Option<Arc<OwnedFd>>,
}

impl OwnProgram {
    /// The program that this process runs. On Linux it stays the same file even if another one takes its place; elsewhere
    /// it is whatever has that path when it is started.
    ///
    /// Only for a front that *is* malai: it must act by the name that it is started under (`malai-cp`).
    ///
    /// # Errors
    /// When the system does not say which program runs.
    pub fn running() -> io::Result<Self> {
        Ok(Self {
            path: std::env::current_exe()?,
            #[cfg(target_os = "linux")]
            running: Some(Arc::new(linux::open_running()?)),
        })
    }

    /// The malai program at a path, for an app that brings it along.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            #[cfg(target_os = "linux")]
            running: None,
        }
    }

    /// Where it is, or was when this process started.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path to start it by in a child of this process that runs as the same user.
    pub(super) fn spawn_path(&self) -> &Path {
        #[cfg(target_os = "linux")]
        if self.running.is_some() {
            // Resolved by the kernel in the child, which still has this process's program then.
            return Path::new("/proc/self/exe");
        }
        &self.path
    }

    /// The open file to execute, where there is one.
    #[cfg(target_os = "linux")]
    pub(super) fn file(&self) -> Option<&Arc<OwnedFd>> {
        self.running.as_ref()
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;

    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;

    /// Opens the running program as something that can be executed and nothing else.
    pub(super) fn open_running() -> io::Result<OwnedFd> {
        Ok(open("/proc/self/exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
    }
}
