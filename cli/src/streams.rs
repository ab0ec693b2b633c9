//! This process's stdin, stdout and stderr, read and written on threads: a terminal or a pipe that pauses must not stop
//! the network.

use std::fs::File;
use std::os::fd::AsFd;

use malai_core::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::error::Failure;
use crate::pipes;

/// How many blocks may wait for a slow terminal or pipe.
pub(crate) const WAITING_BLOCKS: usize = 4;
/// How much is read of stdin at once, in bytes.
pub(crate) const STDIN_BLOCK: usize = 64 * 1024;
/// The status that a shell shows for death by SIGPIPE.
pub(crate) const BROKEN_PIPE: u8 = 128 + 13;

/// Reads stdin on a thread, up to its end or a failure; so many blocks are read ahead, at least one.
pub(crate) fn stdin(ahead: usize) -> mpsc::Receiver<Bytes> {
    let (blocks, waiting) = mpsc::channel(ahead);
    let mut block = vec![0; STDIN_BLOCK];
    // For nothing (`< /dev/null`, as in most scripts) no thread is worth its start.
    if pipes::never_waits(&std::io::stdin()) {
        match pipes::read(&mut std::io::stdin().lock(), &mut block) {
            // The channel is new: it has room.
            Ok(count @ 1..) => _ = blocks.try_send(Bytes::copy_from_slice(&block[..count])),
            Ok(0) | Err(_) => return waiting,
        }
    }
    // The thread is never joined: a read of a terminal cannot be interrupted, and the process ends soon.
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        while let Ok(count @ 1..) = pipes::read(&mut stdin, &mut block) {
            if blocks.blocking_send(Bytes::copy_from_slice(&block[..count])).is_err() {
                return;
            }
        }
    });
    waiting
}

/// Where a block goes.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    Stdout,
    Stderr,
}

/// Writes output on a thread, which starts with the first of it.
pub(crate) struct Writer {
    /// Until the thread has it. Not `std::io::stdout()`: it would hold back a line that is not finished yet.
    stdout: Option<File>,
    thread: Option<Thread>,
}

struct Thread {
    blocks: mpsc::Sender<(Target, Bytes)>,
    done: oneshot::Receiver<std::io::Result<()>>,
}

impl Writer {
    pub(crate) fn new() -> std::io::Result<Self> {
        let stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { stdout: Some(stdout), thread: None })
    }

    /// Hands over a block. False when stdout takes nothing more.
    pub(crate) async fn write(&mut self, target: Target, block: Bytes) -> bool {
        if let Some(stdout) = self.stdout.take() {
            self.thread = Some(Thread::start(stdout));
        }
        match &self.thread {
            Some(thread) => thread.blocks.send((target, block)).await.is_ok(),
            None => false,
        }
    }

    /// Waits until everything is written; nothing is after that. Returns the status to end with if nobody reads stdout
    /// any more: `malai web01.company yes | head` ends both, as in a local pipe.
    pub(crate) async fn finish(&mut self) -> Result<Option<u8>, Failure> {
        self.stdout = None;
        let Some(Thread { blocks, done }) = self.thread.take() else { return Ok(None) };
        drop(blocks);
        match done.await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Failure::local("write the output", &error))
            }
            Ok(Err(_)) | Err(_) => Ok(Some(BROKEN_PIPE)),
        }
    }
}

impl Thread {
    fn start(mut stdout: File) -> Self {
        let (blocks, mut waiting) = mpsc::channel::<(Target, Bytes)>(WAITING_BLOCKS);
        let (tell, done) = oneshot::channel();
        let mut stderr = std::io::stderr();
        std::thread::spawn(move || {
            let mut written = Ok(());
            while let (Ok(()), Some((target, block))) = (&written, waiting.blocking_recv()) {
                match target {
                    Target::Stdout => written = pipes::write_all(&mut stdout, &block),
                    // Whoever closed stderr does not want it.
                    Target::Stderr => _ = pipes::write_all(&mut stderr, &block),
                }
            }
            // With the word comes the end of taking blocks. If nobody asks for it this process is about to end.
            drop((waiting, stdout));
            _ = tell.send(written);
        });
        Self { blocks, done }
    }
}
