//! What people see of config files that are right, wrong, and old. Every message here was read by a person.

use malai_model::config::{ArgsRule, ServiceProtocol, compile};
use malai_model::id::SecretKey;

/// A real id52 for each letter.
fn id(n: u8) -> String {
    SecretKey::from_bytes(&[n; 32]).id52().to_string()
}

/// Replaces `<A>` … `<H>` by ids.
fn with_ids(text: &str) -> String {
    (b'A'..=b'H')
        .fold(text.to_owned(), |text, letter| text.replace(&format!("<{}>", char::from(letter)), &id(letter)))
}

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

const SPEC_EXAMPLE: &str = r#"
[cluster-manager]                       # also accepted: [cluster_manager]
id52 = "<A>"
cluster_name = "company"
config_editors = "admins,<B>"           # who may edit this file from afar; absent: nobody

[machine.web01]
id52 = "<C>"
addresses = ["web01.example.com:4242"]  # optional hints
allow_from = "admins,devs"              # who may run ANY program; absent: nobody
allow_shell = "admins"                  # who may open a shell; absent: as allow_from
allow_proxy = "admins"                  # who may use it as an internet exit (section 10); absent: nobody
proxy_to = ["10.0.0.0/8"]               # non-public addresses that the exit may reach; absent: none
username = "webservice"                 # run as; absent: the daemon's own user

[machine.web01.command.restart-nginx]   # a command alias, or a rule for a plain program of that name
allow_from = "admins,on-call"           # replaces the machine's allow_from for this command; absent: inherited
command = "sudo systemctl restart nginx"  # absent: the command's own name; split into words, no shell
args = "none"                           # none | any | globs that each further word must match;
                                        # absent: none when `command` is set, any when it is not
username = "nginx"

[machine.laptop]                        # no allow_from: takes no commands, can still be a client
id52 = "<D>"

[machine.db01]
id52 = "<E>"

[service.admin]                         # cluster-wide name: admin.company
machine = "web01"
protocol = "http"                       # http | tcp
port = 8080
host = "127.0.0.1"                      # default; where the hosting machine dials
allow_from = "admins"
inject_headers = true                   # http only; default true
secure = false                          # http only; true: the backend speaks HTTPS
command = "python3 -m http.server 8080" # optional: start on demand; words, no shell
username = "www-data"                   # for command and health_check; root only if written here
startup_time = "10s"
idle_timeout = "300s"
health_check = "curl -fsS localhost:8080/health"
restart_policy = "on-failure"           # never | on-failure | always

[machine.web01.tcp.ssh]                 # machine-scoped service: ssh.web01.company ([machine.X.http.Y] likewise)
port = 22
allow_from = "admins"

[group.admins]
members = "<F>,laptop,oncall"           # id52s, machine names, other groups, or cluster-manager

[group.oncall]
members = "cluster-manager"

[group.on-call]
members = "oncall"

[group.devs]
members = ["<G>"]

[group.interns]
members = ["<H>"]

[test.interns-cannot-deploy]            # ACL tests: run at every validation; a failing one rejects the config
from = "interns"
deny = ["web01 run deploy", "db01 shell", "service admin"]
"#;

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
