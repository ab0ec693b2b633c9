//! Copying: which machine does what, and the bytes between them.

mod lanes;
mod leg;
mod place;
mod relay;
mod request;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use malai_model::code::ErrorCode;
use malai_model::wire::local::{CopyProblemView, CopyView, RunRequest, SingleWord};

use self::lanes::{Direction, Lanes};
use self::leg::{Leg, local};
use self::relay::relay;
use self::request::{Group, groups};
use super::Client;
use crate::error::Error;
use crate::exec::RunningCommand;
use crate::exec::copy::{
    CopyError, CopyObserver, CopyProblem, CopyProgress, CopyRole, LaneReader, LaneWriter, PathLinks,
    PipeReader, PipeWriter, Roots, ServeRequest, SinkTotals, SourceRequest, run_sink, run_source,
};

pub use self::lanes::CopyStreams;
pub use self::place::CopyPlace;
pub use self::request::CopyRequest;

/// Blocks between a thread of the copy and the network.
const WAITING_BLOCKS: usize = 4;
/// How many problems a view lists.
const LISTED: usize = 1000;

/// Says of which machine a problem is, and keeps the first ones.
struct Collector {
    inner: Arc<dyn CopyObserver>,
    source: String,
    sink: String,
    kept: Arc<Mutex<Vec<CopyProblemView>>>,
}

impl CopyObserver for Collector {
    fn problem(&self, problem: &CopyProblem) {
        let label = match problem.side {
            CopyRole::Source => &self.source,
            CopyRole::Sink => &self.sink,
        };
        let path = match label.as_str() {
            "" => problem.path.clone(),
            label => format!("{label}:{}", problem.path),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < LISTED {
            let message = problem.message.clone();
            kept.push(CopyProblemView { code: problem.code, path: path.clone(), message });
        }
        drop(kept);
        self.inner.problem(&CopyProblem { path, ..problem.clone() });
    }

    fn progress(&self, progress: &CopyProgress) {
        self.inner.progress(progress);
    }
}

impl Client {
    /// Copies files and trees to, from or between machines. The right needed on each is that of a command `malai-cp`.
    ///
    /// What is left of a copy that was interrupted is used by the next one. Nothing outside the destination is written.
    ///
    /// # Errors
    /// When it cannot be done as a whole. What could not be copied while the rest was is in [`CopyView::warnings`].
    ///
    /// # Cancel safety
    /// Dropped, both ends stop; files that are not whole yet stay as they were.
    pub async fn copy(
        &self,
        request: CopyRequest,
        observer: Arc<dyn CopyObserver>,
    ) -> Result<CopyView, Error> {
        request.check()?;
        let started = Instant::now();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let mut view = CopyView::default();
        for group in groups(&request.sources) {
            let source = match &group {
                Group::Here(_) => String::new(),
                Group::There { address, .. } => address.clone(),
            };
            let sink = request.destination.label().to_owned();
            let collector = Arc::new(Collector { inner: observer.clone(), source, sink, kept: kept.clone() });
            let (totals, source_problems) = self.copy_group(&request, group, collector).await?;
            view.files = view.files.saturating_add(totals.files);
            view.skipped = view.skipped.saturating_add(totals.skipped);
            view.bytes = view.bytes.saturating_add(totals.bytes);
            view.resumed_bytes = view.resumed_bytes.saturating_add(totals.resumed);
            view.deleted = view.deleted.saturating_add(totals.deleted);
            view.failed = view.failed.saturating_add(totals.problems).saturating_add(source_problems);
        }
        view.warnings = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
        view.seconds = started.elapsed().as_secs_f64();
        Ok(view)
    }

    async fn copy_group(
        &self,
        request: &CopyRequest,
        group: Group,
        observer: Arc<dyn CopyObserver>,
    ) -> Result<(SinkTotals, u64), Error> {
        let asked = match &group {
            Group::Here(paths) | Group::There { paths, .. } => Roots::of(paths),
        };
        let sink = request.sink(asked.clone());
        let source = |roots| SourceRequest { roots, links: request.links, path_links: PathLinks::Follow };
        match (group, &request.destination) {
            (Group::Here(roots), CopyPlace::There { address, .. }) => {
                let command = self.start(address, &ServeRequest::Put(sink), request).await?;
                let (leg, reader, writer) = self.leg(address, command, Direction::ToMachine, request);
                let source = source(roots);
                local(leg, move || run_source(reader, writer, source, observer)).await
            }
            (Group::There { address, paths }, CopyPlace::Here(_)) => {
                let command = self.start(&address, &ServeRequest::Get(source(paths)), request).await?;
                let (leg, reader, writer) = self.leg(&address, command, Direction::FromMachine, request);
                local(leg, move || run_sink(reader, writer, sink, observer)).await
            }
            (Group::There { address: from, paths }, CopyPlace::There { address: to, .. }) => {
                let source = ServeRequest::Get(source(paths));
                let sink = ServeRequest::Put(sink);
                let (source, sink) =
                    tokio::try_join!(self.start(&from, &source, request), self.start(to, &sink, request))?;
                let source = self.leg(&from, source, Direction::FromMachine, request);
                let sink = self.leg(to, sink, Direction::ToMachine, request);
                relay(source, sink, asked, observer).await
            }
            (Group::Here(_), CopyPlace::Here(_)) => Err(Error::OutOfTurn),
        }
    }

    /// Makes pipes for threads here that lead to a program there.
    fn leg(
        &self,
        machine: &str,
        command: RunningCommand,
        direction: Direction,
        request: &CopyRequest,
    ) -> (Leg, LaneReader<PipeReader>, LaneWriter) {
        let (feed, reader) = PipeReader::new(WAITING_BLOCKS);
        let (writer, drain) = PipeWriter::new(WAITING_BLOCKS);
        let rtt = command.control.rtt();
        let (lanes, reader, writer) =
            Lanes::wrap(self.route(), machine, direction, request, rtt, (reader, writer));
        (Leg { machine: machine.to_owned(), command, feed, drain, lanes }, reader, writer)
    }

    /// Starts the other end.
    async fn start(
        &self,
        address: &str,
        request: &ServeRequest,
        copy: &CopyRequest,
    ) -> Result<RunningCommand, Error> {
        let mut words = vec![address.to_owned()];
        words.extend(request.to_words()?);
        let run = RunRequest { words, single_word: SingleWord::Keep, env: copy.env.clone() };
        self.run(run).await.map_err(|error| match error.code() {
            ErrorCode::CommandNotFound => CopyError::Older { machine: address.to_owned() }.into(),
            _ => error,
        })
    }
}
