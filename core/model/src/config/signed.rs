//! The signature under a personalised config.
//!
//! It is made over the exact bytes before the line `[signature]`, and checked before anything else of the text is read.

use sha2::{Digest as _, Sha256};

use super::document::MAX_CONFIG_BYTES;
use super::machine::{MachineConfig, compile_machine};
use super::problem::ConfigProblems;
use crate::code::ErrorCode;
use crate::diagnostic::Diagnostic;
use crate::id::{Id52, SecretKey, SignatureContext};

const HEADER: &str = "\n[signature]\n";

/// Why a personalised config is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedConfigProblem {
    /// The signature is missing, broken or somebody else's.
    #[error("the config is not signed by the manager {manager}")]
    Forged {
        /// Who should have signed it.
        manager: Id52,
    },
    /// It is for another machine.
    #[error("the config is for {recipient}, not for this machine")]
    Foreign {
        /// Whom it is for.
        recipient: Id52,
    },
    /// Its serial is not higher than that of the config in force.
    #[error("the config has the serial {serial}, and {newest} is in force")]
    Stale {
        /// Its serial.
        serial: u64,
        /// The serial in force.
        newest: u64,
    },
    /// The manager signed it, but it does not compile.
    #[error("the manager's config does not compile")]
    Invalid(#[source] ConfigProblems),
    /// It is over [`MAX_CONFIG_BYTES`].
    #[error("the config has {0} bytes, and the limit is {MAX_CONFIG_BYTES}")]
    TooLarge(usize),
}

impl SignedConfigProblem {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Forged { .. } => ErrorCode::ConfigForged,
            Self::Foreign { .. } => ErrorCode::ConfigForeign,
            Self::Stale { .. } => ErrorCode::ConfigStale,
            Self::Invalid(problems) => problems.code(),
            Self::TooLarge(_) => ErrorCode::ConfigTooLarge,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Forged { .. } => {
                "if the cluster's root was rotated, let this machine hear of it from its manager"
            }
            Self::Foreign { .. } => return None,
            Self::Stale { .. } => "the manager goes on above the serial that is in force",
            Self::Invalid(_) => "update malai on the manager and on this machine",
            Self::TooLarge(_) => "let this machine reach less",
        };
        Some(hint.to_owned())
    }
}

/// A personalised config that may be put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedConfig {
    /// What it says.
    pub config: MachineConfig,
    /// What is odd about it: keys of a newer manager, whose rules deny.
    pub warnings: Vec<Diagnostic>,
    /// Hex SHA-256 of the exact text, as [`crate::wire::ConfigHave`] has it.
    pub digest: String,
}

/// Decides whether a personalised config may be put in force: signed by the pinned manager, for this machine, newer than
/// what is in force (`None`: nothing is), and understood. It is looked at in this order, and the signature before any
/// other byte is read.
///
/// # Errors
/// [`SignedConfigProblem`]; what is in force stays.
pub fn verify_signed(
    text: &str,
    expected_manager: &Id52,
    recipient: &Id52,
    newer_than: Option<u64>,
) -> Result<SignedConfig, SignedConfigProblem> {
    if text.len() > MAX_CONFIG_BYTES {
        return Err(SignedConfigProblem::TooLarge(text.len()));
    }
    let signed = check_signature(text, expected_manager)?;
    let (config, warnings) =
        compile_machine("machine.toml", signed).into_result().map_err(SignedConfigProblem::Invalid)?;
    if config.recipient().id52 != *recipient {
        return Err(SignedConfigProblem::Foreign { recipient: config.recipient().id52 });
    }
    // The text names its manager a second time; a root that signs for another cluster has lost its way.
    if config.manager().id52 != *expected_manager {
        return Err(SignedConfigProblem::Forged { manager: *expected_manager });
    }
    let serial = config.recipient().serial;
    if let Some(newest) = newer_than.filter(|newest| serial <= *newest) {
        return Err(SignedConfigProblem::Stale { serial, newest });
    }
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
    Ok(SignedConfig { config, warnings, digest })
}

/// Hex SHA-256 of the next root's 32 public bytes: what a config commits to.
pub fn root_digest(next_root: &Id52) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(next_root.as_bytes()))
}

