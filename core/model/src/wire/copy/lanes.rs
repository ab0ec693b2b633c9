//! Several streams for one copy: where a round trip is long, one stream is slower than the network.
//!
//! A copy runs between the client and each machine by itself, over a *main* stream. When it is worth it the client says
//! [`LaneWord::Wanted`] among its frames, and a far end that knows lanes answers [`LaneWord::Ready`] with a key. The
//! client then starts further commands on that machine, each of which it sends a [`LaneHello`] and which join the main
//! far end with it. From [`LaneWord::Bonded`] on, the bytes of a direction come in blocks: a head (a lane, 1 byte; a
//! length, 3 bytes, big endian) on the main stream says where the next block comes from, 0 being the main stream itself,
//! right behind the head. So the order is the main stream's, and there is nothing to sort or to number.
//!
//! The words are frames that whoever does not know them ignores, so that nothing happens with an older end.

use bytes::BufMut;

use super::{CopyFrameProblem, DATA_HEAD, HEADER, MAX_BLOCK};

/// The most streams of a copy, the main one included.
pub const MAX_STREAMS: u8 = 16;
/// The most bytes in a block of a direction that is bonded: a frame of the largest size.
pub const MAX_LANE_BLOCK: usize = DATA_HEAD + MAX_BLOCK;
/// The length of a [`LaneHello`].
pub const LANE_HELLO: usize = 2 + ROOM + SECRET;
/// What the far end of a lane says first when it has joined.
pub const JOINED: u8 = b'J';

/// How many bytes name the place where lanes join.
pub const ROOM: usize = 16;
/// How many bytes prove that a lane belongs to a copy.
pub const SECRET: usize = 32;

const VERSION: u8 = 1;
const WANTED: u8 = 0x80;
const READY: u8 = 0x81;
const BONDED: u8 = 0x82;

/// Where the lanes of a copy join it, and what proves that they are its own.
#[derive(Clone, PartialEq, Eq)]
pub struct LaneKey {
    /// Which place: not secret.
    pub room: [u8; ROOM],
    /// Secret: never in a command line or a log.
    pub secret: [u8; SECRET],
}

impl std::fmt::Debug for LaneKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneKey").finish_non_exhaustive()
    }
}

/// What is said about lanes among the frames of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneWord {
    /// The client would open so many lanes beside the main stream.
    Wanted {
        /// 1 to [`MAX_STREAMS`] - 1.
        lanes: u8,
    },
    /// They may come.
    Ready(LaneKey),
    /// All further bytes of this direction come in blocks.
    Bonded,
}

/// The first bytes on a lane, from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneHello {
    /// Of the copy that it belongs to.
    pub key: LaneKey,
    /// Which lane it is: 1 to [`MAX_STREAMS`] - 1.
    pub lane: u8,
}

/// Says whether frames of this kind are a [`LaneWord`].
pub fn is_lane_word(kind: u8) -> bool {
    matches!(kind, WANTED..=BONDED)
}

fn is_lane(number: u8) -> bool {
    (1..MAX_STREAMS).contains(&number)
}

impl LaneWord {
    /// Reads the payload of a frame of such a kind.
    ///
    /// # Errors
    /// When it is malformed. Bytes after the known fields are a later version's and ignored.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, CopyFrameProblem> {
        let length = CopyFrameProblem::Length { kind, length: payload.len() };
        match kind {
            WANTED => match payload.first() {
                Some(lanes) if is_lane(*lanes) => Ok(Self::Wanted { lanes: *lanes }),
                Some(_) => Err(CopyFrameProblem::Field { kind, field: "number of lanes" }),
                None => Err(length),
            },
            READY => key(payload).map(Self::Ready).ok_or(length),
            BONDED => Ok(Self::Bonded),
            _ => Err(CopyFrameProblem::Kind(kind)),
        }
    }

    /// Writes it as a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, length) = match self {
            Self::Wanted { .. } => (WANTED, 1),
            Self::Ready(_) => (READY, ROOM + SECRET),
            Self::Bonded => (BONDED, 0),
        };
        // All are shorter than 256 bytes.
        out.put_slice(&[kind, 0, 0, u8::try_from(length).unwrap_or(u8::MAX)]);
        match self {
            Self::Wanted { lanes } => out.put_u8(*lanes),
            Self::Ready(key) => {
                out.put_slice(&key.room);
                out.put_slice(&key.secret);
            }
            Self::Bonded => {}
        }
    }
}

