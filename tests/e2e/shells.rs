//! Shells and programs under a terminal, on real terminals: tests look at the screen, as a person would.

use std::time::Duration;

use malai_testkit::{Cluster, Signal, Terminal, TestHome, TestUser, await_until};

use crate::{SOON, net, not_run, open_cluster, scaled};

/// A shell without the machine's own start-up files, which prompts with `$ `.
pub(crate) fn shell(home: &TestHome) -> Terminal {
    let terminal = home.terminal(["-t", "web01.company", "sh"]).env("PS1", "$ ").spawn();
    terminal.wait_for("a prompt", |screen| screen.lines[0].starts_with(['$', '#']));
    terminal
}

/// Has a shell say something that is not on the screen by being typed.
pub(crate) fn ask(terminal: &Terminal, number: u32) {
    terminal.type_text(format!("echo said-$(({number}+0))\r"));
    terminal.wait_for_line(&format!("said-{number}"));
}

#[test]
fn an_address_alone_opens_the_login_shell_of_the_user_with_its_size_and_its_own_status() {
    let net = net();
    let cluster = open_cluster(&net);
    let mut terminal = cluster.home("laptop").terminal(["web01.company"]).size(100, 30).spawn();
    let before = terminal.settings();
    let passwd = nix_home();
    terminal.type_text("echo shell:$0: home:$HOME: in:$PWD: term:$TERM: tty:$([ -t 0 ] && echo yes):\r");
    let screen =
        terminal.wait_for("what the shell says", |screen| screen.shows(":yes:") || screen.shows("tty:yes:"));
    let shown = screen.text().replace('\n', "");
    for part in [
        format!("shell:-{}:", passwd.1.rsplit('/').next().unwrap_or("sh")),
        format!("home:{}:", passwd.0),
        format!("in:{}:", passwd.0),
        "term:xterm-256color:".to_owned(),
    ] {
        assert!(shown.contains(&part), "{part} in {shown}");
    }
    assert_ne!(terminal.settings(), before, "the terminal is raw meanwhile");
    terminal.type_text("stty size\r");
    terminal.wait_for_line("30 100");
    terminal.type_text("exit 7\r");
    assert_eq!(terminal.wait(), 7);
    assert_eq!(terminal.settings(), before);
}

/// Home and shell of the user that this process runs as.
fn nix_home() -> (String, String) {
    let output = std::process::Command::new("sh")
        .args(["-c", "getent passwd $(id -u) || grep \"^[^:]*:[^:]*:$(id -u):\" /etc/passwd"])
        .output()
        .expect("asks for the user");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let fields: Vec<&str> = text.trim().split(':').collect();
    (fields[5].to_owned(), fields[6].to_owned())
}

#[test]
fn the_status_of_a_program_under_a_terminal_is_the_status() {
    let net = net();
    let cluster = open_cluster(&net);
    for (script, status) in [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        let mut terminal =
            cluster.home("laptop").terminal(["-t", "web01.company", "sh", "-c", script]).spawn();
        assert_eq!(terminal.wait(), status, "{script}");
    }
    let mut terminal =
        cluster.home("laptop").terminal(["exec", "-t", "web01.company", "there-is-no-such-program"]).spawn();
    assert_eq!(terminal.wait(), 127);
    assert!(terminal.screen().shows("error:"), "{:?}", terminal.screen());
}

#[test]
fn an_editor_opens_resizes_and_quits_and_leaves_the_screen_as_it_was() {
    if !std::path::Path::new("/usr/bin/vim").exists() {
        not_run("vim is not installed");
        return;
    }
    let net = net();
    let cluster = open_cluster(&net);
    let mut terminal = shell(cluster.home("laptop"));
    ask(&terminal, 41);
    terminal.type_text("vim -u NONE -N\r");
    terminal.wait_for("vim's empty screen", |screen| {
        screen.alternate && screen.lines[22].starts_with('~') && !screen.shows("said-41")
    });
    terminal.type_text(":set showmode\rihello from far");
    terminal.wait_for("what was typed into vim", |screen| {
        screen.lines[0] == "hello from far" && screen.lines[23].contains("INSERT")
    });
    terminal.resize(60, 12);
    terminal.wait_for("vim in its new size", |screen| {
        screen.lines[0] == "hello from far" && screen.lines[10] == "~" && screen.lines[11].contains("INSERT")
    });
    terminal.resize(120, 40);
    terminal.wait_for("vim in a larger size", |screen| {
        screen.lines[38] == "~" && screen.lines[39].contains("INSERT")
    });
    terminal.type_text("\x1b:q!\r");
    let screen = terminal.wait_for("the shell's screen again", |screen| !screen.alternate);
    assert!(screen.shows("said-41"), "{screen:?}");
    terminal.type_text("stty size; exit 5\r");
    terminal.wait_for_line("40 120");
    assert_eq!(terminal.wait(), 5);
}

