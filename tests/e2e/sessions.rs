//! Sessions that live on: clients come and go, daemons end and begin, and nobody else sees them.

use malai_testkit::{Cluster, Signal, Terminal, TestHome, await_until};

use crate::shells::{ask, sessions, shell};
use crate::{SOON, net, not_run, open_cluster};

/// How long it may take until it is noticed that a connection is lost.
const LOST: std::time::Duration = std::time::Duration::from_secs(60);

fn only_id(home: &TestHome) -> String {
    let found = sessions(home);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]["session"].as_str().expect("is a text").to_owned()
}

fn attach(home: &TestHome, words: &[&str]) -> Terminal {
    home.terminal(["shell", "web01.company"].iter().chain(words)).spawn()
}

#[test]
fn a_client_detaches_and_comes_back_to_the_same_screen() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let mut terminal = shell(laptop);
    terminal.type_text("mine=kept; printf '\\033[2J\\033[5;5Hfive-$((2+3))\\033[10;1H'\r");
    let before = terminal.wait_for("what it drew", |screen| screen.lines[4].trim() == "five-$((2+3))");
    terminal.type_text("~d");
    assert_eq!(terminal.wait(), 0);
    let id = only_id(laptop);
    terminal.wait_for("how to come back", |screen| {
        screen.text().replace('\n', "").contains(&format!("malai shell web01.company --attach {id}"))
    });
    let listed = &sessions(laptop)[0];
    assert_eq!((&listed["attached"], &listed["ended"]), (&false.into(), &serde_json::Value::Null));
    // Without an id: there is one that nobody is attached to.
    let mut again = attach(laptop, &["--attach"]);
    again
        .wait_for("the same screen", |screen| screen.lines == before.lines && screen.cursor == before.cursor);
    await_until("the client to be listed", SOON, || sessions(laptop)[0]["attached"] == true);
    again.type_text("echo $mine-1\r");
    again.wait_for_line("kept-1");
    again.type_text("echo \"<$MALAI_SESSION>\"\r");
    again.wait_for_line(&format!("<{id}>"));
    again.type_text("exit 3\r");
    assert_eq!(again.wait(), 3);
    await_until("the end of the session", SOON, || sessions(laptop).is_empty());
    laptop.malai(["--json", "shell", "web01.company", "--attach"]).exits(255).fails_with("session.unknown");
}

#[test]
fn whoever_opens_a_shell_is_reminded_of_sessions_that_nobody_is_attached_to() {
    let net = net();
    let added = [("web01", "allow_from = \"laptop,phone\"")];
    let cluster = Cluster::with_config(&net, &["web01", "laptop", "phone"], &added, "");
    let (laptop, phone) = (cluster.home("laptop"), cluster.home("phone"));
    laptop.malai(["--detach", "web01.company", "sleep", "1000"]).ok();
    let reminded = |home: &TestHome| {
        let terminal = home.terminal(["web01.company"]).spawn();
        ask(&terminal, 1);
        terminal.screen().text().contains("1 other session of yours there, with nobody attached")
    };
    assert!(reminded(laptop));
    assert!(!reminded(phone), "of another's session");
}

#[test]
fn a_full_screen_program_is_drawn_anew_exactly() {
    if !std::path::Path::new("/usr/bin/vim").exists() {
        not_run("vim is not installed");
        return;
    }
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let terminal = laptop.terminal(["-t", "web01.company", "vim", "-u", "NONE", "-N"]).spawn();
    terminal.wait_for("vim", |screen| screen.alternate && screen.lines[22].starts_with('~'));
    terminal.type_text("ione\rtwo\x1b:set number\r");
    let before = terminal.wait_for("the numbers", |screen| screen.lines[1].trim() == "2 two");
    terminal.kill();
    await_until("the client to be gone", SOON, || sessions(laptop)[0]["attached"] == false);
    let mut again = attach(laptop, &["--attach", &only_id(laptop)]);
    let now = again.wait_for("vim's screen", |screen| screen.alternate && screen.lines == before.lines);
    assert_eq!(now.cursor, before.cursor);
    again.type_text(":q!\r");
    assert_eq!(again.wait(), 0);
    assert!(!again.screen().alternate);
}

