//! As whom commands run: real users, made for the test where it has root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use malai_testkit::{Cluster, TestHome, TestNet, TestUser, await_until, is_root};

use crate::{SOON, net};

/// A cluster where the laptop may run anything on web01, as that user.
fn cluster_as(net: &TestNet, user: &str, text: &str) -> Cluster {
    let lines = format!("allow_from = \"laptop\"\nusername = \"{user}\"");
    Cluster::with_config(net, &["web01", "laptop"], &[("web01", &lines)], text)
}

/// A file in a folder where anybody may make one.
fn mark(net: &TestNet) -> (std::path::PathBuf, String) {
    let dir = net.path().join("open");
    std::fs::create_dir(&dir).expect("makes a folder");
    std::fs::set_permissions(&dir, Permissions::from_mode(0o777)).expect("sets its mode");
    std::fs::set_permissions(net.path(), Permissions::from_mode(0o755)).expect("sets the net's mode");
    let path = dir.join("mark");
    let text = path.display().to_string();
    (path, text)
}

#[test]
fn a_command_runs_as_the_user_whom_the_config_names_and_as_nobody_else() {
    let Some(user) = TestUser::make() else { return };
    let net = net();
    let cluster = cluster_as(&net, user.name(), "");
    let laptop = cluster.home("laptop");
    let say = |words: &[&str]| {
        let words = ["web01.company"].iter().chain(words);
        laptop.malai(words).ok().text().trim().to_owned()
    };
    assert_eq!(say(&["id", "-un"]), user.name());
    let groups = say(&["id", "-Gn"]);
    let groups: BTreeSet<&str> = groups.split_whitespace().collect();
    assert_eq!(groups, BTreeSet::from([user.name(), user.extra_group()]));
    assert_eq!(Path::new(&say(&["pwd"])), user.home());
    let env = say(&["env"]);
    let env: BTreeMap<&str, &str> = env.lines().filter_map(|line| line.split_once('=')).collect();
    let home = user.home().display().to_string();
    for (name, value) in
        [("HOME", home.as_str()), ("USER", user.name()), ("LOGNAME", user.name()), ("SHELL", "/bin/bash")]
    {
        assert_eq!(env.get(name), Some(&value), "{name}");
    }
    assert!(!env["PATH"].contains("sbin"), "root's search path is root's: {}", env["PATH"]);
    assert!(env.keys().all(|name| !name.starts_with("MALAI_HOME") && *name != "XDG_RUNTIME_DIR"), "{env:?}");
    // What only root may read stays root's, the daemon's own home above all.
    for secret in [Path::new("/etc/shadow"), &cluster.home("web01").path().join("malai.toml")] {
        laptop.malai(["web01.company", "cat", &secret.display().to_string()]).exits(1);
    }
    laptop.malai(["web01.company", "sh", "-c", "exit 3"]).exits(3);
    laptop.malai(["web01.company", "no-such-program-7"]).exits(127);
    laptop.malai(["web01.company", "/etc/passwd"]).exits(126);
    let echoed = laptop.command(["web01.company", "cat"]).stdin("through\n").run().ok();
    assert_eq!(echoed.text(), "through");
}

#[test]
fn a_command_s_own_user_wins_over_the_machine_s_and_root_is_only_where_it_is_written() {
    let (Some(user), Some(other)) = (TestUser::make(), TestUser::make()) else { return };
    let net = net();
    let text = format!(
        "[machine.web01.command.as-other]\ncommand = \"id -un\"\nusername = \"{}\"\n\
         [machine.web01.command.as-root]\ncommand = \"id -un\"\nusername = \"root\"\n\
         [machine.web01.command.as-machine]\ncommand = \"id -un\"\n",
        other.name()
    );
    let cluster = cluster_as(&net, user.name(), &text);
    let laptop = cluster.home("laptop");
    let say = |word: &str| laptop.malai(["web01.company", word]).ok().text().trim().to_owned();
    assert_eq!(say("as-other"), other.name());
    assert_eq!(say("as-root"), "root");
    assert_eq!(say("as-machine"), user.name());
}

