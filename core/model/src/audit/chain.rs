//! The chain: each line carries the digest of the one before.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::event::{AuditRecord, SCHEMA};

/// SHA-256 of a line's exact bytes, without the line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordDigest([u8; 32]);

impl RecordDigest {
    /// What stands before the first line of all.
    pub const NONE: Self = Self([0; 32]);

    /// Digests a line, which has no line break.
    pub fn of(line: &[u8]) -> Self {
        Self(Sha256::digest(line).into())
    }
}

impl fmt::Display for RecordDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl Serialize for RecordDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; 64];
        data_encoding::HEXLOWER.encode_mut(&self.0, &mut text);
        serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for RecordDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("a digest is 64 lower-case hex digits"))
    }
}

/// Where a chain ends: what the next line goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the last line; 0 if there is none.
    pub seq: u64,
    /// Its digest.
    pub digest: RecordDigest,
}

/// Why a text names no end of a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a record is named by its number and its digest, such as 812:9f86d0…, as a check prints it")]
pub struct NotAHead;

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.digest)
    }
}

impl FromStr for Head {
    type Err = NotAHead;

    fn from_str(text: &str) -> Result<Self, NotAHead> {
        let (seq, digest) = text.split_once(':').ok_or(NotAHead)?;
        let bytes = data_encoding::HEXLOWER.decode(digest.as_bytes()).map_err(|_| NotAHead)?;
        let digest = RecordDigest(bytes.try_into().map_err(|_| NotAHead)?);
        Ok(Self { seq: seq.parse().map_err(|_| NotAHead)?, digest })
    }
}

/// A whole line.
#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    seq: u64,
    prev: RecordDigest,
    #[serde(flatten)]
    record: &'a AuditRecord,
}

impl Head {
    /// The head of a chain that has no line yet.
    pub const EMPTY: Self = Self { seq: 0, digest: RecordDigest::NONE };

    /// Writes a record as the next line, its line break too, to the end of `out`. Returns its number, and goes on from
    /// it.
    ///
    /// # Errors
    /// When the record has no form in JSON, which none of ours is. Then nothing has changed.
    pub fn append(&mut self, record: &AuditRecord, out: &mut Vec<u8>) -> Result<u64, serde_json::Error> {
        let begin = out.len();
        let seq = self.seq.saturating_add(1);
        if let Err(error) =
            serde_json::to_writer(&mut *out, &Line { schema: SCHEMA, seq, prev: self.digest, record })
        {
            out.truncate(begin);
            return Err(error);
        }
        *self = Self { seq, digest: RecordDigest::of(&out[begin..]) };
        out.push(b'\n');
        Ok(seq)
    }
}

/// What holds a line in its place. Everything else is the record's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct LineHead {
    /// The version of its form.
    pub schema: u32,
    /// Its number, from 1.
    pub seq: u64,
    /// The digest of the line before.
    pub prev: RecordDigest,
    /// When it happened.
    pub time: Timestamp,
}

/// Why a line is none of the audit log's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// It is no JSON object with the fields that hold it in its place.
    #[error("it is no record: {0}")]
    Malformed(String),
}

/// Reads what holds a line, which has no line break, in its place. Lines of newer versions can be read so, too.
///
/// # Errors
/// [`LineProblem`].
pub fn read_head(line: &[u8]) -> Result<LineHead, LineProblem> {
    serde_json::from_slice(line).map_err(|error| LineProblem::Malformed(error.to_string()))
}
