//! What is wrong with a device, and what to do about it.

use serde::{Deserialize, Serialize};

use crate::code::ErrorCode;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing is wrong.
    Ok,
    /// Something does not work, or will not, while the rest does.
    Warning,
    /// malai does not work on this device as it is.
    Problem,
}

/// What was looked at, and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at: `home`, `config`, `keys`, `daemon`, `clock`, `network`, `relays`, `disk`, `limits`,
    /// `machines`, `aliases`.
    pub about: String,
    /// What was found. May hold text of a peer or of a file: show it escaped.
    pub what: String,
    /// What to do about it: a command to type, or a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
    /// The code with which malai fails for this reason, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorView {
    /// The version of malai that looked.
    pub version: String,
    /// The home that it looked at.
    pub home: String,
    /// In the order in which it was looked at.
    pub findings: Vec<Finding>,
}

impl DoctorView {
    /// The worst that was found.
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }
}
