//! A cluster that a node takes part in: its rules in force, its endpoint, its connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use malai_model::audit::{By, Denial, Wanted};
use malai_model::cluster::DistributionState;
use malai_model::id::Id52;
use malai_model::name::ClusterAlias;
use tokio::sync::{Notify, OnceCell};
use tokio_util::sync::CancellationToken;

use super::invites::InviteListener;
use crate::audit::AuditLog;
use crate::cluster::LoadedCluster;
use crate::home::IdentityClaim;
use crate::p2p::{Admission, Connection, Endpoint, Pool, Protocol, Resumables};
use crate::task::Scope;

/// How often refused connections are told of at most.
const TELL_REFUSED_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// A cluster in a node.
pub struct Member {
    alias: ClusterAlias,
    own_id: Id52,
    rules: Arc<RulesInForce>,
    pub(super) scope: Scope,
    pub(super) network: OnceCell<MemberNetwork>,
    /// Wakes whoever distributes or asks for configs.
    pub(super) wake: Notify,
    /// What was distributed to whom; managers only.
    pub(super) distribution: tokio::sync::Mutex<Option<DistributionState>>,
    pub(super) invites: Mutex<BTreeMap<Id52, InviteListener>>,
    /// Held while `invites` is brought in line with the files.
    pub(super) refreshing: tokio::sync::Mutex<()>,
    inbound: Mutex<BTreeMap<u64, Connection>>,
    /// The streams that peers may go on with after a lost connection.
    pub(super) resumables: Resumables,
    next_connection: AtomicU64,
    /// Cancelled when no request is taken any more.
    closing: CancellationToken,
    /// Cancelled when those that would stay for ever have to leave.
    letting_go: CancellationToken,
}

/// A member's way to its peers.
pub(crate) struct MemberNetwork {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) pool: Pool,
    /// Says to other processes that the identity is in use.
    pub(super) _claim: Option<IdentityClaim>,
}

/// The rules in force, shared with the gate of the endpoint.
pub(crate) struct RulesInForce {
    rules: RwLock<Arc<LoadedCluster>>,
    refused: Mutex<Refused>,
    audit: AuditLog,
}

/// Refused connections, told at most once a second: identities are free, so strangers could turn the log over.
#[derive(Default)]
struct Refused {
    told: Option<std::time::Instant>,
    untold: u64,
}

impl RulesInForce {
    fn get(&self) -> Arc<LoadedCluster> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Admission for RulesInForce {
    fn admits(&self, peer: &Id52, protocol: Protocol) -> bool {
        let admitted = protocol == Protocol::Member && self.get().admits(peer);
        if !admitted {
            self.audit.denied(Denial {
                time: self.audit.now(),
                cluster: self.get().alias.clone(),
                by: By { peer: *peer, name: None, here: false },
                wanted: Wanted::Connection,
                asked: None,
                reason: "unknown here, or no rights".to_owned(),
            });
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if refused.told.is_none_or(|told| told.elapsed() >= TELL_REFUSED_EVERY) {
                let others = std::mem::take(&mut refused.untold);
                refused.told = Some(std::time::Instant::now());
                tracing::warn!(
                    cluster = %self.get().alias, %peer, others,
                    "refused a connection: unknown here, or no rights"
                );
            } else {
                refused.untold += 1;
            }
        }
        admitted
    }
}

impl Member {
    pub(super) fn new(loaded: LoadedCluster, scope: Scope, audit: AuditLog) -> Self {
        Self {
            alias: loaded.alias.clone(),
            own_id: loaded.own_id,
            rules: Arc::new(RulesInForce {
                rules: RwLock::new(Arc::new(loaded)),
                refused: Mutex::default(),
                audit,
            }),
            scope,
            network: OnceCell::new(),
            wake: Notify::new(),
            distribution: tokio::sync::Mutex::new(None),
            invites: Mutex::new(BTreeMap::new()),
            refreshing: tokio::sync::Mutex::new(()),
            inbound: Mutex::new(BTreeMap::new()),
            resumables: Resumables::default(),
            next_connection: AtomicU64::new(0),
            closing: CancellationToken::new(),
            letting_go: CancellationToken::new(),
        }
    }

    /// What this device calls the cluster.
    pub fn alias(&self) -> &ClusterAlias {
        &self.alias
    }

    /// This device's identity in it.
    pub fn own_id(&self) -> Id52 {
        self.own_id
    }

    /// The rules in force.
    pub fn loaded(&self) -> Arc<LoadedCluster> {
        self.rules.get()
    }

    pub(super) fn admission(&self) -> Arc<RulesInForce> {
        Arc::clone(&self.rules)
    }

    /// Replaces the rules. Whoever calls this authorises again what is open.
    pub(super) fn install(&self, loaded: LoadedCluster) -> Arc<LoadedCluster> {
        let loaded = Arc::new(loaded);
        *self.rules.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&loaded);
        loaded
    }

    pub(super) fn stop_accepting(&self) {
        self.closing.cancel();
    }

    pub(super) fn is_accepting(&self) -> bool {
        !self.closing.is_cancelled()
    }

    /// Lets go of those that would stay for ever: clients of sessions. They come back to the next daemon.
    pub(super) fn let_go(&self) {
        self.letting_go.cancel();
    }

    /// Resolves when nobody may stay any more. Cancel safe.
    #[cfg(all(feature = "host", unix))]
    pub(super) async fn lets_go(&self) {
        self.letting_go.cancelled().await;
    }

    /// Notes a connection that a peer opened. Dropping the result forgets it.
    pub(super) fn enter(self: &Arc<Self>, connection: Connection) -> InboundGuard {
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner).insert(number, connection);
        InboundGuard { member: Arc::clone(self), number }
    }

    /// How many connections a peer has open here.
    pub(super) fn inbound_of(&self, peer: &Id52) -> usize {
        let inbound = self.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        inbound.values().filter(|connection| connection.peer() == *peer).count()
    }

    pub(super) fn inbound(&self) -> Vec<Connection> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.letting_go.cancel();
        self.scope.stop();
        let listeners = std::mem::take(&mut *self.invites.lock().unwrap_or_else(PoisonError::into_inner));
        for listener in listeners.into_values() {
            listener.close().await;
        }
        if let Some(network) = self.network.get() {
            network.endpoint.close().await;
        }
    }
}

/// Forgets an inbound connection when it is over.
pub(super) struct InboundGuard {
    member: Arc<Member>,
    number: u64,
}

impl Drop for InboundGuard {
    fn drop(&mut self) {
        self.member.inbound.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}