#[test]
fn a_session_outlives_the_kill_of_its_client_and_of_its_daemon() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let terminal = shell(cluster.home("laptop"));
    terminal.type_text("mine=kept\r");
    ask(&terminal, 1);
    terminal.kill();
    cluster.member("web01").daemon.take().expect("runs").kill();
    cluster.member("web01").start();
    let laptop = cluster.home("laptop");
    // An attempt that began before the daemon did may have to be made once more.
    await_until("the machine to answer", LOST, || {
        laptop.malai(["sessions", "web01.company"]).code == Some(0)
    });
    let id = only_id(laptop);
    let mut again = attach(laptop, &["--attach", &id]);
    again.type_text("echo $mine-2\r");
    again.wait_for_line("kept-2");
    again.type_text("exit 0\r");
    assert_eq!(again.wait(), 0);
}

#[test]
fn an_attached_client_comes_back_by_itself_when_the_daemon_does() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let mut terminal = shell(cluster.home("laptop"));
    terminal.type_text("mine=kept\r");
    ask(&terminal, 1);
    // Once killed, once asked to end: that does not wait for sessions either.
    for round in 2..4 {
        let daemon = cluster.member("web01").daemon.take().expect("runs");
        if round == 2 {
            daemon.kill();
        } else {
            let begun = std::time::Instant::now();
            daemon.stop();
            assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
        }
        terminal.wait_within(LOST, "word of it", |screen| {
            screen.shows("the connection to web01.company is lost")
        });
        // What is typed meanwhile arrives.
        terminal.type_text(format!("echo $mine-$(({round}+0))\r"));
        cluster.member("web01").start();
        let screen = terminal.wait_for("the answer, and no word of a lost connection any more", |screen| {
            screen.shows(&format!("kept-{round}")) && !screen.shows("is lost")
        });
        assert_eq!(screen.text().matches(&format!("kept-{round}")).count(), 1, "{screen:?}");
    }
    terminal.type_text("exit 8\r");
    assert_eq!(terminal.wait(), 8);
}

#[test]
fn no_line_is_lost_or_comes_twice_when_the_daemon_is_killed_in_the_middle_of_output() {
    let net = net();
    let mut cluster = open_cluster(&net);
    // Less than a session keeps for a client that is away.
    let script =
        "stty -onlcr; i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo line-$i; sleep 0.001; done; exit 4";
    let running =
        cluster.home("laptop").command(["-t", "web01.company", "sh", "-c", script]).open_stdin().spawn();
    running.wait_for_line(SOON, |line| line == "line-100");
    cluster.member("web01").daemon.take().expect("runs").kill();
    cluster.member("web01").start();
    running.wait_for_line(LOST, |line| line == "line-4000");
    let output = running.wait(SOON).exits(4);
    let lines: Vec<&str> = output.text().lines().collect();
    let expected: Vec<String> = (1..=4000).map(|number| format!("line-{number}")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn a_command_runs_on_by_itself_and_its_end_is_kept_for_its_owner() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let script = "echo working; sleep 0.3; echo done; exit 5";
    let output = laptop.malai(["--detach", "web01.company", "sh", "-c", script]).ok();
    let id = output.text().to_owned();
    assert!(id.len() == 8 && output.stderr_text().contains("--attach"), "{output:?}");
    await_until("its end", SOON, || {
        sessions(laptop)
            .iter()
            .any(|session| session["ended"]["status"] == 5 && session["session"] == id.as_str())
    });
    let listed = laptop.malai(["sessions", "web01.company"]).ok();
    assert!(listed.text().contains("ended 5") && listed.text().contains(&id), "{listed:?}");
    let mut terminal = attach(laptop, &["--attach", &id]);
    assert_eq!(terminal.wait(), 5);
    assert!(terminal.screen().shows("done"), "{:?}", terminal.screen());
    await_until("that it is over", SOON, || sessions(laptop).is_empty());
}

#[test]
fn another_client_of_its_owner_takes_over_and_one_that_looks_on_cannot_type() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let mut first = shell(laptop);
    ask(&first, 1);
    let id = only_id(laptop);
    let mut watcher = attach(laptop, &["--watch", &id]);
    watcher.wait_for_line("said-1");
    watcher.type_text("echo typed-by-watcher\r");
    ask(&first, 2);
    watcher.wait_for_line("said-2");
    assert!(!watcher.screen().shows("typed-by-watcher"), "{:?}", watcher.screen());
    assert_eq!(sessions(laptop)[0]["watchers"], 1);
    let mut second = attach(laptop, &["--attach", &id]);
    assert_eq!(first.wait(), 0);
    assert!(first.screen().shows("taken over"), "{:?}", first.screen());
    ask(&second, 3);
    watcher.wait_for_line("said-3");
    watcher.type_text("\x03");
    assert_eq!(watcher.wait(), 0);
    second.type_text("exit 0\r");
    assert_eq!(second.wait(), 0);
}

