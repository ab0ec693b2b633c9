//! What this node records in its audit log: one place for each sort of thing.
//!
//! What a device's `malai.toml` requires is decided here too: with `audit = "required"` nothing begins for anybody whose
//! record is not on the disk.

use std::fmt::Display;
#[cfg(all(feature = "host", unix))]
use std::time::Instant;

#[cfg(all(feature = "host", unix))]
use malai_model::audit::Outcome;
use malai_model::audit::{AuditEvent, AuditRecord, By, ConfigOrigin, Denial, KeyKind, Wanted, bounded_word};
use malai_model::cluster::InviteRecord;
use malai_model::code::ErrorCode;
#[cfg(all(feature = "host", unix))]
use malai_model::config::AuditPolicy;
use malai_model::id::Id52;
#[cfg(all(feature = "host", unix))]
use malai_model::name::ServiceName;
use malai_model::name::{ClusterAlias, MachineName};
#[cfg(all(feature = "host", unix))]
use malai_model::wire::{AttachMode, CommandEnd, SessionId, WireError};

use super::Node;
use super::serve::Asker;
use crate::audit::AuditLog;
#[cfg(all(feature = "host", unix))]
use crate::audit::{AuditError, Durability};
use crate::cluster::{ClusterError, LoadedCluster};
#[cfg(all(feature = "host", unix))]
use crate::exec::TargetOutcome;
#[cfg(all(feature = "host", unix))]
use crate::host::HostError;
#[cfg(all(feature = "host", unix))]
use crate::service::{ServiceError, ServiceOutcome};
#[cfg(all(feature = "host", unix))]
use crate::terminal::{SessionEnd, SessionOutcome, SessionRecord};

impl Node {
    pub(super) fn audit(&self) -> &AuditLog {
        &self.inner.audit
    }

    /// Records what happened in a cluster.
    pub(super) fn record_event(&self, cluster: &ClusterAlias, event: AuditEvent) {
        self.audit().record(AuditRecord::of_cluster(self.now(), cluster, event));
    }

    /// Records what happened to the device as a whole.
    pub(super) fn record_of_device(&self, event: AuditEvent) {
        self.audit().record(AuditRecord::of_device(self.now(), event));
    }

    /// Records that somebody was denied something.
    pub(super) fn record_denial(
        &self,
        loaded: &LoadedCluster,
        asker: Asker,
        (wanted, asked): (Wanted, Option<&str>),
        reason: &dyn Display,
    ) {
        self.audit().denied(Denial {
            time: self.now(),
            cluster: loaded.alias.clone(),
            by: by(loaded, asker),
            wanted,
            asked: asked.map(bounded_word),
            reason: reason.to_string(),
        });
    }

    /// Records which rules are in force.
    pub(super) fn record_config(&self, loaded: &LoadedCluster, origin: ConfigOrigin) {
        let (Some(digest), Some(author)) = (&loaded.digest, loaded.manager) else { return };
        let event =
            AuditEvent::ConfigApplied { digest: digest.clone(), serial: loaded.serial(), origin, author };
        self.record_event(&loaded.alias, event);
    }

    /// Records that a config was refused.
    pub(super) fn record_refused_config(&self, loaded: &LoadedCluster, asker: Asker, code: ErrorCode) {
        if code == ErrorCode::ConfigForged {
            // Anybody who is admitted can try, as often as it likes.
            self.record_denial(loaded, asker, (Wanted::Config, None), &code);
            return;
        }
        self.record_event(&loaded.alias, AuditEvent::ConfigRefused { by: by(loaded, asker), code });
    }

    pub(super) fn record_key(&self, cluster: &ClusterAlias, key: KeyKind, id52: Id52) {
        self.record_event(cluster, AuditEvent::KeyMade { key, id52 });
    }

    pub(super) fn record_joined(&self, cluster: &ClusterAlias, manager: Id52, name: Option<MachineName>) {
        self.record_event(cluster, AuditEvent::Joined { manager, name });
    }

    pub(super) fn record_invite(&self, cluster: &ClusterAlias, invite: Id52, record: &InviteRecord) {
        self.record_key(cluster, KeyKind::Invite, invite);
        let label = (!record.label.is_empty()).then(|| bounded_word(&record.label));
        let event = AuditEvent::InviteCreated {
            invite,
            label,
            expires: record.expires,
            max_uses: record.max_uses,
            groups: record.groups.clone(),
        };
        self.record_event(cluster, event);
    }

    /// Records that somebody who dialled an invite was refused.
    pub(super) fn record_refused_join(
        &self,
        cluster: &ClusterAlias,
        (invite, joiner): (Id52, Id52),
        error: &ClusterError,
    ) {
        self.audit().denied(Denial {
            time: self.now(),
            cluster: cluster.clone(),
            by: By { peer: joiner, name: None, here: false },
            wanted: Wanted::Join,
            asked: Some(invite.to_string()),
            reason: error.code().to_string(),
        });
    }

