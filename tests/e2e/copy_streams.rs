//! `malai cp` over several streams.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use malai_testkit::{Cluster, Output, TestNet, await_until};
use sha2::{Digest, Sha256};

use crate::{SOON, net, not_run, open_cluster, scaled};

const MIB: usize = 1024 * 1024;
const LONG: Duration = Duration::from_secs(120);

fn folder(net: &TestNet, name: &str) -> PathBuf {
    let path = net.path().join("files").join(name);
    fs::create_dir_all(&path).expect("makes a folder");
    path
}

fn plant(path: &Path, length: usize) {
    let bytes = (0..length as u64 / 8).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    fs::write(path, bytes.collect::<Vec<u8>>()).expect("writes");
}

fn digest(path: &Path) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(fs::read(path).expect("reads")))
}

/// How many further streams were opened, by what malai says with `-vv`.
fn lanes(output: &Output) -> usize {
    output.stderr_text().matches("another stream for a copy").count()
}

fn at(machine: &str, path: &Path) -> String {
    format!("{machine}.company:{}", path.display())
}

#[test]
#[expect(clippy::print_stderr, reason = "figures")]
fn several_streams_are_used_where_the_round_trip_is_long_and_are_faster_at_full_size() {
    let net = net();
    let Some((cluster, link)) = Cluster::linked(&net) else {
        return not_run("there is no IPv6 on loopback");
    };
    let laptop = cluster.home("laptop");
    let (source, there) = (folder(&net, "src").join("big"), folder(&net, "there"));
    // How much faster shows at a size where the slow start is over, in an optimised build, on a machine at rest.
    let full = crate::full();
    let size = if full { 96 * MIB } else { 12 * MIB };
    let measured = full && !cfg!(debug_assertions);
    plant(&source, size);
    link.delay(Duration::from_millis(20));
    let mut seconds = Vec::new();
    for (name, options) in [("one", &["--streams", "1"][..]), ("four", &["--streams", "4"]), ("auto", &[])] {
        let (from, to) = (source.display().to_string(), there.join(name));
        let target = at("web01", &to);
        let words = [&["--json", "-vv", "cp"], options, &[&from, &target]].concat();
        let output = laptop.command(words).deadline(LONG).run().ok();
        assert_eq!(lanes(&output), if name == "one" { 0 } else { 3 }, "{name}: {output:?}");
        assert_eq!(digest(&to), digest(&source), "{name}");
        seconds.push(output.json()["seconds"].as_f64().expect("a time"));
    }
    let [one, four, auto] = seconds[..] else { panic!("{seconds:?}") };
    eprintln!("{size} bytes at 40 ms: one stream {one:.2} s, four {four:.2} s, by itself {auto:.2} s");
    assert!(!measured || one / four >= 1.8, "one {one:.2} s, four {four:.2} s");
    // A small one pays nothing.
    plant(&source, MIB);
    let target = at("web01", &there.join("small"));
    let output = laptop.malai(["--json", "-vv", "cp", &source.display().to_string(), &target]).ok();
    assert_eq!(lanes(&output), 0, "{output:?}");
}

#[test]
fn several_streams_carry_a_copy_each_way_and_from_machine_to_machine() {
    let net = net();
    let rights = [("web01", "allow_from = \"laptop\""), ("db01", "allow_from = \"laptop\"")];
    let cluster = Cluster::with_config(&net, &["web01", "db01", "laptop"], &rights, "");
    let laptop = cluster.home("laptop");
    let dir = folder(&net, "src");
    let source = dir.join("big");
    plant(&source, 16 * MIB);
    let here = |name: &str| dir.join(name).display().to_string();
    let copies = [
        (here("big"), at("web01", &dir.join("up")), "up", 2),
        (at("web01", &source), here("down"), "down", 2),
        (at("web01", &source), at("db01", &dir.join("across")), "across", 4),
    ];
    for (from, to, name, expected) in copies {
        let output =
            laptop.command(["--json", "-vv", "cp", "--streams", "3", &from, &to]).deadline(LONG).run();
        let output = output.ok();
        assert_eq!(digest(&dir.join(name)), digest(&source), "{name}");
        // Opened while it goes on: the last of them may come too late.
        assert!((1..=expected).contains(&lanes(&output)), "{name}: {output:?}");
    }
    // A tree with problems is told as ever.
    let output =
        laptop.malai(["--json", "cp", "--streams", "16", "none", &at("web01", &dir.join("x"))]).exits(1);
    assert!(output.json()["warnings"][0]["path"].as_str().is_some_and(|path| path == "none"), "{output:?}");
    laptop.malai(["--json", "cp", "--streams", "17", "a", "web01.company:"]).exits(2);
}

