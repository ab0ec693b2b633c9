//! This process's stdin, stdout and stderr, read and written on threads: a terminal or a pipe that pauses must not stop
//! the network.

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

/// Reads stdin on a thread, up to its end or a failure; so many blocks are read ahead.
pub(crate) fn stdin(ahead: usize) -> mpsc::Receiver<Bytes> {
    let (blocks, waiting) = mpsc::channel(ahead);
    // The thread is never joined: a read of a terminal cannot be interrupted, and the process ends soon.
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut block = vec![0; STDIN_BLOCK];
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

/// Writes output on a thread.
pub(crate) struct Writer {
    blocks: Option<mpsc::Sender<(Target, Bytes)>>,
    done: oneshot::Receiver<std::io::Result<()>>,
}

impl Writer {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (blocks, mut waiting) = mpsc::channel::<(Target, Bytes)>(WAITING_BLOCKS);
        let (tell, done) = oneshot::channel();
        // Not `std::io::stdout()`: it would hold back a line that is not finished yet.
        let mut stdout = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
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
        Ok(Self { blocks: Some(blocks), done })
    }

    /// Hands over a block. False when stdout takes nothing more.
    pub(crate) async fn write(&self, target: Target, block: Bytes) -> bool {
        match &self.blocks {
            Some(blocks) => blocks.send((target, block)).await.is_ok(),
            None => false,
        }
    }

    /// Waits until everything is written. Returns the status to end with if nobody reads stdout any more: `malai
    /// web01.company yes | head` ends both, as in a local pipe.
    pub(crate) async fn finish(&mut self) -> Result<Option<u8>, Failure> {
        self.blocks = None;
        match (&mut self.done).await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Failure::local("write the output", &error))
            }
            Ok(Err(_)) | Err(_) => Ok(Some(BROKEN_PIPE)),
        }
    }
}
