use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use malai_model::audit::{AuditEvent, AuditRecord, BreakKind, By, Denial, Wanted};
use malai_model::id::SecretKey;
use malai_model::wire::local::KnownRecord;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::home::{Create, Home};
use crate::task::Scope;

const PATIENCE: Duration = Duration::from_secs(60);

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().expect("a directory");
    let home = Home::open(dir.path().join("home"), Create::Yes).expect("a home");
    (dir, home)
}

fn log_with(home: &Home, limits: AuditLimits) -> AuditLog {
    AuditLog::new(home, Arc::new(SystemClock), Urgency::Soon, limits)
}

fn log(home: &Home) -> AuditLog {
    log_with(home, AuditLimits::default())
}

fn record(pid: u32) -> AuditRecord {
    AuditRecord::of_device(SystemClock.now(), AuditEvent::DaemonStarted { version: "0".to_owned(), pid })
}

async fn write(log: &AuditLog, pid: u32) -> u64 {
    log.record_before(record(pid), Durability::Written).await.expect("is written").seq
}

fn current(home: &Home) -> PathBuf {
    home.audit_dir().join("current.jsonl")
}

fn lines(home: &Home) -> Vec<String> {
    let mut all = Vec::new();
    let read = AuditFiles::open(home).expect("opens").lines(|line| {
        all.push(String::from_utf8(line.bytes.to_vec()).expect("is text"));
        ControlFlow::Continue(())
    });
    read.expect("reads");
    all
}

/// Fails unless the chain holds, and says how many lines it has.
#[track_caller]
fn whole(home: &Home) -> u64 {
    let check = check(home, None).expect("reads");
    assert_eq!(check.report.broken, None, "{check:?}");
    check.report.lines
}

#[tokio::test]
async fn a_log_goes_on_where_an_earlier_process_stopped_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, home) = home();
    for round in 1..=3 {
        let log = log(&home);
        assert_eq!(write(&log, 1).await, round * 2 - 1);
        assert_eq!(write(&log, 2).await, round * 2);
    }
    assert_eq!(whole(&home), 6);
    let mode = |path: PathBuf| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!((mode(home.audit_dir()), mode(current(&home))), (0o700, 0o600));
}

