//! How a node ends.

use std::time::{Duration, Instant};

use malai_core::Bytes;
use malai_core::model::code::ErrorCode;
use malai_core::model::wire::CommandEnd;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_command_may_finish_and_nothing_new_begins() {
    let company = Company::new(&["web01", "laptop"]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let mut running = laptop.run(&["web01.company", "cat"]).await.expect("runs");
    let begun = Instant::now();
    let closing = web01.node.close(PATIENCE);
    let using = async {
        until("refusals", || async { laptop.run(&["web01.company", "true"]).await.is_err() }).await;
        assert_eq!(laptop.run(&["web01.company", "true"]).await.err(), Some(ErrorCode::LimitReached));
        soon(running.input.write(Bytes::from_static(b"the last word\n"))).await.expect("is taken");
        soon(running.input.end()).await.expect("is taken");
        read_to_end(&mut running).await
    };
    let ((), outcome) = soon(async { tokio::join!(closing, using) }).await;
    let (text, end) = outcome.expect("ends well");
    assert_eq!((text.as_str(), end), ("the last word\n", CommandEnd::Exited { status: 0 }));
    assert!(begun.elapsed() < PATIENCE / 2, "it did not wait for the whole drain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stubborn_command_is_ended_after_the_drain() {
    let company = Company::new(&["web01", "laptop"]).await;
    let script = "trap '' HUP TERM; echo $$; while :; do sleep 0.1; done";
    let laptop = company.machine("laptop");
    let mut running = laptop.run(&["web01.company", "sh", "-c", script]).await.expect("runs");
    let group = first_line(&mut running).await.parse().expect("a number");
    let drain = Duration::from_millis(300);
    let begun = Instant::now();
    soon(company.machine("web01").node.close(drain)).await;
    assert!(begun.elapsed() >= drain);
    // Killed it is; it may take the system a moment to be done with it.
    until("the end of the group", || async { is_gone(group) }).await;
    let code = read_to_end(&mut running).await.expect_err("it did not end by itself");
    assert_ne!(code, ErrorCode::AclRevoked, "nobody took its right away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_everything_works_on_the_last_config_without_the_manager() {
    let mut company = Company::new(&["web01", "laptop"]).await;
    let (group, mut running) = {
        let (running, group) = staying(company.machine("laptop"), "web01.company").await;
        (group, running)
    };
    company.stop().await;
    assert!(is_gone(group));
    assert!(read_to_end(&mut running).await.is_err());
    let Company { world, machines, .. } = &mut company;
    for machine in machines {
        machine.restart(world).await;
    }
    let outcome = company.machine("laptop").outcome(&["web01.company", "echo", "still"]).await;
    assert_eq!(outcome.expect("runs").0, "still\n");
}
