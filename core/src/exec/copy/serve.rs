//! The end on the machine that was asked: a program on two pipes.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::lanes::{keep_room, serve_lane};
use super::{
    Compare, CopyError, CopyRole, Extraneous, Links, SinkRequest, SourceRequest, lanes, run_sink, run_source,
};

/// What the program is called: the word that rules know it by.
pub const PROGRAM: &str = "malai-cp";

const LANE: &str = "--lane";

/// What the program's words ask for. What it may touch stands in these words and nowhere else.
#[derive(Debug, Clone)]
pub enum ServeRequest {
    /// `get [--follow] PATH…`: read and send.
    Get(SourceRequest),
    /// `put [--delete] [--checksum] PATH`: receive and write.
    Put(SinkRequest),
    /// `--lane`: join another one as a further stream of its copy. Not a word that a path could be: a rule that admits it
    /// admits nothing else by it.
    Lane,
}

impl ServeRequest {
    /// Reads the words after the program's name. A path that begins with `-` is written `./-…`.
    ///
    /// # Errors
    /// When they are none of the forms.
    pub fn parse(words: &[OsString]) -> Result<Self, CopyError> {
        let (options, paths): (Vec<_>, Vec<_>) =
            words.iter().skip(1).partition(|word| word.as_bytes().starts_with(b"-"));
        let has = |option: &str| options.iter().any(|word| *word == option);
        let only = |known: &[&str]| options.iter().all(|word| known.iter().any(|option| *word == option));
        let paths: Vec<PathBuf> = paths.into_iter().map(PathBuf::from).collect();
        match words.first().and_then(|word| word.to_str()) {
            Some("get") if !paths.is_empty() && only(&["--follow"]) => {
                let links = if has("--follow") { Links::Follow } else { Links::Keep };
                Ok(Self::Get(SourceRequest { roots: paths, links }))
            }
            Some("put") if only(&["--delete", "--checksum"]) => match <[PathBuf; 1]>::try_from(paths) {
                Ok([destination]) => Ok(Self::Put(SinkRequest {
                    destination,
                    extraneous: if has("--delete") { Extraneous::Delete } else { Extraneous::Keep },
                    compare: if has("--checksum") { Compare::Content } else { Compare::Times },
                })),
                Err(_) => Err(usage()),
            },
            Some(LANE) if words.len() == 1 => Ok(Self::Lane),
            _ => Err(usage()),
        }
    }

    /// Returns the program's words for it, its name included.
    ///
    /// # Errors
    /// When a path is no UTF-8: the words of a command are texts.
    pub fn to_words(&self) -> Result<Vec<String>, CopyError> {
        let (mut words, paths) = match self {
            Self::Get(request) => {
                let mut words = vec![PROGRAM, "get"];
                words.extend((request.links == Links::Follow).then_some("--follow"));
                (words, request.roots.as_slice())
            }
            Self::Put(request) => {
                let mut words = vec![PROGRAM, "put"];
                words.extend((request.extraneous == Extraneous::Delete).then_some("--delete"));
                words.extend((request.compare == Compare::Content).then_some("--checksum"));
                (words, std::slice::from_ref(&request.destination))
            }
            Self::Lane => (vec![PROGRAM, LANE], &[][..]),
        };
        let texts = paths.iter().map(|path| path.to_str()).collect::<Option<Vec<_>>>().ok_or_else(|| {
            CopyError::Usage { message: "a remote path that is no UTF-8".to_owned(), hint: None }
        })?;
        words.extend(texts);
        Ok(words.into_iter().map(str::to_owned).collect())
    }
}

fn usage() -> CopyError {
    CopyError::Usage {
        message: format!("{PROGRAM}: expected `get [--follow] PATH…` or `put [--delete] [--checksum] PATH`"),
        hint: Some("it is run by `malai cp`".to_owned()),
    }
}

/// Serves one copy on two pipes to its end. Returns whether everything was copied.
///
/// # Errors
/// When the words are wrong or the copy as a whole failed; the other end has been told if it could be.
pub fn serve_copy(
    words: &[OsString],
    input: impl Read + Send + 'static,
    output: impl Write + Send + 'static,
) -> Result<bool, CopyError> {
    let request = ServeRequest::parse(words)?;
    let role = match &request {
        ServeRequest::Get(_) => CopyRole::Source,
        ServeRequest::Put(_) => CopyRole::Sink,
        ServeRequest::Lane => return serve_lane(input, output).map(|()| true),
    };
    let (heard, close) = keep_room(role);
    let (input, output, handle) = lanes(input, output, heard);
    let copied = match request {
        ServeRequest::Get(request) => run_source(input, output, request, Arc::new(())),
        ServeRequest::Put(request) => run_sink(input, output, request, Arc::new(())),
        ServeRequest::Lane => return Err(usage()),
    };
    close();
    handle.finish();
    let (totals, problems) = copied?;
    Ok(totals.problems + problems == 0)
}
