//! `malai doctor`, completions, manual pages, aliases.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use malai_testkit::{Cluster, TestHome, TestNet, await_until};
use serde_json::Value;

use crate::{SOON, net, not_run, open_cluster};

/// What the doctor finds: severity, what it is about, and all of it.
fn findings(home: &TestHome) -> Vec<(String, String, Value)> {
    let output = home.malai(["--json", "doctor"]);
    let found = output.json();
    let list = found["findings"].as_array().expect("a list").clone();
    let of = |finding: &Value, key: &str| finding[key].as_str().expect("a text").to_owned();
    let all: Vec<_> =
        list.into_iter().map(|finding| (of(&finding, "severity"), of(&finding, "about"), finding)).collect();
    let status = if all.iter().any(|(severity, ..)| severity == "problem") { 1 } else { 0 };
    output.exits(status);
    all
}

/// The one finding of that severity about that, or the test fails.
#[track_caller]
fn finding(home: &TestHome, severity: &str, about: &str) -> Value {
    let all = findings(home);
    let mut matching = all.iter().filter(|(how, what, _)| (how.as_str(), what.as_str()) == (severity, about));
    match (matching.next(), matching.next()) {
        (Some((.., finding)), None) => finding.clone(),
        _ => panic!("not one {severity} about {about}: {all:#?}"),
    }
}

fn text<'v>(finding: &'v Value, key: &str) -> &'v str {
    finding[key].as_str().unwrap_or_else(|| panic!("no {key} in {finding}"))
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("sets the mode");
}

#[test]
fn the_doctor_finds_nothing_wrong_with_a_home_that_works() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let all = findings(laptop);
    assert!(
        all.iter().all(|(severity, _, finding)| severity == "ok" && finding.get("cure").is_none()),
        "{all:#?}"
    );
    for about in ["home", "config", "daemon", "clock", "network", "relays", "disk", "limits", "machines"] {
        assert!(all.iter().any(|(_, of, _)| of == about), "nothing about {about}: {all:#?}");
    }
    let machines = finding(laptop, "ok", "machines");
    assert!(text(&machines, "what").starts_with("1 answer: web01.company ("), "{machines}");
    let shown = laptop.malai(["doctor"]).ok();
    assert_eq!(shown.text().lines().last(), Some("problems: 0, warnings: 0"));
}

#[test]
fn the_doctor_finds_loose_modes_and_broken_files_each_with_its_cure() {
    let net = net();
    let mut cluster = open_cluster(&net);
    cluster.member("laptop").stop();
    let laptop = cluster.home("laptop").clone();
    assert_eq!(text(&finding(&laptop, "warning", "daemon"), "cure"), "malai daemon");
    // Keys.
    let key = laptop.in_cluster("company", "machine.private-key");
    set_mode(&key, 0o644);
    let found = finding(&laptop, "problem", "keys");
    assert_eq!(
        (text(&found, "code"), text(&found, "cure")),
        ("home.loose_permissions", &*format!("chmod 600 {}", key.display()))
    );
    set_mode(&key, 0o600);
    let kept = std::fs::read(&key).expect("reads");
    std::fs::write(&key, "no key").expect("writes");
    assert_eq!(text(&finding(&laptop, "problem", "keys"), "code"), "key.invalid");
    std::fs::remove_file(&key).expect("removes");
    assert_eq!(text(&finding(&laptop, "problem", "keys"), "code"), "key.missing");
    std::fs::write(&key, kept).expect("writes");
    set_mode(&key, 0o600);
    // The home and what is in it.
    set_mode(&laptop.path().join("malai.toml"), 0o644);
    assert_eq!(
        text(&finding(&laptop, "warning", "home"), "cure"),
        format!("chmod -R go= {}", laptop.path().display())
    );
    set_mode(&laptop.path().join("malai.toml"), 0o600);
    set_mode(laptop.path(), 0o755);
    assert_eq!(
        text(&finding(&laptop, "problem", "home"), "cure"),
        format!("chmod 700 {}", laptop.path().display())
    );
    set_mode(laptop.path(), 0o700);
    // malai.toml.
    laptop.add_to_malai_toml("[limits]\nsesions = 1\n");
    let all = findings(&laptop);
    let of_file = all.iter().find(|(.., finding)| text(finding, "what").contains("malai.toml:"));
    let (severity, about, found) = of_file.unwrap_or_else(|| panic!("nothing about the file: {all:#?}"));
    assert_eq!((severity.as_str(), about.as_str()), ("problem", "config"));
    assert!(text(found, "what").contains("sesions"), "{found}");
    // A config that somebody edited is not what the manager signed.
    laptop.write(
        "malai.toml",
        "[network]\nrelays = \"none\"\ndiscovery = [\"local\"]\nbind = \"127.0.0.1:0\"\n",
    );
    let config = laptop.in_cluster("company", "machine.toml");
    let kept = std::fs::read_to_string(&config).expect("reads");
    std::fs::write(&config, kept.replace("web01", "web02")).expect("writes");
    assert_eq!(text(&finding(&laptop, "problem", "config"), "code"), "config.forged");
    std::fs::write(&config, kept).expect("writes");
    assert!(findings(&laptop).iter().all(|(severity, ..)| severity != "problem"));
}

