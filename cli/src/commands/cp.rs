//! `malai cp`, and the program at the other end of it.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use malai_core::api::{
    Compare, CopyObserver, CopyPlace, CopyProblem, CopyProgress, CopyRequest, CopyStreams, CopyView,
    Extraneous, Links, PathLinks, ServeRequest,
};
use malai_core::model::code::ErrorCode;
use malai_core::model::text::escape_control;

use super::{Context, Outcome};
use crate::args::CpArgs;
use crate::error::Failure;
use crate::output::{DONE, FAILED, OWN_FAILURE, Output, USAGE};
use crate::signals::{Signals, number};

/// How large the pipes of a copy's far end are made: what a user may have without asking, and a chunk.
const PIPE: usize = 1024 * 1024;
/// How wide a line of progress may be: any terminal has so much.
const WIDTH: usize = 78;

/// Copies files and trees.
pub(crate) async fn cp(context: &Context, args: &CpArgs) -> Outcome {
    let request = request(context, args)?;
    let screen = Arc::new(Screen {
        output: context.output.clone(),
        progress: context.env.stderr_is_terminal && !args.quiet,
        // With --json they are in the data.
        lines: !context.global.json,
        state: Mutex::new(State { started: Instant::now(), shown: false }),
    });
    let mut signals = Signals::listen().map_err(|error| Failure::local("listen for signals", &error))?;
    let client = context.client().await?;
    let copied = tokio::select! {
        copied = client.copy(request, screen.clone()) => Some(copied),
        signal = signals.next() => {
            tracing::debug!(?signal, "the copy is given up; what is there of it is used by the next one");
            screen.clear();
            // The other end learns at once that nobody waits for it.
            client.close().await;
            return Ok(128 + number(signal));
        }
    };
    client.close().await;
    screen.clear();
    let view = match copied {
        Some(copied) => copied?,
        None => return Ok(FAILED),
    };
    let failed = view.failed > 0;
    if screen.progress && screen.lines {
        context.output.note(&summary(&view));
    }
    if context.global.json {
        context.output.json(&view);
    }
    Ok(if failed { FAILED } else { DONE })
}

/// The status of a copy that failed as a whole.
pub(crate) fn status(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::Usage => USAGE,
        ErrorCode::CopyStorage | ErrorCode::CopyOutside | ErrorCode::CopyMismatch => FAILED,
        _ => OWN_FAILURE,
    }
}

fn request(context: &Context, args: &CpArgs) -> Result<CopyRequest, Failure> {
    let mut places =
        args.paths.iter().map(|word| CopyPlace::parse(word)).collect::<Result<Vec<_>, _>>().map_err(fail)?;
    let Some(destination) = places.pop().filter(|_| !places.is_empty()) else {
        return Err(Failure::usage("copy: no destination is named", "malai cp SOURCE… DESTINATION"));
    };
    Ok(CopyRequest {
        sources: places,
        destination,
        extraneous: if args.delete { Extraneous::Delete } else { Extraneous::Keep },
        compare: if args.checksum { Compare::Content } else { Compare::Times },
        links: if args.follow { Links::Follow } else { Links::Keep },
        streams: args.streams.map_or(CopyStreams::ByRoundTrip, CopyStreams::Exactly),
        env: context.env.locale.clone(),
    })
}

fn fail(error: malai_core::api::CopyError) -> Failure {
    malai_core::Error::from(error).into()
}

/// The end of a copy on the machine that was asked: it talks to `malai cp` over stdin and stdout.
pub(crate) fn serve(output: &Output, words: &[OsString], restricted: bool) -> u8 {
    let path_links = if restricted { PathLinks::Refuse } else { PathLinks::Follow };
    // Not `std::io::stdin()`: its small buffer and its lock only cost here.
    let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(std::fs::File::from);
    let pipes = own(std::io::stdin().as_fd()).and_then(|stdin| Ok((stdin, own(std::io::stdout().as_fd())?)));
    let outcome = match (pipes, ServeRequest::parse(words, path_links)) {
        (Ok((stdin, stdout)), Ok(request)) => {
            // Of one pipe, since all of a user's share one allowance; and not of further streams, which share the work.
            match &request {
                ServeRequest::Put(_) => widen(&stdin),
                ServeRequest::Get(_) => widen(&stdout),
                ServeRequest::Lane => {}
            }
            malai_core::api::serve_copy(request, stdin, stdout).map_err(fail)
        }
        (_, Err(error)) => Err(fail(error)),
        (Err(error), _) => Err(Failure::local("open the pipes of the copy", &error)),
    };
    match outcome {
        Ok(true) => DONE,
        Ok(false) => FAILED,
        Err(failure) => {
            output.failure(&failure, false);
            if failure.code == ErrorCode::Usage { USAGE } else { FAILED }
        }
    }
}

