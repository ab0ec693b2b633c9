//! The command line itself: the whole help, and how each kind of misuse is told.

use insta::assert_snapshot;
use malai_testkit::{Output, TestHome, TestNet};

fn net() -> TestNet {
    TestNet::new(env!("CARGO_BIN_EXE_malai"))
}

/// Status, stdout and stderr as one text, with the net's own folder hidden.
fn shown(net: &TestNet, output: &Output) -> String {
    let text = format!(
        "status: {}\n--- stdout\n{}--- stderr\n{}",
        output.code.map_or_else(|| "none".to_owned(), |code| code.to_string()),
        String::from_utf8_lossy(&output.stdout),
        output.stderr_text(),
    );
    text.replace(&*net.path().to_string_lossy(), "NET")
}

/// Every command that the help lists, with its own help, depth first.
fn helps(home: &TestHome, words: &[&str], all: &mut String) {
    let output = home.malai(words.iter().copied().chain(["--help"])).ok();
    let text = output.text();
    *all += &format!("==== malai {}\n{text}\n\n", words.join(" "));
    let commands =
        text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for command in commands.filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let name = command.split_whitespace().next().unwrap_or_default().trim_end_matches(',');
        if name != "help" && !name.is_empty() {
            let deeper: Vec<&str> = words.iter().copied().chain([name]).collect();
            helps(home, &deeper, all);
        }
    }
}

#[test]
fn the_whole_help() {
    let net = net();
    let mut all = String::new();
    helps(&TestHome::new(&net, "one"), &[], &mut all);
    assert_snapshot!(all);
}

#[test]
fn misuse_is_status_2_and_told_on_stderr() {
    let net = net();
    let home = TestHome::new(&net, "one");
    for words in [&["cluster"][..], &["cluster", "init"], &["--no-such-option"], &["daemon", "--no-such"]] {
        let output = home.malai(words).exits(2);
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn errors_of_an_empty_home() {
    let net = net();
    let home = TestHome::new(&net, "one");
    let mut all = String::new();
    for words in [
        &["status"][..],
        &["--json", "status"],
        &["info"],
        &["rescan"],
        &["web01.company", "true"],
        &["--json", "web01.company", "true"],
        &["cluster", "init", "Bad_Name"],
        &["cluster", "list-invites", "company"],
        &["cluster", "create-invite", "company", "--expires", "soon"],
        &["machine", "init", "no-invite", "company"],
    ] {
        let output = home.malai(words);
        all += &format!("==== malai {}\n{}\n", words.join(" "), shown(&net, &output));
    }
    assert_snapshot!(all);
}

#[test]
fn the_version_is_one_line() {
    let output = TestHome::new(&net(), "one").malai(["--version"]).ok();
    assert_eq!(output.text(), concat!("malai ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn colours_are_for_terminals() {
    let net = net();
    let home = TestHome::new(&net, "one");
    for words in [&["--help"][..], &["status"], &["--no-such-option"]] {
        let output = home.malai(words);
        assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{output:?}");
    }
}
