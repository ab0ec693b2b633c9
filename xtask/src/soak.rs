//! `soak`: the long runs, each by a name, at a scale. A run is a randomised or racing test that is repeated, each time
//! with another seed, which the test prints when it fails.

use std::time::Instant;

use crate::out::say;
use crate::run::{Outcome, cargo, text_of};

/// One long run.
struct Run {
    name: &'static str,
    about: &'static str,
    /// Which tests, after `cargo test --workspace --all-features`; at least one has to match.
    tests: &'static [&'static str],
    /// How many times at scale 1.
    times: f64,
}

/// Every long run.
const RUNS: &[Run] = &[
    Run {
        name: "laws",
        about: "access rules and personalising over made-up clusters",
        tests: &["--test", "properties_acl"],
        times: 100.0,
    },
    Run {
        name: "streams",
        about: "credited streams with writes of random sizes over a slow network, and over connections that are cut",
        tests: &["--lib", "--", "p2p::tests::streams::any_mixture", "p2p::tests::resume::whatever_is_sent"],
        times: 200.0,
    },
    Run {
        name: "races",
        about: "rights taken away while commands start, and partitions while configs are distributed",
        tests: &["--test", "engine", "--", "survives", "partition", "at_once"],
        times: 100.0,
    },
    Run {
        name: "crashes",
        about: "kill -9 of daemons during distribution",
        tests: &["--test", "e2e", "--", "crashes::"],
        times: 50.0,
    },
    Run {
        name: "copies",
        about: "copies that are cut at random places and race with links, and memory with 10 GiB from scale 1 on",
        tests: &["--", "exec::copy::tests::", "copies::"],
        times: 10.0,
    },
    Run {
        name: "bytes",
        about: "bytes in both directions between real processes, at full sizes from scale 1 on",
        // Not those of `copy_streams::`.
        tests: &["--test", "e2e", "--", "streams::", "--skip", "copy_streams::"],
        times: 10.0,
    },
    Run {
        name: "links",
        about: "commands, services, a database and copies over links that are slow and drop, at full sizes from scale 1 on",
        tests: &["--test", "e2e", "--", "resuming::", "databases::", "copy_streams::"],
        times: 5.0,
    },
    Run {
        name: "terminals",
        about: "bulk output, and terminals that take nothing for a minute, at full sizes from scale 1 on",
        tests: &[
            "--test",
            "e2e",
            "--",
            "shells::bulk",
            "shells::control_s",
            "shells::a_terminal_that_is_frozen",
        ],
        times: 5.0,
    },
];

/// Runs the named ones, or all of them.
pub(crate) fn run_scaled(scale: &str, names: &[&str]) -> Outcome {
    let wanted = || format!("--scale {scale}: expected a number above 0 and at most 100");
    let scale: f64 = scale.parse().map_err(|_| wanted())?;
    if !(scale > 0.0 && scale <= 100.0) {
        return Err(wanted());
    }
    if let Some(unknown) = names.iter().find(|name| RUNS.iter().all(|run| run.name != **name)) {
        let known: Vec<&str> = RUNS.iter().map(|run| run.name).collect();
        return Err(format!("no such run: {unknown}; there are {}", known.join(", ")));
    }
    for run in RUNS.iter().filter(|run| names.is_empty() || names.contains(&run.name)) {
        let times = times(run.times, scale);
        say!("soak {}: {}, {times} times", run.name, run.about);
        let started = Instant::now();
        for round in 1..=times {
            once(run, scale)
                .map_err(|error| format!("soak {}, round {round} of {times}: {error}", run.name))?;
        }
        say!("soak {}: {:.1} s", run.name, started.elapsed().as_secs_f64());
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive count")]
fn times(full: f64, scale: f64) -> u32 {
    (full * scale).ceil().max(1.0) as u32
}

fn once(run: &Run, scale: f64) -> Outcome {
    let mut command = cargo();
    command.args(["test", "--workspace", "--all-features"]).args(run.tests);
    if scale >= 1.0 {
        command.env("MALAI_E2E_FULL", "1");
    }
    let text = text_of(&mut command)?;
    if passed(&text) == 0 {
        return Err(format!("no test matches {:?}", run.tests));
    }
    Ok(())
}

/// Adds up the passed tests of what `cargo test` printed.
fn passed(text: &str) -> u32 {
    let counts = text
        .lines()
        .filter_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse::<u32>().ok());
    counts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_matches_nothing_is_noticed() {
        let line = |count| format!("test result: ok. {count} passed; 0 failed; 0 ignored; 3 filtered out\n");
        assert_eq!(passed(&line(0)), 0);
        assert_eq!(passed(&[line(2), line(0), line(1)].concat()), 3);
    }

    #[test]
    fn every_run_happens_at_least_once() {
        assert_eq!((times(200.0, 0.001), times(200.0, 1.0)), (1, 200));
    }
}
