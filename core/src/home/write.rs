//! Writing: atomically, and one process at a time.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use malai_model::name::ClusterAlias;
use serde::Serialize;

use super::permissions::{make_dir, make_dirs, new_file};
use super::{Home, HomeError};

/// How long a writer waits for another one. Writes take milliseconds; who waits longer has found something
/// broken.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How temporary files begin. Whoever holds the write lock may remove every file of such a name: none is in
/// use.
const TEMPORARY: &str = ".malai-tmp-";

/// How deep below the home files are written: `clusters/<alias>/invites/`.
const DEPTH: usize = 3;

/// The right to write into a home, held by one task of one process at a time. Hold it for a group of writes
/// that belong together, and never over a wait for the network. Dropping it gives it back.
///
/// It is not reentrant: what needs the right takes `&WriteGuard`.
#[derive(Debug)]
pub struct WriteGuard {
    home: Home,
    lock: File,
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child process that is between fork and exec.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(home = %self.home.root().display(), %error, "the write lock was not given back");
        }
    }
}

impl Home {
    /// Waits for the right to write, at most [`LOCK_PATIENCE`].
    ///
    /// # Errors
    /// [`HomeError::Busy`], [`HomeError::Io`].
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is held when the future is dropped.
    pub async fn lock_for_writing(&self) -> Result<WriteGuard, HomeError> {
        self.lock_for_writing_within(LOCK_PATIENCE).await
    }

