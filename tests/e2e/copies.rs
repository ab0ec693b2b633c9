//! Files and trees between machines: `malai cp`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use malai_testkit::{Cluster, Output, Signal, TestNet, await_until};

use crate::{SOON, net, open_cluster, scaled};

const LONG: Duration = Duration::from_secs(240);
const MIB: u64 = 1024 * 1024;

fn at(path: &Path) -> String {
    format!("web01.company:{}", path.display())
}

fn local(path: &Path) -> String {
    path.display().to_string()
}

fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().expect("a parent")).expect("makes folders");
    fs::write(path, bytes).expect("writes");
}

/// A folder of the test's in the net's.
fn folder(net: &TestNet, name: &str) -> PathBuf {
    let path = net.path().join("files").join(name);
    fs::create_dir_all(&path).expect("makes a folder");
    path
}

fn numbered(length: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..length / 8 + 1).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    bytes.truncate(usize::try_from(length).expect("fits"));
    bytes
}

fn plant(root: &Path) {
    write(root.join("a/file"), "text");
    write(root.join("a/b/big"), numbered(3 * MIB + 1));
    write(root.join("run"), "#!/bin/sh\n");
    fs::set_permissions(root.join("run"), fs::Permissions::from_mode(0o750)).expect("sets a mode");
    fs::create_dir(root.join("empty")).expect("makes");
    symlink("a/file", root.join("link")).expect("links");
}

/// What is in a tree, a line each.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("lists") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("is there");
            let name = path.strip_prefix(root).expect("below").display().to_string();
            let head = format!("{name} {:o} {}.{}", meta.mode(), meta.mtime(), meta.mtime_nsec());
            lines.push(if meta.is_dir() {
                folders.push(path.clone());
                head
            } else if meta.is_symlink() {
                format!("{head} -> {}", fs::read_link(&path).expect("reads").display())
            } else {
                let bytes = fs::read(&path).expect("reads");
                format!(
                    "{head} {} {:?}",
                    bytes.len(),
                    bytes.iter().fold(0_u64, |sum, b| sum.rotate_left(5) ^ u64::from(*b))
                )
            });
        }
    }
    lines.sort();
    lines
}

#[track_caller]
fn number(output: &Output, field: &str) -> u64 {
    output.json()[field].as_u64().unwrap_or_else(|| panic!("no number {field}: {output:?}"))
}

#[test]
fn a_tree_goes_there_and_comes_back_as_it_was() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let (source, there, back) = (folder(&net, "src"), folder(&net, "there"), folder(&net, "back"));
    plant(&source);
    let output = laptop.malai(["--json", "cp", "-r", &local(&source), &at(&there)]).ok();
    assert_eq!((number(&output, "files"), number(&output, "failed")), (4, 0), "{output:?}");
    assert_eq!(listing(&there.join("src")), listing(&source));
    let quiet = laptop.malai(["cp", &at(&there.join("src/.")), &local(&back)]).ok();
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
    assert_eq!(listing(&back), listing(&source));
    // Again: nothing is sent.
    let again = laptop.malai(["--json", "cp", &local(&source), &at(&there)]).ok();
    assert_eq!((number(&again, "bytes"), number(&again, "skipped")), (0, 4), "{again:?}");
    // One file under another name.
    laptop.malai(["cp", &local(&source.join("run")), &at(&there.join("named"))]).ok();
    assert_eq!(fs::read(there.join("named")).expect("is there"), b"#!/bin/sh\n");
}

#[test]
fn delete_makes_the_destination_equal() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let (source, there) = (folder(&net, "src"), folder(&net, "there"));
    plant(&source);
    write(there.join("old/x"), "x");
    let root = format!("{}/.", local(&source));
    laptop.malai(["cp", &root, &at(&there)]).ok();
    assert!(there.join("old/x").exists());
    let output = laptop.malai(["--json", "cp", "--delete", &root, &at(&there)]).ok();
    assert_eq!(number(&output, "deleted"), 2, "{output:?}");
    assert_eq!(listing(&there).len(), listing(&source).len());
}

