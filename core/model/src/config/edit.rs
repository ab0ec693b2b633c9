//! Changes that programs make to `cluster.toml`. Comments, order and formatting of everything else stay as they are.
//!
//! Nothing here decides whether the result is valid: the caller compiles it before it is used.

use std::ops::Range;

use toml_edit::{Array, Document, DocumentMut, Item, TableLike};

use super::cluster::ClusterConfig;
use super::document::{Findings, Source, parse, read_toml};
use super::problem::ConfigProblems;
use super::validate::split_host_port;
use crate::code::ErrorCode;
use crate::id::Id52;
use crate::name::{GroupName, MachineName};

/// Why a text was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditProblem {
    /// The text is no TOML: there is nothing to change safely.
    #[error("the file cannot be edited, since it cannot be read")]
    Unreadable(#[source] ConfigProblems),
    /// A machine or a group has that name.
    #[error("{name:?} exists already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// No machine has that name.
    #[error("no machine is called {name:?}")]
    UnknownMachine {
        /// The name.
        name: MachineName,
    },
    /// No group has that name.
    #[error("no group is called {name:?}")]
    UnknownGroup {
        /// The name.
        name: GroupName,
    },
    /// Sections stand on the machine: removing it would leave them without.
    #[error("{name:?} is still named by {}", sections.join(", "))]
    StillUsed {
        /// The machine.
        name: MachineName,
        /// The sections that name it.
        sections: Vec<String>,
    },
    /// The file is written in a way that this change cannot keep.
    #[error("the file writes {what} in a way that cannot be edited by a program")]
    Shape {
        /// What is written so.
        what: String,
    },
}

impl EditProblem {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unreadable(problems) => problems.code(),
            Self::NameTaken { .. } | Self::StillUsed { .. } | Self::Shape { .. } => ErrorCode::ConfigInvalid,
            Self::UnknownMachine { .. } => ErrorCode::AddressUnknownMachine,
            Self::UnknownGroup { .. } => ErrorCode::ConfigInvalid,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreadable(_) => {
                Some("mend the file by hand; `malai rescan --check` shows what is wrong".to_owned())
            }
            Self::NameTaken { .. } => Some("choose another name".to_owned()),
            Self::UnknownMachine { .. } => None,
            Self::UnknownGroup { name } => Some(format!("add [group.{name}] to the config first")),
            Self::StillUsed { .. } => {
                Some("remove these sections first, or name another machine there".to_owned())
            }
            Self::Shape { what } => {
                Some(format!("write {what} as a section: [machine.<name>], [group.<name>]"))
            }
        }
    }
}

/// The keys whose values are lists of principals.
const LISTS: [&str; 5] = ["allow_from", "allow_shell", "allow_proxy", "config_editors", "members"];

/// The words under which machines are described; the last two are older forms.
const MACHINES: [&str; 3] = ["machine", "server", "device"];

/// Gives the text of a new cluster's config, with comments that say what to add.
pub fn new_cluster(manager: &Id52, cluster_name: &str) -> String {
    let cluster_name = toml_edit::Value::from(cluster_name);
    format!(
        "# The cluster's config. After each change: `malai rescan --check`, then `malai rescan`.\n\
         \n\
         [cluster-manager]\n\
         id52 = \"{manager}\"\n\
         cluster_name = {cluster_name}\n\
         # config_editors = \"admins\"          # who may edit this file from afar; absent: nobody\n\
         \n\
         # Machines that join are appended below, with no rights. Give rights like this:\n\
         #\n\
         # [machine.web01]\n\
         # allow_from = \"admins\"               # who may run ANY program there; absent: nobody\n\
         #\n\
         # [machine.web01.command.uptime]      # who may run this one\n\
         # allow_from = \"laptop\"\n\
         #\n\
         # [group.admins]\n\
         # members = \"laptop\"\n"
    )
}

