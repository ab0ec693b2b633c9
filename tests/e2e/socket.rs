//! `malai.sock`: what goes through the daemon, and what happens when it cannot.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use malai_testkit::{Cluster, Signal, TestHome, await_until};
use serde_json::{Value, json};

use crate::commands::is_gone;
use crate::{SOON, Way, net, not_run, open_cluster};

/// A user of this system that is not the one who runs the tests.
const NOBODY: u32 = 65534;

fn status(home: &TestHome) -> Value {
    home.malai(["--json", "status"]).ok().json()
}

/// The connections that a home's daemon made to a machine.
fn connections_to(status: &Value, name: &str) -> usize {
    let connections = status["connections"].as_array().expect("is a list");
    connections.iter().filter(|view| view["name"] == name && view["direction"] == "out").count()
}

fn carried(status: &Value) -> usize {
    status["carried"].as_array().expect("is a list").len()
}

/// Asks a daemon one line, and returns the line that it answers; `None` if it closes the socket instead.
fn ask(socket: &std::path::Path, line: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).expect("connects");
    stream.set_read_timeout(Some(SOON)).expect("sets a deadline");
    stream.write_all(format!("{line}\n").as_bytes()).expect("writes");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("reads");
    (!answer.is_empty()).then(|| serde_json::from_str(&answer).expect("is JSON"))
}

/// Listens where a home's daemon would, and answers every line as the function says.
fn fake_daemon(home: &TestHome, answer: impl Fn(&Value) -> Value + Send + 'static) {
    let path = home.path().join("malai.sock");
    // What a killed daemon left.
    _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("binds");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepts");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("reads");
            if line.is_empty() {
                // Only a look whether somebody listens.
                continue;
            }
            let request = serde_json::from_str(&line).expect("is JSON");
            stream.write_all(format!("{}\n", answer(&request)).as_bytes()).expect("answers");
        }
    });
}

#[test]
fn commands_share_the_daemons_connection_and_status_shows_them() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let mut running: Vec<_> =
        (0..2).map(|_| laptop.command(["web01.company", "cat"]).open_stdin().spawn()).collect();
    for running in &mut running {
        running.write("here\n");
        running.wait_for_line(SOON, |line| line == "here");
    }
    let seen = status(laptop);
    assert_eq!((connections_to(&seen, "web01"), carried(&seen)), (1, 2), "{seen}");
    let views = seen["connections"].as_array().expect("is a list");
    let used = views.iter().find(|view| view["name"] == "web01" && view["direction"] == "out");
    let used = used.expect("is listed");
    assert_eq!((&used["streams"], &used["relayed"]), (&json!(2), &json!(false)), "{seen}");
    assert!(used["sent"].as_u64() > Some(1000) && used["received"].as_u64() > Some(1000), "{seen}");
    assert!(used["since"].is_string() && used["rtt_us"].as_u64() > Some(0), "{seen}");
    // The same from the other end.
    let theirs = status(cluster.home("web01"));
    let views = theirs["connections"].as_array().expect("is a list");
    let caller = |view: &&Value| view["name"] == "laptop" && view["direction"] == "in";
    assert_eq!(views.iter().find(caller).expect("is listed")["streams"], 2, "{theirs}");
    let pids: Vec<u64> = running.iter().map(|running| running.pid().into()).collect();
    for view in seen["carried"].as_array().expect("is a list") {
        assert_eq!((&view["name"], &view["cluster"]), (&json!("web01"), &json!("company")));
        if cfg!(target_os = "linux") {
            assert!(pids.contains(&view["pid"].as_u64().expect("is a number")), "{seen}");
        }
    }
    assert!(laptop.malai(["status"]).ok().text().contains("carried for commands:"));
    for mut running in running {
        running.close_stdin();
        running.wait(SOON).ok();
    }
    await_until("the end of both streams", SOON, || carried(&status(laptop)) == 0);
    assert_eq!(connections_to(&status(laptop), "web01"), 1, "the connection stays warm");
}

#[test]
fn a_command_outlives_no_client_and_the_daemon_outlives_every_command() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let running = laptop.command(["web01.company", "sh", "-c", "echo $$; exec sleep 1000"]).spawn();
    let pid = running.wait_for_line(SOON, |line| !line.is_empty());
    running.kill();
    await_until("the end of what the client started", SOON, || is_gone(&pid));
    await_until("the end of its stream", SOON, || carried(&status(laptop)) == 0);
    Way::ThroughDaemon.assert(laptop);
}

