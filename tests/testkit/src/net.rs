//! A folder that some homes share.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Devices that find each other through one runtime directory, and the binary that they run.
///
/// Cloning gives another handle; the folder goes with the last one.
#[derive(Debug, Clone)]
pub struct TestNet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: TempDir,
    binary: PathBuf,
    homes: Mutex<Vec<PathBuf>>,
    stderr: Mutex<Vec<(String, PathBuf)>>,
}

impl TestNet {
    /// Makes a net for the given binary; the environment's `MALAI_BIN` wins over it. Tests pass
    /// `env!("CARGO_BIN_EXE_malai")`.
    ///
    /// # Panics
    ///
    /// When the folder cannot be made or the binary does not exist.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self::of_program(std::env::var_os("MALAI_BIN").map_or_else(|| binary.into(), PathBuf::from))
    }

    /// Makes a net that runs exactly this program.
    ///
    /// # Panics
    ///
    /// As [`TestNet::new`].
    pub fn of_program(program: impl Into<PathBuf>) -> Self {
        let binary = existing(program.into());
        let (dir, _) = make_dir();
        Self::in_dir(dir, binary)
    }

    /// Makes a net whose every process runs as another user than the test, which has to be root's: the homes are to be
    /// given to that user ([`crate::TestUser::own`]) before anything runs in them.
    ///
    /// # Panics
    ///
    /// As [`TestNet::new`].
    pub fn of_user(binary: impl Into<PathBuf>, user: &crate::TestUser) -> Self {
        let binary = existing(binary.into());
        let (dir, folders) = make_dir();
        // The user may not be able to reach where it was built.
        let (copy, script) = (dir.path().join("malai"), dir.path().join("malai-as-user"));
        std::fs::copy(&binary, &copy).expect("copies the binary");
        let text = format!(
            "#!/bin/sh\nexec setpriv --reuid={0} --regid={0} --init-groups {1} \"$@\"\n",
            user.name(),
            copy.display()
        );
        std::fs::write(&script, text).expect("writes the script");
        for path in [&copy, &script] {
            std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("sets the program's mode");
        }
        folders.iter().for_each(|folder| user.own(folder));
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("sets the net's mode");
        Self::in_dir(dir, script)
    }

    fn in_dir(dir: TempDir, binary: PathBuf) -> Self {
        Self(Arc::new(Inner { dir, binary, homes: Mutex::default(), stderr: Mutex::default() }))
    }

    /// Returns the net's folder.
    pub fn path(&self) -> &Path {
        self.0.dir.path()
    }

    /// Returns the runtime directory that all homes share (`XDG_RUNTIME_DIR`).
    pub fn runtime_dir(&self) -> PathBuf {
        self.path().join("run")
    }

    /// Returns the binary that the homes run.
    pub fn binary(&self) -> &Path {
        &self.0.binary
    }

    /// Returns the whole environment that every process of a home starts with.
    pub(crate) fn environment(&self, home: &Path) -> Vec<(OsString, OsString)> {
        let mut all: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
            ("HOME".into(), self.path().join("user").into()),
            ("LANG".into(), "C.UTF-8".into()),
            ("MALAI_HOME".into(), home.into()),
            ("MALAI_KEYRING".into(), "off".into()),
            ("XDG_RUNTIME_DIR".into(), self.runtime_dir().into()),
            ("RUST_BACKTRACE".into(), "1".into()),
        ];
        // What a coverage run or a debugging session needs in the children too.
        for name in ["LLVM_PROFILE_FILE", "MALAI_LOG"] {
            all.extend(std::env::var_os(name).map(|value| (name.into(), value)));
        }
        all
    }

    pub(crate) fn add_home(&self, path: &Path) {
        self.0.homes.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
    }

    /// Makes a file for a daemon's stderr, to be printed with the logs.
    pub(crate) fn stderr_file(&self, of: &str) -> std::fs::File {
        let mut all = self.0.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path().join(format!("{of}.stderr.{}", all.len()));
        let file = std::fs::File::create(&path).expect("makes a file for stderr");
        all.push((of.to_owned(), path));
        file
    }

    /// Returns every log of the net as one text.
    pub fn logs(&self) -> String {
        self.0.logs()
    }
}

fn existing(binary: PathBuf) -> PathBuf {
    // Processes start in the net's folder, where a relative path would mean something else.
    let binary = binary.canonicalize().unwrap_or(binary);
    assert!(binary.is_file(), "no malai binary at {}", binary.display());
    binary
}

/// Makes a net's folder and those in it that every net has.
fn make_dir() -> (TempDir, [PathBuf; 2]) {
    // Not the platform's temporary folder: a Unix socket's path is limited to about 104 bytes.
    let dir = tempfile::Builder::new().prefix("malai-").tempdir_in("/tmp").expect("makes the net's folder");
    let folders = ["run", "user"].map(|name| dir.path().join(name));
    for path in &folders {
        std::fs::create_dir(path).expect("makes a folder of the net");
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).expect("sets the folder's mode");
    }
    (dir, folders)
}

impl Inner {
    fn logs(&self) -> String {
        let mut all = String::new();
        let homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let files =
            homes.iter().map(|home| home.join("malai.log")).chain(stderr.into_iter().map(|(_, path)| path));
        for path in files {
            let Ok(text) = std::fs::read(&path) else { continue };
            let text = String::from_utf8_lossy(&text);
            if text.is_empty() {
                continue;
            }
            let lines: Vec<&str> = text.lines().collect();
            let skipped = lines.len().saturating_sub(400);
            let shown = path.strip_prefix(self.dir.path()).unwrap_or(&path);
            all += &format!("---- {} ({skipped} earlier lines left out)\n", shown.display());
            all += &lines[skipped..].join("\n");
            all.push('\n');
        }
        all
    }

    /// Ends the sessions of a home, which outlive its daemon. With its process a session's terminal is hung up.
    fn end_sessions(home: &Path) {
        for session in std::fs::read_dir(home.join("sessions")).into_iter().flatten().flatten() {
            let path = session.path().join("lock");
            let held = |file: &std::fs::File| {
                matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
            };
            // Whoever holds the lock is whom it names.
            let Some(text) =
                std::fs::File::open(&path).ok().filter(held).and_then(|_| std::fs::read(&path).ok())
            else {
                continue;
            };
            let process: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            if let Some(pid) =
                process["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1)
            {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// Ends a daemon that detached itself, if it still is one that this home's environment started.
    fn end_detached(home: &Path) {
        let Ok(text) = std::fs::read_to_string(home.join("malai.lock")) else { return };
        let digits: String =
            text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        let Ok(pid) = digits.parse::<i32>() else { return };
        let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return };
        let own = format!("MALAI_HOME={}", home.display());
        if pid > 1 && environment.split(|byte| *byte == 0).any(|entry| entry == own.as_bytes()) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for home in self.homes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            Self::end_detached(home);
            Self::end_sessions(home);
        }
        if std::thread::panicking() {
            // The test harness captures stderr writes of this macro only, and shows them with the failed test.
            #[expect(clippy::print_stderr, reason = "the logs belong to the failed test's output")]
            {
                eprintln!("{}", self.logs());
            }
        }
    }
}
