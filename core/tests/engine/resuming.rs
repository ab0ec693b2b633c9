//! Commands that live on when their connection is lost.

use std::time::Duration;

use malai_core::Bytes;
use malai_core::exec::{CommandEvent, CommandOutput, RunningCommand};
use malai_core::model::code::ErrorCode;
use malai_core::model::wire::{
    CommandEnd, ExecRequest, LaneState, Notice, Request, ResumeStream, ResumeToken,
};
use malai_core::p2p::{P2pError, stream_code};

use crate::harness::*;

/// A command whose stdin comes back on stdout, with a line on stderr and a status of its own.
const ECHO: &str = "echo begins >&2; cat; echo ends >&2; exit 7";

fn pattern(length: usize) -> Bytes {
    (0..length).map(|n| ((n * 31 + n / 1000) % 251) as u8).collect::<Vec<u8>>().into()
}

/// Takes what a command prints, by stream, to its end.
async fn take(output: &mut CommandOutput) -> Result<(Vec<u8>, String, CommandEnd), ErrorCode> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match soon(output.next()).await.map_err(|error| error.code())? {
            CommandEvent::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            CommandEvent::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            CommandEvent::Ended(end) => {
                return Ok((stdout, String::from_utf8_lossy(&stderr).into_owned(), end));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_connection_is_lost_again_and_again_gets_and_gives_the_exact_bytes() {
    let company = Company::new(&["web01", "laptop"]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let (a, b) = (web01.machine_id(), laptop.machine_id());
    let running = laptop.run(&["web01.company", "sh", "-c", ECHO]).await.expect("runs");
    let RunningCommand { input, mut output, control: _control } = running;
    let body = pattern(6 << 20);
    let fed = body.clone();
    let feed = async {
        // Each connection carries so much, both ways together, before it breaks.
        for (n, piece) in fed.chunks(512 * 1024).enumerate() {
            company.world.network.cut_after(a, b, 100_000 + n * 50_021);
            soon(input.write(Bytes::copy_from_slice(piece))).await.expect("is taken");
        }
        company.world.network.cut(a, b);
        soon(input.end()).await.expect("ends");
    };
    let ((), taken) = tokio::join!(feed, take(&mut output));
    let (stdout, stderr, end) = taken.expect("goes on to its end");
    assert!(stdout == body, "{} of {} bytes", stdout.len(), body.len());
    assert_eq!((stderr.as_str(), end), ("begins\nends\n", CommandEnd::Exited { status: 7 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_ends_while_its_caller_is_away_tells_its_end_when_the_caller_is_back() {
    let company = Company::new(&["web01", "laptop"]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let done = company.world.path("done");
    let script = format!("echo first; read gate; echo last; touch {}; exit 3", done.display());
    let mut running = laptop.run(&["web01.company", "sh", "-c", &script]).await.expect("runs");
    assert_eq!(first_line(&mut running).await, "first");
    let (a, b) = (web01.machine_id(), laptop.machine_id());
    running.input.write("go\n".into()).await.expect("takes input");
    until("the command to have ended", || async { done.exists() }).await;
    company.world.network.partition(a, b);
    company.world.network.cut(a, b);
    let away = tokio::time::timeout(Duration::from_millis(700), take(&mut running.output)).await;
    // Its last words may have been here already; then there was nothing to wait for.
    let taken = match away {
        Ok(taken) => taken,
        Err(_) => {
            company.world.network.heal(a, b);
            take(&mut running.output).await
        }
    };
    let (stdout, _, end) = taken.expect("ends");
    assert!(stdout.is_empty() || stdout == b"last\n", "{stdout:?}");
    assert_eq!(end, CommandEnd::Exited { status: 3 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_ended_leaves_no_process_while_its_caller_takes_its_time_with_the_output() {
    let company = Company::new(&["web01", "laptop"]).await;
    let pid = company.world.path("pid");
    let script = format!("head -c 100000 /dev/zero; echo $$ > {}", pid.display());
    let mut running =
        company.machine("laptop").run(&["web01.company", "sh", "-c", &script]).await.expect("runs");
    let leader = || std::fs::read_to_string(&pid).ok()?.trim().parse::<i32>().ok();
    // Also one that is dead and not collected has its group.
    let is_collected = |pid| {
        let group = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::killpg(group, None) == Err(nix::errno::Errno::ESRCH)
    };
    until("the process to be collected", || async { leader().is_some_and(is_collected) }).await;
    let (stdout, _, end) = take(&mut running.output).await.expect("ends");
    assert_eq!((stdout.len(), end), (100_000, CommandEnd::Exited { status: 0 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_away_for_too_long_has_lost_the_command_and_it_is_hung_up() {
    let company = Company::with_devices(&[("web01", "[limits]\nresume = \"1s\"\n"), ("laptop", "")]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let (mut running, group) = staying(laptop, "web01.company").await;
    let (a, b) = (web01.machine_id(), laptop.machine_id());
    company.world.network.partition(a, b);
    company.world.network.cut(a, b);
    assert_eq!(read_to_end(&mut running).await.err(), Some(ErrorCode::PeerLost));
    until("the end of the group", || async { is_gone(group) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_keeps_nothing_hangs_up_at_once() {
    let company = Company::with_devices(&[("web01", "[limits]\nresume = \"0s\"\n"), ("laptop", "")]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let (mut running, group) = staying(laptop, "web01.company").await;
    company.world.network.cut(web01.machine_id(), laptop.machine_id());
    assert_eq!(read_to_end(&mut running).await.err(), Some(ErrorCode::PeerLost));
    until("the end of the group", || async { is_gone(group) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_taken_away_while_the_caller_is_away_ends_the_command() {
    let company = Company::new(&["web01", "laptop"]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let (mut running, group) = staying(laptop, "web01.company").await;
    let (a, b) = (web01.machine_id(), laptop.machine_id());
    company.world.network.partition(a, b);
    company.world.network.cut(a, b);
    company.manager.edit(|text| deny(&text, "laptop")).await;
    until("the end of the group", || async { is_gone(group) }).await;
    company.world.network.heal(a, b);
    let error = read_to_end(&mut running).await.expect_err("is over");
    let told = [ErrorCode::AclRevoked, ErrorCode::PeerNotAdmitted, ErrorCode::StreamUnknown];
    assert!(told.contains(&error), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_was_restarted_knows_the_command_no_more() {
    let mut company = Company::new(&["web01", "laptop"]).await;
    let (mut running, group) = staying(company.machine("laptop"), "web01.company").await;
    let (a, b) = (company.machine("web01").machine_id(), company.machine("laptop").machine_id());
    company.world.network.partition(a, b);
    company.world.network.cut(a, b);
    let Company { world, machines, .. } = &mut company;
    let web01 = machines.iter_mut().find(|node| node.name == "web01").expect("is a machine");
    web01.stop().await;
    assert!(is_gone(group), "a daemon that stops leaves nothing");
    web01.restart(world).await;
    world.network.heal(a, b);
    assert_eq!(read_to_end(&mut running).await.err(), Some(ErrorCode::StreamUnknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_that_is_let_in_cannot_go_on_with_a_command() {
    let company = Company::new(&["web01", "laptop", "db01"]).await;
    company.manager.apply(|text| allow(&deny(&text, "laptop"), "web01", "laptop, db01")).await;
    let web01 = company.machine("web01").machine_id();
    // The laptop and the thief by their keys, so that the test knows the token.
    company.machine("laptop").stop().await;
    company.machine("db01").stop().await;
    let laptop = company.world.endpoint(company.machine("laptop").machine_secret()).await;
    let thief = company.world.endpoint(company.machine("db01").machine_secret()).await;
    let token = ResumeToken::from_random([5; 16]);
    let connection = connected(&laptop, web01).await;
    let mut stream = soon(connection.open_stream()).await.expect("opens");
    let request = ExecRequest {
        argv: ["sh", "-c", "echo $$; exec sleep 1000"].map(str::to_owned).into(),
        env: Default::default(),
        resume: Some(token.clone()),
    };
    soon(stream.sender.send_message(&Request::Exec(request))).await.expect("sends");
    let started = soon(stream.receiver.message::<Notice>()).await.expect("is answered");
    assert!(matches!(started, Some(Notice::Started { resume_ms: Some(120_000) })), "{started:?}");
    let line = soon(stream.receiver.data(malai_core::p2p::Channel::Main)).await.expect("receives");
    let group = String::from_utf8(line.expect("a line").to_vec()).expect("text");
    let group: i32 = group.trim().parse().expect("a number");
    company.world.network.cut(laptop.id52(), web01);

    let asked = Request::Resume(ResumeStream { token, lanes: [LaneState::default(); 3] });
    let connection = connected(&thief, web01).await;
    let mut fresh = soon(connection.open_stream()).await.expect("opens");
    soon(fresh.sender.send_message(&asked)).await.expect("sends");
    let told = soon(fresh.receiver.message::<Notice>()).await;
    assert!(matches!(told, Err(P2pError::StreamReset { code: stream_code::UNKNOWN })), "{told:?}");
    assert!(!is_gone(group), "the command of the other goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_its_caller_was_told_to_be_unknown_does_not_run_when_its_request_comes_late() {
    let company = Company::new(&["web01", "laptop"]).await;
    let laptop = company.machine("laptop");
    laptop.stop().await;
    let caller = company.world.endpoint(laptop.machine_secret()).await;
    let connection = connected(&caller, company.machine("web01").machine_id()).await;
    let (token, ran) = (ResumeToken::from_random([6; 16]), company.world.path("ran"));
    let asked = Request::Resume(ResumeStream { token: token.clone(), lanes: [LaneState::default(); 3] });
    let command = |token| {
        Request::Exec(ExecRequest {
            argv: vec!["touch".to_owned(), ran.display().to_string()],
            env: Default::default(),
            resume: Some(token),
        })
    };
    let unknown = P2pError::StreamReset { code: stream_code::UNKNOWN };
    for request in [asked, command(token)] {
        let mut stream = soon(connection.open_stream()).await.expect("opens");
        soon(stream.sender.send_message(&request)).await.expect("sends");
        let told = soon(stream.receiver.message::<Notice>()).await.expect_err("is refused");
        assert_eq!(told.to_string(), unknown.to_string());
    }
    assert!(!ran.exists());
    // Another one does.
    let mut stream = soon(connection.open_stream()).await.expect("opens");
    soon(stream.sender.send_message(&command(ResumeToken::from_random([7; 16])))).await.expect("sends");
    while let Some(notice) = soon(stream.receiver.message::<Notice>()).await.expect("is answered") {
        if matches!(notice, Notice::Ended(_)) {
            break;
        }
    }
    assert!(ran.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_all_the_commands_that_it_may_have_can_still_go_on_with_them() {
    let company =
        Company::with_devices(&[("web01", "[limits]\nsessions_per_peer = 3\n"), ("laptop", "")]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let mut running = Vec::new();
    for number in 0..3 {
        let script = format!("read gate; echo {number}");
        running.push(laptop.run(&["web01.company", "sh", "-c", &script]).await.expect("runs"));
    }
    company.world.network.cut(web01.machine_id(), laptop.machine_id());
    for (number, command) in running.iter_mut().enumerate() {
        command.input.write("go\n".into()).await.expect("takes input");
        if number == 0 {
            // One more than it may have is refused as ever.
            let more = laptop.run(&["web01.company", "true"]).await;
            assert_eq!(more.err(), Some(ErrorCode::LimitReached));
        }
    }
    for (number, command) in running.iter_mut().enumerate() {
        let (text, end) = read_to_end(command).await.expect("ends");
        assert_eq!((text.trim(), end), (number.to_string().as_str(), CommandEnd::Exited { status: 0 }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_connection_is_lost_before_it_is_confirmed_goes_on_or_has_not_run() {
    let company = Company::new(&["web01", "laptop"]).await;
    let (web01, laptop) = (company.machine("web01"), company.machine("laptop"));
    let (a, b) = (web01.machine_id(), laptop.machine_id());
    let ran = company.world.path("ran");
    let (mut went_on, mut failed) = (0, 0);
    for bytes in (5..605).step_by(20) {
        // What the last round left of its bytes is not this call's.
        company.world.network.cut_after(a, b, usize::MAX);
        laptop.outcome(&["web01.company", "true"]).await.expect("a connection");
        company.world.network.cut_after(a, b, bytes);
        let script = format!("echo {bytes} >> {}; echo done", ran.display());
        let outcome = soon(laptop.outcome(&["web01.company", "sh", "-c", &script])).await;
        let lines = std::fs::read_to_string(&ran).unwrap_or_default();
        let times = lines.lines().filter(|line| *line == bytes.to_string()).count();
        match outcome {
            Ok((text, _)) => {
                assert_eq!((text.as_str(), times), ("done\n", 1), "after {bytes} bytes");
                went_on += 1;
            }
            Err(error) => {
                assert_eq!((error, times), (ErrorCode::PeerLost, 0), "after {bytes} bytes");
                failed += 1;
            }
        }
    }
    assert!(went_on > 0 && failed > 0, "{went_on} went on, {failed} failed");
}