#[test]
fn the_doctor_finds_dead_machines_and_daemons_edits_and_deliveries_that_wait() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let laptop = cluster.home("laptop").clone();
    // A socket that a killed daemon left.
    cluster.member("laptop").daemon.take().expect("runs").kill();
    let found = finding(&laptop, "warning", "daemon");
    assert!(text(&found, "what").contains("was left by one that was killed"), "{found}");
    // A daemon whose socket somebody removed.
    let daemon = laptop.start_daemon();
    std::fs::remove_file(laptop.path().join("malai.sock")).expect("removes");
    let found = finding(&laptop, "problem", "daemon");
    assert_eq!(text(&found, "cure"), format!("kill {} && malai daemon", daemon.pid()));
    daemon.stop();
    // A machine that is down.
    cluster.member("web01").stop();
    let found = finding(&laptop, "warning", "machines");
    assert_eq!(text(&found, "code"), "p2p.unreachable");
    assert!(text(&found, "what").contains("web01.company"), "{found}");
    // At the manager: an edit that is not in force, and a delivery that waits.
    let manager = cluster.manager();
    manager.edit_cluster_toml("company", |text| {
        text.replace("allow_from = \"laptop\"", "allow_from = \"laptop,web01\"")
    });
    let warnings = |home: &TestHome| -> Vec<String> {
        let all = findings(home);
        let of = all
            .iter()
            .filter(|(severity, about, _)| (severity.as_str(), about.as_str()) == ("warning", "config"));
        of.map(|(.., finding)| text(finding, "what").to_owned()).collect()
    };
    assert!(warnings(manager).iter().any(|what| what.contains("was edited, and is not in force")));
    cluster.rescan();
    await_until("the delivery to wait", SOON, || {
        warnings(manager)
            .iter()
            .any(|what| what.contains("do not have their newest config") && what.contains("web01"))
    });
    manager.edit_cluster_toml("company", |text| format!("{text}\n[machine.web01\n"));
    let all = findings(manager);
    let found =
        all.iter().find(|(severity, about, _)| (severity.as_str(), about.as_str()) == ("problem", "config"));
    assert!(found.is_some(), "{all:#?}");
}