#[test]
fn a_tree_goes_from_machine_to_machine_through_the_client() {
    let net = net();
    let rights = [("web01", "allow_from = \"laptop,web01\""), ("db01", "allow_from = \"laptop\"")];
    let text = "[machine.db01.command.true]\nallow_from = \"web01\"\n";
    let cluster = Cluster::with_config(&net, &["web01", "db01", "laptop"], &rights, text);
    let laptop = cluster.home("laptop");
    let (source, there) = (folder(&net, "src"), folder(&net, "there"));
    plant(&source);
    let target = format!("db01.company:{}", there.display());
    let output = laptop.malai(["--json", "cp", &at(&source), &target]).ok();
    assert_eq!((number(&output, "files"), number(&output, "failed")), (4, 0), "{output:?}");
    assert_eq!(listing(&there.join("src")), listing(&source));
    // The client's rights on both count: web01 itself has none on db01.
    cluster.home("web01").malai(["--json", "cp", &at(&source), &target]).exits(255).fails_with("acl.denied");
    let missing = laptop.malai(["cp", &at(&source.join("none")), &target]).exits(1);
    assert!(
        missing.stderr_text().contains("web01.company:") && missing.stderr_text().contains("none"),
        "{missing:?}"
    );
}

#[test]
fn the_right_is_that_of_a_command_named_malai_cp() {
    let net = net();
    let text = "[machine.web01.command.malai-cp]\nallow_from = \"copier\"\n\
                [machine.web01.command.true]\nallow_from = \"other\"\n";
    let cluster = Cluster::with_config(&net, &["web01", "copier", "other"], &[], text);
    let (source, there) = (folder(&net, "src"), folder(&net, "there"));
    write(source.join("f"), "f");
    let (file, target) = (local(&source.join("f")), at(&there));
    cluster.home("copier").malai(["cp", &file, &target]).ok();
    cluster.home("copier").malai(["--json", "web01.company", "true"]).exits(255).fails_with("acl.denied");
    fs::remove_file(there.join("f")).expect("removes");
    let other = cluster.home("other");
    other.malai(["web01.company", "true"]).ok();
    other.malai(["--json", "cp", &file, &target]).exits(255).fails_with("acl.denied");
    other.malai(["--json", "cp", &at(&source.join("f")), &local(&there)]).exits(255).fails_with("acl.denied");
    assert!(!there.join("f").exists());
}

#[test]
fn a_rule_for_the_words_limits_direction_and_path() {
    let net = net();
    let (open, closed) = (folder(&net, "open"), folder(&net, "closed"));
    write(net.path().join("files/f"), "f");
    write(open.join("g"), "g");
    let text = format!(
        "[machine.web01.command.malai-cp]\nallow_from = \"laptop\"\nargs = [\"put\", \"{}/*\"]\n",
        open.display()
    );
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[], &text);
    let laptop = cluster.home("laptop");
    let file = local(&net.path().join("files/f"));
    laptop.malai(["cp", &file, &at(&open.join("f"))]).ok();
    laptop.malai(["cp", &file, &format!("{}/", at(&open))]).ok();
    for target in [closed.join("f"), open.join("../closed/f"), open.join("deeper/f")] {
        laptop.malai(["--json", "cp", &file, &at(&target)]).exits(255).fails_with("acl.denied");
    }
    let target = at(&open.join("f"));
    laptop.malai(["--json", "cp", "--delete", &file, &target]).exits(255).fails_with("acl.denied");
    let here = local(&net.path().join("files/got"));
    laptop.malai(["--json", "cp", &at(&open.join("g")), &here]).exits(255).fails_with("acl.denied");
    assert_eq!(fs::read_dir(&closed).expect("lists").count(), 0);
}

