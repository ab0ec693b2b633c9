//! `malai run` and `malai ping`: many machines as real processes.

use malai_testkit::{Cluster, Output, Signal, TestNet, await_until};
use serde_json::Value;

use crate::{SOON, net};

/// A cluster where the laptop may run any program on so many machines.
fn fleet(net: &TestNet, machines: usize) -> Cluster {
    let names: Vec<String> = (1..=machines).map(|number| format!("web{number:02}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).chain(["laptop"]).collect();
    let rules: Vec<(&str, &str)> =
        names.iter().map(|name| (name.as_str(), "allow_from = \"laptop\"")).collect();
    Cluster::with_config(net, &all, &rules, "[group.few]\nmembers = \"web01,web02\"")
}

fn stdout_of<'o>(output: &'o Output, machine: &str) -> Vec<&'o str> {
    let prefix = format!("{machine} ");
    let lines = std::str::from_utf8(&output.stdout).expect("what is shown is text").lines();
    lines.filter_map(|line| line.strip_prefix(&prefix)?.split_once("| ").map(|(_, rest)| rest)).collect()
}

fn json_lines(output: &Output) -> Vec<Value> {
    output.text().lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect()
}

#[test]
fn twenty_machines_some_dead_some_unwilling_one_slow_one_hostile() {
    let net = net();
    let mut cluster = fleet(&net, 20);
    // web03 may be asked for another command, and only that.
    cluster.edit(|text| {
        let (before, after) = text.split_once("[machine.web03]\n").expect("web03 is there");
        let after = after.replacen("allow_from = \"laptop\"\n", "", 1);
        format!("{before}[machine.web03]\n{after}\n[machine.web03.command.uptime]\nallow_from = \"laptop\"\n")
    });
    cluster.await_distributed();
    let laptop = cluster.home("laptop").clone();
    await_until("the laptop to know", SOON, || laptop.malai(["web03.company", "uptime"]).code == Some(0));
    for name in ["web07", "web17"] {
        cluster.member(name).daemon.take().expect("runs").kill();
    }
    // On one machine output that would do harm, in whatever it is shown by, and a failure; another is slow.
    let script = format!(
        "if mkdir {0}/hostile 2>/dev/null; then printf '\\033]0;x\\007\\033[2J\\n\\377\\376\\n'; \
         head -c 1000000 /dev/zero | tr '\\0' x; printf '\\nno end' >&2; exit 3; fi; \
         if mkdir {0}/slow 2>/dev/null; then while [ ! -e {0}/gate ]; do sleep 0.05; done; echo late; \
         else echo fine; fi",
        net.path().display()
    );
    let words = ["run", "web*.company", "@few.company", "--", "sh", "-c", &script];
    let running = laptop.command(words).spawn();
    // Nobody waits for the slow one.
    await_until("what the others say", SOON, || {
        String::from_utf8_lossy(&running.stdout_so_far()).matches("| fine\n").count() == 15
            && running.stdout_so_far().iter().filter(|byte| **byte == b'x').count() > 1_000_000
    });
    std::fs::write(net.path().join("gate"), "").expect("opens the gate");
    let output = running.wait(SOON).exits(1);
    let shown = String::from_utf8(output.stdout.clone()).expect("what is shown is text");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "nothing acts on the terminal");
    assert!(
        shown.lines().all(|line| line.starts_with("web") && line.get(13..16) == Some(" | ")),
        "every line has its machine"
    );
    assert!(shown.lines().any(|line| line.ends_with("| \\u{1b}]0;x\\u{7}\\u{1b}[2J")), "{output:?}");
    assert!(shown.lines().any(|line| line.ends_with("| \u{fffd}\u{fffd}")));
    let longest = shown.lines().map(str::len).max().unwrap_or_default();
    assert!((60_000..70_000).contains(&longest), "a long line is cut: {longest}");
    assert_eq!(shown.matches('x').count() - 1, 1_000_000, "and all of it is there");
    assert!(shown.find("| late\n") > shown.rfind("| fine\n"), "{output:?}");
    let stderr = output.stderr_text();
    assert!(stderr.lines().any(|line| line.starts_with("web") && line.ends_with(" | no end")), "{stderr}");
    assert!(stderr.contains("web03.company | error: failed to run \"sh\""), "{stderr}");
    let summary = stderr.lines().last().expect("a summary");
    assert!(summary.starts_with("16 ok, 1 failed (web"), "{summary}");
    assert!(
        summary.contains(": status 3") && summary.ends_with("1 denied (web03), 2 unreachable (web07, web17)"),
        "{summary}"
    );
}

