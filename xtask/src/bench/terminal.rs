//! Rows about shells: how soon a key shows, and what idle sessions cost.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};

use super::Size;
use super::rows::{Rig, Row};
use crate::run::Outcome;

/// How long a terminal may show nothing.
const PATIENCE: Duration = Duration::from_secs(20);
/// A shell whose prompt is known and that reads no files of its user's.
const SHELL: [&str; 4] = ["env", "PS1=READY", "bash", "--norc"];
const PROMPT: &[u8] = b"READY";

pub(super) fn measure(rig: &Rig<'_>) -> Outcome<Vec<Row>> {
    let mut rows = vec![keys(rig)?];
    rows.extend(idle_sessions(rig)?);
    Ok(rows)
}

fn keys(rig: &Rig<'_>) -> Outcome<Row> {
    let batches = if rig.size == Size::Full { 60 } else { 2 };
    let laptop = rig.cluster.home("laptop");
    let mut ssh = Terminal::open(&mut rig.sshd.ssh(&["-tt"], &SHELL))?;
    let words = ["-t", "web01.company"].into_iter().chain(SHELL);
    let mut malai = Terminal::open(&mut laptop.plain_command(words))?;
    let (mut by_ssh, mut by_malai) = (Vec::new(), Vec::new());
    for batch in 0..=batches {
        for (terminal, times) in [(&mut ssh, &mut by_ssh), (&mut malai, &mut by_malai)] {
            let took = terminal.type_line()?;
            if batch > 0 {
                times.extend(took);
            }
        }
    }
    let (ssh, malai) = (Percentiles::of(by_ssh), Percentiles::of(by_malai));
    let ratio = malai.p99 / ssh.p99;
    Ok(Row {
        name: "a key's echo in a shell",
        malai: malai.text(),
        beside: format!("ssh {}", ssh.text()),
        wanted: "p99 of 1.5 times ssh's, or less",
        came_out: format!("{ratio:.2}"),
        met: Some(ratio <= 1.5),
        limit: "eight changes of process where ssh has four, the session's own process among them; each may have to wake a core that rests",
    })
}

/// What sessions that nobody uses cost, in the daemon and each in its own process.
fn idle_sessions(rig: &Rig<'_>) -> Outcome<Vec<Row>> {
    let count = if rig.size == Size::Full { 500 } else { 5 };
    let laptop = rig.cluster.home("laptop");
    let mut opened = Vec::new();
    for _ in 0..count {
        let output = laptop
            .plain_command(["--detach", "web01.company", "sleep", "3000"])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("starting malai: {error}"))?;
        if !output.status.success() {
            return Err(format!("a session did not begin: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        opened.push(text.split_whitespace().next().unwrap_or_default().to_owned());
    }
    let daemon = rig.resident_mib("web01")?.ok_or("the daemon's memory cannot be read here")?;
    let (each, largest) = session_processes(rig)?;
    for session in &opened {
        let ended = laptop
            .plain_command(["sessions", "web01.company", "--end", session])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        ended.map_err(|error| format!("ending a session: {error}"))?;
    }
    Ok(vec![
        Row {
            name: "the daemon with 500 idle sessions, resident",
            malai: format!("{daemon:.1} MiB"),
            beside: "without the sessions' own processes".to_owned(),
            wanted: "150 MiB or less",
            came_out: format!("{daemon:.1} MiB"),
            met: Some(daemon <= 150.0),
            limit: "a session that nobody is attached to is a file to the daemon",
        },
        Row {
            name: "an idle session's own process",
            malai: format!("{each:.2} MiB of its own in the middle, {largest:.2} at most"),
            beside: "shared pages of the binary by their share (PSS)".to_owned(),
            wanted: "4 MiB or less",
            came_out: format!("{largest:.2} MiB"),
            met: Some(largest <= 4.0),
            limit: "the screen, and the relocated pages of a large binary",
        },
    ])
}

/// The proportional share of memory of every session process of this run: the middle and the largest, in MiB.
fn session_processes(rig: &Rig<'_>) -> Outcome<(f64, f64)> {
    let net = rig.cluster.home("laptop").net().binary().to_owned();
    let mut sizes = Vec::new();
    let entries = std::fs::read_dir("/proc").map_err(|error| format!("reading /proc: {error}"))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let argv = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let same = std::fs::read_link(path.join("exe")).is_ok_and(|exe| exe == net);
        if !same || !argv.starts_with(b"malai-session") {
            continue;
        }
        let text = std::fs::read_to_string(path.join("smaps_rollup")).unwrap_or_default();
        let pss =
            text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok());
        sizes.extend(pss.map(|kib: f64| kib / 1024.0));
    }
    sizes.sort_by(f64::total_cmp);
    match (sizes.get(sizes.len() / 2), sizes.last()) {
        (Some(middle), Some(largest)) => Ok((*middle, *largest)),
        _ => Err("no session process was found".to_owned()),
    }
}