/// A folder, and another beside it that links in the first lead to: in the middle of a path, at its end, and below it.
fn plant_ways_out(net: &TestNet) -> (PathBuf, PathBuf) {
    let (site, outside) = (folder(net, "site"), folder(net, "outside"));
    write(site.join("inner/plain"), "plain");
    write(outside.join("secret"), "of others");
    symlink(&outside, site.join("way")).expect("links");
    symlink(outside.join("secret"), site.join("file")).expect("links");
    symlink(outside.join("secret"), site.join("inner/link")).expect("links");
    (site, outside)
}

#[test]
fn a_rule_for_the_words_follows_no_link_on_the_way_to_a_path_and_one_without_words_does() {
    let net = net();
    let (site, outside) = plant_ways_out(&net);
    let (here, new) = (folder(&net, "here"), folder(&net, "new").join("new"));
    write(&new, "new");
    let args = format!("args = [\"get\", \"put\", \"{0}/*\", \"{0}/*/*\"]\n", site.display());
    let text = format!("[machine.web01.command.malai-cp]\nallow_from = \"laptop\"\n{args}");
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[], &text);
    let laptop = cluster.home("laptop");
    let get = |path: &str| laptop.malai(["--json", "cp", &at(&site.join(path)), &local(&here.join("got"))]);
    let put = |path: &str| laptop.malai(["--json", "cp", &local(&new), &at(&site.join(path))]);
    let before = listing(&outside);
    for path in ["way/secret", "way", "file"] {
        let output = get(path).exits(1);
        let warning = &output.json()["warnings"][0];
        let told = warning["message"].as_str().is_some_and(|text| text.contains("a symbolic link lies in"));
        assert!(told && warning["path"].as_str().is_some_and(|text| text.ends_with(path)), "{output:?}");
        assert_eq!(fs::read_dir(&here).expect("lists").count(), 0, "{path}");
    }
    for path in ["way/new", "way/secret", "way/", "way", "file"] {
        let output = put(path).exits(1);
        assert!(output.stderr_text().contains("a symbolic link lies in"), "{output:?}");
        output.fails_with("copy.storage");
    }
    assert_eq!(listing(&outside), before);
    // The same rule lets in what no link leads to.
    get("inner/plain").ok();
    assert_eq!(fs::read(here.join("got")).expect("is there"), b"plain");
    put("inner/new").ok();
    assert_eq!(fs::read(site.join("inner/new")).expect("is there"), b"new");

    cluster.edit(|text| text.replace(&args, ""));
    cluster.await_distributed();
    for path in ["way/secret", "file"] {
        get(path).ok();
        assert_eq!(fs::read(here.join("got")).expect("is there"), b"of others", "{path}");
        fs::remove_file(here.join("got")).expect("removes");
    }
    put("way/new").ok();
    assert_eq!(fs::read(outside.join("new")).expect("is there"), b"new");
}

