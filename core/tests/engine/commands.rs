//! What a caller gets of a command, however slow it is to take it.

use malai_core::api::{ApiReply, ApiRequest};
use malai_core::model::wire::CommandEnd;
use malai_core::model::wire::frame::Lane;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_takes_nothing_until_the_command_has_ended_gets_all_of_its_output() {
    let company = Company::new(&["web01", "laptop"]).await;
    let laptop = company.machine("laptop");
    // As much as goes out while nobody takes anything, and a little that then waits for credit.
    let unasked = Lane::Main.initial_window();
    for more in [1, 100, 4000, 30_000] {
        let done = company.world.path(&format!("done-{more}"));
        let script = format!(
            "head -c {unasked} /dev/zero; head -c {more} /dev/zero | tr '\\0' x; touch {}; exit 3",
            done.display()
        );
        let mut running = laptop.run(&["web01.company", "sh", "-c", &script]).await.expect("runs");
        until("the command to have written everything", || async { done.exists() }).await;
        // Its end is told within moments; if it is not yet, this asks for less than it could.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let (text, end) = read_to_end(&mut running).await.expect("ends");
        assert_eq!(end, CommandEnd::Exited { status: 3 });
        assert_eq!(text.len(), usize::try_from(unasked).expect("fits") + more, "with {more} more");
        assert!(text.ends_with('x'));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_commands_at_once_share_one_connection() {
    let company = Company::new(&["web01", "laptop"]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let mut running = Vec::new();
    for number in 0..100 {
        let script = format!("read gate; echo {number}");
        running.push(laptop.run(&["web01.company", "sh", "-c", &script]).await.expect("runs"));
    }
    let ApiReply::Status(status) = web01.ask(ApiRequest::Status {}).await.expect("is answered") else {
        panic!("another answer")
    };
    assert_eq!(status.running, 100, "all of them run at once");
    let from_laptop =
        status.connections.iter().filter(|open| open.direction == "in" && open.peer == laptop.machine_id());
    assert_eq!(from_laptop.count(), 1, "{:?}", status.connections);
    for command in &running {
        command.input.write("go\n".into()).await.expect("takes input");
    }
    for (number, command) in running.iter_mut().enumerate() {
        let (text, end) = read_to_end(command).await.expect("ends");
        assert_eq!((text.trim(), end), (number.to_string().as_str(), CommandEnd::Exited { status: 0 }));
    }
}
