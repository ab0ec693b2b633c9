//! The rows: what is measured, what is wanted of it, and what limits it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use malai_testkit::Cluster;

use super::Size;
use super::measure::{Median, interleaved, timed};
use super::sshd::Sshd;
use crate::run::{Outcome, cargo, program, root, target_dir, text_of};

/// What the rows are measured on.
pub(super) struct Rig<'a> {
    pub(super) size: Size,
    pub(super) binary: PathBuf,
    pub(super) sshd: &'a Sshd,
    pub(super) cluster: &'a Cluster,
}

/// One figure.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// What malai did, with its unit.
    pub(super) malai: String,
    /// What it is measured against, and what that did.
    pub(super) beside: String,
    /// The figure that is wanted, in words.
    pub(super) wanted: &'static str,
    /// The figure as it came out, in the same words.
    pub(super) came_out: String,
    /// Absent when it was not measured.
    pub(super) met: Option<bool>,
    /// What limits the figure.
    pub(super) limit: &'static str,
}

impl Rig<'_> {
    /// Makes an empty folder for files that are copied.
    pub(super) fn scratch(&self, name: &str) -> Outcome<PathBuf> {
        let dir = self.cluster.home("laptop").path().join("..").join(format!("bench-{name}"));
        std::fs::create_dir_all(&dir).map_err(|source| format!("making {}: {source}", dir.display()))?;
        dir.canonicalize().map_err(|source| format!("finding {}: {source}", dir.display()))
    }

    /// What a machine's daemon has in memory; absent where the system does not tell.
    pub(super) fn resident_mib(&self, machine: &str) -> Outcome<Option<f64>> {
        let member = self.cluster.machines.iter().find(|member| member.home.name() == machine);
        let daemon = member.and_then(|member| member.daemon.as_ref());
        let pid = daemon.ok_or_else(|| format!("{machine} has no daemon"))?.pid();
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.map(|kib| kib / 1024.0))
    }
}

impl Row {
    /// Returns the row for a terminal.
    pub(super) fn line(&self, size: Size) -> String {
        let Self { name, malai, beside, wanted, came_out, .. } = self;
        if size == Size::Quick {
            // The dev build's figures mean nothing beside what is wanted.
            let ran = if self.met.is_some() { "it runs" } else { "nothing to run yet" };
            return format!("{name}: {ran} ({malai}; {beside})");
        }
        let mut line = format!("{name}: {malai}; {beside}; {came_out}, wanted {wanted}: {}", self.verdict());
        if self.met == Some(false) {
            line += &format!("\n    what limits it: {}", self.limit);
        }
        line
    }

    pub(super) fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "not met",
            None => "not measured",
        }
    }
}

pub(super) const MIB: u64 = 1 << 20;

/// Measures all rows.
pub(super) fn measure(rig: &Rig<'_>) -> Outcome<Vec<Row>> {
    // Before anybody asked it for anything: this is what idle means. What work leaves behind is shown beside it.
    let idle = rig.resident_mib("web01")?;
    let mut rows = cold(rig)?;
    rows.push(bulk(rig)?);
    rows.push(warm(rig)?);
    rows.push(resident(idle, rig.resident_mib("web01")?));
    rows.push(size_of_binary(rig)?);
    rows.extend(fleet(rig)?);
    Ok(rows)
}

fn rounds(rig: &Rig<'_>) -> usize {
    if rig.size == Size::Full { 30 } else { 2 }
}

