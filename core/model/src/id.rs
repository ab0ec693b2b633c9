//! Identities as text and bytes: id52, and the signatures that they make.
//!
//! Not responsible for where keys are kept (`malai-core::identity`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An Ed25519 public key: who a device is in one cluster.
///
/// Its text form is id52: 52 characters of BASE32_DNSSEC, lower case, as the crate `fastn-id52` defines it.
/// Two ids are equal exactly when their keys are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id52([u8; 32]);

/// Why a text or 32 bytes are no id52.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdProblem {
    /// The text is not 52 characters long.
    #[error("an id52 has 52 characters, this has {0}")]
    Length(usize),
    /// A character is not one of `0-9` and `a-v`.
    #[error("an id52 has only the characters 0-9 and a-v")]
    Character,
    /// The bytes are no point on the curve: no key has them.
    #[error("no Ed25519 public key has this text; was it copied whole?")]
    NotAKey,
}

impl Id52 {
    /// The number of characters of the text form.
    pub const TEXT_LEN: usize = 52;

    /// Takes the 32 bytes of a public key.
    ///
    /// # Errors
    /// [`IdProblem::NotAKey`] if they are no point on the curve.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, IdProblem> {
        match fastn_id52::PublicKey::from_bytes(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(IdProblem::NotAKey),
        }
    }

    /// Returns the bytes of the public key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Says whether a text has the shape of an id52: the length and the alphabet, whether or not a key has it.
    ///
    /// Names may not look like one, so that an address is never ambiguous.
    pub fn has_shape(text: &str) -> bool {
        text.len() == Self::TEXT_LEN
            && text.bytes().all(|b| matches!(b.to_ascii_lowercase(), b'0'..=b'9' | b'a'..=b'v'))
    }

    /// Checks that this identity signed `message` in `context`; see [`SecretKey::sign`].
    pub fn verify(&self, context: &SignatureContext, message: &[u8], signature: &[u8; 64]) -> bool {
        let Ok(key) = fastn_id52::PublicKey::from_bytes(&self.0) else { return false };
        let Ok(signature) = fastn_id52::Signature::from_bytes(signature) else { return false };
        key.verify(&context.bind(message), &signature).is_ok()
    }

    /// Returns the first eight characters, for logs and tables where the whole would drown the rest.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl FromStr for Id52 {
    type Err = IdProblem;

    fn from_str(text: &str) -> Result<Self, IdProblem> {
        if text.len() != Self::TEXT_LEN {
            return Err(IdProblem::Length(text.chars().count()));
        }
        if !Self::has_shape(text) {
            return Err(IdProblem::Character);
        }
        let bytes = data_encoding::BASE32_DNSSEC
            .decode(text.to_ascii_lowercase().as_bytes())
            .map_err(|_| IdProblem::NotAKey)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| IdProblem::NotAKey)?;
        Self::from_bytes(bytes)
    }
}

impl fmt::Display for Id52 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::BASE32_DNSSEC.encode(&self.0))
    }
}

impl fmt::Debug for Id52 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id52({self})")
    }
}

impl Serialize for Id52 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id52 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a signature is for: bound into the signed bytes, so that one made for one purpose is worthless for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignatureContext(&'static str);

impl SignatureContext {
    /// A personalised config, signed by the root.
    pub const MACHINE_CONFIG: Self = Self("malai machine config v1");
    /// The answer to a join: the root vouches for the invite that answered.
    pub const JOIN_ACCEPTED: Self = Self("malai join accepted v1");
    /// The hand-over from one root to the next.
    pub const HAND_OVER: Self = Self("malai root hand-over v1");

    fn bind(&self, message: &[u8]) -> Vec<u8> {
        let mut bound = Vec::with_capacity(self.0.len() + 1 + message.len());
        bound.extend_from_slice(self.0.as_bytes());
        // No context holds a zero byte: the boundary is unambiguous.
        bound.push(0);
        bound.extend_from_slice(message);
        bound
    }
}

/// An Ed25519 private key. It is wiped when dropped, and `Debug` prints only whose it is.
pub struct SecretKey(fastn_id52::SecretKey);

impl SecretKey {
    /// Takes the 32 secret bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(fastn_id52::SecretKey::from_bytes(bytes))
    }

    /// Reads the 64 hex digits that `fastn-id52` prints; surrounding white space is ignored. `None` if it is anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes =
            zeroize::Zeroizing::new(data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok()?);
        let mut secret = zeroize::Zeroizing::new([0_u8; 32]);
        if bytes.len() != 32 {
            return None;
        }
        secret.copy_from_slice(&bytes);
        Some(Self::from_bytes(&secret))
    }

    /// Returns the 64 hex digits: the file form. The caller keeps them secret.
    pub fn to_hex(&self) -> zeroize::Zeroizing<String> {
        let bytes = zeroize::Zeroizing::new(self.0.to_bytes());
        zeroize::Zeroizing::new(data_encoding::HEXLOWER.encode(bytes.as_slice()))
    }

    /// Returns the secret bytes, wiped when dropped.
    pub fn to_bytes(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// Returns the identity that this key proves.
    pub fn id52(&self) -> Id52 {
        Id52(self.0.public_key().to_bytes())
    }

    /// Signs `message` for one purpose. Deterministic: Ed25519 takes no randomness.
    pub fn sign(&self, context: &SignatureContext, message: &[u8]) -> [u8; 64] {
        self.0.sign(&context.bind(message)).to_bytes()
    }
}

impl Clone for SecretKey {
    fn clone(&self) -> Self {
        Self::from_bytes(&self.to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.id52().short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_bytes(&[n; 32])
    }

    #[test]
    fn text_is_the_one_that_fastn_id52_prints() {
        let ours = key(7);
        let theirs = fastn_id52::SecretKey::from_bytes(&[7; 32]);
        assert_eq!(ours.id52().to_string(), theirs.id52());
        assert_eq!(*ours.to_hex(), theirs.to_string());
    }

    #[test]
    fn upper_case_is_the_same_identity() {
        let id = key(1).id52();
        assert_eq!(id.to_string().to_uppercase().parse::<Id52>(), Ok(id));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!("abc".parse::<Id52>(), Err(IdProblem::Length(3)));
        assert_eq!("z".repeat(52).parse::<Id52>(), Err(IdProblem::Character));
        assert_eq!("é".repeat(26).parse::<Id52>(), Err(IdProblem::Character));
        assert!("v".repeat(52).parse::<Id52>().is_err());
    }

    #[test]
    fn a_signature_holds_for_its_key_context_and_message_only() {
        let signature = key(1).sign(&SignatureContext::MACHINE_CONFIG, b"text");
        assert!(key(1).id52().verify(&SignatureContext::MACHINE_CONFIG, b"text", &signature));
        assert!(!key(1).id52().verify(&SignatureContext::JOIN_ACCEPTED, b"text", &signature));
        assert!(!key(1).id52().verify(&SignatureContext::MACHINE_CONFIG, b"texT", &signature));
        assert!(!key(2).id52().verify(&SignatureContext::MACHINE_CONFIG, b"text", &signature));
    }

    #[test]
    fn debug_prints_nothing_of_the_secret() {
        let secret = key(9);
        let printed = format!("{secret:?}");
        assert!(!printed.contains(&secret.to_hex()[..8]), "{printed}");
    }

    #[test]
    fn hex_reads_back() {
        let secret = key(3);
        let text = format!("{}\n", *secret.to_hex());
        assert_eq!(SecretKey::from_hex(&text).map(|k| k.id52()), Some(secret.id52()));
        assert!(SecretKey::from_hex("abcd").is_none());
    }
}
