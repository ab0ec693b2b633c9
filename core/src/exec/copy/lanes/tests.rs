//! Both ends in one process.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use malai_model::wire::copy::lanes::{
    JOINED, LaneHello, LaneKey, MAX_LANE_BLOCK, MAX_STREAMS, encode_block_head,
};
use malai_model::wire::copy::{CopyRole, Frame, MAX_BLOCK, encode};

use super::room::enter;
use super::*;
use crate::exec::copy::{
    Compare, CopyError, Extraneous, Links, PathLinks, SinkRequest, SourceRequest, run_sink, run_source,
};

const SOON: Duration = Duration::from_secs(20);

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("fits")
    }
}

/// A pipe that is slow now and then, and passes as much as it likes.
struct Slow(PipeWriter, Dice);

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.1.below(4) == 0 {
            thread::sleep(Duration::from_micros(self.1.below(3000) as u64));
        }
        let count = 1 + self.1.below(bytes.len());
        self.0.write(&bytes[..count])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn frames(dice: &mut Dice, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..count {
        if dice.below(3) == 0 {
            encode(&Frame::Have { id: number as u64 }, &mut bytes);
        } else {
            let block: Vec<u8> = (0..1 + dice.below(200_000)).map(|at| (at * 7 + number) as u8).collect();
            encode(&Frame::Data { digest: &[7; 32], bytes: &block }, &mut bytes);
        }
    }
    bytes
}

fn reader_of(main: impl Read) -> (LaneReader<impl Read>, LaneHandle) {
    let (reader, writer, handle) = lanes(main, std::io::sink(), |_, _| {});
    drop(writer);
    (reader, handle)
}

#[test]
fn bytes_come_in_order_however_they_are_cut_and_however_slow_lanes_are() {
    for seed in 1..=12 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let sent = frames(&mut dice, 120);
        let (main_out, main_in) = pipe().expect("makes a pipe");
        let (_, mut writer, handle) = lanes(std::io::empty(), Slow(main_in, Dice(seed + 7)), |_, _| {});
        let (mut reader, arrivals) = reader_of(main_out);
        let count = 1 + u8::try_from(dice.below(6)).expect("fits");
        let begin = dice.below(sent.len() / 2);
        let expected = sent.clone();
        let opening = handle.clone();
        let writing = thread::spawn(move || {
            let mut at = 0;
            let mut next = 1;
            while at < sent.len() {
                if at >= begin && next <= count {
                    let (out, lane) = pipe().expect("makes a pipe");
                    opening.write_over(next, Slow(lane, Dice(seed + u64::from(next))));
                    arrivals.read_over(next, out);
                    next += 1;
                }
                let length = (1 + dice.below(2 * MAX_LANE_BLOCK)).min(sent.len() - at);
                writer.write_all(&sent[at..at + length]).expect("writes");
                at += length;
            }
        });
        let mut got = Vec::new();
        reader.read_to_end(&mut got).expect("reads");
        writing.join().expect("no panic");
        handle.finish();
        assert!(got == expected, "seed {seed}: {} bytes of {}", got.len(), expected.len());
    }
}

#[test]
fn what_is_under_way_is_bounded_and_the_writer_waits_for_the_reader() {
    let (main_out, main_in) = pipe().expect("makes a pipe");
    let (_, mut writer, handle) = lanes(std::io::empty(), main_in, |_, _| {});
    let (mut reader, arrivals) = reader_of(main_out);
    for lane in 1..=3 {
        let (out, lane_in) = pipe().expect("makes a pipe");
        handle.write_over(lane, lane_in);
        arrivals.read_over(lane, out);
    }
    let written = Arc::new(AtomicU64::new(0));
    let counting = written.clone();
    let total: u64 = 64 << 20;
    let writing = thread::spawn(move || {
        let mut block = Vec::new();
        encode(&Frame::Data { digest: &[5; 32], bytes: &vec![5; MAX_BLOCK] }, &mut block);
        while counting.load(Ordering::SeqCst) < total {
            writer.write_all(&block).expect("writes");
            counting.fetch_add(block.len() as u64, Ordering::SeqCst);
        }
    });
    let (mut read, mut most, mut block) = (0, 0, vec![0; 100_000]);
    loop {
        let count = reader.read(&mut block).expect("reads") as u64;
        if count == 0 {
            break;
        }
        most = most.max(written.load(Ordering::SeqCst).saturating_sub(read));
        read += count;
    }
    writing.join().expect("no panic");
    assert_eq!(read, written.load(Ordering::SeqCst));
    // A queue of blocks for each lane, one in hand and a pipe each, and some for the main stream.
    let bound = (3 * (WAITING + 2) + 4) * MAX_LANE_BLOCK;
    assert!(most <= bound as u64, "{most} bytes of at most {bound}");
}

