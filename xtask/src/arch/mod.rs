//! `arch`: the rules of ARCHITECTURE.md that a scan of the sources can check.
//!
//! It reads text, not types. It finds the honest mistake, not an author who hides.

mod layers;
mod public;
mod rules;
mod source;

use crate::out::say;
use crate::run::{Outcome, root};
use source::Tree;

/// One breach of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    message: String,
}

/// Checks the workspace.
pub(crate) fn run() -> Outcome {
    let tree = Tree::read(&root())?;
    let findings = check(&tree);
    for Finding { path, line, rule, message } in &findings {
        say!("{path}:{line}: [{rule}] {message}");
    }
    if findings.is_empty() {
        say!("arch: {} sources and {} manifests keep the rules", tree.sources.len(), tree.manifests.len());
        return Ok(());
    }
    Err(format!("arch: {} breaches", findings.len()))
}

fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = layers::check(tree);
    findings.extend(public::check(tree));
    findings.extend(rules::check(tree));
    findings.sort();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the rules that made-up files break.
    fn broken(files: &[(&str, &str)]) -> Vec<&'static str> {
        let tree = Tree::of(files);
        check(&tree).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn the_workspace_itself_is_read() {
        let tree = Tree::read(&root()).expect("reads the workspace");
        assert!(tree.sources.iter().any(|source| source.path == "core/src/task.rs"));
        assert!(tree.manifests.iter().any(|manifest| manifest.path == "core/model/Cargo.toml"));
    }

    #[test]
    fn an_import_of_a_lower_layer_is_fine_and_of_a_higher_one_not() {
        assert_eq!(broken(&[("core/src/node/mod.rs", "use crate::p2p::Endpoint;")]), [""; 0]);
        assert_eq!(broken(&[("core/src/p2p/mod.rs", "use crate::node::Node;")]), ["layers"]);
        assert_eq!(broken(&[("core/src/p2p/pool.rs", "fn f() { crate::daemon::start() }")]), ["layers"]);
        assert_eq!(
            broken(&[("core/src/home/mod.rs", "use crate::{task::Scope, api::{Client, View}};")]),
            ["layers"]
        );
        assert_eq!(broken(&[("core/src/home/mod.rs", "use super::api::Client;")]), ["layers"]);
        assert_eq!(broken(&[("core/src/home/lock.rs", "use super::super::api::Client;")]), ["layers"]);
        assert_eq!(broken(&[("core/src/home/lock.rs", "use super::api::Client;")]), [""; 0]);
    }

    #[test]
    fn features_do_not_import_each_other_and_no_two_modules_each_other() {
        assert_eq!(broken(&[("core/src/exec/mod.rs", "use crate::cluster::Manager;")]), ["layers"]);
        assert_eq!(broken(&[("core/src/identity/mod.rs", "use crate::home::Home;")]), [""; 0]);
        let both = [
            ("core/src/identity/mod.rs", "use crate::home::Home;"),
            ("core/src/home/mod.rs", "use crate::identity::Key;"),
        ];
        assert_eq!(broken(&both), ["layers", "layers"]);
    }

    #[test]
    fn a_module_without_a_layer_and_the_facade_used_from_inside_are_found() {
        assert_eq!(broken(&[("core/src/misc/mod.rs", "")]), ["layers"]);
        assert_eq!(broken(&[("core/src/exec/mod.rs", "use crate::Client;")]), ["layers"]);
        let lib = ("core/src/lib.rs", "pub use api::{Client, View};\npub use error::Error;");
        assert_eq!(broken(&[lib, ("core/src/exec/mod.rs", "use crate::View;")]), ["layers"]);
        assert_eq!(broken(&[lib, ("core/src/api/mod.rs", "use crate::Error;")]), [""; 0]);
    }

    #[test]
    fn tests_comments_and_texts_are_no_imports() {
        let text = "// crate::node::x\n/* crate::node::x */ const A: &str = \"crate::node::x\";\n\
                    #[cfg(test)]\nmod tests { use crate::node::Node; }";
        assert_eq!(broken(&[("core/src/p2p/mod.rs", text)]), [""; 0]);
    }

    #[test]
    fn the_model_has_only_the_dependencies_on_its_list_and_does_no_io() {
        let manifest = |name: &str| format!("[dependencies]\nserde.workspace = true\n{name} = \"1\"\n");
        assert_eq!(broken(&[("core/model/Cargo.toml", &manifest("tokio"))]), ["model"]);
        assert_eq!(broken(&[("core/model/Cargo.toml", &manifest("sha2"))]), [""; 0]);
        let dev = "[dev-dependencies]\nproptest.workspace = true\n";
        assert_eq!(broken(&[("core/model/Cargo.toml", dev)]), [""; 0]);
        let table = "[dependencies.iroh]\nversion = \"1\"\n[target.'cfg(unix)'.dependencies]\nnix = \"1\"\n";
        assert_eq!(broken(&[("core/model/Cargo.toml", table)]), ["iroh", "model", "model"]);
        for line in ["use std::fs;", "use std::{env, fmt};", "let t = Timestamp::now();", "tokio::time::x();"]
        {
            assert_eq!(broken(&[("core/model/src/id.rs", line)]), ["model"], "{line}");
        }
    }

    #[test]
    fn iroh_stays_in_its_modules_and_out_of_what_they_show() {
        assert_eq!(
            broken(&[("core/src/p2p/endpoint.rs", "use iroh::Endpoint;\nstruct A { e: Endpoint }")]),
            [""; 0]
        );
        assert_eq!(broken(&[("core/src/node/mod.rs", "fn f(e: iroh::Endpoint) {}")]), ["iroh"]);
        assert_eq!(broken(&[("cli/src/main.rs", "use noq::Connection;")]), ["iroh"]);
        for item in [
            "pub fn f(e: iroh::Endpoint) {}",
            "use iroh::{Endpoint, endpoint::Connection as C};\npub fn f() -> C { todo() }",
            "use iroh::Endpoint;\npub struct A { pub endpoint: Endpoint }",
            "pub struct A(pub iroh::Endpoint);",
            "pub enum E { Bind { source: iroh::endpoint::BindError } }",
            "pub type E = iroh::Endpoint;",
            "pub use iroh::Endpoint;",
            "pub trait T { fn f(&self) -> iroh::Endpoint; }",
            "struct A;\nimpl From<iroh::EndpointId> for A {}",
        ] {
            assert_eq!(broken(&[("core/src/p2p/endpoint.rs", item)]), ["iroh-public"], "{item}");
        }
        for item in [
            "pub(crate) fn f(e: iroh::Endpoint) {}",
            "pub struct A { endpoint: iroh::Endpoint }",
            "pub struct A(iroh::Endpoint);",
            "pub fn f() { let e: iroh::Endpoint = x(); }",
        ] {
            assert_eq!(broken(&[("core/src/p2p/endpoint.rs", item)]), [""; 0], "{item}");
        }
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        assert_eq!(broken(&[("cli/src/main.rs", &"\n".repeat(701))]), ["length"]);
        let text = "\n".repeat(600) + "#[cfg(test)]\nmod tests {" + &"\n".repeat(600) + "}";
        assert_eq!(broken(&[("cli/src/main.rs", &text)]), [""; 0]);
    }

    #[test]
    fn fronts_keep_their_libraries() {
        assert_eq!(broken(&[("core/src/api/mod.rs", "#[derive(uniffi::Record)]\nstruct A;")]), ["uniffi"]);
        assert_eq!(broken(&[("core/src/api/mod.rs", "use clap::Parser;")]), ["clap"]);
        assert_eq!(broken(&[("core/Cargo.toml", "[dependencies]\nclap.workspace = true\n")]), ["clap"]);
        assert_eq!(
            broken(&[("cli/src/args.rs", "use clap::Parser;"), ("ffi/src/lib.rs", "use uniffi::X;")]),
            [""; 0]
        );
        assert_eq!(broken(&[("cli/src/main.rs", "use malai_ffi::Malai;")]), ["fronts"]);
        assert_eq!(
            broken(&[("ffi/Cargo.toml", "[dependencies]\nmalai = { path = \"../cli\" }\n")]),
            ["fronts"]
        );
    }

    #[test]
    fn tasks_have_owners_and_lints_reasons() {
        assert_eq!(broken(&[("core/src/node/mod.rs", "tokio::spawn(x);")]), ["spawn"]);
        assert_eq!(broken(&[("cli/src/main.rs", "tokio::task::spawn(x);")]), ["spawn"]);
        assert_eq!(broken(&[("cli/src/main.rs", "use tokio::{net, spawn};")]), ["spawn"]);
        assert_eq!(broken(&[("core/src/task.rs", "tokio::spawn(x);")]), [""; 0]);
        assert_eq!(broken(&[("cli/src/main.rs", "#[allow(dead_code)]\nfn f() {}")]), ["allow"]);
        assert_eq!(
            broken(&[("cli/src/main.rs", "#[cfg(test)]\nmod tests {\n#![allow(dead_code)]\n}")]),
            ["allow"]
        );
    }
}
