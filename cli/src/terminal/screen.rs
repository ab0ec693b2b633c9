//! What is shown of a session: written on a thread, since a terminal that is held must not stop the rest.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use malai_core::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::modes::Modes;

/// How many blocks of output may wait for a slow terminal or pipe.
const WAITING_BLOCKS: usize = 4;
/// How long a terminal may take for what is left.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Writes to stdout, in order. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    items: mpsc::Sender<Item>,
    modes: Arc<Mutex<Modes>>,
}

#[derive(Debug)]
enum Item {
    /// Of the session.
    Output(Bytes),
    /// Of malai.
    Own(String),
    /// Everything before is written.
    Flush(oneshot::Sender<()>),
}

impl Screen {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (items, mut waiting) = mpsc::channel::<Item>(WAITING_BLOCKS);
        let modes = Arc::new(Mutex::new(Modes::default()));
        // Not `std::io::stdout()`: it would hold back a line that is not finished yet.
        let mut stdout = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        let seen = Arc::clone(&modes);
        std::thread::spawn(move || {
            while let Some(item) = waiting.blocking_recv() {
                let written = match item {
                    Item::Output(bytes) => {
                        seen.lock().unwrap_or_else(PoisonError::into_inner).feed(&bytes);
                        stdout.write_all(&bytes)
                    }
                    Item::Own(text) => stdout.write_all(text.as_bytes()),
                    Item::Flush(done) => {
                        // Whoever asked may have given up.
                        _ = done.send(());
                        Ok(())
                    }
                };
                if written.is_err() {
                    // Nobody reads it any more: with the channel that shows.
                    return;
                }
            }
        });
        Ok(Self { items, modes })
    }

    /// Shows output of the session. False when stdout takes nothing more.
    pub(crate) async fn show(&self, bytes: Bytes) -> bool {
        self.items.send(Item::Output(bytes)).await.is_ok()
    }

    /// Says something of malai's own, unless the terminal is held.
    pub(crate) fn say(&self, text: String) {
        _ = self.items.try_send(Item::Own(text));
    }

    /// Waits until everything is written, however long a slow reader takes.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.items.send(Item::Flush(done)).await.is_ok() {
            _ = written.await;
        }
    }

    /// Undoes what the session did to the terminal. It stays noted: a session that goes on may be shown again.
    pub(crate) async fn tidy(&self) {
        let undo = self.modes.lock().unwrap_or_else(PoisonError::into_inner).undo();
        let tidied = async {
            if !undo.is_empty() && self.items.send(Item::Own(undo)).await.is_err() {
                return;
            }
            self.flush().await;
        };
        // A terminal that is held at the end stays as it is.
        _ = tokio::time::timeout(LAST_WORDS, tidied).await;
    }
}
