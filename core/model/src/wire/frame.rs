//! Frames: how messages and bulk bytes share one stream, with credit and byte offsets.
//!
//! A frame is a type (1 byte), a length (3 bytes, big endian) and so many bytes of payload. This module is
//! the codec over byte slices; it decides nothing about *when* a frame may be sent (`malai-core::p2p::stream`
//! does).
//!
//! | type | payload | meaning |
//! | --- | --- | --- |
//! | `0x01` data | lane (1), offset (8), bytes | the lane's bytes from this absolute offset; on the message lane one whole message |
//! | `0x02` window | lane (1), consumed (8), allowance (8), window (4) | the receiver took so many bytes; the sender may spend so much credit in all |
//! | `0x03` end | lane (1), final offset (8) | nothing more comes on this lane |
//! | `0x04` abort | code (4) | nothing more comes on any lane, and what came is incomplete |
//! | `0x05` stop | code (4) | the receiver wants no more of any lane |
//! | `0x06` resumed | for each lane: received (8), charged (8), allowance (8), window (4), ended (1) | the first frame of whoever is asked to go on with a stream: what it has received |
//! | `0x80` to `0xff` | up to 1 KiB | for later versions: to be ignored |
//!
//! Everything else is malformed. Offsets are in the protocol from the first day so that a stream can later go
//! on in another connection at the byte where it stopped.
//!
//! # Credit
//!
//! A data frame costs `max(length, 2048)`, see [`charge`]. The allowance is absolute: the sum of all charges
//! that the sender may have spent on that lane since the stream began. The minimum charge bounds how many
//! small frames are outstanding: QUIC stacks keep a list of unread pieces of each stream and give the whole
//! connection up when it is too long. The receiver grants at the latest when half of the window that it
//! announced is consumed.

use bytes::BufMut;

use super::LaneState;

/// The most bytes that one data frame carries, also the largest message.
pub const MAX_DATA: usize = 64 * 1024;
/// The largest payload of a frame that a later version may send and this one ignores.
pub const MAX_IGNORED: usize = 1024;
/// The least that a data frame costs.
pub const MIN_CHARGE: u64 = 2048;
/// The length of a data frame's head: what stands before its bytes.
pub const DATA_HEAD: usize = HEADER + 9;
/// The longest head of any frame; so much input always lets [`decode`] decide.
pub const MAX_HEAD: usize = HEADER + RESUMED_LENGTH;

const HEADER: usize = 4;
const DATA: u8 = 0x01;
const WINDOW: u8 = 0x02;
const END: u8 = 0x03;
const ABORT: u8 = 0x04;
const STOP: u8 = 0x05;
const RESUMED: u8 = 0x06;
const IGNORABLE: u8 = 0x80;
const LANE_STATE: usize = 29;
const RESUMED_LENGTH: usize = 3 * LANE_STATE;
/// No honest stream comes near; below it, offset and length can be added without a thought.
const MAX_OFFSET: u64 = 1 << 62;

/// The independent flows of one direction of a stream, each with its own offsets and credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// JSON messages; a frame is a message.
    Messages,
    /// Bulk bytes: stdin, stdout, a tunnel, a config's text.
    Main,
    /// A second flow of bytes: stderr.
    Stderr,
}

impl Lane {
    /// Every lane, in the order of [`Lane::index`].
    pub const ALL: [Self; 3] = [Self::Messages, Self::Main, Self::Stderr];

    /// Returns the lane's number on the wire: 0, 1 or 2.
    pub fn index(self) -> usize {
        match self {
            Self::Messages => 0,
            Self::Main => 1,
            Self::Stderr => 2,
        }
    }

    /// The credit that a sender has on the lane once its receiver takes data, in charges.
    ///
    /// All of them together admit fewer than 1,024 frames of the minimum charge.
    pub fn window(self) -> u64 {
        match self {
            Self::Messages => 128 * 1024,
            Self::Main => 1024 * 1024,
            Self::Stderr => 256 * 1024,
        }
    }

    /// The credit that a sender has before its receiver took anything: little, since whoever opens a thousand
    /// streams may fill it a thousand times.
    pub fn initial_window(self) -> u64 {
        match self {
            // Twice the largest message: else a large one could wait for a grant that nothing triggers.
            Self::Messages => 128 * 1024,
            Self::Main => 128 * 1024,
            Self::Stderr => 64 * 1024,
        }
    }

    fn from_wire(byte: u8) -> Result<Self, FrameProblem> {
        Self::ALL.get(usize::from(byte)).copied().ok_or(FrameProblem::UnknownLane(byte))
    }

    fn wire(self) -> u8 {
        match self {
            Self::Messages => 0,
            Self::Main => 1,
            Self::Stderr => 2,
        }
    }
}

