//! A session at rest, and its end.

use super::*;

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_session_at_rest_takes_no_time() {
    let patience = Patience { look: Duration::from_millis(100), ..Patience::default() };
    let rig = Rig::start_with("cat", patience);
    rig.info().await;
    takes_no_time_for_a_second().await;
    rig.end().await;
}

/// Both the test and the session run in this thread.
#[cfg(target_os = "linux")]
async fn takes_no_time_for_a_second() {
    let used = || {
        let usage =
            nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD).expect("is known");
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
        micros(usage.user_time()) + micros(usage.system_time())
    };
    let before = used();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(used() - before < 300_000, "{} µs in a second", used() - before);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_session_that_was_idle_and_does_not_heed_its_end_takes_no_time() {
    let patience = Patience {
        idle: Some(Duration::from_millis(1500)),
        grace: Duration::from_secs(3),
        ..Patience::default()
    };
    let rig = Rig::start_with("trap '' HUP; echo x > file; while :; do sleep 100; done", patience);
    rig.await_file("file").await;
    tokio::time::sleep(Duration::from_millis(2000)).await;
    takes_no_time_for_a_second().await;
    rig.goes().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_end_that_a_client_does_not_look_at_takes_no_time_and_is_not_kept_for_ever() {
    let patience = Patience { linger: Duration::from_millis(400), ..Patience::default() };
    let rig = Rig::start_with("read line", patience);
    let mut client = rig.attach(control(1, Some(0))).await;
    client.types("\n").await;
    rig.await_info("ended", |info| info.ended.is_some()).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    takes_no_time_for_a_second().await;
    assert!(rig.info().await.attached, "it is kept longer for one that is attached");
    rig.goes().await;
    drop(client);
}

#[tokio::test]
async fn a_watcher_s_word_does_not_end_what_another_types_at() {
    let rig = Rig::start("read line; exit 4");
    let mut typist = rig.attach(control(1, Some(0))).await;
    let mut watcher = rig.attach(watch(2)).await;
    typist.types("\n").await;
    assert_eq!(watcher.last().await, exited(4));
    drop(typist);
    rig.await_info("alone but for the watcher", |info| !info.attached).await;
    watcher.writer.seen().await.expect("is told");
    // It may only have lost its connection.
    let mut back = rig.attach(control(1, None)).await;
    assert_eq!(back.last().await, exited(4));
    watcher.writer.seen().await.expect("is told");
    rig.await_info("still there", |info| info.attached).await;
    back.writer.seen().await.expect("is told");
    rig.goes().await;
}

#[tokio::test]
async fn a_session_is_ended_whether_or_not_its_client_takes_anything() {
    let rig = Rig::start("trap 'exit 5' HUP; echo x > file; while :; do echo much more of it; done");
    let client = rig.attach(control(1, Some(0))).await;
    rig.await_file("file").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = std::time::Instant::now();
    let end = ask_end(&rig.id, rig.dir.path(), EndReason::Revoked).await.expect("ends");
    assert_eq!(end, CommandEnd::Exited { status: 5 });
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    rig.goes().await;
    drop(client);
}

#[tokio::test]
async fn those_that_ask_nothing_keep_nobody_out() {
    let rig = Rig::start("cat");
    let mut client = rig.attach(control(1, Some(0))).await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS + 10 {
        silent.push(socket::connect(rig.dir.path()).await.expect("connects"));
    }
    assert!(rig.info().await.attached);
    client.types("still here\n").await;
    client.sees("still here").await;
    rig.end().await;
}