#[test]
fn targets_that_all_do_well_are_status_0_and_what_means_nothing_is_not_tried() {
    let net = net();
    let cluster = fleet(&net, 2);
    let laptop = cluster.home("laptop");
    let output =
        laptop.malai(["run", "--order", "@few.company", "web01.company", "--", "echo hello there"]).ok();
    assert_eq!(output.text(), "web01.company | hello there\nweb02.company | hello there");
    assert_eq!(output.stderr_text(), "2 ok\n");
    let output = laptop.malai(["run", "nothing*.company", "--", "true"]).exits(255);
    assert!(output.stderr_text().contains("hint: known here: web01.company, web02.company"), "{output:?}");
    laptop.malai(["--json", "run", "@nobody.company", "--", "true"]).fails_with("address.unknown_machine");
    laptop.malai(["run", "web*.company"]).exits(2);
    laptop.malai(["run", "-j", "0", "web*.company", "--", "true"]).exits(2);
    let output = laptop.command(["run", "--stdin", "web*.company", "--", "cat"]).stdin("same\n").run().ok();
    assert_eq!(
        (stdout_of(&output, "web01.company"), stdout_of(&output, "web02.company")),
        (vec!["same"], vec!["same"])
    );
}

#[test]
fn json_lines_tell_all_of_it_apart() {
    let net = net();
    let mut cluster = fleet(&net, 3);
    cluster.member("web03").daemon.take().expect("runs").kill();
    let laptop = cluster.home("laptop");
    let script = "echo out; printf 'a\\377' >&2; exit 2";
    let output = laptop.malai(["--json", "run", "web*.company", "--", "sh", "-c", script]).exits(1);
    assert!(output.stderr.is_empty(), "{output:?}");
    let lines = json_lines(&output);
    assert!(lines.iter().all(|line| line["schema"] == 1));
    let of = |event: &str, target: &str| {
        let found = lines.iter().find(|line| line["event"] == event && line["target"] == target);
        found.unwrap_or_else(|| panic!("no {event} of {target}: {output:?}")).clone()
    };
    of("start", "web01.company");
    assert_eq!(of("stdout", "web01.company")["text"], "out");
    let stderr = of("stderr", "web02.company");
    assert_eq!(
        (&stderr["text"], &stderr["base64"], &stderr["part"]),
        (&"a\u{fffd}".into(), &"Yf8=".into(), &"unended".into())
    );
    let end = of("end", "web01.company");
    assert_eq!(
        (&end["outcome"], &end["status"], &end["started"]),
        (&"failed".into(), &2.into(), &true.into())
    );
    let end = of("end", "web03.company");
    assert_eq!((&end["outcome"], &end["error"]["code"]), (&"unreachable".into(), &"p2p.unreachable".into()));
    let summary = lines.last().expect("a summary");
    assert_eq!(summary["event"], "summary");
    assert_eq!(
        (&summary["ok"], &summary["failed"], &summary["unreachable"]),
        (&0.into(), &2.into(), &1.into())
    );
}

#[test]
fn json_of_what_a_peer_says_does_nothing_to_a_terminal() {
    let net = net();
    let cluster = fleet(&net, 2);
    let laptop = cluster.home("laptop");
    let odd = "\u{9b}31m\u{7f}\u{202e}\u{e0041}é";
    let acts = |text: &str| {
        text.chars().any(|c| (c.is_control() && c != '\n') || odd.contains(c) && !c.is_ascii() && c != 'é')
    };
    let output = laptop.malai(["--json", "run", "web01.company", "--", "printf", odd]).exits(0);
    assert!(!acts(output.text()), "{output:?}");
    let lines = json_lines(&output);
    let said = lines.iter().find(|line| line["event"] == "stdout").expect("what it said");
    assert_eq!((&said["text"], said.get("base64")), (&odd.into(), None));
    // As a failure, in lines for people and in JSON.
    let name = format!("no-{odd}");
    let told = laptop.malai(["web01.company", &name]).exits(127).stderr_text();
    assert!(!acts(&told) && told.contains("no-\\"), "{told:?}");
    let output = laptop.malai(["--json", "web01.company", &name]).exits(127);
    assert!(!acts(&output.stderr_text()), "{output:?}");
    assert_eq!(output.error_code().as_deref(), Some("command.not_found"));
}

#[test]
fn ctrl_c_hangs_up_what_runs_and_a_summary_says_so() {
    let net = net();
    let cluster = fleet(&net, 2);
    let laptop = cluster.home("laptop");
    let pids = net.path().join("pids");
    let script = format!("echo $$ >> {}; echo begun; exec sleep 1000", pids.display());
    let running = laptop.command(["run", "web*.company", "--", "sh", "-c", &script]).spawn();
    await_until("both to begin", SOON, || {
        std::fs::read_to_string(&pids).unwrap_or_default().lines().count() == 2
    });
    running.wait_for_line(SOON, |line| line.ends_with("| begun"));
    running.signal(Signal::SIGINT);
    let output = running.wait(SOON).exits(130);
    assert_eq!(output.stderr_text().lines().last(), Some("2 cancelled (web01, web02)"), "{output:?}");
    let pids = std::fs::read_to_string(&pids).expect("is there");
    await_until("both to be gone", SOON, || {
        pids.lines().all(|pid| !std::path::Path::new("/proc").join(pid).exists())
    });
}