    /// Records that something is about to begin for somebody, before it does. Returns what records its end.
    ///
    /// # Errors
    /// With what the caller is told, if it could not be recorded and this device requires that.
    #[cfg(all(feature = "host", unix))]
    async fn begin_recorded(
        &self,
        cluster: &ClusterAlias,
        by: By,
        what: What,
        event: AuditEvent,
    ) -> Result<Begun, WireError> {
        let required = self.device().host.audit == AuditPolicy::Required;
        let durability = if required { Durability::OnDisk } else { Durability::Written };
        let record = AuditRecord::of_cluster(self.now(), cluster, event);
        let started = match self.audit().record_before(record, durability).await {
            Ok(written) => Some(written.seq),
            Err(error) if required => {
                tracing::error!(
                    %cluster, peer = %by.peer, error = %WireError::of(error.code(), &error, None).message,
                    "refused what could not be recorded in the audit log"
                );
                return Err(unrecorded(&error, by.here));
            }
            // It is told in the log of this process already.
            Err(_) => None,
        };
        let node = self.clone();
        Ok(Begun { node, cluster: cluster.clone(), by, what, started, begun: Instant::now(), ended: false })
    }

    /// Records that a command is about to start.
    ///
    /// # Errors
    /// As [`Self::begin_recorded`].
    #[cfg(all(feature = "host", unix))]
    pub(super) async fn begin_command(
        &self,
        loaded: &LoadedCluster,
        asker: Asker,
        command: &str,
        username: Option<&str>,
    ) -> Result<Begun, WireError> {
        let (by, command) = (by(loaded, asker), bounded_word(command));
        let user = username.unwrap_or_else(|| self.inner.exec.user_name()).to_owned();
        let event = AuditEvent::CommandStarted { by: by.clone(), command: command.clone(), user };
        self.begin_recorded(&loaded.alias, by, What::Command(command), event).await
    }

    /// Records that a peer is about to be connected to a service.
    ///
    /// # Errors
    /// As [`Self::begin_recorded`].
    #[cfg(all(feature = "host", unix))]
    pub(super) async fn begin_service(
        &self,
        loaded: &LoadedCluster,
        asker: Asker,
        service: &ServiceName,
    ) -> Result<Begun, WireError> {
        let by = by(loaded, asker);
        let event = AuditEvent::ServiceOpened { by: by.clone(), service: service.clone() };
        self.begin_recorded(&loaded.alias, by, What::Service(service.clone()), event).await
    }

    /// Records that a session is about to be started; a shell, if there is no command.
    ///
    /// # Errors
    /// As [`Self::begin_recorded`].
    #[cfg(all(feature = "host", unix))]
    pub(super) async fn begin_session(
        &self,
        loaded: &LoadedCluster,
        asker: Asker,
        command: Option<&str>,
        username: Option<&str>,
    ) -> Result<Begun, WireError> {
        let by = by(loaded, asker);
        let user = username.unwrap_or_else(|| self.inner.exec.user_name()).to_owned();
        let event = AuditEvent::SessionStarted { by: by.clone(), command: command.map(bounded_word), user };
        self.begin_recorded(&loaded.alias, by, What::Session(None), event).await
    }

    /// Records that a client attaches to a session, before it does.
    ///
    /// # Errors
    /// As [`Self::begin_recorded`].
    #[cfg(all(feature = "host", unix))]
    pub(super) async fn begin_attaching(
        &self,
        loaded: &LoadedCluster,
        asker: Asker,
        session: &SessionId,
        mode: AttachMode,
    ) -> Result<Begun, WireError> {
        let by = by(loaded, asker);
        let event = AuditEvent::SessionAttached { by: by.clone(), session: session.clone(), mode };
        self.begin_recorded(&loaded.alias, by, What::Session(Some(session.clone())), event).await
    }

    /// Records that a session was ended by its owner, or since its right was taken away.
    #[cfg(all(feature = "host", unix))]
    pub(super) fn record_session_end(
        &self,
        record: &SessionRecord,
        outcome: Outcome,
        end: Option<CommandEnd>,
    ) {
        let event = AuditEvent::SessionEnded {
            by: owner_of(record),
            session: Some(record.session.clone()),
            started: None,
            outcome,
            status: end.map(|end| end.shell_status()),
            code: None,
            duration_ms: 0,
        };
        self.record_event(&record.cluster, event);
    }
}

/// Records that a session's process is no more.
#[cfg(all(feature = "host", unix))]
pub(super) fn record_session_gone(audit: &AuditLog, record: &SessionRecord, end: Option<&SessionEnd>) {
    let ran = end.and_then(|end| u64::try_from(end.at.duration_since(record.started).as_millis()).ok());
    let (outcome, status) = match end.map(|end| Outcome::of_end(&end.end)) {
        Some((outcome, status)) => (Some(outcome), status),
        None => (None, None),
    };
    let event = AuditEvent::SessionGone {
        by: owner_of(record),
        session: record.session.clone(),
        outcome,
        status,
        duration_ms: ran,
    };
    audit.record(AuditRecord::of_cluster(audit.now(), &record.cluster, event));
}

