//! Who may do what: SPEC's table, row by row, each allow with its deny.

use malai_model::acl::{
    Action, Authorized, Ceilings, Cluster, DenyReason, EditConfig, Exit, Policy, Reach, Rule, Run, Shell,
    authorize, authorize_under, reauthorize,
};
use malai_model::code::ErrorCode;
use malai_model::config::{ClusterConfig, compile};
use malai_model::id::{Id52, SecretKey};
use malai_model::name::MachineName;

fn id(letter: char) -> Id52 {
    SecretKey::from_bytes(&[letter as u8; 32]).id52()
}

fn name(text: &str) -> MachineName {
    text.parse().expect("a name")
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

fn policy(text: &str) -> Policy {
    Policy::of_cluster(&config(text))
}

fn run(argv: &str) -> Run {
    Run { argv: argv.split_whitespace().map(str::to_owned).collect() }
}

fn reach(service: &str) -> Reach {
    Reach { service: service.parse().expect("a name") }
}

fn why<A: Action<Target = MachineName>>(policy: &Policy, who: char, action: A) -> DenyReason {
    let denied = authorize(policy, &id(who), &name("web"), action).expect_err("denied");
    assert_eq!(denied.code(), ErrorCode::AclDenied);
    denied.reason().clone()
}

fn allowed<A: Action<Target = MachineName>>(policy: &Policy, who: char, action: A) -> Authorized<A> {
    authorize(policy, &id(who), &name("web"), action).expect("allowed")
}

const RULES: &str = r#"
config_editors = "<e>"
[machine.web]
id52 = "<w>"
allow_from = "<a>"
allow_proxy = "<p>"
proxy_to = ["10.0.0.0/8"]
username = "webservice"
[machine.web.command.restart]
allow_from = "ops"
command = "sudo systemctl restart nginx"
username = "nginx"
[machine.web.command.top]
[machine.web.command.tail]
allow_from = "ops"
args = ["-f", "/var/log/*.log"]
[machine.web.command.nobody]
allow_from = []
[machine.web.tcp.ssh]
port = 22
allow_from = "ops"
[machine.web.tcp.closed]
port = 23
[machine.laptop]
id52 = "<l>"
[service.admin]
machine = "web"
protocol = "http"
port = 8080
allow_from = "laptop"
[group.ops]
members = "inner,<o>"
[group.inner]
members = "laptop,cluster-manager"
[group.empty]
members = []
"#;

#[test]
fn allow_from_lets_a_caller_run_any_program_but_those_with_a_rule_of_their_own() {
    let policy = policy(RULES);
    let permission = allowed(&policy, 'a', run("rm -rf /"));
    assert_eq!(permission.effect().argv, ["rm", "-rf", "/"]);
    assert_eq!(permission.effect().username.as_ref().map(|user| user.as_str()), Some("webservice"));
    assert_eq!(permission.caller(), &id('a'));
    assert_eq!(permission.caller_name(), None);
    assert_eq!(why(&policy, 'o', run("rm")), DenyReason::NotNamed(Rule::AllowFrom));
    let restart = "restart".parse().expect("a name");
    assert_eq!(why(&policy, 'a', run("restart")), DenyReason::NotNamed(Rule::Command(restart)));
}

#[test]
fn a_command_is_looked_up_by_the_word_that_was_typed() {
    let policy = policy(RULES);
    let permission = allowed(&policy, 'l', run("restart"));
    assert_eq!(permission.effect().argv, ["sudo", "systemctl", "restart", "nginx"]);
    assert_eq!(permission.effect().username.as_ref().map(|user| user.as_str()), Some("nginx"));
    assert_eq!(permission.caller_name().map(|name| name.as_str()), Some("laptop"));
    // What the alias stands for, a path to it, and other spellings are other names.
    for typed in
        ["sudo systemctl restart nginx", "sudo", "/bin/restart", "./restart", "RESTART", "restart\u{a0}"]
    {
        let action = Run { argv: vec![typed.to_owned()] };
        assert_eq!(why(&policy, 'l', action), DenyReason::NotNamed(Rule::AllowFrom), "{typed:?}");
    }
    assert_eq!(why(&policy, 'a', Run { argv: vec![] }), DenyReason::EmptyCommand);
    assert_eq!(why(&policy, 'a', Run { argv: vec![String::new()] }), DenyReason::EmptyCommand);
}

#[test]
fn a_command_without_allow_from_inherits_the_machines() {
    let policy = policy(RULES);
    assert_eq!(allowed(&policy, 'a', run("top -b")).effect().argv, ["top", "-b"]);
    assert_eq!(why(&policy, 'o', run("top")), DenyReason::NotNamed(Rule::AllowFrom));
}

#[test]
fn an_empty_list_lets_nobody_in() {
    let policy = policy(RULES);
    let nobody = "nobody".parse().expect("a name");
    assert_eq!(why(&policy, 'a', run("nobody")), DenyReason::NotNamed(Rule::Command(nobody)));
}

#[test]
fn further_words_need_to_fit_the_args_rule() {
    let policy = policy(RULES);
    let refused = |command: &str, position| DenyReason::Arguments {
        command: command.parse().expect("a name"),
        position,
    };
    // An alias takes no words unless it says so.
    assert_eq!(why(&policy, 'l', run("restart now")), refused("restart", 1));
    assert_eq!(
        why(&policy, 'l', Run { argv: vec!["restart".to_owned(), String::new()] }),
        refused("restart", 1)
    );
    assert_eq!(allowed(&policy, 'l', run("tail -f /var/log/a.log")).effect().argv.len(), 3);
    assert_eq!(why(&policy, 'l', run("tail -f /var/log/nginx/a.log")), refused("tail", 2));
    assert_eq!(why(&policy, 'l', run("tail -F /var/log/a.log")), refused("tail", 1));
    assert_eq!(why(&policy, 'l', run("tail /var/log/../shadow.log")), refused("tail", 1));
    // Who may not run it at all is not told which words it takes.
    let tail = "tail".parse().expect("a name");
    assert_eq!(why(&policy, 'a', run("tail x")), DenyReason::NotNamed(Rule::Command(tail)));
}

#[test]
fn a_shell_needs_allow_shell_or_else_allow_from() {
    let open = policy(RULES);
    assert_eq!(
        allowed(&open, 'a', Shell).effect().username.as_ref().map(|user| user.as_str()),
        Some("webservice")
    );
    assert_eq!(why(&open, 'o', Shell), DenyReason::NotNamed(Rule::AllowFrom));
    let own = policy("[machine.web]\nid52 = \"<w>\"\nallow_from = \"<a>\"\nallow_shell = \"<s>\"\n");
    assert!(authorize(&own, &id('s'), &name("web"), Shell).is_ok());
    assert_eq!(why(&own, 'a', Shell), DenyReason::NotNamed(Rule::AllowShell));
    assert_eq!(why(&own, 's', run("true")), DenyReason::NotNamed(Rule::AllowFrom));
    let none = policy("[machine.web]\nid52 = \"<w>\"\nallow_from = \"<a>\"\nallow_shell = []\n");
    assert_eq!(why(&none, 'a', Shell), DenyReason::NotNamed(Rule::AllowShell));
}

#[test]
fn a_service_needs_its_own_allow_from() {
    let policy = policy(RULES);
    assert_eq!(allowed(&policy, 'o', reach("ssh")).effect().port, 22);
    let admin = allowed(&policy, 'l', reach("admin"));
    assert_eq!((admin.effect().host.as_str(), admin.effect().port), ("127.0.0.1", 8080));
    let rule = |service: &str| Rule::Service(service.parse().expect("a name"));
    assert_eq!(why(&policy, 'a', reach("ssh")), DenyReason::NotNamed(rule("ssh")));
    assert_eq!(why(&policy, 'o', reach("admin")), DenyReason::NotNamed(rule("admin")));
    assert_eq!(why(&policy, 'o', reach("closed")), DenyReason::NoRule(rule("closed")));
    assert_eq!(why(&policy, 'o', reach("mysql")), DenyReason::UnknownService);
    let elsewhere = authorize(&policy, &id('l'), &name("laptop"), reach("admin")).expect_err("denied");
    assert_eq!(elsewhere.reason(), &DenyReason::UnknownService);
}

#[test]
fn an_exit_needs_allow_proxy() {
    let policy = policy(RULES);
    assert_eq!(allowed(&policy, 'p', Exit).effect().proxy_to[..], ["10.0.0.0/8".to_owned()]);
    assert_eq!(why(&policy, 'a', Exit), DenyReason::NotNamed(Rule::AllowProxy));
    let laptop = authorize(&policy, &id('p'), &name("laptop"), Exit).expect_err("denied");
    assert_eq!(laptop.reason(), &DenyReason::NoRule(Rule::AllowProxy));
}

#[test]
fn editing_needs_config_editors_or_the_root() {
    let policy = policy(RULES);
    assert!(authorize(&policy, &id('e'), &Cluster, EditConfig).is_ok());
    assert!(authorize(&policy, &id('M'), &Cluster, EditConfig).is_ok());
    let denied = authorize(&policy, &id('a'), &Cluster, EditConfig).expect_err("denied");
    assert_eq!(denied.reason(), &DenyReason::NotNamed(Rule::ConfigEditors));
}

#[test]
fn the_manager_gets_no_special_treatment() {
    let policy = policy("[machine.web]\nid52 = \"<w>\"\nallow_from = \"*\"\n");
    assert_eq!(why(&policy, 'M', run("true")), DenyReason::NotNamed(Rule::AllowFrom));
    assert_eq!(why(&policy, 'M', Shell), DenyReason::NotNamed(Rule::AllowFrom));
}

#[test]
fn a_machine_without_rules_lets_nobody_in() {
    let policy =
        policy("[machine.web]\nid52 = \"<w>\"\n[machine.other]\nid52 = \"<o>\"\nallow_from = \"*\"\n");
    for who in ['w', 'o', 'M', 'x'] {
        assert_eq!(why(&policy, who, run("true")), DenyReason::NoRule(Rule::AllowFrom));
        assert_eq!(why(&policy, who, Shell), DenyReason::NoRule(Rule::AllowFrom));
        assert_eq!(why(&policy, who, Exit), DenyReason::NoRule(Rule::AllowProxy));
    }
    let unknown = authorize(&policy, &id('o'), &name("nowhere"), run("true")).expect_err("denied");
    assert_eq!(unknown.reason(), &DenyReason::UnknownMachine);
}

#[test]
fn a_star_is_every_machine_and_nobody_else() {
    let policy = policy("[machine.web]\nid52 = \"<w>\"\nallow_from = \"*\"\n[machine.b]\nid52 = \"<b>\"\n");
    assert_eq!(allowed(&policy, 'b', run("true")).caller_name().map(|name| name.as_str()), Some("b"));
    assert_eq!(why(&policy, 'x', run("true")), DenyReason::NotNamed(Rule::AllowFrom));
}

#[test]
fn a_caller_is_told_the_same_whatever_the_reason() {
    let policy = policy(RULES);
    let texts: Vec<String> = [run("rm"), run("restart now"), run("nobody")]
        .into_iter()
        .map(|action| authorize(&policy, &id('x'), &name("web"), action).expect_err("denied"))
        .map(|denied| format!("{denied} {:?}", denied.hint()))
        .collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

#[test]
fn ceilings_hold_against_any_config() {
    let policy = policy(RULES);
    let user = |name: &str| {
        let text = format!("[machine.web]\nid52 = \"<w>\"\nusername = \"{name}\"\n");
        config(&text).machines()["web"].username.clone().expect("a user name")
    };
    let under = |ceilings: &Ceilings, action: Run| {
        authorize_under(&policy, ceilings, &id('a'), &name("web"), action).map_err(|d| d.reason().clone())
    };
    let only = Ceilings::none().only_users([user("deploy")], None);
    assert_eq!(
        under(&only, run("true")).map(|_| ()),
        Err(DenyReason::UserCeiling { user: Some(user("webservice")) })
    );
    let fits = Ceilings::none().only_users([user("webservice")], None);
    assert!(under(&fits, run("true")).is_ok());
    let deny = |ceilings: Ceilings| {
        let shell = authorize_under(&policy, &ceilings, &id('a'), &name("web"), Shell);
        let service = authorize_under(&policy, &ceilings, &id('o'), &name("web"), reach("ssh"));
        let reason = |denied: malai_model::acl::Denied| denied.reason().clone();
        (shell.map(|_| ()).map_err(reason), service.map(|_| ()).map_err(reason))
    };
    assert_eq!(deny(Ceilings::none()), (Ok(()), Ok(())));
    assert_eq!(deny(Ceilings::none().forbid_shell()), (Err(DenyReason::ShellCeiling), Ok(())));
    assert_eq!(deny(Ceilings::none().forbid_services()), (Ok(()), Err(DenyReason::ServicesCeiling)));
}

#[test]
fn the_daemons_own_user_is_measured_too() {
    let policy = policy("[machine.web]\nid52 = \"<w>\"\nallow_from = \"<a>\"\n");
    let text = "[machine.web]\nid52 = \"<w>\"\nusername = \"root\"\n";
    let root = config(text).machines()["web"].username.clone().expect("a user name");
    let under = |ceilings: Ceilings| authorize_under(&policy, &ceilings, &id('a'), &name("web"), run("true"));
    assert!(under(Ceilings::none().only_users([root.clone()], Some(root.clone()))).is_ok());
    assert!(under(Ceilings::none().only_users([root.clone()], None)).is_err());
    assert!(under(Ceilings::none().only_users([], Some(root))).is_err());
}

#[test]
fn applying_a_config_decides_again() {
    let permission = allowed(&policy(RULES), 'l', run("restart"));
    let same = reauthorize(&policy(RULES), &Ceilings::none(), &name("web"), &permission).expect("allowed");
    assert_eq!(same, permission);
    let other_user = policy(&RULES.replace("\"nginx\"", "\"www\""));
    let changed = reauthorize(&other_user, &Ceilings::none(), &name("web"), &permission).expect("allowed");
    assert_ne!(changed.effect(), permission.effect());
    let revoked = policy(&RULES.replace("laptop,cluster-manager", "cluster-manager"));
    assert!(reauthorize(&revoked, &Ceilings::none(), &name("web"), &permission).is_err());
}

#[test]
fn admitted_are_those_whom_a_rule_names_and_the_manager() {
    let policy = policy(RULES);
    let mut expected: Vec<Id52> = "aplMo".chars().map(id).collect();
    expected.sort();
    assert_eq!(policy.admitted(&name("web")), expected);
    assert_eq!(policy.admitted(&name("laptop")), [id('M')]);
    assert_eq!(policy.admitted(&name("nowhere")), []);
}

#[test]
fn acl_tests_say_who_may_what_they_should_not() {
    let text = r#"
[machine.web]
id52 = "<w>"
allow_from = "devs"
[machine.web.command.deploy]
allow_from = "<a>"
[machine.b]
id52 = "<b>"
[group.devs]
members = "<a>,b"
[test.devs]
from = "devs"
allow = ["web run top", "web run deploy"]
deny = ["web shell", "config", "web proxy"]
"#;
    let mut text = format!("[cluster-manager]\nid52 = \"<M>\"\ncluster_name = \"company\"\n{text}");
    for letter in ['M', 'w', 'a', 'b'] {
        text = text.replace(&format!("<{letter}>"), &id(letter).to_string());
    }
    let compiled = compile("cluster.toml", &text);
    assert!(compiled.value.is_none());
    let found: Vec<(u32, String)> = compiled
        .diagnostics
        .iter()
        .filter(|found| found.rule == "acl-test")
        .map(|found| (found.position.map_or(0, |place| place.line), found.message.clone()))
        .collect();
    let mut who = [id('a').to_string(), "b".to_owned()];
    if id('b') < id('a') {
        who.reverse();
    }
    let [first, second] = who;
    assert_eq!(
        found,
        [
            (16, "the test \"devs\" fails: b may not run \"deploy\" on web".to_owned()),
            (17, format!("the test \"devs\" fails: {first}, {second} may open a shell on web")),
        ]
    );
}
