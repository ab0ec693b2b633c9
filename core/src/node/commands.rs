//! Commands that peers run on this device.

use std::sync::Arc;

#[cfg(all(feature = "host", unix))]
use malai_model::acl::RunEffect;
#[cfg(all(feature = "host", unix))]
use malai_model::audit::Wanted;
#[cfg(not(all(feature = "host", unix)))]
use malai_model::code::ErrorCode;
#[cfg(all(feature = "host", unix))]
use malai_model::config::UserName;
use malai_model::wire::ExecRequest;
#[cfg(not(all(feature = "host", unix)))]
use malai_model::wire::WireError;
#[cfg(all(feature = "host", unix))]
use malai_model::wire::local::Place;

use super::serve::{Asker, ServeProblem, refuse};
#[cfg(all(feature = "host", unix))]
use super::serve::{denied_to_caller, denied_to_owner, loggable};
use super::work::Ticket;
use super::{Member, Node};
#[cfg(all(feature = "host", unix))]
use crate::cluster::LoadedCluster;
#[cfg(all(feature = "host", unix))]
use crate::exec::TargetOutcome;
use crate::p2p::Stream;

impl Node {
    /// Runs a command for a peer, or for this device itself.
    #[cfg(all(feature = "host", unix))]
    pub(super) async fn serve_exec(
        &self,
        member: &Arc<Member>,
        asker: Asker,
        stream: Stream,
        request: ExecRequest,
        ticket: Ticket,
    ) -> Result<(), ServeProblem> {
        let Asker { peer, place, .. } = asker;
        if self.has_no_room(member, &peer) {
            self.refuse_busy(member, asker, stream);
            return Ok(());
        }
        let argv = request.argv.clone();
        let node = self.clone();
        let decide = move |loaded: &LoadedCluster| {
            loaded.authorize_run(&peer, &argv, &node.ceilings()).ok().map(|granted| granted.effect().clone())
        };
        // A change of the user or of an alias's words is a right taken away, too.
        let granted = ticket.allow_as_granted(decide, RunEffect::goes_on_under);
        let loaded = member.loaded();
        let alias = member.alias();
        // The log names the word that decided, never the arguments: those hold passwords more often than they should.
        let word = loggable(request.argv.first().map_or("", String::as_str));
        let authorized = match loaded.authorize_run(&peer, &request.argv, &self.ceilings()) {
            Ok(authorized) => authorized,
            Err(denied) => {
                tracing::warn!(cluster = %alias, %peer, command = word, reason = %denied, "denied a command");
                let asked = request.argv.first().map(String::as_str);
                self.record_denial(&loaded, asker, (Wanted::Command, asked), &denied);
                let what = format!("run {word:?}");
                let told = match place {
                    Place::Elsewhere => denied_to_caller(&what, &denied, loaded.own_name.as_ref()),
                    Place::Here => denied_to_owner(&what, &denied),
                };
                refuse(stream, told).await;
                return Ok(());
            }
        };
        self.was_granted(member, &loaded, &granted, authorized.effect().clone());
        let revoked = ticket.revoked.clone();
        let typed = request.argv.first().map_or("", String::as_str);
        let user = authorized.effect().username.as_ref().map(UserName::as_str);
        // Before anything waits: a caller that lost its connection just then shall not hear that nobody knows of it.
        let (kept, linger) = match self.keep(member, peer, request.resume.clone(), &stream) {
            Ok(kept) => kept,
            Err(late) => {
                self.refuse_late(member, asker, (Wanted::Command, Some(typed)), stream);
                return Err(late.into());
            }
        };
        let begun = match self.begin_command(&loaded, asker, typed, user).await {
            Ok(begun) => begun,
            Err(told) => {
                drop(kept);
                refuse(stream, told).await;
                return Ok(());
            }
        };
        tracing::info!(cluster = %alias, %peer, command = word, "a command starts");
        let name = loaded.cluster_name.clone().unwrap_or_else(|| alias.to_string());
        let served = self.inner.exec.serve(authorized, &request, &name, stream, revoked, linger).await;
        drop(kept);
        begun.command_ended(&served);
        match served {
            Ok(TargetOutcome::Ended(end)) => {
                tracing::info!(cluster = %alias, %peer, command = word, status = end.shell_status(), "a command ended");
            }
            Ok(TargetOutcome::CallerLost) => {
                tracing::info!(cluster = %alias, %peer, command = word, "a command was hung up: its caller is gone");
            }
            Ok(TargetOutcome::Revoked) => {
                tracing::warn!(cluster = %alias, %peer, command = word, "a command was ended: its right was taken away");
            }
            Err(error) => {
                tracing::info!(cluster = %alias, %peer, command = word, %error, "a command could not be run");
            }
        }
        Ok(())
    }

    #[cfg(not(all(feature = "host", unix)))]
    pub(super) async fn serve_exec(
        &self,
        _member: &Arc<Member>,
        _asker: Asker,
        stream: Stream,
        _request: ExecRequest,
        _ticket: Ticket,
    ) -> Result<(), ServeProblem> {
        let told = WireError {
            code: ErrorCode::CommandUnsupported,
            message: "run a command here: this device does not host any".to_owned(),
            hint: None,
        };
        refuse(stream, told).await;
        Ok(())
    }
}
