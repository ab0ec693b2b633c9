//! Files of two directions that are waited for one direction at a time.
//!
//! A socket or terminal that is registered for both directions wakes its process whenever the other side has *taken*
//! something, which is news only to a writer that waits for room. On the way of a key from a terminal to a machine and
//! back there were eight such wake-ups beside the ten that carry it.

#[cfg(feature = "host")]
mod halves;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

#[cfg(feature = "host")]
pub(crate) use halves::{ReadHalf, WriteHalf};

/// A file that does not block. Room for more is waited for only while a writer needs it.
///
/// One task may wait to read and one to write at a time.
#[derive(Debug)]
pub struct TwoWay<F: AsRawFd> {
    file: AsyncFd<F>,
    room: Mutex<Room>,
}

/// How room is waited for.
#[derive(Debug)]
enum Room {
    NotNeeded,
    /// By a second descriptor of the same file, registered for writing.
    Told(AsyncFd<OwnedFd>),
    /// There is no descriptor to be had just now: by looking again. It is no failure of the file's.
    Looked(Pin<Box<Sleep>>),
}

/// How often room is looked for where the system has no descriptor to tell of it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Whether a read that succeeded may have left something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It got less than it had room for, of a stream: when more comes, that is told anew.
    Nothing,
    /// Only another read can tell.
    Perhaps,
}

impl<F: AsFd + AsRawFd> TwoWay<F> {
    /// Takes a file that does not block. Needs a runtime with IO and time.
    ///
    /// # Errors
    /// What the system says, if such a file cannot be waited for.
    pub fn new(file: F) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "the file must stay the same as long as it is registered")]
        // SAFETY: the `AsyncFd` owns the file, which is handed out by shared reference alone.
        let file = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }?;
        Ok(Self { file, room: Mutex::new(Room::NotNeeded) })
    }

    /// The file.
    pub fn file(&self) -> &F {
        self.file.get_ref()
    }

    /// Runs `read` when there may be something, until it says other than `WouldBlock`.
    pub fn poll_read_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&F) -> io::Result<(T, Left)>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut ready = ready!(self.file.poll_read_ready(cx))?;
            match read(self.file.get_ref()) {
                Ok((value, left)) => {
                    if left == Left::Nothing {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(value));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Runs `write`, now and whenever there is room, until it says other than `WouldBlock`.
    pub fn poll_write_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&F) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let mut room = self.room();
        loop {
            match write(self.file.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if matches!(*room, Room::NotNeeded) {
                        *room = self.registered_to_write().map_or_else(
                            |_| Room::Looked(Box::pin(tokio::time::sleep(LOOK_EVERY))),
                            Room::Told,
                        );
                    }
                    // What was ready is tried by the next turn.
                    match &mut *room {
                        Room::NotNeeded => {}
                        Room::Told(waiting) => ready!(waiting.poll_write_ready(cx))?.clear_ready(),
                        Room::Looked(sleep) => {
                            ready!(sleep.as_mut().poll(cx));
                            *room = Room::NotNeeded;
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => {
                    *room = Room::NotNeeded;
                    return Poll::Ready(done);
                }
            }
        }
    }

    fn registered_to_write(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let again = self.file.get_ref().as_fd().try_clone_to_owned()?;
        #[expect(unsafe_code, reason = "the file must stay the same as long as it is registered")]
        // SAFETY: the `AsyncFd` owns the descriptor, which was made for it.
        let registered = unsafe { AsyncFd::register_with_interest(again, Interest::WRITABLE) };
        Ok(registered?)
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as [`Self::poll_read_with`]. Cancel safe.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn read_with<T>(&self, mut read: impl FnMut(&F) -> io::Result<(T, Left)>) -> io::Result<T> {
        poll_fn(|cx| self.poll_read_with(cx, &mut read)).await
    }

    /// Waits as [`Self::poll_write_with`]. Cancel safe.
    ///
    /// # Errors
    /// Those of `write`.
    pub async fn write_with<T>(&self, mut write: impl FnMut(&F) -> io::Result<T>) -> io::Result<T> {
        poll_fn(|cx| self.poll_write_with(cx, &mut write)).await
    }
}

/// A connected Unix socket.
pub(crate) type UnixSocket = TwoWay<std::os::unix::net::UnixStream>;

impl UnixSocket {
    /// Takes over a socket of the runtime's.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn from_tokio(stream: tokio::net::UnixStream) -> io::Result<Self> {
        Self::new(stream.into_std()?)
    }

    /// Reads into the free part of a buffer, at most so many bytes.
    pub(crate) fn poll_read_buf(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, |stream| {
            let free = buffer.spare_capacity_mut();
            let room = free.len().min(most);
            let (read, _) = rustix::io::read(stream, &mut free[..room])?;
            let count = read.len();
            #[expect(unsafe_code, reason = "the buffer cannot know what a system call put into it")]
            // SAFETY: the call initialised `count` bytes behind what the buffer had.
            unsafe {
                buffer.set_len(buffer.len() + count);
            }
            Ok((count, left_behind(count, room)))
        })
    }

    /// Writes what the socket takes.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |mut stream| match slices {
            [only] => io::Write::write(&mut stream, only),
            several => io::Write::write_vectored(&mut stream, several),
        })
    }
}