#[test]
fn control_c_reaches_the_remote_program_and_not_malai() {
    let net = net();
    let cluster = open_cluster(&net);
    let script = "trap 'echo got-int' INT; echo ready; while :; do sleep 0.05; done";
    let mut terminal = cluster.home("laptop").terminal(["-t", "web01.company", "sh", "-c", script]).spawn();
    terminal.wait_for_line("ready");
    terminal.type_text("\x03");
    terminal.wait_for("the trap's word", |screen| screen.shows("got-int"));
    assert!(!terminal.has_ended());
    terminal.type_text("\x1c");
    assert_eq!(terminal.wait(), 128 + 3);
}

/// How long nothing is taken, where that is the subject.
fn still() -> Duration {
    Duration::from_secs(if crate::full() { 60 } else { 0 })
}

#[test]
fn control_s_stops_the_output_until_control_q_and_harms_nothing_else() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let script = "while :; do echo counting; sleep 0.01; done";
    let terminal = laptop.terminal(["-t", "web01.company", "sh", "-c", script]).spawn();
    terminal.wait_for_text("counting");
    terminal.type_text("\x13");
    // It stops as soon as that is heard: from then on nothing comes.
    let mut last = terminal.total();
    await_until("the output to stop", SOON, || {
        std::thread::sleep(Duration::from_millis(300));
        std::mem::replace(&mut last, terminal.total()) == terminal.total()
    });
    std::thread::sleep(still());
    assert_eq!(laptop.malai(["web01.company", "echo", "meanwhile"]).ok().text(), "meanwhile");
    let stopped = terminal.total();
    assert_eq!(stopped, last);
    terminal.type_text("\x11");
    await_until("the output to go on", SOON, || terminal.total() > stopped + 100);
}

#[test]
fn a_terminal_that_is_frozen_loses_no_byte_and_harms_nothing_else() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let count = 4_000_000;
    let script = format!("head -c {count} /dev/zero | tr '\\0' x");
    let mut terminal = laptop.terminal(["-t", "web01.company", "sh", "-c", &script]).spawn();
    terminal.hold(true);
    std::thread::sleep(still());
    assert_eq!(laptop.malai(["web01.company", "echo", "meanwhile"]).ok().text(), "meanwhile");
    terminal.hold(false);
    assert_eq!(terminal.wait(), 0);
    await_until("every byte", SOON, || terminal.count_of(b'x') == count);
}

#[test]
fn bulk_output_loses_no_byte() {
    let net = net();
    let cluster = open_cluster(&net);
    let count = if crate::full() { 500_000_000 } else { scaled(80_000_000) };
    let script = format!("yes | head -c {count}");
    let mut terminal = cluster.home("laptop").terminal(["-t", "web01.company", "sh", "-c", &script]).spawn();
    await_until("every byte", 10 * SOON, || terminal.count_of(b'y') >= count / 2);
    assert_eq!(terminal.wait(), 0);
    // Each `y` with its newline, which the terminal makes two characters of.
    assert_eq!(terminal.count_of(b'y'), count / 2);
    assert_eq!(terminal.count_of(b'\n'), count / 2);
}

#[test]
fn bytes_that_are_typed_arrive_whole_and_in_utf_8() {
    let net = net();
    let cluster = open_cluster(&net);
    let terminal = shell(cluster.home("laptop"));
    terminal.type_text("stty -echo; cat\r");
    terminal.type_text("grüße 漢字 🦀\r");
    terminal.wait_for_line("grüße 漢字 🦀");
    terminal.type_text("\x04");
    // Only a raw terminal takes so much without a line's end.
    terminal.type_text("stty -echo raw; printf 'rea%s' dy; head -c 300000 | wc -c; stty sane\r");
    terminal.wait_for_text("ready");
    for _ in 0..300 {
        terminal.type_text([b'k'; 1000]);
    }
    terminal.wait_for("the count of what was typed", |screen| {
        screen.lines.iter().any(|line| line.contains("300000"))
    });
}

