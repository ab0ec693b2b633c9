//! What a caller gets of a command, however slow it is to take it.

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