/// A main stream that is bonded, and what follows.
fn bonded(rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    LaneWord::Bonded.encode(&mut bytes);
    bytes.extend_from_slice(rest);
    bytes
}

#[test]
fn a_hostile_other_end_is_an_error_and_nothing_grows() {
    let long = [1, 255, 255, 255];
    let inline = [&encode_block_head(0, 5)[..], b"abc"].concat();
    let over = encode_block_head(1, 100);
    for (name, rest) in [
        ("no such lane", &[MAX_STREAMS, 0, 0, 1][..]),
        ("a huge block", &long),
        ("an empty block", &[1, 0, 0, 0]),
        ("half a head", &[1, 0]),
        ("a block that ends early", &inline),
        ("a lane that ends early", &over),
        ("a lane that never came", &encode_block_head(2, 1)),
    ] {
        let main = bonded(rest);
        let (mut reader, handle) = reader_of(&main[..]);
        handle.read_over(1, &b"less"[..]);
        handle.give_up();
        assert!(reader.read_to_end(&mut Vec::new()).is_err(), "{name}");
    }
    // Words that are none.
    for word in [&[0x80, 0, 0, 1, 0][..], &[0x80, 0, 0, 1, 16], &[0x81, 0, 0, 3, 1, 2, 3]] {
        let (mut reader, _handle) = reader_of(word);
        assert!(reader.read_to_end(&mut Vec::new()).is_err(), "{word:?}");
    }
    // More over a lane than its blocks have stays there.
    let main = bonded(&encode_block_head(1, 2));
    let (mut reader, handle) = reader_of(&main[..]);
    handle.read_over(1, &b"abcdef"[..]);
    let mut got = Vec::new();
    reader.read_to_end(&mut got).expect("reads");
    assert_eq!(got, b"ab");
}

#[test]
fn what_are_no_frames_passes_as_it_is_and_at_once() {
    let (out, mut main) = pipe().expect("makes a pipe");
    let (mut reader, _handle) = reader_of(out);
    main.write_all(b"he").expect("writes");
    let mut block = [0; 64];
    assert_eq!(reader.read(&mut block).expect("reads"), 2);
    main.write_all(b"llo, this is no copy").expect("writes");
    drop(main);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).expect("reads");
    assert_eq!([&block[..2], &rest].concat(), b"hello, this is no copy");
}

#[test]
fn a_word_is_said_between_two_frames_by_whomever() {
    let (out, main_in) = pipe().expect("makes a pipe");
    let (_, mut writer, handle) = lanes(std::io::empty(), main_in, |_, _| {});
    let mut frame = Vec::new();
    encode(&Frame::Data { digest: &[1; 32], bytes: b"some bytes" }, &mut frame);
    writer.write_all(&frame[..9]).expect("writes");
    // Never first.
    handle.say(&LaneWord::Wanted { lanes: 2 });
    writer.write_all(&[&frame[9..], &frame[..]].concat()).expect("writes");
    handle.say(&LaneWord::Wanted { lanes: 3 });
    drop(writer);
    let (tell, heard) = mpsc::channel();
    let (mut reader, _, _) = lanes(out, std::io::sink(), move |_, word| tell.send(word).expect("is heard"));
    let mut got = Vec::new();
    reader.read_to_end(&mut got).expect("reads");
    assert_eq!(got, [&frame[..], &frame].concat());
    let heard: Vec<_> = heard.try_iter().collect();
    assert_eq!(heard, [LaneWord::Wanted { lanes: 2 }, LaneWord::Wanted { lanes: 3 }]);
}

