//! Listening on invites: each is an identity and an endpoint of its own, so that strangers never dial the root.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use malai_model::audit::{AuditEvent, ConfigOrigin};
use malai_model::cluster::{Attempt, Invite, InviteRecord};
use malai_model::code::{ErrorCode, ErrorKind};
use malai_model::id::Id52;
use malai_model::wire::{JoinAccepted, JoinRequest, WireError};

use super::serve::refuse;
use super::{Member, Node, NodeError};
use crate::cluster::{self, ClusterError, NewInvite, Rules};
use crate::identity::KeyRef;
use crate::p2p::{Admission, Connection, Endpoint, EndpointOptions, Protocol, Serve};
use crate::task::Scope;
use crate::timeouts;
use malai_model::wire::local::{CreateInviteRequest, InviteView, NewInviteView, OpenRules};

/// How long after its end an invite is still answered, in hours, so that who holds it hears that it is over.
const ANSWERED_AFTER_EXPIRY: i64 = 7 * 24;
const DEFAULT_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many joiners one invite serves at once: each costs little, and many that say nothing shall not keep others out.
const JOINERS_AT_ONCE: usize = 256;

/// An invite's own endpoint.
pub(crate) struct InviteListener {
    endpoint: Arc<Endpoint>,
    scope: Scope,
}

impl InviteListener {
    pub(super) async fn close(&self) {
        self.scope.stop();
        self.endpoint.close().await;
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.endpoint.addresses().iter().map(ToString::to_string).collect()
    }
}

/// Strangers may dial an invite: what they may do there is decided by the token.
struct AnyJoiner;

impl Admission for AnyJoiner {
    fn admits(&self, _peer: &Id52, protocol: Protocol) -> bool {
        protocol == Protocol::Invite
    }
}

impl Node {
    /// Makes an invite and, when serving, listens on it before its word is shown.
    pub(crate) async fn create_invite(
        &self,
        request: CreateInviteRequest,
    ) -> Result<NewInviteView, NodeError> {
        let member = self.member(&request.cluster)?;
        let now = self.now();
        let new = NewInvite {
            label: request.label,
            expires: now
                .checked_add(request.expires_in.unwrap_or(DEFAULT_LIFE))
                .map_err(|_| ClusterError::ExpiryTooFar)?,
            max_uses: request.max_uses.unwrap_or(1),
            groups: request.groups,
            open: request.open == OpenRules::Accept,
        };
        let cluster = Arc::clone(&member);
        let (id52, token, record) = self
            .blocking(move |node| {
                cluster::create_invite(node.home(), node.keys().as_ref(), &cluster.loaded(), new, now)
            })
            .await?;
        self.record_invite(member.alias(), id52, &record);
        let mut hints = Vec::new();
        if self.inner.mode == super::Mode::Serve {
            self.refresh_invites(&member).await;
            let listeners = member.invites.lock().unwrap_or_else(PoisonError::into_inner);
            hints = listeners.get(&id52).map(InviteListener::addresses).unwrap_or_default();
        }
        let listening = !hints.is_empty();
        let invite = Invite::new(id52, token, hints).map_err(ClusterError::NoInvite)?;
        Ok(NewInviteView {
            invite: invite.to_word().to_string(),
            view: invite_view(&id52, &record, now),
            listening,
        })
    }

    pub(crate) async fn list_invites(&self, member: &Arc<Member>) -> Result<Vec<InviteView>, NodeError> {
        managed(member)?;
        let (alias, now) = (member.alias().clone(), self.now());
        let records = self.blocking(move |node| cluster::list_invites(node.home(), &alias)).await?;
        Ok(records.iter().map(|(id52, record)| invite_view(id52, record, now)).collect())
    }

    pub(crate) async fn revoke_invite(
        &self,
        member: &Arc<Member>,
        invite: String,
    ) -> Result<Vec<InviteView>, NodeError> {
        managed(member)?;
        let (alias, now) = (member.alias().clone(), self.now());
        let ended = self
            .blocking(move |node| {
                cluster::revoke_invite(node.home(), node.keys().as_ref(), &alias, &invite, now)
            })
            .await?;
        for (invite, _) in &ended {
            self.record_event(member.alias(), AuditEvent::InviteRevoked { invite: *invite });
        }
        if self.inner.mode == super::Mode::Serve {
            self.refresh_invites(member).await;
        }
        Ok(ended.iter().map(|(id52, record)| invite_view(id52, record, now)).collect())
    }

