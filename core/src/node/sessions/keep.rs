//! Sessions that go on without anybody asking for them: found again, looked at now and then, ended when they may not be.

use std::sync::Arc;
use std::time::Duration;

use malai_model::audit::Outcome;

use crate::cluster::LoadedCluster;
use crate::node::audit::record_session_gone;
use crate::node::{Member, Node};
use crate::terminal::{EndReason, SessionEnd, SessionRecord, Sessions};

/// How often what dead sessions left is cleared away.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

impl Node {
    /// Finds the sessions again that an earlier daemon of this home started.
    pub(in crate::node) async fn find_sessions(&self) {
        let Some(program) = self.inner.exec.own_program().cloned() else {
            tracing::warn!("no sessions can be started here: the malai program is not known");
            return;
        };
        let opened = self
            .blocking(move |node| {
                let audit = node.audit().clone();
                let gone = Arc::new(move |record: &SessionRecord, end: Option<&SessionEnd>| {
                    record_session_gone(&audit, record, end);
                });
                Ok(Sessions::open(node.home().clone(), program, gone))
            })
            .await;
        match opened {
            Ok(Ok(sessions)) => {
                let found = sessions.records().len();
                if found > 0 {
                    tracing::info!("found {found} sessions that went on meanwhile");
                }
                _ = self.inner.sessions.set(sessions);
            }
            Ok(Err(error)) => tracing::error!(%error, "no sessions can be started here"),
            Err(error) => tracing::error!(%error, "no sessions can be started here"),
        }
    }

    /// Clears away what dead sessions left, now and then, and looks again whether those that live may: one whose end
    /// failed is not forgotten.
    pub(in crate::node) fn keep_sessions(&self) {
        let node = self.clone();
        self.inner.scope.spawn_until_stop("sessions", async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                if let Some(sessions) = node.inner.sessions.get() {
                    sessions.sweep().await;
                }
                node.members().values().for_each(|member| node.authorise_sessions(member));
                node.end_foreign_sessions();
            }
        });
    }

    /// Asks every session of a cluster, attached or not, whether it is still allowed, and ends those that are not.
    pub(in crate::node) fn authorise_sessions(&self, member: &Member) {
        let loaded = member.loaded();
        self.end_sessions("its right was taken away", |record| {
            record.cluster == loaded.alias && !self.may_stay(&loaded, record)
        });
    }

    /// Ends the sessions of clusters that are not this home's any more.
    pub(in crate::node) fn end_foreign_sessions(&self) {
        let members = self.members();
        self.end_sessions("its cluster is gone", |record| {
            members.get(&record.cluster).is_none_or(|member| member.own_id() != record.own)
        });
    }

    fn end_sessions(&self, why: &'static str, over: impl Fn(&SessionRecord) -> bool) {
        let Some(sessions) = self.inner.sessions.get() else { return };
        for record in sessions.records().into_iter().filter(over) {
            let (node, sessions) = (self.clone(), sessions.clone());
            self.inner.scope.spawn("end session", async move {
                tracing::warn!(
                    cluster = %record.cluster, peer = %record.owner, session = %record.session,
                    "a session is ended: {why}"
                );
                match sessions.end(&record, EndReason::Revoked).await {
                    Ok(end) => node.record_session_end(&record, Outcome::Revoked, end),
                    Err(error) => {
                        tracing::error!(session = %record.session, %error, "a session could not be ended");
                    }
                }
            });
        }
    }

    pub(super) fn may_stay(&self, loaded: &LoadedCluster, record: &SessionRecord) -> bool {
        loaded.own_id == record.own
            && loaded.admits(&record.owner)
            && self
                .decide_session(loaded, &record.owner, &record.ask)
                .is_ok_and(|grant| record.effect.goes_on_under(&grant.effect()))
    }
}
