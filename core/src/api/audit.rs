//! This device's audit log, read from its files: with a daemon and without one.

use std::ops::ControlFlow;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use malai_model::audit::{AuditRecord, Head, LineHead, read_head};
use malai_model::duration::parse_duration;
use malai_model::wire::local::{AuditBreakView, AuditCheckView};
use serde_json::Value;
use tokio::sync::mpsc;

use super::Client;
use crate::audit::{self, AuditError, AuditFiles};
use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::home::Home;

/// How many lines are read ahead.
const AHEAD: usize = 256;
/// The fields of a record that name somebody.
const WHO: [&str; 6] = ["peer", "name", "invite", "manager", "author", "id52"];

/// Which records are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only those since then.
    pub since: Option<Since>,
    /// Only those that name somebody: an id52, its beginning, or a machine's name.
    pub peer: Option<String>,
}

/// A time, as people say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

/// A text that is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is how long ago, such as 90m or 7d, or a date, such as 2026-11-29 or 2026-11-29T10:30:00Z")]
pub struct NotATime;

impl FromStr for Since {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        if let Ok(ago) = parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let day = || {
            text.parse::<jiff::civil::Date>()
                .ok()?
                .to_zoned(jiff::tz::TimeZone::UTC)
                .ok()
                .map(|day| day.timestamp())
        };
        text.parse().ok().or_else(day).map(Self::At).ok_or(NotATime)
    }
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// It, as it stands in the file. Words in it are a peer's: as JSON they are escaped, but direction marks are not.
    pub raw: String,
    /// What holds it in its place; absent if it is no record.
    pub head: Option<LineHead>,
    /// What it says; absent if it is no record, or one of a newer version.
    pub record: Option<AuditRecord>,
}

/// Records, one by one.
#[derive(Debug)]
pub struct AuditRecords {
    lines: mpsc::Receiver<Result<AuditLine, AuditError>>,
}

impl AuditRecords {
    /// Returns the next, the oldest first; `None` at the end.
    ///
    /// # Errors
    /// When a file cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<AuditLine>, Error> {
        Ok(self.lines.recv().await.transpose()?)
    }
}

impl Client {
    /// Reads the audit log of this device.
    pub fn audit_records(&self, query: AuditQuery) -> AuditRecords {
        let (send, lines) = mpsc::channel(AHEAD);
        let home = self.home().clone();
        let since = query.since.and_then(|since| match since {
            Since::Ago(ago) => SystemClock.now().checked_sub(ago).ok(),
            Since::At(time) => Some(time),
        });
        self.tasks().spawn("audit records", async move {
            let reading = tokio::task::spawn_blocking(move || {
                if let Err(error) = read(&home, since, query.peer.as_deref(), &send) {
                    // Whoever asked has gone, or hears of it.
                    _ = send.blocking_send(Err(error));
                }
            });
            // A panic has been told of, and ends the records.
            _ = reading.await;
        });
        AuditRecords { lines }
    }

    /// Checks the chain of the audit log of this device; `known` is a record that has to be in it.
    ///
    /// # Errors
    /// When a file cannot be read. A broken chain is an answer.
    pub async fn verify_audit(&self, known: Option<Head>) -> Result<AuditCheckView, Error> {
        let home = self.home().clone();
        let checked = tokio::task::spawn_blocking(move || audit::check(&home, known)).await;
        let checked = checked.map_err(|_| Error::OutOfTurn)??;
        let report = checked.report;
        let place = checked.place;
        Ok(AuditCheckView {
            whole: report.broken.is_none() && checked.known.is_none(),
            files: checked.files as u64,
            records: report.lines,
            first: report.first,
            end: report.head.map(|head| head.to_string()),
            breaks: report.breaks,
            first_break: report.broken.zip(place).map(|(broken, (file, line))| AuditBreakView {
                file: file.display().to_string(),
                line,
                record: broken.seq,
                problem: broken.kind.to_string(),
            }),
            known: checked.known,
            torn: report.torn,
        })
    }
}

fn read(
    home: &Home,
    since: Option<Timestamp>,
    peer: Option<&str>,
    send: &mpsc::Sender<Result<AuditLine, AuditError>>,
) -> Result<(), AuditError> {
    AuditFiles::open(home)?.lines(|line| {
        let head = read_head(line.bytes).ok();
        // What is no record is shown unless something else was asked for.
        let wanted = match &head {
            Some(head) => since.is_none_or(|since| head.time >= since) && names(line.bytes, peer),
            None => since.is_none() && peer.is_none() && line.whole,
        };
        if !wanted {
            return ControlFlow::Continue(());
        }
        let line = AuditLine {
            raw: String::from_utf8_lossy(line.bytes).into_owned(),
            record: head.and_then(|_| serde_json::from_slice(line.bytes).ok()),
            head,
        };
        if send.blocking_send(Ok(line)).is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

/// Whether a record names somebody.
fn names(line: &[u8], peer: Option<&str>) -> bool {
    let Some(peer) = peer else { return true };
    let Ok(record) = serde_json::from_slice::<Value>(line) else { return false };
    WHO.iter().any(|field| match record.get(field).and_then(Value::as_str) {
        Some(text) if *field == "name" => text == peer,
        // A few characters mean nobody.
        Some(text) => text == peer || peer.len() >= 6 && text.starts_with(peer),
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_an_age_a_day_or_an_instant() {
        let at = |text: &str| Since::At(text.parse().expect("a time"));
        assert_eq!("90m".parse(), Ok(Since::Ago(Duration::from_secs(5400))));
        assert_eq!("2026-11-29".parse(), Ok(at("2026-11-29T00:00:00Z")));
        assert_eq!("2026-11-29T10:30:00Z".parse(), Ok(at("2026-11-29T10:30:00Z")));
        assert_eq!("2026-11-29T10:30:00+01:00".parse(), Ok(at("2026-11-29T09:30:00Z")));
        for text in ["", "yesterday", "10", "2026-13-01"] {
            assert_eq!(text.parse::<Since>(), Err(NotATime), "{text}");
        }
    }

    #[test]
    fn somebody_is_named_by_id_its_beginning_or_name() {
        let line = br#"{"peer":"abcdefgh","name":"web01","command":"laptop"}"#;
        for who in ["abcdefgh", "abcdef", "web01"] {
            assert!(names(line, Some(who)), "{who}");
        }
        for who in ["abc", "web0", "laptop", ""] {
            assert!(!names(line, Some(who)), "{who}");
        }
        assert!(names(line, None));
    }
}
