//! Copying: which machine does what, and the bytes between them.

mod lanes;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use malai_model::code::ErrorCode;
use malai_model::wire::CommandEnd;
use malai_model::wire::local::{CopyProblemView, CopyView, RunRequest, SingleWord};
use tokio::sync::mpsc;

use self::lanes::{Direction, Lanes};
use super::Client;
use crate::error::Error;
use crate::exec::copy::{
    Compare, CopyError, CopyObserver, CopyProblem, CopyProgress, CopyRole, CopyWatch, Extraneous, LaneReader,
    LaneWriter, Links, PipeReader, PipeWriter, ServeRequest, SinkRequest, SinkTotals, SourceRequest,
    run_sink, run_source,
};
use crate::exec::{CommandEvent, CommandInput, CommandOutput, RunningCommand};
use crate::timeouts;

pub use self::lanes::CopyStreams;

/// Blocks between a thread of the copy and the network.
const WAITING_BLOCKS: usize = 4;
/// How many problems a view lists.
const LISTED: usize = 1000;
/// How much of a program's stderr is kept.
const STDERR_KEPT: usize = 1024;
/// How much is passed from one machine to another at once.
const PASSED: usize = 256 * 1024;
/// How long a stream that broke a copy may take to say why.
const REASON: Duration = Duration::from_millis(300);

/// Where something is copied from or to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyPlace {
    /// On this device.
    Here(PathBuf),
    /// On a machine; the path is relative to the home of the user that commands run as.
    There {
        /// The machine.
        address: String,
        /// The path.
        path: String,
    },
}

/// What to copy.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    /// From where.
    pub sources: Vec<CopyPlace>,
    /// To where. As with `cp`: an existing directory, or a path with a slash at the end, is copied into.
    pub destination: CopyPlace,
    /// What becomes of what the destination has and the source has not.
    pub extraneous: Extraneous,
    /// When a file that is there is taken to be the same.
    pub compare: Compare,
    /// What becomes of symbolic links.
    pub links: Links,
    /// Over how many streams.
    pub streams: CopyStreams,
    /// `TERM`, `LANG` and `LC_*` of the caller.
    pub env: BTreeMap<String, String>,
}

impl CopyPlace {
    /// Reads `address:path` or a local path. A local path with a `:` in its first part is written `./a:b`.
    ///
    /// # Errors
    /// When a user is named, which the config decides, or a path cannot be sent.
    pub fn parse(word: &OsStr) -> Result<Self, CopyError> {
        let bytes = word.as_bytes();
        let first = bytes.split(|byte| *byte == b'/').next().unwrap_or_default();
        let Some(colon) = first.iter().position(|byte| *byte == b':').filter(|at| *at > 0) else {
            return match bytes {
                [] => Err(usage("an empty path", None)),
                _ => Ok(Self::Here(PathBuf::from(word))),
            };
        };
        let Some(text) = word.to_str() else {
            return Err(usage("a remote path that is no UTF-8", Some("copy the directory that it is in")));
        };
        let (address, path) = (&text[..colon], &text[colon + 1..]);
        if address.contains('@') {
            let hint = "write `address:path`: the cluster's config says as which user commands run";
            return Err(usage(&format!("{address}: no user can be named"), Some(hint)));
        }
        Ok(Self::There { address: address.to_owned(), path: remote_path(path)? })
    }

    fn label(&self) -> &str {
        match self {
            Self::Here(_) => "",
            Self::There { address, .. } => address,
        }
    }
}

/// Makes what a shell would of a path: the program starts in the user's home and knows no `~`.
fn remote_path(path: &str) -> Result<String, CopyError> {
    Ok(match path {
        "" | "~" => ".".to_owned(),
        "~/" => "./".to_owned(),
        _ => match (path.strip_prefix("~/"), path.as_bytes()[0]) {
            (Some(inside), _) => relative(inside.trim_start_matches('/')),
            (None, b'~') => {
                let hint = "write the whole path; a file whose name begins with ~ is ./~name";
                return Err(usage(&format!("{path}: homes of other users are not looked up"), Some(hint)));
            }
            (None, _) => relative(path),
        },
    })
}

/// Keeps a path from looking like an option.
fn relative(path: &str) -> String {
    match path {
        "" => "./".to_owned(),
        _ if path.starts_with('-') => format!("./{path}"),
        _ => path.to_owned(),
    }
}

fn usage(message: &str, hint: Option<&str>) -> CopyError {
    CopyError::Usage { message: message.to_owned(), hint: hint.map(str::to_owned) }
}

/// Sources of one place, copied in one go.
enum Group {
    Here(Vec<PathBuf>),
    There { address: String, paths: Vec<PathBuf> },
}