#[test]
fn the_doctor_looks_at_what_is_no_home_and_at_one_that_waits_and_at_limits() {
    let net = net();
    let home = TestHome::new(&net, "one");
    let nowhere = net.path().join("nowhere");
    let output = home.malai(["--json", "--home", &nowhere.to_string_lossy(), "doctor"]).ok();
    assert_eq!(output.json()["findings"][0]["code"], "home.storage");
    assert!(!nowhere.exists(), "it changes nothing");
    let manager = TestHome::new(&net, "manager");
    let root = manager.malai(["cluster", "init", "company"]).ok();
    home.malai(["machine", "init", root.text(), "company"]).ok();
    assert_eq!(text(&finding(&home, "warning", "config"), "cure"), "malai sync company");
    let script = format!("ulimit -n 100; exec {} --json doctor", net.binary().display());
    let mut sh = Command::new("sh");
    sh.args(["-c", &script]).env("MALAI_HOME", home.path()).env("XDG_RUNTIME_DIR", net.runtime_dir());
    let output = sh.output().expect("runs sh");
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = found["findings"].as_array().expect("a list");
    assert!(
        list.iter().any(|finding| finding["about"] == "limits" && finding["severity"] == "problem"),
        "{found}"
    );
}

#[test]
fn an_alias_that_a_command_hides_is_told_of_and_the_command_wins() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    // A command that is on no list of reserved words, as one of a later version will be.
    laptop.add_to_malai_toml(
        "[aliases]\ncomplete-words = \"web01.company echo alias\"\nweb = \"web01.company\"\n",
    );
    let output = laptop.malai(["complete-words", "--", "rescan", "--ch"]).ok();
    assert!(output.text().starts_with("--check"), "{output:?}");
    let told = "the alias \"complete-words\" is hidden by the command `malai complete-words`";
    assert_eq!(output.stderr_text().matches(told).count(), 1, "{output:?}");
    assert!(laptop.malai(["rescan", "--check"]).ok().stderr_text().contains(told));
    let found = finding(laptop, "warning", "aliases");
    assert_eq!(text(&found, "what"), told);
    // Other words are left alone.
    assert!(laptop.malai(["info"]).ok().stderr.is_empty());
    let home = TestHome::new(&net, "two");
    home.add_to_malai_toml("[aliases]\nrun = \"web01.company\"\n");
    home.malai(["--json", "rescan", "--check"]).fails_with("config.invalid");
}

#[test]
fn an_alias_s_words_stand_before_what_was_typed() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    laptop.add_to_malai_toml("[aliases]\nweb = \"web01.company\"\nlist = \"web01.company printf [%s]\"\n");
    laptop.malai(["rescan"]).ok();
    assert_eq!(laptop.malai(["web", "printf", "<%s>", "-f", "x"]).ok().text(), "<-f><x>");
    assert_eq!(laptop.malai(["list", "-f", "a b"]).ok().text(), "[-f][a b]");
    assert_eq!(laptop.malai(["run", "web", "--", "echo", "hi"]).ok().text(), "web01.company | hi");
    laptop.malai(["--json", "run", "list", "--", "true"]).fails_with("address.invalid");
}

