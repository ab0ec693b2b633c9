use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::time::Duration;

use tokio::net::UnixListener;

use super::*;
use crate::home::Create;
use crate::terminal::life::{self, SessionProcess};
use crate::terminal::{EndReason, socket};

/// A process that holds the lock of a session's directory, and what a session's process leaves there.
struct Stand {
    home: tempfile::TempDir,
    dir: PathBuf,
    session: SessionId,
    process: Child,
    listener: Option<UnixListener>,
}

impl Stand {
    /// The process is a shell's, and `record` what the daemon wrote of it.
    fn new(record: Option<&str>) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o700)).expect("a mode");
        let session = SessionId::from_random([3; 8]);
        let dir = home.path().join("sessions").join(session.as_str());
        std::fs::create_dir_all(&dir).expect("is made");
        if let Some(record) = record {
            std::fs::write(dir.join(RECORD), record).expect("is written");
        }
        let lock = File::create(dir.join("lock")).expect("is made");
        lock.lock().expect("is free");
        // The lock is the open file's: with this copy of it the child has it alone.
        let script = "setsid sleep 1000 </dev/null & echo $! > below; wait";
        let mut command = Command::new("sh");
        let process = command.args(["-c", script]).current_dir(&dir).stdin(lock).spawn().expect("starts");
        drop(command);
        let pid = process.id();
        let written = SessionProcess { pid, began: life::began(pid) };
        let written = serde_json::to_vec(&written).expect("is a text");
        std::fs::write(dir.join("lock"), written).expect("is written");
        let listener = Some(socket::listen(&dir).expect("listens"));
        Self { home, dir, session, process, listener }
    }

    fn open(&self) -> Sessions {
        let home = Home::open(self.home.path().to_owned(), Create::No).expect("a home");
        Sessions::open(
            home,
            OwnProgram::at("/nonexistent"),
            Arc::new(|_: &SessionRecord, _: Option<&SessionEnd>| {}),
        )
        .expect("opens")
    }

    fn is_dead(&mut self) -> bool {
        self.process.try_wait().expect("is known").is_some()
    }
}

#[cfg(target_os = "linux")]
impl Stand {
    /// What runs in a session of its own below the process.
    async fn below(&self) -> String {
        let waiting = async {
            loop {
                let pid = std::fs::read_to_string(self.dir.join("below")).unwrap_or_default();
                if stat(pid.trim()).contains("(sleep)") {
                    return pid.trim().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it begins")
    }
}

#[cfg(target_os = "linux")]
fn stat(pid: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default()
}

impl Drop for Stand {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_session_whose_record_cannot_be_read_is_ended() {
    for record in [Some("{ \"session\": 1"), None] {
        let mut stand = Stand::new(record);
        stand.listener = None;
        let sessions = stand.open();
        assert!(stand.is_dead(), "nobody can list it, and no rule ends it: {record:?}");
        assert!(!stand.dir.exists());
        assert_eq!(sessions.total(), 0);
    }
}

#[tokio::test]
async fn who_hangs_up_is_not_taken_for_dead() {
    let mut stand = Stand::new(None);
    let listener = stand.listener.take().expect("listens");
    #[cfg(target_os = "linux")]
    let below = stand.below().await;
    let hanging_up = async { while listener.accept().await.is_ok() {} };
    let home = Home::open(stand.home.path().to_owned(), Create::No).expect("a home");
    let entries = Mutex::new(BTreeMap::new());
    let program = OwnProgram::at("/nonexistent");
    let gone = Gone(Arc::new(|_: &SessionRecord, _: Option<&SessionEnd>| {}));
    let sessions = Sessions { inner: Arc::new(Inner { home, program, entries, gone }) };
    let end = tokio::select! {
        end = sessions.end_process(&stand.session, EndReason::Revoked) => end.expect("is ended"),
        () = hanging_up => panic!("it does not listen"),
    };
    assert_eq!(end, None);
    assert!(stand.is_dead(), "it is called ended, and lives");
    #[cfg(target_os = "linux")]
    {
        let ends = async {
            while stat(&below).contains("(sleep)") && !stat(&below).contains("(sleep) Z") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), ends).await;
        assert!(ended.is_ok(), "what it ran lives on");
    }
}
