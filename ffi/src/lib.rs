//! malai's core for Swift, Kotlin and Python.

uniffi::setup_scaffolding!();

/// Returns the library's version, such as `0.1.0`.
#[uniffi::export]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
