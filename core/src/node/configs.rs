//! Configs as they come in and are asked for: only the manager may send one, each device asks for its own.

use std::sync::Arc;

use malai_model::code::ErrorCode;
use malai_model::id::Id52;
use malai_model::wire::{ConfigHave, PullReply, PushReply, WireError};

use super::serve::{Asker, ServeProblem, answer, in_time};
use super::{Member, Node};
use crate::cluster::{self, ClusterError};
use crate::p2p::Stream;
use crate::timeouts;

impl Node {
    pub(super) async fn serve_push(
        &self,
        member: &Arc<Member>,
        asker: Asker,
        mut stream: Stream,
        length: u64,
    ) -> Result<(), ServeProblem> {
        let peer = asker.peer;
        if !cluster::is_manager(&member.loaded(), &peer) {
            tracing::warn!(cluster = %member.alias(), %peer, "refused a config: only the manager may send one");
            self.record_refused_config(&member.loaded(), asker, ErrorCode::ConfigForged);
            let error = WireError {
                code: ErrorCode::ConfigForged,
                message: "take the config: it may come from the cluster's manager only".to_owned(),
                hint: None,
            };
            return answer(stream.sender, &PushReply::Refused { error, length: 0 }).await;
        }
        let limit = self.device().limits.config_bytes;
        let read =
            tokio::time::timeout(timeouts::REPLY, cluster::read_text(&mut stream.receiver, length, limit));
        let taken = match read.await.map_err(|_| ServeProblem::Stalled)? {
            Ok(text) => self.take_config(member, text).await,
            // The manager is told: a config that is too large will be no smaller when it tries again.
            Err(error @ (ClusterError::TooLarge { .. } | ClusterError::OutOfTurn(_))) => Err(error),
            Err(error) => return Err(error.into()),
        };
        let error = match taken {
            Ok(serial) => return answer(stream.sender, &PushReply::Accepted { serial }).await,
            Err(error) => error,
        };
        tracing::warn!(cluster = %member.alias(), %peer, %error, "refused a config");
        self.record_refused_config(&member.loaded(), asker, error.code());
        let in_force = cluster::signed_config_in_force(&member.loaded(), error.code());
        let told = WireError::of(error.code(), &error, error.hint());
        let reply = PushReply::Refused { error: told, length: in_force.len() as u64 };
        in_time(async {
            stream.sender.send_message(&reply).await?;
            cluster::send_text(&stream.sender, &in_force).await?;
            stream.sender.finish().await
        })
        .await
    }

    pub(super) async fn serve_pull(
        &self,
        member: &Arc<Member>,
        peer: Id52,
        stream: Stream,
        have: Option<ConfigHave>,
    ) -> Result<(), ServeProblem> {
        match self.delivery_for(member, &peer, have.as_ref()).await {
            Ok(answer) => {
                let confirmed = cluster::answer_pull(stream, answer.text.as_deref()).await?;
                if answer.text.is_none() || confirmed == Some(answer.delivery.serial) {
                    self.confirmed(member, &answer.delivery).await?;
                }
                Ok(())
            }
            Err(error) => {
                let told = WireError::of(error.code(), &error, error.hint());
                answer(stream.sender, &PullReply::Failed(told)).await
            }
        }
    }
}