/// A far end's room, its key and what closes it.
fn a_room(role: CopyRole, wanted: u8) -> (LaneKey, LaneHandle, impl FnOnce()) {
    let (out, main_in) = pipe().expect("makes a pipe");
    let (heard, close) = keep_room(role);
    let mut word = Vec::new();
    LaneWord::Wanted { lanes: wanted }.encode(&mut word);
    // Twice: there is one room all the same.
    let word = [&word[..], &word].concat();
    let (mut reader, mut writer, handle) = lanes(std::io::Cursor::new(word), main_in, heard);
    let mut frame = Vec::new();
    encode(&Frame::Have { id: 1 }, &mut frame);
    writer.write_all(&frame).expect("writes");
    reader.read_to_end(&mut Vec::new()).expect("reads");
    let (tell, ready) = mpsc::channel();
    let (mut client, _, _) = lanes(out, std::io::sink(), move |_, word| tell.send(word).expect("is heard"));
    thread::spawn(move || client.read_to_end(&mut Vec::new()));
    let word = ready.recv_timeout(SOON).expect("is ready");
    let LaneWord::Ready(key) = word else { panic!("{word:?}") };
    // Until it is over, the main stream is there.
    let close = move || {
        drop(writer);
        close();
        assert!(ready.recv_timeout(SOON).is_err(), "one room");
    };
    (key, handle, close)
}

fn dir(key: &LaneKey) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("malai-cp-{}", data_encoding::HEXLOWER.encode(&key.room)))
}

#[test]
fn a_lane_joins_with_the_secret_only_once_and_only_where_it_was_asked_for() {
    let (key, _handle, close) = a_room(CopyRole::Sink, 2);
    let mode = std::fs::metadata(dir(&key)).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let wrong = LaneKey { secret: [0; 32], ..key.clone() };
    assert!(enter(&wrong, 1).is_err());
    assert!(enter(&key, 3).is_err());
    let _first = enter(&key, 1).expect("joins");
    assert!(enter(&key, 1).is_err());
    let elsewhere = LaneKey { room: [0; 16], ..key.clone() };
    assert!(enter(&elsewhere, 2).is_err());
    assert!(dir(&key).exists());
    close();
    assert!(!dir(&key).exists());
    assert!(enter(&key, 2).is_err());
}

#[test]
fn a_room_that_others_could_enter_is_entered_by_nobody() {
    let (key, _handle, close) = a_room(CopyRole::Sink, 1);
    std::fs::set_permissions(dir(&key), std::fs::Permissions::from_mode(0o755)).expect("sets a mode");
    assert!(enter(&key, 1).is_err());
    close();
}

/// The client's part: opens lanes when it is told where they may join, each the program of a lane in a thread.
fn open_lanes(count: u8, writes: bool) -> impl FnMut(&LaneHandle, LaneWord) + Send + 'static {
    move |handle, word| {
        let LaneWord::Ready(key) = word else { panic!("{word:?}") };
        for lane in 1..=count {
            let (stdin, mut to_lane) = pipe().expect("makes a pipe");
            let (mut from_lane, stdout) = pipe().expect("makes a pipe");
            thread::spawn(move || serve_lane(stdin, stdout));
            to_lane.write_all(&LaneHello { key: key.clone(), lane }.encode()).expect("writes");
            let mut joined = [0];
            from_lane.read_exact(&mut joined).expect("joins");
            assert_eq!(joined, [JOINED]);
            if writes {
                handle.write_over(lane, Held(to_lane, from_lane));
            } else {
                // Its stdin may end: it has said all that it has to.
                handle.read_over(lane, from_lane);
            }
        }
    }
}