/// What stands at the front of a frame: all of it but the bytes of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// So many bytes of a lane follow.
    Data {
        /// Which lane.
        lane: Lane,
        /// The absolute offset of the first byte.
        offset: u64,
        /// How many follow: 1 to [`MAX_DATA`].
        length: usize,
    },
    /// The receiver's grant.
    Window {
        /// Which lane.
        lane: Lane,
        /// So many bytes were taken by whoever reads: where a stream that broke can go on.
        consumed: u64,
        /// The sum of charges that may be spent since the stream began.
        allowance: u64,
        /// The size of the receiver's window; half of it free means "no need to save frames".
        window: u32,
    },
    /// The lane is complete.
    End {
        /// Which lane.
        lane: Lane,
        /// How many bytes it had.
        offset: u64,
    },
    /// The sender gives up; what came is not all.
    Abort {
        /// Why, in the sender's words.
        code: u32,
    },
    /// The receiver wants no more.
    Stop {
        /// Why, in the receiver's words.
        code: u32,
    },
    /// Says that a stream goes on here, and how far its sender has received it.
    Resumed {
        /// The lanes in their order.
        lanes: [LaneState; 3],
    },
    /// A frame of a later version: so many bytes to skip.
    Ignored {
        /// How many follow: up to [`MAX_IGNORED`].
        length: usize,
    },
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameProblem {
    /// A type that is neither known nor reserved to be ignored.
    #[error("unknown frame type {0:#04x}")]
    UnknownType(u8),
    /// A lane that does not exist.
    #[error("unknown lane {0}")]
    UnknownLane(u8),
    /// A length that this type of frame may not have.
    #[error("a frame of type {kind:#04x} with {length} bytes of payload")]
    Length {
        /// The type.
        kind: u8,
        /// The length that it claims.
        length: usize,
    },
    /// An offset or an amount beyond any honest stream.
    #[error("offset {0} is out of range")]
    Offset(u64),
    /// A byte that says neither yes nor no.
    #[error("{0:#04x} where a 0 or a 1 belongs")]
    Flag(u8),
}

/// Returns what a data frame of `length` bytes costs.
pub fn charge(length: usize) -> u64 {
    (length as u64).max(MIN_CHARGE)
}

