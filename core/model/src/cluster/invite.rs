//! The invite as a person sees it: one word that holds an identity to dial, a secret and some addresses.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_DNSSEC;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::code::ErrorCode;
use crate::id::Id52;

const PREFIX: &str = "malai-";
/// The first form. Another character means another form, which an older malai cannot read.
const VERSION: char = '1';
const CHECKSUM: usize = 4;
/// The length of the hints, the id52, the token.
const FIXED: usize = 2 + 32 + 16;

/// The secret of an invite: 128 bits. It is wiped when dropped and compared in constant time; `Debug` prints nothing of it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Token([u8; 16]);

impl Token {
    /// Takes 16 random bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Reads the 32 hex digits of a [`crate::wire::JoinRequest`]. `None` if it is anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = zeroize::Zeroizing::new(data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?);
        Some(Self(<[u8; 16]>::try_from(bytes.as_slice()).ok()?))
    }

    /// Gives the 32 hex digits for a [`crate::wire::JoinRequest`]. The caller keeps them secret.
    pub fn to_hex(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(data_encoding::HEXLOWER.encode(&self.0))
    }

    /// Gives what the manager keeps of it: hex SHA-256. 128 random bits need no salt and no slow hash.
    pub fn hash(&self) -> String {
        data_encoding::HEXLOWER.encode(&Sha256::digest(self.0))
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(&self.0[..], &other.0[..]).into()
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// An invite: whom to dial, the secret to show, and where it may be found.
///
/// [`Invite::to_word`] gives its text, and `parse` reads it; whoever has the text can join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    id52: Id52,
    token: Token,
    hints: Vec<String>,
}

/// Why a text is no invite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteTextProblem {
    /// It begins otherwise.
    #[error("an invite begins with `malai-`")]
    Prefix,
    /// A form that this version cannot read.
    #[error("the invite has the form {0:?}, which this version of malai does not know")]
    Newer(char),
    /// Characters are missing at the end.
    #[error("the invite is cut off: it has {found} characters, and needs {wanted}")]
    Truncated {
        /// How many there are.
        found: usize,
        /// How many there should be, as far as that can be read.
        wanted: usize,
    },
    /// Something stands behind it.
    #[error("the invite has {0} characters too many")]
    TooLong(usize),
    /// A character that no invite has.
    #[error("no invite has the character {0:?}")]
    Character(char),
    /// The checksum does not fit: a character is wrong somewhere.
    #[error("the invite is mistyped")]
    Mistyped,
    /// An address hint that cannot be used.
    #[error("the address hint {0:?} is not of the form host:port")]
    Hint(String),
    /// More address hints than an invite holds.
    #[error("an invite holds at most {max} address hints, not {0}", max = Invite::MAX_HINTS)]
    TooManyHints(usize),
}

impl InviteTextProblem {
    /// The stable code: `invite.invalid`.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::InviteInvalid
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Newer(_) => "update malai on this machine",
            Self::Hint(_) | Self::TooManyHints(_) => return None,
            _ => "copy the whole word that `malai cluster create-invite` printed",
        };
        Some(hint.to_owned())
    }
}

impl Invite {
    /// How many addresses an invite holds at most.
    pub const MAX_HINTS: usize = 16;

    /// Puts an invite together. Hints are `host:port`, or socket addresses, which are stored compactly.
    ///
    /// # Errors
    /// [`InviteTextProblem::Hint`] and [`InviteTextProblem::TooManyHints`].
    pub fn new(id52: Id52, token: Token, hints: Vec<String>) -> Result<Self, InviteTextProblem> {
        if hints.len() > Self::MAX_HINTS {
            return Err(InviteTextProblem::TooManyHints(hints.len()));
        }
        let hints = hints.into_iter().map(canonical_hint).collect::<Result<_, _>>()?;
        Ok(Self { id52, token, hints })
    }

    /// The identity to dial: the invite's own, not the cluster's root.
    pub fn id52(&self) -> &Id52 {
        &self.id52
    }

    /// The secret.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Where it may be found, `host:port`.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Gives the invite as one word, lower case. It is as secret as the token; wiped when dropped.
    pub fn to_word(&self) -> zeroize::Zeroizing<String> {
        let hints: Vec<u8> = self.hints.iter().flat_map(|hint| encode_hint(hint)).collect();
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(FIXED + hints.len() + CHECKSUM));
        // Sixteen hints of at most 257 bytes each always fit.
        bytes.extend_from_slice(&(hints.len() as u16).to_be_bytes());
        bytes.extend_from_slice(self.id52.as_bytes());
        bytes.extend_from_slice(&self.token.0);
        bytes.extend_from_slice(&hints);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let mut word = zeroize::Zeroizing::new(format!("{PREFIX}{VERSION}"));
        BASE32_DNSSEC.encode_append(&bytes, &mut word);
        word
    }
}

impl FromStr for Invite {
    type Err = InviteTextProblem;

