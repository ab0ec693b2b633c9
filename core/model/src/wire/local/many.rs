//! How one command on many machines went.

use serde::{Deserialize, Serialize};

use crate::code::ErrorCode;
use crate::wire::{CommandEnd, WireError};

/// How it went on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetOutcome {
    /// The program ended with status 0.
    Ok,
    /// It ended with another status, or could not be started.
    Failed,
    /// The machine did not let this device do it.
    Denied,
    /// The machine could not be reached, or the connection to it was lost.
    Unreachable,
    /// It took longer than it might, and was hung up.
    TimedOut,
    /// It was hung up, or not begun at all, because the whole was given up.
    Cancelled,
}

/// The end of it on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManyEnd {
    /// How it went.
    pub outcome: TargetOutcome,
    /// The status that a shell would show, if the program ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// The signal that killed it, if one did: its number on the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// What failed, if malai or the target did. Its text may be a peer's: show it escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<WireError>,
    /// Whether the program was started.
    pub started: bool,
    /// From the first attempt to the end, in milliseconds.
    pub elapsed_ms: u64,
}

/// How many went how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManySummary {
    /// Ended with status 0.
    pub ok: usize,
    /// Ended with another status, or could not be started.
    pub failed: usize,
    /// Not allowed.
    pub denied: usize,
    /// Not reached, or lost.
    pub unreachable: usize,
    /// Hung up for taking too long.
    pub timed_out: usize,
    /// Given up.
    pub cancelled: usize,
}

impl TargetOutcome {
    /// What a failure with this code is.
    pub fn of_code(code: ErrorCode) -> Self {
        match code {
            ErrorCode::AclDenied | ErrorCode::AclRevoked | ErrorCode::PeerNotAdmitted => Self::Denied,
            ErrorCode::PeerUnreachable | ErrorCode::PeerLost => Self::Unreachable,
            ErrorCode::Cancelled => Self::Cancelled,
            _ => Self::Failed,
        }
    }

    /// What a program's end is.
    pub fn of_end(end: &CommandEnd) -> Self {
        if end.shell_status() == 0 { Self::Ok } else { Self::Failed }
    }
}

impl ManySummary {
    /// Counts one more.
    pub fn count(&mut self, outcome: TargetOutcome) {
        *match outcome {
            TargetOutcome::Ok => &mut self.ok,
            TargetOutcome::Failed => &mut self.failed,
            TargetOutcome::Denied => &mut self.denied,
            TargetOutcome::Unreachable => &mut self.unreachable,
            TargetOutcome::TimedOut => &mut self.timed_out,
            TargetOutcome::Cancelled => &mut self.cancelled,
        } += 1;
    }

    /// How many there were.
    pub fn total(&self) -> usize {
        self.ok + self.failed + self.denied + self.unreachable + self.timed_out + self.cancelled
    }
}
