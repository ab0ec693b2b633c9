//! What a command sees and what comes back of it.

use malai_testkit::{Signal, await_until};

use crate::{SOON, Way, each_way, net, open_cluster};

#[test]
fn the_remote_status_is_the_status() {
    each_way(|cluster| {
        let laptop = cluster.home("laptop");
        for (words, status) in [
            (&["true"][..], 0),
            (&["false"], 1),
            (&["sh", "-c", "exit 3"], 3),
            (&["sh", "-c", "exit 255"], 255),
            (&["sh", "-c", "kill -9 $$"], 137),
            (&["sh", "-c", "kill -TERM $$"], 143),
            (&["/etc/passwd"], 126),
            (&["there-is-no-such-program"], 127),
        ] {
            let output = laptop.malai(["web01.company"].iter().chain(words)).exits(status);
            assert!(output.stdout.is_empty(), "{output:?}");
            let explained = matches!(status, 126 | 127);
            assert_eq!(!output.stderr.is_empty(), explained, "{output:?}");
        }
    });
}

#[test]
fn exec_is_the_same_spelled_out() {
    each_way(|cluster| {
        let laptop = cluster.home("laptop");
        assert_eq!(laptop.malai(["exec", "web01.company", "echo", "-n", "--", "-x"]).ok().text(), "-- -x");
        laptop.malai(["exec", "web01.company", "sh", "-c", "exit 4"]).exits(4);
    });
}

#[test]
fn words_reach_the_program_as_they_are_and_no_shell_sees_them() {
    each_way(|cluster| {
        let laptop = cluster.home("laptop");
        let printed =
            laptop.malai(["web01.company", "printf", "[%s]", "$HOME", "a b", ";", "*", "", "ü"]).ok();
        assert_eq!(printed.text(), "[$HOME][a b][;][*][][ü]");
        // One word with blanks is split here, as a shell would, and still none runs it.
        assert_eq!(laptop.malai(["web01.company", "printf '[%s]' 'a b' $HOME"]).ok().text(), "[a b][$HOME]");
    });
}

#[test]
fn stdout_and_stderr_stay_apart_and_nothing_is_added() {
    each_way(|cluster| {
        let output =
            cluster.home("laptop").malai(["web01.company", "sh", "-c", "printf out; printf err >&2"]).ok();
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out"[..], &b"err"[..]));
    });
}

#[test]
fn the_environment_is_the_users_and_the_callers_name_and_nothing_else() {
    each_way(|cluster| {
        let output = cluster
            .home("laptop")
            .command(["web01.company", "env"])
            .env("SECRET", "1")
            .env("TERM", "xterm-256color")
            .env("LC_TIME", "de_DE.UTF-8")
            .env("LC_ALL", "$(reboot)")
            .run()
            .ok();
        let all: Vec<(&str, &str)> = output.text().lines().filter_map(|line| line.split_once('=')).collect();
        let value = |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        assert_eq!(value("MALAI_CLIENT_MACHINE"), Some("laptop"));
        assert_eq!(value("MALAI_CLIENT_ID52"), Some(cluster.id52("laptop").as_str()));
        assert_eq!(value("MALAI_CLUSTER"), Some("company"));
        assert_eq!((value("TERM"), value("LC_TIME")), (Some("xterm-256color"), Some("de_DE.UTF-8")));
        let known = [
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "PATH",
            "TERM",
            "LANG",
            "LC_TIME",
            "MALAI_CLIENT_ID52",
            "MALAI_CLIENT_MACHINE",
            "MALAI_CLUSTER",
        ];
        let others: Vec<&str> =
            all.iter().map(|(name, _)| *name).filter(|name| !known.contains(name)).collect();
        assert_eq!(others, [""; 0], "of the client's or the daemon's environment");
    });
}

#[test]
fn the_directory_is_the_users_home() {
    each_way(|cluster| {
        let laptop = cluster.home("laptop");
        let output =
            laptop.malai(["web01.company", "sh", "-c", "[ \"$PWD\" -ef \"$HOME\" ] && echo same"]).ok();
        assert_eq!(output.text(), "same");
    });
}

#[test]
fn interrupt_and_terminate_reach_the_remote_program() {
    each_way(|cluster| {
        for (signal, name) in [(Signal::SIGINT, "INT"), (Signal::SIGTERM, "TERM")] {
            let script = format!("trap 'echo got; exit 7' {name}; echo ready; while :; do sleep 0.05; done");
            let running = cluster.home("laptop").command(["web01.company", "sh", "-c", &script]).spawn();
            running.wait_for_line(SOON, |line| line == "ready");
            running.signal(signal);
            running.wait_for_line(SOON, |line| line == "got");
            running.wait(SOON).exits(7);
        }
    });
}

