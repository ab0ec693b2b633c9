//! Imports inside `malai-core` point down.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::source::{Source, Tree, is_word};

/// The modules of `malai-core` by their layer, as in section 1 of ARCHITECTURE.md. `model` is the re-exported L0.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["model"]),
    (1, &["task", "clock", "timeouts", "two_way"]),
    (2, &["home", "identity"]),
    (3, &["p2p", "host", "audit"]),
    (4, FEATURES),
    (5, &["node"]),
    (6, &["api", "error"]),
    (7, &["daemon"]),
];

/// What the facade itself defines, for everybody.
const OF_THE_FACADE: &[&str] = &["VERSION"];

/// The features: they never import each other.
const FEATURES: &[&str] = &["cluster", "exec", "terminal", "service"];

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, modules)| modules.contains(&module)).map(|(layer, _)| *layer)
}

/// Finds imports that point up or sideways, modules without a layer, and uses of the facade from inside.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let facade = facade(tree);
    let mut sideways: BTreeMap<(String, String), (String, usize)> = BTreeMap::new();
    for source in &tree.sources {
        let Some(modules) = module_path(&source.path) else { continue };
        let own = modules[0].as_str();
        let mut report = |line, message| {
            findings.push(Finding { path: source.path.clone(), line, rule: "layers", message });
        };
        let Some(own_layer) = layer(own) else {
            report(1, format!("core::{own} has no layer: give it one in xtask/src/arch/layers.rs"));
            continue;
        };
        for (target, at) in imports(source, modules.len()) {
            let line = source.line_of(at);
            // A name of the facade is its module's.
            let target = facade.get(&target).cloned().unwrap_or(target);
            if target == own || OF_THE_FACADE.contains(&target.as_str()) {
                continue;
            }
            if target.starts_with(char::is_uppercase) {
                report(line, format!("crate::{target} is the facade's: import it from its module"));
                continue;
            }
            match layer(&target) {
                None => report(line, format!("crate::{target} has no layer")),
                Some(layer) if layer > own_layer => {
                    report(line, format!("core::{own} (L{own_layer}) imports core::{target} (L{layer})"));
                }
                Some(layer) if layer == own_layer && FEATURES.contains(&own) => {
                    report(
                        line,
                        format!("the features core::{own} and core::{target} may not know each other"),
                    );
                }
                Some(layer) if layer == own_layer => {
                    sideways.entry((own.to_owned(), target)).or_insert((source.path.clone(), line));
                }
                Some(_) => {}
            }
        }
    }
    for ((from, to), (path, line)) in &sideways {
        if sideways.contains_key(&(to.clone(), from.clone())) {
            let message = format!("core::{from} and core::{to} import each other");
            findings.push(Finding { path: path.clone(), line: *line, rule: "layers", message });
        }
    }
    findings
}

/// Returns which module each name that `lib.rs` re-exports comes from.
fn facade(tree: &Tree) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let Some(lib) = tree.sources.iter().find(|source| source.path == "core/src/lib.rs") else { return names };
    for (at, marker) in lib.product().match_indices("pub use ") {
        let text = lib.product()[at + marker.len()..].split(';').next().unwrap_or("");
        let Some((module, rest)) = text.split_once("::").filter(|(module, _)| layer(module).is_some()) else {
            continue;
        };
        for name in rest.split(|c: char| !is_word(c)).filter(|name| name.starts_with(char::is_uppercase)) {
            names.insert(name.to_owned(), module.to_owned());
        }
    }
    names
}

/// Returns the module that a file of core is, outermost first; `None` for `lib.rs` and files elsewhere.
fn module_path(path: &str) -> Option<Vec<String>> {
    let inside = path.strip_prefix("core/src/")?.strip_suffix(".rs")?;
    let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    (parts != ["lib"] && !parts.is_empty()).then_some(parts)
}

/// Returns the top-level names that a file reaches through `crate::` or through enough `super::`, with their place.
fn imports(source: &Source, depth: usize) -> BTreeSet<(String, usize)> {
    let code = source.product();
    let mut found = BTreeSet::new();
    let supers = "super::".repeat(depth);
    for root in ["crate::", supers.as_str()] {
        for at in Source::find_path(code, root) {
            // `super::super::` is found inside a longer chain too; only the chain's start counts.
            if code[..at].ends_with("::") {
                continue;
            }
            names_after(&code[at + root.len()..], at, &mut found);
        }
    }
    found
}

/// Collects the first names of what follows a root: one, or those of a braced list.
fn names_after(rest: &str, at: usize, found: &mut BTreeSet<(String, usize)>) {
    let mut add = |text: &str| {
        let name: String = text.trim_start().chars().take_while(|c| is_word(*c)).collect();
        let is_macro = text.trim_start()[name.len()..].starts_with('!');
        if !name.is_empty() && name != "self" && name != "super" && !is_macro {
            found.insert((name, at));
        }
    };
    let Some(list) = rest.strip_prefix('{') else {
        add(rest);
        return;
    };
    let (mut nested, mut start) = (0, 0);
    for (index, c) in list.char_indices() {
        match c {
            '{' => nested += 1,
            '}' if nested == 0 => {
                add(&list[start..index]);
                return;
            }
            '}' => nested -= 1,
            ',' if nested == 0 => {
                add(&list[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
}