/// Runs a script with this home's malai first in the PATH.
fn in_shell(net: &TestNet, home: &TestHome, shell: &str, script: &str) -> String {
    let bin = net.path().join("bin");
    if !bin.exists() {
        std::fs::create_dir(&bin).expect("makes a folder");
        std::os::unix::fs::symlink(net.binary(), bin.join("malai")).expect("links malai");
    }
    let mut command = Command::new(shell);
    command
        .args(["-c", script])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("HOME", net.path())
        .env("MALAI_HOME", home.path())
        .env("XDG_RUNTIME_DIR", net.runtime_dir());
    let output = command.output().unwrap_or_else(|error| panic!("runs {shell}: {error}"));
    assert!(output.stderr.is_empty(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn is_there(program: &str) -> bool {
    ["/usr/bin", "/bin", "/usr/local/bin"].iter().any(|folder| Path::new(folder).join(program).exists())
}

/// Says whether a shell is there, and if not that its test is not run; on CI it has to be.
fn has_shell(shell: &str) -> bool {
    if is_there(shell) {
        return true;
    }
    not_run(&format!("{shell} is not installed"));
    false
}

/// A laptop that may reach two machines, and knows a group and an alias.
fn with_words(net: &TestNet) -> Cluster {
    let rule = "allow_from = \"laptop\"";
    let machines = ["web01", "web02", "laptop"];
    let cluster = Cluster::with_config(
        net,
        &machines,
        &[("web01", rule), ("web02", rule)],
        "[group.web]\nmembers = \"web01\"",
    );
    cluster.home("laptop").add_to_malai_toml("[aliases]\nwebby = \"web01.company\"\n");
    cluster
}

#[test]
fn bash_completes_commands_machines_groups_and_options() {
    if !has_shell("bash") {
        return;
    }
    let net = net();
    let cluster = with_words(&net);
    let laptop = cluster.home("laptop");
    let complete = |line: &str| {
        let script = format!(
            "eval \"$(malai completions bash)\"; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; \
             complete -p malai >/dev/null; _malai; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let out = in_shell(&net, laptop, "bash", &script);
        out.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("malai web"), ["webby", "web01.company", "web02.company"]);
    assert_eq!(complete("malai resc"), ["rescan"]);
    assert_eq!(complete("malai exec web02"), ["web02.company"]);
    assert_eq!(complete("malai ping "), ["webby", "laptop.company", "web01.company", "web02.company"]);
    assert_eq!(complete("malai run --fail-fast web0"), ["web01.company", "web02.company"]);
    assert_eq!(complete("malai rescan --ch"), ["--check"]);
    assert_eq!(complete("malai sync c"), ["company"]);
    assert_eq!(complete("malai completions fi"), ["fish"]);
    // Bash breaks the word behind the @ and puts in what follows it.
    assert_eq!(complete("malai run @"), ["web.company"]);
    assert_eq!(complete("malai web01.company "), [""; 0]);
    // And bash knows whom to call.
    let script = "eval \"$(malai completions bash)\"; complete -p malai";
    assert_eq!(in_shell(&net, laptop, "bash", script).trim(), "complete -F _malai malai");
}

#[test]
fn fish_completes_commands_machines_groups_and_options() {
    if !has_shell("fish") {
        return;
    }
    let net = net();
    let cluster = with_words(&net);
    let laptop = cluster.home("laptop");
    let complete = |line: &str| {
        let out =
            in_shell(&net, laptop, "fish", &format!("malai completions fish | source; complete -C '{line}'"));
        out.lines().map(|line| line.split('\t').next().unwrap_or(line).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(complete("malai web"), ["web01.company", "web02.company", "webby"]);
    assert_eq!(complete("malai resc"), ["rescan"]);
    assert_eq!(complete("malai exec web02"), ["web02.company"]);
    assert_eq!(complete("malai ping "), ["laptop.company", "web01.company", "web02.company", "webby"]);
    assert_eq!(complete("malai run --fail-fast web0"), ["web01.company", "web02.company"]);
    assert_eq!(complete("malai rescan --ch"), ["--check"]);
    assert_eq!(complete("malai run @"), ["@web.company"]);
    assert_eq!(complete("malai web01.company "), [""; 0]);
    assert_eq!(complete("malai cp web02"), ["web02.company:"]);
    let bin = net.path().join("bin").display().to_string();
    assert_eq!(complete(&format!("malai --home {}", &bin[..bin.len() - 1])), [format!("{bin}/")]);
    // What it is stands beside it.
    let script = "malai completions fish | source; complete -C 'malai web02'";
    assert_eq!(in_shell(&net, laptop, "fish", script), "web02.company\tmachine\n");
}

#[test]
fn zsh_completes_as_the_key_is_pressed() {
    if !has_shell("zsh") {
        return;
    }
    let net = net();
    let cluster = with_words(&net);
    let laptop = cluster.home("laptop");
    in_shell(&net, laptop, "sh", "malai --version");
    let path = format!("{}:/usr/bin:/bin", net.path().join("bin").display());
    let zsh = laptop.terminal_of("zsh", ["-f", "-i"]).env("PATH", path).env("PS1", "> ").spawn();
    zsh.wait_for_line(">");
    zsh.type_text("autoload -U compinit; compinit -u -D; source <(malai completions zsh); echo ready\r");
    zsh.wait_for_line("ready");
    let press = |typed: &str| {
        // Ctrl-U and Ctrl-L: an empty line on an empty screen.
        zsh.type_text("\x15\x0c");
        zsh.wait_for("an empty screen", |screen| screen.text() == ">");
        zsh.type_text(format!("{typed}\t"));
    };
    for (typed, completed) in [
        ("malai web02", "malai web02.company x"),
        ("malai resc", "malai rescan x"),
        ("malai exec web02", "malai exec web02.company x"),
        ("malai rescan --ch", "malai rescan --check x"),
        ("malai run @", "malai run @web.company x"),
        ("malai sync c", "malai sync company x"),
        // A path there follows at once, and one here is the shell's to complete.
        ("malai cp web02", "malai cp web02.company:x"),
        ("malai --home ./b", "malai --home ./bin/x"),
        // Nothing is known of what follows an address.
        ("malai web01.company ", "malai web01.company x"),
    ] {
        press(typed);
        zsh.type_text("x");
        zsh.wait_for_line(&format!("> {completed}"));
    }
    press("malai ping web");
    let shown = zsh.wait_for("a list", |screen| screen.shows("web02.company") && screen.shows("webby"));
    assert!(
        shown.lines.iter().any(|line| line.contains("web01.company") && line.contains("-- machine")),
        "{shown:?}"
    );
    // And malai by another way than the PATH.
    zsh.type_text("\x15\x0ccd bin; compdef _malai ./malai\r");
    press("./malai resc");
    zsh.type_text("x");
    zsh.wait_for_line("> ./malai rescan x");
}

#[test]
fn a_shell_that_is_not_known_has_no_script() {
    let net = net();
    TestHome::new(&net, "one").malai(["completions", "tcsh"]).exits(2);
}

#[test]
fn completing_needs_no_daemon_and_a_broken_home_completes_commands() {
    let net = net();
    let mut cluster = with_words(&net);
    for name in ["web01", "web02", "laptop"] {
        cluster.member(name).stop();
    }
    let laptop = cluster.home("laptop");
    let words = laptop.malai(["complete-words", "--", "web0"]).ok();
    assert_eq!(words.text(), "web01.company\tmachine\nweb02.company\tmachine");
    set_mode(laptop.path(), 0o755);
    let words = laptop.malai(["complete-words", "--", "resc"]).ok();
    assert!(words.text().starts_with("rescan\t"), "{words:?}");
    set_mode(laptop.path(), 0o700);
}

#[test]
fn every_command_has_a_manual_page_that_renders() {
    let net = net();
    let home = TestHome::new(&net, "one");
    let dir = net.path().join("man1");
    home.malai(["man", "--dir", &dir.to_string_lossy()]).ok();
    let pages: Vec<_> = std::fs::read_dir(&dir).expect("lists").flatten().map(|page| page.path()).collect();
    let named = |name: &str| pages.iter().any(|page| page.file_name().is_some_and(|file| file == name));
    assert!(named("malai.1") && named("malai-run.1") && named("malai-cluster-init.1"), "{pages:?}");
    assert!(!named("malai-complete-words.1") && !named("malai-keygen.1"), "what is hidden has none");
    let main = std::fs::read_to_string(dir.join("malai.1")).expect("reads");
    assert_eq!(home.malai(["man"]).ok().text(), main.trim());
    for heading in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH NOTES"] {
        assert!(main.contains(heading), "no {heading}");
    }
    if !is_there("groff") {
        not_run("groff is not installed: the pages are not rendered");
        return;
    }
    for page in &pages {
        let mut groff = Command::new("groff");
        let output =
            groff.args(["-man", "-Tutf8", "-ww", "-K", "utf8"]).arg(page).output().expect("runs groff");
        assert!(output.status.success() && output.stderr.is_empty(), "{page:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("malai"), "{page:?}");
    }
}
