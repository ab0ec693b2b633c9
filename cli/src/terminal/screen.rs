//! What is shown of a session: written beside the rest, which a terminal that is held must not stop.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use malai_core::Bytes;
use malai_core::task::Scope;
use tokio::sync::{mpsc, oneshot};

use super::modes::Modes;
use super::tty::{Side, Tty};

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

impl Item {
    /// What of it is to be written. Whoever waits for all before it is told.
    fn bytes(self, seen: &Mutex<Modes>) -> Option<Bytes> {
        match self {
            Self::Output(bytes) => {
                seen.lock().unwrap_or_else(PoisonError::into_inner).feed(&bytes);
                Some(bytes)
            }
            Self::Own(text) => Some(text.into()),
            Self::Flush(done) => {
                // Whoever asked may have given up.
                _ = done.send(());
                None
            }
        }
    }
}

impl Screen {
    pub(crate) fn start(scope: &Scope) -> std::io::Result<Self> {
        let (items, mut waiting) = mpsc::channel::<Item>(WAITING_BLOCKS);
        let modes = Arc::new(Mutex::new(Modes::default()));
        let seen = Arc::clone(&modes);
        if let Some(tty) = Tty::again(std::io::stdout(), Side::Output) {
            // Not until `stop`: the last words come after that. It ends with the last handle.
            scope.spawn("screen", async move {
                while let Some(item) = waiting.recv().await {
                    if let Some(bytes) = item.bytes(&seen)
                        && tty.write_all(&bytes).await.is_err()
                    {
                        return;
                    }
                }
            });
            return Ok(Self { items, modes });
        }
        // Not `std::io::stdout()`: it would hold back a line that is not finished yet.
        let mut stdout = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        std::thread::spawn(move || {
            while let Some(item) = waiting.blocking_recv() {
                if let Some(bytes) = item.bytes(&seen)
                    && crate::pipes::write_all(&mut stdout, &bytes).is_err()
                {
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
