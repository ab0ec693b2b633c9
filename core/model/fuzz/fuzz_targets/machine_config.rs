//! A personalised config, whose text a network peer chose.
#![no_main]

use libfuzzer_sys::fuzz_target;
use malai_model::config::compile_machine;

fuzz_target!(|text: &str| {
    let compiled = compile_machine("machine.toml", text);
    let refused = compiled.diagnostics.iter().any(|found| found.is_error());
    assert_eq!(compiled.value.is_some(), !refused);
    for found in &compiled.diagnostics {
        assert!(!found.render().chars().any(|c| c.is_control() && c != '\n'));
    }
});
