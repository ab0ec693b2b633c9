//! The audit log as lines for people. Words in it are peers': they are escaped.

use std::fmt::Write;

use malai_core::api::{AuditCheckView, AuditLine, KnownRecord};
use malai_core::model::audit::{AuditEvent, AuditRecord, By, Outcome, Wanted};
use malai_core::model::code::ErrorCode;
use malai_core::model::text::escape_control;
use malai_core::model::wire::AttachMode;

/// One record, in one line.
pub(crate) fn line(line: &AuditLine) -> String {
    let (Some(head), Some(record)) = (&line.head, &line.record) else {
        let what = if line.head.is_some() { "a record of a newer malai" } else { "no record" };
        return format!("{what}: {}", escape_control(&line.raw));
    };
    let cluster = record.cluster.as_ref().map_or("-", |cluster| cluster.as_str());
    format!("{:.0}  {:>6}  {cluster}  {}", head.time, head.seq, escape_control(&said(record)))
}

fn said(record: &AuditRecord) -> String {
    match &record.event {
        AuditEvent::DaemonStarted { version, pid } => {
            format!("the daemon started, malai {version}, pid {pid}")
        }
        AuditEvent::DaemonStopped {} => "the daemon stopped".to_owned(),
        AuditEvent::CommandStarted { by, command, user } => {
            format!("{} runs {command:?} as {user}", who(by))
        }
        AuditEvent::CommandEnded { by, command, started, outcome, status, code, duration_ms } => {
            let end = end(*outcome, *status, *code, *duration_ms, *started);
            format!("{}'s {command:?} {end}", who(by))
        }
        AuditEvent::SessionStarted { by, command: None, user } => {
            format!("{} opens a shell as {user}", who(by))
        }
        AuditEvent::SessionStarted { by, command: Some(command), user } => {
            format!("{} runs {command:?} in a session as {user}", who(by))
        }
        AuditEvent::SessionOpened { by, session, started } => {
            format!("{}'s session {session} runs{}", who(by), of(*started))
        }
        AuditEvent::SessionAttached { by, session, mode } => {
            let how = if *mode == AttachMode::Watch { "watches" } else { "attaches to" };
            format!("{} {how} the session {session}", who(by))
        }
        AuditEvent::SessionEnded { by, session, started, outcome, status, code, duration_ms } => {
            let name = session.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
            let end = end(*outcome, *status, *code, *duration_ms, *started);
            format!("{}'s session{name} {end}", who(by))
        }
        AuditEvent::SessionGone { by, session, status, .. } => {
            let status = status.map(|status| format!(": its program had ended with status {status}"));
            format!("{}'s session {session} is no more{}", who(by), status.unwrap_or_default())
        }
        AuditEvent::ServiceOpened { by, service } => {
            format!("{} connects to the service {service}", who(by))
        }
        AuditEvent::ServiceClosed { by, service, started, outcome, code, duration_ms } => {
            let end = end(*outcome, None, *code, *duration_ms, *started);
            format!("{}'s connection to the service {service} {end}", who(by))
        }
        AuditEvent::Denied { by, wanted, asked, reason } => {
            let asked = asked.as_ref().map(|asked| format!(" {asked:?}")).unwrap_or_default();
            format!("DENIED {}: {}{asked}: {reason}", who(by), noun(*wanted))
        }
        AuditEvent::DeniedAgain { by, wanted, asked, count, within_ms } => {
            let mut text = format!(
                "DENIED {}: {} {count} more times within {}",
                who(by),
                noun(*wanted),
                time(*within_ms)
            );
            for (number, asked) in asked.iter().enumerate() {
                _ = write!(text, "{}{asked:?}", if number == 0 { ": " } else { ", " });
            }
            text
        }
        AuditEvent::ConfigApplied { digest, serial, author, .. } => {
            let serial = serial.map(|serial| format!(", serial {serial}")).unwrap_or_default();
            let digest = digest.get(..12).unwrap_or(digest);
            format!("a config of {} is in force{serial}, digest {digest}…", author.short())
        }
        AuditEvent::ConfigRefused { by, code } => format!("refused a config of {}: {code}", who(by)),
        AuditEvent::ClusterGone {} => "the cluster is gone from this device".to_owned(),
        AuditEvent::InviteCreated { invite, label, expires, max_uses, .. } => {
            let label = label.as_ref().map(|label| format!(" {label:?}")).unwrap_or_default();
            format!("an invite{label} was made, {} for {max_uses}, until {expires:.0}", invite.short())
        }
        AuditEvent::InviteRevoked { invite } => format!("the invite {} was revoked", invite.short()),
        AuditEvent::MachineJoined { peer, name, invite } => {
            format!("{name} ({}) joined by the invite {}", peer.short(), invite.short())
        }
        AuditEvent::Joined { manager, name } => {
            let name = name.as_ref().map(|name| format!(" as {name}")).unwrap_or_default();
            format!("this device joined the cluster of {}{name}", manager.short())
        }
        AuditEvent::KeyMade { id52, .. } => format!("a key was made: {}", id52.short()),
        AuditEvent::RecordsLost { count } => format!("{count} records could not be written"),
        AuditEvent::TornLine { bytes } => format!("the last line had been cut off: {bytes} bytes removed"),
        _ => "something that this version does not know".to_owned(),
    }
}