    /// Listens on every invite that is still answered, and on no other.
    pub(super) async fn refresh_invites(&self, member: &Arc<Member>) {
        if !matches!(member.loaded().rules, Rules::Master { .. }) {
            return;
        }
        // Two at once would listen on one invite twice.
        let _one_at_a_time = member.refreshing.lock().await;
        let alias = member.alias().clone();
        let records = match self.blocking(move |node| cluster::list_invites(node.home(), &alias)).await {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(cluster = %member.alias(), %error, "the invites cannot be read");
                return;
            }
        };
        let now = self.now();
        let current: BTreeMap<Id52, &InviteRecord> = records
            .iter()
            .filter(|(_, record)| is_answered(record, now))
            .map(|(id52, r)| (*id52, r))
            .collect();
        let ended: Vec<InviteListener> = {
            let mut listeners = member.invites.lock().unwrap_or_else(PoisonError::into_inner);
            let over: Vec<Id52> = listeners.keys().filter(|id| !current.contains_key(id)).copied().collect();
            over.iter().filter_map(|id| listeners.remove(id)).collect()
        };
        for listener in ended {
            listener.close().await;
        }
        // An invite that is used up still answers those who used it. One that was revoked says so as long as this
        // process listens on it; its key is wiped, so that nobody does after the next start.
        for (id52, _) in current.into_iter().filter(|(_, record)| record.revoked.is_none()) {
            let known = member.invites.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id52);
            if !known && let Err(error) = self.listen_on_invite(member, id52).await {
                tracing::error!(cluster = %member.alias(), invite = %id52, %error, "cannot listen on an invite");
            }
        }
    }

    async fn listen_on_invite(&self, member: &Arc<Member>, invite: Id52) -> Result<(), NodeError> {
        let key = KeyRef::Invite(member.alias().clone(), invite);
        let secret = cluster::load_key(self.keys().as_ref(), key, member.alias())?;
        let scope = member.scope.child();
        let options = EndpointOptions {
            secret,
            network: self.any_port(),
            preferred_port: self.inner.peers.own_port(&invite),
            serve: Some(Serve { protocols: vec![Protocol::Invite], admission: Arc::new(AnyJoiner) }),
        };
        let endpoint = Arc::new(Endpoint::bind(options, self.inner.options.transport.clone(), &scope).await?);
        if let Some(address) = endpoint.addresses().first() {
            self.inner.peers.set_own_port(&invite, address.port());
        }
        let (node, cluster, accepting) = (self.clone(), Arc::clone(member), Arc::clone(&endpoint));
        let joiners = scope.clone();
        scope.spawn_until_stop("invite", async move {
            let permits = Arc::new(tokio::sync::Semaphore::new(JOINERS_AT_ONCE));
            while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
                let Some(connection) = accepting.accept().await else { return };
                let (node, cluster) = (node.clone(), Arc::clone(&cluster));
                joiners.spawn_until_stop("join", async move {
                    let served = tokio::time::timeout(
                        timeouts::HANDSHAKE,
                        node.serve_joiner(&cluster, invite, &connection),
                    );
                    match served.await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::info!(cluster = %cluster.alias(), %error, "a join ended"),
                        Err(_) => tracing::info!(cluster = %cluster.alias(), "a joiner stalled"),
                    }
                    drop(permit);
                });
            }
        });
        let listener = InviteListener { endpoint, scope };
        member.invites.lock().unwrap_or_else(PoisonError::into_inner).insert(invite, listener);
        Ok(())
    }

    /// One connection, one request, one answer.
    async fn serve_joiner(
        &self,
        member: &Arc<Member>,
        invite: Id52,
        connection: &Connection,
    ) -> Result<(), NodeError> {
        let joiner = connection.peer();
        let mut stream = connection.accept_stream().await?;
        let Some(request) = stream.receiver.message::<JoinRequest>().await? else { return Ok(()) };
        let source = (invite, connection.remote_address().map(|address| address.ip()));
        match self.join_as_manager(member, invite, joiner, source, request).await {
            Ok(accepted) => {
                let told = stream.sender.finish_with(&accepted).await;
                // Told or not, it is registered. It listens as soon as its daemon runs; until then its config waits.
                member.wake.notify_one();
                told?;
            }
            Err(error) => {
                tracing::warn!(cluster = %member.alias(), %joiner, %invite, %error, "refused a join");
                self.record_refused_join(member.alias(), (invite, joiner), &error);
                refuse(stream, told_to_stranger(&error)).await;
            }
        }
        // The joiner closes when it has the answer; a joiner that does not is cut by the caller's deadline.
        connection.closed().await;
        Ok(())
    }

    async fn join_as_manager(
        &self,
        member: &Arc<Member>,
        invite: Id52,
        joiner: Id52,
        source: Source,
        request: JoinRequest,
    ) -> Result<JoinAccepted, ClusterError> {
        self.check_lockout(source)?;
        let (node, cluster) = (self.clone(), Arc::clone(member));
        // A joiner that is gone, or too slow, does not leave it registered on disk and unknown in memory.
        let registered = self
            .to_its_end("register", async move {
                let _one_at_a_time = node.inner.changing.lock().await;
                let (alias, now) = (cluster.alias().clone(), node.now());
                let registered = node
                    .blocking(move |node| {
                        let (home, keys) = (node.home(), node.keys().as_ref());
                        cluster::register(home, keys, &alias, &invite, &joiner, &request, now)
                    })
                    .await?;
                let (peer, name) = (joiner, registered.accepted.machine.clone());
                node.record_event(cluster.alias(), AuditEvent::MachineJoined { peer, name, invite });
                node.install(&cluster, registered.loaded, ConfigOrigin::Join);
                Ok::<_, ClusterError>(registered.accepted)
            })
            .await;
        let mut accepted = match registered {
            Ok(accepted) => accepted,
            Err(error) => {
                if error.code() == ErrorCode::InviteUnknown {
                    self.note_failure(source);
                }
                return Err(error);
            }
        };
        if let Some(network) = member.network.get() {
            accepted.addresses = network.endpoint.addresses().iter().map(ToString::to_string).collect();
        }
        tracing::info!(
            cluster = %member.alias(), role = "cluster-manager", %joiner,
            "{} joined by invite; it has no rights yet", accepted.machine
        );
        Ok(accepted)
    }
}

