//! Laws of the access rules, over clusters made at random.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use malai_model::acl::{Action, Cluster, DenyReason, EditConfig, Exit, Policy, Reach, Run, Shell, authorize};
use malai_model::cluster::{DistributionState, Invite, InviteBook, Token, plan};
use malai_model::config::{
    AccessKind, ClusterConfig, MachineConfig, Personalizer, compile, compile_machine, verify_signed,
};
use malai_model::id::{Id52, SecretKey};
use malai_model::name::MachineName;
use proptest::prelude::*;

const MACHINES: usize = 6;
const GROUPS: usize = 5;
/// Ids that rules may name and no machine has.
const OUTSIDERS: usize = 3;
const NEXT_ROOT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Decisions at random, as many as are asked for.
struct Choices {
    given: Vec<u16>,
    next: usize,
}

impl Choices {
    fn below(&mut self, limit: usize) -> usize {
        let value = self.given[self.next % self.given.len()];
        self.next += 1;
        usize::from(value) % limit
    }

    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

fn choices() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(any::<u16>(), 300)
}

fn key(number: usize) -> SecretKey {
    SecretKey::from_bytes(&[number as u8 + 1; 32])
}

fn root() -> SecretKey {
    key(100)
}

fn machine_id(number: usize) -> Id52 {
    key(number).id52()
}

fn outsider(number: usize) -> Id52 {
    key(50 + number).id52()
}

fn machine_name(number: usize) -> MachineName {
    format!("mach{number}x").parse().expect("a name")
}

/// A cluster as text in parts, so that laws can change one part. Every name in it says whose it is.
#[derive(Debug, Clone)]
struct World {
    head: String,
    machines: Vec<String>,
    services: Vec<String>,
    groups: Vec<Vec<String>>,
}

impl World {
    fn new(given: Vec<u16>) -> Self {
        let c = &mut Choices { given, next: 0 };
        let mut head =
            format!("[cluster-manager]\nid52 = \"{}\"\ncluster_name = \"company\"\n", root().id52());
        put_list(&mut head, "config_editors", c);
        let mut world = Self { head, machines: Vec::new(), services: Vec::new(), groups: Vec::new() };
        for number in 0..MACHINES {
            let name = machine_name(number);
            let mut text = format!("[machine.{name}]\nid52 = \"{}\"\n", machine_id(number));
            if c.one_in(2) {
                let _ = writeln!(text, "addresses = [\"addr{number}x.example:4242\"]");
            }
            put_list(&mut text, "allow_from", c);
            put_list(&mut text, "allow_shell", c);
            put_list(&mut text, "allow_proxy", c);
            if c.one_in(3) {
                let _ = writeln!(text, "username = \"user{number}x\"\nproxy_to = [\"10.{number}.0.0/16\"]");
            }
            for word in ["shared".to_owned(), format!("word{number}x")] {
                if c.one_in(3) {
                    continue;
                }
                let _ = writeln!(text, "[machine.{name}.command.{word}]");
                put_list(&mut text, "allow_from", c);
                if c.one_in(2) {
                    let _ = writeln!(text, "command = \"sudo 'secret {number}x' \\\"it's\\\"\"");
                }
                let args = ["\"none\"", "\"any\"", "[\"v*\", \"/srv/*.log\"]", "[\"--now\"]", "[\"none\"]"];
                match c.below(7) {
                    choice @ 0..5 => {
                        let _ = writeln!(text, "args = {}", args[choice]);
                    }
                    5 => {
                        let _ = writeln!(text, "username = \"user{number}x\"");
                    }
                    _ => {}
                }
            }
            if c.one_in(2) {
                let _ = writeln!(text, "[machine.{name}.tcp.serv{number}x]\nport = 22");
                put_list(&mut text, "allow_from", c);
            }
            if c.one_in(3) {
                let _ = writeln!(text, "[machine.{name}.http.same]\nport = 80\nhost = \"host{number}x\"");
                put_list(&mut text, "allow_from", c);
            }
            world.machines.push(text);
        }
        for number in 0..2 {
            let host = machine_name(c.below(MACHINES));
            let mut text = format!("[service.wide{number}x]\nmachine = \"{host}\"\nport = 8{number}\n");
            if c.one_in(2) {
                text.push_str("protocol = \"http\"\nsecure = true\ncommand = \"serve --it\"\n");
                text.push_str("startup_time = \"1500ms\"\nhealth_check = \"check 'a b'\"\n");
            } else {
                text.push_str("protocol = \"tcp\"\n");
            }
            put_list(&mut text, "allow_from", c);
            world.services.push(text);
        }
        for number in 0..GROUPS {
            let mut members: Vec<String> = (0..c.below(4)).map(|_| principal(c)).collect();
            // Only groups with higher numbers inside: no cycles.
            members.retain(|word| !word.starts_with("group") || word.as_str() > group_name(number).as_str());
            world.groups.push(members);
        }
        world
    }