#[test]
fn nobody_else_sees_attaches_to_or_ends_a_session() {
    let net = net();
    let added = [("web01", "allow_from = \"laptop,phone\"")];
    let cluster = Cluster::with_config(&net, &["web01", "laptop", "phone"], &added, "");
    let (laptop, phone) = (cluster.home("laptop"), cluster.home("phone"));
    let terminal = shell(laptop);
    ask(&terminal, 1);
    let id = only_id(laptop);
    assert!(sessions(phone).is_empty());
    let of_stranger = |id: &str, words: &[&str]| {
        let output =
            phone.malai(["--json"].iter().chain(words)).exits(if words[0] == "sessions" { 1 } else { 255 });
        output.stderr_text().replace(id, "ID")
    };
    // What is told is the same as for one that is not there.
    let (there, not_there) = (id.as_str(), "aaaaaaaa");
    for words in [
        |id| ["shell", "web01.company", "--attach", id],
        |id| ["shell", "web01.company", "--watch", id],
        |id| ["sessions", "web01.company", "--end", id],
    ] {
        let told = of_stranger(there, &words(there));
        assert_eq!(told, of_stranger(not_there, &words(not_there)));
        assert!(told.contains("session.unknown"), "{told}");
    }
    phone.malai(["--json", "shell", "web01.company", "--attach"]).exits(255).fails_with("session.unknown");
    ask(&terminal, 2);
    assert_eq!(sessions(laptop).len(), 1);
    let ended = laptop.malai(["sessions", "web01.company", "--end", &id]).ok();
    assert!(ended.text().contains(&id), "{ended:?}");
    assert!(sessions(laptop).is_empty());
}

#[test]
fn a_right_that_is_taken_away_ends_attached_and_detached_sessions() {
    let net = net();
    let added = [("web01", "allow_from = \"laptop,phone\"")];
    let cluster = Cluster::with_config(&net, &["web01", "laptop", "phone"], &added, "");
    let laptop = cluster.home("laptop");
    let mut attached = shell(laptop);
    let before = attached.settings();
    let pids = net.path().join("pids");
    let script = format!("echo $$ >> {}; trap '' HUP; while :; do sleep 0.1; done", pids.display());
    laptop.malai(["--detach", "web01.company", "sh", "-c", &script]).ok();
    // Nothing of another member's ends.
    let others = cluster.home("phone").malai(["--detach", "web01.company", "sleep", "1000"]).ok();
    await_until("the detached one", SOON, || {
        std::fs::read_to_string(&pids).is_ok_and(|text| !text.trim().is_empty())
    });
    cluster.edit(|text| text.replace("laptop,phone", "phone"));
    assert_eq!(attached.wait(), 255);
    assert!(attached.screen().text().contains("taken away"), "{:?}", attached.screen());
    assert_ne!(attached.settings(), before, "raw before, not after");
    let pid = std::fs::read_to_string(&pids).expect("reads");
    await_until("the end of the detached one", SOON, || crate::commands::is_gone(&pid));
    assert_eq!(sessions(cluster.home("phone"))[0]["session"], others.text());
    // It may not even know the machine any more.
    laptop.malai(["--json", "sessions", "web01.company"]).exits(1);
}

