//! What a program has of its clients: their size, their answers, what they typed ahead.

use super::*;

#[tokio::test]
async fn the_client_that_types_gives_the_size() {
    let rig = Rig::start("read go; stty size; read go; stty size; cat");
    let mut client = rig.attach(control(1, Some(0))).await;
    client.types("\n").await;
    client.sees("10 60").await;
    client
        .writer
        .resize(WindowSize { columns: 90, rows: 30, ..WindowSize::default() })
        .await
        .expect("is told");
    client.types("\n").await;
    client.sees("30 90").await;
    client
        .writer
        .resize(WindowSize { columns: 0, rows: 65_535, ..WindowSize::default() })
        .await
        .expect("is told");
    rig.await_info("cut", |info| (info.window.columns, info.window.rows) == (1, 10_000)).await;
    rig.end().await;
}

#[tokio::test]
async fn a_program_s_question_is_answered_here_only_while_nobody_is_attached() {
    // It asks where its cursor is and notes the answer.
    let ask =
        "printf '\\033[6n'; dd bs=1 count=6 2>/dev/null | od -An -c | tr -d ' \\n' >> file; echo >> file";
    let rig = Rig::start(&format!("stty raw -echo; {ask}; echo first; {ask}; sleep 100"));
    let answered = rig.await_file("file").await;
    assert!(answered.starts_with("033[1;1R\n"), "{answered}");
    let received = rig.await_info("asked", |info| info.ended.is_none()).await;
    drop(received);
    // A client that has nothing yet would answer the first question again: it gets the picture.
    let mut client = rig.attach(control(1, Some(0))).await;
    assert!(client.attached.redraw > 0);
    client.sees("first").await;
    rig.end().await;

    let rig = Rig::start(&format!("stty raw -echo; head -c 1 >/dev/null; {ask}; sleep 100"));
    let mut client = rig.attach(control(1, Some(0))).await;
    client.types("x").await;
    client.sees("\x1b[6n").await;
    client.types("\x1b[9;9R").await;
    assert_eq!(rig.await_file("file").await, "033[9;9R\n");
    rig.end().await;
}

#[tokio::test]
async fn the_first_words_wait_for_a_client_that_is_expected() {
    let patience = Patience { audience: true, ..Patience::default() };
    let rig = Rig::start_with("printf '\\033[6n'; echo asked; cat", patience);
    let mut client = rig.attach(control(1, Some(0))).await;
    client.sees("asked").await;
    assert!(client.text().contains("\x1b[6n"), "{:?}", client.text());
    rig.end().await;
}

#[tokio::test]
async fn a_shell_reads_what_was_typed_ahead() {
    let rig = Rig::start("PS1='> ' exec sh -i");
    let mut client = rig.attach(control(1, Some(0))).await;
    client.sees("> ").await;
    client.types("mine=kept\r").await;
    client.types("echo said-$((1+0))\r").await;
    client.sees("said-1").await;
    rig.end().await;
}
