//! Joining, distributing and taking configs, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use malai_model::cluster::{
    Backoff, Delivery, DistributionState, InviteRecord, JoinEdit, JoinPlan, Plan, SyncStatus, Token,
    check_open, open_rules, plan, plan_join,
};
use malai_model::code::ErrorCode;
use malai_model::config::{ClusterConfig, SignedConfigProblem, compile, personalize, verify_signed};
use malai_model::id::{Id52, SecretKey};
use malai_model::name::MachineName;

fn key(letter: char) -> SecretKey {
    SecretKey::from_bytes(&[letter as u8; 32])
}

fn id(letter: char) -> Id52 {
    key(letter).id52()
}

fn name(text: &str) -> MachineName {
    text.parse().expect("a name")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

/// Compiles a config in which `<x>` stands for the id52 of the letter x, and `<M>` is the manager.
fn config(text: &str) -> ClusterConfig {
    let mut text = format!("[cluster-manager]\nid52 = \"<M>\"\ncluster_name = \"company\"\n{text}");
    for letter in ('a'..='z').chain('A'..='Z') {
        text = text.replace(&format!("<{letter}>"), &id(letter).to_string());
    }
    match compile("cluster.toml", &text).into_result() {
        Ok((config, _)) => config,
        Err(problems) => panic!("{problems}"),
    }
}

fn record(groups: &[&str]) -> InviteRecord {
    InviteRecord {
        label: String::new(),
        token_hash: Token::from_bytes([1; 16]).hash(),
        created: at(0),
        expires: at(100),
        max_uses: 1,
        uses: Vec::new(),
        revoked: None,
        groups: groups.iter().map(|group| group.parse().expect("a name")).collect(),
        open: false,
        extra: BTreeMap::new(),
    }
}

const JOINED: &str = "[machine.web]\nid52 = \"<w>\"\n[group.ops]\nmembers = []\n\
    [service.admin]\nmachine = \"web\"\nprotocol = \"tcp\"\nport = 1\n";

#[test]
fn a_member_keeps_its_name_and_nothing_is_edited() {
    let plan = plan_join(&config(JOINED), &record(&["ops"]), &id('w'), Some(&name("other")));
    assert_eq!(plan, JoinPlan { name: name("web"), edit: None });
}

#[test]
fn a_new_machine_gets_its_wish_a_suffix_or_a_name_from_its_id() {
    let config = config(JOINED);
    let named = |wish: Option<&str>| {
        let plan = plan_join(&config, &record(&[]), &id('n'), wish.map(name).as_ref());
        let edit = plan.edit.expect("it is new");
        assert_eq!(edit, JoinEdit { name: plan.name.clone(), id52: id('n'), groups: Vec::new() });
        plan.name.to_string()
    };
    assert_eq!(named(Some("db")), "db");
    assert_eq!(named(Some("web")), "web-2");
    // Nobody joins under the name of a group or of a service.
    assert_eq!(named(Some("ops")), "ops-2");
    assert_eq!(named(Some("admin")), "admin-2");
    assert_eq!(named(None), format!("machine-{}", id('n').short()));
}

#[test]
fn a_new_machine_is_put_in_the_groups_that_still_exist() {
    let plan = plan_join(&config(JOINED), &record(&["gone", "ops"]), &id('n'), None);
    assert_eq!(plan.edit.map(|edit| edit.groups), Some(vec!["ops".parse().expect("a name")]));
}

#[test]
fn rules_that_say_star_are_found_through_groups_too() {
    let config = config(
        r#"config_editors = "outer"
[machine.web]
id52 = "<w>"
allow_from = "<a>"
allow_shell = "<a>,*"
allow_proxy = "closed"
[machine.web.command.deploy]
allow_from = "inner"
[machine.web.tcp.ssh]
port = 22
allow_from = "*"
[service.admin]
machine = "web"
protocol = "http"
port = 80
allow_from = "closed,outer"
[group.outer]
members = "<b>,inner"
[group.inner]
members = "*"
[group.closed]
members = "web,cluster-manager"
"#,
    );
    assert_eq!(
        open_rules(&config),
        [
            "[cluster-manager] config_editors (through group outer)",
            "[machine.web] allow_shell",
            "[machine.web.command.deploy] allow_from (through group inner)",
            "[machine.web.tcp.ssh] allow_from",
            "[service.admin] allow_from (through group outer)",
        ]
    );
    assert_eq!(open_rules(&self::config(JOINED)), Vec::<String>::new());
    let refused = check_open(&config, &record(&[])).expect_err("a rule says *");
    assert_eq!((refused.code(), refused.rules().len()), (ErrorCode::InviteOpenRule, 5));
    assert_eq!(check_open(&config, &InviteRecord { open: true, ..record(&[]) }), Ok(()));
    assert_eq!(check_open(&self::config(JOINED), &record(&[])), Ok(()));
}

const TWO: &str = "[machine.db]\nid52 = \"<d>\"\nallow_from = \"web\"\n\
    [machine.web]\nid52 = \"<w>\"\naddresses = [\"h:1\"]\n";

fn names(plan: &Plan) -> Vec<&str> {
    plan.deliveries.iter().map(|delivery| delivery.machine.as_str()).collect()
}

fn delivery(plan: &Plan, machine: &str) -> Delivery {
    plan.deliveries.iter().find(|d| d.machine.as_str() == machine).cloned().expect("it is due")
}

/// The state after everybody got the config.
fn settled(config: &ClusterConfig) -> DistributionState {
    let mut state = DistributionState::default();
    plan(config, &state, at(0)).deliveries.iter().for_each(|d| state.record_success(d, at(0)));
    state
}

#[test]
fn everybody_gets_a_first_config_and_then_only_whom_a_change_concerns() {
    let before = config(TWO);
    let first = plan(&before, &DistributionState::default(), at(0));
    assert_eq!(names(&first), ["db", "web"]);
    assert_eq!((first.deliveries[1].serial, first.deliveries[1].addresses.len()), (1, 1));
    let state = settled(&before);
    assert_eq!(plan(&before, &state, at(1)), Plan::default());
    let after = config(&TWO.replace("allow_from = \"web\"", "allow_from = \"web\"\nusername = \"deploy\""));
    let second = plan(&after, &state, at(1));
    assert_eq!(names(&second), ["db"]);
    assert_eq!(second.deliveries[0].serial, 2);
    // Who gains or loses a right hears of it as well as who grants it.
    let closed = config(&TWO.replace("allow_from = \"web\"", "allow_from = []"));
    assert_eq!(names(&plan(&closed, &state, at(1))), ["db", "web"]);
}

#[test]
fn the_manager_is_sent_nothing_even_if_it_is_a_machine() {
    let config = config("[machine.desk]\nid52 = \"<M>\"\nallow_from = \"*\"\n");
    assert_eq!(plan(&config, &DistributionState::default(), at(0)), Plan::default());
}

#[test]
fn a_delivery_whose_success_is_heard_of_late_does_not_hide_what_the_machine_asked_for_meanwhile() {
    let before = config(TWO);
    let mut state = settled(&before);
    let first = plan(&before, &DistributionState::default(), at(0));
    let newer = Delivery { serial: 7, digest: "other".to_owned(), ..delivery(&first, "web") };
    state.record_success(&newer, at(1));
    state.record_success(&Delivery { serial: 6, ..delivery(&first, "web") }, at(2));
    // It does not have what this config says, though that was delivered, too.
    let next = plan(&before, &state, at(2));
    assert_eq!((names(&next), next.deliveries[0].serial), (vec!["web"], 8));
}

#[test]
fn the_unreachable_wait_longer_each_time_and_a_change_ends_the_wait() {
    let before = config(TWO);
    let mut state = DistributionState::default();
    let backoff = Backoff::default();
    let web = delivery(&plan(&before, &state, at(0)), "web");
    state.record_success(&delivery(&plan(&before, &state, at(0)), "db"), at(0));
    state.record_failure(&web, "unreachable", at(0), &backoff, 0);
    let waiting = plan(&before, &state, at(0));
    assert_eq!((names(&waiting), waiting.next_due, waiting.outdated), (vec![], Some(at(1)), 1));
    assert_eq!(names(&plan(&before, &state, at(1))), ["web"]);
    state.record_failure(&web, "unreachable", at(1), &backoff, 0);
    assert_eq!(plan(&before, &state, at(2)).next_due, Some(at(3)));
    let after = config(&TWO.replace("allow_from = \"web\"", "allow_from = []"));
    assert_eq!(names(&plan(&after, &state, at(2))), ["db", "web"]);
    let entry = &state.machine_states[&id('w')];
    assert_eq!((entry.sync_status, entry.attempts), (SyncStatus::Pending, 2));
    assert_eq!(entry.last_error.as_deref(), Some("unreachable"));
    state.retry_all();
    assert_eq!(names(&plan(&before, &state, at(2))), ["web"]);
    state.record_success(&web, at(2));
    assert_eq!(plan(&before, &state, at(2)), Plan::default());
    assert_eq!(state.machine_states[&id('w')].last_error, None);
}

#[test]
fn a_refused_config_is_not_offered_again_until_it_differs() {
    let before = config(TWO);
    let mut state = settled(&config(&TWO.replace("web\"\n[", "db\"\n[")));
    let web = delivery(&plan(&before, &state, at(0)), "web");
    state.record_refused(&web, "does not compile");
    let waiting = plan(&before, &state, at(1_000_000));
    assert_eq!((names(&waiting).contains(&"web"), waiting.next_due), (false, None));
    let after = config(&TWO.replace("h:1", "h:2"));
    assert!(names(&plan(&after, &state, at(1))).contains(&"web"));
    state.retry_all();
    assert!(names(&plan(&before, &state, at(1))).contains(&"web"));
}

#[test]
fn a_manager_restored_from_a_backup_goes_on_above_what_machines_have() {
    let config = config(TWO);
    let mut state = DistributionState::default();
    let old = delivery(&plan(&config, &state, at(0)), "web");
    state.record_stale(&old, 41);
    let next = delivery(&plan(&config, &state, at(0)), "web");
    assert_eq!(next.serial, 42);
    // An older serial teaches nothing.
    state.record_stale(&next, 3);
    assert_eq!(delivery(&plan(&config, &state, at(0)), "web").serial, 42);
}

#[test]
fn removed_machines_are_forgotten() {
    let mut state = settled(&config(TWO));
    let after = config("[machine.db]\nid52 = \"<d>\"\nallow_from = []\n");
    let next = plan(&after, &state, at(1));
    assert_eq!(next.removed, [id('w')]);
    state.forget(&next.removed);
    assert_eq!(plan(&after, &state, at(1)).removed, []);
    assert_eq!(state.machine_states.len(), 1);
}

#[test]
fn waits_double_up_to_the_cap_and_jitter_only_shortens_them() {
    let backoff = Backoff::default();
    let waits: Vec<u64> =
        [0, 1, 2, 3, 9, 10, 1000, u32::MAX].map(|failures| backoff.wait(failures, 0).as_secs()).into();
    assert_eq!(waits, [1, 1, 2, 4, 256, 300, 300, 300]);
    assert_eq!(backoff.wait(3, u16::MAX), Duration::from_secs(2));
    assert!(backoff.wait(3, 1000) < backoff.wait(3, 0));
}

fn signed(letter: char, serial: u64) -> String {
    let machine = if letter == 'w' { "web" } else { "db" };
    let body = personalize(&config(TWO), &name(machine)).expect("it exists");
    body.sign(serial, &"ab".repeat(32), &key('M'))
}

fn code(text: &str, recipient: char, newer_than: Option<u64>) -> Result<u64, ErrorCode> {
    verify_signed(text, &id('M'), &id(recipient), newer_than)
        .map(|signed| signed.config.recipient().serial)
        .map_err(|problem| problem.code())
}

#[test]
fn a_config_is_taken_from_the_manager_for_oneself_and_only_forward() {
    let text = signed('w', 5);
    assert_eq!(code(&text, 'w', None), Ok(5));
    assert_eq!(code(&text, 'w', Some(4)), Ok(5));
    assert_eq!(code(&text, 'w', Some(5)), Err(ErrorCode::ConfigStale));
    assert_eq!(code(&text, 'w', Some(6)), Err(ErrorCode::ConfigStale));
    assert_eq!(code(&text, 'd', None), Err(ErrorCode::ConfigForeign));
    let body = personalize(&config(TWO), &name("web")).expect("it exists");
    for signer in ['w', 'd', 'x'] {
        let text = body.sign(5, &"ab".repeat(32), &key(signer));
        assert_eq!(code(&text, 'w', None), Err(ErrorCode::ConfigForged));
    }
    assert_eq!(code(&"x".repeat(5 << 20), 'w', None), Err(ErrorCode::ConfigTooLarge));
    // Signed by the manager, but without the digest of the next root.
    let invalid = body.sign(5, "", &key('M'));
    assert_eq!(code(&invalid, 'w', None), Err(ErrorCode::ConfigInvalid));
}

#[test]
fn what_is_signed_again_with_another_serial_differs_in_serial_and_signature_alone() {
    let (one, two) = (signed('w', 5), signed('w', 6));
    let different: Vec<(&str, &str)> = one.lines().zip(two.lines()).filter(|(a, b)| a != b).collect();
    assert_eq!(different[0], ("serial = 5", "serial = 6"));
    assert_eq!(different.len(), 2);
    assert!(different[1].0.starts_with("value = "));
    let digest = |text: &str| verify_signed(text, &id('M'), &id('w'), None).map(|signed| signed.digest);
    assert_ne!(digest(&one), digest(&two));
}

#[test]
fn a_root_does_not_sign_for_another_cluster() {
    let text = "[machine.web]\nid52 = \"<w>\"\n";
    let other = {
        let text = format!("[cluster-manager]\nid52 = \"{}\"\ncluster_name = \"x\"\n{text}", id('O'));
        let text = text.replace("<w>", &id('w').to_string());
        compile("cluster.toml", &text).into_result().expect("it compiles").0
    };
    let body = personalize(&other, &name("web")).expect("it exists");
    let text = body.sign(1, &"ab".repeat(32), &key('M'));
    assert!(matches!(
        verify_signed(&text, &id('M'), &id('w'), None),
        Err(SignedConfigProblem::Forged { .. })
    ));
}
