//! The product's stable error codes, in one list.
//!
//! A code crosses the wire, the daemon's socket and the FFI unchanged. It is never renamed and never used again for
//! something else; a golden test prints the whole table.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What sort of failure a code is, for a front that decides what to do: retry, ask, give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// What the user gave cannot be used as it is.
    InvalidInput,
    /// Something named does not exist.
    NotFound,
    /// It exists already, or changed meanwhile.
    Conflict,
    /// Not allowed.
    Denied,
    /// A peer could not be reached.
    Unreachable,
    /// It took too long.
    Timeout,
    /// Somebody cancelled it.
    Cancelled,
    /// The two sides do not speak the same version.
    Incompatible,
    /// A limit is reached: later it may work.
    Busy,
    /// Reading or writing a file failed.
    Storage,
    /// A defect of malai's.
    Internal,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $kind:ident;)*) => {
        /// A stable code of one failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
            /// A code that a newer peer sent and this version does not know.
            Unknown,
        }

        impl ErrorCode {
            /// Every code that this version knows, in the order of the list.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the code's text, as it is on the wire.
            pub fn as_str(&self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Unknown => "internal.unknown_code",
                }
            }

            /// Returns the sort of failure that it is.
            pub fn kind(&self) -> ErrorKind {
                match self {
                    $(Self::$variant => ErrorKind::$kind,)*
                    Self::Unknown => ErrorKind::Internal,
                }
            }
        }
    };
}

