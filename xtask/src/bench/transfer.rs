//! Rows about bytes: through a remote `cat`, and files.

use std::path::Path;
use std::process::Command;

use super::Size;
use super::measure::{Median, interleaved, timed, timed_through};
use super::rows::{MIB, Rig, Row};
use crate::run::Outcome;

/// How many small files are copied.
const SMALL_FILES: usize = 10_000;

pub(super) fn measure(rig: &Rig<'_>) -> Outcome<Vec<Row>> {
    Ok(vec![through_cat(rig)?, large_file(rig)?, small_files(rig)?])
}

/// Rounds of what takes seconds: fewer than of what takes milliseconds.
fn rounds(rig: &Rig<'_>) -> usize {
    if rig.size == Size::Full { 7 } else { 1 }
}

#[expect(clippy::cast_precision_loss, reason = "a size to show")]
fn speed(bytes: u64, median: Median) -> f64 {
    bytes as f64 / 1e6 / median.median
}

fn through_cat(rig: &Rig<'_>) -> Outcome<Row> {
    let bytes = if rig.size == Size::Full { 1024 * MIB } else { 8 * MIB };
    let laptop = rig.cluster.home("laptop");
    let gcm = ["-c", "aes128-gcm@openssh.com"];
    let medians = interleaved(
        rounds(rig),
        &mut [
            &mut || timed_through(&mut rig.sshd.ssh(&[], &["cat"]), bytes),
            &mut || timed_through(&mut rig.sshd.ssh(&gcm, &["cat"]), bytes),
            &mut || timed_through(&mut laptop.plain_command(["web01.company", "cat"]), bytes),
        ],
    )?;
    let ratio = medians[0].median / medians[2].median;
    Ok(Row {
        name: "1 GiB of stdin through a remote `cat`",
        malai: format!("{:.0} MB/s", speed(bytes, medians[2])),
        beside: format!(
            "ssh {:.0} MB/s by its default cipher, {:.0} by aes128-gcm",
            speed(bytes, medians[0]),
            speed(bytes, medians[1])
        ),
        wanted: "1.0 or more of the default cipher",
        came_out: format!("{ratio:.2}"),
        met: Some(ratio >= 1.0),
        limit: "both directions of QUIC in user space on two cores, which the two ends and `cat` share",
    })
}

fn large_file(rig: &Rig<'_>) -> Outcome<Row> {
    let bytes = if rig.size == Size::Full { 1024 * MIB } else { 8 * MIB };
    let dir = rig.scratch("large")?;
    let source = dir.join("source");
    fill(&source, bytes)?;
    let laptop = rig.cluster.home("laptop");
    let to_ssh = rig.sshd.remote(&dir.join("by-scp"));
    let to_malai = format!("web01.company:{}", dir.join("by-malai").display());
    let medians = interleaved(
        rounds(rig),
        &mut [
            &mut || {
                remove(&dir.join("by-scp"))?;
                timed(rig.sshd.scp().arg(&source).arg(&to_ssh), 0)
            },
            &mut || {
                remove(&dir.join("by-malai"))?;
                timed(laptop.plain_command(["cp", "--quiet"]).arg(&source).arg(&to_malai), 0)
            },
        ],
    )?;
    same_tree(&source, &dir.join("by-malai"))?;
    remove(&dir)?;
    let ratio = medians[0].median / medians[1].median;
    Ok(Row {
        name: "`malai cp` of 1 GiB",
        malai: format!("{:.0} MB/s", speed(bytes, medians[1])),
        beside: format!("scp {:.0} MB/s", speed(bytes, medians[0])),
        wanted: "1.0 or more of scp",
        came_out: format!("{ratio:.2}"),
        met: Some(ratio >= 1.0),
        limit: "BLAKE3 on both sides beside the encryption: what arrives is verified, which scp does not do",
    })
}

fn small_files(rig: &Rig<'_>) -> Outcome<Row> {
    let count = if rig.size == Size::Full { SMALL_FILES } else { 100 };
    let dir = rig.scratch("small")?;
    let source = dir.join("source");
    for index in 0..count {
        let folder = source.join(format!("{:03}", index / 100));
        std::fs::create_dir_all(&folder).map_err(|error| format!("making {}: {error}", folder.display()))?;
        fill(&folder.join(format!("{index}.txt")), 1000 + (index as u64 * 37) % 3000)?;
    }
    let laptop = rig.cluster.home("laptop");
    let to_ssh = rig.sshd.remote(&dir.join("by-scp"));
    let to_malai = format!("web01.company:{}", dir.join("by-malai").display());
    let medians = interleaved(
        rounds(rig).min(5),
        &mut [
            &mut || {
                remove(&dir.join("by-scp"))?;
                timed(rig.sshd.scp().arg("-r").arg(&source).arg(&to_ssh), 0)
            },
            &mut || {
                remove(&dir.join("by-malai"))?;
                timed(laptop.plain_command(["cp", "--quiet"]).arg(&source).arg(&to_malai), 0)
            },
        ],
    )?;
    same_tree(&source, &dir.join("by-malai"))?;
    remove(&dir)?;
    let ratio = medians[0].median / medians[1].median;
    Ok(Row {
        name: "`malai cp` of 10,000 small files",
        malai: format!("{:.2} s", medians[1].median),
        beside: format!("scp -r {:.2} s", medians[0].median),
        wanted: "3 times as fast as scp -r, or more",
        came_out: format!("{ratio:.1} times"),
        met: Some(ratio >= 3.0),
        limit: "two names made for each file: a part file that is renamed, so that none is ever half written",
    })
}

/// Writes so many bytes that no compression or hole makes easy.
fn fill(path: &Path, bytes: u64) -> Outcome {
    use std::io::Write;
    let failed = |error: std::io::Error| format!("writing {}: {error}", path.display());
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).map_err(failed)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ bytes;
    let mut left = bytes;
    while left > 0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let block = state.to_le_bytes();
        let take = usize::try_from(left.min(8)).unwrap_or(8);
        file.write_all(&block[..take]).map_err(failed)?;
        left -= take as u64;
    }
    file.flush().map_err(failed)
}

fn remove(path: &Path) -> Outcome {
    let gone = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match gone {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("removing {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A copy that is not the source would be no figure.
fn same_tree(one: &Path, other: &Path) -> Outcome {
    let output = Command::new("diff").arg("-rq").arg(one).arg(other).output();
    let output = output.map_err(|error| format!("starting diff: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("the copy differs: {}", String::from_utf8_lossy(&output.stdout)))
}
