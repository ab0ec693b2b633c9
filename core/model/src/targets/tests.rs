use proptest::prelude::*;

use super::*;
use crate::id::SecretKey;

fn id(n: u8) -> Id52 {
    SecretKey::from_bytes(&[n; 32]).id52()
}

fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("a name")
}

fn clusters() -> Vec<KnownCluster> {
    let known = |alias: &str, domain: Option<&str>, n| KnownCluster {
        alias: name(alias),
        domain: domain.map(str::to_owned),
        ids: vec![id(n)],
    };
    vec![known("company", Some("example.com"), 1), known("ft", None, 2)]
}

fn aliases() -> Aliases {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    Aliases::new([(name("web"), words("web01.company")), (name("logs"), words("web01.company tail -f x"))])
}

fn reach(machines: &[(&str, u8)], groups: &[(&str, &[&str])]) -> Reachable {
    Reachable {
        machines: machines.iter().map(|(machine, n)| (name(machine), id(*n))).collect(),
        own: Some((name("laptop"), id(99))),
        groups: groups
            .iter()
            .map(|(group, members)| (name(group), members.iter().map(|member| name(member)).collect()))
            .collect(),
    }
}

fn company() -> Reachable {
    let machines = [("web01", 11), ("web02", 12), ("db01", 13), ("web-eu-1", 14)];
    reach(&machines, &[("admins", &["db01", "web01"]), ("gone", &["not-reachable"])])
}

