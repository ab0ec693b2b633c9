//! What a caller gets of a command, however slow it is to take it.

use malai_core::api::{ApiReply, ApiRequest};
use malai_core::model::code::ErrorCode;
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
            "head -c {unasked} /dev/zero; head -c {more} /dev/zero | tr '\\0' x; echo $$ > {}; exit 3",
            done.display()
        );
        let mut running = laptop.run(&["web01.company", "sh", "-c", &script]).await.expect("runs");
        let leader = || std::fs::read_to_string(&done).ok()?.trim().parse().ok();
        // Its end is told within moments; if it is not yet, this asks for less than it could.
        until("the command to have ended", || async { leader().is_some_and(is_gone) }).await;
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

/// What a shell says when it is taken for the malai program: the name that it was started under.
const SAY_NAME: [&str; 2] = ["-c", "echo $0"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malai_cp_is_the_malai_program_under_that_name_and_no_other_word_is() {
    let world = World::with_own_program("/bin/sh");
    let company = Company::in_world(world, &[("web01", ""), ("laptop", "")]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let rule = "[machine.web01.command.copy]\ncommand = \"malai-cp -c 'echo $0 $1' x\"\nargs = \"any\"\n\
                [machine.web01.command.session]\ncommand = \"malai-session\"\nargs = \"any\"\n";
    company.manager.apply(|text| format!("{text}\n{rule}")).await;
    company
        .manager
        .apply(|text| text.replace("allow_from = \"laptop\"", "allow_from = \"laptop,web01\""))
        .await;
    until("web01 to know of its right", || async { web01.machine_text().contains("malai-session") }).await;
    // From afar, and on the very device.
    for from in [laptop, web01] {
        let said = |words: &[&str]| {
            let words: Vec<String> = ["web01.company"].iter().chain(words).map(ToString::to_string).collect();
            async move { from.outcome(&words.iter().map(String::as_str).collect::<Vec<_>>()).await }
        };
        let (text, _) = said(&["malai-cp", SAY_NAME[0], SAY_NAME[1]]).await.expect("runs");
        assert_eq!(text, "malai-cp\n");
        let (text, _) = said(&["copy", "last"]).await.expect("runs");
        assert_eq!(text, "x last\n", "after an alias, with the words of both");
        for word in ["malai-cpx", "malai-session", "session", "./malai-cp"] {
            let refused = said(&[word, SAY_NAME[0], SAY_NAME[1]]).await;
            assert_eq!(refused, Err(ErrorCode::CommandNotFound), "{word}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_without_a_malai_program_says_so() {
    let company = Company::new(&["web01", "laptop"]).await;
    let refused = company.machine("laptop").outcome(&["web01.company", "malai-cp", "-c", "echo"]).await;
    assert_eq!(refused, Err(ErrorCode::CommandUnsupported));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malai_cp_needs_its_right_like_any_command() {
    let world = World::with_own_program("/bin/sh");
    let company = Company::in_world(world, &[("web01", ""), ("laptop", "")]).await;
    let words = ["web01.company", "malai-cp", SAY_NAME[0], SAY_NAME[1]];
    company
        .manager
        .apply(|text| format!("{text}\n[machine.web01.command.malai-cp]\nallow_from = \"web01\"\n"))
        .await;
    let laptop = company.machine("laptop");
    until("the right to be gone", || async { laptop.outcome(&words).await == Err(ErrorCode::AclDenied) })
        .await;
    company
        .manager
        .apply(|text| {
            let text = deny(&text, "laptop");
            text.replace("allow_from = \"web01\"", "allow_from = \"laptop\"")
        })
        .await;
    until("it to be the only right", || async {
        laptop.outcome(&["web01.company", "true"]).await == Err(ErrorCode::AclDenied)
    })
    .await;
    assert_eq!(laptop.outcome(&words).await.map(|(text, _)| text).as_deref(), Ok("malai-cp\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malai_cp_runs_as_the_user_of_its_rule() {
    let Some(user) = malai_testkit::TestUser::make() else { return };
    let world = World::with_own_program("/bin/sh");
    let company = Company::in_world(world, &[("web01", ""), ("laptop", "")]).await;
    let rule = format!("[machine.web01.command.malai-cp]\nusername = \"{}\"\n", user.name());
    company.manager.apply(|text| format!("{text}\n{rule}")).await;
    let web01 = company.machine("web01");
    until("web01 to know of it", || async { web01.machine_text().contains(user.name()) }).await;
    let said =
        company.machine("laptop").outcome(&["web01.company", "malai-cp", "-c", "echo $0; id -un"]).await;
    assert_eq!(said.map(|(text, _)| text), Ok(format!("malai-cp\n{}\n", user.name())));
}