fn key(bytes: &[u8]) -> Option<LaneKey> {
    let (room, rest) = bytes.split_first_chunk()?;
    let (secret, _later) = rest.split_first_chunk()?;
    Some(LaneKey { room: *room, secret: *secret })
}

impl LaneHello {
    /// Writes it.
    pub fn encode(&self) -> [u8; LANE_HELLO] {
        let mut bytes = [0; LANE_HELLO];
        bytes[0] = VERSION;
        bytes[1] = self.lane;
        bytes[2..2 + ROOM].copy_from_slice(&self.key.room);
        bytes[2 + ROOM..].copy_from_slice(&self.key.secret);
        bytes
    }

    /// Reads it; `None` if it is none.
    pub fn decode(bytes: &[u8; LANE_HELLO]) -> Option<Self> {
        let [version, lane, ..] = *bytes;
        (version == VERSION && is_lane(lane)).then_some(())?;
        Some(Self { key: key(&bytes[2..])?, lane })
    }
}

/// Writes the head of a block that comes over a lane; 0 is the main stream.
pub fn encode_block_head(lane: u8, length: usize) -> [u8; HEADER] {
    debug_assert!(length <= MAX_LANE_BLOCK, "blocks are cut to that");
    let [.., a, b, c] = length.to_be_bytes();
    [lane, a, b, c]
}

/// Reads the head of a block: its lane, and how many bytes it has.
///
/// # Errors
/// When there can be no such lane, or no such length.
pub fn decode_block_head(head: [u8; HEADER]) -> Result<(u8, usize), CopyFrameProblem> {
    let [lane, a, b, c] = head;
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    if lane >= MAX_STREAMS {
        return Err(CopyFrameProblem::Field { kind: BONDED, field: "lane" });
    }
    if length == 0 || length > MAX_LANE_BLOCK {
        return Err(CopyFrameProblem::Length { kind: BONDED, length });
    }
    Ok((lane, length))
}

#[cfg(test)]
mod tests {
    use super::super::{Frame, decode_head, decode_payload};
    use super::*;

    fn a_key() -> LaneKey {
        LaneKey { room: [7; ROOM], secret: [9; SECRET] }
    }

    #[test]
    fn words_come_back_and_are_ignored_by_who_knows_none() {
        for word in [LaneWord::Wanted { lanes: 3 }, LaneWord::Ready(a_key()), LaneWord::Bonded] {
            let mut bytes = Vec::new();
            word.encode(&mut bytes);
            let (kind, length) = decode_head(*bytes.first_chunk().expect("a head")).expect("is one");
            assert!(is_lane_word(kind) && length == bytes.len() - HEADER);
            assert_eq!(LaneWord::decode(kind, &bytes[HEADER..]), Ok(word));
            assert_eq!(decode_payload(kind, &bytes[HEADER..]), Ok(Frame::Ignored));
        }
        assert!(LaneWord::decode(WANTED, &[0]).is_err() && LaneWord::decode(WANTED, &[MAX_STREAMS]).is_err());
        assert!(LaneWord::decode(WANTED, &[]).is_err() && LaneWord::decode(READY, &[0; 47]).is_err());
        assert!(!format!("{:?}", LaneWord::Ready(a_key())).contains('9'));
    }

    #[test]
    fn a_hello_and_a_head_are_bounded() {
        let hello = LaneHello { key: a_key(), lane: 3 };
        assert_eq!(LaneHello::decode(&hello.encode()), Some(hello.clone()));
        for (at, byte) in [(0, 2), (1, 0), (1, MAX_STREAMS)] {
            let mut bytes = hello.encode();
            bytes[at] = byte;
            assert_eq!(LaneHello::decode(&bytes), None);
        }
        for (lane, length) in [(0, 1), (15, MAX_LANE_BLOCK)] {
            assert_eq!(decode_block_head(encode_block_head(lane, length)), Ok((lane, length)));
        }
        for head in [[16, 0, 0, 1], [1, 0, 0, 0], [0, 255, 255, 255]] {
            assert!(decode_block_head(head).is_err(), "{head:?}");
        }
    }
}
