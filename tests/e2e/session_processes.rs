//! The processes of sessions, as the system sees them.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};

use malai_testkit::{Cluster, TestHome, await_until};

use crate::shells::{sessions, shell};
use crate::{SOON, net, open_cluster};

/// Starts a session that nobody is attached to; returns its name.
fn detached(cluster: &Cluster, words: &[&str]) -> String {
    let words = [&["--detach", "web01.company"], words].concat();
    cluster.home("laptop").malai(words).ok().text().trim().to_owned()
}

fn dir_of(home: &TestHome, session: &str) -> PathBuf {
    home.path().join("sessions").join(session)
}

/// The number of a session's process: whoever holds the lock has written it there.
fn pid_of(home: &TestHome, session: &str) -> u32 {
    let text = std::fs::read_to_string(dir_of(home, session).join("lock")).expect("a lock");
    let written: serde_json::Value = serde_json::from_str(&text).expect("is JSON");
    u32::try_from(written["pid"].as_u64().expect("a number")).expect("a pid")
}

/// Fields of a process's `stat` behind its name: state, parent, group, session …
fn stat(pid: u32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    fields.split_whitespace().map(str::to_owned).collect()
}

fn files_of(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn kilobytes(pid: u32, file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0)
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("is killed");
}

#[test]
fn a_session_has_nothing_of_its_daemon() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let session = detached(&cluster, &["sleep", "1000"]);
    let daemon = cluster.member("web01").daemon.as_ref().expect("runs").pid();
    let web01 = cluster.home("web01");
    let pid = pid_of(web01, &session);
    let fields = stat(pid);
    assert_ne!(fields[1], daemon.to_string(), "it is the daemon's child");
    assert_eq!(fields[3], pid.to_string(), "it is in another's session");
    let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).expect("is there");
    assert_eq!(
        (link("cwd"), link("fd/0"), link("fd/1")),
        ("/".into(), "/dev/null".into(), "/dev/null".into())
    );
    assert!(files_of(pid) <= 16, "{} files are open", files_of(pid));
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).expect("reads");
    assert_eq!(words, b"malai-session\0", "nothing of the user's is in its words");
    assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).expect("reads"), b"");
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).expect("is there").permissions().mode() & 0o777
    };
    let dir = dir_of(web01, &session);
    assert_eq!(mode(&dir), 0o700);
    for file in ["session.json", "socket", "lock", "log"] {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
    // What it has for itself: the program's own pages are shared, and those of a dev build are no measure.
    let own = kilobytes(pid, "smaps_rollup", "Private_Dirty:");
    assert!((1..=4096).contains(&own), "{own} KiB are its own");
}

#[test]
fn what_runs_as_the_daemon_s_own_user_has_the_daemon_s_umask() {
    let net = net();
    let cluster = open_cluster(&net);
    let file = cluster.home("web01").path().join("umask");
    detached(&cluster, &["sh", "-c", &format!("umask > {}", file.display())]);
    let own = std::process::Command::new("sh").args(["-c", "umask"]).output().expect("runs").stdout;
    let read = || std::fs::read(&file).unwrap_or_default();
    await_until("its umask", SOON, || read().ends_with(b"\n"));
    assert_eq!(String::from_utf8_lossy(&read()), String::from_utf8_lossy(&own));
}

#[test]
fn a_session_whose_process_is_killed_is_gone_and_its_client_is_told() {
    let net = net();
    let cluster = open_cluster(&net);
    let (laptop, web01) = (cluster.home("laptop"), cluster.home("web01"));
    let mut terminal = shell(laptop);
    let session = sessions(laptop)[0]["session"].as_str().expect("a text").to_owned();
    kill(pid_of(web01, &session));
    assert_eq!(terminal.wait(), 255);
    let shown = terminal.screen().text().replace('\n', "");
    assert!(shown.contains("the session's process ended"), "{shown}");
    await_until("its directory to be cleared away", SOON, || {
        sessions(laptop).is_empty() && !dir_of(web01, &session).exists()
    });
}

#[test]
fn fifty_sessions_live_at_once_and_leave_nothing_behind() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let first = detached(&cluster, &["true"]);
    let laptop = cluster.home("laptop");
    let end = |session: &str| {
        laptop.malai(["sessions", "web01.company", "--end", session]);
    };
    end(&first);
    let daemon = cluster.member("web01").daemon.as_ref().expect("runs").pid();
    await_until("the first to be gone", SOON, || sessions(cluster.home("laptop")).is_empty());
    let before = files_of(daemon);
    let started: Vec<String> = std::thread::scope(|scope| {
        let cluster = &cluster;
        let starting: Vec<_> =
            (0..50).map(|_| scope.spawn(move || detached(cluster, &["sleep", "1000"]))).collect();
        starting.into_iter().map(|one| one.join().expect("starts")).collect()
    });
    let (laptop, web01) = (cluster.home("laptop"), cluster.home("web01"));
    assert_eq!(sessions(laptop).len(), 50);
    let pids: Vec<u32> = started.iter().map(|session| pid_of(web01, session)).collect();
    for session in &started {
        laptop.malai(["sessions", "web01.company", "--end", session]);
    }
    assert!(sessions(laptop).is_empty());
    await_until("their processes to be gone", SOON, || pids.iter().all(|pid| stat(*pid).is_empty()));
    assert_eq!(std::fs::read_dir(web01.path().join("sessions")).expect("lists").count(), 0);
    await_until("the daemon's files to be closed", SOON, || files_of(daemon) <= before + 4);
    let children =
        std::fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).unwrap_or_default();
    let dead = children.split_whitespace().filter(|pid| stat(pid.parse().expect("a pid"))[0] == "Z").count();
    assert_eq!(dead, 0, "processes that nobody collected");
}
