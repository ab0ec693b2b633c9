//! Processes as real other users: what they are, what they get, and what they cannot have back.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use malai_model::wire::{CommandEnd, WindowSize};
use malai_testkit::TestUser;
use tokio::io::AsyncReadExt;

use super::*;
use crate::host::{Login, Process, PtyProcess};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Tells a test that runs as another process which user is meant.
const USER: &str = "MALAI_TEST_USER";

fn request(user: &TestUser, argv: &[&str]) -> SpawnRequest {
    request_as(LocalUser::named(user.name()).expect("is there"), argv)
}

fn request_as(user: LocalUser, argv: &[&str]) -> SpawnRequest {
    SpawnRequest {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: vec![("PATH".to_owned(), user.path.clone())],
        dir: user.home.clone(),
        program: Executable::Named,
        user,
    }
}

async fn run(request: &SpawnRequest) -> (String, String, CommandEnd) {
    let Process { stdin, mut stdout, mut stderr, group } = Process::spawn(request).expect("starts");
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    let read = async { tokio::try_join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)) };
    tokio::time::timeout(PATIENCE, read).await.expect("in time").expect("is read");
    (out, err, tokio::time::timeout(PATIENCE, group.finish()).await.expect("in time").expect("ends"))
}

async fn output(user: &TestUser, argv: &[&str]) -> String {
    let (out, err, end) = run(&request(user, argv)).await;
    assert_eq!(end, CommandEnd::Exited { status: 0 }, "{argv:?}: {out}{err}");
    out
}

/// What the system says of a user, asked as ourselves.
fn known(option: &str, user: &TestUser) -> String {
    let output = Command::new("id").args([option, user.name()]).output().expect("id starts");
    String::from_utf8(output.stdout).expect("a text")
}

fn status_of(request: &SpawnRequest) -> (Option<u8>, &'static str) {
    let error = Process::spawn(request).expect_err("does not start");
    (error.shell_status(), error.code().as_str())
}

fn tool(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("is written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// A directory that nobody but this process's user can enter.
fn closed_dir(parent: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(parent).expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("a mode");
    dir
}

/// Runs one of the ignored tests below as a process of its own.
async fn run_inner(mut request: SpawnRequest, inner: &str, user: &TestUser) {
    let name = format!("host::launch::tests::{inner}");
    request.argv.extend(["--exact", &name, "--ignored", "--nocapture"].map(str::to_owned));
    request.env.push((USER.to_owned(), user.name().to_owned()));
    let (out, err, end) = run(&request).await;
    assert!(end == CommandEnd::Exited { status: 0 } && out.contains("1 passed"), "{end:?}: {out}{err}");
}

#[tokio::test]
async fn a_command_has_exactly_the_ids_and_groups_of_its_user() {
    let Some(user) = TestUser::make() else { return };
    assert_eq!(output(&user, &["id", "-u"]).await, known("-u", &user));
    assert_eq!(output(&user, &["id", "-g"]).await, known("-g", &user));
    assert_eq!(output(&user, &["id", "-un"]).await.trim(), user.name());
    let set = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    let groups = set(&output(&user, &["id", "-G"]).await);
    assert_eq!(groups, set(&known("-G", &user)));
    assert!(groups.len() == 2 && !groups.contains("0"), "{groups:?}");
    assert!(output(&user, &["id", "-Gn"]).await.contains(user.extra_group()));
}

#[tokio::test]
async fn there_is_no_way_back_to_root() {
    let Some(user) = TestUser::make() else { return };
    let status = output(&user, &["cat", "/proc/self/status"]).await;
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name}: {status}"));
        line.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    // Real, effective, saved, and for files: all the same.
    assert_eq!(field("Uid:"), BTreeSet::from([known("-u", &user).trim().to_owned()]));
    assert_eq!(field("Gid:"), BTreeSet::from([known("-g", &user).trim().to_owned()]));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), BTreeSet::from(["0000000000000000".to_owned()]), "{set}");
    }
    for (argv, why) in [
        (&["setpriv", "--reuid", "0", "true"][..], "the user"),
        (&["setpriv", "--regid", "0", "--clear-groups", "true"], "the group"),
        (&["cat", "/etc/shadow"], "a file of root's"),
        (&["ls", "/proc/1/fd"], "a process of root's"),
    ] {
        let (out, err, end) = run(&request(&user, argv)).await;
        assert!(end != CommandEnd::Exited { status: 0 }, "{why}: {out}{err}");
    }
}

