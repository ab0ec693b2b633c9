//! Why a copy as a whole fails.

use std::io;
use std::path::PathBuf;

use malai_model::code::ErrorCode;
use malai_model::text::escape_control;
use malai_model::wire::copy::{CopyFrameProblem, VERSION};

/// Why a copy could not be done, or not to its end. What concerns single files is a [`super::CopyProblem`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// What is asked for makes no sense.
    #[error("copy: {message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The other end went away.
    #[error("copy: the other end went away")]
    Broken(#[source] io::Error),
    /// The other end said what is no frame.
    #[error("understand the other end of the copy")]
    Malformed(#[source] CopyFrameProblem),
    /// The other end said what does not belong here.
    #[error("understand the other end of the copy: {0}")]
    OutOfTurn(&'static str),
    /// The other end speaks another version.
    #[error("copy: the other end speaks version {theirs} of the copy protocol, this one {VERSION}")]
    Version {
        /// Its newest.
        theirs: u16,
    },
    /// The other end gave up.
    #[error("{}", escape_control(message))]
    Peer {
        /// Its code.
        code: ErrorCode,
        /// Its words.
        message: String,
    },
    /// The source sends what was not asked for.
    #[error("copy: the source sends {:?}, which nobody asked it for", escape_control(&name.to_string_lossy()))]
    Unasked {
        /// What the source calls it.
        name: std::ffi::OsString,
    },
    /// The place to write to cannot be used.
    #[error("write to {}", escape_control(&path.to_string_lossy()))]
    Destination {
        /// The place.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The machine has no program `malai-cp`, or one that is not malai's.
    #[error("copy: malai on {machine} is older than copying")]
    Older {
        /// Which machine.
        machine: String,
    },
    /// The program on the machine ended before the copy did.
    #[error("copy: `malai-cp` on {machine} ended with status {status}: {}", escape_control(stderr))]
    Ended {
        /// Which machine.
        machine: String,
        /// Its exit status.
        status: u8,
        /// The last that it said.
        stderr: String,
    },
    /// A lane could not join its copy on the machine.
    #[error("join the copy that the stream is for")]
    Lane(#[source] io::Error),
    /// One of several streams of a copy ended before the copy did.
    #[error("copy: one of its streams to {machine} ended with status {status}: {}", escape_control(stderr))]
    LaneEnded {
        /// Which machine.
        machine: String,
        /// The exit status of the program at its other end.
        status: u8,
        /// The last that it said.
        stderr: String,
    },
    /// A thread of the copy panicked.
    #[error("copy: a part of malai panicked")]
    Panicked,
}

impl CopyError {
    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Usage { .. } => ErrorCode::Usage,
            Self::Broken(_) | Self::Lane(_) => ErrorCode::PeerLost,
            Self::Malformed(_) | Self::OutOfTurn(_) => ErrorCode::WireMalformed,
            Self::Version { .. } | Self::Older { .. } => ErrorCode::WireUnsupported,
            Self::Peer { code, .. } => *code,
            Self::Destination { .. } => ErrorCode::CopyStorage,
            Self::Unasked { .. } => ErrorCode::CopyOutside,
            Self::Ended { .. } | Self::LaneEnded { .. } => ErrorCode::CommandFailed,
            Self::Panicked => ErrorCode::Internal,
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => hint.clone(),
            Self::Older { machine } => Some(format!("install the current malai on {machine}")),
            Self::Unasked { .. } => Some("nothing of that was written; do not trust the machine".to_owned()),
            Self::Version { .. } => Some("install the same version of malai on both machines".to_owned()),
            Self::Broken(_) | Self::LaneEnded { .. } => {
                Some("run the same command again: it goes on where it stopped".to_owned())
            }
            _ => None,
        }
    }
}
