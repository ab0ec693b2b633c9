//! `git clone`, `fetch` and `push`.

use std::path::Path;

use malai_testkit::{Output, TestHome};

use crate::rig::{Rig, Sshd, guests_config, is_denied, tool};
use crate::tools;

fn git(home: &TestHome, git: &Path, ssh: &str, words: &[&str]) -> Output {
    let identity = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"];
    tool(home, git, identity.iter().chain(words))
        .env("GIT_SSH_COMMAND", ssh)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .run()
}

/// Makes `srv/app.git` with one commit.
fn repository(rig: &Rig, program: &Path) {
    let (bare, seed) = (rig.text("srv/an app.git"), rig.text("seed"));
    git(rig.laptop(), program, "false", &["init", "-q", "--bare", &bare]).ok();
    rig.write("seed/README", b"first\n");
    git(rig.laptop(), program, "false", &["init", "-q", &seed]).ok();
    for words in
        [&["add", "."][..], &["commit", "-qm", "first"], &["push", "-q", &bare, "HEAD:refs/heads/main"]]
    {
        git(rig.laptop(), program, "false", &["-C", &seed].iter().chain(words).copied().collect::<Vec<_>>())
            .ok();
    }
}

/// Clones, changes, pushes; and then somebody else may not.
fn round_trip(rig: &Rig, program: &Path, ssh: &str, guests: &str, url: &str) {
    let clone = rig.text("clone");
    let run = |words: &[&str]| git(rig.laptop(), program, ssh, words).ok();
    run(&["clone", "-q", url, &clone]);
    assert_eq!(rig.read("clone/README"), b"first\n");
    rig.write("clone/README", b"second\n");
    run(&["-C", &clone, "commit", "-qam", "second"]);
    run(&["-C", &clone, "push", "-q", "origin", "HEAD"]);
    let head = |words: &[&str]| run(words).text().to_owned();
    let pushed = head(&["-C", &rig.text("srv/an app.git"), "rev-parse", "main"]);
    assert_eq!(pushed, head(&["-C", &clone, "rev-parse", "HEAD"]));
    run(&["-C", &clone, "fetch", "-q"]);

    let taken = rig.text("taken");
    is_denied(&git(rig.guest(), program, guests, &["clone", "-q", url, &taken]), 128);
    assert!(!rig.path("taken/README").exists());
    let push = ["-C", &clone, "push", "-q", "origin", "HEAD:refs/heads/other"];
    is_denied(&git(rig.guest(), program, guests, &push), 128);
    let others = head(&["-C", &rig.text("srv/an app.git"), "branch", "--format=%(refname)"]);
    assert_eq!(others, "refs/heads/main");
}

#[test]
fn git_clones_and_pushes_by_rsh() {
    let Some([program]) = tools::all(["git"]) else { return };
    let rules = "[machine.web01.command.git-upload-pack]\nallow_from = \"laptop\"\n\
                 [machine.web01.command.git-receive-pack]\nallow_from = \"laptop\"\n";
    let rig = Rig::new(rules);
    repository(&rig, &program);
    let ssh = format!("{} rsh", rig.malai());
    round_trip(&rig, &program, &ssh, &ssh, &rig.remote("srv/an app.git"));
    // A user and a port, which git passes on only to what it takes for an OpenSSH.
    let url = format!("ssh://git@web01.company:2222{}", rig.text("srv/an app.git"));
    let listed = git(rig.laptop(), &program, &ssh, &["ls-remote", &url]).ok();
    assert!(listed.text().contains("refs/heads/main"), "{listed:?}");
    assert!(listed.stderr_text().contains("warning: the user \"git\" is ignored"), "{listed:?}");
}

#[test]
fn git_clones_and_pushes_through_a_machines_sshd() {
    let Some([program, sshd, keygen, ssh]) = tools::all(["git", "sshd", "ssh-keygen", "ssh"]) else { return };
    let dir = tempfile::tempdir_in("/tmp").expect("a folder");
    let server = Sshd::start(&sshd, &keygen, dir.path().join("sshd"));
    let rig = Rig::new(&server.rule());
    let config = server.client_config(&rig);
    let guests = guests_config(&rig, &config);
    repository(&rig, &program);
    let by = |config: &str| format!("{} -F {config}", ssh.display());
    round_trip(&rig, &program, &by(&config), &by(&guests), &rig.remote("srv/an app.git"));
}
