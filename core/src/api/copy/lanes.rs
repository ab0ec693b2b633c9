//! Further streams for a copy to or from one machine.

use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use malai_model::wire::copy::lanes::{JOINED, LaneHello, LaneKey, LaneWord, MAX_STREAMS};
use malai_model::wire::local::{RunRequest, SingleWord};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::leg::pass;
use super::{CopyRequest, WAITING_BLOCKS};
use crate::api::Route;
use crate::error::Error;
use crate::exec::copy::{
    CopyError, LaneHandle, LaneReader, LaneWriter, PipeReader, PipeWriter, ServeRequest, lanes,
};
use crate::exec::{CommandEvent, RunningCommand};
use crate::timeouts;

/// A round trip from which on one stream is likely slower than the network.
const LONG_ROUND_TRIP: Duration = Duration::from_millis(10);
/// How many streams are used then.
const SEVERAL: u8 = 4;

/// How many streams a copy to or from one machine uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CopyStreams {
    /// Several when the copy is large and the round trip long, else one.
    #[default]
    ByRoundTrip,
    /// So many, at most 16, from the beginning, if the machine can and its rules admit them.
    Exactly(NonZeroU8),
}

/// Where the files' bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    ToMachine,
    FromMachine,
}

/// What opens the lanes to one machine.
pub(super) struct Lanes {
    opener: Opener,
    streams: CopyStreams,
    /// The round trip when the main stream was opened.
    rtt: Duration,
    ready: oneshot::Receiver<LaneKey>,
    several: Arc<AtomicBool>,
}

/// What each lane's task needs.
#[derive(Clone)]
struct Opener {
    route: Route,
    machine: String,
    env: BTreeMap<String, String>,
    direction: Direction,
    handle: LaneHandle,
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.opener.handle.give_up();
    }
}

impl Lanes {
    /// Wraps the pipes of the main stream.
    pub(super) fn wrap(
        route: &Route,
        machine: &str,
        direction: Direction,
        request: &CopyRequest,
        rtt: Duration,
        (reader, writer): (PipeReader, PipeWriter),
    ) -> (Self, LaneReader<PipeReader>, LaneWriter) {
        let (tell, ready) = oneshot::channel();
        let mut tell = Some(tell);
        let (reader, writer, handle) = lanes(reader, writer, move |_, word| {
            if let LaneWord::Ready(key) = word
                && let Some(tell) = tell.take()
            {
                _ = tell.send(key);
            }
        });
        let opener = Opener {
            route: route.clone(),
            machine: machine.to_owned(),
            env: request.env.clone(),
            direction,
            handle,
        };
        (Self { opener, streams: request.streams, rtt, ready, several: Arc::default() }, reader, writer)
    }

    /// Becomes true when there is a lane.
    pub(super) fn several(&self) -> Arc<AtomicBool> {
        self.several.clone()
    }

    /// Opens lanes when they are worth it and carries what goes over them. Returns only if one of them fails, with
    /// which the copy has failed.
    ///
    /// # Cancel safety
    /// Dropped, the lanes are hung up.
    pub(super) async fn carry(&mut self, rtt_now: impl Fn() -> Duration) -> Error {
        match self.open(rtt_now).await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    async fn open(&mut self, rtt_now: impl Fn() -> Duration) -> Option<Error> {
        let streams = match self.streams {
            CopyStreams::Exactly(streams) => streams.get(),
            CopyStreams::ByRoundTrip => {
                self.opener.handle.large().await;
                // Under load it looks longer than it is, and so it may right after connecting.
                let rtt = self.rtt.min(rtt_now());
                if rtt < LONG_ROUND_TRIP { 1 } else { SEVERAL }
            }
        };
        let lanes = streams.min(MAX_STREAMS) - 1;
        if lanes == 0 {
            return None;
        }
        let handle = self.opener.handle.clone();
        // It may wait for a pipe.
        tokio::task::spawn_blocking(move || handle.say(&LaneWord::Wanted { lanes })).await.ok()?;
        // An older far end says nothing.
        let key = (&mut self.ready).await.ok()?;
        // One first: where the rules do not admit it, they admit none.
        let first = self.opener.join(&key, 1).await?;
        self.several.store(true, Ordering::Relaxed);
        let mut running = JoinSet::new();
        let opener = self.opener.clone();
        running.spawn(async move { opener.carry(first, 1).await });
        for lane in 2..=lanes {
            let (opener, key) = (self.opener.clone(), key.clone());
            running.spawn(async move {
                match opener.join(&key, lane).await {
                    Some(joined) => opener.carry(joined, lane).await,
                    None => Ok(()),
                }
            });
        }
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Some(error),
                Err(panic) => {
                    tracing::error!(%panic, "a task of a copy panicked");
                    return Some(CopyError::Panicked.into());
                }
            }
        }
        None
    }
}