#[test]
fn a_right_that_is_taken_away_while_no_daemon_runs_ends_the_session_when_one_does() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let pids = net.path().join("pids");
    let script = format!("echo $$ > {}; exec sleep 1000", pids.display());
    cluster.home("laptop").malai(["--detach", "web01.company", "sh", "-c", &script]).ok();
    await_until("the session", SOON, || {
        std::fs::read_to_string(&pids).is_ok_and(|text| !text.trim().is_empty())
    });
    cluster.member("web01").stop();
    cluster.home("web01").add_to_malai_toml("[host]\nusers = [\"nobody-of-that-name\"]");
    let pid = std::fs::read_to_string(&pids).expect("reads");
    assert!(!crate::commands::is_gone(&pid));
    cluster.member("web01").start();
    await_until("the end of the session", SOON, || crate::commands::is_gone(&pid));
}

#[test]
fn a_command_whose_words_change_ends_and_one_whose_words_stay_goes_on() {
    let net = net();
    let text = "[machine.web01.command.one]\nallow_from = \"laptop\"\ncommand = \"sleep 1001\"\n\
                [machine.web01.command.two]\nallow_from = \"laptop\"\ncommand = \"sleep 1002\"\n";
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[], text);
    let laptop = cluster.home("laptop");
    laptop.malai(["--detach", "web01.company", "one"]).ok();
    let two = laptop.malai(["--detach", "web01.company", "two"]).ok();
    cluster.edit(|text| text.replace("sleep 1001", "sleep 1003"));
    await_until("the end of the one that changed", SOON, || sessions(laptop).len() == 1);
    assert_eq!(sessions(laptop)[0]["session"], two.text());
    laptop.malai(["sessions", "web01.company", "--end", two.text()]).ok();
}

/// Its program was not told to follow no links: it must not go on under a rule for whose sake it would have been.
#[test]
fn a_session_whose_rule_is_narrowed_ends_and_one_whose_rule_is_widened_goes_on() {
    let net = net();
    let rule = |name: &str, args: &str| {
        format!(
            "[machine.web01.command.{name}]\nallow_from = \"laptop\"\ncommand = \"sleep\"\nargs = {args}\n"
        )
    };
    let (before, after) = (
        rule("narrowed", "\"any\"") + &rule("widened", "[\"1*\"]"),
        rule("narrowed", "[\"1*\"]") + &rule("widened", "\"any\""),
    );
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[], &before);
    let laptop = cluster.home("laptop");
    laptop.malai(["--detach", "web01.company", "narrowed", "1001"]).ok();
    let widened = laptop.malai(["--detach", "web01.company", "widened", "1002"]).ok();
    cluster.edit(|text| text.replace(&before, &after));
    await_until("the end of the one that was narrowed", SOON, || sessions(laptop).len() == 1);
    assert_eq!(sessions(laptop)[0]["session"], widened.text());
    // It was told when it began: also who attached under the wider rule is let be under that one again.
    let client = attach(laptop, &["--attach", widened.text()]);
    await_until("the client to be attached", SOON, || sessions(laptop)[0]["attached"] == true);
    cluster.edit(|text| text.replace(&after, &before));
    cluster.await_distributed();
    laptop.malai(["web01.company", "narrowed", "0"]).ok();
    assert_eq!(sessions(laptop)[0]["attached"], true, "{:?}", client.screen());
    laptop.malai(["sessions", "web01.company", "--end", widened.text()]).ok();
}

