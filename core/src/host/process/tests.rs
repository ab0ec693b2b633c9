//! Real processes: what a caller of a command can count on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use malai_model::wire::{CommandEnd, Signal};
use nix::errno::Errno;
use nix::sys::signal::kill;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::*;
use crate::host::seal_inherited_files;

const PATIENCE: Duration = Duration::from_secs(20);

fn request(argv: &[&str]) -> SpawnRequest {
    let user = LocalUser::current().expect("a user");
    SpawnRequest {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: vec![("PATH".to_owned(), user.path.clone())],
        dir: "/".into(),
        user,
        program: Executable::Named,
    }
}

fn spawn(argv: &[&str]) -> Process {
    Process::spawn(&request(argv)).expect("starts")
}

fn shell(script: &str) -> Process {
    spawn(&["sh", "-c", script])
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// Runs a command to its end, without input: stdout, stderr, end.
async fn run(process: Process) -> (String, String, CommandEnd) {
    let Process { stdin, mut stdout, mut stderr, group } = process;
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    let (one, two) =
        in_time(async { tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)) })
            .await;
    one.expect("stdout is read");
    two.expect("stderr is read");
    (out, err, in_time(group.finish()).await.expect("ends"))
}

fn is_alive(pid: i32) -> bool {
    let pid = Pid::from_raw(pid);
    if kill(pid, None) == Err(Errno::ESRCH) {
        return false;
    }
    // An orphan that ended is a zombie until init collects it: dead all the same.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z') && !rest.is_empty())
}

async fn gone(pid: i32) {
    let deadline = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "process {pid} lives on");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn line(output: &mut BufReader<ProcessOutput>) -> String {
    let mut line = String::new();
    in_time(output.read_line(&mut line)).await.expect("a line");
    line.trim().to_owned()
}

#[tokio::test]
async fn a_command_ends_with_its_own_status() {
    for status in [0, 1, 3, 126, 127, 255] {
        let (_, _, end) = run(shell(&format!("exit {status}"))).await;
        assert_eq!(end, CommandEnd::Exited { status });
    }
    let (_, _, end) = run(shell("kill -KILL $$")).await;
    assert_eq!((end, end.shell_status()), (CommandEnd::Killed { signal: 9 }, 137));
}

#[tokio::test]
async fn stdout_and_stderr_are_apart() {
    let (out, err, _) = run(shell("echo one; echo two >&2; echo three")).await;
    assert_eq!((out.as_str(), err.as_str()), ("one\nthree\n", "two\n"));
}

#[tokio::test]
async fn what_is_not_there_is_127_and_what_cannot_be_executed_126() {
    let dir = tempfile::tempdir().expect("a directory");
    let script = |name: &str, text: &[u8], mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path.display().to_string()
    };
    let status = |word: &str| {
        let error = Process::spawn(&request(&[word])).expect_err("does not start");
        (error.shell_status(), error.code().as_str())
    };
    let not_found = (Some(127), "command.not_found");
    let not_executable = (Some(126), "command.not_executable");
    assert_eq!(status("no-such-program-7"), not_found);
    assert_eq!(status("/nowhere/program"), not_found);
    assert_eq!(status(""), not_found);
    assert_eq!(status("/etc"), not_executable);
    assert_eq!(status("/etc/passwd"), not_executable);
    assert_eq!(status("/etc/passwd/x"), not_executable);
    assert_eq!(status(&script("loose", b"#!/bin/sh\n", 0o644)), not_executable);
    assert_eq!(status(&script("interpreter", b"#!/nowhere/sh\n", 0o755)), not_executable);
    for program in [Executable::At("/nowhere/x".into()), Executable::Own(OwnProgram::at("/nowhere/x"))] {
        let request = SpawnRequest { program, ..request(&["x"]) };
        assert_eq!(Process::spawn(&request).expect_err("does not start").shell_status(), Some(127));
    }
    assert_eq!(status(&script("garbage", b"\x7fELF nonsense", 0o755)), not_executable);
}

#[tokio::test]
async fn a_script_without_a_first_line_is_not_run_by_a_shell() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, trace) = (dir.path().join("script"), dir.path().join("trace"));
    fs::write(&path, format!("touch {}\n", trace.display())).expect("is written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    let error = Process::spawn(&request(&[&path.display().to_string()])).expect_err("does not start");
    assert_eq!(error.shell_status(), Some(126));
    assert!(!trace.exists());
}

#[tokio::test]
async fn words_reach_the_program_as_they_are() {
    let words = ["a b", "", "$HOME", "*", "';'", "-n", "ä\n", "`id`"];
    let argv: Vec<&str> = ["printf", "[%s]"].into_iter().chain(words).collect();
    let (out, _, _) = run(spawn(&argv)).await;
    assert_eq!(out, words.map(|word| format!("[{word}]")).concat());
    let (out, _, _) = run(shell("echo $0")).await;
    assert_eq!(out, "sh\n", "the program's name is as it was typed");
    for bad in [&[][..], &["echo", "a\0b"]] {
        let error = Process::spawn(&request(bad)).expect_err("is refused");
        assert_eq!(error.code().as_str(), "usage");
    }
}

