//! Putting together what came over lanes.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Cursor, Read};

use malai_model::wire::copy::lanes::{LaneWord, decode_block_head, is_lane_word};
use malai_model::wire::copy::{HEADER, decode_head};

use super::LaneHandle;
use super::shared::LaneInput;

/// How much of a bonded main stream is read at once.
const BUFFER: usize = 64 * 1024;

type Heard = Box<dyn FnMut(&LaneHandle, LaneWord) + Send>;

/// Reads frames; what is said about lanes between them it keeps.
pub struct LaneReader<R> {
    handle: LaneHandle,
    heard: Heard,
    main: Main<R>,
}

impl<R> std::fmt::Debug for LaneReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneReader").finish_non_exhaustive()
    }
}

enum Main<R> {
    Plain(R, Frames),
    Bonded(Blocks<R>),
    Closed,
}

/// Goes over frames and takes words about lanes out.
#[derive(Default)]
struct Frames {
    head: [u8; HEADER],
    have: usize,
    left: usize,
    /// The word that is being read.
    word: Option<Vec<u8>>,
    /// What comes are no frames, which others will say.
    strange: bool,
}

/// Blocks, each from the stream that its head names.
struct Blocks<R> {
    main: BufReader<io::Chain<Cursor<Vec<u8>>, R>>,
    lanes: BTreeMap<u8, LaneInput>,
    lane: u8,
    left: usize,
}

impl Frames {
    /// Goes over bytes and moves those of frames to the front. Returns how many these are, how many it went over, and
    /// the word that made it stop there.
    fn sift(&mut self, bytes: &mut [u8]) -> io::Result<(usize, usize, Option<LaneWord>)> {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            if self.strange {
                bytes.copy_within(at.., kept);
                return Ok((kept + bytes.len() - at, bytes.len(), None));
            }
            if self.left > 0 {
                let count = self.left.min(bytes.len() - at);
                match &mut self.word {
                    Some(word) => word.extend_from_slice(&bytes[at..at + count]),
                    None => {
                        if kept != at {
                            bytes.copy_within(at..at + count, kept);
                        }
                        kept += count;
                    }
                }
                (at, self.left) = (at + count, self.left - count);
            } else {
                let byte = bytes[at];
                self.head[self.have] = byte;
                (at, self.have) = (at + 1, self.have + 1);
                // Passed on byte by byte: what is no frame is not to be waited for to become one.
                if !is_lane_word(self.head[0]) {
                    bytes[kept] = byte;
                    kept += 1;
                }
                if self.have < HEADER {
                    continue;
                }
                self.have = 0;
                match decode_head(self.head) {
                    Ok((kind, length)) => {
                        self.left = length;
                        self.word = is_lane_word(kind).then(Vec::new);
                    }
                    Err(_) => self.strange = true,
                }
            }
            if self.left == 0
                && let Some(word) = self.word.take()
            {
                let word = LaneWord::decode(self.head[0], &word).map_err(malformed)?;
                return Ok((kept, at, Some(word)));
            }
        }
        Ok((kept, at, None))
    }
}

fn malformed(problem: malai_model::wire::copy::CopyFrameProblem) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

impl<R: Read> LaneReader<R> {
    pub(super) fn new(input: R, handle: LaneHandle, heard: Heard) -> Self {
        Self { handle, heard, main: Main::Plain(input, Frames::default()) }
    }

    /// Reads frames, and gets on to blocks when that is said.
    fn read_plain(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let Main::Plain(input, frames) = &mut self.main else { return self.read(into) };
            let count = input.read(into)?;
            if count == 0 {
                return Ok(0);
            }
            let (mut kept, mut end) = (0, count);
            // What was sifted stands at the front; what is not yet follows it.
            while kept < end {
                let (more, over, word) = frames.sift(&mut into[kept..end])?;
                let rest = kept + over..end;
                kept += more;
                match word {
                    Some(LaneWord::Bonded) => {
                        let first = Cursor::new(into[rest].to_vec());
                        self.main = match std::mem::replace(&mut self.main, Main::Closed) {
                            Main::Plain(input, _) => Main::Bonded(Blocks {
                                main: BufReader::with_capacity(BUFFER, first.chain(input)),
                                lanes: BTreeMap::new(),
                                lane: 0,
                                left: 0,
                            }),
                            other => other,
                        };
                        break;
                    }
                    Some(word) => {
                        (self.heard)(&self.handle, word);
                        let length = rest.len();
                        into.copy_within(rest, kept);
                        end = kept + length;
                    }
                    None => break,
                }
            }
            if kept > 0 {
                return Ok(kept);
            }
        }
    }
}

impl<R: Read> Blocks<R> {
    fn read(&mut self, handle: &LaneHandle, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let mut head = [0; HEADER];
            if self.main.read(&mut head[..1])? == 0 {
                return Ok(0);
            }
            self.main.read_exact(&mut head[1..])?;
            (self.lane, self.left) = decode_block_head(head).map_err(malformed)?;
            if self.lane != 0 && !self.lanes.contains_key(&self.lane) {
                self.lanes.insert(self.lane, handle.shared().take_arrived(self.lane)?);
            }
        }
        let room = into.len().min(self.left);
        let count = match self.lanes.get_mut(&self.lane) {
            Some(lane) => lane.read(&mut into[..room])?,
            None => self.main.read(&mut into[..room])?,
        };
        if count == 0 {
            let text = "a stream of the copy ended before the copy did";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        self.left -= count;
        Ok(count)
    }
}

impl<R: Read> Read for LaneReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let count = match &mut self.main {
            Main::Plain(..) => self.read_plain(into)?,
            Main::Bonded(blocks) => blocks.read(&self.handle, into)?,
            Main::Closed => 0,
        };
        self.handle.shared().count(count);
        Ok(count)
    }
}