/// Hex SHA-256 of a config's exact text, as [`crate::wire::ConfigHave`] has it.
pub fn text_digest(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

/// Gives the text to be appended to `body`, which has to end in a line break.
pub(super) fn signature_block(root: &SecretKey, body: &[u8]) -> String {
    let value = root.sign(&SignatureContext::MACHINE_CONFIG, body);
    block_text(&root.id52().to_string(), &data_encoding::HEXLOWER.encode(&value))
}

fn block_text(root: &str, value: &str) -> String {
    format!("{}root = \"{root}\"\nvalue = \"{value}\"\n", &HEADER[1..])
}

/// Checks that a text was signed by `manager`, and returns the bytes that it signed. Nothing else of it is read: the
/// text may be for another machine, old, or no config at all.
///
/// # Errors
/// [`SignedConfigProblem::Forged`], whatever is wrong with the signature.
pub fn check_signature<'a>(text: &'a str, manager: &Id52) -> Result<&'a str, SignedConfigProblem> {
    let forged = || SignedConfigProblem::Forged { manager: *manager };
    let (signed, root, signature) = split(text).ok_or_else(forged)?;
    if root == *manager && manager.verify(&SignatureContext::MACHINE_CONFIG, signed.as_bytes(), &signature) {
        Ok(signed)
    } else {
        Err(forged())
    }
}

/// Takes a text apart into the signed bytes and the signature.
///
/// The block has one form, byte for byte, and is the end of the file: nothing can stand behind it, and a second one, or
/// one inside a string, is part of the signed bytes of the last.
fn split(text: &str) -> Option<(&str, Id52, [u8; 64])> {
    let at = text.rfind(HEADER)? + 1;
    let (signed, block) = text.split_at(at);
    let mut lines = block.lines().skip(1);
    let root = lines.next()?.strip_prefix("root = \"")?.strip_suffix('"')?;
    let value = lines.next()?.strip_prefix("value = \"")?.strip_suffix('"')?;
    if block != block_text(root, value) {
        return None;
    }
    let signature = data_encoding::HEXLOWER.decode(value.as_bytes()).ok()?.try_into().ok()?;
    Some((signed, root.parse().ok()?, signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_bytes(&[n; 32])
    }

    fn signed(body: &str) -> String {
        format!("{body}{}", signature_block(&key(1), body.as_bytes()))
    }

    fn check(text: &str) -> Result<&str, SignedConfigProblem> {
        check_signature(text, &key(1).id52())
    }

    fn forged<'a>() -> Result<&'a str, SignedConfigProblem> {
        Err(SignedConfigProblem::Forged { manager: key(1).id52() })
    }

    #[test]
    fn a_signed_text_gives_its_exact_bytes() {
        assert_eq!(check(&signed("a = 1\n")), Ok("a = 1\n"));
    }

    #[test]
    fn another_signer_is_refused() {
        assert_eq!(check_signature(&signed("a = 1\n"), &key(2).id52()).map_err(|p| p.code()), {
            Err(ErrorCode::ConfigForged)
        });
        let swapped = signed("a = 1\n").replace(&key(1).id52().to_string(), &key(2).id52().to_string());
        assert_eq!(check(&swapped), forged());
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let text = signed("a = 1\n");
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert_eq!(check(&changed), forged(), "byte {at}");
            }
        }
    }

    #[test]
    fn nothing_stands_behind_the_signature() {
        let text = signed("a = 1\n");
        for more in ["\n", " ", "# x", "b = 2\n", "[machine.x]\n", "\u{feff}"] {
            assert_eq!(check(&format!("{text}{more}")), forged(), "{more:?}");
        }
        assert_eq!(check(text.trim_end()), forged());
        assert_eq!(check(&text.replace('\n', "\r\n")), forged());
        assert_eq!(check(&text.to_uppercase()), forged());
    }

    #[test]
    fn of_two_signatures_the_last_covers_the_first() {
        let once = signed("a = 1\n");
        assert_eq!(check(&signed(&once)), Ok(once.as_str()));
        // A valid text in front of a signature over something else.
        let other = signature_block(&key(1), b"b = 2\n");
        assert_eq!(check(&format!("{once}{other}")), forged());
        assert_eq!(check(&format!("b = 2\n{other}{other}")), forged());
    }

    #[test]
    fn a_signature_within_a_string_is_text() {
        let block = signature_block(&key(1), b"a = 1\n");
        let body = format!("a = 1\nb = \"\"\"\n{block}\"\"\"\n");
        assert_eq!(check(&body), forged());
        assert_eq!(check(&signed(&body)), Ok(body.as_str()));
    }

    #[test]
    fn a_text_without_signature_is_refused() {
        for text in
            ["", "[signature]\n", "a = 1\n", "\n[signature]\n", "x\n[signature]\nroot = \"\"\nvalue = \"\"\n"]
        {
            assert_eq!(check(text), forged(), "{text:?}");
        }
    }
}
