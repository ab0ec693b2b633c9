//! A device's own `malai.toml`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use malai_model::config::compile_device;

fuzz_target!(|text: &str| {
    let compiled = compile_device("malai.toml", text);
    let refused = compiled.diagnostics.iter().any(|found| found.is_error());
    assert_eq!(compiled.value.is_some(), !refused);
});
