//! Other programs, and where things are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What a task ends with.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// What makes a build share every crate with that of `cargo test --workspace --all-features`: cargo leaves out what only
/// tests ask of a dependency where nothing is built that could be one, and would build most crates once more.
pub(crate) const SAME: [&str; 5] = ["--workspace", "--all-features", "--lib", "--bins", "--examples"];

/// Returns the workspace's folder.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Returns the folder that cargo builds into.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Says whether this is a CI run, where a check that cannot run has failed.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// Finds a program as a shell would.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Prepares a program in the workspace's folder, without stdin.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Prepares cargo, the one that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What `cargo run` set for xtask alone would make cargo rebuild what looks at it.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command
}

/// How long all of a CI run may take after `.ci/run` has installed its tools: a run that hangs is to end. A new machine
/// with two cores needs less than half of it; one that is busy with others' work may need more.
const CI_LIMIT: Duration = Duration::from_secs(50 * 60);

/// Runs a program to its end, its output going where this one's goes. On CI it is ended, with all that it started,
/// when the run as a whole has taken too long: something hangs.
pub(crate) fn done(command: &mut Command) -> Outcome {
    let words = describe(command);
    let status =
        if is_ci() { limited(command, CI_LIMIT, &words)? } else { started(command.status(), &words)? };
    if status.success() { Ok(()) } else { Err(format!("{words}: {status}")) }
}

fn started<T>(result: std::io::Result<T>, words: &str) -> Outcome<T> {
    result.map_err(|source| format!("starting {words}: {source}"))
}

/// Runs a program in a group of its own, until `limit` after the first call.
#[cfg(unix)]
fn limited(command: &mut Command, limit: Duration, words: &str) -> Outcome<ExitStatus> {
    use std::os::unix::process::CommandExt;

    use nix::sys::signal::{Signal, killpg};
    use nix::unistd::Pid;

    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let began = BEGAN.get_or_init(Instant::now);
    let mut child = started(command.process_group(0).spawn(), words)?;
    loop {
        if let Some(status) = started(child.try_wait(), words)? {
            return Ok(status);
        }
        if began.elapsed() > limit {
            // Not reaped yet, so the number is still this group's.
            let group = i32::try_from(child.id()).map(Pid::from_raw);
            let _ = group.map(|group| killpg(group, Signal::SIGKILL));
            let _ = child.wait();
            return Err(format!("{words}: ended, since the whole run took more than {} s", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(not(unix))]
fn limited(command: &mut Command, _limit: Duration, words: &str) -> Outcome<ExitStatus> {
    started(command.status(), words)
}

/// Runs a program to its end and returns its stdout.
pub(crate) fn text_of(command: &mut Command) -> Outcome<String> {
    let words = describe(command);
    let output =
        command.stderr(Stdio::piped()).output().map_err(|source| format!("starting {words}: {source}"))?;
    if !output.status.success() {
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        return Err(format!("{words}: {}\n{stdout}{stderr}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn describe(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let args: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    format!("{} {}", name.to_string_lossy(), args.join(" "))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_run_over_its_limit_is_ended() {
        let limit = Duration::from_millis(200);
        let began = Instant::now();
        let result = limited(Command::new("sh").args(["-c", "sleep 100; true"]), limit, "sleep");
        assert!(result.is_err_and(|error| error.contains("ended")));
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
