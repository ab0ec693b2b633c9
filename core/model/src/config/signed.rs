//! The signature under a personalised config.
//!
//! It is made over the exact bytes before the line `[signature]`, and checked before anything else of the text is read.

use crate::code::ErrorCode;
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
}

impl SignedConfigProblem {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Forged { .. } => ErrorCode::ConfigForged,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Forged { .. } => Some(
                "if the cluster's root was rotated, let this machine hear of it from its manager".to_owned(),
            ),
        }
    }
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
