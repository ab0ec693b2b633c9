//! Dealing bytes out to lanes.

use std::io::{self, Write};
use std::sync::{Arc, PoisonError, TryLockError};

use bytes::{BufMut, Bytes, BytesMut};
use malai_model::wire::copy::lanes::{LaneWord, MAX_LANE_BLOCK, encode_block_head};
use malai_model::wire::copy::{HEADER, decode_head};
use tokio::sync::mpsc;

use super::WAITING;
use super::shared::{LaneInput, LaneOutput, Shared, lock};

/// How many bytes make a copy large enough for lanes.
pub(super) const LARGE: u64 = 4 * 1024 * 1024;
/// Blocks that are shorter stay on the main stream.
const SHORT: usize = 16 * 1024;
/// How many heads of blocks may wait for the main stream.
const WAITING_HEADS: usize = 64;

/// Writes frames; between them words about lanes, and, once there are lanes, all of it in blocks over these.
/// Dropped, it closes the main stream and all lanes.
pub struct LaneWriter {
    shared: Arc<Shared>,
}

/// Opens lanes. Cheap to clone.
#[derive(Clone)]
pub struct LaneHandle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for LaneWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneWriter").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LaneHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneHandle").finish_non_exhaustive()
    }
}

/// The writing half.
pub(super) struct Writing {
    main: Main,
    place: Place,
    /// Whether the first frame is written: it says that a copy talks, to older ends too.
    greeted: bool,
}

enum Main {
    Plain(LaneOutput),
    Bonded(Bond),
    Closed,
}

/// Queues to the threads that write, one a stream.
struct Bond {
    main: mpsc::Sender<Bytes>,
    lanes: Vec<(u8, mpsc::Sender<Bytes>)>,
    /// Whose turn it is: 0 is the main stream's.
    turn: usize,
}

/// Where in the frames a stream of bytes is.
#[derive(Debug, Default)]
pub(super) struct Place {
    head: [u8; HEADER],
    have: usize,
    left: usize,
}

impl Place {
    fn is_boundary(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Goes over bytes up to the next end of a frame at most; returns how many.
    fn advance(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let count = self.left.min(bytes.len() - at);
                self.left -= count;
                at += count;
            } else {
                self.head[self.have] = bytes[at];
                (self.have, at) = (self.have + 1, at + 1);
                if self.have < HEADER {
                    continue;
                }
                let (_, length) = decode_head(self.head)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                (self.have, self.left) = (0, length);
            }
            if self.is_boundary() {
                break;
            }
        }
        Ok(at)
    }
}

impl Writing {
    pub(super) fn new(output: LaneOutput) -> Self {
        Self { main: Main::Plain(output), place: Place::default(), greeted: false }
    }

    /// Says whether something that is no part of the copy may be said here.
    fn is_free(&self) -> bool {
        self.greeted && self.place.is_boundary()
    }

    /// Does what was ordered, if a frame ends here.
    fn take_orders(&mut self, shared: &Shared) -> io::Result<()> {
        if !self.is_free() {
            return Ok(());
        }
        let orders = std::mem::take(&mut *lock(&shared.orders));
        if let Main::Plain(output) = &mut self.main {
            let mut words = orders.words;
            if !orders.lanes.is_empty() {
                LaneWord::Bonded.encode(&mut words);
            }
            if !words.is_empty() {
                output.write_all(&words)?;
                output.flush()?;
            }
        }
        if orders.lanes.is_empty() {
            return Ok(());
        }
        self.main = match std::mem::replace(&mut self.main, Main::Closed) {
            Main::Plain(output) => {
                let main = writing_thread(shared, output, WAITING_HEADS)?;
                Main::Bonded(Bond { main, lanes: Vec::new(), turn: 0 })
            }
            main => main,
        };
        if let Main::Bonded(bond) = &mut self.main {
            for (number, output) in orders.lanes {
                bond.lanes.push((number, writing_thread(shared, output, WAITING)?));
            }
        }
        Ok(())
    }