/// Shows how far it is, and what could not be copied.
struct Screen {
    output: Output,
    progress: bool,
    lines: bool,
    state: Mutex<State>,
}

struct State {
    started: Instant,
    /// Whether a line of progress stands on the terminal.
    shown: bool,
}

impl Screen {
    fn clear(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut state.shown) {
            self.output.replace_line("");
        }
    }
}

impl CopyObserver for Screen {
    fn problem(&self, problem: &CopyProblem) {
        if self.lines {
            self.clear();
            let (path, message) = (escape_control(&problem.path), escape_control(&problem.message));
            self.output.note(&format!("malai cp: {path}: {message}"));
        }
    }

    fn progress(&self, progress: &CopyProgress) {
        if self.progress {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            self.output.replace_line(&line(progress, state.started.elapsed()));
            state.shown = true;
        }
    }
}

fn line(progress: &CopyProgress, elapsed: Duration) -> String {
    let rate = progress.moved_bytes as f64 / elapsed.as_secs_f64().max(0.001);
    let left = progress.named_bytes.saturating_sub(progress.done_bytes);
    let eta = if rate >= 1.0 && left > 0 { duration(left as f64 / rate) } else { "-".to_owned() };
    let head = format!(
        "{}/{} files  {}/{}  {}/s  ETA {eta}  ",
        progress.done_files,
        progress.named_files,
        size(progress.done_bytes),
        size(progress.named_bytes),
        size_of(rate),
    );
    let name = escape_control(&progress.current);
    let room = WIDTH.saturating_sub(head.chars().count());
    let length = name.chars().count();
    // The end of a path says more than its beginning.
    let name: String = if length > room {
        std::iter::once('…').chain(name.chars().skip(length + 1 - room.max(1))).collect()
    } else {
        name.into_owned()
    };
    format!("{head}{name}")
}

fn summary(view: &CopyView) -> String {
    let mut text = format!("{} files, {} in {:.1} s", view.files, size(view.bytes), view.seconds);
    for (count, what) in [(view.skipped, "there already"), (view.deleted, "deleted"), (view.failed, "failed")]
    {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

fn size(bytes: u64) -> String {
    size_of(bytes as f64)
}

fn size_of(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of a copy, not negative"
)]
fn duration(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    if seconds >= 3600 {
        format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    } else {
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }
}

/// Lets a pipe hold a whole chunk, so that the daemon goes on while one is hashed and written. A pipe that may not grow, or
/// is none, does as well, only slower.
fn widen(pipe: &std::fs::File) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(pipe, PIPE) {
        tracing::debug!(%error, "a pipe keeps its size");
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (pipe, PIPE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_fits_and_shows_the_end_of_a_long_name_escaped() {
        let progress = CopyProgress {
            named_files: 10,
            named_bytes: 3 << 30,
            done_files: 4,
            done_bytes: 1 << 30,
            moved_bytes: 1 << 30,
            current: format!("/srv/{}/\x1b[2Jend", "long/".repeat(30)),
        };
        let line = line(&progress, Duration::from_secs(10));
        assert!(line.starts_with("4/10 files  1.0 GiB/3.0 GiB  102.4 MiB/s  ETA 0:20  …"), "{line}");
        assert!(line.ends_with(r"\u{1b}[2Jend") && line.chars().count() <= WIDTH, "{line}");
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!([size(0), size(1023), size(1024), size(5 << 40)], ["0 B", "1023 B", "1.0 KiB", "5.0 TiB"]);
        assert_eq!([duration(0.2), duration(61.0), duration(3725.0)], ["0:01", "1:01", "1:02:05"]);
    }
}