fn cold(rig: &Rig<'_>) -> Outcome<Vec<Row>> {
    let laptop = rig.cluster.home("laptop");
    let curve = ["-o", "KexAlgorithms=curve25519-sha256"];
    let medians = interleaved(
        rounds(rig),
        &mut [
            &mut || timed(&mut rig.sshd.ssh(&[], &["true"]), 0),
            &mut || timed(&mut rig.sshd.ssh(&curve, &["true"]), 0),
            &mut || timed(&mut laptop.plain_command(["web01.company", "true"]), 0),
        ],
    )?;
    let row = |name, beside: &str, median: Median, wanted, part: f64| {
        let ratio = median.median / medians[2].median;
        Row {
            name,
            malai: milliseconds(medians[2]),
            beside: format!("{beside} {}", milliseconds(median)),
            wanted,
            came_out: format!("1/{ratio:.1}"),
            met: Some(ratio >= part),
            limit: "one process start here, one there, a QUIC handshake between, and the remote command's own start",
        }
    };
    Ok(vec![
        row("cold `true`, beside ssh at its defaults", "ssh", medians[0], "1/15 or less", 15.0),
        row("cold `true`, beside ssh with curve25519 alone", "ssh", medians[1], "1/10 or less", 10.0),
    ])
}

fn bulk(rig: &Rig<'_>) -> Outcome<Row> {
    let bytes = if rig.size == Size::Full { 1024 * MIB } else { 8 * MIB };
    let count = bytes.to_string();
    let words = ["head", "-c", &count, "/dev/zero"];
    let laptop = rig.cluster.home("laptop");
    let malai: Vec<&str> = ["web01.company"].into_iter().chain(words).collect();
    let gcm = ["-c", "aes128-gcm@openssh.com"];
    let medians = interleaved(
        rounds(rig),
        &mut [
            &mut || timed(&mut rig.sshd.ssh(&[], &words), bytes),
            &mut || timed(&mut rig.sshd.ssh(&gcm, &words), bytes),
            &mut || timed(&mut laptop.plain_command(&malai), bytes),
        ],
    )?;
    #[expect(clippy::cast_precision_loss, reason = "a size to show")]
    let speed = |median: Median| bytes as f64 / 1e6 / median.median;
    let ratio = speed(medians[2]) / speed(medians[0]);
    Ok(Row {
        name: "1 GiB of stdout",
        malai: format!("{:.0} MB/s", speed(medians[2])),
        beside: format!(
            "ssh {:.0} MB/s by its default cipher, {:.0} by aes128-gcm",
            speed(medians[0]),
            speed(medians[1])
        ),
        wanted: "0.9 or more of the default cipher",
        came_out: format!("{ratio:.2}"),
        met: Some(ratio >= 0.9),
        limit: "QUIC in user space: encryption and a system call for each batch of datagrams, on both ends",
    })
}

fn warm(rig: &Rig<'_>) -> Outcome<Row> {
    let values = example(rig, "warm_call")?;
    let p50 = values.as_ref().map(|values| number(values, "p50_us")).transpose()?;
    let p99 = values.as_ref().map(|values| number(values, "p99_us")).transpose()?;
    Ok(Row {
        name: "warm call inside the daemon",
        malai: p50
            .map_or_else(String::new, |p50| format!("p50 {p50:.0} µs, p99 {:.0} µs", p99.unwrap_or(0.0))),
        beside: "a connection that is open already".to_owned(),
        wanted: "p50 of 100 µs or less",
        came_out: p50.map_or_else(String::new, |p50| format!("{p50:.0} µs")),
        met: p50.map(|p50| p50 <= 100.0),
        limit: "two wake-ups of a task on each side and one datagram each way",
    })
}

fn resident(idle: Option<f64>, worked: Option<f64>) -> Row {
    let mib = |mib: Option<f64>| mib.map_or_else(String::new, |mib| format!("{mib:.1} MiB"));
    Row {
        name: "idle daemon with one cluster, resident",
        malai: mib(idle),
        beside: format!("{} after the commands of the rows above", mib(worked)),
        wanted: "20 MiB or less",
        came_out: mib(idle),
        met: idle.map(|idle| idle <= 20.0),
        limit: "the pages of the binary that are in use, and the endpoint's own buffers, about 10 MiB",
    }
}