/// What a read of `count` bytes with that much room leaves. The end is no news that would come again.
fn left_behind(count: usize, room: usize) -> Left {
    if (1..room).contains(&count) { Left::Nothing } else { Left::Perhaps }
}

#[cfg(test)]
#[cfg(feature = "host")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    fn pair() -> ((ReadHalf, WriteHalf), (ReadHalf, WriteHalf)) {
        let (left, right) = UnixStream::pair().expect("a pair");
        let halves = |stream| UnixSocket::from_tokio(stream).expect("is taken over").halves();
        (halves(left), halves(right))
    }

    #[tokio::test]
    async fn everything_arrives_both_ways_whoever_waits_for_whom() {
        let ((mut read, mut write), (mut far_read, mut far_write)) = pair();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        let sending = async {
            for piece in bytes.chunks(70_001) {
                write.write_all(piece).await.expect("is written");
            }
            write.shutdown().await.expect("is ended");
        };
        let reflecting = async {
            let mut block = vec![0; 50_000];
            loop {
                match far_read.read(&mut block).await.expect("reads") {
                    0 => break,
                    count => far_write.write_all(&block[..count]).await.expect("is written"),
                }
                // So that both sides get ahead of the other by turns.
                tokio::task::yield_now().await;
            }
            drop(far_write);
        };
        let mut all = Vec::new();
        let taking = async { read.read_to_end(&mut all).await };
        let all_of_it = async { tokio::join!(sending, reflecting, taking).2 };
        tokio::time::timeout(Duration::from_secs(30), all_of_it).await.expect("ends").expect("reads");
        assert!(all == bytes);
    }

    #[tokio::test]
    async fn a_writer_that_waits_hears_of_room_and_of_the_end() {
        let ((_read, write), (mut far_read, far_write)) = pair();
        let full = async {
            let mut count = 0;
            loop {
                let now = std::future::poll_fn(|cx| {
                    Poll::Ready(write.0.poll_write(cx, &[IoSlice::new(&[7; 4096])]).is_ready())
                });
                if !now.await {
                    return count;
                }
                count += 1;
            }
        };
        let written = full.await;
        assert!(written > 0 && matches!(*write.0.room(), Room::Told(_)), "{written}");
        let mut write = write;
        let mut block = vec![0; 64 * 1024];
        let waits = tokio::spawn(async move {
            write.write_all(&[8; 10_000]).await.expect("there is room again");
            assert!(matches!(*write.0.room(), Room::NotNeeded), "room is not waited for any more");
            let mut error = None;
            while error.is_none() {
                error = write.write_all(&[9; 4096]).await.err();
            }
            error
        });
        for _ in 0..4 {
            assert!(far_read.read(&mut block).await.expect("reads") > 0);
        }
        drop((far_read, far_write));
        let error = tokio::time::timeout(Duration::from_secs(30), waits).await.expect("ends").expect("joins");
        assert_eq!(error.map(|error| error.kind()), Some(io::ErrorKind::BrokenPipe));
    }

    #[tokio::test]
    async fn a_writer_without_a_descriptor_to_spare_loses_nothing() {
        let ((_read, mut write), (mut far_read, _far_write)) = pair();
        // As if the system had none: what is looked at again and again is the file itself.
        *write.0.room() = Room::Looked(Box::pin(tokio::time::sleep(LOOK_EVERY)));
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        let sending = async {
            for piece in bytes.chunks(100_000) {
                let mut left = piece;
                while !left.is_empty() {
                    let none = matches!(*write.0.room(), Room::NotNeeded);
                    if none {
                        *write.0.room() = Room::Looked(Box::pin(tokio::time::sleep(LOOK_EVERY)));
                    }
                    let count = write.write(left).await.expect("is written");
                    left = &left[count..];
                }
            }
            drop(write);
        };
        let mut all = Vec::new();
        let both = async { tokio::join!(sending, far_read.read_to_end(&mut all)).1 };
        tokio::time::timeout(Duration::from_secs(30), both).await.expect("ends").expect("reads");
        assert!(all == bytes);
    }

    #[tokio::test]
    async fn an_end_behind_a_short_read_is_seen() {
        let ((mut read, _write), (_far_read, mut far_write)) = pair();
        far_write.write_all(b"abc").await.expect("is written");
        drop(far_write);
        let mut all = Vec::new();
        let reading = tokio::time::timeout(Duration::from_secs(10), read.read_to_end(&mut all));
        reading.await.expect("ends").expect("reads");
        assert_eq!(all, b"abc");
    }
}
