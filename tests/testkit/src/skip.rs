//! What a test does where it cannot run.

/// Says that a test did not run, and why. On CI, where `.ci/run` provides what the tests need, that fails the test.
///
/// # Panics
///
/// On CI.
#[expect(clippy::print_stderr, reason = "who reads the test's output should know that nothing was tested")]
pub fn not_run(why: &str) {
    assert!(!is_ci(), "cannot run on CI, where it must: {why}");
    eprintln!("not run: {why}");
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}
