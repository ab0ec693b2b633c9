//! Checking a chain from its first line to its last.

use super::chain::{Head, RecordDigest, read_head};

/// Checks lines one by one, in their order, over any number of files. The first break is kept.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    head: Option<Head>,
    first: Option<u64>,
    lines: u64,
    broken: Option<Break>,
    breaks: u64,
    torn: bool,
}

/// Where a chain breaks first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// How many lines come before it.
    pub after: u64,
    /// The number that the line says, if it can be read.
    pub seq: Option<u64>,
    /// What is wrong.
    pub kind: BreakKind,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BreakKind {
    /// The line before is not the one that it was written after: that one was changed, or lines were removed, added or
    /// moved.
    #[error("it was written after a line with the digest {found}, and the line before has {expected}")]
    Digest {
        /// The digest of the line before.
        expected: RecordDigest,
        /// What this line carries.
        found: RecordDigest,
    },
    /// Numbers are missing, or come twice.
    #[error("its number is {found} where {expected} should be")]
    Sequence {
        /// The number that comes next.
        expected: u64,
        /// The number that it has.
        found: u64,
    },
    /// The first line of all has the number 1 and yet carries a digest, or the other way round.
    #[error("it says that it is the first and carries the digest of another line, or the other way round")]
    Beginning,
    /// It is no record.
    #[error("{0}")]
    Unreadable(String),
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    /// How many lines there are.
    pub lines: u64,
    /// The number of the first one; more than 1 if older files are gone.
    pub first: Option<u64>,
    /// The end of the chain: whoever keeps it elsewhere can tell later whether it is still part of it.
    pub head: Option<Head>,
    /// The first break.
    pub broken: Option<Break>,
    /// How many there are.
    pub breaks: u64,
    /// The last line has no line break: a write was cut off, and whoever writes next removes it. No break.
    pub torn: bool,
}

impl Verifier {
    /// Makes a check that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next line, without its line break.
    pub fn line(&mut self, line: &[u8]) {
        let after = self.lines;
        self.lines += 1;
        let digest = RecordDigest::of(line);
        let read = match read_head(line) {
            Ok(read) => read,
            Err(problem) => {
                self.broken_at(after, None, BreakKind::Unreadable(problem.to_string()));
                // The next line was written after this one, whatever it said.
                let seq = self.head.map_or(1, |head| head.seq.saturating_add(1));
                self.first.get_or_insert(seq);
                self.head = Some(Head { seq, digest });
                return;
            }
        };
        let problem = match self.head {
            Some(before) if read.prev != before.digest => {
                Some(BreakKind::Digest { expected: before.digest, found: read.prev })
            }
            Some(before) if read.seq != before.seq.saturating_add(1) => {
                Some(BreakKind::Sequence { expected: before.seq.saturating_add(1), found: read.seq })
            }
            Some(_) => None,
            None if (read.seq == 1) != (read.prev == RecordDigest::NONE) || read.seq == 0 => {
                Some(BreakKind::Beginning)
            }
            None => None,
        };
        if let Some(kind) = problem {
            self.broken_at(after, Some(read.seq), kind);
        }
        self.first.get_or_insert(read.seq);
        self.head = Some(Head { seq: read.seq, digest });
    }

    /// Notes that a line without a line break ends the last file.
    pub fn torn_end(&mut self) {
        self.torn = true;
    }

    /// The last line so far.
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// Whether a break was found so far.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Ends the check.
    pub fn finish(self) -> ChainReport {
        ChainReport {
            lines: self.lines,
            first: self.first,
            head: self.head,
            broken: self.broken,
            breaks: self.breaks,
            torn: self.torn,
        }
    }

    fn broken_at(&mut self, after: u64, seq: Option<u64>, kind: BreakKind) {
        self.breaks += 1;
        self.broken.get_or_insert(Break { after, seq, kind });
    }
}