    fn text(&self) -> String {
        let mut text = self.head.clone();
        text.extend(self.machines.iter().chain(&self.services).map(String::as_str));
        for (number, members) in self.groups.iter().enumerate() {
            let _ = writeln!(text, "[group.{}]\nmembers = \"{}\"", group_name(number), members.join(","));
        }
        text
    }

    fn config(&self) -> ClusterConfig {
        let text = self.text();
        match compile("cluster.toml", &text).into_result() {
            Ok((config, _)) => config,
            Err(problems) => panic!("{problems}\n{text}"),
        }
    }
}

fn group_name(number: usize) -> String {
    format!("group{number}x")
}

fn principal(c: &mut Choices) -> String {
    match c.below(12) {
        0 => "*".to_owned(),
        1 => "cluster-manager".to_owned(),
        2 | 3 => outsider(c.below(OUTSIDERS)).to_string(),
        4 => machine_id(c.below(MACHINES)).to_string(),
        5..8 => machine_name(c.below(MACHINES)).to_string(),
        _ => group_name(c.below(GROUPS)),
    }
}

fn put_list(text: &mut String, key: &str, c: &mut Choices) {
    match c.below(5) {
        0 => {}
        1 => {
            let _ = writeln!(text, "{key} = []");
        }
        more => {
            let words: Vec<String> = (1..more).map(|_| principal(c)).collect();
            let _ = writeln!(text, "{key} = \"{}\"", words.join(","));
        }
    }
}

fn callers() -> Vec<Id52> {
    let nobody = key(99).id52();
    let machines = (0..MACHINES).map(machine_id);
    machines.chain((0..OUTSIDERS).map(outsider)).chain([root().id52(), nobody]).collect()
}

fn words() -> Vec<String> {
    let own = (0..MACHINES).map(|number| format!("word{number}x"));
    own.chain(["shared", "plain", "sudo", "/bin/shared"].map(str::to_owned)).collect()
}

fn runs() -> Vec<Run> {
    let more: [&[&str]; 8] = [
        &[],
        &["v1"],
        &["v1", "/srv/a.log"],
        &["--now"],
        &["/srv/../a.log"],
        &["none"],
        &[""],
        &["/srv/a/b.log"],
    ];
    let pairs = words().into_iter().flat_map(|word| more.map(|more| (word.clone(), more)));
    pairs
        .map(|(word, more)| Run {
            argv: std::iter::once(word).chain(more.iter().map(|w| (*w).to_owned())).collect(),
        })
        .collect()
}

fn services() -> Vec<Reach> {
    let own = (0..MACHINES).map(|number| format!("serv{number}x"));
    let names = own.chain(["same", "wide0x", "wide1x", "none"].map(str::to_owned));
    names.map(|name| Reach { service: name.parse().expect("a name") }).collect()
}

type Answer<A> = Result<(<A as Action>::Effect, Option<MachineName>), DenyReason>;

fn ask<A: Action<Target = MachineName>>(
    policy: &Policy,
    caller: &Id52,
    machine: &MachineName,
    action: &A,
) -> Answer<A> {
    match authorize(policy, caller, machine, action.clone()) {
        Ok(permission) => Ok((permission.effect().clone(), permission.caller_name().cloned())),
        Err(denied) => Err(denied.reason().clone()),
    }
}

/// Everything that a caller may do on a machine, as text.
fn rights(policy: &Policy, caller: &Id52, machine: &MachineName) -> BTreeSet<String> {
    let mut rights = BTreeSet::new();
    let runs = runs();
    rights.extend(
        runs.iter().filter(|run| ask(policy, caller, machine, *run).is_ok()).map(|run| run.argv.join(" ")),
    );
    let services = services();
    let reached = services.iter().filter(|service| ask(policy, caller, machine, *service).is_ok());
    rights.extend(reached.map(|reach| format!("service {}", reach.service)));
    if ask(policy, caller, machine, &Shell).is_ok() {
        rights.insert("shell".to_owned());
    }
    if ask(policy, caller, machine, &Exit).is_ok() {
        rights.insert("proxy".to_owned());
    }
    if authorize(policy, caller, &Cluster, EditConfig).is_ok() {
        rights.insert("edit".to_owned());
    }
    rights
}

