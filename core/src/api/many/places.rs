//! Who is reached, and who runs, when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use malai_model::wire::local::TargetOutcome;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::target::{self, Work};
use super::{AfterFailure, ManyEvent, ManyOrder};

/// How many machines are being reached at once, at most. Those that do not answer take their time side by side.
const REACHING: usize = 256;
/// For so long those that come later in the list do not overtake a machine that is still being reached, where there are
/// fewer places than machines: on an ordinary network commands begin in the order of the list.
const NO_OVERTAKING: Duration = Duration::from_millis(500);

/// What a machine's task says of itself.
pub(super) enum Step {
    /// It is reached and waits for its place.
    Ready(oneshot::Sender<()>),
    /// It is over.
    Ended(TargetOutcome),
}

/// Says a step of the machine with that number.
pub(super) type Steps = mpsc::UnboundedSender<(usize, Step)>;

/// Lets every machine be reached and run, at most so many at once, until all are over.
pub(super) async fn give(work: Arc<Work>, mut senders: VecDeque<mpsc::Sender<Vec<ManyEvent>>>) {
    let (tell, mut steps) = mpsc::unbounded_channel();
    let machines = work.targets.len();
    let mut board = Board::new(machines, &work);
    while board.over < machines {
        while board.reaching.len() < REACHING
            && let Some(events) = senders.pop_front()
        {
            let number = machines - senders.len() - 1;
            board.reaching.insert(number);
            work.scope.spawn("target", target::drive(Arc::clone(&work), number, events, tell.clone()));
        }
        while let Some(go) = board.next() {
            // Gone: it was given up, and says so itself.
            _ = go.send(());
        }
        let step = match board.wake_at() {
            None => steps.recv().await,
            Some(at) => match tokio::time::timeout_at(at, steps.recv()).await {
                Ok(step) => step,
                Err(_) => continue,
            },
        };
        // It never is `None`: a sender is kept here.
        let Some((number, step)) = step else { return };
        match step {
            Step::Ready(go) => {
                board.reaching.remove(&number);
                board.ready.insert(number, go);
            }
            Step::Ended(outcome) => {
                board.end(number);
                if outcome != TargetOutcome::Ok && work.request.after_failure == AfterFailure::Stop {
                    work.scope.stop();
                }
            }
        }
    }
}

/// Who is where.
struct Board {
    reaching: BTreeSet<usize>,
    ready: BTreeMap<usize, oneshot::Sender<()>>,
    running: BTreeSet<usize>,
    over: usize,
    places: usize,
    /// From then on whoever is ready runs; absent: nobody ever overtakes.
    overtaking_from: Option<Instant>,
}

impl Board {
    fn new(machines: usize, work: &Work) -> Self {
        let places = work.request.concurrency.max(1);
        let now = Instant::now();
        Self {
            reaching: BTreeSet::new(),
            ready: BTreeMap::new(),
            running: BTreeSet::new(),
            over: 0,
            places,
            overtaking_from: match work.request.order {
                _ if places >= machines => Some(now),
                // The output of a machine that overtook would wait for one that waits for its place.
                ManyOrder::ByTarget => None,
                ManyOrder::Arrival => Some(now + NO_OVERTAKING),
            },
        }
    }

    /// The next that may run, if one may.
    fn next(&mut self) -> Option<oneshot::Sender<()>> {
        let first = *self.ready.first_key_value()?.0;
        if self.running.len() >= self.places || (self.is_overtaking(first) && !self.may_overtake()) {
            return None;
        }
        self.running.insert(first);
        self.ready.remove(&first)
    }

    fn is_overtaking(&self, number: usize) -> bool {
        self.reaching.first().is_some_and(|earlier| *earlier < number)
    }

    fn may_overtake(&self) -> bool {
        self.overtaking_from.is_some_and(|at| at <= Instant::now())
    }

    /// When somebody may run for whom nothing but time is missing.
    fn wake_at(&self) -> Option<Instant> {
        let waits = self.running.len() < self.places && !self.ready.is_empty();
        self.overtaking_from.filter(|_| waits && !self.may_overtake())
    }

    fn end(&mut self, number: usize) {
        self.reaching.remove(&number);
        self.ready.remove(&number);
        self.running.remove(&number);
        self.over += 1;
    }
}
