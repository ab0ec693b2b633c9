//! Clients and programs that take nothing, or send more than they may.

use malai_model::wire::DetachReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::terminal::protocol::{INPUT_WINDOW, data_head};
use crate::terminal::screen::{History, Screen};

#[tokio::test]
async fn a_slow_watcher_is_skipped_ahead_and_slows_nobody() {
    let rig = Rig::start("read go; seq 1 300000; echo the-end; cat");
    let mut typist = rig.attach(control(1, Some(0))).await;
    let mut watcher = rig.attach(watch(2)).await;
    typist.types("\n").await;
    typist.sees("the-end").await;
    assert!(typist.shown.len() > 2_000_000);
    // It took nothing until now.
    watcher.sees("the-end").await;
    assert!(!watcher.again.is_empty(), "it was never skipped");
    let (mut one, mut two) = (Screen::new(rig.info().await.window), Screen::new(rig.info().await.window));
    one.feed(&typist.shown);
    two.feed(&watcher.shown);
    assert_eq!(one.redraw(History::Without), two.redraw(History::Without));
    rig.end().await;
}

#[tokio::test]
async fn a_program_waits_for_a_client_that_takes_nothing_and_for_nobody_else() {
    let rig = Rig::start("read go; seq 1 1000000; echo done > file; cat");
    let mut client = rig.attach(control(1, Some(0))).await;
    client.types("\n").await;
    // The client reads nothing: what is under way fills up, and the program stops.
    let early = tokio::time::timeout(Duration::from_secs(2), rig.await_file("file")).await;
    assert!(early.is_err(), "the program did not wait");
    // What it says gets through all the same.
    client
        .writer
        .resize(WindowSize { columns: 70, rows: 9, ..WindowSize::default() })
        .await
        .expect("is told");
    rig.await_info("resized", |info| info.window.columns == 70).await;
    drop(client);
    rig.await_file("file").await;
    rig.end().await;
}

#[tokio::test]
async fn a_program_that_reads_nothing_does_not_keep_its_client_from_leaving() {
    let rig = Rig::start("stty raw -echo; echo ready; sleep 100");
    let mut client = rig.attach(control(1, Some(0))).await;
    client.sees("ready").await;
    let mut much = Bytes::from(vec![b'x'; 1_000_000]);
    let stuck = tokio::time::timeout(Duration::from_millis(500), async {
        tokio::select! {
            written = client.writer.write(&mut much) => written.expect("is written"),
            other = client.reader.next() => panic!("unexpected {other:?}"),
        }
    });
    assert!(stuck.await.is_err(), "a million bytes were typed into nothing");
    client.writer.detach().await.expect("is told");
    assert_eq!(client.last().await, HostEvent::Detached(DetachReason::Asked));
    rig.end().await;
}

#[tokio::test]
async fn a_client_that_types_more_than_it_may_is_cut_off() {
    let rig = Rig::start("stty raw -echo; sleep 100");
    let mut stream = socket::connect(rig.dir.path()).await.expect("connects");
    let say = |message: &ToHost| crate::terminal::protocol::encode(message).expect("is a message");
    stream.write_all(&say(&ToHost::Hello(Hello::own()))).await.expect("is written");
    stream.write_all(&say(&ToHost::Attach(control(1, Some(0))))).await.expect("is written");
    let piece = [data_head(60_000).as_slice(), &[b'x'; 60_000]].concat();
    let mut cut = false;
    for _ in 0..50 {
        cut = cut || stream.write_all(&piece).await.is_err();
    }
    let mut rest = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it is closed").ok();
    assert!(cut || !rig.info().await.attached);
    rig.end().await;
}

/// How many bytes wait for a program that reads nothing.
fn waiting(session: &mut Session) -> usize {
    let mut bytes = 0;
    while let Some(next) = session.next_input() {
        bytes += next.len();
        session.took_input(next.len());
    }
    bytes
}

#[test]
fn a_client_that_comes_again_and_again_cannot_type_without_bound() {
    let id = SessionId::from_random([7; 8]);
    let mut session = Session::new(id, Vec::new(), "a".to_owned(), WindowSize::default());
    let mut cut = 0;
    for client in 1..=100 {
        session.attach(client, &control(1, Some(0)), Outbox::new(Arc::default()));
        cut += usize::from(session.typed(client, vec![b'x'; 60_000].into()).is_err());
    }
    let most = 4 * usize::try_from(INPUT_WINDOW).expect("fits");
    let waiting = waiting(&mut session);
    assert!(waiting <= most && cut > 90, "{waiting} bytes wait, {cut} were cut off");
    // When the program reads, there is room again.
    session.attach(101, &control(1, Some(0)), Outbox::new(Arc::default()));
    session.typed(101, vec![b'x'; 60_000].into()).expect("is taken");
}

#[test]
fn a_program_that_asks_and_does_not_read_is_not_answered_without_bound() {
    let id = SessionId::from_random([7; 8]);
    let mut session = Session::new(id, Vec::new(), "a".to_owned(), WindowSize::default());
    for _ in 0..1000 {
        session.show(&b"\x1b[c".repeat(500));
    }
    let waiting = waiting(&mut session);
    assert!(waiting > 0 && waiting <= 2 * usize::try_from(INPUT_WINDOW).expect("fits"), "{waiting}");
}
