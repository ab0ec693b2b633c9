//! What holds of config files and addresses whatever they say.

mod fixture;

use std::time::Duration;

use fixture::{DEVICE, PERSONALISED, SPEC_EXAMPLE, id, with_ids};
use malai_model::address::{
    ClusterRef, KnownCluster, MachineSelector, ServiceTarget, Target, resolve, resolve_machine,
    resolve_service,
};
use malai_model::alias::Aliases;
use malai_model::config::{
    Compiled, add_machine, compile, compile_device, compile_machine, free_machine_name, new_cluster,
    remove_machine, replace_id52,
};
use malai_model::duration::{format_duration, parse_duration};
use malai_model::id::{Id52, SecretKey};
use malai_model::name::MachineName;
use proptest::prelude::*;

fn key(n: u8) -> Id52 {
    SecretKey::from_bytes(&[n; 32]).id52()
}

fn clusters() -> Vec<KnownCluster> {
    vec![
        KnownCluster {
            alias: "company".parse().expect("a name"),
            domain: Some("example.com".to_owned()),
            ids: vec![key(1), key(2)],
        },
        KnownCluster { alias: "com".parse().expect("a name"), domain: None, ids: vec![key(3)] },
    ]
}

fn aliases() -> Aliases {
    Aliases::new([("web".parse().expect("a name"), vec!["web01.company".to_owned(), "ps".to_owned()])])
}

/// What must be so of every outcome.
fn check<T>(text: &str, compiled: &Compiled<T>) {
    let errors = compiled.diagnostics.iter().filter(|found| found.is_error()).count();
    assert_eq!(compiled.value.is_some(), errors == 0, "a value exactly without errors");
    let lines = u32::try_from(text.split('\n').count()).expect("a short text");
    for found in &compiled.diagnostics {
        assert!(found.length >= 1);
        if let Some(at) = found.position {
            assert!((1..=lines).contains(&at.line), "line {} of {lines}", at.line);
            assert!(at.column >= 1);
        }
        let shown = found.render();
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    }
}

fn check_all(text: &str) {
    check(text, &compile("cluster.toml", text));
    check(text, &compile_machine("machine.toml", text));
    check(text, &compile_device("malai.toml", text));
    // Edits of a broken text are refused or give a text; which, is for other tests.
    let name: MachineName = "db99".parse().expect("a name");
    let _ = add_machine(text, &name, &key(9), &["x:1".to_owned()], &["admins".parse().expect("a name")]);
    let _ = remove_machine(text, &"laptop".parse().expect("a name"));
    let _ = replace_id52(text, &key(b'A'), &key(9));
}

/// One way in which a file goes wrong.
#[derive(Debug, Clone)]
enum Slip {
    Cut(usize, usize),
    Copy(usize, usize, usize),
    Insert(usize, String),
    SwapLines(usize, usize),
}

fn slip() -> impl Strategy<Value = Slip> {
    let place = 0..5_000_usize;
    let length = 0..60_usize;
    let token = prop_oneof![
        Just("\"".to_owned()),
        Just("'''".to_owned()),
        Just("[[".to_owned()),
        Just("]\n[machine.web01.http.ssh]\n".to_owned()),
        Just("\nallow_from = \"*\"\n".to_owned()),
        Just("\nmembers = [\"admins\", 5, {a=1}]\n".to_owned()),
        Just("\n[group.admins.x]\n".to_owned()),
        Just("\nunknown = 1\n".to_owned()),
        Just(" = { a.b = 1979-05-27 }\n".to_owned()),
        Just("\u{feff}\u{202e}\u{0}\r".to_owned()),
        Just("-99999999999999999999".to_owned()),
        "[a-z.=\"\\[\\]{},#\n 0-9]{0,12}",
        "\\PC{0,4}",
    ];
    prop_oneof![
        (place.clone(), length.clone()).prop_map(|(at, len)| Slip::Cut(at, len)),
        (place.clone(), length, place.clone()).prop_map(|(at, len, to)| Slip::Copy(at, len, to)),
        (place.clone(), token).prop_map(|(at, token)| Slip::Insert(at, token)),
        (place.clone(), place).prop_map(|(a, b)| Slip::SwapLines(a, b)),
    ]
}

