//! The end on the machine that was asked: a program on two pipes.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::lanes::{keep_room, serve_lane};
use super::{
    Compare, CopyError, CopyRole, Extraneous, Links, PathLinks, SinkRequest, SourceRequest, lanes, run_sink,
    run_source,
};

/// What the program is called: the word that rules know it by.
pub const PROGRAM: &str = "malai-cp";

const GET: &str = "get";
const PUT: &str = "put";
/// For whoever writes the words of a rule: no link is followed on the way to a path, whatever the environment says.
const NO_LINKS: &str = "--no-links";
const LANE: &str = "--lane";

/// What the program's words ask for. What it may touch stands in these words and nowhere else.
#[derive(Debug, Clone)]
pub enum ServeRequest {
    /// `get [--follow] [--no-links] PATH…`: read and send.
    Get(SourceRequest),
    /// `put [--delete] [--checksum] [--no-links] PATH`: receive and write.
    Put(SinkRequest),
    /// `--lane`: join another one as a further stream of its copy. Not a word that a path could be: a rule that admits it
    /// admits nothing else by it.
    Lane,
}

impl ServeRequest {
    /// Reads the words after the program's name. A path that begins with `-` is written `./-…`, and one that is a verb
    /// `./put`: a rule that lets the verb in shall let in no path by it.
    ///
    /// # Errors
    /// When they are none of the forms.
    pub fn parse(words: &[OsString], path_links: PathLinks) -> Result<Self, CopyError> {
        // In front of the verb, too: the words of a rule's `command` stand before the caller's.
        let (words, path_links) = match words.split_first() {
            Some((first, rest)) if first == NO_LINKS => (rest, PathLinks::Refuse),
            _ => (words, path_links),
        };
        let (options, paths): (Vec<_>, Vec<_>) =
            words.iter().skip(1).partition(|word| word.as_bytes().starts_with(b"-"));
        let has = |option: &str| options.iter().any(|word| *word == option);
        let path_links = if has(NO_LINKS) { PathLinks::Refuse } else { path_links };
        let only = |known: &[&str]| options.iter().all(|word| known.iter().any(|option| *word == option));
        if paths.iter().any(|path| [GET, PUT].iter().any(|verb| *path == verb)) {
            return Err(usage());
        }
        let paths: Vec<PathBuf> = paths.into_iter().map(PathBuf::from).collect();
        match words.first().and_then(|word| word.to_str()) {
            Some(GET) if !paths.is_empty() && only(&["--follow", NO_LINKS]) => {
                if has("--follow") && path_links == PathLinks::Refuse {
                    return Err(CopyError::Usage {
                        message: "follow links: your rule restricts paths, and a link could lead anywhere"
                            .to_owned(),
                        hint: Some("copy without --follow: links are copied as links".to_owned()),
                    });
                }
                let links = if has("--follow") { Links::Follow } else { Links::Keep };
                Ok(Self::Get(SourceRequest { roots: paths, links, path_links }))
            }
            Some(PUT) if only(&["--delete", "--checksum", NO_LINKS]) => match <[PathBuf; 1]>::try_from(paths)
            {
                Ok([destination]) => Ok(Self::Put(SinkRequest {
                    destination,
                    extraneous: if has("--delete") { Extraneous::Delete } else { Extraneous::Keep },
                    compare: if has("--checksum") { Compare::Content } else { Compare::Times },
                    roots: None,
                    path_links,
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
                let mut words = vec![PROGRAM, GET];
                words.extend((request.links == Links::Follow).then_some("--follow"));
                words.extend((request.path_links == PathLinks::Refuse).then_some(NO_LINKS));
                (words, request.roots.as_slice())
            }
            Self::Put(request) => {
                let mut words = vec![PROGRAM, PUT];
                words.extend((request.extraneous == Extraneous::Delete).then_some("--delete"));
                words.extend((request.compare == Compare::Content).then_some("--checksum"));
                words.extend((request.path_links == PathLinks::Refuse).then_some(NO_LINKS));
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
        message: format!(
            "{PROGRAM}: expected `get [--follow] PATH…` or `put [--delete] [--checksum] PATH`, with or without {NO_LINKS}"
        ),
        hint: Some("it is run by `malai cp`".to_owned()),
    }
}

/// Serves one copy on two pipes to its end. Returns whether everything was copied.
///
/// # Errors
/// When the copy as a whole failed; the other end has been told if it could be.
pub fn serve_copy(
    request: ServeRequest,
    input: impl Read + Send + 'static,
    output: impl Write + Send + 'static,
) -> Result<bool, CopyError> {
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
    Ok(totals.problems == 0 && problems == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<ServeRequest, CopyError> {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        ServeRequest::parse(&words, PathLinks::Refuse)
    }

    #[test]
    fn a_word_that_a_rule_lets_in_as_the_verb_is_no_path() {
        for words in [["put", "put"], ["put", "get"], ["get", "put"], ["get", "get"]] {
            assert!(parse(&words).is_err(), "{words:?}");
        }
        assert!(parse(&["get", "./get", "x"]).is_ok() && parse(&["put", "./put"]).is_ok());
    }

    #[test]
    fn what_a_rule_says_of_links_is_not_for_the_words_to_say() {
        let Ok(ServeRequest::Put(sink)) = parse(&["put", "x"]) else { panic!("is a sink") };
        let Ok(ServeRequest::Get(source)) = parse(&["get", "x"]) else { panic!("is a source") };
        assert_eq!([sink.path_links, source.path_links], [PathLinks::Refuse; 2]);
        assert!(
            parse(&["get", "--follow", "x"]).is_err(),
            "a link below the path leads out of it just as well"
        );
    }

    #[test]
    fn the_words_of_a_request_ask_for_it_again() {
        for words in [
            &["get", "--follow", "x", "y"][..],
            &["get", "--no-links", "x"],
            &["put", "--delete", "--checksum", "--no-links", "x"],
            &["put", "x"],
            &["--lane"],
        ] {
            let given: Vec<OsString> = words.iter().map(Into::into).collect();
            let request = ServeRequest::parse(&given, PathLinks::Follow).expect("is a request");
            assert_eq!(request.to_words().expect("is a text")[1..], *words);
        }
    }

    #[test]
    fn a_rule_can_say_by_a_word_that_no_link_is_followed() {
        let words = ["put", "--no-links", "x"].map(OsString::from);
        let Ok(ServeRequest::Put(sink)) = ServeRequest::parse(&words, PathLinks::Follow) else {
            panic!("is a sink")
        };
        assert_eq!(sink.path_links, PathLinks::Refuse);
        let words = ["--no-links", "put", "x"].map(OsString::from);
        let Ok(ServeRequest::Put(sink)) = ServeRequest::parse(&words, PathLinks::Follow) else {
            panic!("is a sink")
        };
        assert_eq!(sink.path_links, PathLinks::Refuse);
        let words = ["get", "--no-links", "--follow", "x"].map(OsString::from);
        assert!(ServeRequest::parse(&words, PathLinks::Follow).is_err());
    }
}
