//! `malai.log`: one file for all clusters, rotated by size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a log, and moves it aside as `.1` when it is full; an older `.1` becomes `.2`, an older `.2` goes.
///
/// Each call of `write` is expected to be whole lines: a line is never split over two files.
#[derive(Debug)]
pub struct RotatingLog {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
}

impl RotatingLog {
    /// Opens a log, mode 0600, to be appended to. `limit` is in bytes.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = append(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, written, limit })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        if numbered(1).exists() {
            std::fs::rename(numbered(1), numbered(2))?;
        }
        std::fs::rename(&self.path, numbered(1))?;
        self.file = append(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Write for RotatingLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written > 0 && self.written + bytes.len() as u64 > self.limit {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_moved_aside_and_two_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("malai.log");
        let mut log = RotatingLog::open(&path, 10).expect("opens");
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "sixsix\n"] {
            log.write_all(line.as_bytes()).expect("writes");
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("reads");
        assert_eq!(read("malai.log"), "sixsix\n");
        assert_eq!(read("malai.log.1"), "four\nfive\n");
        assert_eq!(read("malai.log.2"), "three\n");
    }

    #[test]
    fn a_log_is_appended_to_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("malai.log");
        for _ in 0..2 {
            RotatingLog::open(&path, 100).and_then(|mut log| log.write_all(b"line\n")).expect("writes");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "line\nline\n");
        let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
