//! Reading: bounded, and with the path in every error.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::permissions::{open_plain, open_secret};
use super::{Home, HomeError};

/// The largest config or state file that is read, in bytes.
pub const MAX_FILE_LEN: u64 = 4 * 1024 * 1024;
/// The largest file with a secret that is read, in bytes.
pub const MAX_SECRET_LEN: u64 = 4096;

impl Home {
    /// Reads a text file; `None` if there is none.
    ///
    /// # Errors
    /// [`HomeError::Io`], [`HomeError::TooLarge`] over [`MAX_FILE_LEN`], [`HomeError::NotText`],
    /// [`HomeError::WrongType`].
    pub fn load_text(&self, path: &Path) -> Result<Option<String>, HomeError> {
        let Some(file) = open_plain(path)? else { return Ok(None) };
        let bytes = read_bounded(file, path, MAX_FILE_LEN)?;
        String::from_utf8(bytes).map(Some).map_err(|_| HomeError::NotText { path: path.into() })
    }

    /// Reads a JSON file that malai wrote; `None` if there is none.
    ///
    /// # Errors
    /// As [`Home::load_text`], and [`HomeError::Malformed`].
    pub fn load_json<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, HomeError> {
        let Some(text) = self.load_text(path)? else { return Ok(None) };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| HomeError::Malformed { path: path.into(), problem: e.to_string() })
    }

    /// Reads a file that holds a secret; `None` if there is none. A file that others may read, that belongs
    /// to somebody else or that is a symbolic link is refused. The text is wiped when dropped.
    ///
    /// # Errors
    /// [`HomeError::LoosePermissions`], [`HomeError::ForeignOwner`], [`HomeError::WrongType`],
    /// [`HomeError::TooLarge`] over [`MAX_SECRET_LEN`], [`HomeError::NotText`], [`HomeError::Io`]. None of
    /// them holds anything of the content.
    pub fn load_secret(&self, path: &Path) -> Result<Option<Zeroizing<String>>, HomeError> {
        let Some(file) = open_secret(path)? else { return Ok(None) };
        let bytes = Zeroizing::new(read_bounded(file, path, MAX_SECRET_LEN)?);
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
            Err(_) => Err(HomeError::NotText { path: path.into() }),
        }
    }
}

fn read_bounded(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, HomeError> {
    let expected = file.metadata().map(|meta| meta.len()).unwrap_or(0).min(limit) + 1;
    // The size is reserved at once, so that no copy of a secret stays behind in a buffer that was outgrown.
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| HomeError::io("read", path, e))?;
    if bytes.len() as u64 > limit {
        return Err(HomeError::TooLarge { path: path.into(), limit });
    }
    Ok(bytes)
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;

    use super::*;
    use crate::home::Create;

    #[test]
    fn a_missing_file_is_none_and_a_bad_one_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("h"), Create::Yes).expect("opens");
        let path = home.device_config();
        assert_eq!(home.load_text(&path).expect("no error"), None);
        fs::write(&path, b"\xff\xfe").expect("is written");
        let error = home.load_text(&path).expect_err("no text");
        assert!(matches!(error, HomeError::NotText { .. }) && error.to_string().contains("malai.toml"));
        fs::write(&path, vec![b' '; 4 * 1024 * 1024 + 1]).expect("is written");
        assert!(matches!(home.load_text(&path), Err(HomeError::TooLarge { .. })));
        fs::write(&path, b"{").expect("is written");
        assert!(matches!(home.load_json::<u8>(&path), Err(HomeError::Malformed { .. })));
        assert!(matches!(home.load_text(&home.clusters_dir()), Err(HomeError::WrongType { .. })));
    }

    #[test]
    fn a_pipe_in_a_file_s_place_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("h"), Create::Yes).expect("opens");
        nix::unistd::mkfifo(&home.device_config(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert!(matches!(home.load_text(&home.device_config()), Err(HomeError::WrongType { .. })));
        assert!(matches!(home.load_secret(&home.device_config()), Err(HomeError::WrongType { .. })));
    }
}
