//! A copy from one machine to another: what they say to each other passes through here.

use std::io::{Read, Write};
use std::sync::Arc;

use super::leg::{Leg, panicked};
use crate::error::Error;
use crate::exec::copy::{
    CopyError, CopyObserver, CopyWatch, LaneReader, LaneWriter, PipeReader, Roots, SinkTotals,
};

/// How much is passed from one machine to another at once.
const PASSED: usize = 256 * 1024;

/// Ties two machines together: nothing of what they say to each other is kept here.
pub(super) async fn relay(
    (source, from_source, to_source): (Leg, LaneReader<PipeReader>, LaneWriter),
    (sink, from_sink, to_sink): (Leg, LaneReader<PipeReader>, LaneWriter),
    asked: Roots,
    observer: Arc<dyn CopyObserver>,
) -> Result<(SinkTotals, u64), Error> {
    let (from, to) = (source.machine.clone(), sink.machine.clone());
    let (source_watch, sink_watch) = CopyWatch::pair(observer, asked);
    let said = sink_watch.clone();
    // They end with their pipes.
    let there = forwarding(move || forward(from_source, to_sink, source_watch));
    let back = forwarding(move || forward(from_sink, to_source, sink_watch));
    let result = tokio::try_join!(source.pass(), sink.pass(), there, back);
    if let Some(outcome) = said.outcome() {
        return Ok(outcome);
    }
    if let Err(Error::Copy(error @ CopyError::Unasked { .. })) = result {
        // Whatever else the source says of it.
        return Err(error.into());
    }
    if let Some(failure) = said.failure() {
        return Err(failure.into());
    }
    let (source, sink, (), ()) = result?;
    // One of them ended early; the other then had nobody to talk to.
    Err(match sink.end.shell_status() {
        0 | 1 => source.into_error(&from),
        _ => sink.into_error(&to),
    }
    .into())
}

/// Waits for a thread that passes one direction on. That a pipe broke is no failure: each leg still has its say.
async fn forwarding(forward: impl FnOnce() -> Result<(), CopyError> + Send + 'static) -> Result<(), Error> {
    match tokio::task::spawn_blocking(forward).await {
        Ok(Ok(()) | Err(CopyError::Broken(_))) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Err(panic) => Err(panicked(&panic)),
    }
}

/// Passes one direction on, to its end.
fn forward(mut from: LaneReader<PipeReader>, to: LaneWriter, mut watch: CopyWatch) -> Result<(), CopyError> {
    let mut block = vec![0; PASSED];
    // One that takes no more has ended, or will say why.
    let mut to = Some(to);
    loop {
        let count = from.read(&mut block).map_err(CopyError::Broken)?;
        if count == 0 {
            return Ok(());
        }
        watch.see(&block[..count])?;
        if to.as_mut().is_some_and(|to| to.write_all(&block[..count]).is_err()) {
            to = None;
        }
    }
}
