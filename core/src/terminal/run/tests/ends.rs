//! Why a session ends, who hears of it, and how long its end is kept.

use super::*;

#[tokio::test]
async fn the_end_is_kept_for_who_comes_next_and_then_forgotten() {
    let rig = Rig::start("echo last words; exit 7");
    let info = rig.await_info("ended", |info| info.ended.is_some()).await;
    assert_eq!(info.ended, Some(CommandEnd::Exited { status: 7 }));
    // One that is lost before it says so has not seen it.
    let mut lost = rig.attach(control(1, None)).await;
    assert_eq!(lost.last().await, exited(7));
    drop(lost);
    rig.await_info("alone", |info| !info.attached).await;
    let mut client = rig.attach(control(2, None)).await;
    assert_eq!(client.last().await, exited(7));
    assert!(client.text().contains("last words"));
    client.writer.seen().await.expect("is told");
    rig.goes().await;
}

#[tokio::test]
async fn an_end_that_nobody_comes_for_is_forgotten_after_a_while() {
    let patience = Patience { linger: Duration::from_millis(200), ..Patience::default() };
    Rig::start_with("exit 0", patience).goes().await;
}

#[tokio::test]
async fn a_session_that_is_ended_is_killed_if_it_must_be_and_its_client_hears_of_it() {
    let patience = Patience { grace: Duration::from_millis(300), ..Patience::default() };
    let rig = Rig::start_with("trap '' HUP TERM; echo ready; while :; do sleep 1; done", patience);
    let mut client = rig.attach(control(1, Some(0))).await;
    client.sees("ready").await;
    let end = ask_end(&rig.id, rig.dir.path(), EndReason::Asked).await.expect("ends");
    assert_eq!(end, CommandEnd::Killed { signal: 9 });
    assert_eq!(client.last().await, HostEvent::Ended(end));
    rig.goes().await;
}

#[tokio::test]
async fn a_client_whose_right_was_taken_away_hears_that() {
    let rig = Rig::start("cat");
    let mut client = rig.attach(control(1, Some(0))).await;
    ask_end(&rig.id, rig.dir.path(), EndReason::Revoked).await.expect("ends");
    let HostEvent::Failed(error) = client.last().await else { panic!("it is told something else") };
    assert_eq!(error.code.as_str(), "acl.revoked");
    rig.goes().await;
}

#[tokio::test]
async fn a_session_that_nobody_uses_ends_when_it_is_to() {
    // A busy machine may take a while to start what says the next thing.
    let patience = Patience { idle: Some(Duration::from_millis(1500)), ..Patience::default() };
    let rig = Rig::start_with("cat", patience.clone());
    let client = rig.attach(control(1, Some(0))).await;
    tokio::time::sleep(Duration::from_millis(2000)).await;
    assert_eq!(rig.info().await.ended, None, "somebody is attached");
    drop(client);
    rig.goes().await;
    // One that shows something is used.
    let rig = Rig::start_with(
        "for n in 1 2 3 4 5 6 7 8 9; do echo $n; sleep 0.3; done; echo x > file; cat",
        patience,
    );
    rig.await_file("file").await;
    rig.goes().await;
}

#[tokio::test]
async fn a_session_whose_directory_is_gone_ends() {
    let patience = Patience { look: Duration::from_millis(50), ..Patience::default() };
    let rig = Rig::start_with("cat", patience);
    assert_eq!(rig.info().await.ended, None);
    std::fs::remove_dir_all(rig.dir.path()).expect("is removed");
    rig.goes().await;
    // One whose program ended before does not wait for anybody.
    let patience = Patience { look: Duration::from_millis(50), ..Patience::default() };
    let rig = Rig::start_with("exit 0", patience);
    rig.await_info("ended", |info| info.ended.is_some()).await;
    std::fs::remove_dir_all(rig.dir.path()).expect("is removed");
    rig.goes().await;
}