fn apply(text: &str, slips: &[Slip]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for slip in slips {
        let size = chars.len().max(1);
        match slip {
            Slip::Cut(at, len) => {
                let at = at % size;
                chars.drain(at.min(chars.len())..(at + len).min(chars.len()));
            }
            Slip::Copy(at, len, to) => {
                let at = (at % size).min(chars.len());
                let piece: Vec<char> = chars[at..(at + len).min(chars.len())].to_vec();
                let to = (to % size).min(chars.len());
                chars.splice(to..to, piece);
            }
            Slip::Insert(at, token) => {
                let at = (at % size).min(chars.len());
                chars.splice(at..at, token.chars());
            }
            Slip::SwapLines(a, b) => {
                let text: String = chars.iter().collect();
                let mut lines: Vec<&str> = text.split('\n').collect();
                let count = lines.len();
                lines.swap(a % count, b % count);
                chars = lines.join("\n").chars().collect();
            }
        }
    }
    chars.into_iter().collect()
}

fn base() -> impl Strategy<Value = String> {
    prop_oneof![Just(with_ids(SPEC_EXAMPLE)), Just(with_ids(PERSONALISED)), Just(DEVICE.to_owned()),]
}

fn machine_name() -> impl Strategy<Value = MachineName> {
    "[a-z][a-z0-9-]{0,12}".prop_filter_map("reserved", |text| text.parse().ok())
}

/// A valid file with some machines, a group in one of its styles, and comments.
fn cluster_text() -> impl Strategy<Value = String> {
    let machines = proptest::collection::btree_set("m[a-z0-9]{0,5}", 1..6);
    (machines, 0..4_u8, any::<bool>(), any::<bool>()).prop_map(|(machines, style, crlf, end)| {
        let mut text = new_cluster(&key(1), "company");
        for (name, n) in machines.iter().zip(10_u8..) {
            text.push_str(&format!("\n[machine.{name}] # {n}\n  id52='{}'\nallow_from   = \"g\"\n", key(n)));
        }
        let names: Vec<String> = machines.into_iter().collect();
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let members = match style {
            0 => format!("\"{}\" # all", names.join(" , ")),
            1 => format!("'{}'", names.join(",")),
            2 => format!("[ {} ] # all", quoted.join(", ")),
            _ => format!("[\n\t{}, # last\n]", quoted.join(", # one\n\t")),
        };
        text.push_str(&format!("[group.g]\nmembers = {members}"));
        if end {
            text.push('\n');
        }
        if crlf { text.replace('\n', "\r\n") } else { text }
    })
}

