//! A master config, compiled, shown and edited.
#![no_main]

use libfuzzer_sys::fuzz_target;
use malai_model::config::{add_machine, compile, remove_machine};
use malai_model::id::SecretKey;

fuzz_target!(|text: &str| {
    let compiled = compile("cluster.toml", text);
    for found in &compiled.diagnostics {
        let shown = found.render();
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'));
    }
    assert_eq!(compiled.value.is_some(), !compiled.diagnostics.iter().any(|found| found.is_error()));
    let Some(config) = compiled.value else { return };
    // What compiles can be edited, and compiles then too, but for a file that no section can be added to.
    let name = "fuzz-new".parse().expect("a name");
    let id = SecretKey::from_bytes(&[42; 32]).id52();
    if config.machines().contains_key(&name) || config.machine_of(&id).is_some() {
        return;
    }
    if let Ok(added) = add_machine(text, &name, &id, &[], &[]) {
        let after = compile("cluster.toml", &added).value.expect("it compiles");
        assert_eq!(after.machines().len(), config.machines().len() + 1);
    }
    for name in config.machines().keys().take(3) {
        if let Ok(removed) = remove_machine(text, name) {
            assert!(compile("cluster.toml", &removed).value.is_some());
        }
    }
});
