//! `bindings`: the library as an app in another language sees it.

use crate::out::say;
use crate::run::{Outcome, SAME, cargo, done, program, root, target_dir, which};

/// Builds ffi, generates the Python module and runs its tests.
pub(crate) fn run() -> Outcome {
    done(cargo().args(["build", "--quiet"]).args(SAME))?;
    let debug = target_dir().join("debug");
    let library =
        debug.join(format!("{}malai_ffi{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX));
    let out = target_dir().join("bindings").join("python");
    if out.exists() {
        std::fs::remove_dir_all(&out).map_err(|source| format!("removing {}: {source}", out.display()))?;
    }
    std::fs::create_dir_all(&out).map_err(|source| format!("making {}: {source}", out.display()))?;
    done(
        program(debug.join("uniffi-bindgen"))
            .args(["generate", "--language", "python", "--no-format", "--out-dir"])
            .args([&out, &library]),
    )?;
    if !out.join("malai_ffi.py").is_file() {
        return Err(format!("no module malai_ffi.py came out of {}", library.display()));
    }
    // The module looks for the library beside itself.
    let beside = out.join(library.file_name().unwrap_or_default());
    std::fs::copy(&library, &beside)
        .map_err(|source| format!("copying to {}: {source}", beside.display()))?;

    let python = which("python3").ok_or("python3 is not installed")?;
    let tests = root().join("tests").join("bindings").join("python");
    say!("bindings: python");
    done(
        program(python)
            .args(["-m", "unittest", "discover", "--verbose", "--start-directory"])
            .arg(tests)
            .env("PYTHONPATH", &out)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("MALAI_BIN", debug.join("malai")),
    )
}