#[test]
fn sessions_that_nobody_is_attached_to_count_against_the_limit() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("web01").stop();
    cluster.home("web01").add_to_malai_toml("[limits]\nsessions_per_peer = 3");
    cluster.member("web01").start();
    let laptop = cluster.home("laptop");
    for _ in 0..3 {
        laptop.malai(["--detach", "web01.company", "sleep", "1000"]).ok();
    }
    laptop.malai(["--json", "--detach", "web01.company", "true"]).exits(255).fails_with("limit.reached");
    let id = sessions(laptop)[0]["session"].as_str().expect("is a text").to_owned();
    laptop.malai(["sessions", "web01.company", "--end", &id]).ok();
    laptop.malai(["--detach", "web01.company", "sleep", "1000"]).ok();
}

#[test]
fn hostile_titles_and_words_are_listed_escaped() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let script = r"printf '\033]2;evil\010\010\r\nfake line\007'; sleep 1000";
    laptop.malai(["--detach", "web01.company", "sh", "-c", script, "a\u{1b}[2Jb\nc"]).ok();
    await_until("the session", SOON, || sessions(laptop).len() == 1);
    let listed = laptop.malai(["sessions", "web01.company"]).ok();
    assert_eq!(listed.text().lines().count(), 2, "{listed:?}");
    let controls = |byte: &&u8| byte.is_ascii_control() && **byte != b'\n';
    assert_eq!(listed.stdout.iter().find(controls), None, "{listed:?}");
}

#[test]
fn a_link_that_drops_is_bridged_over() {
    let net = net();
    let Some((cluster, link)) = malai_testkit::Cluster::linked(&net) else {
        not_run("there is no IPv6 on loopback");
        return;
    };
    // One dials by itself, the other goes through its daemon.
    let both = [shell(cluster.home("laptop")), shell(cluster.home("desk"))];
    both.iter().for_each(|terminal| ask(terminal, 1));
    link.cut();
    both.iter().for_each(|terminal| terminal.type_text("echo said-$((2+0))\r"));
    for terminal in &both {
        // Longer than QUIC waits, so that the connection itself is lost.
        terminal.wait_within(LOST, "word of it", |screen| screen.shows("is lost"));
    }
    link.mend();
    for terminal in &both {
        terminal.wait_within(LOST, "the answer, and no word of a lost connection any more", |screen| {
            screen.shows("said-2") && !screen.shows("is lost")
        });
        ask(terminal, 3);
    }
}

#[test]
fn the_client_ends_when_its_session_is_gone_meanwhile() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let pids = net.path().join("pids");
    let mut terminal = cluster
        .home("laptop")
        .terminal([
            "-t",
            "web01.company",
            "sh",
            "-c",
            &format!("echo $PPID > {}; sleep 1000", pids.display()),
        ])
        .spawn();
    await_until("the session", SOON, || {
        std::fs::read_to_string(&pids).is_ok_and(|text| !text.trim().is_empty())
    });
    cluster.member("web01").daemon.take().expect("runs").kill();
    let host = std::fs::read_to_string(&pids).expect("reads");
    let host = host.trim().parse().expect("is a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(host), Signal::SIGKILL)
        .expect("kills the session's process");
    cluster.member("web01").start();
    assert_eq!(terminal.wait(), 255);
    assert!(terminal.screen().shows("error:"), "{:?}", terminal.screen());
}

