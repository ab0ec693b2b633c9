//! What people see of config files that are right, wrong, and old. Every message here was read by a person.

mod fixture;

use fixture::{DEVICE, PERSONALISED, SPEC_EXAMPLE, id, with_ids};
use malai_model::config::{
    AccessKind, ArgsRule, AuditPolicy, PrincipalList, ProtocolKind, Relays, ServiceProtocol, compile,
    compile_device, compile_machine,
};

/// All that is found, as it is shown; ids as letters again, so that a golden file can be read.
fn findings(text: &str) -> String {
    let compiled = compile("cluster.toml", &with_ids(text));
    let shown: Vec<String> = compiled.diagnostics.iter().map(|found| found.render()).collect();
    let shown = (b'A'..=b'H').fold(shown.join("\n\n"), |shown, letter| {
        shown.replace(&id(letter), &format!("<{}>", char::from(letter)))
    });
    if compiled.value.is_some() { format!("accepted\n\n{shown}") } else { format!("refused\n\n{shown}") }
}

const MANAGER: &str = "[cluster-manager]\nid52 = \"<A>\"\ncluster_name = \"company\"\n\n";

#[test]
fn the_specifications_example_compiles() {
    let (config, warnings) =
        compile("cluster.toml", &with_ids(SPEC_EXAMPLE)).into_result().expect("the example is valid");
    let web01 = &config.machines()["web01"];
    let restart = &web01.commands["restart-nginx"];
    assert_eq!(restart.command.as_deref().expect("words"), ["sudo", "systemctl", "restart", "nginx"]);
    assert_eq!(restart.args, ArgsRule::None);
    assert_eq!(web01.services["ssh"].protocol, ServiceProtocol::Tcp);
    assert_eq!(web01.services["ssh"].host, "127.0.0.1");
    let admin = &config.services()["admin"];
    assert_eq!(admin.protocol, ServiceProtocol::Http { inject_headers: true, secure: false });
    assert_eq!(admin.on_demand.as_ref().expect("it is on demand").idle_timeout.as_secs(), 300);
    assert!(config.machines()["laptop"].allow_from.is_none());
    assert_eq!(config.tests()["interns-cannot-deploy"].deny.len(), 3);
    // devs may run any program on web01, so neither narrower rule keeps them out.
    let shown: Vec<String> = warnings.iter().map(|found| found.render()).collect();
    insta::assert_snapshot!(shown.join("\n\n").replace(&id(b'G')[..8], "<G>"));
}