#[test]
fn links_are_not_followed_for_whom_a_rule_limits_the_words_and_are_for_others() {
    let net = net();
    let (site, _outside) = plant_ways_out(&net);
    let (here, there) = (folder(&net, "here"), folder(&net, "there"));
    let words = format!("\"get\", \"put\", \"{}/*\"]\n", site.display());
    let args = format!("args = [\"--follow\", {words}");
    let text = format!(
        "[machine.web01.command.malai-cp]\nallow_from = \"laptop\"\n{args}\
         [machine.db01.command.malai-cp]\nallow_from = \"laptop\"\n"
    );
    let cluster = Cluster::with_config(&net, &["web01", "db01", "laptop"], &[], &text);
    let laptop = cluster.home("laptop");
    let tree = at(&site.join("inner"));
    let targets = [local(&here), format!("db01.company:{}", there.display())];
    let follow = |target: &str| laptop.malai(["--json", "cp", "--follow", &tree, target]);
    // Down, and across: also where the rule lets the word in.
    for target in &targets {
        let output = laptop.malai(["cp", "--follow", &tree, target]).exits(255);
        for part in ["web01.company", "your rule restricts paths", "copy without --follow"] {
            assert!(output.stderr_text().contains(part), "{part}: {output:?}");
        }
        follow(target).exits(255).fails_with("command.failed");
    }
    for folder in [&here, &there] {
        assert_eq!(fs::read_dir(folder).expect("lists").count(), 0);
    }
    // As the hint says: a link is copied as one.
    laptop.malai(["cp", &tree, &local(&here)]).ok();
    assert!(here.join("inner/link").is_symlink());
    // Up, they are the caller's own, who may read what they lead to.
    laptop.malai(["cp", "--follow", &local(&here.join("inner")), &at(&site.join("up"))]).ok();
    let link = fs::symlink_metadata(site.join("up/link")).expect("is there");
    assert!(link.is_file() && link.len() == 9, "{link:?}");

    // A rule that does not have the word.
    cluster.edit(|text| text.replace(&args, &format!("args = [{words}")));
    cluster.await_distributed();
    for target in &targets {
        follow(target).exits(255).fails_with("acl.denied");
    }
    // One that has no words.
    cluster.edit(|text| text.replace(&format!("args = [{words}"), ""));
    cluster.await_distributed();
    fs::remove_dir_all(here.join("inner")).expect("removes");
    for (target, folder) in targets.iter().zip([&here, &there]) {
        follow(target).ok();
        let link = folder.join("inner/link");
        assert!(!link.is_symlink() && fs::read(&link).expect("is there") == b"of others", "{target}");
    }
}

#[test]
fn what_drops_the_environment_says_by_a_word_that_no_link_is_followed() {
    let net = net();
    let (site, outside) = plant_ways_out(&net);
    let (here, script) = (folder(&net, "here"), net.path().join("as-somebody"));
    let starts = |before: &str, after: &str| {
        let malai = net.binary().display();
        write(
            &script,
            format!("#!/bin/sh\nv=$1; shift; exec env -i {malai} malai-cp {before} \"$v\" {after} \"$@\"\n"),
        );
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("sets a mode");
    };
    let text = format!(
        "[machine.web01.command.malai-cp]\nallow_from = \"laptop\"\ncommand = \"{}\"\n\
         args = [\"get\", \"put\", \"{}/*/*\"]\n",
        script.display(),
        site.display()
    );
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[], &text);
    let laptop = cluster.home("laptop");
    let new = net.path().join("files/new");
    write(&new, "new");
    let get = || laptop.malai(["--json", "cp", &at(&site.join("way/secret")), &local(&here.join("got"))]);
    let put = || laptop.malai(["--json", "cp", &local(&new), &at(&site.join("way/new"))]);
    // As the words of a rule's `command`, which stand before the caller's, or behind the verb.
    for (before, after) in [("--no-links", ""), ("", "--no-links")] {
        starts(before, after);
        let output = get().exits(1);
        assert!(output.json()["warnings"][0]["message"].to_string().contains("symbolic link"), "{output:?}");
        put().exits(1).fails_with("copy.storage");
        assert!(!here.join("got").exists() && !outside.join("new").exists());
    }
    laptop.malai(["cp", &at(&site.join("inner/plain")), &local(&here)]).ok();
    // It is the word that does it: without the variable nothing else says so.
    starts("", "");
    get().ok();
    put().ok();
    assert!(here.join("got").exists() && outside.join("new").exists());
}

