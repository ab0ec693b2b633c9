//! The audit log's lines: their form is stable, and a chain tells what was done to it.

use malai_model::audit::{
    AuditEvent, AuditRecord, BreakKind, By, ChainReport, ConfigOrigin, Head, KeyKind, Outcome, RecordDigest,
    Verifier, Wanted, read_head,
};
use malai_model::code::ErrorCode;
use malai_model::id::{Id52, SecretKey};
use malai_model::wire::{AttachMode, CommandEnd};
use proptest::prelude::*;

fn id(number: u8) -> Id52 {
    SecretKey::from_bytes(&[number; 32]).id52()
}

fn laptop() -> By {
    By { peer: id(1), name: Some("laptop".parse().expect("a name")), here: false }
}

fn here() -> By {
    By { peer: id(2), name: Some("web01".parse().expect("a name")), here: true }
}

/// One of each form.
fn events() -> Vec<AuditEvent> {
    let session = || "k3fq7aab".parse().expect("a session's name");
    let stranger = By { peer: id(9), name: None, here: false };
    vec![
        AuditEvent::DaemonStarted { version: "0.6.0".to_owned(), pid: 4711 },
        AuditEvent::CommandStarted { by: laptop(), command: "ps".to_owned(), user: "root".to_owned() },
        AuditEvent::CommandEnded {
            by: laptop(),
            command: "ps".to_owned(),
            started: Some(2),
            outcome: Outcome::Exited,
            status: Some(0),
            code: None,
            duration_ms: 12,
        },
        AuditEvent::CommandEnded {
            by: here(),
            command: "no-such".to_owned(),
            started: None,
            outcome: Outcome::Failed,
            status: None,
            code: Some(ErrorCode::CommandNotFound),
            duration_ms: 0,
        },
        AuditEvent::SessionStarted { by: laptop(), command: None, user: "deploy".to_owned() },
        AuditEvent::SessionStarted {
            by: laptop(),
            command: Some("top".to_owned()),
            user: "deploy".to_owned(),
        },
        AuditEvent::SessionOpened { by: laptop(), session: session(), started: Some(6) },
        AuditEvent::SessionAttached { by: laptop(), session: session(), mode: AttachMode::Watch },
        AuditEvent::SessionEnded {
            by: laptop(),
            session: Some(session()),
            started: Some(8),
            outcome: Outcome::CallerLost,
            status: None,
            code: None,
            duration_ms: 90_000,
        },
        AuditEvent::SessionGone {
            by: laptop(),
            session: session(),
            outcome: Some(Outcome::Exited),
            status: Some(7),
            duration_ms: Some(61_000),
        },
        AuditEvent::SessionGone {
            by: laptop(),
            session: session(),
            outcome: None,
            status: None,
            duration_ms: None,
        },
        AuditEvent::ServiceOpened { by: laptop(), service: "ssh".parse().expect("a name") },
        AuditEvent::ServiceClosed {
            by: laptop(),
            service: "ssh".parse().expect("a name"),
            started: Some(11),
            outcome: Outcome::Closed,
            code: None,
            duration_ms: 5,
        },
        AuditEvent::Denied {
            by: laptop(),
            wanted: Wanted::Command,
            asked: Some("a\u{1b}[2J\"\nb".to_owned()),
            reason: "allow_from is absent".to_owned(),
        },
        AuditEvent::DeniedAgain {
            by: stranger.clone(),
            wanted: Wanted::Connection,
            asked: Vec::new(),
            count: 99,
            within_ms: 1000,
        },
        AuditEvent::ConfigApplied {
            digest: RecordDigest::of(b"text").to_string(),
            serial: Some(7),
            origin: ConfigOrigin::Manager,
            author: id(3),
        },
        AuditEvent::ConfigRefused { by: stranger, code: ErrorCode::ConfigStale },
        AuditEvent::ClusterGone {},
        AuditEvent::InviteCreated {
            invite: id(4),
            label: Some("conf".to_owned()),
            expires: "2026-12-01T00:00:00Z".parse().expect("a time"),
            max_uses: 5,
            groups: vec!["guests".parse().expect("a name")],
        },
        AuditEvent::InviteRevoked { invite: id(4) },
        AuditEvent::MachineJoined { peer: id(1), name: "laptop".parse().expect("a name"), invite: id(4) },
        AuditEvent::Joined { manager: id(3), name: Some("laptop".parse().expect("a name")) },
        AuditEvent::KeyMade { key: KeyKind::Machine, id52: id(1) },
        AuditEvent::RecordsLost { count: 3 },
        AuditEvent::TornLine { bytes: 40 },
        AuditEvent::DaemonStopped {},
    ]
}

fn records() -> Vec<AuditRecord> {
    let time = |number: usize| {
        let number = i64::try_from(number).expect("is small");
        jiff::Timestamp::from_millisecond(1_800_000_000_000 + number * 1_001).expect("a time")
    };
    let of_device = |event: &AuditEvent| {
        use AuditEvent::{DaemonStarted, DaemonStopped, RecordsLost, TornLine};
        matches!(event, DaemonStarted { .. } | DaemonStopped {} | RecordsLost { .. } | TornLine { .. })
    };
    let record = |(number, event)| {
        let cluster = (!of_device(&event)).then(|| "company".parse().expect("an alias"));
        AuditRecord { time: time(number), cluster, event }
    };
    events().into_iter().enumerate().map(record).collect()
}