#[cfg(all(feature = "host", unix))]
fn owner_of(record: &SessionRecord) -> By {
    By { peer: record.owner, name: None, here: record.owner == record.own }
}

/// Something that was recorded to have begun. Dropped, it was cut off.
#[cfg(all(feature = "host", unix))]
pub(super) struct Begun {
    node: Node,
    cluster: ClusterAlias,
    by: By,
    what: What,
    started: Option<u64>,
    begun: Instant,
    ended: bool,
}

/// What began.
#[cfg(all(feature = "host", unix))]
enum What {
    Command(String),
    Service(ServiceName),
    Session(Option<SessionId>),
}

#[cfg(all(feature = "host", unix))]
impl Begun {
    /// Records how a command ended.
    pub(super) fn command_ended(self, outcome: &Result<TargetOutcome, HostError>) {
        let (outcome, status, code) = match outcome {
            Ok(TargetOutcome::Ended(end)) => {
                let (outcome, status) = Outcome::of_end(end);
                (outcome, status, None)
            }
            Ok(TargetOutcome::CallerLost) => (Outcome::CallerLost, None, None),
            Ok(TargetOutcome::Revoked) => (Outcome::Revoked, None, None),
            Err(error) => (Outcome::Failed, None, Some(error.code())),
        };
        self.end(outcome, status, code);
    }

    /// Records how a service's connection ended.
    pub(super) fn service_closed(self, outcome: &Result<ServiceOutcome, ServiceError>) {
        let (outcome, code) = match outcome {
            Ok(ServiceOutcome::Closed) => (Outcome::Closed, None),
            Ok(ServiceOutcome::CallerLost) => (Outcome::CallerLost, None),
            Ok(ServiceOutcome::Revoked) => (Outcome::Revoked, None),
            Err(error) => (Outcome::Failed, Some(error.code())),
        };
        self.end(outcome, None, code);
    }

    /// Records that a session runs now, and by what name.
    pub(super) fn session_opened(&mut self, session: &SessionId) {
        self.what = What::Session(Some(session.clone()));
        let event = AuditEvent::SessionOpened {
            by: self.by.clone(),
            session: session.clone(),
            started: self.started,
        };
        self.node.record_event(&self.cluster, event);
    }

    /// Records how a client's time at a session ended.
    pub(super) fn session_left(self, outcome: &SessionOutcome) {
        let (outcome, status, code) = match outcome {
            SessionOutcome::Ended(end) => {
                let (outcome, status) = Outcome::of_end(end);
                (outcome, status, None)
            }
            SessionOutcome::Detached(_) => (Outcome::Left, None, None),
            SessionOutcome::CallerLost | SessionOutcome::Abandoned => (Outcome::CallerLost, None, None),
            SessionOutcome::Revoked => (Outcome::Revoked, None, None),
            SessionOutcome::Failed(error) => (Outcome::Failed, None, Some(error.to_wire().code)),
        };
        self.end(outcome, status, code);
    }

    /// Records that nobody is at a session that was opened to run by itself.
    pub(super) fn runs_alone(mut self) {
        self.ended = true;
    }

    /// Records that it could not be done.
    pub(super) fn failed(self, code: ErrorCode) {
        self.end(Outcome::Failed, None, Some(code));
    }

    fn end(mut self, outcome: Outcome, status: Option<u8>, code: Option<ErrorCode>) {
        self.record_end(outcome, status, code);
    }

    fn record_end(&mut self, outcome: Outcome, status: Option<u8>, code: Option<ErrorCode>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let (by, started) = (self.by.clone(), self.started);
        let duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let event = match &self.what {
            What::Command(command) => {
                let command = command.clone();
                AuditEvent::CommandEnded { by, command, started, outcome, status, code, duration_ms }
            }
            What::Service(service) => {
                let service = service.clone();
                AuditEvent::ServiceClosed { by, service, started, outcome, code, duration_ms }
            }
            What::Session(session) => {
                let session = session.clone();
                AuditEvent::SessionEnded { by, session, started, outcome, status, code, duration_ms }
            }
        };
        self.node.record_event(&self.cluster, event);
    }
}

#[cfg(all(feature = "host", unix))]
impl Drop for Begun {
    fn drop(&mut self) {
        self.record_end(Outcome::Stopped, None, None);
    }
}

fn by(loaded: &LoadedCluster, asker: Asker) -> By {
    By { peer: asker.peer, name: loaded.name_of(&asker.peer), here: asker.is_here() }
}

/// What a caller is told whose request could not be recorded. This device's files are nobody else's business.
#[cfg(all(feature = "host", unix))]
fn unrecorded(error: &AuditError, here: bool) -> WireError {
    let why = WireError::of(error.code(), error, error.hint());
    let hint = "its malai.toml says audit = \"required\", and its malai.log says what is wrong: is the disk full, or the folder locked?";
    WireError {
        code: error.code(),
        message: if here {
            format!("record it in the audit log: {}", why.message)
        } else {
            "record it in that machine's audit log, without which it does nothing".to_owned()
        },
        hint: Some(why.hint.filter(|_| here).unwrap_or_else(|| hint.to_owned())),
    }
}