#[tokio::test]
async fn the_environment_and_the_directory_are_exactly_those_of_the_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut request = request(&["env", "-0"]);
    request.env = vec![("HOME".to_owned(), "/x y".to_owned()), ("LANG".to_owned(), "C".to_owned())];
    let (out, _, _) = run(Process::spawn(&request).expect("starts")).await;
    let got: BTreeMap<&str, &str> = out.split_terminator('\0').filter_map(|v| v.split_once('=')).collect();
    assert_eq!(got, BTreeMap::from([("HOME", "/x y"), ("LANG", "C")]));

    request.argv = vec!["pwd".to_owned()];
    request.dir = fs::canonicalize(dir.path()).expect("a path");
    let (out, _, _) = run(Process::spawn(&request).expect("starts")).await;
    assert_eq!(Path::new(out.trim()), request.dir);
    request.dir = "/nowhere".into();
    let (out, _, _) = run(Process::spawn(&request).expect("starts")).await;
    assert_eq!(out, "/\n");
}

#[tokio::test]
async fn input_is_echoed_line_by_line_while_the_pipe_is_open() {
    let Process { mut stdin, stdout, group, .. } = spawn(&["cat"]);
    let mut stdout = BufReader::new(stdout);
    for n in 0..3 {
        stdin.write_all(format!("line {n}\n").as_bytes()).await.expect("is written");
        assert_eq!(line(&mut stdout).await, format!("line {n}"));
    }
    drop(stdin);
    assert_eq!(in_time(group.finish()).await.expect("ends"), CommandEnd::Exited { status: 0 });
}