#[test]
fn a_copy_that_was_killed_goes_on_where_it_stopped() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let (source, there) = (folder(&net, "src").join("big"), folder(&net, "there"));
    let size = scaled(1024 * MIB);
    write(&source, numbered(size));
    write(there.join("big"), "what was there");
    let (from, to) = (local(&source), at(&there));
    let running = laptop.command(["cp", &from, &to]).spawn();
    await_until("a part of the file", SOON, || part_in(&there) > 4 * MIB);
    running.signal(Signal::SIGKILL);
    drop(running);
    assert_eq!(fs::read(there.join("big")).expect("is there"), b"what was there");
    let output = laptop.command(["--json", "cp", &from, &to]).deadline(LONG).run().ok();
    let (sent, resumed) = (number(&output, "bytes"), number(&output, "resumed_bytes"));
    assert!(resumed >= 4 * MIB && sent + resumed == size, "{output:?}");
    assert!(fs::read(there.join("big")).expect("is there") == fs::read(&source).expect("is there"));
}

/// How long what an unfinished copy has written of a file there is.
fn part_in(folder: &Path) -> u64 {
    let names = fs::read_dir(folder).expect("lists").filter_map(Result::ok);
    let mut parts = names.filter(|entry| entry.file_name().to_string_lossy().contains(".malai-part-"));
    parts.next().and_then(|entry| entry.metadata().ok()).map_or(0, |meta| meta.len())
}

#[test]
fn a_download_that_was_killed_goes_on_where_it_stopped() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let (source, here) = (folder(&net, "src").join("big"), folder(&net, "here"));
    let size = scaled(1024 * MIB);
    write(&source, numbered(size));
    write(here.join("big"), "what was here");
    let (from, to) = (at(&source), local(&here));
    let running = laptop.command(["cp", &from, &to]).spawn();
    await_until("a part of the file", SOON, || part_in(&here) > 4 * MIB);
    running.kill();
    assert_eq!(fs::read(here.join("big")).expect("is there"), b"what was here");
    let output = laptop.command(["--json", "cp", &from, &to]).deadline(LONG).run().ok();
    let (received, resumed) = (number(&output, "bytes"), number(&output, "resumed_bytes"));
    assert!(resumed >= 4 * MIB && received + resumed == size, "{output:?}");
    assert!(fs::read(here.join("big")).expect("is there") == fs::read(&source).expect("is there"));
    assert_eq!(fs::read_dir(&here).expect("lists").count(), 1, "its part is gone");
}

#[test]
fn an_upload_whose_machine_s_daemon_was_killed_goes_on_when_it_is_run_again() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let (source, there) = (folder(&net, "src").join("big"), folder(&net, "there"));
    let size = scaled(1024 * MIB);
    write(&source, numbered(size));
    let (from, to) = (local(&source), at(&there));
    let words = ["--json", "cp", &from, &to];
    let running = cluster.home("laptop").command(words).spawn();
    await_until("a part of the file", SOON, || part_in(&there) > 4 * MIB);
    cluster.member("web01").daemon.take().expect("runs").kill();
    cluster.member("web01").start();
    let output = running.wait(LONG).exits(255);
    assert!(output.error_code().is_some(), "{output:?}");
    assert!(!there.join("big").exists());
    let output = cluster.home("laptop").command(words).deadline(LONG).run().ok();
    let (sent, resumed) = (number(&output, "bytes"), number(&output, "resumed_bytes"));
    assert!(resumed >= 4 * MIB && sent + resumed == size, "{output:?}");
    assert!(fs::read(there.join("big")).expect("is there") == fs::read(&source).expect("is there"));
    assert_eq!(fs::read_dir(&there).expect("lists").count(), 1, "its part is gone");
}

#[test]
fn memory_does_not_grow_with_the_file() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let (source, there) = (folder(&net, "src").join("big"), folder(&net, "there"));
    // A hole: it is its length that matters.
    let size = if scaled(8) == 8 { 10 * 1024 * MIB } else { 512 * MIB };
    write(&source, "");
    let file = fs::OpenOptions::new().write(true).open(&source).expect("opens");
    file.set_len(size).expect("sets a length");
    let running = laptop.command(["cp", &local(&source), &at(&there)]).deadline(20 * LONG).spawn();
    let mut most = [0, 0];
    let mut running = Some(running);
    await_until("the end of the copy", 20 * LONG, || {
        let Some(copy) = &mut running else { return true };
        let ends = [Some(copy.pid()), process_writing(&there)];
        for (most, pid) in most.iter_mut().zip(ends) {
            *most = (*most).max(pid.and_then(high_water).unwrap_or(0));
        }
        copy.has_ended()
    });
    running.take().expect("was started").wait(SOON).ok();
    assert_eq!(fs::metadata(there.join("big")).expect("is there").len(), size);
    for most in most {
        assert!(most > 0 && most < 160 * MIB, "{most} bytes at most");
    }
}

