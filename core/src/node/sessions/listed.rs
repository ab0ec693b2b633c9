//! What a peer is told of its own sessions, and how it ends one.

use std::sync::Arc;

use malai_model::audit::Outcome;
use malai_model::id::Id52;
use malai_model::wire::{CommandEnd, Notice, SessionId, SessionInfo};

use crate::node::serve::{ServeProblem, answer, in_time, refuse};
use crate::node::{Member, Node};
use crate::p2p::Stream;
use crate::terminal::EndReason;

/// How much of a list goes into one message, in bytes of JSON.
const LISTED_AT_ONCE: usize = 32 * 1024;
/// How long the words of a listed program may be, in bytes.
const LISTED_WORDS: usize = 4 * 1024;
/// The signal that ends what does not heed another, where the end of a session is not told.
const SIGKILL: u8 = 9;

impl Node {
    /// Tells a peer of its own sessions.
    pub(in crate::node) async fn serve_list_sessions(
        &self,
        member: &Arc<Member>,
        peer: Id52,
        stream: Stream,
    ) -> Result<(), ServeProblem> {
        let sessions = match self.hosted_sessions() {
            Ok(sessions) => sessions.list(member.alias(), &peer).await,
            Err(refused) => {
                refuse(stream, refused).await;
                return Ok(());
            }
        };
        let mut parts = in_parts(sessions).into_iter().peekable();
        // Both halves: the peer asks nothing more, and may leave while it is told.
        let Stream { sender, receiver: _receiver } = stream;
        in_time(async {
            while let Some(sessions) = parts.next() {
                let more = parts.peek().is_some();
                sender.send_message(&Notice::Sessions { sessions, more }).await?;
            }
            sender.finish().await
        })
        .await
    }

    /// Ends a session of a peer's own. That needs no right but that it is its own.
    pub(in crate::node) async fn serve_end_session(
        &self,
        member: &Arc<Member>,
        peer: Id52,
        stream: Stream,
        session: SessionId,
    ) -> Result<(), ServeProblem> {
        let ended = async {
            let sessions = self.hosted_sessions()?;
            let found = sessions.find(member.alias(), &peer, Some(&session)).await;
            let record = found.map_err(|error| error.to_wire())?;
            tracing::info!(cluster = %member.alias(), %peer, %session, "a session is ended by its owner");
            let end = sessions.end(&record, EndReason::Asked).await.map_err(|error| error.to_wire())?;
            self.record_session_end(&record, Outcome::Asked, end);
            Ok(end)
        };
        match ended.await {
            Ok(end) => {
                let end = end.unwrap_or(CommandEnd::Killed { signal: SIGKILL });
                answer(stream.sender, &Notice::Ended(end)).await
            }
            Err(refused) => {
                refuse(stream, refused).await;
                Ok(())
            }
        }
    }
}

/// Cuts a list into messages that are not too large; at least one.
fn in_parts(sessions: Vec<SessionInfo>) -> Vec<Vec<SessionInfo>> {
    let mut parts = vec![Vec::new()];
    let mut size = 0;
    for mut session in sessions {
        shorten(&mut session.argv);
        let length = serde_json::to_vec(&session).map_or(0, |json| json.len());
        if size > 0 && size + length > LISTED_AT_ONCE {
            parts.push(Vec::new());
            size = 0;
        }
        size += length;
        if let Some(part) = parts.last_mut() {
            part.push(session);
        }
    }
    parts
}

/// A program may have been given very many words.
fn shorten(words: &mut Vec<String>) {
    let mut room = LISTED_WORDS;
    for at in 0..words.len() {
        if words[at].len() > room {
            let end = words[at].floor_char_boundary(room);
            words[at].truncate(end);
            words[at].push('…');
            words.truncate(at + 1);
            return;
        }
        room -= words[at].len();
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use malai_model::wire::WindowSize;

    use super::*;

    #[test]
    fn a_long_list_goes_in_messages_that_fit_and_nothing_is_left_out() {
        let info = |number: u8| SessionInfo {
            session: SessionId::from_random([number; 8]),
            argv: vec!["é".repeat(3000), "x".repeat(100_000), "lost".to_owned()],
            user: "root".to_owned(),
            started: Timestamp::UNIX_EPOCH,
            active: Timestamp::UNIX_EPOCH,
            attached: false,
            watchers: 0,
            window: WindowSize::default(),
            title: "t".repeat(200),
            ended: None,
        };
        let parts = in_parts((0..32).map(info).collect());
        assert!(parts.len() > 1);
        let all: Vec<_> = parts.iter().flatten().map(|info| info.session.clone()).collect();
        assert_eq!(all, (0..32).map(|number| info(number).session).collect::<Vec<_>>());
        for part in &parts {
            let message = Notice::Sessions { sessions: part.clone(), more: true };
            assert!(
                serde_json::to_vec(&message).expect("is JSON").len() < malai_model::wire::frame::MAX_DATA
            );
        }
        assert_eq!(in_parts(Vec::new()), vec![Vec::new()]);
    }
}
