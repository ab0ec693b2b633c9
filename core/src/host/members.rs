//! Which processes are left in a group.

use nix::unistd::Pid;

/// Says whether a process other than the leader is alive in a group; `None` where the system does not tell.
#[cfg(target_os = "linux")]
pub(super) fn has_members(leader: Pid) -> Option<bool> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let leader = leader.to_string();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_process = name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit);
        if !is_process || name.as_encoded_bytes() == leader.as_bytes() {
            continue;
        }
        // A process that ended meanwhile cannot be read: it is no member.
        let Ok(stat) = std::fs::read(entry.path().join("stat")) else { continue };
        if is_alive_in(&stat, leader.as_bytes()) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn has_members(_: Pid) -> Option<bool> {
    None
}

/// Reads `pid (name) state parent group …`; the name may hold anything, parentheses too.
#[cfg(target_os = "linux")]
fn is_alive_in(stat: &[u8], group: &[u8]) -> bool {
    let Some(end) = stat.iter().rposition(|b| *b == b')') else { return false };
    let mut fields = stat[end + 1..].split(|b| *b == b' ').filter(|field| !field.is_empty());
    let state = fields.next();
    fields.nth(1) == Some(group) && !matches!(state, Some(b"Z" | b"X"))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_fields_deceives_nobody() {
        assert!(is_alive_in(b"7 (a) S 1 9 (b) S 1 42 42 0", b"42"));
        assert!(!is_alive_in(b"7 (a) S 1 42 (b) S 1 9 9 0", b"42"));
        assert!(!is_alive_in(b"7 (a) Z 1 42 42 0", b"42"));
        assert!(!is_alive_in(b"", b"42"));
    }
}
