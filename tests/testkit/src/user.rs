//! Real users of this device.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::not_run;

/// How long others may hold the lock of the list of users.
const PATIENCE: Duration = Duration::from_secs(60);

static MADE: AtomicU32 = AtomicU32::new(0);

/// A user made for one test, with a group of the same name, a second group, and a home. Dropping it removes all of them.
#[derive(Debug)]
pub struct TestUser {
    name: String,
    extra_group: String,
    home: PathBuf,
}

impl TestUser {
    /// Makes a user. Where that is not possible (without root, without `useradd`) it says `not run: why` and returns
    /// `None`.
    ///
    /// # Panics
    ///
    /// When it should be possible and is not; on CI, when it is not possible.
    pub fn make() -> Option<Self> {
        Self::with_shell("/bin/bash")
    }

    /// As [`Self::make`], with another login shell.
    ///
    /// # Panics
    ///
    /// When it should be possible and is not.
    pub fn with_shell(shell: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let name = format!("mt{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let user = Self {
            extra_group: format!("{name}-g"),
            home: PathBuf::from(format!("/home/{name}")),
            name: name.clone(),
        };
        change("groupadd", &[&user.extra_group]);
        let home = user.home.display().to_string();
        change("useradd", &["-m", "-d", &home, "-U", "-G", &user.extra_group, "-s", shell, &name]);
        Some(user)
    }

    /// Returns the login name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name of a group that it is in, beside its own.
    pub fn extra_group(&self) -> &str {
        &self.extra_group
    }

    /// Returns the home directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Gives a file or a folder to this user.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn own(&self, path: &Path) {
        let owner = format!("{0}:{0}", self.name);
        let done = Command::new("chown").arg("-R").arg(&owner).arg(path).status().expect("chown starts");
        assert!(done.success(), "{} goes to {owner}", path.display());
    }
}

impl Drop for TestUser {
    fn drop(&mut self) {
        // What the test left running is the test's; the user goes all the same.
        let _ = attempt("userdel", &["-f", "-r", &self.name], &[6]);
        let _ = attempt("groupdel", &[&self.extra_group], &[6]);
    }
}

/// Says whether this process has root and can make users; if not, that the test is [not run](not_run).
///
/// # Panics
///
/// On CI, when it has not or cannot.
pub fn is_root() -> bool {
    if !nix::unistd::Uid::effective().is_root() {
        not_run("it needs root");
        return false;
    }
    if Command::new("useradd").arg("--help").output().is_err() {
        not_run("there is no useradd");
        return false;
    }
    true
}

#[track_caller]
fn change(program: &str, args: &[&str]) {
    if let Err(why) = attempt(program, args, &[]) {
        panic!("{program} {args:?}: {why}");
    }
}

/// Tries until no other process holds the lock.
fn attempt(program: &str, args: &[&str], fine: &[i32]) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let output = Command::new(program).args(args).output().map_err(|error| error.to_string())?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() || output.status.code().is_some_and(|code| fine.contains(&code)) {
            return Ok(());
        }
        let is_locked = errors.contains("lock") || errors.contains("try again");
        if !is_locked || started.elapsed() > PATIENCE {
            return Err(errors);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