    /// Reads an invite; upper case and surrounding blanks do not matter.
    fn from_str(text: &str) -> Result<Self, InviteTextProblem> {
        let text = zeroize::Zeroizing::new(text.trim().to_ascii_lowercase());
        let mut rest = text.strip_prefix(PREFIX).ok_or(InviteTextProblem::Prefix)?.chars();
        match rest.next() {
            Some(VERSION) => {}
            Some(other) => return Err(InviteTextProblem::Newer(other)),
            None => {
                return Err(InviteTextProblem::Truncated { found: text.len(), wanted: word_len(0) });
            }
        }
        let encoded = rest.as_str();
        if let Some(other) = encoded.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='v')) {
            return Err(InviteTextProblem::Character(other));
        }
        let length = |hints: usize| word_len(hints) - PREFIX.len() - 1;
        let truncated = |wanted| InviteTextProblem::Truncated { found: text.len(), wanted };
        if encoded.len() < length(0) {
            return Err(truncated(word_len(0)));
        }
        // The first 8 characters are 5 bytes; the first two say how long the rest is.
        let start =
            BASE32_DNSSEC.decode(&encoded.as_bytes()[..8]).map_err(|_| InviteTextProblem::Mistyped)?;
        let hints_len = usize::from(u16::from_be_bytes([start[0], start[1]]));
        if hints_len > Self::MAX_HINTS * 257 {
            return Err(InviteTextProblem::Mistyped);
        }
        match encoded.len().cmp(&length(hints_len)) {
            std::cmp::Ordering::Less => return Err(truncated(word_len(hints_len))),
            std::cmp::Ordering::Greater => {
                return Err(InviteTextProblem::TooLong(encoded.len() - length(hints_len)));
            }
            std::cmp::Ordering::Equal => {}
        }
        let bytes = BASE32_DNSSEC.decode(encoded.as_bytes()).map_err(|_| InviteTextProblem::Mistyped)?;
        let bytes = zeroize::Zeroizing::new(bytes);
        let (content, sum) = bytes.split_at(FIXED + hints_len);
        if checksum(content) != sum {
            return Err(InviteTextProblem::Mistyped);
        }
        let mut id52 = [0; 32];
        id52.copy_from_slice(&content[2..34]);
        let mut token = Token([0; 16]);
        token.0.copy_from_slice(&content[34..FIXED]);
        let id52 = Id52::from_bytes(id52).map_err(|_| InviteTextProblem::Mistyped)?;
        Self::new(id52, token, decode_hints(&content[FIXED..])?)
    }
}