/// What the machine gets, through signing and checking as on the way.
fn received(config: &ClusterConfig, number: usize) -> (String, MachineConfig) {
    let body = Personalizer::new(config).personalize(&machine_name(number)).expect("it exists");
    let text = body.sign(7, NEXT_ROOT, &root());
    match verify_signed(&text, &root().id52(), &machine_id(number), Some(6)) {
        Ok(signed) => {
            assert_eq!(signed.warnings, [], "{text}");
            (text, signed.config)
        }
        Err(problem) => panic!("{problem:?}\n{text}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_personalised_config_decides_for_its_machine_exactly_as_the_master_does(given in choices()) {
        let config = World::new(given).config();
        let master = Policy::of_cluster(&config);
        for number in 0..MACHINES {
            let machine = machine_name(number);
            let own = Policy::of_machine(&received(&config, number).1);
            prop_assert_eq!(own.admitted(&machine), master.admitted(&machine));
            for caller in callers() {
                for run in runs() {
                    let answers = (ask(&own, &caller, &machine, &run), ask(&master, &caller, &machine, &run));
                    prop_assert_eq!(answers.0, answers.1, "{:?}", run);
                }
                for reach in services() {
                    let answers =
                        (ask(&own, &caller, &machine, &reach), ask(&master, &caller, &machine, &reach));
                    prop_assert_eq!(answers.0, answers.1, "{:?}", reach);
                }
                prop_assert_eq!(ask(&own, &caller, &machine, &Shell), ask(&master, &caller, &machine, &Shell));
                prop_assert_eq!(ask(&own, &caller, &machine, &Exit), ask(&master, &caller, &machine, &Exit));
                let edit = |policy: &Policy| authorize(policy, &caller, &Cluster, EditConfig).is_ok();
                prop_assert_eq!(edit(&own), edit(&master));
                let elsewhere = machine_name((number + 1) % MACHINES);
                prop_assert_eq!(ask(&own, &caller, &elsewhere, &Shell), Err(DenyReason::UnknownMachine));
            }
        }
    }

    #[test]
    fn only_admitted_callers_are_allowed_anything_on_a_machine(given in choices()) {
        let master = Policy::of_cluster(&World::new(given).config());
        for machine in (0..MACHINES).map(machine_name) {
            let admitted = master.admitted(&machine);
            prop_assert!(admitted.is_sorted());
            for caller in callers().iter().filter(|caller| !admitted.contains(caller)) {
                let mut rights = rights(&master, caller, &machine);
                rights.remove("edit");
                prop_assert_eq!(rights, BTreeSet::new());
            }
        }
    }

    #[test]
    fn the_directory_is_what_the_machine_may_reach(given in choices()) {
        let config = World::new(given).config();
        let master = Policy::of_cluster(&config);
        for number in 0..MACHINES {
            let me = machine_id(number);
            let (_, mine) = received(&config, number);
            let directory = mine.directory();
            let mut reachable = BTreeSet::new();
            for target in (0..MACHINES).map(machine_name) {
                let rights = rights(&master, &me, &target);
                let entry = directory.machines().get(&target);
                let may = |kind| entry.is_some_and(|entry| entry.may.contains(&kind));
                let first_words: BTreeSet<&str> = rights.iter().filter_map(|r| r.split(' ').next()).collect();
                let runs_something = words().iter().any(|word| first_words.contains(word.as_str()));
                prop_assert_eq!(may(AccessKind::Run), runs_something);
                prop_assert_eq!(may(AccessKind::Shell), rights.contains("shell"));
                prop_assert_eq!(may(AccessKind::Proxy), rights.contains("proxy"));
                for service in services() {
                    let wide = service.service.as_str().starts_with("wide");
                    let listed = if wide {
                        directory.services().get(&service.service).is_some_and(|s| s.machine == target)
                    } else {
                        entry.is_some_and(|entry| entry.services.contains_key(&service.service))
                    };
                    prop_assert_eq!(listed, rights.contains(&format!("service {}", service.service)));
                }
                if let Some(entry) = entry {
                    prop_assert_eq!(&entry.id52, &config.machines()[&target].id52);
                    reachable.insert(target);
                }
            }
            for (group, members) in directory.groups() {
                let list = malai_model::config::PrincipalList(vec![
                    malai_model::config::PrincipalRef::Group(group.clone()),
                ]);
                let all = config.expand(&list);
                let cut: BTreeSet<MachineName> = reachable
                    .iter()
                    .filter(|name| all.contains(&config.machines()[*name].id52))
                    .cloned()
                    .collect();
                prop_assert_eq!(members, &cut);
                prop_assert!(!members.is_empty());
            }
        }
    }

    #[test]
    fn a_personalised_config_names_nothing_that_the_machine_need_not_know(given in choices()) {
        let config = World::new(given).config();
        let master = Policy::of_cluster(&config);
        let editors = config.manager().config_editors.as_ref().map(|list| config.expand(list));
        for number in 0..MACHINES {
            let machine = machine_name(number);
            let (text, mine) = received(&config, number);
            let admitted = master.admitted(&machine);
            for other in (0..MACHINES).filter(|other| *other != number) {
                let name = machine_name(other);
                let rights = rights(&master, &machine_id(number), &name);
                let reaches = |prefix: &str| rights.iter().any(|right| right.starts_with(prefix));
                let listed = mine.directory().machines().contains_key(&name)
                    || mine.directory().services().values().any(|service| service.machine == name);
                let caller = admitted.contains(&machine_id(other));
                prop_assert_eq!(text.contains(name.as_str()), listed || caller, "{} in {}", name, text);
                let edits = editors.as_ref().is_some_and(|ids| ids.contains(&machine_id(other)));
                prop_assert_eq!(text.contains(&machine_id(other).to_string()), listed || caller || edits);
                let address = format!("addr{other}x");
                prop_assert!(listed || !text.contains(&address));
                // Rules, users and hosts of others are nobody's business.
                for foreign in ["word", "user", "host"] {
                    let foreign = format!("{foreign}{other}x");
                    prop_assert!(!text.contains(&foreign), "{} in {}", foreign, text);
                }
                let secret = format!("secret {other}x");
                let (network, service) = (format!("10.{other}.0.0"), format!("serv{other}x"));
                prop_assert!(!text.contains(&secret) && !text.contains(&network));
                prop_assert_eq!(text.contains(&service), reaches(&format!("service {service}")));
            }
            for outsider in (0..OUTSIDERS).map(outsider) {
                let edits = editors.as_ref().is_some_and(|ids| ids.contains(&outsider));
                prop_assert_eq!(text.contains(&outsider.to_string()), admitted.contains(&outsider) || edits);
            }
            for group in (0..GROUPS).map(group_name) {
                let listed = mine.directory().groups().contains_key(group.as_str());
                prop_assert_eq!(text.contains(&group), listed);
            }
        }
    }

    #[test]
    fn equal_configs_give_equal_texts_in_whatever_order_they_are_written(given in choices()) {
        let world = World::new(given);
        let mut other = world.clone();
        other.machines.reverse();
        other.services.reverse();
        for members in &mut other.groups {
            members.reverse();
            members.extend(members.clone());
        }
        let (one, other) = (world.config(), other.config());
        for number in 0..MACHINES {
            prop_assert_eq!(received(&one, number).0, received(&other, number).0);
        }
    }

    #[test]
    fn adding_a_member_to_a_group_removes_no_right(given in choices(), group in 0..GROUPS, who in any::<u16>()) {
        let world = World::new(given);
        let mut more = world.clone();
        let mut member = principal(&mut Choices { given: vec![who, who / 16], next: 0 });
        if member.starts_with("group") {
            member = outsider(0).to_string();
        }
        more.groups[group].push(member);
        let (before, after) = (Policy::of_cluster(&world.config()), Policy::of_cluster(&more.config()));
        for machine in (0..MACHINES).map(machine_name) {
            for caller in callers() {
                let lost: Vec<String> = rights(&before, &caller, &machine)
                    .difference(&rights(&after, &caller, &machine))
                    .cloned()
                    .collect();
                prop_assert_eq!(lost, Vec::<String>::new());
            }
        }
    }

    #[test]
    fn an_empty_group_grants_nothing(given in choices(), group in 0..GROUPS) {
        let mut empty = World::new(given);
        empty.groups[group].clear();
        let mut without = empty.clone();
        // Nowhere named at all, which leaves the lists that it stood in.
        let name = group_name(group);
        let strike = |text: &mut String| {
            for pattern in [format!("{name},"), format!(",{name}"), name.clone()] {
                *text = text.replace(&pattern, "");
            }
        };
        without.machines.iter_mut().chain(&mut without.services).chain([&mut without.head]).for_each(strike);
        without.groups.iter_mut().for_each(|members| members.retain(|word| *word != name));
        let (empty, without) = (Policy::of_cluster(&empty.config()), Policy::of_cluster(&without.config()));
        for machine in (0..MACHINES).map(machine_name) {
            for caller in callers() {
                prop_assert_eq!(rights(&empty, &caller, &machine), rights(&without, &caller, &machine));
            }
        }
    }

    #[test]
    fn a_change_is_sent_to_those_whom_it_concerns(given in choices(), changed in 0..MACHINES) {
        let world = World::new(given);
        let now = jiff::Timestamp::UNIX_EPOCH;
        let config = world.config();
        let mut state = DistributionState::default();
        let first = plan(&config, &state, now);
        prop_assert_eq!(first.deliveries.len(), MACHINES);
        first.deliveries.iter().for_each(|delivery| state.record_success(delivery, now));
        prop_assert_eq!(plan(&config, &state, now).deliveries, vec![]);
        // A rule that only its own machine knows.
        let mut other = world.clone();
        let section = format!("[machine.{}.command.brand-new]\nallow_from = []\n", machine_name(changed));
        other.machines[changed].push_str(&section);
        let second = plan(&other.config(), &state, now);
        let to: Vec<MachineName> = second.deliveries.into_iter().map(|delivery| delivery.machine).collect();
        prop_assert_eq!(to, vec![machine_name(changed)]);
    }

    #[test]
    fn any_change_to_a_signed_text_is_refused(given in choices(), at in any::<usize>(), to in any::<char>()) {
        let config = World::new(given).config();
        let (text, _) = received(&config, 0);
        let mut changed: Vec<char> = text.chars().collect();
        let at = at % changed.len();
        let before = std::mem::replace(&mut changed[at], to);
        let changed: String = changed.into_iter().collect();
        let verdict = verify_signed(&changed, &root().id52(), &machine_id(0), None);
        prop_assert_eq!(verdict.is_ok(), before == to);
    }
}

proptest! {
    #[test]
    fn an_invite_reads_back(
        seed in any::<u8>(), token in any::<[u8; 16]>(),
        v4 in prop::collection::vec(any::<std::net::SocketAddrV4>(), 0..6),
        v6 in prop::collection::vec(any::<(u128, u16)>(), 0..6),
        names in prop::collection::vec("[a-z0-9.-]{1,60}:[1-9][0-9]{0,3}", 0..4),
    ) {
        let v6 = v6.into_iter().map(|(ip, port)| std::net::SocketAddr::from((std::net::Ipv6Addr::from(ip), port)));
        let hints: Vec<String> =
            v4.iter().map(ToString::to_string).chain(v6.map(|a| a.to_string())).chain(names).collect();
        let invite = Invite::new(key(usize::from(seed) % 90).id52(), Token::from_bytes(token), hints)
            .expect("good hints");
        prop_assert_eq!(invite.to_word().parse::<Invite>(), Ok(invite));
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in any::<String>(), more in "(malai-1)?[0-9a-v]{0,200}") {
        let (manager, me) = (root().id52(), machine_id(0));
        let block = format!("{text}\n[signature]\nroot = \"{manager}\"\nvalue = \"{more}\"\n");
        for text in [&text, &more, &block] {
            let _ = text.parse::<Invite>();
            prop_assert!(verify_signed(text, &manager, &me, None).is_err());
            let _ = compile_machine("machine.toml", text);
            let _ = InviteBook::parse(text);
            let _ = DistributionState::parse(text);
        }
    }

    #[test]
    fn no_change_to_an_invite_makes_another_one(at in any::<usize>(), to in any::<char>()) {
        let word = Invite::new(key(1).id52(), Token::from_bytes([7; 16]), vec!["h:1".to_owned()])
            .expect("good hints")
            .to_word();
        let mut changed: Vec<char> = word.chars().collect();
        let at = at % changed.len();
        let before = std::mem::replace(&mut changed[at], to);
        let same = to.to_ascii_lowercase() == before;
        let changed: String = changed.into_iter().collect();
        prop_assert_eq!(changed.parse::<Invite>().is_ok(), same, "{}", changed);
    }

    #[test]
    fn what_a_newer_version_wrote_into_state_json_is_kept(word in "[a-z]{3,8}", number in any::<i32>()) {
        let id = machine_id(0);
        let text = format!(
            r#"{{"new_{word}": [{number}], "machine_states": {{"{id}": {{"new_{word}": {number}, "sync_status": "{word}"}}}}}}"#
        );
        let state = DistributionState::parse(&text).expect("newer states are read");
        let again = DistributionState::parse(&state.to_text()).expect("it reads back");
        prop_assert_eq!(&again, &state);
        prop_assert_eq!(again.extra.len(), 1);
        prop_assert_eq!(again.machine_states[&id].extra.len(), 1);
    }
}
