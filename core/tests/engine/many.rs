//! One command on many machines, some of them dead, slow or unwilling.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use malai_core::api::{
    AfterFailure, Client, ClientOptions, LinePart, ManyEnd, ManyEvent, ManyOrder, ManyRequest, ManyRun,
    OutputStream, TargetOutcome,
};
use malai_core::p2p::Transport;

use crate::harness::*;

/// Machines that the laptop may run anything on, and the laptop, whose own node is stopped: a client takes its place.
struct Fleet {
    company: Company,
    client: Client,
}

/// What came of a run.
struct Told {
    names: Vec<String>,
    ends: BTreeMap<String, ManyEnd>,
    /// In the order in which they began.
    started: Vec<String>,
    lines: BTreeMap<String, Vec<String>>,
    /// In the order in which it came: from whom.
    from: Vec<usize>,
}

impl Fleet {
    async fn new(machines: usize) -> Self {
        Self::with(machines, |text, name| allow(&text, name, "laptop")).await
    }

    async fn with(machines: usize, rule: impl Fn(String, &str) -> String) -> Self {
        let names: Vec<String> = (1..=machines).map(|number| format!("web{number:02}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).chain(["laptop"]).collect();
        let company = Company::new(&all).await;
        let laptop = company.machine("laptop");
        company
            .manager
            .apply(|text| names.iter().fold(deny(&text, "laptop"), |text, name| rule(text, name)))
            .await;
        laptop.stop().await;
        let mut options = ClientOptions::new(laptop.home.root().to_owned());
        options.keys = Some(laptop.keys.clone());
        options.transport = Transport::Memory(company.world.network.clone());
        options.connect_timeout = Duration::from_secs(1);
        let client = Client::open(options).await.expect("opens");
        Self { company, client }
    }

    async fn run(&self, request: ManyRequest) -> ManyRun {
        soon(self.client.run_many(request)).await.expect("begins")
    }

    async fn told(&self, request: ManyRequest) -> Told {
        told(self.run(request).await).await
    }
}

fn request(script: &str) -> ManyRequest {
    let words = ["sh", "-c", script].map(str::to_owned).to_vec();
    ManyRequest::new(vec!["web*.company".to_owned()], words)
}

async fn told(mut run: ManyRun) -> Told {
    let names: Vec<String> = run.targets().iter().map(|target| target.name.to_string()).collect();
    let mut told =
        Told { names, ends: BTreeMap::new(), started: Vec::new(), lines: BTreeMap::new(), from: Vec::new() };
    while let Some(batch) = soon(run.next_batch()).await {
        assert!(!batch.is_empty());
        for event in batch {
            match event {
                ManyEvent::Started { target } => told.started.push(told.names[target].clone()),
                ManyEvent::Line { target, stream, text, part } => {
                    let mark = if stream == OutputStream::Stderr { "2>" } else { "" };
                    let end = if part == LinePart::Unended { "…" } else { "" };
                    let line = format!("{mark}{}{end}", String::from_utf8_lossy(&text));
                    told.lines.entry(told.names[target].clone()).or_default().push(line);
                    told.from.push(target);
                }
                ManyEvent::Ended { target, end } => {
                    let first = told.ends.insert(told.names[target].clone(), end);
                    assert!(first.is_none(), "{} ended twice", told.names[target]);
                }
            }
        }
    }
    assert_eq!(told.ends.len(), told.names.len(), "every machine has an end");
    told
}

impl Told {
    fn outcomes(&self) -> BTreeMap<TargetOutcome, usize> {
        self.ends.values().fold(BTreeMap::new(), |mut counted, end| {
            *counted.entry(end.outcome).or_default() += 1;
            counted
        })
    }

    fn outcome(&self, name: &str) -> TargetOutcome {
        self.ends[name].outcome
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_machines_take_hardly_longer_than_the_slowest_of_them() {
    const SLOWEST: Duration = Duration::from_secs(3);
    // Every machine has a command of that name; every tenth takes its time, and some may not be asked for it.
    let fleet = Fleet::with(200, |text, name| {
        let rule = match name {
            _ if name.ends_with('1') => "command = \"sleep 3\"",
            _ => "command = \"true\"",
        };
        let name_of_rule = if name.ends_with("77") { "another" } else { "probe" };
        format!("{text}\n[machine.{name}.command.{name_of_rule}]\nallow_from = \"laptop\"\n{rule}\n")
    })
    .await;
    let dead: BTreeSet<&str> = ["web05", "web15", "web25", "web35", "web105", "web115", "web125"].into();
    for name in &dead {
        fleet.company.machine(name).stop().await;
    }
    let begun = Instant::now();
    let told = fleet.told(ManyRequest::new(vec!["*.company".to_owned()], vec!["probe".to_owned()])).await;
    let elapsed = begun.elapsed();
    let expected = BTreeMap::from([
        (TargetOutcome::Ok, 191),
        (TargetOutcome::Denied, 2),
        (TargetOutcome::Unreachable, 7),
    ]);
    assert_eq!(told.outcomes(), expected);
    assert!(dead.iter().all(|name| told.outcome(name) == TargetOutcome::Unreachable));
    assert!(["web77", "web177"].iter().all(|name| told.outcome(name) == TargetOutcome::Denied));
    assert!(elapsed < SLOWEST * 3, "took {elapsed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_hold_no_place_that_the_living_need() {
    let fleet = Fleet::new(12).await;
    for number in 1..=6 {
        fleet.company.machine(&format!("web{number:02}")).stop().await;
    }
    let begun = Instant::now();
    let told = fleet.told(ManyRequest { concurrency: 1, ..request("true") }).await;
    // One after the other they would take six seconds.
    assert!(begun.elapsed() < Duration::from_secs(4), "took {:?}", begun.elapsed());
    assert_eq!(told.outcomes(), BTreeMap::from([(TargetOutcome::Ok, 6), (TargetOutcome::Unreachable, 6)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_run_at_once_than_may_and_they_begin_in_their_order() {
    let fleet = Fleet::new(6).await;
    let lock = fleet.company.world.path("lock");
    let script = format!("mkdir {0} && sleep 0.05 && rmdir {0}", lock.display());
    let told = fleet.told(ManyRequest { concurrency: 1, ..request(&script) }).await;
    assert_eq!(told.outcomes(), BTreeMap::from([(TargetOutcome::Ok, 6)]), "{:?}", told.lines);
    assert_eq!(told.started, told.names);
    // The same with room for two finds the lock taken.
    let script = format!("mkdir {0} && sleep 1 && rmdir {0}", lock.display());
    let told = fleet.told(ManyRequest { concurrency: 2, ..request(&script) }).await;
    assert!(told.outcomes()[&TargetOutcome::Failed] > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_comes_as_lines_with_its_stream_and_the_status_with_its_signal() {
    let fleet = Fleet::new(2).await;
    let told = fleet.told(request("echo one; echo two >&2; sleep 0.1; printf three; kill -9 $$")).await;
    for name in ["web01", "web02"] {
        let mut lines = told.lines[name].clone();
        lines.sort();
        assert_eq!(lines, ["2>two", "one", "three…"]);
        let end = &told.ends[name];
        assert_eq!((end.outcome, end.status, end.signal), (TargetOutcome::Failed, Some(137), Some(9)));
        assert!(end.started && end.error.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_too_long_is_hung_up_and_the_others_are_not() {
    let fleet = Fleet::new(3).await;
    let group = fleet.company.world.path("group");
    let script = format!(
        "if mkdir {0}.d 2>/dev/null; then echo $$ > {0}; echo begun; exec sleep 1000; fi; echo done",
        group.display()
    );
    let told = fleet.told(ManyRequest { timeout: Some(Duration::from_secs(2)), ..request(&script) }).await;
    assert_eq!(told.outcomes(), BTreeMap::from([(TargetOutcome::Ok, 2), (TargetOutcome::TimedOut, 1)]));
    let group: i32 = std::fs::read_to_string(group).expect("is there").trim().parse().expect("a number");
    until("the program to be gone", || async { is_gone(group) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_first_failure_none_begins_and_those_that_run_are_hung_up() {
    let fleet = Fleet::new(6).await;
    let mark = fleet.company.world.path("mark");
    // The first to come stays, the second fails when the first runs.
    let script = format!(
        "if mkdir {0} 2>/dev/null; then echo $$ > {0}/group; exec sleep 1000; fi; \
         while ! test -s {0}/group; do sleep 0.01; done; exit 5",
        mark.display()
    );
    let request = ManyRequest { concurrency: 2, after_failure: AfterFailure::Stop, ..request(&script) };
    let told = fleet.told(request).await;
    assert_eq!(told.outcomes(), BTreeMap::from([(TargetOutcome::Failed, 1), (TargetOutcome::Cancelled, 5)]));
    assert_eq!(told.started.len(), 2, "no third began");
    let begun = told.ends.values().filter(|end| end.started).count();
    assert_eq!(begun, 2);
    let group: i32 =
        std::fs::read_to_string(mark.join("group")).expect("is there").trim().parse().expect("a number");
    until("the first to be gone", || async { is_gone(group) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_hears_how_each_ended() {
    let fleet = Fleet::new(3).await;
    let mut run = fleet.run(ManyRequest { concurrency: 2, ..request("echo begun; exec sleep 1000") }).await;
    let mut begun = 0;
    while begun < 2 {
        let batch = soon(run.next_batch()).await.expect("goes on");
        begun += batch.iter().filter(|event| matches!(event, ManyEvent::Line { .. })).count();
    }
    run.stop();
    assert_eq!(told(run).await.outcomes(), BTreeMap::from([(TargetOutcome::Cancelled, 3)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_order_each_machine_s_output_is_together_however_much_of_it_there_is() {
    let fleet = Fleet::new(4).await;
    // More than may wait: those whose turn has not come are held up, and none of it is lost.
    let request = ManyRequest {
        order: ManyOrder::ByTarget,
        concurrency: 2,
        ..request("seq 1 100000; sleep 0.1; echo end")
    };
    let told = fleet.told(request).await;
    assert_eq!(told.outcomes(), BTreeMap::from([(TargetOutcome::Ok, 4)]));
    assert!(told.from.is_sorted());
    for lines in told.lines.values() {
        assert_eq!(
            (lines.len(), lines[99_999].as_str(), lines[100_000].as_str()),
            (100_001, "100000", "end")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_no_output_makes_the_programs_wait() {
    let fleet = Fleet::new(2).await;
    let done = fleet.company.world.path("done");
    // In steps, so that it can be seen how far it is.
    let script = format!(
        "i=0; while echo $i > {0}-so-far.$$; [ $i -lt 400 ]; do head -c 50000 /dev/zero | tr '\\0' '\\n'; \
         i=$((i + 1)); done; touch {0}.$$",
        done.display()
    );
    let files = |start: &str| {
        let files = std::fs::read_dir(done.parent().expect("a folder")).expect("lists").flatten();
        let named = files.filter(|file| file.file_name().to_string_lossy().starts_with(start));
        named.map(|file| std::fs::read(file.path()).expect("reads")).collect::<Vec<_>>()
    };
    let written = || files("done.").len();
    let mut run = fleet.run(request(&script)).await;
    let first = soon(run.next_batch()).await.expect("begins");
    let (mut last, mut looks) = (Vec::new(), 0);
    until("the programs to stand still", || {
        let now = files("done-so-far.");
        looks = if now == last && now.len() == 2 { looks + 1 } else { 0 };
        last = now;
        std::future::ready(looks > 40)
    })
    .await;
    assert_eq!(written(), 0, "nobody took the output");
    let mut lines = first.iter().filter(|event| matches!(event, ManyEvent::Line { .. })).count();
    while let Some(batch) = soon(run.next_batch()).await {
        lines += batch.iter().filter(|event| matches!(event, ManyEvent::Line { .. })).count();
    }
    assert_eq!((lines, written()), (40_000_000, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reads_the_same_input_to_its_end() {
    let fleet = Fleet::new(3).await;
    let input = "line\n".repeat(500_000);
    let told = fleet.told(ManyRequest { input: input.into(), ..request("wc -c; cat | wc -c") }).await;
    for name in &told.names {
        assert_eq!(told.lines[name], ["2500000", "0"]);
    }
    let told = fleet.told(request("wc -c")).await;
    assert_eq!(told.lines["web01"], ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_mean_what_the_config_lets_this_device_reach() {
    let fleet = Fleet::new(2).await;
    let select = async |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        match soon(fleet.client.select_targets(&words)).await {
            Ok(selected) => Ok(selected.iter().map(ToString::to_string).collect::<Vec<_>>()),
            Err(error) => Err((error.code().to_string(), error.hint().unwrap_or_default())),
        }
    };
    assert_eq!(select(&["web*.company", "web01.company"]).await.expect("both").len(), 2);
    // The laptop is no machine that it may run anything on, but it is this device.
    assert_eq!(select(&["laptop.company"]).await.expect("is here"), ["laptop.company"]);
    let (code, hint) = select(&["wbe01.company"]).await.expect_err("a typo");
    assert_eq!((code.as_str(), hint.as_str()), ("address.unknown_machine", "known here: web01.company"));
    assert_eq!(select(&["@web.company"]).await.expect_err("no group").0, "address.unknown_machine");
    // Written meanwhile: the manager is asked.
    fleet.company.manager.edit(|text| format!("{text}\n[group.web]\nmembers = \"web02\"\n")).await;
    assert_eq!(select(&["@web.company"]).await.expect("is known now"), ["web02.company"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_is_answered_by_who_lives_and_admits() {
    let fleet = Fleet::new(2).await;
    let ping = async |address: &str| {
        soon(fleet.client.ping(address.to_owned(), Some(Duration::from_secs(1))))
            .await
            .map_err(|error| error.code().to_string())
    };
    let view = ping("web01.company").await.expect("is there");
    assert_eq!(view.machine.map(|name| name.to_string()).as_deref(), Some("web01"));
    assert!(!view.local && !view.relayed && view.version == "0.0.0-test");
    fleet.company.machine("web02").stop().await;
    assert_eq!(ping("web02.company").await.expect_err("is stopped"), "p2p.unreachable");
    // The laptop's own node is stopped, so that not every machine gets its config.
    fleet.company.manager.edit(|text| text.replacen("allow_from = \"laptop\"\n", "", 1)).await;
    until("web01 to refuse", || async {
        ping("web01.company").await.is_err_and(|code| code == "p2p.not_admitted")
    })
    .await;
}
