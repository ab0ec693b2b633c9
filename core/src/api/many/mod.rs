//! One command on many machines: whom it is run on, how many at once, and what comes of it.
//!
//! Every machine is reached first, many at once, so that those that do not answer hold up nobody; only then does it take
//! one of the places for running commands. Of the output a bounded amount waits for whoever takes it: who takes nothing
//! makes the commands wait.

mod lines;
mod places;
mod target;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use malai_model::targets::SelectedMachine;
use tokio::sync::mpsc;

use super::{Client, ManyEnd, SingleWord};
use crate::cluster::ClusterError;
use crate::error::Error;
use crate::node::{NodeError, Reading};
use crate::task::Scope;

pub use lines::{LINE_LIMIT, LinePart};

/// How many batches of lines may wait in all, or, when each machine has its turn, of one machine.
const WAITING_BATCHES: usize = 32;
const WAITING_BATCHES_OF_ONE: usize = 16;

/// What to run, on whom, and how.
#[derive(Debug, Clone)]
pub struct ManyRequest {
    /// Patterns, groups, addresses, aliases of one address.
    pub targets: Vec<String>,
    /// The program's words.
    pub words: Vec<String>,
    /// What a single word with blanks means.
    pub single_word: SingleWord,
    /// `TERM`, `LANG` and `LC_*` of the caller.
    pub env: BTreeMap<String, String>,
    /// How many programs may run at once; at least one does.
    pub concurrency: usize,
    /// How long the program may run on each machine; absent: for ever.
    pub timeout: Option<Duration>,
    /// What happens after the first machine where it did not go well.
    pub after_failure: AfterFailure,
    /// In which order output comes.
    pub order: ManyOrder,
    /// What every program reads from stdin.
    pub input: Bytes,
}

impl ManyRequest {
    /// How many programs run at once unless somebody says otherwise.
    pub const CONCURRENCY: usize = 128;

    /// Runs a program's words on targets, with nothing on stdin.
    pub fn new(targets: Vec<String>, words: Vec<String>) -> Self {
        Self {
            targets,
            words,
            single_word: SingleWord::default(),
            env: BTreeMap::new(),
            concurrency: Self::CONCURRENCY,
            timeout: None,
            after_failure: AfterFailure::GoOn,
            order: ManyOrder::Arrival,
            input: Bytes::new(),
        }
    }
}

/// What happens after the first machine where it did not go well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// The others go on.
    GoOn,
    /// No other begins, and those that run are hung up.
    Stop,
}

/// In which order output comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManyOrder {
    /// As it comes.
    Arrival,
    /// Everything of one machine, then everything of the next. A machine whose turn has not come may get some hundred
    /// kilobytes ahead, or a few thousand lines; then its program waits.
    ByTarget,
}

/// Which stream of a program a line is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What happened. Machines are numbered as in [`ManyRun::targets`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManyEvent {
    /// The program runs there.
    Started {
        /// Where.
        target: usize,
    },
    /// A line of output.
    Line {
        /// From where.
        target: usize,
        /// Of which stream.
        stream: OutputStream,
        /// Its bytes, whatever they are, without the newline; at most [`LINE_LIMIT`].
        text: Bytes,
        /// How much of the line it is.
        part: LinePart,
    },
    /// It is over there; nothing of this machine follows. Comes exactly once for each.
    Ended {
        /// Where.
        target: usize,
        /// How.
        end: ManyEnd,
    },
}

/// A command that runs on many machines. Dropping it hangs up what runs.
#[derive(Debug)]
pub struct ManyRun {
    targets: Arc<[SelectedMachine]>,
    /// One for all machines, or one for each, in their order.
    events: VecDeque<mpsc::Receiver<Vec<ManyEvent>>>,
    scope: Scope,
}

impl ManyRun {
    /// The machines, each once, by cluster, then by name.
    pub fn targets(&self) -> &[SelectedMachine] {
        &self.targets
    }

    /// Waits for what happens next: never nothing; `None` when all is over.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost.
    pub async fn next_batch(&mut self) -> Option<Vec<ManyEvent>> {
        while let Some(events) = self.events.front_mut() {
            if let Some(batch) = events.recv().await {
                return Some(batch);
            }
            self.events.pop_front();
        }
        None
    }

    /// Gives up: no other machine begins, and those that run are hung up. How each ended still comes.
    pub fn stop(&self) {
        self.scope.stop();
    }

    /// Gives up from elsewhere, while somebody waits for what happens.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.scope.clone())
    }
}

/// Gives up a [`ManyRun`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stopper(Scope);

impl Stopper {
    /// As [`ManyRun::stop`].
    pub fn stop(&self) {
        self.0.stop();
    }
}

impl Drop for ManyRun {
    fn drop(&mut self) {
        self.scope.stop();
    }
}

impl Client {
    /// Finds the machines that some words mean: `web*.company`, `@admins.company`, addresses, aliases of an address. Each
    /// once, by cluster, then by name. What the config in force does not know the manager is asked for, once.
    ///
    /// # Errors
    /// When a word means no machine that this device may reach.
    pub async fn select_targets(&self, words: &[String]) -> Result<Vec<SelectedMachine>, Error> {
        let node = self.route().node().await?;
        let error = match node.select(words, Reading::Known).await {
            Ok(selected) => return Ok(selected),
            Err(error) => error,
        };
        let NodeError::Cluster(ClusterError::Targets(problem)) = &error else { return Err(error.into()) };
        let Some(cluster) = problem.cluster().cloned() else { return Err(error.into()) };
        match self.sync(Some(cluster)).await {
            Ok(synced) if synced.iter().any(|cluster| cluster.error.is_none()) => {
                Ok(node.select(words, Reading::Fresh).await?)
            }
            unasked => {
                tracing::debug!(?unasked, "the manager could not be asked");
                Err(error.into())
            }
        }
    }

    /// Runs a program on many machines.
    ///
    /// # Errors
    /// When the targets mean no machines. What goes wrong on a machine is an event.
    ///
    /// # Cancel safety
    /// Dropped before it returns, nothing has been started.
    pub async fn run_many(&self, request: ManyRequest) -> Result<ManyRun, Error> {
        let targets: Arc<[SelectedMachine]> = self.select_targets(&request.targets).await?.into();
        let scope = Scope::new();
        let (senders, events) = channels(request.order, targets.len());
        let work = Arc::new(target::Work {
            route: self.route().clone(),
            request,
            targets: Arc::clone(&targets),
            scope: scope.clone(),
        });
        scope.spawn("many", places::give(work, senders));
        Ok(ManyRun { targets, events, scope })
    }
}

type Senders = VecDeque<mpsc::Sender<Vec<ManyEvent>>>;
type Receivers = VecDeque<mpsc::Receiver<Vec<ManyEvent>>>;

/// A sender for each machine, and what they lead to.
fn channels(order: ManyOrder, machines: usize) -> (Senders, Receivers) {
    match order {
        ManyOrder::Arrival => {
            let (sender, receiver) = mpsc::channel(WAITING_BATCHES);
            ((0..machines).map(|_| sender.clone()).collect(), VecDeque::from([receiver]))
        }
        ManyOrder::ByTarget => (0..machines).map(|_| mpsc::channel(WAITING_BATCHES_OF_ONE)).unzip(),
    }
}
