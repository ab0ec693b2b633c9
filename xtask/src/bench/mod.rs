//! `bench`: malai beside OpenSSH in one run, on loopback; medians of interleaved rounds.

mod link;
mod measure;
mod report;
mod rows;
mod sshd;
mod terminal;
mod transfer;
mod warm;

use std::path::PathBuf;

use malai_testkit::{Cluster, TestNet};

use crate::out::say;
use crate::run::{Outcome, cargo, done, root, target_dir, which};
use rows::{Rig, Row};
use sshd::Sshd;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// The release build, 30 rounds, into `docs/benchmarks.md`.
    Full,
    /// The dev build, a few rounds and small sizes: that every row runs and is sane, no figures.
    Quick,
}

/// Says what is missing on this machine, if anything is.
pub(crate) fn missing() -> Option<String> {
    let missing: Vec<&str> = ["sshd", "ssh", "scp", "ssh-keygen", "diff", "bash"]
        .into_iter()
        .filter(|name| which(name).is_none())
        .collect();
    (!missing.is_empty()).then(|| format!("not installed: {}", missing.join(", ")))
}

/// What can be measured by itself.
const PARTS: [&str; 5] = ["commands", "warm", "transfer", "terminal", "link"];

/// Measures everything, or the parts that are named: then the page is left as it is.
pub(crate) fn run(size: Size, only: &[&str]) -> Outcome {
    if let Some(missing) = missing() {
        return Err(missing);
    }
    if let Some(unknown) = only.iter().find(|name| !PARTS.contains(name)) {
        return Err(format!("there is no part {unknown:?} to measure; there are: {}", PARTS.join(", ")));
    }
    let wanted = |part: &str| only.is_empty() || only.contains(&part);
    let binary = binary(size)?;
    let net = TestNet::new(&binary);
    let sshd = Sshd::start(net.path())?;
    let far = TestNet::new(&binary);
    let logs = net.clone();
    let rows = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut cluster =
            Cluster::with_config(&net, &["web01", "laptop"], &[("web01", "allow_from = \"laptop\"")], "");
        // Five hundred sessions of one peer are more than a machine lets it have unless told.
        cluster.member("web01").stop();
        cluster.home("web01").add_to_malai_toml("[limits]\nsessions_per_peer = 1000");
        cluster.member("web01").start();
        // Cold means: no daemon beside the caller that could hold a connection.
        cluster.member("laptop").stop();
        let mut rows = Vec::new();
        if wanted("commands") {
            let rig = Rig { size, binary: binary.clone(), sshd: &sshd, cluster: &cluster };
            rows.extend(told(size, rows::measure(&rig)?));
        }
        // From here on the caller has a daemon, as people have.
        cluster.member("laptop").start();
        let rig = Rig { size, binary, sshd: &sshd, cluster: &cluster };
        if wanted("warm") {
            rows.extend(told(size, warm::measure(&rig)?));
        }
        if wanted("transfer") {
            rows.extend(told(size, transfer::measure(&rig)?));
        }
        if wanted("terminal") {
            rows.extend(told(size, terminal::measure(&rig)?));
        }
        if wanted("link") {
            rows.extend(told(size, link::measure(size, &far)?));
        }
        Ok(rows)
    }))
    .unwrap_or_else(|_| Err("the cluster to measure did not come up".to_owned()))
    .map_err(|error| format!("{error}\n{}", logs.logs()))?;
    drop(net);

    if size == Size::Full && only.is_empty() {
        let path = root().join("docs").join("benchmarks.md");
        std::fs::create_dir_all(root().join("docs")).map_err(|source| format!("making docs/: {source}"))?;
        std::fs::write(&path, report::markdown(&rows)?)
            .map_err(|source| format!("writing {}: {source}", path.display()))?;
        say!("written: docs/benchmarks.md");
    }
    Ok(())
}

/// Says what was measured as soon as it was: what comes after it may fail.
fn told(size: Size, rows: Vec<Row>) -> Vec<Row> {
    rows.iter().for_each(|row| say!("{}", row.line(size)));
    rows
}

fn binary(size: Size) -> Outcome<PathBuf> {
    let (profile, folder): (&[&str], &str) = match size {
        Size::Full => (&["--release"], "release"),
        Size::Quick => (&[], "debug"),
    };
    let path = target_dir().join(folder).join("malai");
    if size == Size::Full || !path.is_file() {
        say!("Building malai ({folder}) …");
        done(cargo().args(["build", "--quiet", "--package", "malai"]).args(profile))?;
    }
    Ok(path)
}
