//! The caller's part in a stream that outlives its connection: it reaches the peer again.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use malai_model::wire::ResumeToken;

use super::error::{P2pError, stream_code};
use super::stream::{ResumeHandle, Stream};
use crate::task::Scope;

/// The pause after the first attempt that failed; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// An attempt to reach a peer again.
pub type Redialling = Pin<Box<dyn Future<Output = Result<Stream, P2pError>> + Send>>;

/// Opens a fresh stream to the peer of one that lost its connection.
pub trait Redial: Send + Sync + 'static {
    /// Reaches the peer again. It has to give up by itself: whoever waits for it has nothing else to do.
    fn redial(&self) -> Redialling;
}

/// Makes a random token. Its only use is to tell streams of one caller apart.
///
/// # Errors
/// When the system has no randomness.
pub fn new_resume_token() -> Result<ResumeToken, P2pError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| P2pError::Closed)?;
    Ok(ResumeToken::from_random(bytes))
}

/// Goes on with a stream over another connection, as often as it loses one, until the stream is over. An attempt that
/// fails is repeated until the stream's linger is over or the peer refuses for good; then the stream fails with the
/// reason.
pub fn keep_resumed(scope: &Scope, handle: ResumeHandle, token: ResumeToken, redial: Arc<dyn Redial>) {
    scope.spawn_until_stop("resume", async move {
        while handle.lost().await.is_some() {
            let mut pause = FIRST_PAUSE;
            // An attempt of a stream that meanwhile failed ends with it.
            while handle.lost().await.is_some() {
                let attempt = async {
                    let fresh = redial.redial().await?;
                    handle.resume_over(fresh, token.clone()).await
                };
                match attempt.await {
                    Ok(()) => {
                        tracing::info!("a stream goes on over another connection");
                        break;
                    }
                    Err(P2pError::Ended) => return,
                    Err(error) if is_final(&error) => {
                        tracing::debug!(%error, "a stream cannot go on");
                        handle.fail(error);
                        return;
                    }
                    Err(error) => tracing::debug!(%error, "an attempt to go on with a stream failed"),
                }
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    });
}

/// Says whether trying again is of no use.
fn is_final(error: &P2pError) -> bool {
    match error {
        P2pError::StreamReset { code } => *code == stream_code::REVOKED,
        P2pError::NotAdmitted { .. }
        | P2pError::Incompatible { .. }
        | P2pError::SelfConnect(_)
        | P2pError::StreamUnknown
        | P2pError::Malformed { .. }
        | P2pError::Closed => true,
        _ => false,
    }
}

/// Three to five quarters of a pause, so that what was lost together does not return all at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness it is the pause itself that is waited for.
    let share = getrandom::fill(&mut byte).map_or(128, |()| u32::from(byte[0]));
    pause * 3 / 4 + pause * share / 510
}