fn groups(sources: &[CopyPlace]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for source in sources {
        match (groups.last_mut(), source) {
            (Some(Group::Here(paths)), CopyPlace::Here(path)) => paths.push(path.clone()),
            (Some(Group::There { address, paths }), CopyPlace::There { address: same, path })
                if address == same =>
            {
                paths.push(path.into());
            }
            (_, CopyPlace::Here(path)) => groups.push(Group::Here(vec![path.clone()])),
            (_, CopyPlace::There { address, path }) => {
                groups.push(Group::There { address: address.clone(), paths: vec![path.into()] });
            }
        }
    }
    groups
}

impl CopyRequest {
    fn check(&self) -> Result<(), CopyError> {
        let here = |place: &CopyPlace| matches!(place, CopyPlace::Here(_));
        if self.sources.is_empty() {
            return Err(usage("nothing is named that could be copied", None));
        }
        if here(&self.destination) && self.sources.iter().any(here) {
            let hint = "name a machine as `web01.company:path`; within this device, use cp";
            return Err(usage("both places are on this device", Some(hint)));
        }
        if self.extraneous == Extraneous::Delete && self.sources.len() > 1 {
            return Err(usage(
                "deleting needs a single source, to which the destination is made equal",
                None,
            ));
        }
        Ok(())
    }

    /// The destination's path; with several sources it is a directory.
    fn sink(&self) -> SinkRequest {
        let mut destination = match &self.destination {
            CopyPlace::Here(path) => path.clone().into_os_string(),
            CopyPlace::There { path, .. } => path.into(),
        };
        if self.sources.len() > 1 && !destination.as_bytes().ends_with(b"/") {
            destination.push("/");
        }
        SinkRequest { destination: destination.into(), extraneous: self.extraneous, compare: self.compare }
    }
}

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
            view.files += totals.files;
            view.skipped += totals.skipped;
            view.bytes += totals.bytes;
            view.resumed_bytes += totals.resumed;
            view.deleted += totals.deleted;
            view.failed += totals.problems + source_problems;
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
        let sink = request.sink();
        let source = |roots| SourceRequest { roots, links: request.links };
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
                relay(source, sink, observer).await
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

/// How a program that ran one end ended, and the last that it said on stderr.
struct Ended {
    end: CommandEnd,
    stderr: String,
}

impl Ended {
    fn into_error(self, machine: &str) -> CopyError {
        match self.end.shell_status() {
            127 => CopyError::Older { machine: machine.to_owned() },
            status => CopyError::Ended {
                machine: machine.to_owned(),
                status,
                stderr: self.stderr.trim().to_owned(),
            },
        }
    }
}

fn keep_stderr(kept: &mut Vec<u8>, bytes: &[u8]) {
    kept.extend_from_slice(bytes);
    let excess = kept.len().saturating_sub(STDERR_KEPT);
    kept.drain(..excess);
}

/// The way to the program on one machine, of which threads here have the other end.
struct Leg {
    machine: String,
    command: RunningCommand,
    feed: mpsc::Sender<Bytes>,
    drain: mpsc::Receiver<Bytes>,
    lanes: Lanes,
}

impl Leg {
    /// Passes bytes until the program ends, over as many streams as are worth it.
    async fn pass(self) -> Result<Ended, Error> {
        let Self { machine: _, command, feed, drain, mut lanes } = self;
        let RunningCommand { input, output, control } = command;
        let several = lanes.several();
        let mut passing = pin!(pass(input, output, feed, drain));
        let mut carrying = pin!(lanes.carry(|| control.rtt()));
        let ended = tokio::select! {
            ended = &mut passing => ended?,
            error = &mut carrying => return Err(error),
        };
        if ended.end.shell_status() != 0
            && several.load(Ordering::Relaxed)
            && let Ok(error) = tokio::time::timeout(REASON, carrying).await
        {
            // It ended for the sake of a lane, which says more.
            return Err(error);
        }
        Ok(ended)
    }
}

/// Runs one end on a thread here, and passes bytes between it and the program that is the other.
async fn local<E>(leg: Leg, end: E) -> Result<(SinkTotals, u64), Error>
where
    E: FnOnce() -> Result<(SinkTotals, u64), CopyError> + Send + 'static,
{
    let machine = leg.machine.clone();
    // It ends with its pipes.
    let mut end = tokio::task::spawn_blocking(end);
    let passed;
    let outcome;
    {
        let mut passing = pin!(leg.pass());
        tokio::select! {
            done = &mut passing => {
                passed = Some(done);
                outcome = None;
            }
            done = &mut end => {
                outcome = Some(done);
                passed = tokio::time::timeout(timeouts::REPLY, passing).await.ok();
            }
        }
    }
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => end.await,
    };
    match (outcome, passed) {
        (Ok(Ok(copied)), _) => Ok(copied),
        // The pipe broke; what broke it says more.
        (Ok(Err(CopyError::Broken(_))), Some(Err(error))) => Err(error),
        (Ok(Err(CopyError::Broken(_))), Some(Ok(ended))) => Err(ended.into_error(&machine).into()),
        (Ok(Err(error)), _) => Err(error.into()),
        (Err(panic), _) => Err(panicked(&panic)),
    }
}