/// Appends `[machine.<name>]` with no rights, and makes it a member of `groups`.
///
/// Addresses are a joining machine's word and mere hints: those that are none are left out.
///
/// # Errors
/// [`EditProblem`] if the text cannot be read, the name is taken, or a group does not exist. Nothing is changed then.
pub fn add_machine(
    text: &str,
    name: &MachineName,
    id52: &Id52,
    addresses: &[String],
    groups: &[GroupName],
) -> Result<String, EditProblem> {
    let document = read(text)?;
    let root = document.as_table();
    if find_machine(root, name).is_some() || section(root, "group", name.as_str()).is_some() {
        return Err(EditProblem::NameTaken { name: name.to_string() });
    }
    let mut splices = Vec::new();
    for group in groups {
        let group_table = section(root, "group", group.as_str())
            .and_then(Item::as_table_like)
            .ok_or_else(|| EditProblem::UnknownGroup { name: group.clone() })?;
        let members = group_table.get("members");
        let splice = members.and_then(|members| add_word(text, members, name.as_str()));
        splices
            .extend(splice.ok_or_else(|| EditProblem::Shape { what: format!("the members of {group:?}") })?);
    }
    let mut text = apply(text, splices);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("[machine.{name}]\nid52 = \"{id52}\"\n"));
    let list: Array =
        addresses.iter().map(String::as_str).filter(|address| split_host_port(address).is_some()).collect();
    if !list.is_empty() {
        text.push_str(&format!("addresses = {list}\n"));
    }
    // A file may describe its machines as one inline table, to which no section can be added.
    let there = read(&text).ok().and_then(|document| {
        let entry = find_machine(document.as_table(), name)?.as_table_like()?;
        Some(entry.get("id52")?.as_str()? == id52.to_string())
    });
    if there == Some(true) { Ok(text) } else { Err(EditProblem::Shape { what: "the machines".to_owned() }) }
}

/// Removes a machine: its sections, and its name and id52 in every list.
///
/// A list that becomes empty stays, so that nobody is admitted where an absent list would admit others.
///
/// # Errors
/// [`EditProblem::StillUsed`] if a service runs on it or a test names it.
pub fn remove_machine(text: &str, name: &MachineName) -> Result<String, EditProblem> {
    let document = read(text)?;
    let root = document.as_table();
    let unknown = || EditProblem::UnknownMachine { name: name.clone() };
    let entry = find_machine(root, name).ok_or_else(unknown)?;
    let id52 = entry.as_table_like().and_then(|table| table.get("id52")).and_then(Item::as_str);
    let id52 = id52.and_then(|id| id.parse::<Id52>().ok());
    let sections = users_of(root, name);
    if !sections.is_empty() {
        return Err(EditProblem::StillUsed { name: name.clone(), sections });
    }
    let mut changed: DocumentMut = document.clone().into_mut();
    for kind in MACHINES {
        if let Some(machines) = changed.get_mut(kind).and_then(Item::as_table_like_mut) {
            machines.remove(name.as_str());
        }
    }
    let text = changed.to_string();
    let is_meant = |word: &str| {
        word == name.as_str() || id52.is_some_and(|id52| word.parse::<Id52>().is_ok_and(|id| id == id52))
    };
    let document = read(&text)?;
    let mut splices = Vec::new();
    each_value(document.as_table(), &mut |key, item| {
        if LISTS.contains(&key) {
            splices.extend(remove_words(&text, item, &is_meant));
        }
    });
    Ok(apply(&text, splices))
}