/// Reads the head of the frame at the front of `input`: the head, and how many bytes of input it took. `None`
/// if more input is needed, which is never so once there are [`MAX_HEAD`] bytes.
///
/// A type, lane or length that cannot be is reported as soon as it is seen, before the rest has arrived.
///
/// # Errors
/// [`FrameProblem`]; nothing after that point can be read.
pub fn decode(input: &[u8]) -> Result<Option<(Head, usize)>, FrameProblem> {
    let [kind, a, b, c, rest @ ..] = input else { return Ok(None) };
    let kind = *kind;
    let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
    let fits = match kind {
        DATA => (10..=9 + MAX_DATA).contains(&length),
        WINDOW => length == 21,
        END => length == 9,
        ABORT | STOP => length == 4,
        RESUMED => length == RESUMED_LENGTH,
        IGNORABLE.. => length <= MAX_IGNORED,
        _ => return Err(FrameProblem::UnknownType(kind)),
    };
    if !fits {
        return Err(FrameProblem::Length { kind, length });
    }
    if kind >= IGNORABLE {
        return Ok(Some((Head::Ignored { length }, HEADER)));
    }
    if kind == ABORT || kind == STOP {
        let Some(code) = rest.first_chunk().map(|code| u32::from_be_bytes(*code)) else { return Ok(None) };
        let head = if kind == ABORT { Head::Abort { code } } else { Head::Stop { code } };
        return Ok(Some((head, HEADER + 4)));
    }
    if kind == RESUMED {
        let Some(states) = rest.first_chunk::<RESUMED_LENGTH>() else { return Ok(None) };
        let mut lanes = [LaneState::default(); 3];
        for (lane, bytes) in lanes.iter_mut().zip(states.as_chunks::<LANE_STATE>().0) {
            *lane = lane_state(bytes)?;
        }
        return Ok(Some((Head::Resumed { lanes }, HEADER + RESUMED_LENGTH)));
    }
    let [lane, rest @ ..] = rest else { return Ok(None) };
    let lane = Lane::from_wire(*lane)?;
    let Some((offset, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let offset = u64::from_be_bytes(*offset);
    if offset > MAX_OFFSET {
        return Err(FrameProblem::Offset(offset));
    }
    Ok(match kind {
        DATA => Some((Head::Data { lane, offset, length: length - 9 }, DATA_HEAD)),
        END => Some((Head::End { lane, offset }, HEADER + 9)),
        _ => {
            let Some((allowance, rest)) = rest.split_first_chunk() else { return Ok(None) };
            let Some(window) = rest.first_chunk() else { return Ok(None) };
            let (allowance, window) = (u64::from_be_bytes(*allowance), u32::from_be_bytes(*window));
            Some((Head::Window { lane, consumed: offset, allowance, window }, HEADER + 21))
        }
    })
}

fn lane_state(bytes: &[u8; LANE_STATE]) -> Result<LaneState, FrameProblem> {
    let number = |at: usize| {
        let value = bytes[at..at + 8].iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        if value > MAX_OFFSET { Err(FrameProblem::Offset(value)) } else { Ok(value) }
    };
    Ok(LaneState {
        received: number(0)?,
        charged: number(8)?,
        allowance: number(16)?,
        window: bytes[24..28].iter().fold(0, |value, byte| value << 8 | u32::from(*byte)),
        ended: match bytes[28] {
            0 => false,
            1 => true,
            other => return Err(FrameProblem::Flag(other)),
        },
    })
}

/// Writes a frame's head; after one of data or of an ignored frame, the caller writes as many bytes as it
/// announces.
///
/// A length beyond the limits is written as it is: the sender splits before.
pub fn encode(head: &Head, out: &mut impl BufMut) {
    let header = |out: &mut dyn BufMut, kind: u8, length: usize| {
        out.put_u8(kind);
        out.put_uint(length as u64, 3);
    };
    match *head {
        Head::Data { lane, offset, length } => {
            header(out, DATA, 9 + length);
            out.put_u8(lane.wire());
            out.put_u64(offset);
        }
        Head::Window { lane, consumed, allowance, window } => {
            header(out, WINDOW, 21);
            out.put_u8(lane.wire());
            out.put_u64(consumed);
            out.put_u64(allowance);
            out.put_u32(window);
        }
        Head::End { lane, offset } => {
            header(out, END, 9);
            out.put_u8(lane.wire());
            out.put_u64(offset);
        }
        Head::Abort { code } => {
            header(out, ABORT, 4);
            out.put_u32(code);
        }
        Head::Stop { code } => {
            header(out, STOP, 4);
            out.put_u32(code);
        }
        Head::Resumed { lanes } => {
            header(out, RESUMED, RESUMED_LENGTH);
            for lane in lanes {
                out.put_u64(lane.received);
                out.put_u64(lane.charged);
                out.put_u64(lane.allowance);
                out.put_u32(lane.window);
                out.put_u8(u8::from(lane.ended));
            }
        }
        Head::Ignored { length } => header(out, IGNORABLE, length),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lane() -> impl Strategy<Value = Lane> {
        prop::sample::select(Lane::ALL.to_vec())
    }

    fn lane_state() -> impl Strategy<Value = LaneState> {
        let amount = 0..=MAX_OFFSET;
        (amount.clone(), amount.clone(), amount, any::<u32>(), any::<bool>()).prop_map(
            |(received, charged, allowance, window, ended)| LaneState {
                received,
                charged,
                allowance,
                window,
                ended,
            },
        )
    }

    fn head() -> impl Strategy<Value = Head> {
        let offset = 0..=MAX_OFFSET;
        prop_oneof![
            (lane(), offset.clone(), 1..=MAX_DATA).prop_map(|(lane, offset, length)| Head::Data {
                lane,
                offset,
                length
            }),
            (lane(), offset.clone(), any::<u64>(), any::<u32>()).prop_map(
                |(lane, consumed, allowance, window)| Head::Window { lane, consumed, allowance, window }
            ),
            (lane(), offset).prop_map(|(lane, offset)| Head::End { lane, offset }),
            any::<u32>().prop_map(|code| Head::Abort { code }),
            any::<u32>().prop_map(|code| Head::Stop { code }),
            [lane_state(), lane_state(), lane_state()].prop_map(|lanes| Head::Resumed { lanes }),
            (0..=MAX_IGNORED).prop_map(|length| Head::Ignored { length }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(head in head()) {
            let mut bytes = Vec::new();
            encode(&head, &mut bytes);
            prop_assert!(bytes.len() <= MAX_HEAD);
            prop_assert_eq!(decode(&bytes), Ok(Some((head, bytes.len()))));
        }

        #[test]
        fn a_part_of_a_head_asks_for_more(head in head(), cut in 0_usize..MAX_HEAD) {
            let mut bytes = Vec::new();
            encode(&head, &mut bytes);
            let cut = cut.min(bytes.len() - 1);
            prop_assert_eq!(decode(&bytes[..cut]), Ok(None));
        }

        #[test]
        fn no_input_panics_and_enough_input_always_decides(input in prop::collection::vec(any::<u8>(), 0..128)) {
            let decided = decode(&input);
            if input.len() >= MAX_HEAD {
                prop_assert!(decided != Ok(None));
            }
            if let Ok(Some((head, taken))) = decided {
                prop_assert!(taken <= input.len());
                if let Head::Data { length, .. } = head {
                    prop_assert!((1..=MAX_DATA).contains(&length));
                }
            }
        }
    }

    #[test]
    fn the_bytes_of_each_frame_are_stable() {
        let heads = [
            Head::Data { lane: Lane::Main, offset: 258, length: 3 },
            Head::Window { lane: Lane::Stderr, consumed: 1, allowance: 2, window: 3 },
            Head::End { lane: Lane::Messages, offset: 7 },
            Head::Abort { code: 1 },
            Head::Stop { code: 2 },
            Head::Resumed {
                lanes: [
                    LaneState { received: 1, charged: 2, allowance: 3, window: 4, ended: true },
                    LaneState::default(),
                    LaneState { received: 5, charged: 6, allowance: 7, window: 8, ended: false },
                ],
            },
            Head::Ignored { length: 5 },
        ];
        let lines: Vec<String> = heads
            .iter()
            .map(|head| {
                let mut bytes = Vec::new();
                encode(head, &mut bytes);
                format!("{} {head:?}", data_encoding::HEXLOWER.encode(&bytes))
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        0100000c010000000000000102 Data { lane: Main, offset: 258, length: 3 }
        02000015020000000000000001000000000000000200000003 Window { lane: Stderr, consumed: 1, allowance: 2, window: 3 }
        03000009000000000000000007 End { lane: Messages, offset: 7 }
        0400000400000001 Abort { code: 1 }
        0500000400000002 Stop { code: 2 }
        06000057000000000000000100000000000000020000000000000003000000040100000000000000000000000000000000000000000000000000000000000000000000000005000000000000000600000000000000070000000800 Resumed { lanes: [LaneState { received: 1, charged: 2, allowance: 3, window: 4, ended: true }, LaneState { received: 0, charged: 0, allowance: 0, window: 0, ended: false }, LaneState { received: 5, charged: 6, allowance: 7, window: 8, ended: false }] }
        80000005 Ignored { length: 5 }
        ");
    }

    #[test]
    fn what_cannot_be_is_refused_at_its_first_byte_that_says_so() {
        assert_eq!(decode(&[0, 0, 0, 0]), Err(FrameProblem::UnknownType(0)));
        assert_eq!(decode(&[0x7f, 0, 0, 0]), Err(FrameProblem::UnknownType(0x7f)));
        assert_eq!(decode(&[DATA, 0, 0, 9]), Err(FrameProblem::Length { kind: DATA, length: 9 }));
        assert_eq!(
            decode(&[DATA, 0xff, 0xff, 0xff]),
            Err(FrameProblem::Length { kind: DATA, length: 0xff_ffff })
        );
        assert_eq!(decode(&[END, 0, 0, 9, 3]), Err(FrameProblem::UnknownLane(3)));
        assert_eq!(decode(&[0x80, 0, 4, 1]), Err(FrameProblem::Length { kind: 0x80, length: 1025 }));
        let mut resumed = vec![RESUMED, 0, 0, 87];
        resumed.extend_from_slice(&[0; 87]);
        resumed[32] = 2;
        assert_eq!(decode(&resumed), Err(FrameProblem::Flag(2)));
        resumed[32] = 0;
        resumed[20] = 0xff;
        assert!(matches!(decode(&resumed), Err(FrameProblem::Offset(_))));
        assert_eq!(decode(&[RESUMED, 0, 0, 86]), Err(FrameProblem::Length { kind: RESUMED, length: 86 }));
        let far = [END, 0, 0, 9, 0, 0xff, 0, 0, 0, 0, 0, 0, 0];
        assert!(matches!(decode(&far), Err(FrameProblem::Offset(_))));
    }

    #[test]
    fn a_type_of_a_later_version_is_skipped() {
        assert_eq!(decode(&[0xfe, 0, 0, 2, 9, 9]), Ok(Some((Head::Ignored { length: 2 }, 4))));
    }

    #[test]
    fn all_windows_together_admit_fewer_small_frames_than_a_quic_stack_holds() {
        let frames: u64 = Lane::ALL.iter().map(|lane| lane.window() / MIN_CHARGE).sum();
        assert!(frames < 1024, "{frames}");
    }

    #[test]
    fn a_message_of_any_size_never_waits_for_a_grant_that_nothing_triggers() {
        // The receiver may hold back a grant for less than half the window.
        assert!(Lane::Messages.initial_window() / 2 >= charge(MAX_DATA));
    }
}
