//! Other people's programs: where they are, and what becomes of a test without them.

use std::path::{Path, PathBuf};

/// Where `.ci/run` puts what is no package of the system's.
fn ci_tools() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("ci-tools/bin")
}

fn find(program: &str) -> Option<PathBuf> {
    let fixed = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let own = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let folders = fixed.into_iter().chain([ci_tools()]).chain(own.unwrap_or_default());
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Finds programs. If one is missing it says so and returns `None`; on CI the test fails.
///
/// # Panics
/// On CI, when one is missing.
pub(crate) fn all<const N: usize>(programs: [&str; N]) -> Option<[PathBuf; N]> {
    let found = programs.map(|program| find(program).ok_or(program));
    if let Some(Err(missing)) = found.iter().find(|found| found.is_err()) {
        malai_testkit::not_run(&format!("{missing} is not installed"));
        return None;
    }
    Some(found.map(|found| found.unwrap_or_default()))
}