codes! {
    /// A config file does not compile.
    ConfigInvalid = "config.invalid", InvalidInput;
    /// A config file is over the size limit.
    ConfigTooLarge = "config.too_large", InvalidInput;
    /// A personalised config whose signature is not its manager's.
    ConfigForged = "config.forged", Denied;
    /// A personalised config for another recipient.
    ConfigForeign = "config.foreign", Denied;
    /// A personalised config whose serial is not higher than the one in force.
    ConfigStale = "config.stale", Conflict;
    /// No config has arrived from the manager yet.
    ConfigMissing = "config.missing", NotFound;
    /// `cluster.toml` and `machine.toml` in one cluster directory.
    ConfigTwoRoles = "config.two_roles", Conflict;
    /// An address that cannot be read.
    AddressInvalid = "address.invalid", InvalidInput;
    /// No cluster of this home has that name.
    AddressUnknownCluster = "address.unknown_cluster", NotFound;
    /// The cluster has no such machine, or this device may not know it.
    AddressUnknownMachine = "address.unknown_machine", NotFound;
    /// A name that breaks the rules for names.
    NameInvalid = "name.invalid", InvalidInput;
    /// An alias of `malai.toml` that is a reserved word.
    AliasReserved = "alias.reserved", InvalidInput;
    /// The target's config does not let the caller do this.
    AclDenied = "acl.denied", Denied;
    /// A right was taken away while it was in use.
    AclRevoked = "acl.revoked", Denied;
    /// The text is no invite.
    InviteInvalid = "invite.invalid", InvalidInput;
    /// The invite's token is wrong, or the invite is unknown.
    InviteUnknown = "invite.unknown", Denied;
    /// The invite's time is over.
    InviteExpired = "invite.expired", Denied;
    /// The invite was used as often as it may be.
    InviteUsedUp = "invite.used_up", Denied;
    /// The manager revoked the invite.
    InviteRevoked = "invite.revoked", Denied;
    /// The answer to a join is not signed by the root that it names.
    InviteForged = "invite.forged", Denied;
    /// A rule of the cluster says `*`, so an invite would hand out rights.
    InviteOpenRule = "invite.open_rule", Denied;
    /// The manager's `cluster.toml` does not compile, so the join waits.
    InvitePending = "invite.pending", Busy;
    /// Too many failed attempts: wait.
    PeerLockedOut = "peer.locked_out", Busy;
    /// The peer could not be reached.
    PeerUnreachable = "p2p.unreachable", Unreachable;
    /// The peer does not know this identity, or grants it nothing.
    PeerNotAdmitted = "p2p.not_admitted", Denied;
    /// The peer speaks no version of the protocol that this one speaks.
    PeerIncompatible = "p2p.incompatible", Incompatible;
    /// The connection was lost.
    PeerLost = "p2p.lost", Unreachable;
    /// The network could not be set up on this device.
    PeerBind = "p2p.bind", Unreachable;
    /// A peer broke the protocol: a malformed or oversized frame, exceeded credit, a stall.
    WireMalformed = "wire.malformed", InvalidInput;
    /// A peer asked for something that this version does not know.
    WireUnsupported = "wire.unsupported", Incompatible;
    /// A limit on sessions, streams or sizes is reached.
    LimitReached = "limit.reached", Busy;
    /// The program was not found on the target.
    CommandNotFound = "command.not_found", NotFound;
    /// The program may not be executed on the target.
    CommandNotExecutable = "command.not_executable", Denied;
    /// The command names a user that the daemon may not switch to.
    CommandUser = "command.user", Denied;
    /// The process could not be started or watched.
    CommandFailed = "command.failed", Internal;
    /// This build cannot run commands of others.
    CommandUnsupported = "command.unsupported", Incompatible;
    /// The caller has no such session on that machine, or there is more than one to choose from.
    SessionUnknown = "session.unknown", NotFound;
    /// The session's process could not be started or does not answer.
    SessionFailed = "session.failed", Internal;
    /// The service does not answer on the machine that hosts it.
    ServiceUnreachable = "service.unreachable", Unreachable;
    /// A stream that was to be resumed is not kept any more.
    StreamUnknown = "stream.unknown", NotFound;
    /// A file or directory could not be read or written while copying.
    CopyStorage = "copy.storage", Storage;
    /// A name that would lead out of the destination.
    CopyOutside = "copy.outside", Denied;
    /// What arrived is not what was sent, or the source changed meanwhile.
    CopyMismatch = "copy.mismatch", Conflict;
    /// The other side of a copy said something that does not belong here.
    CopyProtocol = "copy.protocol", Incompatible;
    /// Some of many targets failed.
    RunSomeFailed = "run.some_failed", Internal;
    /// The audit log cannot be read, or not be written and the device requires it.
    AuditFailed = "audit.failed", Storage;
    /// The home directory or a file in it cannot be read or written.
    HomeStorage = "home.storage", Storage;
    /// A key file or directory that others may read.
    HomeLoosePermissions = "home.loose_permissions", Denied;
    /// Another process holds the home's lock.
    HomeLocked = "home.locked", Busy;
    /// The home has no such cluster.
    HomeUnknownCluster = "home.unknown_cluster", NotFound;
    /// The home has a cluster of that name already.
    HomeClusterExists = "home.cluster_exists", Conflict;
    /// A private key is missing.
    KeyMissing = "key.missing", NotFound;
    /// A private key cannot be read.
    KeyInvalid = "key.invalid", InvalidInput;
    /// Only the cluster's manager can do this.
    RoleNotManager = "role.not_manager", Denied;
    /// No daemon runs for this home.
    DaemonAbsent = "daemon.absent", NotFound;
    /// The daemon did not answer, or not in a way that this version knows.
    DaemonUnanswered = "daemon.unanswered", Unreachable;
    /// The daemon runs already.
    DaemonRunning = "daemon.running", Busy;
    /// It took longer than allowed.
    Timeout = "timeout", Timeout;
    /// It was cancelled.
    Cancelled = "cancelled", Cancelled;
    /// The command line or a parameter cannot be used.
    Usage = "usage", InvalidInput;
    /// A defect of malai's own.
    Internal = "internal", Internal;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ErrorCode {
    type Err = std::convert::Infallible;

    /// Never fails: a code of a newer peer is [`ErrorCode::Unknown`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::ALL.iter().copied().find(|code| code.as_str() == text).unwrap_or(Self::Unknown))
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Ok(text.parse().unwrap_or(Self::Unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_back_and_a_newer_one_is_unknown() {
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse::<ErrorCode>(), Ok(*code));
        }
        assert_eq!("later.thing".parse::<ErrorCode>(), Ok(ErrorCode::Unknown));
    }

    #[test]
    fn the_guide_lists_every_code_with_its_kind() {
        let guide = include_str!("../../../docs/guide/errors.md");
        for code in ErrorCode::ALL {
            let kind = serde_json::to_value(code.kind()).expect("is a text");
            let row = format!("| `{code}` | {} |", kind.as_str().expect("is a text"));
            assert!(guide.contains(&row), "docs/guide/errors.md lacks {row}");
        }
    }

    #[test]
    fn the_table_is_stable() {
        let table: Vec<String> =
            ErrorCode::ALL.iter().map(|code| format!("{code:<26} {:?}", code.kind())).collect();
        insta::assert_snapshot!(table.join("\n"));
    }
}