#[test]
fn a_copy_reads_and_writes_as_the_user_whom_its_rule_names() {
    let Some(user) = TestUser::make() else { return };
    let net = net();
    let (_, open) = mark(&net);
    let rule = format!(
        "[machine.web01.command.malai-cp]\nallow_from = \"laptop\"\nusername = \"{}\"\n",
        user.name()
    );
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[], &rule);
    let laptop = cluster.home("laptop");
    let uid = std::fs::metadata(user.home()).expect("is there").uid();
    assert_ne!(uid, 0);
    let source = net.path().join("source");
    std::fs::create_dir(&source).expect("makes a folder");
    std::fs::write(source.join("file"), "sent").expect("writes");
    let from = source.display().to_string();
    // A path that is relative begins in the home of that user.
    for (to, made) in [
        ("web01.company:up", user.home().join("up")),
        (&format!("web01.company:{open}"), open.clone().into()),
    ] {
        laptop.malai(["cp", &from, to]).ok();
        for path in [&made, &made.join("file")] {
            assert_eq!(std::fs::metadata(path).expect("is there").uid(), uid, "{}", path.display());
        }
        assert_eq!(std::fs::read(made.join("file")).expect("reads"), b"sent");
    }
    // What only root may write or read stays root's.
    let refused = |from: &str, to: &str| {
        let output = laptop.malai(["cp", from, to]).exits(1);
        let told = output.stderr_text();
        assert!(told.contains("Permission denied") && told.lines().count() == 1, "{output:?}");
    };
    let file = source.join("file").display().to_string();
    for mode in [0o700, 0o755] {
        let closed = net.path().join(format!("closed-{mode:o}"));
        std::fs::create_dir_all(closed.join("deeper")).expect("makes folders");
        std::fs::set_permissions(&closed, Permissions::from_mode(mode)).expect("sets its mode");
        for target in [closed.join("file"), closed.join("deeper/file")] {
            refused(&file, &format!("web01.company:{}", target.display()));
        }
        assert_eq!(std::fs::read_dir(&closed).expect("lists").count(), 1);
        assert_eq!(std::fs::read_dir(closed.join("deeper")).expect("lists").count(), 0);
    }
    let got = net.path().join("got").display().to_string();
    for secret in [Path::new("/etc/shadow"), &cluster.home("web01").path().join("malai.toml")] {
        refused(&format!("web01.company:{}", secret.display()), &got);
        assert!(!Path::new(&got).exists());
    }
    // What is the user's own and nobody else's is read.
    std::fs::set_permissions(user.home().join("up/file"), Permissions::from_mode(0o600))
        .expect("sets its mode");
    laptop.malai(["cp", "web01.company:up/file", &got]).ok();
    assert_eq!(std::fs::read(&got).expect("reads"), b"sent");
}

#[test]
fn without_a_user_name_it_is_the_daemon_s_own() {
    if !is_root() {
        return;
    }
    let net = net();
    let cluster = crate::open_cluster(&net);
    assert_eq!(cluster.home("laptop").malai(["web01.company", "id", "-un"]).ok().text(), "root");
}

#[test]
fn a_user_who_is_not_there_is_an_error_and_nothing_runs() {
    let net = net();
    let (path, text) = mark(&net);
    let cluster = cluster_as(&net, "no-such-user-7", "");
    let output = cluster.home("laptop").malai(["--json", "web01.company", "touch", &text]).exits(255);
    assert!(!path.exists(), "{output:?}");
    assert!(output.stderr_text().contains("no-such-user-7"), "{output:?}");
    output.fails_with("command.user");
}

