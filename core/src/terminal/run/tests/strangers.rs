//! Who speaks otherwise: garbage, a newer daemon, a session that does not answer.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn garbage_and_strangers_harm_nobody() {
    let rig = Rig::start("cat");
    let mut client = rig.attach(control(1, Some(0))).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0; 64], &[1, 0, 0xff, 0xff], b""] {
        let mut stream = socket::connect(rig.dir.path()).await.expect("connects");
        _ = stream.write_all(garbage).await;
        _ = stream.shutdown().await;
        let mut answer = Vec::new();
        tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.expect("is closed").ok();
    }
    client.types("still here\n").await;
    client.sees("still here").await;
    rig.end().await;
}

#[tokio::test]
async fn a_newer_daemon_is_understood_as_far_as_it_goes() {
    let rig = Rig::start("cat");
    let mut stream = socket::connect(rig.dir.path()).await.expect("connects");
    let frame = |json: &str| {
        let mut frame = u32::try_from(json.len()).expect("is short").to_be_bytes().to_vec();
        frame.extend_from_slice(json.as_bytes());
        frame
    };
    let hello = frame(r#"{"type":"hello","protocol":9,"version":"9.9","more":{"a":1}}"#);
    stream.write_all(&hello).await.expect("is written");
    let attach =
        format!(r#"{{"type":"attach","mode":"control","client":"{}","later":true}}"#, "0".repeat(32));
    stream.write_all(&frame(&attach)).await.expect("is written");
    stream.write_all(&frame(r#"{"type":"later","with":[1,2]}"#)).await.expect("is written");
    stream.write_all(&[1, 0, 0, 3, b'h', b'i', b'\n']).await.expect("is written");
    let mut frames: FrameReader<_> = FrameReader::new(stream);
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains("hi") {
        match tokio::time::timeout(LONG, frames.next::<FromHost>()).await.expect("comes").expect("reads") {
            Some(Frame::Data(bytes)) => shown.extend_from_slice(&bytes),
            Some(Frame::Message(_)) => {}
            None => panic!("it was cut off"),
        }
    }
    rig.end().await;
}

#[tokio::test]
async fn a_session_that_hangs_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let _silent = socket::listen(dir.path()).expect("listens");
    let id = SessionId::from_random([1; 8]);
    let error = ask_info(&id, dir.path()).await.expect_err("does not answer");
    assert_eq!(error.code().as_str(), "session.failed");
    assert!(matches!(error, SessionError::Unanswered { .. }) && error.hint().is_some());
}
