//! Rows about distance: a way over UDP with a round trip of 50 ms.

use std::process::Stdio;
use std::time::Duration;

use malai_testkit::{Cluster, TestNet};

use super::Size;
use super::measure::{interleaved, timed};
use super::rows::{Row, milliseconds};
use super::terminal::Terminal;
use crate::run::Outcome;

const ONE_WAY: Duration = Duration::from_millis(25);

/// Measures in a net of its own; no figures where there is no IPv6 to keep the direct way shut.
pub(super) fn measure(size: Size, net: &TestNet) -> Outcome<Vec<Row>> {
    let Some((cluster, link)) = Cluster::linked(net) else {
        return match size {
            Size::Full => Err("the rows about distance need IPv6 on loopback".to_owned()),
            Size::Quick => Ok(Vec::new()),
        };
    };
    let rounds = if size == Size::Full { 15 } else { 1 };
    let (laptop, desk) = (cluster.home("laptop"), cluster.home("desk"));
    let both = || {
        interleaved(
            rounds,
            &mut [&mut || timed(&mut laptop.plain_command(["web01.company", "true"]), 0), &mut || {
                timed(&mut desk.plain_command(["web01.company", "true"]), 0)
            }],
        )
    };
    let near = both()?;
    link.delay(ONE_WAY);
    let far = both()?;
    let trips = |index: usize| (far[index].median - near[index].median) / (2.0 * ONE_WAY.as_secs_f64());
    let (cold, warm) = (trips(0), trips(1));
    let attach = attach(size, &cluster)?;
    Ok(vec![
        Row {
            name: "cold `true` over a round trip of 50 ms",
            malai: milliseconds(far[0]),
            beside: format!("without the delay {}", milliseconds(near[0])),
            wanted: "3 round trips or fewer",
            came_out: format!("{cold:.1} round trips"),
            met: Some(cold < 3.05),
            limit: "the handshake, then the request with its answer; the end is not waited for",
        },
        Row {
            name: "warm `true` over a round trip of 50 ms",
            malai: milliseconds(far[1]),
            beside: format!("without the delay {}", milliseconds(near[1])),
            wanted: "1 round trip",
            came_out: format!("{warm:.1} round trips"),
            met: Some(warm < 1.1),
            limit: "the request and its answer; a connection that was silent for more than 8 s is asked first whether it lives",
        },
        Row {
            name: "coming back to a session over a round trip of 50 ms",
            malai: format!("{:.0} ms", attach * 1e3),
            beside: "from the start of the process to its screen".to_owned(),
            wanted: "one round trip and 50 ms: 100 ms or less",
            came_out: format!("{:.0} ms", attach * 1e3),
            met: Some(attach <= 0.1),
            limit: "one request, and the screen with its answer",
        },
    ])
}

/// Seconds from starting a client to the screen of the session.
fn attach(size: Size, cluster: &Cluster) -> Outcome<f64> {
    let desk = cluster.home("desk");
    let script = "printf READY; sleep 3000";
    let output = desk
        .plain_command(["--detach", "web01.company", "sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("starting malai: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let session = text.split_whitespace().next().ok_or("a session did not begin")?;
    let mut took = Vec::new();
    for _ in 0..if size == Size::Full { 15 } else { 1 } {
        let began = std::time::Instant::now();
        let words = ["shell", "web01.company", "--attach", session];
        let terminal = Terminal::open(&mut desk.plain_command(words))?;
        took.push(began.elapsed().as_secs_f64());
        drop(terminal);
    }
    let ended = desk
        .plain_command(["sessions", "web01.company", "--end", session])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    ended.map_err(|error| format!("ending a session: {error}"))?;
    took.sort_by(f64::total_cmp);
    Ok(took[took.len() / 2])
}