#[derive(Debug, Clone, Copy)]
struct Percentiles {
    p50: f64,
    p99: f64,
}

impl Percentiles {
    fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |hundredths: usize| seconds[(seconds.len() - 1) * hundredths / 100];
        Self { p50: at(50), p99: at(99) }
    }

    fn text(self) -> String {
        format!("p50 {:.2} ms, p99 {:.2} ms", self.p50 * 1e3, self.p99 * 1e3)
    }
}

/// A program on a terminal of ours.
pub(super) struct Terminal {
    child: Child,
    screen: File,
}

impl Terminal {
    /// Starts a program and waits for the shell's prompt.
    pub(super) fn open(command: &mut Command) -> Outcome<Self> {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).map_err(|error| format!("making a terminal: {error}"))?;
        let slave = || pty.slave.try_clone().map_err(|error| format!("making a terminal: {error}"));
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(slave()?)
            .stdout(slave()?)
            .stderr(slave()?)
            .spawn()
            .map_err(|error| format!("starting {command:?}: {error}"))?;
        let mut terminal = Self { child, screen: File::from(pty.master) };
        terminal.await_text(PROMPT)?;
        Ok(terminal)
    }

    /// Types forty letters, each when the one before has shown, and wipes the line.
    fn type_line(&mut self) -> Outcome<Vec<f64>> {
        let mut times = Vec::new();
        for index in 0..40_u8 {
            let letter = b'a' + index % 26;
            let began = Instant::now();
            self.press(&[letter])?;
            self.await_text(&[letter])?;
            times.push(began.elapsed().as_secs_f64());
        }
        // Ctrl-U, and a new line for a prompt.
        self.press(b"\x15\r")?;
        self.await_text(PROMPT)?;
        Ok(times)
    }

    fn press(&mut self, keys: &[u8]) -> Outcome {
        self.screen.write_all(keys).map_err(|error| format!("typing: {error}"))
    }

    fn await_text(&mut self, wanted: &[u8]) -> Outcome {
        let until = Instant::now() + PATIENCE;
        let (mut seen, mut block) = (Vec::new(), [0; 4096]);
        loop {
            if seen.windows(wanted.len()).any(|window| window == wanted) {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.screen.as_fd(), PollFlags::POLLIN)];
            let ready =
                poll(&mut fds, timeout).map_err(|error| format!("waiting for a terminal: {error}"))?;
            if ready == 0 || left.is_zero() {
                let (wanted, seen) = (String::from_utf8_lossy(wanted), String::from_utf8_lossy(&seen));
                return Err(format!("the terminal does not show {wanted:?} but {seen:?}"));
            }
            match self.screen.read(&mut block) {
                Ok(count) if count > 0 => seen.extend_from_slice(&block[..count]),
                Ok(_) => return Err("the terminal is closed".to_owned()),
                Err(error) => return Err(format!("reading a terminal: {error}")),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