#[test]
fn a_reader_that_pauses_makes_the_programs_wait_and_one_that_goes_ends_them() {
    let net = net();
    let cluster = fleet(&net, 2);
    let laptop = cluster.home("laptop");
    let done = net.path().join("done");
    // In steps, so that it can be seen how far it is.
    let script = format!(
        "i=0; while echo $i > {0}-so-far.$$; [ $i -lt 1000 ]; do head -c 30000 /dev/zero | tr '\\0' '\\n'; \
         i=$((i + 1)); done; touch {0}",
        done.display()
    );
    let so_far = || {
        let files = std::fs::read_dir(net.path()).expect("lists").flatten();
        let named = files.filter(|file| file.file_name().to_string_lossy().starts_with("done-so-far."));
        named.map(|file| std::fs::read(file.path()).expect("reads")).collect::<Vec<_>>()
    };
    let running = laptop.command(["run", "web*.company", "--", "sh", "-c", &script]).hold_stdout().spawn();
    let (mut last, mut looks) = (Vec::new(), 0);
    await_until("the programs to stand still", SOON, || {
        let now = so_far();
        looks = if now == last && now.len() == 2 { looks + 1 } else { 0 };
        last = now;
        looks > 10
    });
    assert!(!done.exists(), "nobody takes the output");
    drop(running);
    // As `| head -1` does.
    let shell = format!(
        "{} run 'web*.company' -- yes | head -1 >/dev/null; echo ${{PIPESTATUS[0]}}",
        net.binary().display()
    );
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", &shell]).env("MALAI_HOME", laptop.path()).env("XDG_RUNTIME_DIR", net.runtime_dir());
    let output = bash.output().expect("runs bash");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "141");
}

#[test]
fn a_ping_tells_how_far_and_which_way() {
    let net = net();
    let mut cluster = fleet(&net, 2);
    let laptop = cluster.home("laptop").clone();
    let output = laptop.malai(["ping", "-c", "2", "-i", "10ms", "web01.company"]).ok();
    let lines: Vec<&str> = output.text().lines().collect();
    assert!(
        lines[0].starts_with("web01.company: 1: ") && lines[0].contains(" direct 127.0.0.1:"),
        "{output:?}"
    );
    assert!(lines.last().is_some_and(|line| line.starts_with("2 of 2 answered; ")), "{output:?}");
    let output = laptop.malai(["ping", "-c", "1", "laptop.company"]).ok();
    assert!(output.text().contains(", this device"), "{output:?}");
    cluster.member("web02").daemon.take().expect("runs").kill();
    let words = ["--json", "--connect-timeout", "300ms", "ping", "-c", "1", "web02.company"];
    let output = laptop.malai(words).exits(1);
    let lines = json_lines(&output);
    assert_eq!(
        (&lines[0]["event"], &lines[0]["error"]["code"]),
        (&"failed".into(), &"p2p.unreachable".into())
    );
    assert_eq!(
        (&lines[1]["event"], &lines[1]["sent"], &lines[1]["answered"]),
        (&"summary".into(), &1.into(), &0.into())
    );
    laptop.malai(["--json", "ping", "nobody.company"]).fails_with("address.unknown_machine");
}

#[test]
fn its_flags_hold_time_number_and_the_first_failure() {
    let net = net();
    let cluster = fleet(&net, 3);
    let laptop = cluster.home("laptop");
    let begun = std::time::Instant::now();
    let slow = ["--json", "run", "--timeout", "1s", "@few.company", "--", "sleep", "1000"];
    let lines = json_lines(&laptop.malai(slow).exits(1));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(lines.last().expect("a summary")["timed_out"], 2, "{lines:?}");

    // Each says how many of its like run, itself included.
    let running = net.path().join("running");
    std::fs::create_dir(&running).expect("makes a folder");
    let dir = running.display();
    let script = format!("touch {dir}/$$; ls {dir} | wc -l; sleep 0.3; rm {dir}/$$");
    let one_by_one = laptop.malai(["run", "-j", "1", "web*.company", "--", "sh", "-c", &script]).ok();
    for machine in ["web01.company", "web02.company", "web03.company"] {
        assert_eq!(stdout_of(&one_by_one, machine), ["1"], "{one_by_one:?}");
    }

    let first =
        ["--json", "run", "--fail-fast", "-j", "1", "web*.company", "--", "sh", "-c", "echo ran; exit 3"];
    let lines = json_lines(&laptop.malai(first).exits(1));
    let summary = lines.last().expect("a summary");
    assert_eq!((&summary["failed"], &summary["cancelled"]), (&1.into(), &2.into()), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line["text"] == "ran").count(), 1, "{lines:?}");
}