#[test]
fn a_rule_for_the_words_is_not_widened_and_does_not_break_the_copy() {
    let net = net();
    let (open, source) = (folder(&net, "open"), folder(&net, "src").join("big"));
    plant(&source, 16 * MIB);
    let rule = |words: &str| {
        let args = format!("args = [{words}\"put\", \"{}/*\"]", open.display());
        format!("[machine.web01.command.malai-cp]\nallow_from = \"laptop\"\n{args}\n")
    };
    let cluster = Cluster::with_config(&net, &["web01", "laptop"], &[], &rule(""));
    let laptop = cluster.home("laptop");
    let copy = |name: &str| {
        let (from, to) = (source.display().to_string(), open.join(name));
        let output = laptop.malai(["--json", "-vv", "cp", "--streams", "4", &from, &at("web01", &to)]).ok();
        assert_eq!(digest(&to), digest(&source));
        lanes(&output)
    };
    laptop.malai(["--json", "web01.company", "malai-cp", "--lane"]).exits(255).fails_with("acl.denied");
    assert_eq!(copy("one"), 0);
    cluster.edit(|text| text.replace("args = [", "args = [\"--lane\", "));
    cluster.rescan();
    cluster.await_distributed();
    assert!(copy("several") > 0);
    // It admits nothing but that.
    let elsewhere = at("web01", &open.join("../elsewhere"));
    let file = source.display().to_string();
    laptop.malai(["--json", "cp", &file, &elsewhere]).exits(255).fails_with("acl.denied");
    laptop
        .malai(["web01.company", "malai-cp", "put", "--lane", &open.join("x").display().to_string()])
        .exits(2);
    // By hand it joins nothing.
    let alone = laptop.command(["web01.company", "malai-cp", "--lane"]).stdin("x".repeat(50)).run();
    alone.exits(1);
}

/// How many bytes a process has read.
fn has_read(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
    let read = text.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok());
    read.unwrap_or(0)
}

#[test]
fn a_stream_that_is_killed_ends_the_copy_with_an_error() {
    let net = net();
    let mut cluster = open_cluster(&net);
    let daemon = cluster.member("web01").daemon.as_ref().expect("runs").pid();
    let laptop = cluster.home("laptop");
    let (source, there) = (folder(&net, "src").join("big"), folder(&net, "there"));
    // So large that it is not over when the stream is killed, on a busy machine either.
    plant(&source, usize::try_from(scaled(1536)).expect("fits") * MIB);
    let (from, to) = (source.display().to_string(), at("web01", &there));
    let running = laptop.command(["--json", "cp", "--streams", "2", &from, &to]).deadline(LONG).spawn();
    let mut lane = None;
    // One that is killed before it has joined is only not there: the copy goes on without it.
    await_until("a second stream that carries something", SOON, || {
        lane = child_with(daemon, "--lane");
        lane.is_some_and(|lane| has_read(lane) > 2 * MIB as u64)
    });
    let lane = lane.expect("is there").to_string();
    assert!(Command::new("kill").args(["-9", &lane]).status().expect("runs").success());
    let output = running.wait(SOON).exits(255);
    assert!(output.error_code().is_some(), "{output:?}");
    assert!(!there.join("big").exists());
    laptop.command(["--json", "cp", "--streams", "2", &from, &to]).deadline(LONG).run().ok();
    assert_eq!(digest(&there.join("big")), digest(&source));
}

#[test]
fn a_copy_goes_on_when_the_link_drops_for_a_moment() {
    let net = net();
    let Some((cluster, link)) = Cluster::linked(&net) else {
        return not_run("there is no IPv6 on loopback");
    };
    let (source, there) = (folder(&net, "src").join("big"), folder(&net, "there"));
    plant(&source, usize::try_from(scaled(256)).expect("fits") * MIB);
    link.delay(Duration::from_millis(20));
    // At full length the connections are lost, which are when they hear nothing for 15 s.
    let full = crate::full();
    let away = Duration::from_millis(if full { 20_000 } else { 1_500 });
    // One dials by itself, the other goes through its daemon.
    for (caller, streams) in [("laptop", "1"), ("desk", "4")] {
        for direction in ["up", "down"] {
            let name = format!("{direction}-{caller}-{streams}");
            let (mut from, mut to) = (source.display().to_string(), there.join(&name).display().to_string());
            let far = if direction == "up" { &mut to } else { &mut from };
            *far = format!("web01.company:{far}");
            let words = ["--json", "-vv", "cp", "--streams", streams, &from, &to];
            let mut running = cluster.home(caller).command(words).deadline(LONG).spawn();
            await_until("a part of the file", SOON, || {
                fs::read_dir(&there).expect("lists").flatten().any(|part| {
                    part.file_name().to_string_lossy().contains(&format!("{name}.malai-part-"))
                        && part.metadata().is_ok_and(|meta| meta.len() > MIB as u64)
                })
            });
            link.cut();
            // That nothing passes for so long is the subject.
            std::thread::sleep(away);
            assert!(!running.has_ended(), "{name}: it was over before the link dropped");
            link.mend();
            let output = running.wait(LONG).ok();
            assert_eq!(lanes(&output) > 0, streams == "4", "{name}: {output:?}");
            assert_eq!(digest(&there.join(&name)), digest(&source), "{name}");
        }
    }
    assert_eq!(fs::read_dir(&there).expect("lists").count(), 4, "no part is left");
    let log = cluster.home("web01").read("malai.log").expect("the target has a log");
    let resumed = log.matches("a request goes on over another connection").count();
    assert!(!full || resumed >= 4, "their connections were lost:\n{log}");
}

/// A child of a process that has this word.
fn child_with(parent: u32, word: &str) -> Option<u32> {
    fs::read_dir("/proc").ok()?.filter_map(Result::ok).find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let words = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let ppid: u32 = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
        (ppid == parent && words.split('\0').any(|each| each == word)).then_some(pid)
    })
}