/// The characters of a word whose hints take so many bytes.
fn word_len(hints: usize) -> usize {
    PREFIX.len() + 1 + ((FIXED + hints + CHECKSUM) * 8).div_ceil(5)
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(b"malai invite v1\0").chain_update(content).finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

const TAG_NAME: u8 = 0;
const TAG_V4: u8 = 4;
const TAG_V6: u8 = 6;

/// The text that a hint has after a journey through an invite.
fn canonical_hint(hint: String) -> Result<String, InviteTextProblem> {
    if let Ok(address) = hint.parse::<core::net::SocketAddr>() {
        return Ok(address.to_string());
    }
    let good = hint.rsplit_once(':').is_some_and(|(host, port)| {
        let host_character = |c: char| c.is_ascii_graphic() && !"\"'\\/@,".contains(c);
        !host.is_empty()
            && hint.len() <= 255
            && host.chars().all(host_character)
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if good { Ok(hint) } else { Err(InviteTextProblem::Hint(hint)) }
}

/// Tag, length, bytes: a reader skips tags that it does not know.
fn encode_hint(hint: &str) -> Vec<u8> {
    let (tag, bytes) = match hint.parse::<core::net::SocketAddr>() {
        Ok(core::net::SocketAddr::V4(address)) => {
            (TAG_V4, [&address.ip().octets()[..], &address.port().to_be_bytes()].concat())
        }
        // A scope or a flow label means something on one device only, and has no place in the compact form.
        Ok(core::net::SocketAddr::V6(address)) if address.scope_id() == 0 && address.flowinfo() == 0 => {
            (TAG_V6, [&address.ip().octets()[..], &address.port().to_be_bytes()].concat())
        }
        _ => (TAG_NAME, hint.as_bytes().to_vec()),
    };
    [&[tag, bytes.len() as u8][..], &bytes].concat()
}

fn decode_hints(mut bytes: &[u8]) -> Result<Vec<String>, InviteTextProblem> {
    let mut hints = Vec::new();
    while let [tag, length, rest @ ..] = bytes {
        let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else {
            return Err(InviteTextProblem::Mistyped);
        };
        bytes = rest;
        match *tag {
            TAG_NAME => {
                let text = std::str::from_utf8(value).map_err(|_| InviteTextProblem::Mistyped)?;
                hints.push(text.to_owned());
            }
            TAG_V4 | TAG_V6 => hints.push(socket_address(value).ok_or(InviteTextProblem::Mistyped)?),
            _ => {}
        }
    }
    if bytes.is_empty() { Ok(hints) } else { Err(InviteTextProblem::Mistyped) }
}

fn socket_address(bytes: &[u8]) -> Option<String> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip: core::net::IpAddr = match ip.len() {
        4 => <[u8; 4]>::try_from(ip).ok()?.into(),
        16 => <[u8; 16]>::try_from(ip).ok()?.into(),
        _ => return None,
    };
    Some(core::net::SocketAddr::new(ip, u16::from_be_bytes(*port)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SecretKey;

    fn invite(hints: &[&str]) -> Invite {
        let hints = hints.iter().map(|hint| (*hint).to_owned()).collect();
        Invite::new(SecretKey::from_bytes(&[5; 32]).id52(), Token::from_bytes([9; 16]), hints)
            .expect("good hints")
    }

    fn read(text: &str) -> Result<Invite, InviteTextProblem> {
        text.parse()
    }

    #[test]
    fn a_word_reads_back() {
        let hints =
            ["1.2.3.4:4242", "[2001:db8::1]:80", "web01.example.com:4242", "[fe80::1%3]:80", "0.0.0.0:0"];
        for invite in [invite(&[]), invite(&hints), invite(&["h:1"; Invite::MAX_HINTS])] {
            let word = invite.to_word();
            assert_eq!(read(&word), Ok(invite.clone()));
            assert_eq!(read(&format!("  {}\n", word.to_uppercase())), Ok(invite));
            assert!(
                word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{}",
                *word
            );
        }
    }

    #[test]
    fn an_invite_with_two_addresses_is_short_enough_to_read_out() {
        let word = invite(&["192.168.1.10:4242", "[2001:db8::1]:4242"]).to_word();
        assert_eq!(word.len(), 139);
    }

    #[test]
    fn a_cut_word_is_told_from_a_mistyped_one() {
        let word = invite(&["1.2.3.4:4242"]).to_word();
        for length in PREFIX.len() + 1..word.len() {
            let problem = read(&word[..length]).map_err(|p| matches!(p, InviteTextProblem::Truncated { .. }));
            assert_eq!(problem, Err(true), "{length}");
        }
        assert_eq!(read(&word[..5]), Err(InviteTextProblem::Prefix));
        assert_eq!(read(&format!("{}00", *word)), Err(InviteTextProblem::TooLong(2)));
        assert_eq!(read(&word.replace("malai-1", "malai-2")), Err(InviteTextProblem::Newer('2')));
        assert_eq!(read(&format!("{}z", &word[..word.len() - 1])), Err(InviteTextProblem::Character('z')));
        assert_eq!(read("malai"), Err(InviteTextProblem::Prefix));
        assert_eq!(read("malai-é"), Err(InviteTextProblem::Newer('é')));
    }

    #[test]
    fn every_mistyped_character_is_noticed() {
        let word = invite(&["1.2.3.4:4242"]).to_word();
        for at in PREFIX.len() + 1..word.len() {
            let mut bytes = word.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let text = String::from_utf8(bytes).expect("ASCII");
            assert!(read(&text).is_err(), "{at}");
        }
    }

    #[test]
    fn bad_hints_are_refused() {
        for hint in
            ["", "host", "host:", "host:0", "host:65536", "ho st:1", ":80", "h\u{1b}:1", "host:+1", "a\n:1"]
        {
            let made = Invite::new(
                SecretKey::from_bytes(&[5; 32]).id52(),
                Token::from_bytes([9; 16]),
                vec![hint.to_owned()],
            );
            assert_eq!(made, Err(InviteTextProblem::Hint(hint.to_owned())));
        }
        let many = vec!["h:1".to_owned(); Invite::MAX_HINTS + 1];
        let made = Invite::new(SecretKey::from_bytes(&[5; 32]).id52(), Token::from_bytes([9; 16]), many);
        assert_eq!(made, Err(InviteTextProblem::TooManyHints(17)));
    }

    #[test]
    fn a_hint_of_a_later_kind_is_skipped() {
        let bytes = [&[77, 3, 1, 2, 3][..], &encode_hint("1.2.3.4:5")].concat();
        assert_eq!(decode_hints(&bytes), Ok(vec!["1.2.3.4:5".to_owned()]));
        assert_eq!(decode_hints(&[77, 3, 1]), Err(InviteTextProblem::Mistyped));
    }

    #[test]
    fn debug_prints_nothing_of_the_token() {
        let invite = invite(&[]);
        let printed = format!("{invite:?}");
        assert!(printed.contains("Token(…)"), "{printed}");
        assert!(!printed.contains(&invite.token().to_hex()[..8]), "{printed}");
        assert!(!printed.contains("9, 9"), "{printed}");
    }

    #[test]
    fn a_token_reads_back_from_hex() {
        let token = Token::from_bytes([0xab; 16]);
        assert_eq!(Token::from_hex(&token.to_hex()), Some(token));
        assert_eq!(Token::from_hex("ab"), None);
        assert_eq!(Token::from_hex(&"AB".repeat(16)), None);
    }
}