#[tokio::test]
async fn two_hundred_megabytes_of_input_arrive_whole() {
    const BLOCK: usize = 1 << 20;
    let Process { mut stdin, mut stdout, group, .. } = spawn(&["sha256sum"]);
    let mut digest = Sha256::new();
    for n in 0_u8..200 {
        let block = vec![n; BLOCK];
        digest.update(&block);
        in_time(stdin.write_all(&block)).await.expect("is written");
    }
    drop(stdin);
    let mut out = String::new();
    in_time(stdout.read_to_string(&mut out)).await.expect("is read");
    assert_eq!(
        out.split_whitespace().next(),
        Some(data_encoding::HEXLOWER.encode(&digest.finalize()).as_str())
    );
    in_time(group.finish()).await.expect("ends");
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group() {
    let Process { stdout, group, .. } = shell("sh -c 'sleep 1000 & echo $!; wait' & wait");
    let mut stdout = BufReader::new(stdout);
    let grandchild = line(&mut stdout).await.parse().expect("a pid");
    assert!(is_alive(grandchild));
    group.signal(Signal::Term).expect("is delivered");
    assert_eq!(in_time(group.wait()).await.expect("ends"), CommandEnd::Killed { signal: 15 });
    gone(grandchild).await;
    group.signal(Signal::Term).expect("to a group that has ended");
}

/// Not a test by itself: the next one runs it in a process that ignores signals.
#[tokio::test]
#[ignore = "run by a_daemon_that_ignores_signals_starts_commands_that_hear_them"]
async fn commands_hear_every_signal() {
    for (signal, number) in [(Signal::Hup, 1), (Signal::Int, 2), (Signal::Quit, 3), (Signal::Usr1, 10)] {
        let group = spawn(&["sleep", "1000"]).group;
        group.signal(signal).expect("is delivered");
        assert_eq!(in_time(group.wait()).await.expect("ends"), CommandEnd::Killed { signal: number });
    }
}

#[tokio::test]
async fn a_daemon_that_ignores_signals_starts_commands_that_hear_them() {
    // What `nohup` and a shell's `&` do to a daemon.
    let inner = "host::process::tests::commands_hear_every_signal";
    let binary = std::env::current_exe().expect("this binary").display().to_string();
    let script = "trap '' HUP INT QUIT USR1 CHLD; exec \"$0\" \"$@\"";
    let (out, err, end) = run(spawn(&["sh", "-c", script, &binary, "--exact", inner, "--ignored"])).await;
    assert_eq!(end, CommandEnd::Exited { status: 0 }, "{out}{err}");
    assert!(out.contains("1 passed"), "{out}");
}

#[tokio::test]
async fn a_group_that_ends_by_itself_is_not_waited_for_the_whole_grace() {
    let Process { group, .. } = shell("sleep 1000");
    let start = Instant::now();
    let end = in_time(group.hang_up(PATIENCE * 10)).await.expect("ends");
    assert_eq!(end, CommandEnd::Killed { signal: 1 });
    assert!(start.elapsed() < PATIENCE);
}

#[tokio::test]
async fn whoever_ignores_the_hang_up_is_killed_after_the_grace() {
    let Process { stdout, group, .. } = shell("trap '' HUP; echo ready; while :; do sleep 1000; done");
    let mut stdout = BufReader::new(stdout);
    line(&mut stdout).await;
    let start = Instant::now();
    let end = in_time(group.hang_up(Duration::from_millis(200))).await.expect("ends");
    assert_eq!(end, CommandEnd::Killed { signal: 9 });
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_member_that_outlives_the_first_process_has_its_grace_and_is_killed_after_it() {
    let script = "(trap 'echo heard' HUP; echo ready >&2; while :; do sleep 0.01; done) & echo $!; wait";
    let Process { stdout, stderr, group, .. } = shell(script);
    let (mut stdout, mut stderr) = (BufReader::new(stdout), BufReader::new(stderr));
    let member = line(&mut stdout).await.parse().expect("a pid");
    assert_eq!(line(&mut stderr).await, "ready");
    let end = in_time(group.hang_up(Duration::from_millis(300))).await.expect("ends");
    assert_eq!(end, CommandEnd::Killed { signal: 1 });
    assert_eq!(line(&mut stdout).await, "heard");
    gone(member).await;
}

#[tokio::test]
async fn a_stopped_command_hears_the_hang_up() {
    let Process { group, .. } = shell("kill -STOP $$; sleep 1000");
    let end = in_time(group.hang_up(PATIENCE * 10)).await.expect("ends");
    assert_eq!(end, CommandEnd::Killed { signal: 1 });
}

#[tokio::test]
async fn output_goes_on_after_the_first_process_while_another_holds_the_pipe() {
    let Process { stdin, mut stdout, group, .. } =
        shell("exec 3<&0; (read line <&3; echo \"late $line\") & exit 3");
    let (mut stdin, mut out) = (stdin, String::new());
    assert_eq!(in_time(group.wait()).await.expect("ends"), CommandEnd::Exited { status: 3 });
    stdin.write_all(b"word\n").await.expect("somebody reads");
    in_time(stdout.read_to_string(&mut out)).await.expect("is read");
    assert_eq!(out, "late word\n");
}

#[tokio::test]
async fn finishing_leaves_what_runs_in_the_background_alone() {
    let (out, _, end) = run(shell("sleep 1000 >/dev/null 2>&1 & echo $!")).await;
    assert_eq!(end, CommandEnd::Exited { status: 0 });
    let background = out.trim().parse().expect("a pid");
    assert!(is_alive(background));
    kill(Pid::from_raw(background), nix::sys::signal::SIGKILL).expect("is ended");
}

#[tokio::test]
async fn dropping_leaves_neither_a_zombie_nor_an_orphan() {
    let Process { stdout, group, .. } = shell("trap '' HUP TERM; sleep 1000 & echo $!; wait");
    let mut stdout = BufReader::new(stdout);
    let member: i32 = line(&mut stdout).await.parse().expect("a pid");
    let leader = i32::try_from(group.pid()).expect("a pid");
    drop(group);
    gone(member).await;
    let deadline = Instant::now() + PATIENCE;
    while kill(Pid::from_raw(leader), None).is_ok() {
        assert!(Instant::now() < deadline, "a zombie stays");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_child_has_its_three_pipes_open_and_nothing_else() {
    let file = tempfile::tempfile().expect("a file");
    nix::fcntl::fcntl(&file, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::empty())).expect("can be inherited");
    seal_inherited_files();
    let _others = [spawn(&["cat"]), spawn(&["cat"])];
    let (out, _, _) = run(shell("for fd in /proc/self/fd/*; do echo ${fd##*/}; done")).await;
    let open: Vec<&str> = out.lines().collect();
    // The fourth is the listing's own.
    assert!(matches!(open[..], ["0", "1", "2"] | ["0", "1", "2", "3"]), "{open:?}");
}

#[tokio::test]
async fn a_hundred_at_once_each_have_their_own_end() {
    let runs = (0..100_u8).map(|n| async move { run(shell(&format!("exit {n}"))).await.2 });
    let mut set = tokio::task::JoinSet::new();
    for (n, run) in (0..100_u8).zip(runs) {
        set.spawn(async move { (n, run.await) });
    }
    while let Some(ended) = set.join_next().await {
        let (status, end) = ended.expect("joins");
        assert_eq!(end, CommandEnd::Exited { status });
    }
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "a figure for whoever runs the tests")]
async fn the_cost_of_starting_a_process_is_printed() {
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        let process = spawn(&["true"]);
        let started = start.elapsed();
        run(process).await;
        times.push((started, start.elapsed()));
    }
    times.sort();
    let (started, ended) = times[times.len() / 2];
    eprintln!("starting `true`: {started:?}; until its end is known: {ended:?} (medians of 50)");
}