proptest! {
    // A failing case is printed whole; it becomes a test of its own, not a file.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_a_compiler_panic(text in "\\PC{0,200}|[\\x00-\\x7f]{0,200}") {
        check_all(&text);
    }

    #[test]
    fn no_damaged_file_makes_a_compiler_panic(
        base in base(),
        slips in proptest::collection::vec(slip(), 1..6),
    ) {
        check_all(&apply(&base, &slips));
    }

    #[test]
    fn no_words_make_the_resolver_panic(words in proptest::collection::vec("\\PC{0,70}|[a-z.:' ]{0,40}", 0..4)) {
        if let Ok((target, _)) = resolve(&words, &aliases(), &clusters()) {
            prop_assert!(resolve_machine(&target.to_string(), &clusters()).is_ok());
        }
        for word in &words {
            let _ = resolve_service(word, &clusters());
            let _ = parse_duration(word);
        }
    }

    #[test]
    fn a_target_prints_as_the_address_that_it_is(name in machine_name(), n in 1..255_u8, cluster in 0..2_usize, by_id: bool) {
        let machine = if by_id { MachineSelector::Id(key(n)) } else { MachineSelector::Name(name) };
        let target = Target { cluster: ClusterRef::Known(clusters()[cluster].alias.clone()), machine };
        prop_assert_eq!(resolve_machine(&target.to_string(), &clusters()), Ok(target.clone()));
        prop_assert_eq!(resolve_machine(&target.to_string().to_uppercase(), &clusters()), Ok(target));
        let foreign = Target { cluster: ClusterRef::Foreign(key(200)), machine: MachineSelector::Id(key(n)) };
        prop_assert_eq!(resolve_machine(&foreign.to_string(), &clusters()), Ok(foreign));
    }

    #[test]
    fn a_service_prints_as_the_name_that_it_is(
        service in machine_name(), machine in proptest::option::of(machine_name()), port in proptest::option::of(1..u16::MAX),
    ) {
        let target = ServiceTarget {
            cluster: "company".parse().expect("a name"),
            // `x.com.company` is a service of com only by its own suffix.
            machine,
            service: service.as_str().parse().expect("a name"),
            port,
        };
        prop_assert_eq!(resolve_service(&target.to_string(), &clusters()), Ok(target));
    }

    #[test]
    fn a_duration_prints_as_what_it_parses_to(ms in 0..36_500_u64 * 86_400_000) {
        let duration = Duration::from_millis(ms);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    #[test]
    fn adding_a_machine_changes_nothing_else(text in cluster_text(), wanted in machine_name(), join: bool) {
        let before = compile("cluster.toml", &text).value.expect("the text is valid");
        let name = free_machine_name(&before, &wanted);
        let groups = if join { vec!["g".parse().expect("a name")] } else { Vec::new() };
        let added = add_machine(&text, &name, &key(99), &[], &groups).expect("it is added");
        let after = compile("cluster.toml", &added).value.expect("the result is valid");
        prop_assert_eq!(after.machines().len(), before.machines().len() + 1);
        prop_assert!(after.machines()[&name].allow_from.is_none());
        for (name, machine) in before.machines() {
            prop_assert_eq!(&after.machines()[name], machine);
        }
        prop_assert_eq!(after.groups()["g"].0.len(), before.groups()["g"].0.len() + usize::from(join));
        prop_assert_eq!(added.matches('#').count(), text.matches('#').count());

        let removed = remove_machine(&added, &name).expect("it is removed");
        prop_assert_eq!(compile("cluster.toml", &removed).value, Some(before));
        prop_assert_eq!(removed.matches('#').count(), text.matches('#').count());
    }

    #[test]
    fn replacing_an_id_twice_gives_the_text_again(text in cluster_text()) {
        let there = replace_id52(&text, &key(10), &key(77)).expect("it is replaced");
        prop_assert!(there != text);
        prop_assert_eq!(replace_id52(&there, &key(77), &key(10)).expect("it is replaced"), text);
    }
}

#[test]
fn ids_of_fixtures_are_those_of_the_tests() {
    assert_eq!(id(b'A'), key(b'A').to_string());
}