#[test]
fn each_slip_says_where_and_how_to_mend_it() {
    let slips: &[(&str, &str)] = &[
        ("unquoted", "[machine.web01.command.x]\ncommand = sudo systemctl restart nginx  # now\n"),
        ("unquoted list", "[machine.web01]\nallow_from = admins,devs\n"),
        ("unclosed quote", "[machine.web01]\nusername = \"web\nid52 = \"<B>\"\n"),
        ("quotes in quotes", "[machine.web01.command.x]\ncommand = \"echo \"hello\" you\"\n"),
        ("unclosed section", "[machine.web01\nid52 = \"<B>\"\n"),
        ("section twice", "[machine.web01]\nid52 = \"<B>\"\n[machine.web01]\nusername = \"x\"\n"),
        ("key twice", "[machine.web01]\nid52 = \"<B>\"\nid52 = \"<C>\"\n"),
        ("unknown key", "[machine.web01]\nid52 = \"<B>\"\nalow_from = \"*\"\n"),
        ("unknown section", "[machines.web01]\nid52 = \"<B>\"\n"),
        ("section without name", "[machine]\nid52 = \"<B>\"\n"),
        ("list of sections", "[[machine.web01]]\nid52 = \"<B>\"\n"),
        ("id52 cut", "[machine.web01]\nid52 = \"abc\"\n"),
        ("name", "[machine.Web_01]\nid52 = \"<B>\"\n"),
        ("reserved command", "[machine.web01]\nid52 = \"<B>\"\n[machine.web01.command.shell]\n"),
        (
            "unknown principal",
            "[machine.web01]\nid52 = \"<B>\"\nallow_from = \"admin, web01\"\n[group.admins]\nmembers = []\n",
        ),
        (
            "group cycle",
            "[group.a]\nmembers = \"b\"\n[group.b]\nmembers = \"c\"\n[group.c]\nmembers = \"a\"\n",
        ),
        ("own member", "[group.a]\nmembers = \"a\"\n"),
        ("duplicate id52", "[machine.web01]\nid52 = \"<B>\"\n[machine.web02]\nid52 = \"<B>\"\n"),
        ("machine and group", "[machine.web]\nid52 = \"<B>\"\n[group.web]\nmembers = []\n"),
        (
            "service twice",
            "[machine.web]\nid52 = \"<B>\"\n[machine.web.tcp.x]\nport = 1\n[machine.web.http.x]\nport = 2\n",
        ),
        (
            "service both ways",
            "[machine.web]\nid52 = \"<B>\"\n[machine.web.tcp.x]\nport = 1\n[service.x]\nmachine = \"web\"\nprotocol = \"tcp\"\nport = 2\n",
        ),
        ("port", "[service.x]\nmachine = \"web\"\nprotocol = \"htp\"\nport = 70000\n"),
        (
            "quoted port",
            "[service.x]\nmachine = \"web\"\nprotocol = \"tcp\"\nport = \"22\"\nsecure = true\n[machine.web]\nid52 = \"<B>\"\n",
        ),
        ("missing", "[service.x]\n[machine.web]\n[group.g]\n[test.t]\n"),
        (
            "durations",
            "[service.x]\nmachine = \"web\"\nprotocol = \"tcp\"\nport = 22\ncommand = \"x\"\nstartup_time = \"10\"\nidle_timeout = \"soon\"\n[machine.web]\nid52 = \"<B>\"\n",
        ),
        (
            "words",
            "[machine.web]\nid52 = \"<B>\"\n[machine.web.command.x]\ncommand = \"echo 'it\"\n[machine.web.command.y]\ncommand = \"\"\n",
        ),
        (
            "globs",
            "[machine.web]\nid52 = \"<B>\"\n[machine.web.command.x]\nargs = [\"**\", \"\", \"--*\", \"[a-z]*\"]\n",
        ),
        (
            "networks",
            "[machine.web]\nid52 = \"<B>\"\nallow_proxy = \"web\"\nproxy_to = \"10.0.0.1/8,10.0.0.1,x\"\n",
        ),
        (
            "addresses",
            "[machine.web]\nid52 = \"<B>\"\naddresses = \"web.example.com,1.2.3.4:0,ok:1\"\nusername = \"Web Service\"\n",
        ),
        (
            "tests",
            "[machine.web]\nid52 = \"<B>\"\n[test.t]\nfrom = \"nobody\"\ndeny = [\"web01 shell\", \"web ssh\", \"service admin\", \"web run\"]\n",
        ),
        ("empty words", "[group.g]\nmembers = \"<B>,,<C>\"\n"),
        ("kinds", "[machine.web]\nid52 = 52\naddresses = true\nallow_from = [1]\n"),
    ];
    let shown: Vec<String> = slips
        .iter()
        .map(|(name, text)| format!("=== {name}\n{}", findings(&format!("{MANAGER}{text}"))))
        .collect();
    insta::assert_snapshot!(shown.join("\n\n"));
}

#[test]
fn older_forms_are_read_with_a_warning() {
    let text = "[cluster_manager]\nid52 = \"<A>\"\ncluster_name = \"company\"\n\
        [server.web01]\nid52 = \"<B>\"\nallow_from = \"*\"\naccept_ssh = false\n\
        [server.web01.command.top]\nallow_from = \"*\"\n\
        [server.web01.service.api]\nport = 80\n\
        [server.web01.service.db]\nprotocol = \"tcp\"\nport = 5432\n\
        [device.laptop]\nid52 = \"<C>\"\naccept_ssh = true\n";
    let config = compile("cluster.toml", &with_ids(text)).value.expect("older forms are accepted");
    let web01 = &config.machines()["web01"];
    // accept_ssh = false: nobody may run commands there, whatever the lists say.
    assert!(web01.allow_from.as_ref().is_some_and(|list| list.0.is_empty()));
    assert!(web01.commands["top"].allow_from.as_ref().is_some_and(|list| list.0.is_empty()));
    assert!(matches!(web01.services["api"].protocol, ServiceProtocol::Http { .. }));
    assert_eq!(web01.services["db"].protocol, ServiceProtocol::Tcp);
    insta::assert_snapshot!(findings(text));
}