fn who(by: &By) -> String {
    match (&by.name, by.here) {
        (_, true) => "this device's user".to_owned(),
        (Some(name), false) => format!("{name} ({})", by.peer.short()),
        (None, false) => by.peer.short(),
    }
}

fn noun(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Connection => "to connect",
        Wanted::Request => "a request",
        Wanted::Command => "the command",
        Wanted::Shell => "a shell",
        Wanted::Session => "a session of",
        Wanted::Service => "the service",
        Wanted::Config => "to send a config",
        Wanted::Join => "to join by the invite",
    }
}

fn end(
    outcome: Outcome,
    status: Option<u8>,
    code: Option<ErrorCode>,
    duration_ms: u64,
    started: Option<u64>,
) -> String {
    let mut text = match outcome {
        Outcome::Exited => "ended",
        Outcome::Killed => "was killed",
        Outcome::CallerLost => "lost its caller",
        Outcome::Revoked => "ended since the right was taken away",
        Outcome::Asked => "was ended by its owner",
        Outcome::Left => "was left",
        Outcome::Closed => "was closed",
        Outcome::Failed => "failed",
        Outcome::Stopped => "was cut off as this device stopped",
    }
    .to_owned();
    if let Some(status) = status {
        _ = write!(text, " with status {status}");
    }
    if let Some(code) = code {
        _ = write!(text, ": {code}");
    }
    _ = write!(text, " after {}{}", time(duration_ms), of(started));
    text
}

fn of(started: Option<u64>) -> String {
    started.map(|started| format!(" (record {started})")).unwrap_or_default()
}

fn time(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { format!("{} s", ms / 1000) }
}

/// What a check came to.
pub(crate) fn check(checked: &AuditCheckView) -> Vec<String> {
    let mut lines = Vec::new();
    let files = if checked.files == 1 { "1 file".to_owned() } else { format!("{} files", checked.files) };
    let Some(end) = &checked.end else { return vec!["nothing is recorded yet".to_owned()] };
    lines.push(format!("records: {} in {files}", checked.records));
    if let Some(first) = checked.first.filter(|first| *first > 1) {
        lines.push(format!("begin:   record {first}; older ones were removed"));
    }
    lines.push(format!("end:     {end}"));
    if checked.torn {
        lines.push("the last line was cut off, by a crash: the next record removes it".to_owned());
    }
    if let Some(found) = &checked.first_break {
        let record = found.record.map(|record| format!(", record {record}")).unwrap_or_default();
        lines.push(format!(
            "BROKEN at {} line {}{record}: {}",
            escape_control(&found.file),
            found.line,
            escape_control(&found.problem)
        ));
        if checked.breaks > 1 {
            lines.push(format!("and at {} more places", checked.breaks - 1));
        }
    }
    lines.extend(checked.known.map(|known| {
        match known {
            KnownRecord::Changed => "BROKEN: the record that is known has been replaced by another",
            KnownRecord::CutOff => "BROKEN: the log ends before the record that is known",
            KnownRecord::TooOld => "the record that is known is older than the log: it cannot be checked",
        }
        .to_owned()
    }));
    if checked.whole {
        lines.push("the chain holds".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_typed_is_shown_escaped() {
        let raw = r#"{"schema":1,"seq":7,"prev":"0000000000000000000000000000000000000000000000000000000000000000","time":"2026-11-29T04:07:24.5Z","cluster":"company","event":"denied","peer":"PEER","wanted":"command","asked":"\u001b[2Jx\u202e","reason":"no"}"#;
        let id = malai_core::model::id::SecretKey::from_bytes(&[1; 32]).id52();
        let raw = raw.replace("PEER", &id.to_string());
        let shown = line(&AuditLine {
            head: malai_core::model::audit::read_head(raw.as_bytes()).ok(),
            record: serde_json::from_str(&raw).ok(),
            raw,
        });
        assert!(shown.starts_with("2026-11-29T04:07:24Z       7  company  DENIED "), "{shown}");
        assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
        let broken = AuditLine { raw: "\u{1b}c".to_owned(), head: None, record: None };
        assert_eq!(line(&broken), r"no record: \u{1b}c");
    }
}