#[test]
fn the_remote_process_group_ends_with_its_client() {
    let net = net();
    let mut cluster = open_cluster(&net);
    // A client that dials by itself and is killed cannot say so: what it left waits for it for this long.
    cluster.member("web01").stop();
    cluster.home("web01").add_to_malai_toml("[limits]\nresume = \"1s\"");
    cluster.member("web01").start();
    for way in [Way::ThroughDaemon, Way::Direct] {
        if way == Way::Direct {
            cluster.member("laptop").stop();
        }
        way.assert(cluster.home("laptop"));
        let script = "sleep 1000 & echo $!; wait";
        let running = cluster.home("laptop").command(["web01.company", "sh", "-c", script]).spawn();
        let child = running.wait_for_line(SOON, |line| !line.is_empty());
        running.kill();
        await_until("the end of what the client started", 3 * SOON, || is_gone(&child));
    }
}

#[test]
fn this_device_is_reached_without_a_network_and_after_the_same_check() {
    let net = net();
    let added = [("web01", "allow_from = \"laptop,web01\"")];
    let mut cluster = malai_testkit::Cluster::with_config(&net, &["web01", "laptop"], &added, "");
    cluster.member("web01").stop();
    cluster.member("laptop").stop();
    assert_eq!(cluster.home("web01").malai(["web01.company", "echo", "here"]).ok().text(), "here");
    cluster
        .home("laptop")
        .malai(["--json", "laptop.company", "echo", "here"])
        .exits(255)
        .fails_with("acl.denied");
}

#[test]
fn an_unreachable_machine_is_told_within_its_time_and_by_name() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("web01").stop();
    let laptop = cluster.home("laptop");
    let output = laptop.malai(["web01.company", "true"]).exits(255);
    assert!(output.elapsed < std::time::Duration::from_secs(10), "{output:?}");
    assert!(output.stderr_text().contains("web01"), "{output:?}");
    laptop
        .malai(["--json", "--connect-timeout", "1s", "web01.company", "true"])
        .fails_with("p2p.unreachable");
    laptop.malai(["--json", "web02.company", "true"]).exits(255).fails_with("address.unknown_machine");
    laptop.malai(["--json", "web01.nowhere", "true"]).exits(255).fails_with("address.unknown_cluster");
}

#[test]
fn a_command_alias_runs_what_the_config_says() {
    let net = net();
    let text =
        "[machine.web01.command.greet]\nallow_from = \"laptop\"\ncommand = \"echo hello\"\nargs = [\"w*\"]\n";
    let cluster = malai_testkit::Cluster::with_config(&net, &["web01", "laptop"], &[], text);
    let laptop = cluster.home("laptop");
    assert_eq!(laptop.malai(["web01.company", "greet"]).ok().text(), "hello");
    assert_eq!(laptop.malai(["web01.company", "greet", "world"]).ok().text(), "hello world");
    for args in [&["you"][..], &["w/x"], &["-n"], &["world", "you"]] {
        let words = ["--json", "web01.company", "greet"].iter().chain(args);
        laptop.malai(words).exits(255).fails_with("acl.denied");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that is not run says so")]
fn another_user_is_refused_and_never_ignored() {
    if nix::unistd::Uid::effective().is_root() {
        eprintln!("not run: root may become anybody; users.rs has it as a user made for it");
        return;
    }
    let net = net();
    let added = [("web01", "allow_from = \"laptop\"\nusername = \"nobody\"")];
    let cluster = malai_testkit::Cluster::with_config(&net, &["web01", "laptop"], &added, "");
    let output = cluster.home("laptop").malai(["--json", "web01.company", "id", "-un"]).exits(255);
    assert!(output.stdout.is_empty(), "{output:?}");
    output.fails_with("command.user");
}

#[test]
fn a_daemon_takes_no_time_once_its_callers_are_gone() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("laptop").stop();
    for _ in 0..40 {
        cluster.home("laptop").malai(["web01.company", "true"]).ok();
    }
    let pid = cluster.member("web01").daemon.as_ref().expect("runs").pid();
    let ticks = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>()
    };
    // A stream that asked for ever whether it had ended took a whole core, also of a busy machine.
    await_until("a daemon at rest", SOON, || {
        let before = ticks();
        std::thread::sleep(std::time::Duration::from_millis(500));
        ticks() - before <= 5
    });
}

/// Says whether a process has ended, or waits for its parent only.
pub(crate) fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    let state = stat.ok().and_then(|text| text.rsplit(')').next()?.trim().chars().next());
    matches!(state, None | Some('Z'))
}
