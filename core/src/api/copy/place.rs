//! Where something is copied from or to, as it is typed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::exec::copy::CopyError;

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

    /// What its problems are shown with: nothing for this device.
    pub(super) fn label(&self) -> &str {
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

/// Keeps a path from looking like an option, or like a word of the program's own.
fn relative(path: &str) -> String {
    match path {
        "" => "./".to_owned(),
        "get" | "put" => format!("./{path}"),
        _ if path.starts_with('-') => format!("./{path}"),
        _ => path.to_owned(),
    }
}

pub(super) fn usage(message: &str, hint: Option<&str>) -> CopyError {
    CopyError::Usage { message: message.to_owned(), hint: hint.map(str::to_owned) }
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
}