#[test]
fn a_stopping_daemon_carries_on_what_it_carries_until_that_ends() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let mut running = cluster.home("laptop").command(["web01.company", "cat"]).open_stdin().spawn();
    running.write("before\n");
    running.wait_for_line(SOON, |line| line == "before");
    let daemon = cluster.member("laptop").daemon.take().expect("runs");
    daemon.signal(Signal::SIGTERM);
    let socket = cluster.home("laptop").path().join("malai.sock");
    await_until("the end of the socket", SOON, || !socket.exists());
    running.write("after\n");
    running.wait_for_line(SOON, |line| line == "after");
    // New ones find another way meanwhile.
    Way::Direct.assert(cluster.home("laptop"));
    running.close_stdin();
    running.wait(SOON).ok();
    daemon.wait(SOON).ok();
}

#[test]
fn a_daemon_that_does_not_run_on_is_gone_without() {
    let net = net();
    let mut cluster = open_cluster(&net);
    Way::ThroughDaemon.assert(cluster.home("laptop"));
    let daemon = cluster.member("laptop").daemon.take().expect("runs");
    daemon.signal(Signal::SIGSTOP);
    // Its socket still accepts: the kernel does that.
    Way::Direct.assert(cluster.home("laptop"));
    let begun = std::time::Instant::now();
    cluster.home("laptop").malai(["--json", "status"]).exits(1).fails_with("daemon.unanswered");
    assert!(begun.elapsed() < Duration::from_secs(25));
    let ran = net.path().join("ran");
    let script = format!("echo once >> {}", ran.display());
    cluster.home("laptop").malai(["web01.company", "sh", "-c", &script]).ok();
    daemon.signal(Signal::SIGCONT);
    Way::ThroughDaemon.assert(cluster.home("laptop"));
    daemon.stop();
    // What waited for it on the socket was taken back: nothing runs twice.
    assert_eq!(std::fs::read_to_string(&ran).expect("ran"), "once\n");
}

#[test]
fn what_a_daemon_could_not_do_is_told_as_if_done_here() {
    let net = net();
    let added = [("web01", "allow_from = \"laptop\""), ("db01", "allow_from = \"web01\"")];
    let mut cluster = Cluster::with_config(&net, &["web01", "db01", "laptop"], &added, "");
    cluster.member("web01").stop();
    let id = cluster.id52("db01");
    let asked = [
        (&["web02.company", "true"][..], "address.unknown_machine"),
        (&["web01.compny", "true"], "address.unknown_cluster"),
        (&["web01", "true"], "address.invalid"),
        (&["--connect-timeout", "300ms", "web01.company", "true"], "p2p.unreachable"),
    ];
    let errors = |cluster: &Cluster| -> Vec<Value> {
        let one = |(words, code): &(&[&str], &str)| {
            let output = cluster.home("laptop").malai([&["--json"], *words].concat()).exits(255);
            let output = output.fails_with(code);
            serde_json::from_str(&output.stderr_text()).expect("is JSON")
        };
        asked.iter().map(one).collect()
    };
    let through = errors(&cluster);
    // A machine that knows this one and lets it do nothing refuses it at the handshake.
    cluster.home("laptop").malai(["--json", &format!("{id}.company"), "true"]).exits(255);
    cluster.member("laptop").stop();
    let direct = errors(&cluster);
    assert_eq!(through, direct);
}

#[test]
fn a_stranger_to_the_machine_is_told_so_through_the_daemon_too() {
    let net = net();
    let cluster = open_cluster(&net);
    let other = Cluster::named(&net, "other", "other-manager", &["stranger"]);
    let id = cluster.id52("web01");
    other.edit(|text| format!("{text}\n[machine.web01]\nid52 = \"{id}\"\nallow_from = \"stranger\"\n"));
    let stranger = other.home("stranger");
    await_until("the stranger to know of web01", SOON, || {
        stranger.read("clusters/other/machine.toml").is_some_and(|text| text.contains(&id))
    });
    for _ in 0..3 {
        let output = stranger.malai(["-v", "--json", "web01.other", "true"]).exits(255);
        assert!(!output.stderr_text().contains("dialled directly"), "{output:?}");
        output.fails_with("p2p.not_admitted");
    }
}

#[test]
fn what_is_to_run_goes_to_the_daemon_with_the_request_for_its_stream_where_nothing_else_can_be_meant() {
    let net = net();
    let rule = "allow_from = \"laptop\"";
    let added = [("web01", rule), ("laptop", rule)];
    let cluster = malai_testkit::Cluster::with_config(&net, &["web01", "laptop"], &added, "");
    let laptop = cluster.home("laptop");
    laptop.add_to_malai_toml("[aliases]\nweb = \"web01.company\"\ngreet = \"web01.company echo said\"");
    laptop.malai(["rescan"]).ok();
    let asked_first = |words: &[&str]| {
        let words = ["-v"].iter().chain(words);
        let output = laptop.malai(words).ok();
        assert_eq!(output.text(), "said it", "{output:?}");
        assert!(output.stderr_text().contains("through the daemon"), "{output:?}");
        output.stderr_text().contains("asked first")
    };
    assert!(!asked_first(&["web01.company", "echo", "said", "it"]));
    assert!(!asked_first(&["web", "echo", "said", "it"]));
    assert!(asked_first(&["laptop.company", "echo", "said", "it"]), "this device answers it by itself");
    assert!(asked_first(&["greet", "it"]), "an alias may bring words of its own");
}