#[test]
fn a_user_who_is_removed_meanwhile_has_no_more_commands() {
    let Some(user) = TestUser::make() else { return };
    let net = net();
    let cluster = cluster_as(&net, user.name(), "");
    let laptop = cluster.home("laptop");
    laptop.malai(["web01.company", "true"]).ok();
    drop(user);
    laptop.malai(["--json", "web01.company", "true"]).exits(255).fails_with("command.user");
}

#[test]
fn the_machine_s_own_ceiling_on_users_holds_against_the_config() {
    let (Some(user), Some(other)) = (TestUser::make(), TestUser::make()) else { return };
    let net = net();
    let (path, mark) = mark(&net);
    let text = format!(
        "[machine.web01.command.as-other]\ncommand = \"touch {mark}\"\nusername = \"{}\"\n\
         [machine.web01.command.as-root]\ncommand = \"touch {mark}\"\nusername = \"root\"\n",
        other.name()
    );
    let mut cluster = cluster_as(&net, user.name(), &text);
    let ceiling = format!("[host]\nusers = [\"{}\"]", user.name());
    cluster.home("web01").add_to_malai_toml(&ceiling);
    cluster.member("web01").stop();
    cluster.member("web01").start();
    let laptop = cluster.home("laptop");
    assert_eq!(laptop.malai(["web01.company", "id", "-un"]).ok().text().trim(), user.name());
    for word in ["as-other", "as-root"] {
        laptop.malai(["--json", "web01.company", word]).exits(255).fails_with("acl.denied");
    }
    // No name means the daemon's own user, and that is not among them either.
    cluster.edit(|text| text.replace(&format!("username = \"{}\"\n", user.name()), ""));
    cluster.await_distributed();
    laptop.malai(["--json", "web01.company", "touch", &mark]).exits(255).fails_with("acl.denied");
    assert!(!path.exists());
}

#[test]
fn a_command_of_another_user_ends_with_its_right_and_hears_signals() {
    let Some(user) = TestUser::make() else { return };
    let net = net();
    let cluster = cluster_as(&net, user.name(), "");
    let laptop = cluster.home("laptop");
    let start = || {
        let words = ["--json", "web01.company", "sh", "-c", "echo $$; exec sleep 1000"];
        let running = laptop.command(words).spawn();
        let pid = running.wait_for_line(SOON, |line| !line.is_empty());
        (running, pid)
    };
    let (running, pid) = start();
    running.signal(malai_testkit::Signal::SIGTERM);
    running.wait(SOON).exits(143);
    await_until("the end of the remote program", SOON, || crate::commands::is_gone(&pid));
    let (running, pid) = start();
    cluster.edit(|text| text.replace("allow_from = \"laptop\"", ""));
    running.wait(SOON).exits(255).fails_with("acl.revoked");
    await_until("the end of the remote program", SOON, || crate::commands::is_gone(&pid));
}

#[test]
fn a_daemon_that_is_not_root_runs_commands_as_itself_and_refuses_every_other_user() {
    let (Some(user), Some(other)) = (TestUser::make(), TestUser::make()) else { return };
    let net = TestNet::of_user(env!("CARGO_BIN_EXE_malai"), &user);
    let home = |name: &str| {
        let home = TestHome::new(&net, name);
        user.own(home.path());
        home
    };
    let (manager, web01) = (home("manager"), home("web01"));
    manager.malai(["cluster", "init", "company"]).ok();
    let _manager = manager.start_daemon();
    let invite = manager.malai(["cluster", "create-invite", "company"]).ok();
    web01.malai(["machine", "init", invite.text(), "company", "--name", "web01"]).ok();
    let _web01 = web01.start_daemon();
    manager.add_to_machine("company", "web01", "allow_from = \"cluster-manager\"\nusername = \"-\"");
    let as_user = |before: &str, name: &str| {
        manager.edit_cluster_toml("company", |text| {
            text.replace(&format!("username = \"{before}\""), &format!("username = \"{name}\""))
        });
        manager.malai(["rescan"]).ok();
        await_until("the machine to have its config", SOON, || {
            manager.malai(["--json", "rescan", "--check"]).ok().json()["deliveries"] == 0
        });
        manager.malai(["--json", "web01.company", "id", "-un"])
    };
    let own = as_user("-", user.name()).ok();
    assert_eq!(own.text().trim(), user.name(), "its own name is no switch");
    let mut before = user.name();
    for wanted in ["root", other.name()] {
        let output = as_user(before, wanted).exits(255);
        before = wanted;
        assert!(output.stdout.is_empty(), "{output:?}");
        let told = output.stderr_text();
        assert!(told.contains(wanted) && told.contains(user.name()) && told.contains("hint"), "{told}");
        output.fails_with("command.user");
    }
}