/// The process that has a file of the folder open for writing: the far end.
fn process_writing(folder: &Path) -> Option<u32> {
    fs::read_dir("/proc").ok()?.filter_map(Result::ok).find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(entry.path().join("fd")).ok()?.filter_map(Result::ok);
        files
            .any(|file| fs::read_link(file.path()).is_ok_and(|to| to.starts_with(folder) && to != folder))
            .then_some(pid)
    })
}

/// The most memory that a process had, in bytes.
fn high_water(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[test]
fn what_fails_is_told_by_a_line_each_and_the_status() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let (source, there) = (folder(&net, "src"), folder(&net, "there"));
    write(source.join("ok"), "ok");
    write(source.join("bad\x1b[2J"), "bad");
    write(there.join("src/bad\x1b[2J/x"), "a directory");
    let output = laptop.malai(["cp", &local(&source), &at(&there)]).exits(1);
    let lines: Vec<_> = output.stderr_text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 1, "{output:?}");
    assert!(lines[0].contains("web01.company:") && lines[0].contains(r"bad\u{1b}[2J"), "{output:?}");
    assert!(there.join("src/ok").exists());
    let json = laptop.malai(["--json", "cp", &local(&source), &at(&there)]).exits(1);
    assert_eq!(json.json()["warnings"][0]["code"], "copy.storage", "{json:?}");
    let nowhere = at(&there.join("none/deeper"));
    laptop.malai(["--json", "cp", &local(&source), &nowhere]).exits(1).fails_with("copy.storage");
    for words in
        [&["a", "b"][..], &["a", "root@web01.company:"], &["--delete", "a", "b", "web01.company:"], &["a"]]
    {
        laptop.malai(["--json", "cp"].iter().chain(words)).exits(2);
    }
    laptop.malai(["--json", "cp", "a", "web02.company:"]).exits(255).fails_with("address.unknown_machine");
}

#[test]
fn the_other_end_by_hand_says_what_it_is() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let output = laptop.malai(["web01.company", "malai-cp"]).exits(2);
    assert!(output.stderr_text().contains("malai cp"), "{output:?}");
    // What is no copy is not taken for one.
    let text = "hello there, this is no copy\n";
    let output = laptop.command(["web01.company", "malai-cp", "put", "/nowhere/at/all"]).stdin(text).run();
    output.exits(1);
}

#[test]
fn a_terminal_sees_how_far_a_copy_is_and_a_pipe_does_not() {
    let net = net();
    let cluster = open_cluster(&net);
    let laptop = cluster.home("laptop");
    let source = folder(&net, "src").join("big");
    write(&source, numbered(64 * MIB));
    let there = folder(&net, "there");
    let words = ["cp".to_owned(), local(&source), at(&there.join("seen"))];
    let mut terminal = laptop.terminal(&words).spawn();
    terminal.wait_for("a line of progress", |screen| {
        screen.lines.iter().any(|line| line.contains("/1 files") && line.contains("ETA"))
    });
    assert_eq!(terminal.wait(), 0);
    assert!(!terminal.screen().shows("ETA"), "it is cleared at the end: {:?}", terminal.screen());
    assert_eq!(fs::read(there.join("seen")).expect("reads"), numbered(64 * MIB));
    let piped = laptop.malai(["cp", &local(&source), &at(&there.join("not"))]).ok();
    assert!(piped.stderr.is_empty(), "{piped:?}");
}