#[tokio::test]
async fn the_terminal_of_this_process_is_not_that_user_s() {
    let Some(user) = TestUser::make() else { return };
    let Process { stdin, stdout, stderr, group } =
        Process::spawn(&request(&user, &["sleep", "100"])).expect("starts");
    let pid = nix::unistd::Pid::from_raw(group.pid().cast_signed());
    // A session has its terminal for itself: in this process's it could type into ours (TIOCSTI) and write on it.
    assert_eq!(nix::unistd::getsid(Some(pid)), Ok(pid));
    assert_eq!(nix::unistd::getpgid(Some(pid)), Ok(pid));
    drop((stdin, stdout, stderr));
    let end = group.hang_up(PATIENCE).await.expect("ends");
    assert_eq!(end, CommandEnd::Killed { signal: 1 });
}

#[tokio::test]
async fn it_starts_in_that_user_s_home_with_the_umask_of_a_login() {
    let Some(user) = TestUser::make() else { return };
    assert_eq!(output(&user, &["pwd"]).await.trim(), user.home().to_str().expect("a text"));
    let local = LocalUser::named(user.name()).expect("is there");
    let umask = output(&user, &["sh", "-c", "umask"]).await;
    assert_eq!(u32::from_str_radix(umask.trim(), 8), Ok(local.umask));
    assert_eq!(local.home, user.home());
    assert!(local.shell == Path::new("/bin/bash") && !local.path.contains("sbin"), "{local:?}");
}

#[tokio::test]
async fn a_directory_that_only_root_can_enter_is_not_entered() {
    let Some(user) = TestUser::make() else { return };
    let closed = closed_dir(&std::env::temp_dir());
    let mut pwd = request(&user, &["pwd"]);
    pwd.dir = closed.path().to_owned();
    assert_eq!(run(&pwd).await.0, "/\n");
    pwd.dir = "/nowhere".into();
    assert_eq!(run(&pwd).await.0, "/\n");
    // The other way round, too: what only that user can enter is entered.
    fs::set_permissions(user.home(), fs::Permissions::from_mode(0o700)).expect("a mode");
    assert_eq!(output(&user, &["pwd"]).await.trim(), user.home().to_str().expect("a text"));
}

#[tokio::test]
async fn whether_a_file_can_be_executed_is_decided_for_that_user() {
    let Some(user) = TestUser::make() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let at = |name: &str| dir.path().join(name).display().to_string();
    for name in ["first", "second", "closed"] {
        fs::create_dir(dir.path().join(name)).expect("is made");
    }
    tool(&dir.path().join("root-only"), "#!/bin/sh\necho root\n", 0o700);
    tool(&dir.path().join("first/tool"), "#!/bin/sh\necho first\n", 0o700);
    tool(&dir.path().join("second/tool"), "#!/bin/sh\necho second\n", 0o755);
    tool(&dir.path().join("own"), "#!/bin/sh\necho own\n", 0o700);
    tool(&dir.path().join("interpreter"), "#!/nowhere/sh\n", 0o755);
    tool(&dir.path().join("closed/tool"), "#!/bin/sh\necho closed\n", 0o755);
    user.own(&dir.path().join("own"));
    fs::set_permissions(dir.path().join("closed"), fs::Permissions::from_mode(0o700)).expect("a mode");

    let not_found = (Some(127), "command.not_found");
    let not_executable = (Some(126), "command.not_executable");
    let status = |word: &str| status_of(&request(&user, &[word]));
    assert_eq!(status("no-such-program-7"), not_found);
    assert_eq!(status("/nowhere/program"), not_found);
    assert_eq!(status(""), not_found);
    assert_eq!(status("/etc/passwd/x"), not_executable);
    assert_eq!(status("/etc"), not_executable);
    assert_eq!(status(&at("root-only")), not_executable);
    assert_eq!(status(&at("interpreter")), not_executable);
    // That it is there is not told: root can see it, that user cannot.
    assert_eq!(status(&at("closed/tool")), not_executable);
    assert_eq!(status(&at("closed/none")), not_executable);
    assert_eq!(output(&user, &[&at("own")]).await, "own\n");

    let mut search = request(&user, &["tool"]);
    search.user.path = format!("{}:{}:{}", at("closed"), at("first"), at("second"));
    assert_eq!(run(&search).await.0, "second\n");
    search.user.path = at("first");
    assert_eq!(status_of(&search), not_executable);
}

#[tokio::test]
async fn a_relative_path_is_relative_to_where_it_starts() {
    let Some(user) = TestUser::make() else { return };
    fs::create_dir(user.home().join("bin")).expect("is made");
    tool(&user.home().join("bin/tool"), "#!/bin/sh\necho $0\n", 0o755);
    assert_eq!(output(&user, &["bin/tool"]).await, "bin/tool\n");
    assert_eq!(status_of(&request(&user, &["bin/none"])).0, Some(127));
}

