//! iroh stays where it is, and nothing public shows it.

use super::Finding;
use super::source::{Source, Tree, is_word};

/// The modules that may know iroh.
const HOMES: &[&str] = &["core/src/p2p/", "core/src/p2p.rs", "core/src/identity/", "core/src/identity.rs"];
/// What runs a relay of its own beside the product.
const RELAY: &str = "tests/e2e/relays.rs";
const CRATES: &[&str] = &["iroh", "noq", "iroh_base", "iroh_relay", "iroh_mdns_address_lookup"];

/// Finds iroh outside its modules, and in what these show.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let mut report = |at, rule, message| {
            findings.push(Finding { path: source.path.clone(), line: source.line_of(at), rule, message });
        };
        if HOMES.iter().any(|home| source.path.starts_with(home)) {
            let names = imported(source.product());
            for (at, item) in public_items(source.product()) {
                if let Some(name) = mentioned(item, &names) {
                    report(at, "iroh-public", format!("a public item shows {name}"));
                }
            }
        } else if !source.path.starts_with("core/examples/") && source.path != RELAY {
            // The tests too: who needs iroh there tests the wrong layer. Examples measure against it.
            for krate in CRATES {
                let path = format!("{krate}::");
                if let Some(at) = Source::find_path(&source.code, &path).next() {
                    report(at, "iroh", format!("{path} outside core::p2p and core::identity"));
                }
            }
        }
    }
    for manifest in &tree.manifests {
        for (name, line) in &manifest.dependencies {
            if manifest.path != "core/Cargo.toml" && CRATES.contains(&name.replace('-', "_").as_str()) {
                let message = format!("only malai-core depends on {name}");
                findings.push(Finding { path: manifest.path.clone(), line: *line, rule: "iroh", message });
            }
        }
    }
    findings
}

/// Returns the names that `use iroh::…` brings into a file.
fn imported(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for krate in CRATES {
        let path = format!("use {krate}::");
        for (at, _) in code.match_indices(&path) {
            let rest = &code[at + path.len()..];
            let list = rest.split(';').next().unwrap_or("");
            for part in list.split([',', '{', '}']) {
                let part = part.trim();
                let name = part.rsplit(" as ").next().unwrap_or(part).rsplit("::").next().unwrap_or(part);
                if name.starts_with(char::is_alphabetic) && name.chars().all(is_word) && name != "self" {
                    names.push(name.to_owned());
                }
            }
        }
    }
    names
}

fn mentioned(item: &str, names: &[String]) -> Option<String> {
    let crates = CRATES.iter().map(|krate| format!("{krate}::"));
    crates.chain(names.iter().cloned()).find(|name| Source::find_path(item, name).next().is_some())
}

/// Returns what each public item shows of itself, with its place.
fn public_items(code: &str) -> Vec<(usize, &str)> {
    let mut items = Vec::new();
    for at in Source::find_path(code, "pub") {
        let Some(rest) = code[at + 3..].strip_prefix(' ') else { continue };
        let rest = rest.trim_start();
        let word: String = rest.chars().take_while(|c| is_word(*c)).collect();
        let item = match word.as_str() {
            "struct" => struct_head(rest),
            // All that these hold is public.
            "enum" | "trait" => braced(rest),
            "type" | "use" | "static" | "const" if !rest.starts_with("const fn") => until(rest, &[';', '=']),
            "fn" | "async" | "const" | "unsafe" | "extern" => until(rest, &['{', ';']),
            "mod" => continue,
            // A public field, named or not.
            _ => field(rest),
        };
        // The right side of a type and a `use` matters too.
        let item = if word == "type" || word == "use" { until(rest, &[';']) } else { item };
        items.push((at, item));
    }
    for at in Source::find_path(code, "impl") {
        let head = until(&code[at..], &['{']);
        if ["From<", "TryFrom<", "AsRef<", "Borrow<"].iter().any(|name| head.contains(name)) {
            items.push((at, head));
        }
    }
    items
}

fn until<'a>(text: &'a str, ends: &[char]) -> &'a str {
    text.split(|c| ends.contains(&c)).next().unwrap_or(text)
}

/// A struct's name and parameters; its public fields are items of their own.
fn struct_head(text: &str) -> &str {
    until(text, &['{', '(', ';'])
}

fn braced(text: &str) -> &str {
    let mut depth = 0;
    for (index, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return &text[..index];
                }
            }
            ';' if depth == 0 => return &text[..index],
            _ => {}
        }
    }
    text
}

/// A field's text: to the comma or bracket that ends it.
fn field(text: &str) -> &str {
    let mut depth = 0;
    for (index, c) in text.char_indices() {
        match c {
            '<' | '(' | '[' => depth += 1,
            // The arrow of a function type opens nothing.
            '>' if text[..index].ends_with('-') => {}
            '>' | ')' | ']' if depth > 0 => depth -= 1,
            ',' | ')' | '}' | ';' | '{' if depth == 0 => return &text[..index],
            _ => {}
        }
    }
    text
}
