//! Looking on while bytes of a copy are passed from one machine to another.

use std::sync::{Arc, Mutex, PoisonError};

use malai_model::code::ErrorCode;
use malai_model::wire::copy::lanes::is_lane_word;
use malai_model::wire::copy::{
    CopyRole, DIGEST, Frame, HEADER, SinkTotals, decode_head, decode_payload, is_data,
};

use super::observe::Tally;
use super::roots::{RootGuard, Roots};
use super::source::problem_of;
use super::{CopyError, CopyObserver};

/// What both directions tell.
struct Seen {
    tally: Tally,
    totals: Option<SinkTotals>,
    source_problems: u64,
    fatal: Option<(CopyRole, ErrorCode, String)>,
}

/// Reads along in one direction. A clone hears the same, once it has been seen. Nothing is held back or changed.
#[derive(Clone)]
pub struct CopyWatch {
    from: CopyRole,
    seen: Arc<Mutex<Seen>>,
    head: Vec<u8>,
    payload: Vec<u8>,
    /// The kind of the frame that is being read, and how many of its bytes are still to come.
    frame: Option<(u8, usize)>,
    /// Of a source: what it may announce.
    guard: Option<RootGuard>,
}

impl std::fmt::Debug for CopyWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyWatch").field("from", &self.from).finish_non_exhaustive()
    }
}

impl CopyWatch {
    /// Makes one for what the source says, which was asked for certain roots, and one for what the sink says.
    pub fn pair(observer: Arc<dyn CopyObserver>, roots: Roots) -> (Self, Self) {
        let seen = Seen { tally: Tally::new(observer), totals: None, source_problems: 0, fatal: None };
        let seen = Arc::new(Mutex::new(seen));
        let watch = |from, guard| {
            let seen = seen.clone();
            Self { from, seen, head: vec![], payload: vec![], frame: None, guard }
        };
        (watch(CopyRole::Source, Some(RootGuard::new(roots))), watch(CopyRole::Sink, None))
    }

    /// Looks at the next bytes of its direction.
    ///
    /// # Errors
    /// When they are no copy's, or announce what the source was not asked for: then they are not to be passed on.
    pub fn see(&mut self, mut bytes: &[u8]) -> Result<(), CopyError> {
        loop {
            let Some((kind, left)) = self.frame else {
                let count = bytes.len().min(HEADER - self.head.len());
                self.head.extend_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                let Some(head) = self.head.first_chunk::<HEADER>() else { return Ok(()) };
                let (kind, left) = decode_head(*head).map_err(CopyError::Malformed)?;
                // Such words were taken out on the way here. One that is left would change at the other end what follows
                // means, and there would be two readings of the same bytes.
                if is_lane_word(kind) {
                    return Err(CopyError::OutOfTurn("a word about streams within the copy"));
                }
                self.frame = Some((kind, left));
                self.head.clear();
                self.payload.clear();
                continue;
            };
            let count = bytes.len().min(left);
            // Of bulk, only that it came matters.
            if is_data(kind) {
                self.moved(count);
            } else {
                self.payload.extend_from_slice(&bytes[..count]);
            }
            bytes = &bytes[count..];
            if count < left {
                self.frame = Some((kind, left - count));
                return Ok(());
            }
            self.frame = None;
            if !is_data(kind) {
                let frame = decode_payload(kind, &self.payload).map_err(CopyError::Malformed)?;
                if let Some(guard) = &mut self.guard {
                    guard.see(&frame)?;
                }
                note(&self.seen, self.from, &frame);
            } else if let Ok(mut seen) = self.seen.lock() {
                let progress = &mut seen.tally.progress;
                progress.done_bytes = progress.done_bytes.saturating_sub(DIGEST as u64);
                progress.moved_bytes = progress.moved_bytes.saturating_sub(DIGEST as u64);
            }
        }
    }

    /// What the sink has said that it did, and how many problems the source had, once it is over.
    pub fn outcome(&self) -> Option<(SinkTotals, u64)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.totals.map(|totals| (totals, seen.source_problems))
    }

    /// The failure that one end gave up with.
    pub fn failure(&self) -> Option<CopyError> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, code, message) = seen.fatal.as_ref()?;
        Some(CopyError::Peer { code: *code, message: message.clone() })
    }

    fn moved(&self, count: usize) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.tally.progress.moved_bytes += count as u64;
        seen.tally.progress.done_bytes += count as u64;
        seen.tally.tell(|| None);
    }
}

fn note(seen: &Mutex<Seen>, from: CopyRole, frame: &Frame<'_>) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match (from, frame) {
        (CopyRole::Source, Frame::File { name, meta }) => {
            seen.tally.progress.named_files += 1;
            let progress = &mut seen.tally.progress;
            progress.named_bytes = progress.named_bytes.saturating_add(meta.size);
            seen.tally.tell(|| Some(String::from_utf8_lossy(name).into_owned()));
        }
        (CopyRole::Source, Frame::Begin { offset, .. }) => {
            let progress = &mut seen.tally.progress;
            progress.done_bytes = progress.done_bytes.saturating_add(*offset);
        }
        (CopyRole::Source, Frame::End { .. } | Frame::Same { .. }) | (CopyRole::Sink, Frame::Have { .. }) => {
            seen.tally.progress.done_files += 1;
        }
        (CopyRole::Source, Frame::Done { problems }) => seen.source_problems = *problems,
        (CopyRole::Sink, Frame::Finished(totals)) => {
            seen.totals = Some(*totals);
            seen.tally.tell_now();
        }
        (_, Frame::Problem { code, path, message }) => {
            seen.tally.problem(&problem_of(from, code, path, message));
        }
        (_, Frame::Fatal { code, message }) => {
            let code = code.parse().unwrap_or(ErrorCode::Unknown);
            seen.fatal.get_or_insert_with(|| (from, code, (*message).to_owned()));
        }
        _ => {}
    }
}