#[tokio::test]
async fn nothing_is_inherited_but_the_three_pipes() {
    let Some(user) = TestUser::make() else { return };
    let file = tempfile::tempfile().expect("a file");
    nix::fcntl::fcntl(&file, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::empty())).expect("could be inherited");
    let open = output(&user, &["sh", "-c", "for fd in /proc/self/fd/*; do echo ${fd##*/}; done"]).await;
    let open: Vec<&str> = open.lines().collect();
    // The fourth is the listing's own.
    assert!(matches!(open[..], ["0", "1", "2"] | ["0", "1", "2", "3"]), "{open:?}");
    // And the environment is the request's alone.
    assert!(output(&user, &["env"]).await.lines().all(|line| line.starts_with("PATH=")));
}

#[tokio::test]
async fn who_opens_standard_output_or_error_by_its_name_may() {
    let Some(user) = TestUser::make() else { return };
    let script = "read line </dev/stdin; echo $line >/dev/stdout; echo err >/dev/stderr";
    let Process { mut stdin, mut stdout, mut stderr, group } =
        Process::spawn(&request(&user, &["sh", "-c", script])).expect("starts");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"line\n").await.expect("is written");
    let (mut out, mut err) = (String::new(), String::new());
    let read = async { tokio::try_join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)) };
    tokio::time::timeout(PATIENCE, read).await.expect("in time").expect("is read");
    assert_eq!((out.as_str(), err.as_str()), ("line\n", "err\n"));
    assert_eq!(group.finish().await.expect("ends"), CommandEnd::Exited { status: 0 });
}

#[tokio::test]
async fn no_signal_is_blocked_for_a_program_whatever_is_for_this_thread() {
    let Some(user) = TestUser::make() else { return };
    let mut blocked = nix::sys::signal::SigSet::empty();
    blocked.add(nix::sys::signal::Signal::SIGTERM);
    blocked.add(nix::sys::signal::Signal::SIGWINCH);
    blocked.thread_block().expect("are blocked");
    let own = request_as(LocalUser::current().expect("a user"), &["cat", "/proc/self/status"]);
    for request in [own, request(&user, &["cat", "/proc/self/status"])] {
        let status = run(&request).await.0;
        assert!(status.contains("SigBlk:\t0000000000000000\n"), "{}: {status}", request.user.name);
    }
    let now = nix::sys::signal::SigSet::thread_get_mask().expect("is told");
    assert!(now.contains(nix::sys::signal::Signal::SIGWINCH), "this thread's own stays as it was");
    blocked.thread_unblock().expect("are unblocked");
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[expect(unsafe_code, reason = "bare system calls")]
#[expect(clippy::print_stderr, reason = "a test that is not run says so")]
async fn the_keys_of_this_process_are_not_that_user_s() {
    let Some(user) = TestUser::make() else { return };
    let name = CString::new(format!("malai-test-{}", user.name())).expect("a text");
    // This thread's alone: a keyring with a key.
    // SAFETY: texts with a zero at their end, and a length that is the text's.
    let made = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<c_char>()) != -1
            && libc::syscall(
                libc::SYS_add_key,
                c"user".as_ptr(),
                name.as_ptr(),
                c"secret".as_ptr(),
                6_usize,
                libc::KEY_SPEC_SESSION_KEYRING,
            ) != -1
    };
    let name = name.to_str().expect("a text");
    let own = run(&request_as(LocalUser::current().expect("a user"), &["cat", "/proc/keys"])).await.0;
    if !made || !own.contains(name) {
        eprintln!("not run: this kernel has no keys, or does not show them");
        return;
    }
    let seen = output(&user, &["cat", "/proc/keys"]).await;
    assert!(!seen.contains(name), "{seen}");
    // Its own are found there.
    assert!(seen.contains(&format!("_uid.{}", known("-u", &user).trim())), "{seen}");
}

