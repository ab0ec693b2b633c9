//! Pipes between a thread of a copy and tasks: blocking on one side, async on the other, bounded.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// The reading end of a thread; a task feeds it through a channel. The channel's end is the end of the bytes.
#[derive(Debug)]
pub struct PipeReader {
    blocks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

/// The writing end of a thread; a task takes blocks out of the channel.
#[derive(Debug, Clone)]
pub struct PipeWriter(mpsc::Sender<Bytes>);

impl PipeReader {
    /// Makes a pipe that holds so many blocks; the task gets the other end.
    pub fn new(blocks: usize) -> (mpsc::Sender<Bytes>, Self) {
        let (feed, blocks) = mpsc::channel(blocks);
        (feed, Self { blocks, current: Bytes::new() })
    }
}

impl PipeWriter {
    /// Makes a pipe that holds so many blocks; the task gets the other end.
    pub fn new(blocks: usize) -> (Self, mpsc::Receiver<Bytes>) {
        let (feed, blocks) = mpsc::channel(blocks);
        (Self(feed), blocks)
    }
}

impl Read for PipeReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.blocks.blocking_recv() {
                Some(block) => self.current = block,
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.current.len());
        self.current.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let block = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(block).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