    fn write(&mut self, shared: &Shared, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let ordered = !lock(&shared.orders).is_empty();
            if ordered {
                self.take_orders(shared)?;
            }
            match &mut self.main {
                Main::Bonded(bond) => {
                    for block in bytes.chunks(MAX_LANE_BLOCK) {
                        bond.deal(block)?;
                    }
                    return Ok(());
                }
                Main::Plain(output) => {
                    let mut count = self.place.advance(bytes)?;
                    // Frame by frame only if something is to be said between two.
                    while count < bytes.len() && !ordered {
                        count += self.place.advance(&bytes[count..])?;
                    }
                    output.write_all(&bytes[..count])?;
                    self.greeted |= self.place.is_boundary();
                    bytes = &bytes[count..];
                }
                Main::Closed => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        Ok(())
    }
}

impl Bond {
    /// Hands a block to the next stream that has room, else waits for the one whose turn it is.
    fn deal(&mut self, bytes: &[u8]) -> io::Result<()> {
        let streams = self.lanes.len() + 1;
        let chosen = if bytes.len() < SHORT {
            0
        } else {
            let turns = (0..streams).map(|step| (self.turn + step) % streams);
            let chosen = turns.into_iter().find(|stream| self.has_room(*stream)).unwrap_or(self.turn);
            self.turn = (chosen + 1) % streams;
            chosen
        };
        let lane = chosen.checked_sub(1).map(|index| &self.lanes[index]);
        let mut head = BytesMut::with_capacity(HEADER + if lane.is_none() { bytes.len() } else { 0 });
        head.put_slice(&encode_block_head(lane.map_or(0, |(number, _)| *number), bytes.len()));
        if lane.is_none() {
            head.put_slice(bytes);
        }
        send(&self.main, head.freeze())?;
        lane.map_or(Ok(()), |(_, lane)| send(lane, Bytes::copy_from_slice(bytes)))
    }

    /// The main stream has the heads of all blocks: it is not to be kept busy with one of its own.
    fn has_room(&self, stream: usize) -> bool {
        match stream.checked_sub(1).map(|index| &self.lanes[index]) {
            None => self.main.capacity() == self.main.max_capacity(),
            Some((_, lane)) => lane.capacity() > 0,
        }
    }
}

fn send(queue: &mpsc::Sender<Bytes>, bytes: Bytes) -> io::Result<()> {
    queue.blocking_send(bytes).map_err(|_| {
        io::Error::new(io::ErrorKind::BrokenPipe, "a stream of the copy ended before the copy did")
    })
}

/// Starts a thread that writes what it is handed, until that ends or cannot be written.
fn writing_thread(shared: &Shared, mut output: LaneOutput, room: usize) -> io::Result<mpsc::Sender<Bytes>> {
    let (queue, mut blocks) = mpsc::channel::<Bytes>(room);
    let thread = std::thread::Builder::new().name("copy-lane".to_owned()).spawn(move || {
        while let Some(block) = blocks.blocking_recv() {
            if let Err(error) = output.write_all(&block).and_then(|()| output.flush()) {
                tracing::debug!(%error, "a stream of a copy takes no more");
                break;
            }
        }
    })?;
    lock(&shared.threads).push(thread);
    Ok(queue)
}

impl LaneWriter {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Write for LaneWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.shared.writing).write(&self.shared, bytes)?;
        self.shared.count(bytes.len());
        // Ordered while it was held, by somebody who did not wait for it.
        obey(&self.shared)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut lock(&self.shared.writing).main {
            Main::Plain(output) => output.flush(),
            Main::Bonded(_) | Main::Closed => Ok(()),
        }
    }
}

impl Drop for LaneWriter {
    fn drop(&mut self) {
        lock(&self.shared.writing).main = Main::Closed;
    }
}

/// Does what was ordered, unless somebody is writing, who will.
fn obey(shared: &Shared) -> io::Result<()> {
    while !lock(&shared.orders).is_empty() {
        let mut writing = match shared.writing.try_lock() {
            Ok(writing) => writing,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        if !writing.is_free() {
            return Ok(());
        }
        writing.take_orders(shared)?;
    }
    Ok(())
}

impl LaneHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Says something about lanes as soon as a frame ends, but never first. May block, if nobody else is writing, while the pipe is full.
    pub fn say(&self, word: &LaneWord) {
        word.encode(&mut lock(&self.shared.orders).words);
        self.obey();
    }

    /// Writes over another lane from now on. As [`LaneHandle::say`], it may block.
    pub fn write_over(&self, lane: u8, output: impl Write + Send + 'static) {
        lock(&self.shared.orders).lanes.push((lane, Box::new(output)));
        self.obey();
    }

    /// Reads what the other end sends over a lane.
    pub fn read_over(&self, lane: u8, input: impl io::Read + Send + 'static) {
        let input: LaneInput = Box::new(input);
        self.shared.arrive(lane, input);
    }

    /// Nobody will open lanes any more.
    pub fn give_up(&self) {
        self.shared.give_up();
    }

    /// Waits until the copy is large: some megabytes have passed, either way. For one waiter.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn large(&self) {
        self.shared.large.notified().await;
    }

    /// Waits until everything is written; the [`LaneWriter`] was dropped before.
    pub fn finish(&self) {
        self.give_up();
        let threads = std::mem::take(&mut *lock(&self.shared.threads));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of a copy panicked");
            }
        }
    }

    fn obey(&self) {
        // If it cannot be written, whoever writes next learns it.
        if let Err(error) = obey(&self.shared) {
            tracing::debug!(%error, "the other end of a copy takes no more");
        }
    }
}