#[test]
fn colours_reach_the_terminal_as_they_are() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let script =
        r"echo ready; read x; printf '\033[38;2;1;2;3mtrue\033[38;5;200mcolour\033[0m\n'; read x; exit $x";
    let terminal = laptop.terminal(["-t", "web01.company", "sh", "-c", script]).spawn();
    terminal.wait_for_line("ready");
    terminal.type_text("\r");
    terminal.wait_for_line("truecolour");
    await_until("the end of the colours", SOON, || {
        terminal.has_come("\x1b[38;2;1;2;3mtrue\x1b[38;5;200mcolour\x1b[0m")
    });
    terminal.kill();
    // On a screen that is drawn anew each look is said whole.
    let mut again = laptop.terminal(["shell", "web01.company", "--attach"]).spawn();
    again.wait_for_line("truecolour");
    await_until("the end of the colours", SOON, || {
        again.has_come("\x1b[0;38;2;1;2;3mtrue\x1b[0;38;5;200mcolour\x1b[0m")
    });
    again.type_text("4\r");
    assert_eq!(again.wait(), 4);
}

#[test]
fn the_widest_screen_and_the_longest_sequences_harm_nothing_and_what_comes_after_them_is_seen() {
    let net = net();
    let mut cluster = open_cluster(&net);
    // A title of 3 MB and a sequence of 2 MB, each of them stopped in its middle.
    let (title, sequence) = (3_000_000, 2_000_000);
    let script = format!(
        "some() {{ head -c $1 /dev/zero | tr '\\0' $2; }}; stty -echo; printf '\\033]2;'; some {title} t; read x; \
         printf '\\007\\033['; some {sequence} 1; read x; printf 'mmarker-%s' $((40+2)); read x; exit $x"
    );
    let laptop = cluster.home("laptop").clone();
    let on = |words: &[&str]| laptop.terminal(words).size(10_000, 20).spawn();
    let first = on(&["-t", "web01.company", "sh", "-c", &script]);
    await_until("the title", SOON, || first.count_of(b't') >= title);
    first.kill();
    await_until("the client to be gone", SOON, || sessions(&laptop)[0]["attached"] == false);
    let mut second = on(&["shell", "web01.company", "--attach"]);
    await_until("a screen to be drawn", SOON, || second.total() > 0);
    second.type_text("\r");
    await_until("the sequence", SOON, || second.count_of(b'1') >= sequence);
    second.type_text("~d");
    assert_eq!(second.wait(), 0);
    let third = on(&["shell", "web01.company", "--attach"]);
    await_until("a screen to be drawn", SOON, || third.total() > 0);
    third.type_text("\r");
    third.wait_for_line("marker-42");
    third.kill();
    await_until("the client to be gone", SOON, || sessions(&laptop)[0]["attached"] == false);
    let mut last = on(&["shell", "web01.company", "--attach"]);
    let screen = last.wait_for_line("marker-42");
    assert!(screen.title.len() < 10_000, "{} bytes of a title", screen.title.len());
    assert!(last.total() < 1_000_000, "{} bytes for one screen", last.total());
    last.type_text("5\r");
    assert_eq!(last.wait(), 5);
    for name in ["web01", "laptop"] {
        assert!(!cluster.member(name).daemon.as_mut().expect("runs").has_ended(), "{name}");
    }
}

#[test]
fn the_escape_character_has_a_help_and_a_literal() {
    let net = net();
    let cluster = open_cluster(&net);
    let cat = "echo ready; cat";
    let mut terminal = cluster.home("laptop").terminal(["-t", "web01.company", "sh", "-c", cat]).spawn();
    terminal.wait_for_text("ready");
    terminal.type_text("~?");
    terminal.wait_for("the help", |screen| screen.shows("~.") && screen.shows("~d") && screen.shows("~~"));
    terminal.type_text("~s");
    terminal.wait_for("the status", |screen| screen.shows("web01.company") && screen.shows("attached for"));
    let twice = |text: &str| {
        terminal.wait_for("what was typed and what cat says", |screen| {
            screen.lines.iter().filter(|line| *line == text).count() == 2
        });
    };
    terminal.type_text("~~one\r");
    twice("~one");
    terminal.type_text("~/two\r");
    twice("~/two");
    terminal.type_text("a~.\r");
    twice("a~.");
    terminal.type_text("\x04");
    assert_eq!(terminal.wait(), 0);

    let terminal =
        cluster.home("laptop").terminal(["--escape", "none", "-t", "web01.company", "sh", "-c", cat]).spawn();
    terminal.wait_for_text("ready");
    terminal.type_text("~?\r");
    terminal.wait_for("the word and its echo", |screen| {
        screen.lines.iter().filter(|line| *line == "~?").count() == 2
    });
}