/// Replaces one id52 by another wherever the text names it as an id or in a list, as a rotation of the root needs.
///
/// # Errors
/// [`EditProblem::Unreadable`] if the text is no TOML.
pub fn replace_id52(text: &str, old: &Id52, new: &Id52) -> Result<String, EditProblem> {
    let document = read(text)?;
    let mut splices = Vec::new();
    each_value(document.as_table(), &mut |key, item| {
        if key != "id52" && key != "from" && !LISTS.contains(&key) {
            return;
        }
        let values: Vec<Range<usize>> = match item.as_array() {
            Some(array) => array.iter().filter_map(toml_edit::Value::span).collect(),
            None => item.span().into_iter().collect(),
        };
        for span in values {
            let Some(raw) = text.get(span.clone()) else { continue };
            let lower = raw.to_ascii_lowercase();
            for (at, _) in lower.match_indices(&old.to_string()) {
                let start = span.start + at;
                splices.push((start..start + Id52::TEXT_LEN, new.to_string()));
            }
        }
    });
    Ok(apply(text, splices))
}

/// Finds a name that no machine or group has: the wanted one, else with `-2`, `-3` … behind it.
pub fn free_machine_name(config: &ClusterConfig, wanted: &MachineName) -> MachineName {
    let taken = |name: &str| config.machines().contains_key(name) || config.groups().contains_key(name);
    if !taken(wanted.as_str()) {
        return wanted.clone();
    }
    let mut number: u64 = 2;
    loop {
        let suffix = format!("-{number}");
        // Names are ASCII, so any byte is a boundary.
        let stem = &wanted.as_str()[..wanted.as_str().len().min(63 - suffix.len())];
        let name = format!("{stem}{suffix}");
        if !taken(&name)
            && let Ok(name) = name.parse()
        {
            return name;
        }
        number += 1;
    }
}

fn read(text: &str) -> Result<Document<&str>, EditProblem> {
    if let Some(Ok(document)) = read_toml(text) {
        return Ok(document);
    }
    // Once more, for what is wrong with it.
    let source = Source::new("cluster.toml", text);
    let mut findings = Findings::new(&source);
    parse(&mut findings);
    Err(EditProblem::Unreadable(ConfigProblems::new(findings.into_list())))
}

fn section<'t>(root: &'t dyn TableLike, kind: &str, name: &str) -> Option<&'t Item> {
    root.get(kind)?.as_table_like()?.get(name)
}

fn find_machine<'t>(root: &'t dyn TableLike, name: &MachineName) -> Option<&'t Item> {
    MACHINES.iter().find_map(|kind| section(root, kind, name.as_str()))
}

/// The sections that name a machine other than in a list of principals.
fn users_of(root: &dyn TableLike, name: &MachineName) -> Vec<String> {
    let mut sections = Vec::new();
    let tables = |kind: &str| root.get(kind).and_then(Item::as_table_like);
    for (service, item) in tables("service").into_iter().flat_map(|table| table.iter()) {
        let machine = item.as_table_like().and_then(|table| table.get("machine")).and_then(Item::as_str);
        if machine == Some(name.as_str()) {
            sections.push(format!("[service.{service}]"));
        }
    }
    let names_it = |line: &str| {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("service") => {
                words.next().and_then(|word| word.split_once('.')).is_some_and(|(_, m)| m == name.as_str())
            }
            first => first == Some(name.as_str()),
        }
    };
    for (test, item) in tables("test").into_iter().flat_map(|table| table.iter()) {
        let Some(table) = item.as_table_like() else { continue };
        let lines = |key: &str| -> Vec<&str> {
            match table.get(key) {
                Some(item) => match item.as_array() {
                    Some(array) => array.iter().filter_map(toml_edit::Value::as_str).collect(),
                    None => item.as_str().into_iter().collect(),
                },
                None => Vec::new(),
            }
        };
        if ["from", "allow", "deny"].iter().any(|key| lines(key).into_iter().any(names_it)) {
            sections.push(format!("[test.{test}]"));
        }
    }
    sections
}

/// Visits every value below a table; the parser bounds the depth.
fn each_value<'t>(table: &'t dyn TableLike, visit: &mut dyn FnMut(&str, &'t Item)) {
    for (key, item) in table.iter() {
        match item.as_table_like() {
            Some(table) => each_value(table, visit),
            None => visit(key, item),
        }
    }
}