/// A lane that is let in, and what came over it already.
struct Joined {
    command: RunningCommand,
    first: Bytes,
}

impl Opener {
    /// Opens a lane; without it the copy goes on.
    async fn join(&self, key: &LaneKey, lane: u8) -> Option<Joined> {
        match self.try_join(key, lane).await {
            Ok(Some(joined)) => {
                tracing::debug!(machine = self.machine, lane, "another stream for a copy");
                return Some(joined);
            }
            Ok(None) => tracing::debug!(machine = self.machine, lane, "a stream could not join its copy"),
            Err(error) => tracing::debug!(machine = self.machine, lane, %error, "no other stream for a copy"),
        }
        None
    }

    async fn try_join(&self, key: &LaneKey, lane: u8) -> Result<Option<Joined>, Error> {
        let mut words = vec![self.machine.clone()];
        words.extend(ServeRequest::Lane.to_words()?);
        let run = RunRequest { words, single_word: SingleWord::Keep, env: self.env.clone() };
        // Boxed: what a task is made of has a limit.
        let starting: Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(self.route.run(run));
        let mut command = starting.await?;
        let hello = LaneHello { key: key.clone(), lane }.encode();
        command.input.write(Bytes::copy_from_slice(&hello)).await?;
        let answer = async {
            loop {
                match command.output.next().await? {
                    CommandEvent::Stdout(mut bytes) if bytes.first() == Some(&JOINED) => {
                        bytes.advance(1);
                        return Ok::<_, Error>(Some(bytes));
                    }
                    CommandEvent::Stderr(_) => {}
                    CommandEvent::Stdout(_) | CommandEvent::Ended(_) => return Ok(None),
                }
            }
        };
        let Ok(first) = tokio::time::timeout(timeouts::REPLY, answer).await else { return Ok(None) };
        Ok(first?.map(|first| Joined { command, first }))
    }

    /// Carries what goes over a lane, to its end.
    async fn carry(&self, joined: Joined, lane: u8) -> Result<(), Error> {
        let Joined { command: RunningCommand { input, output, control: _control }, first } = joined;
        let (feed, reader) = PipeReader::new(WAITING_BLOCKS);
        let (writer, drain) = PipeWriter::new(WAITING_BLOCKS);
        match self.direction {
            Direction::ToMachine => {
                let handle = self.handle.clone();
                // It may wait for a pipe. Nothing comes back over a lane: its reader is dropped here.
                let given = tokio::task::spawn_blocking(move || handle.write_over(lane, writer)).await;
                given.map_err(|_| CopyError::Panicked)?;
            }
            Direction::FromMachine => {
                drop(writer);
                self.handle.read_over(lane, reader);
                send_first(&feed, first).await;
            }
        }
        let ended = pass(input, output, feed, drain).await?;
        match ended.end.shell_status() {
            0 => Ok(()),
            status => {
                let stderr = ended.stderr.trim().to_owned();
                Err(CopyError::LaneEnded { machine: self.machine.clone(), status, stderr }.into())
            }
        }
    }
}

async fn send_first(feed: &mpsc::Sender<Bytes>, first: Bytes) {
    if !first.is_empty() {
        // If it is over here, nobody needs it.
        _ = feed.send(first).await;
    }
}