fn chain(records: &[AuditRecord]) -> Vec<Vec<u8>> {
    let (mut head, mut text) = (Head::EMPTY, Vec::new());
    for (number, record) in records.iter().enumerate() {
        assert_eq!(head.append(record, &mut text).expect("is JSON"), number as u64 + 1);
    }
    assert_eq!(text.pop(), Some(b'\n'));
    text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn checked(lines: &[Vec<u8>]) -> ChainReport {
    let mut verifier = Verifier::new();
    lines.iter().for_each(|line| verifier.line(line));
    verifier.finish()
}

#[test]
fn the_form_of_each_line_is_stable() {
    let lines = chain(&records());
    let text = lines.iter().map(|line| String::from_utf8(line.clone()).expect("is text"));
    insta::assert_snapshot!(text.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_line_reads_back_as_what_was_recorded() {
    for (record, line) in records().iter().zip(chain(&records())) {
        let read: AuditRecord = serde_json::from_slice(&line).expect("reads");
        assert_eq!(&read, record);
    }
}

#[test]
fn a_newer_version_s_lines_hold_the_chain_as_ours_do() {
    let mut lines = chain(&records()[..2]);
    let digest = RecordDigest::of(&lines[1]);
    let newer = format!(
        "{{\"schema\":2,\"seq\":3,\"prev\":\"{digest}\",\"time\":\"2027-01-15T08:00:00Z\",\"event\":\"later\",\"x\":1}}"
    );
    lines.push(newer.into_bytes());
    assert_eq!(checked(&lines).broken, None);
    assert_eq!(read_head(&lines[2]).expect("reads").schema, 2);
}

#[test]
fn a_status_is_a_shell_s() {
    assert_eq!(Outcome::of_end(&CommandEnd::Exited { status: 3 }), (Outcome::Exited, Some(3)));
    assert_eq!(Outcome::of_end(&CommandEnd::Killed { signal: 9 }), (Outcome::Killed, Some(137)));
}

#[test]
fn a_chain_without_its_oldest_files_holds_and_says_where_it_begins() {
    let lines = chain(&records());
    let report = checked(&lines[5..]);
    assert_eq!((report.broken, report.first, report.lines), (None, Some(6), lines.len() as u64 - 5));
}

#[test]
fn a_chain_that_claims_to_begin_and_does_not_is_broken() {
    let lines = chain(&records());
    let text = String::from_utf8(lines[3].clone()).expect("is text");
    let forged = text.replace("\"seq\":4", "\"seq\":1").into_bytes();
    let broken = checked(&[forged]).broken.expect("is broken");
    assert_eq!(broken.kind, BreakKind::Beginning);
}

/// What somebody may do to a log.
#[derive(Debug, Clone)]
enum Tamper {
    Edit { line: usize, byte: usize, xor: u8 },
    Delete { line: usize },
    Swap { line: usize },
    Insert { line: usize, copy: usize },
}

/// In the middle: the end of a chain is vouched for by what follows it.
fn tampers() -> impl Strategy<Value = Tamper> {
    let last = events().len() - 1;
    prop_oneof![
        (0..last, any::<usize>(), 1..=255_u8).prop_map(|(line, byte, xor)| Tamper::Edit { line, byte, xor }),
        (1..last).prop_map(|line| Tamper::Delete { line }),
        (0..last).prop_map(|line| Tamper::Swap { line }),
        (0..last, 0..=last).prop_map(|(line, copy)| Tamper::Insert { line, copy }),
    ]
}

proptest! {
    #[test]
    fn whatever_is_done_to_the_middle_of_a_chain_is_found(tamper in tampers()) {
        let good = chain(&records());
        let mut lines = good.clone();
        match tamper.clone() {
            Tamper::Edit { line, byte, xor } => {
                let at = byte % lines[line].len();
                lines[line][at] ^= xor;
            }
            Tamper::Delete { line } => drop(lines.remove(line)),
            Tamper::Swap { line } => lines.swap(line, line + 1),
            Tamper::Insert { line, copy } => lines.insert(line + 1, good[copy].clone()),
        }
        prop_assume!(lines != good);
        let report = checked(&lines);
        let broken = report.broken.expect("it is found");
        let touched = match tamper {
            Tamper::Edit { line, .. } | Tamper::Delete { line } | Tamper::Swap { line } => line,
            Tamper::Insert { line, .. } => line + 1,
        };
        prop_assert!(broken.after >= touched.saturating_sub(1) as u64 && broken.after <= touched as u64 + 1);
    }

    #[test]
    fn any_records_make_a_chain_that_holds_and_read_back(
        words in proptest::collection::vec((".{0,80}", any::<Option<u8>>(), any::<u64>()), 0..20)
    ) {
        let records: Vec<_> = words.into_iter().map(|(command, status, duration_ms)| AuditRecord {
            time: jiff::Timestamp::from_second(1_800_000_000).expect("a time"),
            cluster: Some("company".parse().expect("an alias")),
            event: AuditEvent::CommandEnded {
                by: laptop(), command, started: None, outcome: Outcome::Exited, status, code: None, duration_ms,
            },
        }).collect();
        if records.is_empty() {
            prop_assert_eq!(checked(&[]).head, None);
            return Ok(());
        }
        let lines = chain(&records);
        let report = checked(&lines);
        prop_assert_eq!(&report.broken, &None);
        prop_assert_eq!(report.head.expect("a head").seq, records.len() as u64);
        for (line, record) in lines.iter().zip(&records) {
            prop_assert_eq!(&serde_json::from_slice::<AuditRecord>(line).expect("reads"), record);
        }
    }

    #[test]
    fn no_bytes_panic_the_check(lines in proptest::collection::vec(any::<Vec<u8>>(), 0..10)) {
        let report = checked(&lines);
        prop_assert_eq!(report.breaks, lines.len() as u64);
    }
}
