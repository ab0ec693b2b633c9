//! `soak`: the long runs, each by a name, at a scale.

use std::time::Instant;

use crate::out::say;
use crate::run::{Outcome, cargo, done};

/// One long run.
struct Run {
    name: &'static str,
    about: &'static str,
    /// What cargo does; the scale is in its environment as `MALAI_SOAK_SCALE`: 1 is the full length.
    cargo: &'static [&'static str],
}

/// Every long run. Each one prints its own seed and ends with a status other than 0 when something is wrong.
const RUNS: &[Run] = &[];

/// Runs the named ones, or all of them.
pub(crate) fn run_scaled(scale: &str, names: &[&str]) -> Outcome {
    if !scale.parse::<f64>().is_ok_and(|scale| scale > 0.0 && scale <= 100.0) {
        return Err(format!("--scale {scale}: expected a number above 0 and at most 100"));
    }
    if let Some(unknown) = names.iter().find(|name| RUNS.iter().all(|run| run.name != **name)) {
        let known: Vec<&str> = RUNS.iter().map(|run| run.name).collect();
        return Err(format!("no such run: {unknown}; there are {}", known.join(", ")));
    }
    for run in RUNS.iter().filter(|run| names.is_empty() || names.contains(&run.name)) {
        say!("soak {}: {} (scale {scale})", run.name, run.about);
        let started = Instant::now();
        done(cargo().args(run.cargo).env("MALAI_SOAK_SCALE", scale))?;
        say!("soak {}: {:.1} s", run.name, started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Says whether there is anything to run.
pub(crate) fn is_empty() -> bool {
    RUNS.is_empty()
}