/// Ten thousand machines and a thousand nested groups: no pass may look at all for each.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures time; the model does not")]
fn a_large_cluster_compiles_in_linear_time() {
    let mut text = new_cluster(&key(1), "company");
    let mut secret = [0_u8; 32];
    for n in 0..10_000_u32 {
        secret[..4].copy_from_slice(&n.to_le_bytes());
        secret[31] = 7;
        let id = SecretKey::from_bytes(&secret).id52();
        let group = n % 1_000;
        text.push_str(&format!(
            "[machine.m{n}]\nid52 = \"{id}\"\nallow_from = \"g{group},m0\"\nallow_shell = \"g0\"\n"
        ));
    }
    for n in 0..1_000 {
        text.push_str(&format!(
            "[group.g{n}]\nmembers = \"m{n},g{},g{}\"\n",
            (n + 1).min(999),
            (n + 7).min(999)
        ));
    }
    let text =
        text.replace("members = \"m999,g999,g999\"", "members = \"m999\"").replace(",g999,g999\"", ",g999\"");
    let begin = std::time::Instant::now();
    let compiled = compile("cluster.toml", &text);
    let took = begin.elapsed();
    let errors: Vec<_> = compiled.diagnostics.iter().filter(|found| found.is_error()).collect();
    assert!(compiled.value.is_some(), "{errors:?}");
    // Without optimisation it takes a second or two; quadratic passes take minutes.
    assert!(took < Duration::from_secs(20), "{took:?}");
}

/// Files of 4 MiB that ask for as much work as they can: each kind of finding, for each of its lines.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures time; the model does not")]
fn hostile_files_end_soon() {
    const SIZE: usize = 4 * 1024 * 1024 - 4096;
    let repeated = |make: &dyn Fn(usize) -> String| {
        let mut text = String::with_capacity(SIZE + 4096);
        let mut n = 0;
        while text.len() < SIZE {
            text.push_str(&make(n));
            n += 1;
        }
        text
    };
    let manager = format!("[cluster-manager]\nid52 = \"{}\"\ncluster_name = \"c\"\n", key(1));
    let files = [
        ("unknown keys", repeated(&|n| format!("k{n}=1\n"))),
        (
            "unknown words on one line",
            format!("[group.g]\nmembers = \"{}\"", repeated(&|n| format!("w{n},"))),
        ),
        ("unknown words near many", repeated(&|n| format!("[group.gr{n}]\nmembers=\"gr{n}x,gx{n}\"\n"))),
        ("one long circle", repeated(&|n| format!("[group.g{n}]\nmembers=\"g{},g0\"\n", n + 1))),
        ("a long chain", {
            let text = repeated(&|n| format!("[group.g{n}]\nmembers=\"g{}\"\n", n + 1));
            let last = text.matches('[').count();
            format!("{manager}{text}[group.g{last}]\nmembers=[]\n")
        }),
        ("many questions", {
            let machine = |n: u8| format!("[machine.m{n}]\nid52=\"{}\"\n", key(n));
            let machines: String = (2..250).map(machine).collect();
            let lines = "\"m2 shell\",".repeat(300_000);
            format!("{manager}{machines}[test.t]\nfrom=\"*\"\ndeny=[{lines}]\n")
        }),
        ("machines without ids", repeated(&|n| format!("[machine.m{n}]\n"))),
        ("quotes", format!("a = \"{}", "\\\"".repeat(SIZE / 2))),
        ("one array", format!("[group.g]\nmembers = [{}]", "1,".repeat(SIZE / 2))),
        ("brackets", "[".repeat(SIZE)),
        ("dotted keys", repeated(&|n| format!("a.b.k{n}.c=1\n"))),
        (
            "headers below headers",
            repeated(&|n| format!("[machine.m{n}.command.x]\n[machine.m{n}.command.y]\n")),
        ),
        ("headers out of order", {
            // The parser's own worst case: a section behind its sub-section.
            let half = repeated(&|n| format!("[a.m{n}.b]\n"));
            let lines: Vec<&str> = half.lines().take(60_000).collect();
            let back = lines.iter().map(|line| line.replace(".b]", "]")).collect::<Vec<_>>();
            format!("{}\n{}", lines.join("\n"), back.join("\n"))
        }),
    ];
    for (name, text) in files {
        let begin = std::time::Instant::now();
        let found = compile("cluster.toml", &text).diagnostics.len();
        let took = begin.elapsed();
        assert!(found <= 2_002, "{name}: {found} findings");
        assert!(took < Duration::from_secs(60), "{name}: {took:?}");
    }
}