#[test]
fn a_session_outlives_the_replacement_of_the_program_that_it_runs() {
    // The program as packages have it, replaced by another file of the same name.
    let dir = tempfile::tempdir().expect("a folder");
    let (program, newer) = (dir.path().join("malai"), dir.path().join("malai.newer"));
    std::fs::copy(env!("CARGO_BIN_EXE_malai"), &program).expect("copies");
    let net = malai_testkit::TestNet::of_program(&program);
    let mut cluster = open_cluster(&net);
    let terminal = shell(cluster.home("laptop"));
    ask(&terminal, 1);
    std::fs::copy(env!("CARGO_BIN_EXE_malai"), &newer).expect("copies");
    std::fs::rename(&newer, &program).expect("replaces");
    ask(&terminal, 2);
    cluster.member("web01").stop();
    cluster.member("web01").start();
    ask(&terminal, 3);
    // The daemon that was there before starts sessions, too: with what it runs itself.
    std::fs::copy(env!("CARGO_BIN_EXE_malai"), &newer).expect("copies");
    std::fs::rename(&newer, &program).expect("replaces");
    let another = shell(cluster.home("laptop"));
    ask(&another, 4);
    ask(&terminal, 5);
}

#[test]
fn a_session_outlives_a_change_of_its_clients_address_without_a_pause() {
    let net = net();
    let Some((cluster, link)) = malai_testkit::Cluster::linked(&net) else {
        return not_run("there is no IPv6 on loopback");
    };
    let both = [shell(cluster.home("laptop")), shell(cluster.home("desk"))];
    both.iter().for_each(|terminal| ask(terminal, 1));
    for number in 2..5 {
        link.change_addresses();
        for terminal in &both {
            ask(terminal, number);
            assert!(!terminal.screen().shows("is lost"), "{:?}", terminal.screen());
        }
    }
}

#[test]
fn a_program_that_nobody_is_attached_to_ends_when_it_was_idle_for_too_long_and_a_shell_does_not() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("web01").stop();
    cluster.home("web01").add_to_malai_toml("[limits]\nidle_session = \"1s\"");
    cluster.member("web01").start();
    let laptop = cluster.home("laptop");
    let shell = laptop.malai(["shell", "web01.company", "--detach"]).ok().text().trim().to_owned();
    let program = laptop.malai(["--detach", "web01.company", "sleep", "1000"]).ok().text().trim().to_owned();
    assert_ne!(shell, program);
    let is_there =
        |id: &str| sessions(laptop).iter().any(|found| found["session"] == id && found["ended"].is_null());
    await_until("the program's end", SOON, || !is_there(&program));
    assert!(is_there(&shell));
    laptop.malai(["sessions", "web01.company", "--end", &shell]).ok();
}

#[test]
fn a_client_that_was_killed_is_followed_at_once_by_one_that_names_no_session() {
    let net = net();
    let mut cluster = open_cluster(&net);
    // Without a daemon nobody tells the machine that the client is dead: it counts as attached for a while.
    cluster.member("laptop").daemon.take().expect("runs").kill();
    let terminal = shell(cluster.home("laptop"));
    terminal.type_text("mine=kept\r");
    ask(&terminal, 1);
    terminal.kill();
    let mut again = attach(cluster.home("laptop"), &["--attach"]);
    again.type_text("echo $mine-$((1+1))\r");
    again.wait_for_line("kept-2");
    again.type_text("exit 4\r");
    assert_eq!(again.wait(), 4);
}

#[test]
fn programs_that_ended_take_no_place_of_those_that_run_however_many_they_were() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("web01").stop();
    cluster.home("web01").add_to_malai_toml("[limits]\nsessions_per_peer = 3");
    cluster.member("web01").start();
    let laptop = cluster.home("laptop");
    let start = |program: &[&str]| {
        let output = laptop.malai(["--detach", "web01.company"].iter().chain(program)).ok();
        output.text().split_whitespace().next().expect("is a name").to_owned()
    };
    let running = start(&["sleep", "1000"]);
    // More than are kept: the oldest make room, and nobody is told that there is none.
    let short: Vec<String> = (0..72).map(|_| start(&["true"])).collect();
    let listed = sessions(laptop);
    let has = |session: &str| listed.iter().any(|listed| listed["session"] == session);
    assert!(has(&running) && has(&short[71]) && !has(&short[0]), "{listed:?}");
    laptop.malai(["sessions", "web01.company", "--end", &running]).ok();
}