#[test]
fn a_file_without_a_manager_and_an_oversized_one_are_refused() {
    insta::assert_snapshot!(findings("# nothing\n"), @r#"
    refused

    cluster.toml: error[missing]: the section [cluster-manager] is missing
      hint: it holds id52 and cluster_name; `malai cluster init` writes it
    "#);
    let problems =
        compile("cluster.toml", &"#".repeat(5 * 1024 * 1024)).into_result().expect_err("too large");
    assert_eq!(problems.code().as_str(), "config.too_large");
}

#[test]
fn a_personalised_config_compiles_to_its_machines_rules() {
    let (config, warnings) =
        compile_machine("machine.toml", &with_ids(PERSONALISED)).into_result().expect("it is valid");
    assert_eq!(warnings, []);
    assert_eq!(config.recipient().serial, 12);
    assert_eq!(config.recipient().machine.as_str(), "web01");
    assert_eq!(config.own().allow_from.as_ref().map(|list| list.0.len()), Some(2));
    assert!(config.own().allow_shell.is_none());
    assert_eq!(config.hosted_services()["admin"].port, 8080);
    let db01 = &config.directory().machines()["db01"];
    assert_eq!(db01.may.iter().copied().collect::<Vec<_>>(), [AccessKind::Run, AccessKind::Shell]);
    assert_eq!(db01.services["ssh"], ProtocolKind::Tcp);
    assert_eq!(config.directory().services()["wiki"].machine.as_str(), "db02");
    assert!(config.directory().groups()["databases"].contains("db01"));
    let caller: malai_model::id::Id52 = id(b'D').parse().expect("an id");
    assert_eq!(config.directory().callers()[&caller].as_str(), "laptop");
}

/// What an unknown key does: each list that admitted somebody, by whether it still does.
#[test]
fn an_unknown_key_makes_its_rule_deny_and_no_other() {
    let lists = |after: &str, line: &str| {
        let text = PERSONALISED.replacen(after, &format!("{after}\n{line}"), 1);
        let (config, warnings) =
            compile_machine("machine.toml", &with_ids(&text)).into_result().expect("it is never rejected");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let admits = |list: &Option<PrincipalList>| list.as_ref().is_some_and(|list| !list.0.is_empty());
        let own = config.own();
        // The rule is still there: without it the machine's wider list would hold.
        let deploy = admits(&own.commands["deploy"].allow_from);
        let editors = config.manager().config_editors.is_some();
        let (ssh, admin) = (&own.services["ssh"].allow_from, &config.hosted_services()["admin"].allow_from);
        [editors, admits(&own.allow_from), deploy, admits(ssh), admits(admin)]
    };
    let later = "approval = \"admins\"";
    assert_eq!(lists("[cluster-manager]", later), [false, true, true, true, true]);
    assert_eq!(lists("[machine.web01]", later), [true, false, false, false, true]);
    assert_eq!(lists("[machine.web01.command.deploy]", later), [true, true, false, true, true]);
    assert_eq!(lists("[machine.web01.tcp.ssh]", later), [true, true, true, false, true]);
    assert_eq!(lists("[service.admin]", later), [true, true, true, true, false]);
    assert_eq!(lists("[recipient]", later), [true; 5]);
    assert_eq!(lists("[directory.machine.db01]", later), [true; 5]);
    assert_eq!(lists("value = \"00\"\n", "[later.thing]\nx = 1"), [true; 5]);
}

#[test]
fn an_unknown_word_in_a_personalised_file_denies_too() {
    let text = PERSONALISED.replacen("protocol = \"http\"", "protocol = \"quic\"", 1);
    let text = text.replacen("allow_from = [\"<B>\", \"<D>\"]", "allow_from = [\"tag:prod\", \"*\"]", 1);
    let (config, warnings) =
        compile_machine("machine.toml", &with_ids(&text)).into_result().expect("it is not rejected");
    assert!(config.hosted_services().is_empty());
    assert!(config.own().allow_from.as_ref().is_some_and(|list| list.0.is_empty()));
    assert_eq!(warnings.len(), 3);
}

#[test]
fn a_file_for_nobody_or_with_another_id_does_not_compile() {
    let broken = [
        PERSONALISED.replace("[recipient]", "[recipients]"),
        PERSONALISED.replacen("id52 = \"<C>\"", "id52 = \"<D>\"", 1),
        PERSONALISED.replace("machine = \"web01\"\nserial = 12", "machine = \"db01\"\nserial = -1"),
        PERSONALISED.replace("next_root = \"01", "next_root = \"AB"),
        PERSONALISED.replace("serial = 12\n", ""),
    ];
    let shown: Vec<String> = broken
        .iter()
        .map(|text| compile_machine("machine.toml", &with_ids(text)).into_result().expect_err("broken"))
        .map(|problems| {
            (b'A'..=b'H')
                .fold(problems.to_string(), |s, l| s.replace(&id(l), &format!("<{}>", char::from(l))))
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n\n---\n\n"));
}

#[test]
fn the_specifications_device_file_compiles() {
    let (config, warnings) = compile_device("malai.toml", DEVICE).into_result().expect("it is valid");
    assert_eq!(warnings, []);
    assert_eq!(config.aliases.get("logs").expect("an alias")[1..3], ["tail", "-f"]);
    assert_eq!(config.tcp["mysql"].local_port, 3306);
    assert_eq!(config.http.routes["admin"], "admin.company");
    // What it writes out is what is meant without it.
    let defaults = compile_device("malai.toml", "").value.expect("it is valid");
    assert_eq!(config.daemon, defaults.daemon);
    assert_eq!(config.network, defaults.network);
}

#[test]
fn host_ceilings_and_limits_are_read() {
    let text = "[host]\nusers = [\"deploy\"]\nshell = false\nservices = false\naudit = \"required\"\n\
        [limits]\nsessions = 10\nhandshake = \"2s\"\nidle_session = \"off\"\nresume = \"0s\"\n\
        [network]\nrelays = [\"https://relay.example.com:8443/\"]\ndiscovery = \"local\"\n";
    let config = compile_device("malai.toml", text).value.expect("it is valid");
    assert_eq!(config.host.users.as_ref().map(Vec::len), Some(1));
    assert!(!config.host.shell && !config.host.services);
    assert_eq!(config.host.audit, AuditPolicy::Required);
    assert_eq!(config.limits.sessions, 10);
    assert_eq!(config.limits.idle_session, None);
    assert_eq!(config.network.relays, Relays::Custom(vec!["https://relay.example.com:8443/".to_owned()]));
    assert_eq!(config.network.discovery.len(), 1);
}

#[test]
fn a_device_file_with_many_slips_reports_them_all() {
    let text = r#"
[aliases]
daemon = "web01.company"
Web = "web01.company"
bad = "web01"
open = "web01.company 'x"
[tcp]
a = { local_port = 3306, remote = "mysql" }
b = { local_port = 3306, remote = "mysql.company:99999" }
c = { port = 1 }
[http]
port = 0
public_routes = ["api"]
inject_headers = true
routes = { Admin = "x" }
[daemon]
drain = "2d"
[daemon.proxy]
listen = "0.0.0.0"
upstream = "nowhere"
port = 3306
[network]
bind = "localhost"
relays = ["relay.example.com"]
discovery = ["local", "dsn"]
[host]
user = "x"
shell = "no"
[limits]
config_bytes = 99999999
handshake = "10"
sesions = 3
[netwrk]
"#;
    let problems = compile_device("malai.toml", text).into_result().expect_err("it has errors");
    assert_eq!(problems.code().as_str(), "alias.reserved");
    insta::assert_snapshot!(problems.to_string());
}

#[test]
fn a_failing_access_test_refuses_the_file_at_its_line() {
    let text = format!(
        "{MANAGER}[machine.web]\nid52 = \"<B>\"\nallow_from = \"interns\"\n[machine.ci]\nid52 = \"<C>\"\n\
         [group.interns]\nmembers = \"ci\"\n\
         [test.t]\nfrom = \"interns\"\nallow = [\"web run top\", \"web proxy\"]\ndeny = [\n  \"config\",\n  \"web shell\",\n]\n"
    );
    insta::assert_snapshot!(findings(&text));
}