#[test]
fn a_runtime_directory_that_is_somebody_else_s_costs_local_discovery_and_nothing_more() {
    let Some(user) = TestUser::make() else { return };
    let net = TestNet::of_user(env!("CARGO_BIN_EXE_malai"), &user);
    let home = |name: &str| {
        let home = TestHome::new(&net, name);
        user.own(home.path());
        home
    };
    let (manager, web01) = (home("manager"), home("web01"));
    // As where everybody may write: whoever is first has the name, and lets everybody in.
    let tmp = net.path().join("tmp");
    let uid = std::fs::metadata(user.home()).expect("is there").uid();
    let taken = tmp.join(format!("malai-{uid}"));
    std::fs::create_dir_all(&taken).expect("makes folders");
    for (path, mode) in [(&tmp, 0o1777), (&taken, 0o777)] {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("sets its mode");
    }
    manager.malai(["cluster", "init", "company"]).ok();
    let _manager = manager.start_daemon();
    let invite = manager.malai(["cluster", "create-invite", "company"]).ok();
    let there = |words: &[&str]| web01.command(words).env("XDG_RUNTIME_DIR", "").env("TMPDIR", &tmp);
    there(&["machine", "init", invite.text(), "company", "--name", "web01"]).run().ok();
    manager.add_to_machine("company", "web01", "allow_from = \"cluster-manager\"");
    manager.malai(["rescan"]).ok();
    let start = || {
        let running = there(&["daemon", "--foreground"]).spawn();
        await_until("the daemon to answer", SOON, || there(&["status"]).run().code == Some(0));
        running
    };
    let stop = |running: malai_testkit::Running| {
        running.signal(malai_testkit::Signal::SIGTERM);
        running.wait(SOON).ok();
    };
    let warnings = || {
        let log = web01.read("malai.log").expect("the daemon has a log");
        log.lines().filter(|line| line.contains("local discovery is left out")).map(str::to_owned).collect()
    };
    let running = start();
    await_until("the machine to have its config", SOON, || {
        manager.malai(["--json", "rescan", "--check"]).ok().json()["deliveries"] == 0
    });
    // A look for it that began before it called finds it nowhere, and whoever waits for the same hears that.
    await_until("the manager to reach the machine", SOON, || {
        manager.malai(["web01.company", "true"]).code == Some(0)
    });
    assert_eq!(manager.malai(["web01.company", "id", "-u"]).ok().text(), uid.to_string());
    stop(running);
    let told: Vec<String> = warnings();
    let says = |line: &String| line.contains(&taken.display().to_string()) && line.contains("user with id 0");
    assert!(!told.is_empty() && told.iter().all(says), "{told:?}");
    // Nor does a command line that dials by itself mind.
    there(&["sync"]).run().ok();
    assert_eq!(std::fs::read_dir(&taken).expect("lists").count(), 0, "nothing is written into it");
    // Where the name is free it is this user's.
    std::fs::remove_dir(&taken).expect("removes");
    let running = start();
    let made = std::fs::metadata(&taken).expect("is made");
    assert_eq!((made.uid(), made.mode() & 0o7777), (uid, 0o700));
    assert_eq!(std::fs::read_dir(&taken).expect("lists").count(), 1, "where it is reached");
    stop(running);
    assert_eq!(warnings(), told);
}