#[test]
fn an_older_daemon_is_gone_around_and_asked_for_what_it_knows() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("laptop").stop();
    let laptop = cluster.home("laptop");
    let known = laptop.malai(["--json", "info"]).ok().json();
    let info = known.clone();
    fake_daemon(laptop, move |request| match request["method"].as_str() {
        Some("info") => {
            let mut reply = info.clone();
            reply["reply"] = json!("info");
            reply["version"] = json!("0.0.1-older");
            reply
        }
        // As the first version says it.
        _ => json!({
            "schema": 1, "reply": "failed", "code": "wire.unsupported",
            "message": "understand the request: the daemon is malai 0.0.1: unknown variant",
            "hint": "restart the daemon with the same version of malai",
        }),
    });
    Way::Direct.assert(laptop);
    let told = laptop.malai(["-v", "web01.company", "true"]).ok();
    assert!(told.stderr_text().contains("of another version"), "{told:?}");
    let seen = laptop.malai(["--json", "info"]).ok().json();
    assert_eq!(seen["version"], "0.0.1-older");
    assert_eq!(seen["clusters"], known["clusters"]);
    let refused = laptop.malai(["--json", "sync"]).exits(1).fails_with("wire.unsupported");
    assert!(refused.stderr_text().contains("restart the daemon"), "{refused:?}");
}

#[test]
fn a_newer_daemon_is_gone_around_and_says_what_to_do() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("laptop").stop();
    let laptop = cluster.home("laptop");
    fake_daemon(laptop, |_| json!({ "schema": 99, "reply": "something-later", "more": [1, 2] }));
    Way::Direct.assert(laptop);
    let refused = laptop.malai(["--json", "info"]).exits(1).fails_with("daemon.unanswered");
    assert!(refused.stderr_text().contains("restart the daemon"), "{refused:?}");
}

#[test]
fn a_daemon_answers_what_it_knows_and_refuses_the_rest() {
    let net = net();
    let cluster = open_cluster(&net);
    let socket = cluster.home("laptop").path().join("malai.sock");
    let answer = ask(&socket, r#"{"schema":1,"method":"status","later":"field"}"#).expect("answers");
    assert_eq!((&answer["schema"], &answer["reply"]), (&json!(1), &json!("status")));
    for line in [
        r#"{"schema":99,"method":"status"}"#,
        r#"{"schema":1,"method":"what-comes-later","x":1}"#,
        r#"{"method":"status"}"#,
        "[]",
        "\u{1b}[2J",
    ] {
        let answer = ask(&socket, line).expect("answers");
        assert_eq!(answer["code"], "wire.unsupported", "{line}: {answer}");
    }
    // Who only connects, or ends in the middle of a line, keeps nobody waiting.
    let _idle = UnixStream::connect(&socket).expect("connects");
    let mut half = UnixStream::connect(&socket).expect("connects");
    half.write_all(b"{\"schema\"").expect("writes");
    half.shutdown(std::net::Shutdown::Write).expect("shuts");
    assert_eq!(half.read(&mut [0; 1]).expect("is closed"), 0);
    Way::ThroughDaemon.assert(cluster.home("laptop"));
}

#[test]
fn what_is_asked_of_this_device_passes_the_gate_and_is_seen_by_the_daemon() {
    let net = net();
    let added = [("web01", "allow_from = \"laptop,web01\"")];
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &added, "");
    let web01 = cluster.home("web01");
    assert_eq!(web01.malai(["web01.company", "echo", "here"]).ok().text(), "here");
    let words = ["--json", "web01.company", "sh", "-c", "echo $$; exec sleep 1000"];
    let running = web01.command(words).spawn();
    let pid = running.wait_for_line(SOON, |line| !line.is_empty());
    assert_eq!(status(web01)["running"], 1);
    let log = web01.read("malai.log").expect("has a log");
    let own = cluster.id52("web01");
    assert!(log.lines().any(|line| line.contains("a command starts") && line.contains(&own)), "{log}");
    cluster.edit(|text| text.replace("laptop,web01", "laptop"));
    running.wait(SOON).exits(255).fails_with("acl.revoked");
    await_until("the end of the program", SOON, || is_gone(&pid));
    let denied = web01.malai(["--json", "web01.company", "echo", "here"]).exits(255).fails_with("acl.denied");
    // It is the owner's own device: why, is no secret.
    assert!(denied.stderr_text().contains("on this machine, allow_from"), "{denied:?}");
}

