//! `scp`, `sftp` and `rsync`.

use std::os::unix::fs::PermissionsExt;

use crate::rig::{Rig, Sshd, guests_config, is_denied, is_told, noise, tool};
use crate::tools;

const SFTP: &str = "[machine.web01.command.sftp-server]\nallow_from = \"laptop\"\n";

#[test]
fn scp_and_sftp_copy_through_a_machines_sshd() {
    let Some([sshd, keygen, scp, sftp]) = tools::all(["sshd", "ssh-keygen", "scp", "sftp"]) else { return };
    let dir = tempfile::tempdir_in("/tmp").expect("a folder");
    let server = Sshd::start(&sshd, &keygen, dir.path().join("sshd"));
    let rig = Rig::new(&server.rule());
    let config = server.client_config(&rig);
    let bytes = noise(3 << 20);
    rig.write("one file", &bytes);
    // By the protocol of sftp, and by scp's own.
    for (number, protocol) in [&["-s"][..], &["-O"]].into_iter().enumerate() {
        let (there, back) = (format!("srv/there {number}"), format!("back {number}"));
        // scp's own protocol lets the remote shell split the name.
        let remote = match protocol {
            ["-O"] => rig.remote(&there).replace(' ', "\\ "),
            _ => rig.remote(&there),
        };
        let copy = |from: &str, to: &str| {
            tool(rig.laptop(), &scp, ["-q", "-F", &config].iter().chain(protocol).chain(&[from, to]))
                .run()
                .ok()
        };
        copy(&rig.text("one file"), &remote);
        assert!(rig.read(&there) == bytes);
        copy(&remote, &rig.text(&back));
        assert!(rig.read(&back) == bytes);
    }
    let batch = format!("put \"{}\" \"{}\"\n", rig.text("one file"), rig.text("srv/by sftp"));
    let words = ["-q", "-F", &config, "-b", "-", "web01.company"];
    tool(rig.laptop(), &sftp, words).stdin(batch.clone()).run().ok();
    assert!(rig.read("srv/by sftp") == bytes);

    let guests = guests_config(&rig, &config);
    let before = server.connections();
    let (from, to) = (rig.text("one file"), rig.remote("srv/denied"));
    // By its own protocol scp ends with 1 whatever ssh ended with.
    for (protocol, status) in [("-s", 255), ("-O", 1)] {
        is_denied(&tool(rig.guest(), &scp, ["-q", "-F", &guests, protocol, &from, &to]).run(), status);
    }
    let batch = batch.replace("by sftp", "denied");
    is_denied(
        &tool(rig.guest(), &sftp, ["-q", "-F", &guests, "-b", "-", "web01.company"]).stdin(batch).run(),
        255,
    );
    assert!(!rig.path("srv/denied").exists() && server.connections() == before);
}

#[test]
fn scp_and_sftp_copy_by_rsh_without_any_sshd() {
    let Some([scp, sftp, _]) = tools::all(["scp", "sftp", "sshd"]) else { return };
    let rig = Rig::new(&format!("{SFTP}\n[machine.web01.command.scp]\nallow_from = \"laptop\"\n"));
    let rsh = rig.malai_rsh.display().to_string();
    let bytes = noise(3 << 20);
    rig.write("one file", &bytes);
    for (number, protocol) in [&["-s"][..], &["-O"]].into_iter().enumerate() {
        let (there, back) = (format!("srv/there{number}"), format!("back{number}"));
        let copy = |from: &str, to: &str| {
            tool(rig.laptop(), &scp, ["-q", "-S", &rsh].iter().chain(protocol).chain(&[from, to])).run().ok()
        };
        copy(&rig.text("one file"), &rig.remote(&there));
        assert!(rig.read(&there) == bytes);
        copy(&rig.remote(&there), &rig.text(&back));
        assert!(rig.read(&back) == bytes);
    }
    // A tree, with modes.
    rig.write("tree/a/deep file", b"deep");
    let script = rig.write("tree/run.sh", b"#!/bin/sh\n");
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o750)).expect("a mode");
    tool(rig.laptop(), &scp, ["-qrp", "-S", &rsh, &rig.text("tree"), &rig.remote("srv/tree")]).run().ok();
    assert_eq!(rig.read("srv/tree/a/deep file"), b"deep");
    let mode = std::fs::metadata(rig.path("srv/tree/run.sh")).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o750);
    let batch = format!(
        "cd {}\nmkdir d\nput \"{}\" d/x\nrename d/x d/y\nget d/y {}\nls -l d\n",
        rig.text("srv"),
        rig.text("one file"),
        rig.text("fetched"),
    );
    tool(rig.laptop(), &sftp, ["-q", "-S", &rsh, "-b", "-", "web01.company"]).stdin(batch.clone()).run().ok();
    assert!(rig.read("fetched") == bytes && rig.read("srv/d/y") == bytes);

    let (from, to) = (rig.text("one file"), rig.remote("srv/denied"));
    for (protocol, status) in [("-s", 255), ("-O", 1)] {
        is_denied(&tool(rig.guest(), &scp, ["-q", "-S", &rsh, protocol, &from, &to]).run(), status);
    }
    let denied = tool(rig.guest(), &sftp, ["-q", "-S", &rsh, "-b", "-", "web01.company"]).stdin(batch).run();
    is_denied(&denied, 255);
    assert!(!rig.path("srv/denied").exists());
}