#[test]
fn hanging_up_ends_the_session() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let mut terminal = shell(laptop);
    let before = terminal.settings();
    assert_eq!(sessions(laptop).len(), 1);
    terminal.type_text("\r~.");
    assert_eq!(terminal.wait(), 128 + 1);
    assert_ne!(terminal.settings(), before);
    await_until("the end of the session", SOON, || sessions(laptop).is_empty());
}

/// One's own sessions, as `--json` lists them.
pub(crate) fn sessions(home: &TestHome) -> Vec<serde_json::Value> {
    let listed = home.malai(["--json", "sessions", "web01.company"]).ok().json();
    assert_eq!(listed["schema"], 1);
    listed["sessions"].as_array().expect("is a list").clone()
}

#[test]
fn the_terminal_is_sane_after_a_program_that_was_cut_off() {
    let net = net();
    let cluster = open_cluster(&net);
    let script = r"printf '\033[?1049h\033[?1002h\033[?25l\033[5;10r\033[31mfull screen'; sleep 1000";
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        let mut terminal =
            cluster.home("laptop").terminal(["-t", "web01.company", "sh", "-c", script]).spawn();
        let before = {
            let fresh = cluster.home("laptop").terminal(["--version"]).spawn();
            fresh.settings()
        };
        terminal.wait_for("the full screen", |screen| {
            screen.alternate && screen.mouse && screen.shows("full screen")
        });
        assert_ne!(terminal.settings(), before);
        terminal.signal(signal);
        assert_eq!(terminal.wait(), 128 + signal as i32);
        assert_eq!(terminal.settings(), before, "{signal}");
        if signal != Signal::SIGHUP {
            // After a hang-up there is nobody to tidy up for.
            let screen = terminal.wait_for("a sane screen", |screen| {
                !screen.alternate && !screen.mouse && screen.cursor_shown
            });
            assert!(screen.text().contains("malai shell web01.company"), "{screen:?}");
        }
    }
}

#[test]
fn malai_is_suspended_and_goes_on_as_any_program_of_a_shell() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let terminal = laptop.terminal_of("bash", ["--norc", "--noprofile", "-i"]).env("PS1", "local> ").spawn();
    terminal.wait_for_text("local>");
    let malai = net.binary().display().to_string();
    terminal.type_text(format!(
        "{malai} -t web01.company sh -c 'stty -echo; echo far; while read x; do echo far-$x; done'\r"
    ));
    terminal.wait_for_line("far");
    let raw = terminal.settings();
    terminal.type_text("~\x1a");
    terminal.wait_for("the local shell", |screen| {
        screen.shows("Stopped") && screen.lines.iter().any(|line| line.starts_with("local>"))
    });
    assert_ne!(terminal.settings(), raw);
    terminal.type_text("echo here-$((1+1))\r");
    terminal.wait_for_line("here-2");
    terminal.type_text("fg\r");
    // The far screen is drawn anew: the local shell's words are gone.
    terminal.wait_for("the far screen", |screen| screen.shows("far") && !screen.shows("here-2"));
    await_until("the raw terminal", SOON, || terminal.settings() == raw);
    terminal.type_text("again\r");
    terminal.wait_for_line("far-again");
    terminal.type_text("\x04");
    terminal.wait_for("the local shell", |screen| screen.lines.iter().any(|line| line.starts_with("local>")));
}

#[test]
fn without_a_terminal_a_shell_is_refused_unless_it_is_forced() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let output = laptop.command(["--json", "web01.company"]).stdin("echo no\n").run();
    output.exits(255).fails_with("usage");
    let output = laptop
        .command(["-t", "web01.company", "sh"])
        .stdin("stty -echo\necho forced-$((20+1))\nexit 4\n")
        .run()
        .exits(4);
    assert!(String::from_utf8_lossy(&output.stdout).contains("forced-21"), "{output:?}");
    // The end of the input is Ctrl-D.
    let output = laptop.command(["-t", "web01.company", "cat"]).stdin("to cat\n").run().ok();
    assert!(String::from_utf8_lossy(&output.stdout).contains("to cat"), "{output:?}");
    laptop.malai(["-t", "info"]).exits(2);
}

