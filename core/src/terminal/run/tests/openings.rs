//! The first moments of a session, while it is not known whether its client knows of it.

use super::*;

/// A shell that ignores that its terminal hangs up, but for the file that it writes then, and the client that opens it.
fn start(kept: Duration) -> Rig {
    let script = "trap 'echo hung-up > file; exit 3' HUP; while :; do sleep 0.05; done";
    Rig::start_for(script, Patience::default(), Some(Opener { client: token(1), kept }))
}

#[tokio::test]
async fn a_session_whose_client_goes_without_a_word_ends() {
    let rig = start(Duration::from_millis(200));
    drop(rig.attach(control(1, Some(0))).await);
    assert_eq!(rig.await_file("file").await, "hung-up\n");
    rig.goes().await;
}

#[tokio::test]
async fn a_session_that_ended_by_itself_is_not_kept_for_a_client_that_did_not_know_of_it() {
    let opener = Opener { client: token(1), kept: Duration::from_millis(200) };
    let rig = Rig::start_for("exit 4", Patience::default(), Some(opener));
    rig.await_info("its end", |info| info.ended.is_some()).await;
    drop(rig.attach(control(1, Some(0))).await);
    rig.goes().await;
}

#[tokio::test]
async fn a_session_whose_client_knows_of_it_goes_on_without_it() {
    for way in ["says so", "types", "resizes"] {
        let rig = start(Duration::ZERO);
        let mut client = rig.attach(control(1, Some(0))).await;
        match way {
            "says so" => client.writer.confirm().await.expect("is told"),
            "types" => client.types("x").await,
            _ => client.writer.resize(WindowSize::default()).await.expect("is told"),
        }
        drop(client);
        rig.await_info(way, |info| !info.attached).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!rig.dir.path().join("file").exists(), "{way}");
        assert_eq!(rig.info().await.ended, None, "{way}");
        rig.end().await;
    }
}