/// Runs a program of Perl as another user. `None`, said aloud, where that cannot be done.
fn as_another_user(script: &str, socket: &std::path::Path) -> Option<Command> {
    use std::os::unix::process::CommandExt;
    if !nix::unistd::Uid::effective().is_root() {
        not_run("only root can become another user");
        return None;
    }
    let mut command = Command::new("perl");
    command.args(["-MIO::Socket::UNIX", "-e", script]).arg(socket).uid(NOBODY).gid(NOBODY);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    Some(command)
}

#[test]
fn another_user_is_refused_on_the_socket_whatever_its_mode() {
    let net = net();
    let cluster = open_cluster(&net);
    let home = cluster.home("laptop");
    let socket = home.path().join("malai.sock");
    let script = "$SIG{PIPE} = 'IGNORE'; my $s = IO::Socket::UNIX->new($ARGV[0]) or die \"connect: $!\"; \
        print $s qq({\"schema\":1,\"method\":\"info\"}\\n); $s->flush; my $line = <$s>; \
        print defined $line ? \"answered\" : \"refused\";";
    let Some(mut command) = as_another_user(script, &socket) else { return };
    for (path, mode) in [(net.path(), 0o711), (home.path(), 0o711), (socket.as_path(), 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("loosens the mode");
    }
    let output = command.output().expect("runs perl");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "refused", "{output:?}");
    let log = home.read("malai.log").expect("has a log");
    assert!(log.contains("refused another user on the socket uid=65534"), "{log}");
    // Its own user is answered all the same.
    assert!(ask(&socket, r#"{"schema":1,"method":"info"}"#).is_some());
}

#[test]
fn a_socket_of_another_user_is_told_nothing() {
    let net = net();
    let cluster = open_cluster(&net);
    let dir = net.path().join("theirs");
    std::fs::create_dir(&dir).expect("makes a folder");
    for (path, mode) in [(net.path(), 0o711), (dir.as_path(), 0o777)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("loosens the mode");
    }
    let socket = dir.join("malai.sock");
    let script = "my $l = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 8) or die \"listen: $!\"; \
        $| = 1; print \"listens\\n\"; my $s = $l->accept; my $line = <$s>; \
        print defined $line ? \"told: $line\" : \"told nothing\\n\";";
    let Some(mut command) = as_another_user(script, &socket) else { return };
    let mut child = command.spawn().expect("runs perl");
    let mut lines = BufReader::new(child.stdout.take().expect("has a stdout")).lines();
    assert_eq!(lines.next().expect("a line").expect("reads"), "listens");
    let laptop = cluster.home("laptop");
    let command = laptop.command(["--json", "web01.company", "true"]).env("MALAI_SSH_AGENT", &socket);
    command.run().exits(255).fails_with("daemon.unanswered");
    assert_eq!(lines.next().expect("a line").expect("reads"), "told nothing");
    child.wait().expect("ends");
}

/// Says something to a `cat` and hears it.
#[track_caller]
fn echo(running: &mut malai_testkit::Running, text: &str) {
    running.write(format!("{text}\n"));
    running.wait_for_line(SOON, |line| line == text);
}

#[test]
fn a_command_survives_a_killed_daemon_and_goes_on_without_one() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let mut running = cluster.home("laptop").command(["web01.company", "cat"]).open_stdin().spawn();
    echo(&mut running, "before");
    cluster.member("laptop").daemon.take().expect("runs").kill();
    echo(&mut running, "after");
    Way::Direct.assert(cluster.home("laptop"));
    running.close_stdin();
    let output = running.wait(SOON).ok();
    assert_eq!(output.text(), "before\nafter");
}

#[test]
fn a_command_survives_restarts_of_the_daemon() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let mut running = cluster.home("laptop").command(["web01.company", "cat"]).open_stdin().spawn();
    let mut said = vec!["first".to_owned()];
    echo(&mut running, "first");
    assert_eq!(carried(&status(cluster.home("laptop"))), 1);
    for round in 0..4 {
        let daemon = cluster.member("laptop").daemon.take().expect("runs");
        if round % 2 == 0 {
            daemon.kill();
        } else {
            // Asked twice it waits no longer for what it carries.
            daemon.signal(Signal::SIGTERM);
            let socket = cluster.home("laptop").path().join("malai.sock");
            await_until("the end of the socket", SOON, || !socket.exists());
            daemon.signal(Signal::SIGTERM);
            daemon.wait(SOON).ok();
        }
        cluster.member("laptop").start();
        said.push(format!("round {round}"));
        echo(&mut running, &said[said.len() - 1]);
    }
    running.close_stdin();
    assert_eq!(running.wait(SOON).ok().text(), said.join("\n"));
}
