//! Real programs under real terminals.

use std::path::PathBuf;
use std::time::Instant;

use malai_model::wire::Signal;
use nix::errno::Errno;
use nix::sys::signal::kill;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::host::SpawnRequest;

const PATIENCE: Duration = Duration::from_secs(30);

fn window(columns: u16, rows: u16) -> WindowSize {
    WindowSize { columns, rows, width: 0, height: 0 }
}

fn request(argv: &[&str]) -> SpawnRequest {
    let user = LocalUser::current().expect("a user");
    let path = ("PATH".to_owned(), user.path.clone());
    SpawnRequest {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: vec![path, ("TERM".to_owned(), "xterm".to_owned())],
        dir: "/".into(),
        user,
        program: Executable::Named,
    }
}

fn program(argv: &[&str]) -> Terminal {
    Terminal::new(PtyProcess::spawn(&request(argv), window(80, 24), Login::Program).expect("starts"))
}

fn script(script: &str) -> Terminal {
    program(&["sh", "-c", script])
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// A terminal and everything that it showed.
struct Terminal {
    process: PtyProcess,
    shown: Vec<u8>,
    seen: usize,
}

impl Terminal {
    fn new(process: PtyProcess) -> Self {
        Self { process, shown: Vec::new(), seen: 0 }
    }

    async fn types(&mut self, text: &str) {
        in_time(self.process.master.write_all(text.as_bytes())).await.expect("is typed");
    }

    /// Waits until the text is shown, after whatever was waited for before, and returns what is shown up to it.
    async fn shows(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let new = &self.shown[self.seen..];
            if let Some(at) = new.windows(text.len()).position(|part| part == text.as_bytes()) {
                let found = String::from_utf8_lossy(&new[..at]).into_owned();
                self.seen += at + text.len();
                return found;
            }
            let mut block = [0; 4096];
            let left = until.saturating_duration_since(Instant::now());
            let read = tokio::time::timeout(left, self.process.master.read(&mut block)).await;
            match read {
                Ok(Ok(count)) if count > 0 => self.shown.extend_from_slice(&block[..count]),
                other => {
                    panic!("{text:?} is not shown ({other:?}): {:?}", String::from_utf8_lossy(&self.shown))
                }
            }
        }
    }

    /// Waits until another group than that one is in the foreground, and returns it.
    async fn foreground_but(&self, group: u32) -> i32 {
        let until = Instant::now() + PATIENCE;
        loop {
            let now = nix::unistd::tcgetpgrp(self.process.master.0.file()).expect("a group").as_raw();
            if now.unsigned_abs() != group {
                return now;
            }
            assert!(Instant::now() < until, "no job comes into the foreground");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Everything up to the end, and how it ended.
    async fn ends(mut self) -> (String, CommandEnd) {
        in_time(self.process.master.read_to_end(&mut self.shown)).await.expect("is read");
        let end = in_time(self.process.group.finish()).await.expect("ends");
        (String::from_utf8_lossy(&self.shown[self.seen..]).into_owned(), end)
    }
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH) && !state.starts_with('Z') && !state.is_empty()
}

/// Waits until a process executes a program: before that, a shell's child still ignores the keys that the shell does.
async fn executes(pid: i32, program: &str) {
    let until = Instant::now() + PATIENCE;
    // Where there is no such file nobody can tell.
    while std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() != program) {
        assert!(Instant::now() < until, "process {pid} does not become {program}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn gone(pid: i32) {
    let until = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < until, "process {pid} lives on");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn all_three_files_are_the_terminal_and_it_controls_the_program() {
    let script = "test -t 0 && test -t 1 && test -t 2 && echo yes >/dev/tty; \
                  ps -o pid=,sid=,tpgid= $$ | tr -s ' '; echo $TERM";
    let leader = script_pid_line(script).await;
    let numbers: Vec<&str> = leader.split_whitespace().collect();
    assert!(matches!(numbers[..], [pid, sid, group] if pid == sid && pid == group), "{leader}");
}

async fn script_pid_line(text: &str) -> String {
    let (shown, end) = script(text).ends().await;
    assert_eq!(end, CommandEnd::Exited { status: 0 }, "{shown}");
    let lines: Vec<&str> = shown.lines().collect();
    let [yes, numbers, term] = lines[..] else { panic!("{shown:?}") };
    assert_eq!((yes, term), ("yes", "xterm"));
    numbers.to_owned()
}

#[tokio::test]
async fn the_size_arrives_and_a_change_of_it_too() {
    let script = "trap 'stty size; exit 5' WINCH; stty size; while :; do sleep 0.01; done";
    let process =
        PtyProcess::spawn(&request(&["sh", "-c", script]), window(132, 43), Login::Program).expect("starts");
    let mut terminal = Terminal::new(process);
    terminal.shows("43 132\r\n").await;
    terminal.process.master.clone().resize(window(10_000, 1)).expect("is resized");
    terminal.shows("1 10000\r\n").await;
    assert_eq!(terminal.ends().await.1, CommandEnd::Exited { status: 5 });
}

#[tokio::test]
async fn the_terminal_is_as_a_login_finds_it() {
    let (shown, _) = program(&["stty", "-a"]).ends().await;
    let words: Vec<&str> = shown.split([' ', ';', '\r', '\n']).collect();
    for wanted in
        ["icanon", "echo", "echoe", "isig", "iexten", "icrnl", "ixon", "iutf8", "opost", "onlcr", "cs8"]
    {
        assert!(words.contains(&wanted), "{wanted}: {shown}");
    }
}

#[tokio::test]
async fn what_is_typed_is_edited_and_echoed_and_ctrl_d_is_the_end() {
    let mut terminal = program(&["cat"]);
    terminal.types("helloü\u{7f}\u{7f}p\n").await;
    terminal.shows("\r\nhellp\r\n").await;
    terminal.types("\u{4}").await;
    assert_eq!(terminal.ends().await.1, CommandEnd::Exited { status: 0 });
}

#[tokio::test]
async fn ctrl_c_and_ctrl_backslash_reach_the_program() {
    for (key, signal) in [("\u{3}", 2), ("\u{1c}", 3)] {
        let mut terminal = script("ulimit -c 0; echo ready; exec sleep 1000");
        terminal.shows("ready").await;
        terminal.types(key).await;
        assert_eq!(terminal.ends().await.1, CommandEnd::Killed { signal });
    }
}

#[tokio::test]
async fn a_login_shell_has_job_control() {
    let home = tempfile::tempdir().expect("a directory");
    let mut request = request(&[]);
    request.user.shell = PathBuf::from("/bin/bash");
    let home = home.path().display().to_string();
    request.env.extend([("HOME".to_owned(), home), ("HISTFILE".to_owned(), String::new())]);
    let process = PtyProcess::spawn(&request, window(80, 24), Login::Shell).expect("starts");
    let mut shell = Terminal::new(process);
    shell.types("PS1='pro''mpt> '\n").await;
    shell.shows("prompt> ").await;
    shell.types("echo name=$0 flags=$-; shopt login_shell\n").await;
    let flags = shell.shows("prompt> ").await;
    assert!(flags.contains("name=-bash") && flags.contains("\ton"), "{flags}");
    shell.types("sleep 1000\n").await;
    let own = shell.process.group.pid();
    // A key is for the job only once the shell has put it into the foreground.
    let job = shell.foreground_but(own).await;
    executes(job, "sleep").await;
    shell.types("\u{1a}").await;
    shell.shows("Stopped").await;
    shell.shows("prompt> ").await;
    shell.types("fg\n").await;
    assert_eq!(shell.foreground_but(own).await, job);
    shell.types("\u{3}").await;
    shell.shows("prompt> ").await;
    gone(job).await;
    shell.types("echo status=$?\n").await;
    shell.shows("status=130\r\n").await;
    shell.types("exit 7\n").await;
    assert_eq!(shell.ends().await.1, CommandEnd::Exited { status: 7 });
}

#[tokio::test]
async fn a_hang_up_ends_every_job_of_the_session() {
    let script = "set -m; sleep 1000 & a=$!; (trap '' HUP; echo up; while :; do sleep 0.05; done) & echo $a $! .; wait";
    let mut terminal = program(&["bash", "-c", script]);
    let jobs = terminal.shows(" .").await.replace("up", "");
    let jobs: Vec<i32> = jobs.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
    if !terminal.shown.windows(2).any(|part| part == b"up") {
        terminal.shows("up").await;
    }
    let leader = i32::try_from(terminal.process.group.pid()).expect("a pid");
    assert!(jobs.len() == 2 && jobs.iter().all(|pid| is_alive(*pid)), "{jobs:?}");
    let end = in_time(terminal.process.hang_up(Duration::from_millis(300))).await.expect("ends");
    assert_eq!(end, CommandEnd::Killed { signal: 1 });
    for pid in jobs.into_iter().chain([leader]) {
        gone(pid).await;
    }
}

#[tokio::test]
async fn dropping_leaves_nothing_of_the_session() {
    let mut terminal = program(&["bash", "-c", "set -m; trap '' HUP; sleep 1000 & echo $! .; wait"]);
    let job = terminal.shows(" .").await.trim().parse().expect("a pid");
    let leader = i32::try_from(terminal.process.group.pid()).expect("a pid");
    drop(terminal);
    gone(job).await;
    gone(leader).await;
}

#[tokio::test]
async fn the_last_clone_that_goes_hangs_up() {
    let terminal = program(&["sleep", "1000"]);
    let PtyProcess { master, group } = terminal.process;
    drop(master);
    assert_eq!(in_time(group.finish()).await.expect("ends"), CommandEnd::Killed { signal: 1 });
}

#[tokio::test]
async fn what_ignores_the_hang_up_and_was_left_behind_lives_on_after_a_good_end() {
    let (shown, end) =
        program(&["sh", "-c", "trap '' HUP; sleep 1000 </dev/null >/dev/null 2>&1 & echo $!"]).ends().await;
    assert_eq!(end, CommandEnd::Exited { status: 0 });
    let left = shown.trim().parse().expect("a pid");
    assert!(is_alive(left));
    kill(Pid::from_raw(left), nix::sys::signal::SIGKILL).expect("is ended");
}

#[tokio::test]
async fn no_byte_is_lost() {
    let (shown, end) = script("yes | head -c 500000; exit 4").ends().await;
    assert_eq!(end, CommandEnd::Exited { status: 4 });
    assert_eq!(shown.len(), 750_000);
    assert!(shown.as_bytes().chunks(3).all(|line| line == b"y\r\n"));
}

#[tokio::test]
async fn every_byte_passes_both_ways_when_the_program_wants_it_so() {
    const LEN: usize = 300_000;
    let script = format!("stty raw -echo; echo ready; head -c {LEN} | sha256sum; stty sane");
    let mut terminal = program(&["sh", "-c", &script]);
    terminal.shows("ready").await;
    let bytes: Vec<u8> = (0..LEN).map(|n| (n * 7 % 251) as u8).collect();
    let mut typing = terminal.process.master.clone();
    let (sent, ()) = tokio::join!(in_time(typing.write_all(&bytes)), async {
        terminal
            .shows(&data_encoding::HEXLOWER.encode(&<sha2::Sha256 as sha2::Digest>::digest(&bytes)))
            .await;
    });
    sent.expect("is typed");
    drop(typing);
    assert_eq!(terminal.ends().await.1, CommandEnd::Exited { status: 0 });
}

#[tokio::test]
async fn a_program_that_reads_nothing_makes_the_typist_wait_and_nobody_else() {
    let mut terminal = script("stty raw -echo; echo ready; exec sleep 1000");
    terminal.shows("ready").await;
    let mut typing = terminal.process.master.clone();
    let typed = tokio::time::timeout(Duration::from_millis(300), typing.write_all(&[b'x'; 1 << 20])).await;
    assert!(typed.is_err(), "a megabyte fits nowhere");
    terminal.process.group.signal(Signal::Term).expect("is delivered");
    drop(typing);
    assert_eq!(terminal.ends().await.1, CommandEnd::Killed { signal: 15 });
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_told_apart() {
    let started = |argv: &[&str]| PtyProcess::spawn(&request(argv), window(80, 24), Login::Program);
    let status = |argv: &[&str]| started(argv).expect_err("does not start").shell_status();
    assert_eq!(status(&["no-such-program-7"]), Some(127));
    assert_eq!(status(&["/nowhere/program"]), Some(127));
    assert_eq!(status(&[""]), Some(127));
    assert_eq!(status(&["/etc"]), Some(126));
    assert_eq!(status(&["/etc/passwd"]), Some(126));
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/nowhere/sh\n").expect("is written");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    let error = started(&[&script.display().to_string()]).expect_err("does not start");
    assert_eq!(error.shell_status(), Some(126));
    let mut shell = request(&[]);
    shell.user.shell = "/nowhere/shell".into();
    let error = PtyProcess::spawn(&shell, window(80, 24), Login::Shell).expect_err("does not start");
    assert_eq!(error.code().as_str(), "command.not_found");
}

#[tokio::test]
async fn a_login_shell_that_says_no_says_so() {
    let nologin =
        ["/usr/sbin/nologin", "/sbin/nologin"].into_iter().find(|path| std::path::Path::new(path).exists());
    let mut shell = request(&[]);
    shell.user.shell = nologin.unwrap_or("/bin/false").into();
    let process = PtyProcess::spawn(&shell, window(80, 24), Login::Shell).expect("starts");
    let (shown, end) = Terminal::new(process).ends().await;
    assert_eq!(end, CommandEnd::Exited { status: 1 });
    assert!(nologin.is_none() || shown.contains("not available"), "{shown}");
}

#[tokio::test]
async fn nothing_else_is_open_and_a_directory_that_is_not_there_is_the_root() {
    let mut request = request(&["sh", "-c", "for fd in /proc/self/fd/*; do echo ${fd##*/}; done; pwd"]);
    request.dir = "/nowhere".into();
    // Not marked: the child closes it all the same.
    let file = tempfile::tempfile().expect("a file");
    fcntl(&file, FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).expect("could be inherited");
    let process = PtyProcess::spawn(&request, window(80, 24), Login::Program).expect("starts");
    let (shown, _) = Terminal::new(process).ends().await;
    let lines: Vec<&str> = shown.lines().collect();
    // The fourth file is the listing's own.
    assert!(matches!(lines[..], ["0", "1", "2", "/"] | ["0", "1", "2", "3", "/"]), "{lines:?}");
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "a figure for whoever runs the tests")]
async fn the_cost_of_starting_under_a_terminal_is_printed() {
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let terminal = program(&["true"]);
        times.push(start.elapsed());
        terminal.ends().await;
    }
    times.sort();
    eprintln!("starting `true` under a terminal: {:?} (median of 20)", times[times.len() / 2]);
}
