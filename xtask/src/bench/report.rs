//! `docs/benchmarks.md`.

use super::rows::Row;
use crate::run::{Outcome, program, text_of};

/// Writes the page.
pub(super) fn markdown(rows: &[Row]) -> Outcome<String> {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1)).unwrap_or("unknown");
    let version = |name: &str, flag: &str| -> Outcome<String> {
        let output =
            program(name).arg(flag).output().map_err(|source| format!("starting {name}: {source}"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
    };
    let date = text_of(program("date").args(["-u", "+%Y-%m-%d"]))?;
    let mut page = format!(
        "# Benchmarks\n\n\
         Made by `cargo xtask bench`; do not edit. Everything on one machine over loopback, in one run: OpenSSH with a server of\n\
         its own (`UsePAM no`, `UseDNS no`, an ed25519 key) and malai's release build. Times are medians of 30 interleaved\n\
         rounds, with the quarter points in brackets.\n\n\
         - date: {}\n- machine: {cores} cores, {}, {}\n- beside: {}\n- compiler: {}\n\n\
         | what | malai | beside | wanted | came out | |\n| --- | --- | --- | --- | --- | --- |\n",
        date.trim(),
        model.trim(),
        version("uname", "-sr")?,
        version("ssh", "-V")?,
        version("rustc", "--version")?,
    );
    for row in rows {
        let Row { name, malai, beside, wanted, came_out, .. } = row;
        page += &format!("| {name} | {malai} | {beside} | {wanted} | {came_out} | {} |\n", row.verdict());
    }
    page += "\nWhat limits each:\n\n";
    for row in rows {
        page += &format!("- {}: {}\n", row.name, row.limit);
    }
    Ok(page)
}