/// A lane's stdin, with its stdout kept open.
struct Held(PipeWriter, #[expect(dead_code, reason = "kept open")] PipeReader);

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Takes all that comes at once: whoever reads from it may wait for what comes later.
struct Unbounded(mpsc::Receiver<Vec<u8>>, Vec<u8>);

impl Unbounded {
    fn new(mut from: PipeReader) -> Self {
        let (tell, blocks) = mpsc::channel();
        thread::spawn(move || {
            let mut block = vec![0; 65536];
            while let Ok(count @ 1..) = from.read(&mut block) {
                if tell.send(block[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self(blocks, Vec::new())
    }
}

impl Read for Unbounded {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.1.is_empty() {
            self.1 = self.0.recv().unwrap_or_default();
        }
        let count = into.len().min(self.1.len());
        into[..count].copy_from_slice(&self.1[..count]);
        self.1.drain(..count);
        Ok(count)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Far {
    Source,
    Sink,
    OldSink,
}

/// Copies a file of some size with the far end on one side or the other; returns how many lanes were opened.
fn copy_with_lanes(far: Far, count: u8) -> Result<u64, CopyError> {
    let files = tempfile::tempdir().expect("makes a folder");
    let (from, to) = (files.path().join("from"), files.path().join("to"));
    let bytes: Vec<u8> = (0..9_000_000_u64).flat_map(|n| n.to_le_bytes()).take(20_000_000).collect();
    std::fs::write(&from, &bytes).expect("writes");
    let source = SourceRequest { roots: vec![from], links: Links::Keep, path_links: PathLinks::Follow };
    let sink = SinkRequest {
        destination: to.clone(),
        extraneous: Extraneous::Keep,
        compare: Compare::Times,
        roots: None,
        path_links: PathLinks::Follow,
    };
    let (to_sink, from_source) = pipe().expect("makes a pipe");
    let (to_source, from_sink) = pipe().expect("makes a pipe");
    let opened = Arc::new(AtomicU64::new(0));
    let counting = opened.clone();
    let mut open = open_lanes(count, far != Far::Source);
    let client = move |handle: &LaneHandle, word: LaneWord| {
        open(handle, word);
        counting.fetch_add(u64::from(count), Ordering::SeqCst);
    };
    let (sourced, sunk) = match far {
        Far::Source => {
            let (heard, close) = keep_room(CopyRole::Source);
            let (input, output, handle) = lanes(to_source, from_source, heard);
            let far = thread::spawn(move || {
                let outcome = run_source(input, output, source, Arc::new(()));
                close();
                handle.finish();
                outcome
            });
            let (input, output, handle) = lanes(Unbounded::new(to_sink), from_sink, client);
            handle.say(&LaneWord::Wanted { lanes: count });
            let sunk = run_sink(input, output, sink, Arc::new(()));
            drop(handle);
            (far.join().expect("no panic"), sunk)
        }
        Far::Sink | Far::OldSink => {
            let far = thread::spawn(move || {
                if far == Far::OldSink {
                    return run_sink(to_sink, from_sink, sink, Arc::new(()));
                }
                let (heard, close) = keep_room(CopyRole::Sink);
                let (input, output, handle) = lanes(to_sink, from_sink, heard);
                let outcome = run_sink(input, output, sink, Arc::new(()));
                close();
                handle.finish();
                outcome
            });
            let (input, output, handle) = lanes(to_source, from_source, client);
            handle.say(&LaneWord::Wanted { lanes: count });
            let sourced = run_source(input, output, source, Arc::new(()));
            (sourced, far.join().expect("no panic"))
        }
    };
    assert_eq!(sourced?.0, sunk?.0);
    assert!(std::fs::read(&to).expect("reads") == bytes);
    Ok(opened.load(Ordering::SeqCst))
}

#[test]
fn a_copy_goes_over_lanes_from_and_to_the_far_end() {
    let (tell, done) = mpsc::channel();
    thread::spawn(move || {
        for far in [Far::Source, Far::Sink] {
            for count in [1, 3, 15] {
                tell.send((far, count, copy_with_lanes(far, count))).expect("is heard");
            }
        }
    });
    for _ in 0..6 {
        let (far, count, opened) = done.recv_timeout(SOON * 3).expect("is done");
        assert_eq!(opened.expect("copies"), u64::from(count), "{far:?}");
    }
}

#[test]
fn an_older_far_end_says_nothing_about_lanes_and_the_copy_goes_on() {
    assert_eq!(copy_with_lanes(Far::OldSink, 3).expect("copies"), 0);
}
