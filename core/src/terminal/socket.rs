//! The socket of a session's process, wherever its directory is, and who is at its other end.

use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::protocol::invalid;

/// The longest path that a socket gets here, in bytes; systems stop between 104 and 108.
const MAX_PATH: usize = 100;
/// What the socket is called in its directory.
pub(super) const SOCKET: &str = "socket";

/// A path to a socket that is short enough for the system, as long as this value lives.
struct ShortPath {
    path: PathBuf,
    _link: Option<tempfile::TempDir>,
}

impl ShortPath {
    /// Through a symbolic link in a directory of our own, where the path itself is too long: the system resolves links
    /// after it has looked at the length.
    fn of(dir: &Path) -> io::Result<Self> {
        let path = dir.join(SOCKET);
        if path.as_os_str().as_encoded_bytes().len() <= MAX_PATH {
            return Ok(Self { path, _link: None });
        }
        let link = tempfile::Builder::new().prefix("malai-").tempdir_in("/tmp")?;
        let to_dir = link.path().join("s");
        symlink(dir, &to_dir)?;
        Ok(Self { path: to_dir.join(SOCKET), _link: Some(link) })
    }
}

/// Opens the socket of a directory, mode 0600.
pub(super) fn listen(dir: &Path) -> io::Result<UnixListener> {
    let short = ShortPath::of(dir)?;
    let listener = UnixListener::bind(&short.path)?;
    std::fs::set_permissions(&short.path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to the socket of a directory, if it is one that a process of this user listens on.
pub(super) async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let short = ShortPath::of(dir)?;
    let stream = UnixStream::connect(&short.path).await?;
    check_peer(&stream, crate::host::effective_uid())?;
    Ok(stream)
}

/// Checks, by the kernel's word, that a process of that user is at the other end.
pub(super) fn check_peer(stream: &UnixStream, uid: u32) -> io::Result<()> {
    if stream.peer_cred()?.uid() == uid {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user is at the other end of the socket"))
}

/// Whether connecting failed because no process listens.
pub(super) fn nobody_listens(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

/// The other side went away in the middle.
pub(super) fn hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    )
}

/// Says what is wrong with a hello.
pub(super) fn no_hello() -> io::Error {
    invalid("it did not say hello")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_with_a_long_path_has_a_socket_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let long = dir.path().join("x".repeat(120)).join("y".repeat(120));
        std::fs::create_dir_all(&long).expect("is made");
        let error = connect(&long).await.expect_err("nobody listens");
        assert!(nobody_listens(&error), "{error}");
        let listener = listen(&long).expect("listens");
        let (ours, theirs) = tokio::join!(connect(&long), listener.accept());
        ours.expect("connects");
        let (theirs, _) = theirs.expect("accepts");
        check_peer(&theirs, crate::host::effective_uid()).expect("the same user");
        let error = check_peer(&theirs, crate::host::effective_uid() + 1).expect_err("another user");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let mode = std::fs::metadata(long.join(SOCKET)).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        assert!(nobody_listens(&connect(&long).await.expect_err("nobody listens")));
    }
}