fn panicked(panic: &tokio::task::JoinError) -> Error {
    tracing::error!(%panic, "a thread of a copy panicked");
    CopyError::Panicked.into()
}

/// Passes bytes both ways until the program ends. When it does, both pipes are closed.
async fn pass(
    input: CommandInput,
    output: CommandOutput,
    feed: mpsc::Sender<Bytes>,
    drain: mpsc::Receiver<Bytes>,
) -> Result<Ended, Error> {
    let sending = async move {
        let mut drain = drain;
        while let Some(block) = drain.recv().await {
            // That it does not arrive shows at the output.
            if let Err(error) = input.write(block).await {
                tracing::debug!(%error, "the other end of a copy takes no more");
                break;
            }
        }
        if let Err(error) = input.end().await {
            tracing::debug!(%error, "the other end of a copy is gone");
        }
        // Kept: a program that has not read everything may not be told that its caller is gone.
        input
    };
    let receiving = async move {
        let (mut output, mut stderr) = (output, Vec::new());
        loop {
            match output.next().await? {
                // If it is over here, what comes is of no use, but its end is.
                CommandEvent::Stdout(bytes) => _ = feed.send(bytes).await,
                CommandEvent::Stderr(bytes) => keep_stderr(&mut stderr, &bytes),
                CommandEvent::Ended(end) => {
                    return Ok(Ended { end, stderr: String::from_utf8_lossy(&stderr).into_owned() });
                }
            }
        }
    };
    let (sending, mut receiving) = (pin!(sending), pin!(receiving));
    tokio::select! {
        ended = &mut receiving => ended,
        _input = sending => receiving.await,
    }
}

/// Ties two machines together: nothing of what they say to each other is kept here.
async fn relay(
    (source, from_source, to_source): (Leg, LaneReader<PipeReader>, LaneWriter),
    (sink, from_sink, to_sink): (Leg, LaneReader<PipeReader>, LaneWriter),
    observer: Arc<dyn CopyObserver>,
) -> Result<(SinkTotals, u64), Error> {
    let (from, to) = (source.machine.clone(), sink.machine.clone());
    let (source_watch, sink_watch) = CopyWatch::pair(observer);
    let said = sink_watch.clone();
    // They end with their pipes.
    let there = forwarding(move || forward(from_source, to_sink, source_watch));
    let back = forwarding(move || forward(from_sink, to_source, sink_watch));
    let result = tokio::try_join!(source.pass(), sink.pass(), there, back);
    if let Some(outcome) = said.outcome() {
        return Ok(outcome);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(word: &str) -> CopyPlace {
        CopyPlace::parse(word.as_ref()).expect("is a place")
    }

    fn there(path: &str) -> CopyPlace {
        CopyPlace::There { address: "web01.company".to_owned(), path: path.to_owned() }
    }

    #[test]
    fn a_place_is_on_a_machine_if_a_colon_stands_before_any_slash() {
        for (word, path) in [
            ("web01.company:/srv/", "/srv/"),
            ("web01.company:", "."),
            ("web01.company:~", "."),
            ("web01.company:~/", "./"),
            ("web01.company:~/x", "x"),
            ("web01.company:~//etc", "etc"),
            ("web01.company:a:b", "a:b"),
            ("web01.company:-rf", "./-rf"),
            ("web01.company:~/-rf", "./-rf"),
            ("web01.company:./~x", "./~x"),
        ] {
            assert_eq!(parse(word), there(path), "{word}");
        }
        for word in ["file", "./a:b", "/a:b", "dir/a:b", ":a", "-"] {
            assert_eq!(parse(word), CopyPlace::Here(word.into()), "{word}");
        }
        for (word, of) in
            [("root@web01.company:/x", "user"), ("web01.company:~root/x", "homes"), ("", "empty")]
        {
            let error = CopyPlace::parse(word.as_ref()).expect_err("is none");
            assert!(error.to_string().contains(of), "{error}");
        }
    }

    #[test]
    fn sources_of_one_machine_are_copied_in_one_go_and_need_a_directory() {
        let request = CopyRequest {
            sources: ["a", "b", "web01.company:c", "web01.company:d", "e"].map(parse).to_vec(),
            destination: parse("db01.company:/srv"),
            extraneous: Extraneous::Keep,
            compare: Compare::Times,
            links: Links::Keep,
            streams: CopyStreams::ByRoundTrip,
            env: BTreeMap::new(),
        };
        assert_eq!(groups(&request.sources).len(), 3);
        assert_eq!(request.sink().destination.to_str(), Some("/srv/"));
        let delete = CopyRequest { extraneous: Extraneous::Delete, ..request.clone() };
        assert!(delete.check().is_err());
        let here = CopyRequest { destination: parse("x"), ..request };
        assert!(here.check().is_err());
    }
}
