//! Both ends in one process, over pipes.

mod hostile;
mod races;
mod resuming;
mod trees;

use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<CopyProblem>>);

impl CopyObserver for Heard {
    fn problem(&self, problem: &CopyProblem) {
        self.0.lock().expect("locks").push(problem.clone());
    }

    fn progress(&self, _progress: &CopyProgress) {}
}

impl Heard {
    fn all(&self) -> Vec<String> {
        let problems = self.0.lock().expect("locks");
        problems
            .iter()
            .map(|problem| format!("{} {}: {}", problem.code, problem.path, problem.message))
            .collect()
    }
}

#[derive(Debug)]
struct Copied {
    totals: SinkTotals,
    source_problems: u64,
    heard: Vec<String>,
}

impl Copied {
    #[track_caller]
    fn clean(self) -> SinkTotals {
        assert_eq!((self.totals.problems, self.source_problems), (0, 0), "{:?}", self.heard);
        self.totals
    }
}

fn into(destination: impl Into<PathBuf>) -> SinkRequest {
    SinkRequest {
        destination: destination.into(),
        extraneous: Extraneous::Keep,
        compare: Compare::Times,
        roots: None,
        path_links: PathLinks::Follow,
    }
}

fn from<P: Into<PathBuf>>(roots: impl IntoIterator<Item = P>) -> SourceRequest {
    SourceRequest {
        roots: roots.into_iter().map(Into::into).collect(),
        links: Links::Keep,
        path_links: PathLinks::Follow,
    }
}

fn copy(source: SourceRequest, sink: SinkRequest) -> Copied {
    try_copy(source, sink).expect("copies")
}

fn try_copy(source: SourceRequest, sink: SinkRequest) -> Result<Copied, CopyError> {
    copy_through(source, sink, |reader| reader)
}

/// Copies, the bytes to the sink passed through something of the test's.
fn copy_through<R: Read + Send + 'static>(
    source: SourceRequest,
    sink: SinkRequest,
    through: impl FnOnce(PipeReader) -> R,
) -> Result<Copied, CopyError> {
    let (to_sink, from_source) = pipe_pair();
    let (to_source, from_sink) = pipe_pair();
    let (source_heard, sink_heard) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
    let observer = sink_heard.clone();
    let input = through(to_sink);
    let sinking = thread::spawn(move || run_sink(input, from_sink, sink, observer));
    let sourced = run_source(to_source, from_source, source, source_heard.clone());
    let sunk = sinking.join().expect("no panic");
    let (totals, source_problems) = sunk?;
    assert_eq!(sourced.expect("if one end is content the other is"), (totals, source_problems));
    // Each end hears of everything.
    let (mut heard, mut other) = (source_heard.all(), sink_heard.all());
    heard.sort();
    other.sort();
    assert_eq!(heard, other);
    Ok(Copied { totals, source_problems, heard })
}

fn pipe_pair() -> (PipeReader, PipeWriter) {
    pipe().expect("makes a pipe")
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("makes a folder")
}

fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().expect("a parent")).expect("makes folders");
    fs::write(path, bytes).expect("writes");
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets a mode");
}

fn set_time(path: impl AsRef<Path>, secs: i64, nanos: u32) {
    let mtime = malai_model::wire::copy::Mtime { secs, nanos };
    let file = fs::File::open(path).expect("opens");
    at::set_mtime(&file, mtime).expect("sets a time");
}

/// What is in a tree, a line each, for comparing.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("lists") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("is there");
            let name = path.strip_prefix(root).expect("below").as_os_str().as_bytes().escape_ascii();
            let time = format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
            let mode = meta.mode() & 0o7777;
            lines.push(if meta.is_dir() {
                folders.push(path.clone());
                format!("{name} dir {mode:o} {time}")
            } else if meta.is_symlink() {
                format!("{name} -> {} {time}", fs::read_link(&path).expect("reads").display())
            } else {
                let bytes = fs::read(&path).expect("reads");
                format!("{name} file {mode:o} {time} {} {}", bytes.len(), blake3::hash(&bytes))
            });
        }
    }
    lines.sort();
    lines
}

/// Bytes of which no two chunks are the same.
fn numbered(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length as u64 / 8 + 1)
        .flat_map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes())
        .collect();
    bytes.truncate(length);
    bytes
}
