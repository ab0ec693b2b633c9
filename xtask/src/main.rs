//! The project's own tasks: `cargo xtask <task>`.

mod arch;
mod bench;
mod bindings;
mod ci;
mod demo;
mod out;
mod run;
mod soak;

use std::process::ExitCode;

use out::say;

const HELP: &str = "\
cargo xtask <task>

  ci                       every check; ends within 25 minutes on a new machine of two cores
  demo                     three homes on this machine: one command allowed, one refused
  arch                     the layers and the other rules that a source scan can check
  bench [--quick] [PART…]  figures beside OpenSSH; all parts, without --quick, into docs/benchmarks.md
  soak [--scale F] [NAME…] the long runs; F = 1 is the full length
  bindings                 builds ffi, generates its Python bindings and runs their tests
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["ci"] => ci::run(),
        ["demo"] => demo::run(None),
        ["demo", "--binary", path] => demo::run(Some(path.as_ref())),
        ["arch"] => arch::run(),
        ["bench", "--quick", parts @ ..] => bench::run(bench::Size::Quick, parts),
        ["bench", parts @ ..] => bench::run(bench::Size::Full, parts),
        ["soak", "--scale", scale, names @ ..] => soak::run_scaled(scale, names),
        ["soak", names @ ..] => soak::run_scaled("1", names),
        ["bindings"] => bindings::run(),
        [] | ["help" | "--help" | "-h"] => {
            say!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            out::complain(&format!("error: no such task: {}\n\n{HELP}", words.join(" ")));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::complain(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
