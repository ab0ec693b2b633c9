//! `malai rsh` by itself.

use crate::rig::{Rig, SOON, is_denied};

fn rig() -> Rig {
    Rig::with_machine("allow_from = \"laptop\"", "[machine.web01.command.sh]\nallow_from = \"laptop\"\n")
}

#[test]
fn a_command_comes_as_one_text_and_runs_without_a_shell() {
    let rig = rig();
    let rsh = |words: &[&str]| rig.laptop().malai(["rsh"].iter().chain(words));
    assert_eq!(rsh(&["web01.company", "echo", "'a  b'", "c"]).ok().text(), "a  b c");
    assert_eq!(rsh(&["web01.company", "echo 'a  b' c"]).ok().text(), "a  b c");
    rsh(&["-x", "-p", "22", "web01.company", "sh -c 'exit 7'"]).exits(7);
    rsh(&["web01.company", "sh", "-c", "'kill -9 $$'"]).exits(137);
    let streams = rsh(&["-T", "web01.company", "sh -c 'echo out; echo err >&2'"]).ok();
    assert_eq!((streams.text(), streams.stderr_text().trim()), ("out", "err"));
    // It begins in the user's home, so a path within it is one from there.
    let home = rsh(&["web01.company", "sh -c 'echo ~; pwd'"]).ok();
    let mut lines = home.text().lines();
    assert_eq!(lines.next(), lines.next());
    assert_eq!(rsh(&["web01.company", "ls -d ~"]).ok().text(), ".");
    for text in ["echo a | cat", "echo $HOME", "cd / && ls", "ls *", "echo a > b", "X=1 env"] {
        let refused = rsh(&["web01.company", text]).exits(255);
        let told = refused.stderr_text();
        assert!(told.contains("no shell runs") && told.contains("sh -c"), "{text}: {told}");
        assert!(refused.stdout.is_empty(), "{refused:?}");
    }
    is_denied(&rig.guest().malai(["rsh", "web01.company", "id"]), 255);
}

#[test]
fn options_of_ssh_are_heeded_refused_or_passed_over() {
    let rig = rig();
    let rsh = |words: &[&str]| rig.laptop().command(["rsh"].iter().chain(words));
    // -n: nothing is read, although there is something.
    let nothing = rsh(&["-n", "web01.company", "cat"]).open_stdin().spawn().wait(SOON).ok();
    assert!(nothing.stdout.is_empty());
    assert_eq!(rsh(&["web01.company", "cat"]).stdin("all").run().ok().text(), "all");
    let warned = rsh(&["-l", "root", "web01.company", "id", "-un"]).run().ok();
    assert!(warned.stderr_text().contains("warning: the user \"root\" is ignored"), "{warned:?}");
    assert_eq!(rsh(&["-q", "root@web01.company", "true"]).run().ok().stderr_text(), "");
    let told = rsh(&["-v", "-C", "-oCompression=yes", "web01.company", "true"]).run().ok().stderr_text();
    assert!(told.contains("Compression=yes"), "{told}");
    assert!(rsh(&["-G", "web01.company"]).run().ok().text().contains("hostname web01.company"));
    assert!(rsh(&["-V"]).run().ok().stderr_text().starts_with("malai "));
    // Forced although nobody sits there: the output stays what it is.
    assert_eq!(rsh(&["-tt", "web01.company", "printf", "'a\\nb'"]).run().ok().stdout, b"a\nb");
    for (words, hint) in [
        (&["-L", "1:x:2", "web01.company"][..], "malai stdio"),
        (&["-W", "x:22", "web01.company"], "malai stdio"),
        (&["-N", "web01.company"], "malai stdio"),
        (&["-s", "web01.company", "netconf"], "leave -s out"),
        (&["-Z", "web01.company"], "ssh's options"),
        (&["-T", "web01.company"], "sh -s"),
    ] {
        let refused = rsh(words).run().exits(255);
        assert!(refused.stderr_text().contains(hint), "{words:?}: {refused:?}");
    }
    // No command: a shell, for which this is no terminal.
    assert!(rsh(&["web01.company"]).run().exits(255).stderr_text().contains("no terminal"));
}