#[test]
fn a_shell_is_governed_apart_from_commands() {
    let net = net();
    let added = [
        ("web01", "allow_from = \"laptop\"\nallow_shell = \"phone\""),
        ("db01", "allow_shell = \"laptop\"\ncommand.uptime.allow_from = \"phone\""),
    ];
    let cluster = Cluster::with_config(&net, &["web01", "db01", "laptop", "phone"], &added, "");
    let laptop = cluster.home("laptop");
    let denied = |words: &[&str]| {
        let mut terminal = laptop.terminal(["--json"].iter().chain(words)).size(200, 24).spawn();
        assert_eq!(terminal.wait(), 255, "{words:?}");
        let screen = terminal.screen();
        assert!(screen.shows("acl.denied"), "{words:?}: {screen:?}");
    };
    // Commands, and so commands under a terminal, but no shell.
    assert_eq!(laptop.malai(["web01.company", "echo", "may"]).ok().text(), "may");
    let mut terminal = laptop.terminal(["-t", "web01.company", "echo", "may-too"]).spawn();
    assert_eq!(terminal.wait(), 0);
    denied(&["web01.company"]);
    denied(&["shell", "web01.company"]);
    laptop.malai(["--json", "shell", "--detach", "web01.company"]).fails_with("acl.denied");
    // The other way round.
    let mut terminal = laptop.terminal(["db01.company"]).spawn();
    terminal.type_text("exit 6\r");
    assert_eq!(terminal.wait(), 6);
    laptop.malai(["--json", "db01.company", "true"]).fails_with("acl.denied");
    denied(&["-t", "db01.company", "bash"]);
    laptop.malai(["--json", "--detach", "db01.company", "sleep", "1"]).fails_with("acl.denied");
    let log = cluster.home("web01").read("malai.log").unwrap_or_default();
    assert!(log.contains("(shell)") && log.contains("allow_shell does not name the caller"), "{log}");
}

#[test]
fn a_machine_may_forbid_shells_whatever_its_cluster_allows() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("web01").stop();
    cluster.home("web01").add_to_malai_toml("[host]\nshell = false");
    cluster.member("web01").start();
    let laptop = cluster.home("laptop");
    laptop.malai(["--json", "shell", "--detach", "web01.company"]).fails_with("acl.denied");
    assert_eq!(laptop.malai(["web01.company", "echo", "may"]).ok().text(), "may");
}

#[test]
fn this_device_has_shells_too_through_its_daemon() {
    let net = net();
    let added = [("web01", "allow_from = \"web01\"")];
    let cluster = Cluster::with_config(&net, &["web01"], &added, "");
    let mut terminal = shell(cluster.home("web01"));
    ask(&terminal, 17);
    terminal.type_text("exit 9\r");
    assert_eq!(terminal.wait(), 9);
}

#[test]
fn a_shell_is_that_of_the_user_whom_the_rules_name() {
    let Some(user) = TestUser::make() else { return };
    let net = net();
    let added = format!("allow_from = \"laptop\"\nusername = \"{}\"", user.name());
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[("web01", &added)], "");
    let laptop = cluster.home("laptop");
    let mut terminal = laptop.terminal(["web01.company"]).size(150, 24).spawn();
    terminal.type_text("echo I:$(id -un):$(id -run):$(pwd):$0:$(stat -c %U $(tty)):\r");
    let name = user.name();
    // The last is the owner of the terminal, as after any login.
    let said = format!("I:{name}:{name}:/home/{name}:-bash:{name}:");
    terminal.wait_for("whose shell it is", |screen| screen.shows(&said));
    terminal.type_text("exit 3\r");
    assert_eq!(terminal.wait(), 3);
    assert!(sessions(laptop).is_empty());
    let id = laptop.malai(["--detach", "web01.company", "sleep", "1000"]).ok();
    assert_eq!(sessions(laptop)[0]["user"], name);
    laptop.malai(["sessions", "web01.company", "--end", id.text()]).ok();
}
