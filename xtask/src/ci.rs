//! `ci`: every check, in the order of its cost; the first failure ends it.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::out::say;
use crate::run::{Outcome, SAME, cargo, done, is_ci, program, root, target_dir, which};
use crate::{arch, bench, bindings, demo, soak};

/// How a check ended that did not fail.
enum Ended {
    Passed,
    /// It cannot run here, and why: a failure on CI.
    NotRun(String),
}

/// UniFFI's generator takes longer to read than everything of ours, and ours of it is one line.
const NO_GENERATOR: [&str; 2] = ["--exclude", "malai-bindgen"];

type Check = fn() -> Outcome<Ended>;

/// One feature set for all of cargo's checks, so that each crate is built once: `--workspace --all-features`, with what
/// the tests need.
const CHECKS: &[(&str, Check)] = &[
    ("format", || passed(cargo().args(["fmt", "--all", "--check"]))),
    ("arch", || arch::run().map(|()| Ended::Passed)),
    ("spelling", || if_installed("typos", program("typos").arg("--quiet"))),
    ("dependencies", || {
        let args =
            ["deny", "--all-features", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
        if_installed("cargo-deny", cargo().args(args))
    }),
    ("clippy", || {
        let args = ["clippy", "--quiet", "--workspace", "--all-targets", "--all-features"];
        passed(cargo().args(args).args(NO_GENERATOR).args(["--", "-D", "warnings"]))
    }),
    // What phones build: without `host` and `daemon`. Features add up over a workspace, so no other check sees it.
    ("clippy, as phones build", || {
        passed(cargo().args([
            "clippy",
            "--quiet",
            "-p",
            "malai-ffi",
            "-p",
            "malai-core",
            "--",
            "-D",
            "warnings",
        ]))
    }),
    ("tests", tests),
    ("docs", || {
        let command = &mut cargo();
        passed(
            command
                .args(["doc", "--quiet", "--no-deps"])
                .args(SAME)
                .args(NO_GENERATOR)
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    }),
    ("bindings", || match which("python3") {
        Some(_) => bindings::run().map(|()| Ended::Passed),
        None => Ok(Ended::NotRun("python3 is not installed".to_owned())),
    }),
    ("demo", || demo::run(Some(&target_dir().join("debug").join("malai"))).map(|()| Ended::Passed)),
    ("bench, scaled down", || match bench::missing() {
        None => bench::run(bench::Size::Quick, &[]).map(|()| Ended::Passed),
        Some(missing) => Ok(Ended::NotRun(missing)),
    }),
    // Once each: the tests themselves were just run, this is about the rig and other seeds.
    ("soak, scaled down", || {
        soak::run_scaled("0.001", &["laws", "streams", "crashes"]).map(|()| Ended::Passed)
    }),
];

/// Runs the checks. The last line says how many passed and failed.
pub(crate) fn run() -> Outcome {
    let started = Instant::now();
    let mut summary = Vec::new();
    let (mut passed, mut failure) = (0, None);
    for (name, check) in CHECKS {
        say!("\n== {name}");
        let began = Instant::now();
        let result = check();
        let took = seconds(began.elapsed());
        let why = match result {
            Ok(Ended::Passed) => {
                passed += 1;
                summary.push(format!("{took}  passed   {name}"));
                continue;
            }
            Ok(Ended::NotRun(why)) if !is_ci() => {
                say!("not run: {why}");
                summary.push(format!("{took}  not run  {name}: {why}"));
                continue;
            }
            Ok(Ended::NotRun(why)) => format!("cannot run: {why}"),
            Err(why) => why,
        };
        summary.push(format!("{took}  FAILED   {name}"));
        failure = Some(format!("{name}: {why}"));
        break;
    }
    say!("\n== summary");
    summary.iter().for_each(|line| say!("{line}"));
    say!("{}  in all", seconds(started.elapsed()));
    if let Some(failure) = &failure {
        let left = CHECKS.len() - summary.len();
        say!("\n{failure}\n({left} checks after it were not tried)");
    }
    say!("{passed} passed, {} failed", usize::from(failure.is_some()));
    match failure {
        None => Ok(()),
        Some(failure) => Err(failure.lines().next().unwrap_or_default().to_owned()),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:7.1} s", time.as_secs_f64())
}

fn passed(command: &mut Command) -> Outcome<Ended> {
    done(command).map(|()| Ended::Passed)
}

fn if_installed(name: &str, command: &mut Command) -> Outcome<Ended> {
    match which(name) {
        Some(_) => passed(command),
        None => Ok(Ended::NotRun(format!("{name} is not installed"))),
    }
}

fn tests() -> Outcome<Ended> {
    let all = ["--workspace", "--all-features"];
    if which("cargo-nextest").is_some() && root().join(".config/nextest.toml").is_file() {
        let profile = if is_ci() { "ci" } else { "default" };
        done(cargo().args(["nextest", "run", "--profile", profile]).args(all))?;
        // nextest leaves out the examples in the documentation.
        return passed(cargo().args(["test", "--quiet", "--doc"]).args(all));
    }
    // Most tests wait for processes and deadlines more than they compute: so many at once leave no core idle.
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get) * 3;
    passed(cargo().args(["test", "--no-fail-fast"]).args(all).env("RUST_TEST_THREADS", threads.to_string()))
}
