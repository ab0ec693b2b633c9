//! Rounds, medians and what ran in them.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::Outcome;

/// The middle of some durations, with the quarter points beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Median {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Median {
    /// Takes them from seconds; there must be at least one.
    pub(super) fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |part: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a position between 0 and the length"
            )]
            let index = (part * (seconds.len() - 1) as f64).round() as usize;
            seconds[index]
        };
        Self { median: at(0.5), low: at(0.25), high: at(0.75) }
    }
}

/// Runs each contender once a round, one after the other, so that a busy moment hits all alike; the first round does
/// not count.
pub(super) fn interleaved(
    rounds: usize,
    contenders: &mut [&mut dyn FnMut() -> Outcome<Duration>],
) -> Outcome<Vec<Median>> {
    let mut seconds = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for (contender, seconds) in contenders.iter_mut().zip(&mut seconds) {
            let took = contender()?;
            if round > 0 {
                seconds.push(took.as_secs_f64());
            }
        }
    }
    Ok(seconds.into_iter().map(Median::of).collect())
}

/// Runs a process to its end and requires the status 0 and so many bytes of stdout, which are read and dropped.
pub(super) fn timed(command: &mut Command, bytes: u64) -> Outcome<Duration> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| format!("starting {command:?}: {source}"))?;
    let mut block = vec![0; 1 << 20];
    let mut total = 0;
    if let Some(stdout) = &mut child.stdout {
        loop {
            let count =
                stdout.read(&mut block).map_err(|source| format!("reading from {command:?}: {source}"))?;
            if count == 0 {
                break;
            }
            total += count as u64;
        }
    }
    let status = child.wait().map_err(|source| format!("waiting for {command:?}: {source}"))?;
    let took = started.elapsed();
    if !status.success() || total != bytes {
        let mut stderr = String::new();
        if let Some(mut pipe) = child.stderr.take() {
            let _ = pipe.read_to_string(&mut stderr);
        }
        return Err(format!("{command:?}: {status}, {total} bytes of {bytes}\n{stderr}"));
    }
    Ok(took)
}

/// Runs a process that gives back what it is given, and requires the status 0 and all of the bytes.
pub(super) fn timed_through(command: &mut Command, bytes: u64) -> Outcome<Duration> {
    let failed = |what: &str, source: std::io::Error| format!("{what}: {source}");
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| failed("starting a program to go through", source))?;
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("a pipe is missing".to_owned());
    };
    let feeder = std::thread::spawn(move || -> std::io::Result<()> {
        let block = vec![0x5a; 256 * 1024];
        let mut left = bytes;
        while left > 0 {
            let take = usize::try_from(left.min(block.len() as u64)).unwrap_or(block.len());
            stdin.write_all(&block[..take])?;
            left -= take as u64;
        }
        Ok(())
    });
    let mut block = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match stdout.read(&mut block).map_err(|source| failed("reading", source))? {
            0 => break,
            count => total += count as u64,
        }
    }
    let status = child.wait().map_err(|source| failed("waiting", source))?;
    let took = started.elapsed();
    let fed = feeder.join().map_err(|_| "the feeding thread failed".to_owned())?;
    fed.map_err(|source| failed("writing", source))?;
    if !status.success() || total != bytes {
        return Err(format!("{command:?}: {status}, {total} bytes of {bytes}"));
    }
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        let median = Median::of(vec![5.0, 1.0, 2.0, 4.0, 3.0]);
        assert_eq!(median, Median { median: 3.0, low: 2.0, high: 4.0 });
    }

    #[test]
    fn the_first_round_does_not_count() {
        let mut calls = 0;
        let mut first = || {
            calls += 1;
            Ok(Duration::from_secs(if calls == 1 { 100 } else { 1 }))
        };
        let medians = interleaved(3, &mut [&mut first]).expect("runs");
        assert_eq!((medians[0].high, calls), (1.0, 4));
    }

    #[test]
    fn what_goes_through_is_counted() {
        assert!(timed_through(&mut Command::new("cat"), 3 << 20).is_ok());
        assert!(timed_through(Command::new("head").args(["-c", "10"]), 3 << 20).is_err());
    }

    #[test]
    fn a_wrong_length_or_status_is_an_error() {
        assert!(timed(Command::new("echo").arg("abc"), 4).is_ok());
        assert!(timed(Command::new("echo").arg("abc"), 5).is_err());
        assert!(timed(&mut Command::new("false"), 0).is_err());
    }
}
