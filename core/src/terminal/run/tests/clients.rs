//! Clients that come, come back, take over, look on and leave.

use malai_model::wire::DetachReason;

use super::*;
use crate::terminal::protocol::INPUT_WINDOW;

#[tokio::test]
async fn what_is_typed_arrives_and_what_is_shown_and_the_end_come_back() {
    let rig = Rig::start("read line; echo got $line; exit 3");
    let mut client = rig.attach(control(1, Some(0))).await;
    assert_eq!((client.attached.redraw, client.attached.output, client.attached.input), (0, 0, 0));
    client.types("hello\n").await;
    assert_eq!(client.last().await, exited(3));
    assert!(client.text().ends_with("got hello\r\n"), "{:?}", client.text());
    client.writer.seen().await.expect("is told");
    rig.goes().await;
}

#[tokio::test]
async fn a_session_goes_on_without_its_client_and_is_drawn_for_the_next() {
    let rig = Rig::start("echo one; read line; echo two $line; read line; echo three");
    let mut first = rig.attach(control(1, Some(0))).await;
    first.sees("one").await;
    first.types("x\n").await;
    drop(first);
    rig.await_info("alone", |info| !info.attached).await;
    let mut second = rig.attach(control(2, None)).await;
    assert!(second.attached.redraw > 0);
    second.sees("two x").await;
    assert!(second.text().contains("one"));
    second.types("y\n").await;
    assert_eq!(second.last().await, exited(0));
    assert!(second.text().contains("three"));
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_misses_and_types_nothing_twice() {
    let rig = Rig::start("stty -echo; echo ready; while read line; do echo \"<$line>\"; sleep 0.5; done");
    let mut first = rig.attach(control(1, Some(0))).await;
    first.sees("ready").await;
    first.types("a\nb\n").await;
    first.sees("<a>").await;
    let received = first.received();
    drop(first);
    rig.await_info("alone", |info| !info.attached).await;
    let mut again = rig.attach(control(1, Some(received))).await;
    assert_eq!((again.attached.input, again.attached.output, again.attached.redraw), (4, received, 0));
    again.sees("<b>").await;
    let other = rig.attach(control(9, Some(received))).await;
    assert_eq!(other.attached.input, 0);
    drop(other);
    let back = rig.attach(control(1, Some(received + 1_000_000))).await;
    assert_eq!(back.attached.input, 4);
    assert!(back.attached.redraw > 0, "it claims to have what never was");
    rig.end().await;
}

#[tokio::test]
async fn who_comes_later_takes_over() {
    let rig = Rig::start("cat");
    let mut first = rig.attach(control(1, Some(0))).await;
    let mut second = rig.attach(control(2, None)).await;
    assert_eq!(first.last().await, HostEvent::Detached(DetachReason::TakenOver));
    second.types("mine\n").await;
    second.sees("mine").await;
    // What the first still types does not arrive.
    let mut late = Bytes::from_static(b"late\n");
    _ = first.writer.write(&mut late).await;
    second.types("end\n").await;
    second.sees("end").await;
    assert!(!second.text().contains("late"));
    rig.end().await;
}

#[tokio::test]
async fn a_client_that_asks_leaves_and_the_session_goes_on() {
    let rig = Rig::start("cat");
    let mut client = rig.attach(control(1, Some(0))).await;
    client.types("before\n").await;
    client.sees("before").await;
    client.writer.detach().await.expect("is told");
    assert_eq!(client.last().await, HostEvent::Detached(DetachReason::Asked));
    assert_eq!(rig.info().await.ended, None);
    rig.end().await;
}

#[tokio::test]
async fn one_that_looks_on_cannot_type_nor_resize_and_does_not_count() {
    let rig = Rig::start("cat");
    let mut typist = rig.attach(control(1, Some(0))).await;
    let mut watcher = rig.attach(watch(2)).await;
    let info = rig.info().await;
    assert_eq!((info.attached, info.watchers, info.window.columns), (true, 1, 60));
    watcher.types("intruder\n").await;
    watcher
        .writer
        .resize(WindowSize { columns: 5, rows: 5, ..WindowSize::default() })
        .await
        .expect("is told");
    // More than the window: it is taken and thrown away.
    watcher.types(&"x".repeat(3 * INPUT_WINDOW as usize)).await;
    typist.types("typed\n").await;
    watcher.sees("typed").await;
    typist.sees("typed").await;
    assert!(!typist.text().contains("intruder"));
    assert_eq!(rig.info().await.window.columns, 60);
    drop(typist);
    rig.await_info("alone but for the watcher", |info| !info.attached && info.watchers == 1).await;
    rig.end().await;
}

#[tokio::test]
async fn seventeen_cannot_look_on() {
    let rig = Rig::start("cat");
    let mut watchers = Vec::new();
    for number in 0..16 {
        watchers.push(rig.attach(watch(number)).await);
    }
    let refused = HostConnection::attach(&rig.id, rig.dir.path(), &watch(17)).await.expect_err("is refused");
    assert_eq!(refused.code().as_str(), "limit.reached");
    drop(watchers.pop());
    rig.await_info("room", |info| info.watchers == 15).await;
    rig.attach(watch(17)).await;
    rig.end().await;
}