#[test]
fn rsync_goes_both_ways_deletes_and_sends_only_what_changed() {
    let Some([rsync]) = tools::all(["rsync"]) else { return };
    let rig = Rig::new("[machine.web01.command.rsync]\nallow_from = \"laptop\"\n");
    let shell = format!("{} rsh", rig.malai());
    let run = |words: &[&str]| {
        tool(rig.laptop(), &rsync, ["-a", "--stats", "--no-whole-file", "-e", &shell].iter().chain(words))
            .run()
    };
    let mut bytes = noise(4 << 20);
    rig.write("site/large", &bytes);
    rig.write("site/it's a file", b"odd");
    rig.write("site/sub/$HOME;*", b"odder");
    std::os::unix::fs::symlink("large", rig.path("site/link")).expect("a link");
    let (local, remote) = (format!("{}/", rig.text("site")), rig.remote("srv/a site/"));
    run(&["--delete", &local, &remote]).ok();
    assert!(rig.read("srv/a site/large") == bytes);
    assert_eq!(rig.read("srv/a site/it's a file"), b"odd");
    assert_eq!(rig.read("srv/a site/sub/$HOME;*"), b"odder");
    assert_eq!(std::fs::read_link(rig.path("srv/a site/link")).ok(), Some("large".into()));

    // A change in the middle, and a file less. By checksum, since both changes fall into one second.
    bytes[1 << 20] ^= 1;
    rig.write("site/large", &bytes);
    std::fs::remove_file(rig.path("site/it's a file")).expect("removes it");
    let changed = run(&["--delete", "--checksum", &local, &remote]).ok();
    assert!(rig.read("srv/a site/large") == bytes && !rig.path("srv/a site/it's a file").exists());
    let literal = changed.text().lines().find_map(|line| line.strip_prefix("Literal data: "));
    let literal = literal.and_then(|text| text.split(' ').next()).map(|number| number.replace(',', ""));
    let literal: u64 = literal.and_then(|number| number.parse().ok()).expect("a number of bytes");
    assert!(literal < 1 << 20, "{literal} of {} bytes were sent", bytes.len());

    // Back, and only one of them.
    run(&[&remote, &rig.text("back/")]).ok();
    assert!(rig.read("back/large") == bytes);
    assert_eq!(rig.read("back/sub/$HOME;*"), b"odder");
    run(&[&rig.remote("srv/a site/sub/$HOME;\\*"), &rig.text("one")]).ok();
    // Names that a remote shell would match are refused, unless rsync does it by itself.
    let globbed = run(&[&rig.remote("srv/a site/l*"), &rig.text("globbed/")]);
    assert!(globbed.code != Some(0) && globbed.stderr_text().contains("no shell runs"), "{globbed:?}");
    assert!(!rig.path("globbed/large").exists());
    run(&["--secluded-args", &rig.remote("srv/a site/l*"), &rig.text("globbed/")]).ok();
    assert!(rig.read("globbed/large") == bytes);

    // rsync ends with 255, or with 12 if it notices the silence first.
    let to = rig.remote("srv/denied/");
    let denied = tool(rig.guest(), &rsync, ["-a", "-e", &shell, &local, &to]).run();
    is_told(&denied);
    let denied = tool(rig.guest(), &rsync, ["-a", "-e", &shell, &remote, &rig.text("taken/")]).run();
    is_told(&denied);
    assert!(!rig.path("srv/denied").exists() && !rig.path("taken/large").exists());
    // A right to rsync is a right to nothing else.
    is_denied(&rig.laptop().malai(["rsh", "web01.company", "id"]), 255);
}