fn size_of_binary(rig: &Rig<'_>) -> Outcome<Row> {
    let bytes = std::fs::metadata(&rig.binary)
        .map_err(|source| format!("reading the binary's size: {source}"))?
        .len();
    #[expect(clippy::cast_precision_loss, reason = "a size to show")]
    let megabytes = bytes as f64 / 1e6;
    Ok(Row {
        name: "the binary, stripped",
        malai: format!("{megabytes:.1} MB"),
        beside: "release profile".to_owned(),
        wanted: "15 MB or less",
        came_out: format!("{megabytes:.1} MB"),
        met: Some(megabytes <= 15.0),
        limit: "QUIC, TLS and the relay client are about 8 MB of it",
    })
}

fn fleet(rig: &Rig<'_>) -> Outcome<Vec<Row>> {
    let values = example(rig, "distribute_bench")?;
    let sent = values.as_ref().map(|values| number(values, "sent")).transpose()?;
    let seconds = values.as_ref().map(|values| number(values, "seconds")).transpose()?;
    let came_out = sent.zip(seconds).map(|(sent, seconds)| format!("{sent:.0} files in {seconds:.2} s"));
    let of = |key| values.as_ref().map(|values| number(values, key)).transpose();
    let (targets, single, all) = (of("targets")?, of("single_seconds")?, of("all_seconds")?);
    let ratio = all.zip(single).map(|(all, single)| all / single);
    let distribution = Row {
        name: "a change that concerns 3 of 200 simulated machines",
        malai: came_out.clone().unwrap_or_default(),
        beside: "200 nodes in one process".to_owned(),
        wanted: "3 files, 2 s or less",
        came_out: came_out.unwrap_or_default(),
        met: sent.zip(seconds).map(|(sent, seconds)| sent.round() == 3.0 && seconds <= 2.0),
        limit: "compiling the config once and signing a file for each machine concerned",
    };
    let at_once = Row {
        name: "`sleep 1` on all but two of the 200 at once",
        malai: all
            .zip(targets)
            .map_or_else(String::new, |(all, targets)| format!("{all:.2} s on {targets:.0}")),
        beside: single.map_or_else(String::new, |single| format!("{single:.2} s on one")),
        wanted: "3 times the slowest single one, or less",
        came_out: ratio.map_or_else(String::new, |ratio| format!("{ratio:.2} times")),
        met: ratio.map(|ratio| ratio <= 3.0),
        limit: "how many are asked at once (`--concurrency`), and starting the programs, all on one machine here",
    };
    Ok(vec![distribution, at_once])
}

/// Runs an example of core's, whose stdout is `key=value` lines; `None` if there is no such example.
fn example(rig: &Rig<'_>, name: &str) -> Outcome<Option<BTreeMap<String, String>>> {
    if !root().join("core/examples").join(format!("{name}.rs")).is_file() {
        return Ok(None);
    }
    let text = match rig.size {
        Size::Full => {
            let args = [
                "run",
                "--quiet",
                "--release",
                "--package",
                "malai-core",
                "--all-features",
                "--example",
                name,
            ];
            text_of(cargo().args(args))?
        }
        Size::Quick => {
            let built = target_dir().join("debug").join("examples").join(name);
            if !built.is_file() {
                let args = ["build", "--quiet", "--workspace", "--all-features", "--example", name];
                crate::run::done(cargo().args(args))?;
            }
            text_of(program(built).env("MALAI_BENCH_QUICK", "1"))?
        }
    };
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(Some(pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()))
}

fn number(values: &BTreeMap<String, String>, key: &str) -> Outcome<f64> {
    let text = values.get(key).ok_or_else(|| format!("the example printed no {key}"))?;
    text.parse().map_err(|_| format!("the example printed {key}={text}: expected a number"))
}

pub(super) fn milliseconds(median: Median) -> String {
    let Median { median, low, high } = median;
    format!("{:.1} ms ({:.1} to {:.1})", median * 1e3, low * 1e3, high * 1e3)
}