    /// Waits for the right to write, at most `patience`.
    ///
    /// # Errors
    /// [`HomeError::Busy`], [`HomeError::Io`].
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is held when the future is dropped.
    pub async fn lock_for_writing_within(&self, patience: Duration) -> Result<WriteGuard, HomeError> {
        let mut turns = Turns::new(patience);
        loop {
            if let Some(guard) = self.try_lock_for_writing()? {
                return Ok(guard);
            }
            let pause = turns.next().ok_or_else(|| self.busy(patience))?;
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits for the right to write like [`Home::lock_for_writing`], and blocks the thread meanwhile.
    ///
    /// # Errors
    /// [`HomeError::Busy`], [`HomeError::Io`].
    pub fn lock_for_writing_blocking(&self) -> Result<WriteGuard, HomeError> {
        let mut turns = Turns::new(LOCK_PATIENCE);
        loop {
            if let Some(guard) = self.try_lock_for_writing()? {
                return Ok(guard);
            }
            std::thread::sleep(turns.next().ok_or_else(|| self.busy(LOCK_PATIENCE))?);
        }
    }

    fn busy(&self, waited: Duration) -> HomeError {
        HomeError::Busy { path: self.root().into(), waited }
    }

    pub(crate) fn try_lock_for_writing(&self) -> Result<Option<WriteGuard>, HomeError> {
        // Opened anew each time: the lock belongs to the open file, so tasks of one process exclude each
        // other too.
        let lock = File::open(self.root()).map_err(|e| HomeError::io("open", self.root(), e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(WriteGuard { home: self.clone(), lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(HomeError::io("lock", self.root(), error)),
        }
    }

    /// Replaces a file of this home, mode 0600, and makes the directories above it. A crash at any instant
    /// leaves the old text or the new one. Blocks until the disk has it: some milliseconds.
    ///
    /// # Errors
    /// [`HomeError::Io`]; then the old file is untouched. [`HomeError::Outside`].
    pub fn write(&self, guard: &WriteGuard, path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        self.check(guard, path)?;
        let dir = path.parent().unwrap_or(self.root());
        self.make_dirs_durably(dir)?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = dir.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
        let written = write_new(&temporary, bytes)
            .map_err(|e| HomeError::io("write", path, e))
            .and_then(|()| fs::rename(&temporary, path).map_err(|e| HomeError::io("replace", path, e)));
        if let Err(error) = written {
            // Best effort: a leftover is removed when the home is opened next.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        sync_dir(dir)
    }

    /// Writes a value as indented JSON; see [`Home::write`].
    ///
    /// # Errors
    /// [`HomeError::Io`], [`HomeError::Outside`].
    pub fn save_json<T: Serialize>(
        &self,
        guard: &WriteGuard,
        path: &Path,
        value: &T,
    ) -> Result<(), HomeError> {
        let mut bytes = serde_json::to_vec_pretty(value)
            .map_err(|e| HomeError::io("write", path, io::Error::new(io::ErrorKind::InvalidData, e)))?;
        bytes.push(b'\n');
        self.write(guard, path, &bytes)
    }

    /// Removes a file; no file is fine.
    ///
    /// # Errors
    /// [`HomeError::Io`], [`HomeError::Outside`].
    pub fn remove(&self, guard: &WriteGuard, path: &Path) -> Result<(), HomeError> {
        self.check(guard, path)?;
        match fs::remove_file(path) {
            Ok(()) => sync_dir(path.parent().unwrap_or(self.root())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(HomeError::io("remove", path, error)),
        }
    }

    /// Overwrites a file that holds a secret with zeros, then removes it; no file is fine. On a disk that
    /// writes elsewhere the old blocks may survive: it is the best that a file offers.
    ///
    /// # Errors
    /// [`HomeError::Io`], [`HomeError::Outside`].
    pub fn wipe(&self, guard: &WriteGuard, path: &Path) -> Result<(), HomeError> {
        self.check(guard, path)?;
        let is_file = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
        if is_file {
            let overwrite = || {
                let mut file = OpenOptions::new().write(true).open(path)?;
                let length = file.metadata()?.len().min(super::MAX_SECRET_LEN);
                file.write_all(&vec![0; usize::try_from(length).unwrap_or(0)])?;
                file.sync_all()
            };
            overwrite().map_err(|e| HomeError::io("overwrite", path, e))?;
        }
        self.remove(guard, path)
    }

    /// Removes a directory with all that is in it; no directory is fine. Keys in it are to be deleted first,
    /// by their store.
    ///
    /// # Errors
    /// [`HomeError::Io`], [`HomeError::Outside`].
    pub fn remove_dir(&self, guard: &WriteGuard, path: &Path) -> Result<(), HomeError> {
        self.check(guard, path)?;
        match fs::remove_dir_all(path) {
            Ok(()) => sync_dir(path.parent().unwrap_or(self.root())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(HomeError::io("remove", path, error)),
        }
    }

    /// Makes the directory of a new cluster. An empty one, as a crash may have left it, is taken.
    ///
    /// # Errors
    /// [`HomeError::ClusterExists`], [`HomeError::Io`].
    pub fn make_cluster_dir(&self, guard: &WriteGuard, alias: &ClusterAlias) -> Result<PathBuf, HomeError> {
        let path = self.cluster_dir(alias);
        self.check(guard, &path)?;
        self.make_dirs_durably(&self.clusters_dir())?;
        match make_dir(&path) {
            Ok(()) => sync_dir(&self.clusters_dir())?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut entries = fs::read_dir(&path).map_err(|e| HomeError::io("list", &path, e))?;
                if entries.next().is_some() {
                    return Err(HomeError::ClusterExists { alias: alias.to_string(), path });
                }
            }
            Err(error) => return Err(HomeError::io("make the directory", path, error)),
        }
        Ok(path)
    }

    fn check(&self, guard: &WriteGuard, path: &Path) -> Result<(), HomeError> {
        let inside = path.starts_with(self.root())
            && path != self.root()
            && !path.components().any(|part| part == Component::ParentDir);
        if inside && guard.home.root() == self.root() {
            return Ok(());
        }
        Err(HomeError::Outside { path: path.into(), home: self.root().into() })
    }

    fn make_dirs_durably(&self, dir: &Path) -> Result<(), HomeError> {
        if dir.is_dir() {
            return Ok(());
        }
        make_dirs(dir).map_err(|e| HomeError::io("make the directory", dir, e))?;
        dir.ancestors().skip(1).take_while(|above| above.starts_with(self.root())).try_for_each(sync_dir)
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = new_file(options.write(true).create_new(true)).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a rename or a removal last: it is an entry of the directory, which the disk has to learn of too.
fn sync_dir(dir: &Path) -> Result<(), HomeError> {
    if cfg!(windows) {
        return Ok(());
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| HomeError::io("sync", dir, e))
}

/// Removes what a crash left half-written. A home that is busy is left alone: it is cleaned another time.
pub(super) fn remove_leftovers(home: &Home) {
    // Looking takes no lock, so that the many openings of a sound home do not stand in each other's way.
    if leftovers(home.root(), DEPTH).is_empty() {
        return;
    }
    let Ok(Some(_guard)) = home.try_lock_for_writing() else { return };
    for path in leftovers(home.root(), DEPTH) {
        match fs::remove_file(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what an interrupted write left"),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "an interrupted write's leftover stays")
            }
        }
    }
}

fn leftovers(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth > 0 {
            found.extend(leftovers(&entry.path(), depth - 1));
        } else if kind.is_file() && is_temporary(&entry.file_name()) {
            found.push(entry.path());
        }
    }
    found
}

fn is_temporary(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
}

/// The pauses between attempts: short at first, until the deadline.
struct Turns {
    deadline: Instant,
    pause: Duration,
}

impl Turns {
    fn new(patience: Duration) -> Self {
        Self { deadline: Instant::now() + patience, pause: Duration::from_millis(1) }
    }

    fn next(&mut self) -> Option<Duration> {
        let left = self.deadline.checked_duration_since(Instant::now())?;
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(Duration::from_millis(50));
        Some(pause)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::home::Create;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("malai"), Create::Yes).expect("opens");
        (dir, home)
    }

    #[tokio::test]
    async fn a_written_file_is_for_its_user_alone_and_so_are_its_directories() {
        let (_dir, home) = home();
        let alias = "company".parse().expect("an alias");
        let guard = home.lock_for_writing().await.expect("the lock");
        let path = home.invites_dir(&alias).join("x");
        home.write(&guard, &path, b"one").expect("is written");
        home.write(&guard, &path, b"two").expect("is replaced");
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!(fs::read(&path).expect("reads"), b"two");
        assert_eq!(
            (mode(&path), mode(&home.invites_dir(&alias)), mode(&home.cluster_dir(&alias))),
            (0o600, 0o700, 0o700)
        );
        assert_eq!(leftovers(home.root(), DEPTH), Vec::<PathBuf>::new());
    }

    #[tokio::test]
    async fn one_writer_at_a_time_even_in_one_process() {
        let (_dir, home) = home();
        let first = home.lock_for_writing().await.expect("the lock");
        let refused = home.lock_for_writing_within(Duration::from_millis(20)).await;
        assert!(matches!(refused, Err(HomeError::Busy { .. })));
        let waiting = home.lock_for_writing();
        drop(first);
        waiting.await.expect("comes after the first");
    }

    #[tokio::test]
    async fn nothing_is_written_outside_the_home_or_under_another_home_s_lock() {
        let (_dir, one) = home();
        let (_other, two) = home();
        let guard = one.lock_for_writing().await.expect("the lock");
        for path in [one.root().join("../x"), two.root().join("x"), PathBuf::from("x"), one.root().into()] {
            assert!(matches!(one.write(&guard, &path, b""), Err(HomeError::Outside { .. })), "{path:?}");
        }
        assert!(matches!(two.write(&guard, &two.root().join("x"), b""), Err(HomeError::Outside { .. })));
    }

    #[tokio::test]
    async fn a_wiped_secret_is_zeros_to_whoever_still_has_it_open() {
        use std::io::Read;
        let (_dir, home) = home();
        let guard = home.lock_for_writing().await.expect("the lock");
        let path = home.root().join("secret");
        home.write(&guard, &path, b"secret").expect("is written");
        let mut open = File::open(&path).expect("opens");
        home.wipe(&guard, &path).expect("is wiped");
        let mut left = Vec::new();
        open.read_to_end(&mut left).expect("reads");
        assert_eq!(left, [0; 6]);
        assert!(!path.exists());
        home.wipe(&guard, &path).expect("nothing to wipe is fine");
    }

    #[tokio::test]
    async fn a_cluster_directory_is_made_once() {
        let (_dir, home) = home();
        let alias = "company".parse().expect("an alias");
        let guard = home.lock_for_writing().await.expect("the lock");
        let path = home.make_cluster_dir(&guard, &alias).expect("is made");
        home.make_cluster_dir(&guard, &alias).expect("an empty one is taken");
        home.write(&guard, &path.join("cluster.toml"), b"").expect("is written");
        let again = home.make_cluster_dir(&guard, &alias).expect_err("is taken");
        assert_eq!(again.code().as_str(), "home.cluster_exists");
    }

    /// Not a test by itself: the process that the next test kills.
    #[test]
    #[ignore = "run by a_kill_at_any_instant_leaves_a_whole_file"]
    fn writer_that_is_killed() {
        let root = std::env::var_os("MALAI_TEST_WRITER").expect("a home");
        let home = Home::open(root.into(), Create::No).expect("opens");
        let guard = home.lock_for_writing_blocking().expect("the lock");
        for n in 0_u32.. {
            let bytes = vec![b'a' + (n % 26) as u8; 20_000 + n as usize % 1000];
            home.write(&guard, &home.peers_file(), &bytes).expect("is written");
        }
    }

    #[test]
    fn a_kill_at_any_instant_leaves_a_whole_file() {
        let (_dir, home) = home();
        {
            let guard = home.lock_for_writing_blocking().expect("the lock");
            home.write(&guard, &home.peers_file(), b"aaaa").expect("is written");
        }
        let mut left = 0;
        for turn in 0_u64..25 {
            let before = fs::metadata(home.peers_file()).expect("is there").modified().expect("a time");
            let mut writer = Command::new(std::env::current_exe().expect("this binary"))
                .args(["--exact", "home::write::tests::writer_that_is_killed", "--ignored"])
                .env("MALAI_TEST_WRITER", home.root())
                .stdout(Stdio::null())
                .spawn()
                .expect("starts");
            let deadline = Instant::now() + Duration::from_secs(30);
            while fs::metadata(home.peers_file()).expect("is there").modified().expect("a time") == before {
                assert!(Instant::now() < deadline, "the writer wrote nothing");
                std::thread::yield_now();
            }
            // So that the kills fall on different instants of a write.
            std::thread::sleep(Duration::from_micros(turn * 137));
            writer.kill().expect("is killed");
            writer.wait().expect("is reaped");
            let bytes = fs::read(home.peers_file()).expect("reads");
            assert!(bytes.len() >= 20_000 && bytes.iter().all(|b| *b == bytes[0]), "a torn file");
            left += leftovers(home.root(), DEPTH).len();
            Home::open(home.root().into(), Create::No).expect("opens");
            assert_eq!(
                leftovers(home.root(), DEPTH),
                Vec::<PathBuf>::new(),
                "leftovers are removed at opening"
            );
        }
        // A kill almost always falls between create and rename; if none ever did, this tests nothing.
        assert!(left > 0, "no kill fell into a write");
    }
}
