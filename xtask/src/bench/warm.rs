//! Rows about a connection that is open already: through the daemon, beside ssh's multiplexing.

use super::Size;
use super::measure::{interleaved, timed};
use super::rows::{MIB, Rig, Row, milliseconds};
use crate::run::Outcome;

/// Measures; the caller's daemon runs by now.
pub(super) fn measure(rig: &Rig<'_>) -> Outcome<Vec<Row>> {
    let master = rig.sshd.master()?;
    Ok(vec![warm_true(rig, &master.options())?, warm_bulk(rig)?])
}

fn warm_true(rig: &Rig<'_>, mux: &[&str]) -> Outcome<Row> {
    let rounds = if rig.size == Size::Full { 100 } else { 2 };
    let laptop = rig.cluster.home("laptop");
    let medians = interleaved(
        rounds,
        &mut [&mut || timed(&mut rig.sshd.ssh(mux, &["true"]), 0), &mut || {
            timed(&mut laptop.plain_command(["web01.company", "true"]), 0)
        }],
    )?;
    let ratio = medians[1].median / medians[0].median;
    Ok(Row {
        name: "warm `true` through the daemon",
        malai: milliseconds(medians[1]),
        beside: format!("ssh by a ControlMaster {}", milliseconds(medians[0])),
        wanted: "0.5 or less of ssh's",
        came_out: format!("{ratio:.2}"),
        met: Some(ratio <= 0.5),
        limit: "starting this process and the remote one; between them one exchange over the socket and one over QUIC; the \
                audit log's record before the start is in it",
    })
}

fn warm_bulk(rig: &Rig<'_>) -> Outcome<Row> {
    let bytes = if rig.size == Size::Full { 1024 * MIB } else { 8 * MIB };
    let count = bytes.to_string();
    let words = ["head", "-c", &count, "/dev/zero"];
    let laptop = rig.cluster.home("laptop");
    let malai: Vec<&str> = ["web01.company"].into_iter().chain(words).collect();
    let medians = interleaved(
        if rig.size == Size::Full { 10 } else { 1 },
        &mut [&mut || timed(&mut rig.sshd.ssh(&[], &words), bytes), &mut || {
            timed(&mut laptop.plain_command(&malai), bytes)
        }],
    )?;
    #[expect(clippy::cast_precision_loss, reason = "a size to show")]
    let speed = |seconds: f64| bytes as f64 / 1e6 / seconds;
    let ratio = medians[0].median / medians[1].median;
    Ok(Row {
        name: "1 GiB of stdout through the daemon",
        malai: format!("{:.0} MB/s", speed(medians[1].median)),
        beside: format!("ssh {:.0} MB/s by its default cipher", speed(medians[0].median)),
        wanted: "1.0 or more of the default cipher",
        came_out: format!("{ratio:.2}"),
        met: Some(ratio >= 1.0),
        limit: "one more copy, through the socket between the daemon and the command line",
    })
}
