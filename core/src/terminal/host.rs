//! A session's process.

use std::io;

/// The name under which this program is a session's process.
pub const SESSION_PROGRAM: &str = "malai-session";

/// A session's process, from the moment when it is on its own.
#[derive(Debug)]
pub struct SessionHost {}

impl SessionHost {
    /// Begins: leaves the daemon's process group and reads what to do.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn begin() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Runs the session to its end. Needs a runtime with IO and time, of one thread.
    pub async fn run(self) {}
}
