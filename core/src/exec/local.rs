//! A command on this very device: the same process as a peer would get, without a network in between.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use malai_model::wire::{CommandEnd, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

use super::target::{READ_BLOCK, SEND_PIECE};
use super::{CommandEvent, ExecError};
use crate::host::{HostError, Process, ProcessGroup, ProcessInput, ProcessOutput};

/// Feeds a local command's stdin. Dropping it is EOF.
#[derive(Debug)]
pub(crate) struct LocalInput(Mutex<Option<ProcessInput>>);

/// Signals a local command while it runs.
#[derive(Debug, Clone)]
pub(crate) struct LocalControl(Arc<std::sync::Mutex<Option<Arc<ProcessGroup>>>>);

/// Yields a local command's output and its end.
#[derive(Debug)]
pub(crate) struct LocalOutput {
    stdout: Pipe,
    stderr: Pipe,
    group: Option<Arc<ProcessGroup>>,
    control: LocalControl,
}

#[derive(Debug)]
struct Pipe {
    output: Option<ProcessOutput>,
    block: BytesMut,
}

pub(crate) fn split(process: Process) -> (LocalInput, LocalOutput, LocalControl) {
    let Process { stdin, stdout, stderr, group } = process;
    let group = Arc::new(group);
    let control = LocalControl(Arc::new(std::sync::Mutex::new(Some(Arc::clone(&group)))));
    let output = LocalOutput {
        stdout: Pipe::new(stdout),
        stderr: Pipe::new(stderr),
        group: Some(group),
        control: control.clone(),
    };
    (LocalInput(Mutex::new(Some(stdin))), output, control)
}

impl LocalInput {
    pub(crate) async fn write(&self, bytes: &[u8]) {
        let mut stdin = self.0.lock().await;
        if let Some(pipe) = stdin.as_mut()
            && let Err(error) = pipe.write_all(bytes).await
        {
            tracing::debug!(%error, "the command does not read its stdin any more");
            *stdin = None;
        }
    }

    pub(crate) async fn end(&self) {
        *self.0.lock().await = None;
    }
}

impl LocalControl {
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), HostError> {
        // Under the lock, not on a clone: who gives the group up has to be the last to hold it, or it would be killed.
        let group = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        group.as_ref().map_or(Ok(()), |group| group.signal(signal))
    }
}

impl LocalOutput {
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<CommandEvent, ExecError> {
        tokio::select! {
            Some(bytes) = self.stdout.next() => return Ok(CommandEvent::Stdout(bytes)),
            Some(bytes) = self.stderr.next() => return Ok(CommandEvent::Stderr(bytes)),
            else => {}
        }
        let Some(group) = &self.group else { return Err(ExecError::Ended) };
        let end = group.wait().await?;
        self.let_go().await?;
        Ok(CommandEvent::Ended(end))
    }

    /// Gives the group up without killing what the command left in the background.
    async fn let_go(&mut self) -> Result<Option<CommandEnd>, HostError> {
        *self.control.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        match self.group.take().and_then(Arc::into_inner) {
            Some(group) => group.finish().await.map(Some),
            None => Ok(None),
        }
    }
}

impl Pipe {
    fn new(output: ProcessOutput) -> Self {
        Self { output: Some(output), block: BytesMut::new() }
    }

    /// Waits for bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let pipe = self.output.as_mut()?;
        if self.block.capacity() < SEND_PIECE {
            self.block = BytesMut::with_capacity(READ_BLOCK);
        }
        match pipe.read_buf(&mut self.block).await {
            Ok(count) if count > 0 => Some(self.block.split().freeze()),
            Ok(_) | Err(_) => {
                self.output = None;
                None
            }
        }
    }
}
