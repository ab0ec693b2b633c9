//! A process that runs, and what it left when it ended.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::{TestNet, await_until};

/// What becomes of a stream's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keep {
    Bytes,
    Digest,
}

#[derive(Debug, Default)]
struct Captured {
    bytes: Vec<u8>,
    digest: Option<Sha256>,
    total: u64,
    ended: bool,
    held: bool,
}

/// A stream that a thread reads.
#[derive(Debug, Clone)]
struct Capture(Arc<(Mutex<Captured>, Condvar)>);

impl Capture {
    fn start(mut from: impl Read + Send + 'static, keep: Keep, held: bool) -> Self {
        let digest = matches!(keep, Keep::Digest).then(Sha256::new);
        let capture =
            Self(Arc::new((Mutex::new(Captured { digest, held, ..Default::default() }), Condvar::new())));
        let shared = capture.clone();
        std::thread::spawn(move || {
            drop(shared.await_state(None, |state| !state.held));
            let mut block = vec![0; 256 * 1024];
            loop {
                let count = match from.read(&mut block) {
                    Ok(count) => count,
                    Err(source) if source.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(_) => 0,
                };
                let mut state = shared.lock();
                state.total += count as u64;
                state.ended = count == 0;
                match &mut state.digest {
                    Some(digest) => digest.update(&block[..count]),
                    None => state.bytes.extend_from_slice(&block[..count]),
                }
                shared.0.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        capture
    }

    fn empty() -> Self {
        Self(Arc::new((Mutex::new(Captured { ended: true, ..Default::default() }), Condvar::new())))
    }

    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a state; the guard of the last one seen is returned in any case.
    fn await_state(
        &self,
        until: Option<Instant>,
        mut condition: impl FnMut(&Captured) -> bool,
    ) -> MutexGuard<'_, Captured> {
        let mut state = self.lock();
        while !condition(&state) {
            let left =
                until.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            state = self.0.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }
}

/// A process of malai's that runs. Dropping it kills its process group.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Capture,
    stderr: Capture,
    started: Instant,
    reaped: Option<ExitStatus>,
    /// Lives as long as its processes.
    _net: TestNet,
}

impl Running {
    pub(crate) fn new(what: String, mut child: Child, keep: Keep, held: bool, net: TestNet) -> Self {
        let stdout = child.stdout.take().map_or_else(Capture::empty, |pipe| Capture::start(pipe, keep, held));
        let stderr =
            child.stderr.take().map_or_else(Capture::empty, |pipe| Capture::start(pipe, Keep::Bytes, false));
        Self { what, child, stdin: None, stdout, stderr, started: Instant::now(), reaped: None, _net: net }
    }

    pub(crate) fn set_stdin(&mut self, pipe: Option<ChildStdin>) {
        self.stdin = pipe;
    }

    /// Returns the process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to the stdin that [`crate::Invocation::open_stdin`] left open.
    ///
    /// # Panics
    ///
    /// When stdin is closed.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let what = &self.what;
        let pipe = self.stdin.as_mut().unwrap_or_else(|| panic!("{what}: stdin is not open"));
        pipe.write_all(bytes.as_ref())
            .and_then(|()| pipe.flush())
            .unwrap_or_else(|source| panic!("{what}: writes stdin: {source}"));
    }

    /// Closes stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Begins to read a held stdout.
    pub fn release_stdout(&self) {
        self.stdout.lock().held = false;
        self.stdout.0.1.notify_all();
    }

    /// Returns what stdout had so far.
    pub fn stdout_so_far(&self) -> Vec<u8> {
        self.stdout.lock().bytes.clone()
    }

    /// Waits for a whole line on stdout that fits, and returns it without its end.
    ///
    /// # Panics
    ///
    /// When stdout ends or the deadline passes without it.
    #[track_caller]
    pub fn wait_for_line(&self, deadline: Duration, fits: impl Fn(&str) -> bool) -> String {
        let find = |state: &Captured| {
            let text = String::from_utf8_lossy(&state.bytes);
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            whole.split('\n').find(|line| fits(line)).map(str::to_owned)
        };
        let until = Instant::now() + deadline;
        let state = self.stdout.await_state(Some(until), |state| state.ended || find(state).is_some());
        let found = find(&state);
        let seen = String::from_utf8_lossy(&state.bytes).into_owned();
        drop(state);
        found.unwrap_or_else(|| {
            let stderr = String::from_utf8_lossy(&self.stderr.lock().bytes).into_owned();
            panic!("{}: the awaited line did not come\nstdout: {seen}\nstderr: {stderr}", self.what)
        })
    }

    /// Waits until stdout has at least so many bytes.
    ///
    /// # Panics
    ///
    /// When they do not come.
    #[track_caller]
    pub fn wait_for_bytes(&self, deadline: Duration, count: u64) {
        let until = Instant::now() + deadline;
        let state = self.stdout.await_state(Some(until), |state| state.ended || state.total >= count);
        let total = state.total;
        drop(state);
        assert!(total >= count, "{}: {total} bytes came of {count}", self.what);
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if self.reaped.is_none() {
            let pid = i32::try_from(self.child.id()).expect("a pid is an i32");
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Says whether stdout has ended, whoever held it.
    pub fn stdout_has_ended(&self) -> bool {
        self.stdout.lock().ended
    }

    /// Says whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.reaped.is_none() {
            self.reaped = self.child.try_wait().expect("asks for the process's state");
        }
        self.reaped.is_some()
    }

    /// Waits for the end of the process and of its streams.
    ///
    /// # Panics
    ///
    /// When they have not ended at the deadline; the process is killed.
    #[track_caller]
    pub fn wait(mut self, deadline: Duration) -> Output {
        let until = Instant::now() + deadline;
        self.stdin = None;
        let what = self.what.clone();
        await_until(&format!("the end of {what}"), deadline, || self.has_ended());
        let elapsed = self.started.elapsed();
        let status = self.reaped.expect("has ended");
        self.release_stdout();
        let stdout = {
            let mut state = self.stdout.await_state(Some(until), |state| state.ended);
            assert!(state.ended, "{what}: has ended, but something still holds its stdout");
            let sha256 = state.digest.take().map(|digest| data_encoding::HEXLOWER.encode(&digest.finalize()));
            (std::mem::take(&mut state.bytes), state.total, sha256)
        };
        let stderr = {
            let mut state = self.stderr.await_state(Some(until), |state| state.ended);
            assert!(state.ended, "{what}: has ended, but something still holds its stderr");
            std::mem::take(&mut state.bytes)
        };
        Output {
            what,
            code: status.code(),
            signal: status.signal(),
            stdout: stdout.0,
            stdout_len: stdout.1,
            stdout_sha256: stdout.2,
            stderr,
            elapsed,
        }
    }

    /// Kills the process group at once.
    pub fn kill(mut self) {
        self.kill_group();
    }

    fn kill_group(&mut self) {
        if self.reaped.is_none() {
            // Not reaped, so the id is still its own.
            let pid = i32::try_from(self.child.id()).expect("a pid is an i32");
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            self.reaped = self.child.wait().ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// What an ended process left.
#[derive(Clone)]
pub struct Output {
    what: String,
    /// The exit status; absent if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its stdout, unless only a digest was kept.
    pub stdout: Vec<u8>,
    /// How many bytes stdout had.
    pub stdout_len: u64,
    /// The SHA-256 of stdout in lower-case hex, if that was asked for.
    pub stdout_sha256: Option<String>,
    /// Its stderr.
    pub stderr: Vec<u8>,
    /// How long it lived.
    pub elapsed: Duration,
}

impl Output {
    /// Returns stdout as text, without the blanks at its ends.
    ///
    /// # Panics
    ///
    /// When it is not UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap_or_else(|_| panic!("stdout is not UTF-8: {self:?}")).trim()
    }

    /// Returns stderr as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Asserts that the status is 0.
    ///
    /// # Panics
    ///
    /// When it is not; the whole output is shown.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Asserts the exit status.
    ///
    /// # Panics
    ///
    /// When it is another; the whole output is shown.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.code == Some(code), "expected the status {code}: {self:?}");
        self
    }

    /// Asserts that malai itself failed (255 or 1) with this stable code, which `--json` prints on stderr.
    ///
    /// # Panics
    ///
    /// When it did not.
    #[track_caller]
    pub fn fails_with(self, code: &str) -> Self {
        assert!(matches!(self.code, Some(255 | 1)), "expected a failure {code}: {self:?}");
        assert_eq!(self.error_code().as_deref(), Some(code), "expected another code: {self:?}");
        self
    }

    /// Returns the code of the error that `--json` printed, as `{"code": …}` or `{"error": {"code": …}}` on a line.
    pub fn error_code(&self) -> Option<String> {
        let text = [self.stderr_text(), String::from_utf8_lossy(&self.stdout).into_owned()].join("\n");
        let whole = text.lines().chain([text.trim()]);
        whole.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|value| {
            let error = value.get("error").unwrap_or(&value);
            error.get("code")?.as_str().map(str::to_owned)
        })
    }

    /// Parses stdout as one JSON value.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|source| panic!("no JSON ({source}): {self:?}"))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shorten = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            match text.char_indices().nth(4000) {
                Some((end, _)) => format!("{}… ({} bytes)", &text[..end], bytes.len()),
                None => text.into_owned(),
            }
        };
        writeln!(
            f,
            "{} ended with {:?}, signal {:?} in {:?}",
            self.what, self.code, self.signal, self.elapsed
        )?;
        writeln!(f, "stdout ({} bytes): {}", self.stdout_len, shorten(&self.stdout))?;
        write!(f, "stderr: {}", shorten(&self.stderr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TestHome;

    const SOON: Duration = Duration::from_secs(20);

    fn shell() -> TestHome {
        TestHome::new(&TestNet::of_program("/bin/sh"), "one")
    }

    #[test]
    fn streams_and_status_are_kept_apart() {
        let output = shell().malai(["-c", "echo out; echo err >&2; exit 3"]).exits(3);
        assert_eq!((output.text(), output.stderr_text().as_str()), ("out", "err\n"));
    }

    #[test]
    fn the_environment_is_cleared() {
        let home = shell();
        let output = home.command(["-c", "env"]).env("EXTRA", "1").run().ok();
        let names: Vec<&str> = output.text().lines().filter_map(|line| line.split('=').next()).collect();
        assert!(names.contains(&"MALAI_HOME") && names.contains(&"EXTRA"), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with("CARGO")), "{names:?}");
    }

    #[test]
    fn stdin_is_fed_and_stdout_digested() {
        let output = shell().command(["-c", "cat"]).stdin("abc").digest_stdout().run().ok();
        assert_eq!(output.stdout_len, 3);
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(output.stdout_sha256.as_deref(), Some(expected));
    }

    #[test]
    fn lines_come_while_stdin_is_open() {
        let mut running = shell().command(["-c", "while read x; do echo got $x; done"]).open_stdin().spawn();
        running.write("one\n");
        assert_eq!(running.wait_for_line(SOON, |line| line.starts_with("got")), "got one");
        running.write("two\n");
        running.wait_for_line(SOON, |line| line == "got two");
        running.close_stdin();
        running.wait(SOON).ok();
    }

    #[test]
    fn a_held_stdout_fills_up_until_it_is_released() {
        let home = shell();
        let mark = home.path().join("mark");
        let script = format!("head -c 1000000 /dev/zero; touch {}", mark.display());
        let running = home.command(["-c", &script]).hold_stdout().spawn();
        assert_eq!(running.stdout_so_far().len(), 0);
        assert!(!mark.exists());
        running.release_stdout();
        assert_eq!(running.wait(SOON).ok().stdout.len(), 1_000_000);
        assert!(mark.exists());
    }

    #[test]
    #[should_panic(expected = "still waiting")]
    fn a_process_that_does_not_end_fails_the_test() {
        shell().command(["-c", "sleep 100"]).deadline(Duration::from_millis(50)).run();
    }

    #[test]
    fn dropping_kills_the_whole_group() {
        let home = shell();
        let running = home.command(["-c", "sleep 1000 & echo $!; wait"]).spawn();
        let child = running.wait_for_line(SOON, |line| !line.is_empty());
        drop(running);
        // A killed process may stay as a zombie until its new parent has reaped it.
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
            stat.rsplit(')').next()?.trim().chars().next()
        };
        await_until("the end of the grandchild", SOON, || matches!(state(), None | Some('Z')));
    }

    #[test]
    fn a_code_is_found_in_either_form() {
        for text in [r#"{"error":{"code":"acl.denied"}}"#, r#"{"code":"acl.denied"}"#] {
            let script = format!("echo '{text}' >&2; exit 255");
            shell().malai(["-c", &script]).fails_with("acl.denied");
        }
    }
}