/// What a joiner is told: what concerns its invite, and nothing of this device's files.
fn told_to_stranger(error: &ClusterError) -> WireError {
    match error.code().kind() {
        ErrorKind::Denied | ErrorKind::Busy => WireError::of(error.code(), error, error.hint()),
        _ => WireError {
            code: error.code(),
            message: "register the machine: something is wrong at the manager, whose log says what"
                .to_owned(),
            hint: Some("ask the cluster's manager".to_owned()),
        },
    }
}

/// Where failed attempts come from: at which invite, from which address (none: through a relay). Joiners are strangers
/// with identities for free, so it is the address that counts; and whoever knows one invite must not be able to lock
/// others out of another.
pub(super) type Source = (Id52, Option<std::net::IpAddr>);

impl Node {
    fn check_lockout(&self, source: Source) -> Result<(), ClusterError> {
        let lockout = self.inner.lockout.lock().unwrap_or_else(PoisonError::into_inner);
        match lockout.check(&source, self.now()) {
            Attempt::Go => Ok(()),
            Attempt::Wait(time) | Attempt::LockedOut(time) => Err(ClusterError::LockedOut(time)),
        }
    }

    fn note_failure(&self, source: Source) {
        let mut lockout = self.inner.lockout.lock().unwrap_or_else(PoisonError::into_inner);
        lockout.record_failure(&source, self.now());
    }
}

fn managed(member: &Arc<Member>) -> Result<(), ClusterError> {
    match member.loaded().rules {
        Rules::Master { .. } => Ok(()),
        Rules::Own { .. } | Rules::Absent => Err(ClusterError::NotManager(member.alias().clone())),
    }
}

/// Whether it is worth listening for: an invite that is used up still answers those who used it, and one that was
/// revoked says so, or who holds it would wait until it expires.
fn is_answered(record: &InviteRecord, now: Timestamp) -> bool {
    now.duration_since(record.expires) < jiff::SignedDuration::from_hours(ANSWERED_AFTER_EXPIRY)
}

fn invite_view(id52: &Id52, record: &InviteRecord, now: Timestamp) -> InviteView {
    let state = if record.revoked.is_some() {
        "revoked"
    } else if now >= record.expires {
        "expired"
    } else if record.uses.len() >= record.max_uses as usize {
        "used-up"
    } else {
        "open"
    };
    InviteView {
        id52: *id52,
        label: (!record.label.is_empty()).then(|| record.label.clone()),
        created: record.created,
        expires: record.expires,
        uses: u32::try_from(record.uses.len()).unwrap_or(u32::MAX),
        max_uses: record.max_uses,
        state: state.to_owned(),
    }
}
