//! The daemon's lock: one daemon a home, and everybody can tell which.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::permissions::new_file;
use super::{Home, HomeError};

/// Attempts before a daemon is believed to run: [`Home::daemon_pid`] holds the lock for microseconds when it
/// looks.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// The home's `malai.lock`, held. The system gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct DaemonLock {
    file: File,
    path: PathBuf,
}

impl Drop for DaemonLock {
    fn drop(&mut self) {
        // The file stays: removing it would let two daemons lock two files of one name.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

impl Home {
    /// Takes the daemon's lock and writes this process's id into it. The lock is not inherited by child
    /// processes.
    ///
    /// A process that detaches by forking calls [`DaemonLock::write_pid`] afterwards.
    ///
    /// # Errors
    /// [`HomeError::Locked`] with the pid of the daemon that runs, after 0.2 s. [`HomeError::Io`].
    pub fn lock_for_daemon(&self) -> Result<DaemonLock, HomeError> {
        let path = self.daemon_lock_file();
        let mut options = OpenOptions::new();
        let mut file = new_file(options.read(true).write(true).create(true).truncate(false))
            .open(&path)
            .map_err(|e| HomeError::io("open", &path, e))?;
        for attempt in 0.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(HomeError::Locked { path: self.root().into(), pid: read_pid(&mut file) });
                }
                Err(TryLockError::Error(error)) => return Err(HomeError::io("lock", &path, error)),
            }
        }
        let mut lock = DaemonLock { file, path };
        lock.write_pid()?;
        Ok(lock)
    }

    /// Tells the pid of the daemon that runs for this home; `None` if none does.
    pub fn daemon_pid(&self) -> Option<u32> {
        let mut file = File::open(self.daemon_lock_file()).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => read_pid(&mut file),
            // Nobody holds it: what stands there is of a daemon that was killed.
            Ok(()) | Err(TryLockError::Error(_)) => None,
        }
    }
}

impl DaemonLock {
    /// Writes this process's id again: after a fork.
    ///
    /// # Errors
    /// [`HomeError::Io`].
    pub fn write_pid(&mut self) -> Result<(), HomeError> {
        let mut write = || -> io::Result<()> {
            self.file.set_len(0)?;
            self.file.rewind()?;
            writeln!(self.file, "{}", std::process::id())
        };
        write().map_err(|e| HomeError::io("write", &self.path, e))
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Create;

    #[test]
    fn a_second_daemon_is_refused_and_told_the_pid_of_the_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("h"), Create::Yes).expect("opens");
        assert_eq!(home.daemon_pid(), None);
        let first = home.lock_for_daemon().expect("the lock");
        assert_eq!(home.daemon_pid(), Some(std::process::id()));
        let error = home.lock_for_daemon().expect_err("is refused");
        assert_eq!(error.code().as_str(), "daemon.running");
        assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        assert_eq!(home.daemon_pid(), None);
        home.lock_for_daemon().expect("the lock is free again");
    }

    #[test]
    fn whoever_looks_for_the_daemon_does_not_keep_one_from_starting() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("h"), Create::Yes).expect("opens");
        drop(home.lock_for_daemon().expect("the lock"));
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    home.daemon_pid();
                }
            });
            let locked = (0..50).map(|_| home.lock_for_daemon().map(drop)).collect::<Result<Vec<()>, _>>();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            locked.expect("each time");
        });
    }
}