/// Not a test by itself.
#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "run by a_capability_that_files_could_inherit_is_not_that_user_s, with one"]
async fn inner_inheritable() {
    let of = |status: &str| status.lines().find(|line| line.starts_with("CapInh:")).map(str::to_owned);
    let nothing = Some("CapInh:\t0000000000000000".to_owned());
    assert_ne!(of(&fs::read_to_string("/proc/self/status").expect("is there")), nothing);
    let user = LocalUser::named(&std::env::var(USER).expect("is named")).expect("is there");
    assert_eq!(of(&run(&request_as(user, &["cat", "/proc/self/status"])).await.0), nothing);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_capability_that_files_could_inherit_is_not_that_user_s() {
    let Some(user) = TestUser::make() else { return };
    let binary = std::env::current_exe().expect("this binary").display().to_string();
    let words = ["setpriv", "--inh-caps", "+chown", &binary];
    run_inner(request_as(LocalUser::current().expect("a user"), &words), "inner_inheritable", &user).await;
}

#[tokio::test]
async fn a_terminal_belongs_to_that_user() {
    let Some(user) = TestUser::make() else { return };
    let words = ["sh", "-c", "stat -c '%U %G %a' $(tty); : </dev/tty && id -un; pwd"];
    let PtyProcess { mut master, group } =
        PtyProcess::spawn(&request(&user, &words), WindowSize::default(), Login::Program).expect("starts");
    let mut shown = String::new();
    let read = tokio::time::timeout(PATIENCE, master.read_to_string(&mut shown)).await;
    read.expect("in time").expect("is read");
    group.finish().await.expect("ends");
    let name = user.name();
    let tty = if nix::unistd::Group::from_name("tty").is_ok_and(|group| group.is_some()) {
        "tty 620"
    } else {
        name
    };
    let lines: Vec<&str> = shown.lines().collect();
    let [owner, own, dir] = lines[..] else { panic!("{shown}") };
    assert!(owner.starts_with(&format!("{name} {tty}")), "{shown}");
    assert_eq!((own, Path::new(dir)), (name, user.home()));
}

#[tokio::test]
async fn another_s_login_shell_runs_as_that_user_even_if_it_is_nologin() {
    let nologin = "/usr/sbin/nologin";
    if !Path::new(nologin).exists() {
        return;
    }
    let Some(user) = TestUser::with_shell(nologin) else { return };
    let shell = PtyProcess::spawn(&request(&user, &[]), WindowSize::default(), Login::Shell);
    let PtyProcess { mut master, group } = shell.expect("starts");
    let mut shown = String::new();
    let read = tokio::time::timeout(PATIENCE, master.read_to_string(&mut shown)).await;
    read.expect("in time").expect("is read");
    assert_eq!(group.finish().await.expect("ends"), CommandEnd::Exited { status: 1 });
    assert!(shown.contains("not available"), "{shown}");
}

/// Not a test by itself.
#[tokio::test]
#[ignore = "run by who_is_not_root_becomes_nobody_else, as a user"]
async fn inner_without_root() {
    let own = LocalUser::current().expect("a user");
    assert_eq!(run(&request_as(own.clone(), &["id", "-un"])).await.0.trim(), own.name);
    for other in ["root", "daemon"] {
        let request = request_as(LocalUser::named(other).expect("is there"), &["id"]);
        let error = Process::spawn(&request).expect_err("is refused");
        assert!(error.code().as_str() == "command.user" && error.shell_status().is_none(), "{error}");
        let told = error.to_string();
        assert!(told.contains(other) && told.contains(&own.name), "{told}");
        let error = PtyProcess::spawn(&request, WindowSize::default(), Login::Shell).expect_err("is refused");
        assert_eq!(error.code().as_str(), "command.user");
    }
}

#[tokio::test]
async fn who_is_not_root_becomes_nobody_else() {
    let Some(user) = TestUser::make() else { return };
    let mut request = request(&user, &["malai-test"]);
    request.program = Executable::Own(OwnProgram::running().expect("runs"));
    run_inner(request, "inner_without_root", &user).await;
}

/// Not a test by itself.
#[tokio::test]
#[ignore = "run by a_strict_umask_of_the_daemon_is_not_another_user_s, with that umask"]
async fn inner_strict_umask() {
    let user = LocalUser::named(&std::env::var(USER).expect("is named")).expect("is there");
    let wanted = user.umask;
    let umask = run(&request_as(user, &["sh", "-c", "umask"])).await.0;
    assert_eq!(u32::from_str_radix(umask.trim(), 8), Ok(wanted));
    let own = run(&request_as(LocalUser::current().expect("a user"), &["sh", "-c", "umask"])).await.0;
    assert_eq!(own.trim(), "0077", "what runs as the daemon itself has its umask");
}

#[tokio::test]
async fn a_strict_umask_of_the_daemon_is_not_another_user_s() {
    let Some(user) = TestUser::make() else { return };
    let binary = std::env::current_exe().expect("this binary").display().to_string();
    let words = ["sh", "-c", "umask 077; exec \"$0\" \"$@\"", &binary];
    run_inner(request_as(LocalUser::current().expect("a user"), &words), "inner_strict_umask", &user).await;
}

/// Not a test by itself.
#[tokio::test]
#[ignore = "run by what_a_daemon_raised_for_itself_is_not_its_programs, with a low limit"]
async fn inner_raised_limit() {
    crate::host::raise_open_files();
    let own = fs::read_to_string("/proc/self/limits").expect("is there");
    assert!(own.contains("Max open files            2000 "), "as far as the hard limit: {own}");
    let user = LocalUser::named(&std::env::var(USER).expect("is named")).expect("is there");
    for user in [user, LocalUser::current().expect("a user")] {
        // It waits until its starter is back, who then has given it its limit.
        let request = request_as(user, &["sh", "-c", "read line; ulimit -Sn; ulimit -Hn"]);
        let Process { mut stdin, mut stdout, group, .. } = Process::spawn(&request).expect("starts");
        tokio::io::AsyncWriteExt::write_all(&mut stdin, b"go\n").await.expect("is written");
        let mut out = String::new();
        stdout.read_to_string(&mut out).await.expect("is read");
        assert_eq!(out, "1000\n2000\n");
        group.finish().await.expect("ends");
    }
}

#[tokio::test]
async fn what_a_daemon_raised_for_itself_is_not_its_programs() {
    let Some(user) = TestUser::make() else { return };
    let binary = std::env::current_exe().expect("this binary").display().to_string();
    let words = ["sh", "-c", "ulimit -Sn 1000; ulimit -Hn 2000; exec \"$0\" \"$@\"", &binary];
    run_inner(request_as(LocalUser::current().expect("a user"), &words), "inner_raised_limit", &user).await;
}

/// Not a test by itself.
#[tokio::test]
#[ignore = "run by malai_s_own_program_runs_as_any_user…, from a place that is gone"]
async fn inner_own_program() {
    let own = OwnProgram::running().expect("runs");
    fs::remove_file(own.path()).expect("goes away");
    let user = LocalUser::named(&std::env::var(USER).expect("is named")).expect("is there");
    for user in [user, LocalUser::current().expect("a user")] {
        let mut request = request_as(user.clone(), &["malai-cp"]);
        let inner = "host::launch::tests::inner_says_who_it_is";
        request.argv.extend(["--exact", inner, "--ignored", "--nocapture"].map(str::to_owned));
        request.program = Executable::Own(own.clone());
        let (out, err, _) = run(&request).await;
        assert!(out.contains(&format!("malai-cp as {}", user.uid)), "{out}{err}");
    }
}

/// Not a test by itself.
#[test]
#[ignore = "run by inner_own_program"]
#[expect(clippy::print_stdout, reason = "its parent reads it")]
fn inner_says_who_it_is() {
    let name = std::env::args().next().unwrap_or_default();
    println!("{name} as {}", nix::unistd::Uid::effective());
}

#[tokio::test]
async fn malai_s_own_program_runs_as_any_user_even_where_it_was_removed_from_a_closed_directory() {
    let Some(user) = TestUser::make() else { return };
    let binary = std::env::current_exe().expect("this binary");
    let closed = closed_dir(binary.parent().expect("a directory"));
    let link = closed.path().join("malai");
    fs::hard_link(&binary, &link).expect("is linked");
    let words = [link.display().to_string()];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run_inner(request_as(LocalUser::current().expect("a user"), &words), "inner_own_program", &user).await;
}

#[tokio::test]
async fn a_hundred_at_once_each_have_their_own_end() {
    let Some(user) = TestUser::make() else { return };
    let mut set = tokio::task::JoinSet::new();
    for n in 0..100_u8 {
        let request = request(&user, &["sh", "-c", &format!("exit {n}")]);
        set.spawn(async move { (n, run(&request).await.2) });
    }
    while let Some(ended) = set.join_next().await {
        let (status, end) = ended.expect("joins");
        assert_eq!(end, CommandEnd::Exited { status });
    }
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "a figure for whoever runs the tests")]
async fn the_cost_of_another_user_is_printed() {
    let Some(user) = TestUser::make() else { return };
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = std::time::Instant::now();
        let found = LocalUser::named(user.name()).expect("is there");
        let looked_up = start.elapsed();
        let process = Process::spawn(&request_as(found, &["true"])).expect("starts");
        times.push((start.elapsed(), looked_up));
        process.group.finish().await.expect("ends");
    }
    times.sort();
    eprintln!("starting `true` as another user, and looking that user up: {:?} (median of 20)", times[10]);
}