type Splice = (Range<usize>, String);

fn apply(text: &str, mut splices: Vec<Splice>) -> String {
    splices.sort_by_key(|(range, _)| (range.start, range.end));
    let mut out = String::with_capacity(text.len() + 64);
    let mut at = 0;
    for (range, replacement) in splices {
        out.push_str(text.get(at..range.start).unwrap_or_default());
        out.push_str(&replacement);
        at = at.max(range.end);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// The change that adds a word to a list, whichever way it is written.
fn add_word(text: &str, item: &Item, word: &str) -> Option<Vec<Splice>> {
    let span = item.span()?;
    if let Some(value) = item.as_str() {
        let separator = if value.trim().is_empty() { "" } else { "," };
        return Some(vec![(span.clone(), rewrite(text, span, value, &format!("{value}{separator}{word}")))]);
    }
    let array = item.as_array()?;
    let close = span.end.checked_sub(1)?;
    let Some(end) = array.iter().last().and_then(|last| last.span()).map(|span| span.end) else {
        return Some(vec![(close..close, format!("\"{word}\""))]);
    };
    let line_start = text.get(..close)?.rfind('\n').map(|at| at + 1).filter(|at| *at > end);
    match line_start {
        // The bracket stands on a line of its own: so does the new word.
        Some(start) if text.get(start..close)?.trim().is_empty() => {
            let last_start = text.get(..end)?.rfind('\n').map_or(0, |at| at + 1);
            let indent: String =
                text.get(last_start..end)?.chars().take_while(|c| matches!(c, ' ' | '\t')).collect();
            let mut splices = vec![(start..start, format!("{indent}\"{word}\",\n"))];
            if !array.trailing_comma() {
                splices.push((end..end, ",".to_owned()));
            }
            Some(splices)
        }
        _ => Some(vec![(end..end, format!(", \"{word}\""))]),
    }
}

/// The changes that take words out of a list.
fn remove_words(text: &str, item: &Item, is_meant: &dyn Fn(&str) -> bool) -> Vec<Splice> {
    let Some(span) = item.span() else { return Vec::new() };
    if let Some(value) = item.as_str() {
        if !value.split(',').any(|word| is_meant(word.trim())) {
            return Vec::new();
        }
        let kept: Vec<&str> = value.split(',').filter(|word| !is_meant(word.trim())).collect();
        let kept = kept.join(",");
        let kept = if value.starts_with(' ') { kept.as_str() } else { kept.trim_start() };
        return vec![(span.clone(), rewrite(text, span, value, kept))];
    }
    let Some(array) = item.as_array() else { return Vec::new() };
    let spans: Vec<Range<usize>> = array.iter().filter_map(toml_edit::Value::span).collect();
    let words: Vec<&str> = array.iter().map(|value| value.as_str().unwrap_or_default()).collect();
    if spans.len() != words.len() {
        return Vec::new();
    }
    let mut splices: Vec<Splice> = Vec::new();
    let mut kept_before: Option<&Range<usize>> = None;
    for (index, word) in words.iter().enumerate() {
        let here = &spans[index];
        if !is_meant(word.trim()) {
            kept_before = Some(here);
            continue;
        }
        let range = match spans.get(index + 1) {
            // With what stands behind it: its comma, and a comment that is about it.
            Some(next) => here.start..next.start,
            None => {
                let before = kept_before.filter(|before| {
                    // Only a plain comma goes too; a comment there is about the word before.
                    index > 0
                        && before.end == spans[index - 1].end
                        && text.get(before.end..here.start).is_some_and(|gap| gap.trim() == ",")
                        && !array.trailing_comma()
                });
                match before {
                    Some(before) => before.end..here.end,
                    None => here.start..comma_behind(text, here.end, span.end),
                }
            }
        };
        splices.push((range, String::new()));
    }
    splices
}

/// Just behind the comma that follows, if one follows directly.
fn comma_behind(text: &str, at: usize, limit: usize) -> usize {
    let rest = text.get(at..limit).unwrap_or_default();
    let blank = rest.len() - rest.trim_start().len();
    if rest[blank..].starts_with(',') { at + blank + 1 } else { at }
}

/// A string value with new content, in its old quotes where that is possible.
fn rewrite(text: &str, span: Range<usize>, old: &str, new: &str) -> String {
    let raw = text.get(span).unwrap_or_default();
    for quote in ['"', '\''] {
        if raw == format!("{quote}{old}{quote}") {
            return format!("{quote}{new}{quote}");
        }
    }
    toml_edit::Value::from(new).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile;
    use crate::id::SecretKey;

    fn id(n: u8) -> Id52 {
        SecretKey::from_bytes(&[n; 32]).id52()
    }

    fn name(text: &str) -> MachineName {
        text.parse().expect("a name")
    }

    fn group(text: &str) -> GroupName {
        text.parse().expect("a name")
    }

    fn file(rest: &str) -> String {
        format!("{}\n[machine.web]\nid52 = \"{}\"\n{rest}", new_cluster(&id(1), "company"), id(2))
    }

    fn accepted(text: &str) -> ClusterConfig {
        compile("cluster.toml", text).into_result().map(|(config, _)| config).expect("it compiles")
    }

    #[test]
    fn a_new_cluster_compiles_and_admits_nobody() {
        let config = accepted(&new_cluster(&id(1), "company"));
        assert_eq!(config.manager().id52, id(1));
        assert!(config.machines().is_empty() && config.manager().config_editors.is_none());
    }

    #[test]
    fn a_machine_is_appended_without_rights_and_all_else_stays() {
        let text = file("# the end, without line break");
        let added = add_machine(&text, &name("db"), &id(3), &["db:1".to_owned(), "\"\n".to_owned()], &[])
            .expect("it is added");
        assert!(added.starts_with(&text), "{added}");
        let config = accepted(&added);
        let entry = &config.machines()["db"];
        assert!(entry.allow_from.is_none() && entry.allow_shell.is_none() && entry.allow_proxy.is_none());
        assert_eq!(entry.addresses, ["db:1"]);
        assert_eq!(config.machines().len(), 2);
    }

    #[test]
    fn a_group_gets_the_machine_whichever_way_it_is_written() {
        for (before, after) in [
            ("\"web\" # x", "\"web,db\" # x"),
            ("''", "'db'"),
            ("[]", "[\"db\"]"),
            ("[\"web\"]", "[\"web\", \"db\"]"),
            ("[ \"web\", ] # x", "[ \"web\", \"db\", ] # x"),
            ("[\n  \"web\", # it\n]", "[\n  \"web\", # it\n  \"db\",\n]"),
            ("[\n  \"web\" # it\n]", "[\n  \"web\", # it\n  \"db\",\n]"),
        ] {
            let text = file(&format!("[group.g]\nmembers = {before}\n"));
            let added = add_machine(&text, &name("db"), &id(3), &[], &[group("g")]).expect("it is added");
            assert!(added.contains(&format!("members = {after}\n")), "{added}");
            let config = accepted(&added);
            assert!(config.groups()["g"].0.contains(&crate::config::PrincipalRef::Machine(name("db"))));
        }
    }

    #[test]
    fn a_taken_name_an_unknown_group_and_broken_text_change_nothing() {
        let text = file("[group.g]\nmembers = []\n");
        let add = |text: &str, wanted: &str, groups: &[GroupName]| {
            add_machine(text, &name(wanted), &id(3), &[], groups).expect_err("it is refused")
        };
        assert!(matches!(add(&text, "web", &[]), EditProblem::NameTaken { .. }));
        assert!(matches!(add(&text, "g", &[]), EditProblem::NameTaken { .. }));
        assert!(matches!(add(&text, "db", &[group("h")]), EditProblem::UnknownGroup { .. }));
        assert!(matches!(add("[machine", "db", &[]), EditProblem::Unreadable(_)));
        assert!(matches!(add("machine = {}\n", "db", &[]), EditProblem::Shape { .. }));
    }

    #[test]
    fn a_removed_machine_leaves_every_list_and_no_list_vanishes() {
        let text = file(&format!(
            "# about db\n[machine.db] # old\nid52 = \"{id}\"\n[machine.db.command.x]\nargs = \"any\"\n\
             # about ci\n[machine.ci]\nid52 = \"{ci}\"\nallow_from = \"web, db\" # who\nallow_shell = \"db\"\n\
             [group.a]\nmembers = [\n  \"web\", # one\n  \"db\", # two\n  \"{id}\", # three\n]\n\
             [group.b]\nmembers = [\"db\", \"web\"]\n[group.c]\nmembers = [\"web\", \"db\"]\n[group.d]\nmembers = [\"db\"]\n",
            id = id(3),
            ci = id(4),
        ));
        accepted(&text);
        let removed = remove_machine(&text, &name("db")).expect("it is removed");
        let config = accepted(&removed);
        assert!(!config.machines().contains_key("db"));
        assert!(!removed.contains(&id(3).to_string()), "{removed}");
        // Absent would mean: as allow_from. Nobody stays nobody.
        assert!(config.machines()["ci"].allow_shell.as_ref().is_some_and(|list| list.0.is_empty()));
        for kept in ["# about ci", "allow_from = \"web\" # who", "\"web\", # one", "members = [\"web\"]"] {
            assert!(removed.contains(kept), "{kept} in {removed}");
        }
        assert_eq!(config.groups()["b"], config.groups()["c"]);
        assert!(config.groups()["d"].0.is_empty());
    }

    #[test]
    fn a_machine_that_services_or_tests_stand_on_is_not_removed() {
        let text = file(
            "[service.s]\nmachine = \"web\"\nprotocol = \"tcp\"\nport = 1\n\
             [machine.web.tcp.ssh]\nport = 22\n[test.t]\nfrom = \"web\"\ndeny = [\"service ssh.web\"]\n",
        );
        let problem = remove_machine(&text, &name("web")).expect_err("it is in use");
        assert_eq!(problem.to_string(), "\"web\" is still named by [service.s], [test.t]");
        assert!(matches!(remove_machine(&text, &name("x")), Err(EditProblem::UnknownMachine { .. })));
    }

    #[test]
    fn an_id_is_replaced_where_it_is_one() {
        let text = file(&format!(
            "# {id}\n[group.g]\nmembers = \"{id},{upper}\"\n[machine.web.command.x]\ncommand = \"echo {id}\"\n",
            id = id(1),
            upper = id(1).to_string().to_uppercase()
        ));
        let replaced = replace_id52(&text, &id(1), &id(9)).expect("it is replaced");
        let config = accepted(&replaced);
        assert_eq!(config.manager().id52, id(9));
        assert_eq!(config.groups()["g"].0, vec![crate::config::PrincipalRef::Id(id(9)); 2]);
        // A comment and a command's words are nobody's rights.
        assert_eq!(replaced.matches(&id(1).to_string()).count(), 2);
    }

    #[test]
    fn a_taken_name_gets_a_number() {
        let config = accepted(&file(&format!(
            "[group.web-2]\nmembers = []\n[machine.{long}]\nid52 = \"{}\"\n",
            id(5),
            long = "x".repeat(63)
        )));
        assert_eq!(free_machine_name(&config, &name("db")).as_str(), "db");
        assert_eq!(free_machine_name(&config, &name("web")).as_str(), "web-3");
        let long = free_machine_name(&config, &name(&"x".repeat(63)));
        assert_eq!(long.as_str(), format!("{}-2", "x".repeat(61)));
    }
}
