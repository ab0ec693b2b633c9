//! The bytes of one direction of a stream in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use malai_model::id::Id52;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, Sleep};

use super::{Link, Pipes, Session, World, lock};
use crate::p2p::raw::RawEnd;

/// Unread bytes of one stream, as a QUIC stack's default window.
const WINDOW: usize = 1_250_000;

/// One direction of a stream.
#[derive(Debug, Default)]
struct Pipe {
    /// What is under way, with the instant at which it arrives.
    bytes: VecDeque<(Instant, Bytes)>,
    length: usize,
    finished: bool,
    reset: Option<u32>,
    stopped: Option<u32>,
}

/// The sending end.
#[derive(Debug)]
pub(in crate::p2p) struct PipeSend {
    world: Arc<Mutex<World>>,
    session: Arc<Session>,
    pipe: Arc<Mutex<Pipe>>,
    /// As in QUIC, the peer learns of a stream with the first thing that is sent on it.
    announce: Option<Box<(UnboundedSender<Pipes>, Pipes)>>,
}

/// The receiving end.
#[derive(Debug)]
pub(in crate::p2p) struct PipeRecv {
    world: Arc<Mutex<World>>,
    session: Arc<Session>,
    pipe: Arc<Mutex<Pipe>>,
    reader: Id52,
    sleep: Option<std::pin::Pin<Box<Sleep>>>,
}

pub(super) fn pipe(link: &Link, reader: Id52) -> (PipeSend, PipeRecv) {
    let pipe = Arc::new(Mutex::new(Pipe::default()));
    let (world, session) = (link.world.clone(), link.session.clone());
    (
        PipeSend { world: world.clone(), session: session.clone(), pipe: pipe.clone(), announce: None },
        PipeRecv { world, session, pipe, reader, sleep: None },
    )
}

fn lock_pipe(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PipeSend {
    /// Hands the peer's ends over as soon as something is sent.
    pub(super) fn announce_with(&mut self, open: UnboundedSender<Pipes>, pipes: Pipes) {
        self.announce = Some(Box::new((open, pipes)));
    }

    fn announce(&mut self) {
        if let Some(announce) = self.announce.take() {
            let (open, pipes) = *announce;
            // Nobody accepts when the connection is closed, and then every use of the stream says so.
            let _closed = open.send(pipes);
        }
    }

    pub(in crate::p2p) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<(), RawEnd>> {
        let mut world = lock(&self.world);
        let mut pipe = lock_pipe(&self.pipe);
        if self.session.reason().is_some() {
            return Poll::Ready(Err(RawEnd::Lost));
        }
        if let Some(code) = pipe.stopped {
            return Poll::Ready(Err(RawEnd::Code(code)));
        }
        let room = WINDOW.saturating_sub(pipe.length).min(bytes.len());
        if room == 0 {
            world.wait(cx);
            return Poll::Pending;
        }
        pipe.length += room;
        let arrives = Instant::now() + world.delay;
        pipe.bytes.push_back((arrives, bytes.split_to(room)));
        world.wake();
        drop((pipe, world));
        self.announce();
        Poll::Ready(Ok(()))
    }

    pub(in crate::p2p) fn finish(&mut self) {
        lock_pipe(&self.pipe).finished = true;
        lock(&self.world).wake();
        self.announce();
    }

    pub(in crate::p2p) fn reset(&mut self, code: u32) {
        {
            let mut pipe = lock_pipe(&self.pipe);
            if !(pipe.finished && pipe.bytes.is_empty()) {
                pipe.reset.get_or_insert(code);
                pipe.bytes.clear();
            }
        }
        lock(&self.world).wake();
        self.announce();
    }

    /// In memory, what arrived is acknowledged when it is read.
    pub(in crate::p2p) fn acknowledged(&self) -> impl Future<Output = Result<(), RawEnd>> + Send + 'static {
        let (world, session, pipe) = (self.world.clone(), self.session.clone(), self.pipe.clone());
        std::future::poll_fn(move |cx| {
            let mut world = lock(&world);
            let pipe = lock_pipe(&pipe);
            if let Some(code) = pipe.stopped {
                return Poll::Ready(Err(RawEnd::Code(code)));
            }
            if pipe.finished && pipe.bytes.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if session.reason().is_some() {
                return Poll::Ready(Err(RawEnd::Lost));
            }
            world.wait(cx);
            Poll::Pending
        })
    }
}

impl Drop for PipeSend {
    fn drop(&mut self) {
        // As in QUIC: what was written is still delivered.
        if lock_pipe(&self.pipe).reset.is_none() {
            self.finish();
        }
    }
}

impl PipeRecv {
    pub(in crate::p2p) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<Result<usize, RawEnd>> {
        loop {
            let mut world = lock(&self.world);
            let mut pipe = lock_pipe(&self.pipe);
            if self.session.reason().is_some() {
                return Poll::Ready(Err(RawEnd::Lost));
            }
            let parted = self.session.is_silent() || world.parted.contains(&self.session.pair);
            if parted || world.stalled.contains(&self.reader) {
                world.wait(cx);
                return Poll::Pending;
            }
            if let Some(code) = pipe.reset {
                return Poll::Ready(Err(RawEnd::Code(code)));
            }
            let now = Instant::now();
            let mut read = 0;
            let left = world.left.get(&self.session.pair).copied();
            if left == Some(0) {
                world.left.remove(&self.session.pair);
                drop((pipe, world));
                self.session.lose(&self.world);
                return Poll::Ready(Err(RawEnd::Lost));
            }
            while let Some((arrives, bytes)) = pipe.bytes.front_mut() {
                let mut room = (buffer.capacity() - buffer.len()).min(bytes.len());
                room = room.min(left.map_or(room, |left| left - read));
                if *arrives > now || room == 0 {
                    break;
                }
                buffer.extend_from_slice(&bytes[..room]);
                bytes.advance(room);
                read += room;
                if bytes.is_empty() {
                    pipe.bytes.pop_front();
                }
            }
            pipe.length -= read;
            if let Some(left) = world.left.get_mut(&self.session.pair) {
                *left -= read;
            }
            if read > 0 || (pipe.finished && pipe.bytes.is_empty()) {
                world.wake();
                return Poll::Ready(Ok(read));
            }
            world.wait(cx);
            let Some(arrives) = pipe.bytes.front().map(|(arrives, _)| *arrives) else { return Poll::Pending };
            drop(pipe);
            drop(world);
            let sleep = self.sleep.insert(Box::pin(tokio::time::sleep_until(arrives)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    pub(in crate::p2p) fn stop(&mut self, code: u32) {
        lock_pipe(&self.pipe).stopped.get_or_insert(code);
        lock(&self.world).wake();
    }
}

impl Drop for PipeRecv {
    fn drop(&mut self) {
        let done = {
            let pipe = lock_pipe(&self.pipe);
            (pipe.finished && pipe.bytes.is_empty()) || pipe.reset.is_some()
        };
        if !done {
            self.stop(0);
        }
    }
}