/// A program that is malai, started as a careless supervisor would.
fn careless(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("malai");
    let malai = env!("CARGO_BIN_EXE_malai");
    let script = format!(
        "#!/bin/sh\numask 077\nexec 8</etc/shadow 9>>'{}'\ntrap '' HUP USR1 USR2 TSTP WINCH\nexport SECRET=1\n\
         exec env --block-signal=USR1,WINCH,PIPE setpriv --inh-caps +chown '{malai}' \"$@\"\n",
        dir.join("log").display()
    );
    std::fs::write(&path, script).expect("writes the script");
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("sets its mode");
    path
}

/// Gives this thread, and so what it starts, a session keyring with a key of that name in it; says whether it could.
#[expect(unsafe_code, reason = "bare system calls")]
fn add_key(name: &str) -> bool {
    use nix::libc;
    let name = std::ffi::CString::new(name).expect("a text");
    // SAFETY: texts with a zero at their end, and a length that is the text's.
    unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
            != -1
            && libc::syscall(
                libc::SYS_add_key,
                c"user".as_ptr(),
                name.as_ptr(),
                c"secret".as_ptr(),
                6_usize,
                libc::KEY_SPEC_SESSION_KEYRING,
            ) != -1
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "no script installs another kernel")]
fn nothing_that_a_daemon_was_started_with_is_another_user_s() {
    let Some(user) = TestUser::make() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let net = TestNet::of_program(careless(dir.path()));
    let key = format!("malai-e2e-{}", user.name());
    let has_keys =
        add_key(&key) && std::fs::read_to_string("/proc/keys").is_ok_and(|keys| keys.contains(&key));
    if !has_keys {
        eprintln!("not run, for keys: this kernel has none, or does not show them");
    }
    let mut cluster = cluster_as(&net, user.name(), "");
    let pid = cluster.member("web01").daemon.as_ref().map(malai_testkit::Daemon::pid).expect("runs");
    let daemon = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon's state");
    let laptop = cluster.home("laptop");
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {status}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    const NONE: &str = "0000000000000000";
    assert!(
        field(&daemon, "SigBlk:") != NONE && field(&daemon, "CapInh:") != NONE,
        "it is careless: {daemon}"
    );
    // As a command, under a terminal, and the session's own process.
    let script =
        "echo >/dev/stderr || exit 9; cat /proc/self/status; ls -l /proc/self/fd; umask; env; cat /proc/keys";
    let parent = "cat /proc/$PPID/status; ls -l /proc/$PPID/fd 2>&1 || true";
    let run = |words: &[&str]| laptop.malai(words).ok().text().to_owned();
    let command = run(&["web01.company", "sh", "-c", script]);
    let session = run(&["-t", "web01.company", "sh", "-c", script]);
    // Without a shell between: some unblock signals by themselves.
    let plain = run(&["web01.company", "cat", "/proc/self/status"]);
    assert_eq!(field(&plain, "SigBlk:"), NONE, "{plain}");
    let host = run(&["-t", "web01.company", "sh", "-c", parent]);
    let uid = std::fs::metadata(user.home()).expect("is there").uid().to_string();
    for status in [&command, &session, &host] {
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(status, set), NONE, "{set} {status}");
        }
        assert_eq!(field(status, "Uid:"), [uid.as_str(); 4].join(" "), "{status}");
        assert!(!status.contains("/etc/shadow") && !status.contains("/log"), "{status}");
    }
    for status in [&command, &session] {
        // Of those that have a meaning; 32 and 33 are the C library's own, and it changes nobody's.
        let ignored = u64::from_str_radix(&field(status, "SigIgn:"), 16).expect("a number");
        assert_eq!(ignored & 0x7fff_ffff, 0, "{status}");
        assert_ne!(field(status, "Umask:"), "0077", "{status}");
        assert!(!status.contains("SECRET"), "{status}");
        assert!(!has_keys || !status.contains(&key), "{status}");
    }
}