#[tokio::test]
async fn nothing_is_made_before_there_is_something_to_record() {
    let (_dir, home) = home();
    log(&home).close().await;
    assert!(!home.audit_dir().exists());
    assert_eq!(whole(&home), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_append_to_one_chain_in_turn() {
    let (_dir, home) = home();
    let limits = AuditLimits { file_bytes: 4_000, full_files: 100 };
    let scope = Scope::new();
    let mut writers = Vec::new();
    // As apart as two processes: nothing is shared but the files.
    for _ in 0..4 {
        let log = log_with(&home, limits);
        writers.push(scope.spawn("writer", async move {
            for pid in 0..50 {
                write(&log, pid).await;
            }
        }));
    }
    for writer in writers {
        writer.await.expect("no panic").expect("not killed");
    }
    assert_eq!(whole(&home), 200);
    assert!(fs::read_dir(home.audit_dir()).expect("lists").count() > 3, "it was rotated meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_for_the_disk_share_its_syncs_and_writes() {
    let (_dir, home) = home();
    let (log, scope) = (log(&home), Scope::new());
    let waiting: Vec<_> = (0..200)
        .map(|pid| {
            let log = log.clone();
            scope.spawn("waiting", async move { log.record_before(record(pid), Durability::OnDisk).await })
        })
        .collect();
    let mut numbers = Vec::new();
    for waiting in waiting {
        numbers.push(waiting.await.expect("no panic").expect("not killed").expect("is on disk").seq);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    assert!(log.syncs() < 200, "{} syncs", log.syncs());
    assert_eq!(whole(&home), 200);
}

#[tokio::test]
async fn a_full_file_is_put_aside_the_chain_goes_on_and_the_oldest_goes() {
    let (_dir, home) = home();
    let limits = AuditLimits { file_bytes: 1_000, full_files: 3 };
    let log = log_with(&home, limits);
    for pid in 0..60 {
        write(&log, pid).await;
    }
    let check = check(&home, None).expect("reads");
    assert_eq!((check.files, check.report.broken.clone()), (4, None));
    assert_eq!(check.report.head.expect("a head").seq, 60);
    assert!(check.report.first > Some(30), "{check:?}");
    for entry in fs::read_dir(home.audit_dir()).expect("lists").flatten() {
        assert!(entry.metadata().expect("is there").len() <= 1_000, "{entry:?}");
    }
    // The next process goes on, also from a file that was put aside just before a crash.
    let newest = home.audit_dir().join("zzz");
    fs::rename(current(&home), &newest).expect("moves");
    let first = lines(&home).len() as u64;
    fs::rename(newest, home.audit_dir().join("000000000059.jsonl")).expect("moves");
    assert!(first > 0);
    assert_eq!(write(&log_with(&home, limits), 1).await, 61);
    whole(&home);
}

#[tokio::test]
async fn a_torn_line_is_cut_off_and_that_is_recorded() {
    let (_dir, home) = home();
    for _ in 0..2 {
        write(&log(&home), 7).await;
    }
    let mut file = fs::OpenOptions::new().append(true).open(current(&home)).expect("opens");
    file.write_all(b"{\"schema\":1,\"seq\":3,\"pr").expect("writes");
    let checked = check(&home, None).expect("reads");
    assert!(checked.report.torn && checked.report.broken.is_none(), "{checked:?}");
    assert_eq!(write(&log(&home), 7).await, 4);
    assert_eq!(whole(&home), 4);
    assert!(lines(&home)[2].contains("\"event\":\"torn-line\",\"bytes\":23"), "{:?}", lines(&home));
}

#[tokio::test]
async fn an_edited_line_is_found_in_its_file_and_what_follows_goes_on() {
    let (_dir, home) = home();
    let log = log_with(&home, AuditLimits { file_bytes: 1_000, full_files: 10 });
    for pid in 100..120 {
        write(&log, pid).await;
    }
    let all = lines(&home);
    let first_file = home.audit_dir().join("000000000001.jsonl");
    let text = fs::read_to_string(&first_file).expect("reads");
    fs::write(&first_file, text.replace("\"pid\":101", "\"pid\":999")).expect("writes");
    let checked = check(&home, None).expect("reads");
    let broken = checked.report.broken.expect("is broken");
    assert_eq!((broken.after, broken.seq, checked.report.breaks), (2, Some(3), 1));
    assert!(matches!(broken.kind, BreakKind::Digest { .. }), "{broken:?}");
    assert_eq!(checked.place, Some((first_file, 3)));
    assert_eq!(lines(&home).len(), all.len());
}

#[tokio::test]
async fn lines_that_were_cut_off_while_it_runs_show_as_a_gap() {
    let (_dir, home) = home();
    let log = log(&home);
    for pid in 0..5 {
        write(&log, pid).await;
    }
    let kept: String = lines(&home)[..3].iter().map(|line| format!("{line}\n")).collect();
    fs::write(current(&home), kept).expect("writes");
    assert_eq!(write(&log, 5).await, 6);
    let broken = check(&home, None).expect("reads").report.broken.expect("is broken");
    assert_eq!((broken.after, broken.seq), (3, Some(6)));
    // The whole directory, too.
    fs::remove_dir_all(home.audit_dir()).expect("removes");
    assert_eq!(write(&log, 6).await, 7);
    assert_eq!(check(&home, None).expect("reads").report.first, Some(7));
}

#[tokio::test]
async fn a_line_of_somebodys_hand_at_the_end_stays_and_is_found() {
    let (_dir, home) = home();
    for pid in 0..2 {
        write(&log(&home), pid).await;
    }
    let mut file = fs::OpenOptions::new().append(true).open(current(&home)).expect("opens");
    file.write_all(b"nothing to see here\n").expect("writes");
    assert_eq!(write(&log(&home), 3).await, 4);
    let checked = check(&home, None).expect("reads");
    assert_eq!(checked.place, Some((current(&home), 3)), "{checked:?}");
    assert_eq!(checked.report.breaks, 1);
}

#[tokio::test]
async fn what_cannot_be_written_is_counted_and_told_when_it_can_be_again() {
    let (_dir, home) = home();
    let log = log(&home);
    write(&log, 1).await;
    fs::rename(home.audit_dir(), home.root().join("elsewhere")).expect("moves");
    fs::write(home.audit_dir(), "in the way").expect("writes");
    for pid in 0..3 {
        let error = log.record_before(record(pid), Durability::Written).await.expect_err("cannot be");
        assert_eq!(error.code().as_str(), "audit.failed");
    }
    fs::remove_file(home.audit_dir()).expect("removes");
    fs::rename(home.root().join("elsewhere"), home.audit_dir()).expect("moves");
    assert_eq!(write(&log, 2).await, 3);
    assert_eq!(whole(&home), 3);
    assert!(lines(&home)[1].contains("\"event\":\"records-lost\",\"count\":3"), "{:?}", lines(&home));
}

#[tokio::test]
async fn a_link_or_a_directory_that_others_may_enter_is_not_written_to() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, home) = home();
    let log = log(&home);
    fs::create_dir(home.audit_dir()).expect("makes");
    fs::set_permissions(home.audit_dir(), fs::Permissions::from_mode(0o755)).expect("a mode");
    log.record_before(record(1), Durability::Written).await.expect_err("is refused");
    fs::set_permissions(home.audit_dir(), fs::Permissions::from_mode(0o700)).expect("a mode");
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, "").expect("writes");
    std::os::unix::fs::symlink(&elsewhere, current(&home)).expect("links");
    log.record_before(record(1), Durability::Written).await.expect_err("is refused");
    assert_eq!(fs::read(&elsewhere).expect("reads"), b"");
    fs::remove_file(current(&home)).expect("removes");
    log.record_before(record(1), Durability::Written).await.expect("now it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_task_writes_what_nobody_waits_for_counts_too_and_syncs_once() {
    let (_dir, home) = home();
    let (log, scope) = (log(&home), Scope::new());
    log.start(&scope);
    let denial = |asked: &str| Denial {
        time: log.now(),
        cluster: "company".parse().expect("an alias"),
        by: By { peer: SecretKey::from_bytes(&[1; 32]).id52(), name: None, here: false },
        wanted: Wanted::Command,
        asked: Some(asked.to_owned()),
        reason: "no".to_owned(),
    };
    for _ in 0..500 {
        log.denied(denial("id"));
    }
    let counted = async {
        while !lines(&home).iter().any(|line| line.contains("\"event\":\"denied-again\"")) || log.syncs() == 0
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("is counted and synced");
    log.close().await;
    let all = lines(&home);
    assert!(all.len() <= 3, "{all:#?}");
    assert!(all[1].contains("\"count\":499"), "{all:#?}");
    whole(&home);
    scope.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_process_that_may_be_gone_the_next_moment_writes_at_once() {
    let (_dir, home) = home();
    let log = AuditLog::new(&home, Arc::new(SystemClock), Urgency::AtOnce, AuditLimits::default());
    log.record(record(1));
    assert_eq!(whole(&home), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_holds_the_lock_for_long_is_not_waited_for() {
    let (_dir, home) = home();
    let log = log(&home);
    write(&log, 1).await;
    let held = fs::File::open(home.audit_dir()).expect("opens");
    held.lock().expect("locks");
    let error = log.record_before(record(2), Durability::Written).await.expect_err("is busy");
    assert!(matches!(error, AuditError::Busy), "{error:?}");
    held.unlock().expect("unlocks");
    assert_eq!(write(&log, 3).await, 3, "after the record of what was lost");
}

#[tokio::test]
async fn a_record_that_was_noted_elsewhere_tells_that_the_end_was_cut_off() {
    let (_dir, home) = home();
    for pid in 0..3 {
        write(&log(&home), pid).await;
    }
    let end = check(&home, None).expect("reads").report.head.expect("a head");
    assert_eq!(end.to_string().parse(), Ok(end));
    write(&log(&home), 3).await;
    assert_eq!(check(&home, Some(end)).expect("reads").known, None);
    let all = lines(&home);
    let cut = |count: usize| all[..count].iter().map(|line| format!("{line}\n")).collect::<String>();
    fs::write(current(&home), cut(2)).expect("writes");
    let checked = check(&home, Some(end)).expect("reads");
    assert_eq!((checked.report.broken, checked.known), (None, Some(KnownRecord::CutOff)));
    write(&log(&home), 9).await;
    assert_eq!(check(&home, Some(end)).expect("reads").known, Some(KnownRecord::Changed));
    fs::write(current(&home), format!("{}\n", all[3])).expect("writes");
    assert_eq!(check(&home, Some(end)).expect("reads").known, Some(KnownRecord::TooOld));
}
