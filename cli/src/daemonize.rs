//! Going to the background, and telling others when the daemon is ready.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::Failure;
use crate::output::FAILED;

/// How starting the background process went.
pub(crate) enum Started {
    /// It serves.
    Running(u32),
    /// It refused to start and said why on stderr.
    Failed(u8),
}

/// In which form it says why.
#[derive(Clone, Copy)]
pub(crate) enum Errors {
    /// Lines for people.
    Text,
    /// As `--json` prints them.
    Json,
}

const READY: &str = "ready";

/// Starts this program again as a session of its own and waits until it serves or gives up. Everything is validated
/// before this returns; what is wrong goes to our stderr, which the child has until then.
pub(crate) fn start(home: &Path, errors: Errors) -> Result<Started, Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::local("find this program", &error))?;
    let mut child = Command::new(program)
        .args(["daemon", "--foreground", "--detached", "--home"])
        .arg(home)
        .args(matches!(errors, Errors::Json).then_some("--json"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::local("start the background process", &error))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|error| Failure::local("wait for the background process", &error))?;
    }
    if line.trim() == READY {
        return Ok(Started::Running(child.id()));
    }
    let status = child.wait().map_err(|error| Failure::local("wait for the background process", &error))?;
    Ok(Started::Failed(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)))
}

/// In the background process: leaves the terminal's session, tells the parent, and lets go of its stdout and stderr.
pub(crate) fn say_ready() {
    // Fails only for a group leader, which a child of `start` is not; then the terminal keeps us, which is bearable.
    _ = nix::unistd::setsid();
    // If the parent is gone nobody waits for the word.
    _ = std::io::stdout().write_all(format!("{READY}\n").as_bytes());
    _ = std::io::stdout().flush();
    match std::fs::OpenOptions::new().write(true).open("/dev/null") {
        Ok(null) => {
            let moved = nix::unistd::dup2_stdout(&null).and_then(|()| nix::unistd::dup2_stderr(&null));
            if let Err(error) = moved {
                tracing::warn!(%error, "the terminal could not be let go of");
            }
        }
        Err(error) => tracing::warn!(%error, "the terminal could not be let go of"),
    }
}

/// Tells systemd, or whoever set `NOTIFY_SOCKET`, that the daemon serves.
pub(crate) fn notify_ready(socket: &OsStr) -> std::io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    let name = socket.to_string_lossy();
    #[cfg(target_os = "linux")]
    if let Some(abstract_name) = name.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(abstract_name)?;
        datagram.send_to_addr(b"READY=1", &address)?;
        return Ok(());
    }
    datagram.send_to(b"READY=1", Path::new(name.as_ref()))?;
    Ok(())
}