fn select(words: &[&str]) -> Result<Vec<String>, TargetProblem> {
    let parsed: Result<Vec<_>, _> =
        words.iter().map(|word| TargetPattern::parse(word, &aliases(), &clusters())).collect();
    let (company, ft) = (company(), reach(&[("web01", 21)], &[]));
    let of = |alias: &ClusterAlias| match alias.as_str() {
        "company" => Some(&company),
        "ft" => Some(&ft),
        _ => None,
    };
    let selected = select_all(&parsed?, of)?;
    Ok(selected.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn selects(words: &[&str], expected: &[&str]) {
    assert_eq!(select(words).expect("selects"), expected, "{words:?}");
}

#[track_caller]
fn fails(word: &str) -> TargetProblem {
    select(&[word]).expect_err("means nothing here")
}

#[test]
fn a_pattern_means_the_machines_whose_whole_name_matches() {
    selects(&["web*.company"], &["web-eu-1.company", "web01.company", "web02.company"]);
    selects(&["web0?.company"], &["web01.company", "web02.company"]);
    selects(&["*1.example.com"], &["db01.company", "web-eu-1.company", "web01.company"]);
    selects(&["WEB*2.Company"], &["web02.company"]);
    selects(&[&format!("*.{}", id(2))], &["web01.ft"]);
}

#[test]
fn a_group_means_its_members_that_may_be_reached() {
    selects(&["@admins.company"], &["db01.company", "web01.company"]);
    assert!(matches!(fails("@gone.company"), TargetProblem::NoMatch { .. }));
}

#[test]
fn each_machine_is_meant_once_by_cluster_then_by_name() {
    let own_id = format!("{}.company", id(11));
    selects(
        &["web01.ft", "web02.company", "@admins.company", "web", &own_id, "web0*.example.com"],
        &["db01.company", "web01.company", "web02.company", "web01.ft"],
    );
}

#[test]
fn this_device_is_meant_by_its_name_and_by_no_pattern() {
    selects(&["laptop.company"], &["laptop.company"]);
    selects(&[&format!("{}.company", id(99))], &["laptop.company"]);
    assert!(matches!(fails("lap*.company"), TargetProblem::NoMatch { .. }));
}

#[test]
fn what_matches_nothing_names_the_pattern_and_what_is_near() {
    let problem = fails("wbe01*.company");
    assert_eq!(problem.to_string(), "\"wbe01*.company\" matches no machine that this device may reach");
    assert_eq!(problem.code(), ErrorCode::AddressUnknownMachine);
    assert_eq!(problem.hint().as_deref(), Some("known here: web01.company"));
    assert_eq!(
        fails("zzzzzz*.company").hint().as_deref(),
        Some("known here: db01.company, web-eu-1.company, web01.company, web02.company")
    );
    assert_eq!(fails("@admin.company").hint().as_deref(), Some("known here: @admins.company"));
    assert_eq!(fails("web1.company").hint().as_deref(), Some("known here: web01.company"));
}

#[test]
fn what_is_no_pattern_is_refused_with_what_to_write() {
    for word in ["*", "@admins", "@.company", "@a b.company", "a.*.company", "we[b].*", "@web*.company"] {
        let problem = fails(word);
        assert_eq!(problem.code(), ErrorCode::AddressInvalid, "{word}: {problem}");
        assert!(problem.hint().is_some(), "{word}");
    }
    assert_eq!(fails("web*.compnay").hint().as_deref(), Some("did you mean \"company\"?"));
    assert_eq!(fails("@admins.nowhere").code(), ErrorCode::AddressUnknownCluster);
    assert_eq!(fails(&format!("{}.{}", id(8), id(9))).code(), ErrorCode::AddressUnknownCluster);
    assert!(matches!(fails("logs"), TargetProblem::AliasOfCommand { .. }));
    assert_eq!(select(&[]), Err(TargetProblem::Empty));
}

#[test]
fn a_manager_reaches_every_machine_and_its_groups_are_expanded() {
    let text = format!(
        "[cluster-manager]\nid52 = \"{}\"\ncluster_name = \"c\"\n[machine.a]\nid52 = \"{}\"\n[machine.b]\nid52 = \"{}\"\n\
         [group.inner]\nmembers = \"b,{}\"\n[group.outer]\nmembers = \"inner,a\"\n[group.people]\nmembers = \"{}\"\n",
        id(1),
        id(2),
        id(3),
        id(50),
        id(51),
    );
    let (config, _) = crate::config::compile("cluster.toml", &text).into_result().expect("compiles");
    let reach = Reachable::of_manager(&config, &id(2));
    assert_eq!(reach.own, Some((name("a"), id(2))));
    let members = |group: &str| reach.groups[&name::<GroupName>(group)].iter().cloned().collect::<Vec<_>>();
    assert_eq!(members("outer"), [name::<MachineName>("a"), name("b")]);
    assert_eq!(members("inner"), [name::<MachineName>("b")]);
    assert!(members("people").is_empty());
}

/// The plainest matcher that there is.
fn matches_slowly(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches_slowly(rest, name)
                || name.split_first().is_some_and(|(_, name)| matches_slowly(pattern, name))
        }
        (Some((b'?', rest)), Some((_, name))) => matches_slowly(rest, name),
        (Some((a, rest)), Some((b, name))) => a == b && matches_slowly(rest, name),
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_glob_matches_as_the_plainest_matcher_does(pattern in "[ab*?]{1,10}", name in "[ab]{0,12}") {
        let glob = NameGlob::new(&pattern).expect("a glob");
        prop_assert_eq!(glob.matches(&name), matches_slowly(pattern.as_bytes(), name.as_bytes()));
    }

    #[test]
    fn no_text_panics_and_what_parses_prints_as_what_parses_to_the_same(text in "[@*?.a-z0-9 -]{0,24}|\\PC{0,24}|[@a-z*]{1,8}\\.(company|ft)") {
        if let Ok(pattern) = TargetPattern::parse(&text, &Aliases::default(), &clusters()) {
            prop_assert_eq!(TargetPattern::parse(&pattern.to_string(), &Aliases::default(), &clusters()), Ok(pattern));
        }
    }

    #[test]
    fn a_selection_is_sorted_without_doubles_and_within_reach(
        names in proptest::collection::btree_set("[a-c]{1,3}", 1..8),
        words in proptest::collection::vec("[a-c*?]{1,3}", 1..6),
    ) {
        let machines: Vec<(&str, u8)> = names.iter().map(String::as_str).zip(3..).collect();
        let reach = reach(&machines, &[]);
        let patterns: Vec<TargetPattern> = words
            .iter()
            .filter_map(|word| TargetPattern::parse(&format!("{word}.company"), &Aliases::default(), &clusters()).ok())
            .filter(|pattern| pattern.select(&reach).is_ok())
            .collect();
        if patterns.is_empty() {
            return Ok(());
        }
        let all = select_all(&patterns, |_| Some(&reach)).expect("each selects");
        prop_assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(all.iter().all(|found| reach.machines.get(&found.name) == Some(&found.id52)));
        // Whatever one pattern means is there, and nothing else.
        let each: BTreeSet<SelectedMachine> =
            patterns.iter().flat_map(|pattern| pattern.select(&reach).expect("selects")).collect();
        prop_assert_eq!(all, each.into_iter().collect::<Vec<_>>());
    }
}
