//! Services: finding those of others, and connecting callers to those of this device.

use std::sync::Arc;

#[cfg(all(feature = "host", unix))]
use malai_model::acl::ReachEffect;
use malai_model::address::{
    AddressProblem, ClusterRef, KnownCluster, MachineSelector, resolve_machine, resolve_service,
};
#[cfg(not(all(feature = "host", unix)))]
use malai_model::code::ErrorCode;
use malai_model::name::{ClusterAlias, MachineName, ServiceName};
use malai_model::wire::ResumeToken;
#[cfg(not(all(feature = "host", unix)))]
use malai_model::wire::WireError;
use malai_model::wire::local::{OpenRequest, Place, ServiceView};

#[cfg(all(feature = "host", unix))]
use super::serve::denied_to_caller;
use super::serve::{Asker, ServeProblem, refuse};
use super::work::Ticket;
use super::{Member, Node, NodeError};
use crate::cluster::{ClusterError, LoadedCluster};
use crate::home::Role;
use crate::p2p::Stream;
use crate::service::{ServiceConnection, ServiceError};
#[cfg(all(feature = "host", unix))]
use crate::service::{ServiceOutcome, serve_service};

/// The service that a machine's own address means where a service is asked for.
const DEFAULT_SERVICE: &str = "ssh";

/// What an address asks for.
struct Wanted {
    cluster: ClusterAlias,
    /// A service within a machine; absent: the name is the service's own.
    machine: Option<MachineSelector>,
    service: Option<ServiceName>,
}

impl Node {
    /// Finds the service that an address means: `ssh.web01.company`, `mysql.company`, or a machine's own address, which
    /// means its service `ssh`. A service with a cluster-wide name goes before a machine of that name.
    pub(crate) async fn find_service(&self, address: &str) -> Result<ServiceView, NodeError> {
        let device = self.device();
        // An alias may have a program's words behind the address; a service has no use for them.
        let address = device.aliases.get(address).and_then(<[String]>::first).map_or(address, String::as_str);
        let wanted = parse(address, &self.known_clusters()?)?;
        let member = self.member(&wanted.cluster)?;
        let error = match wanted.find(&member.loaded()) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        // It may have been added meanwhile: the manager is asked once.
        if member.loaded().role != Role::Manager {
            match self.sync(&member).await {
                Ok(true) => return Ok(wanted.find(&member.loaded())?),
                Ok(false) => {}
                Err(unasked) => tracing::debug!(error = %unasked, "the manager could not be asked"),
            }
        }
        Err(error.into())
    }

    /// The services that this device may reach, of one cluster or of all.
    pub(crate) fn services(&self, cluster: Option<&ClusterAlias>) -> Result<Vec<ServiceView>, NodeError> {
        let members = match cluster {
            Some(alias) => vec![self.member(alias)?],
            None => self.all_members()?,
        };
        Ok(members.iter().flat_map(|member| member.loaded().services()).collect())
    }

    /// Finds a service and connects to it.
    ///
    /// # Errors
    /// When the address means no service that this device may reach, its machine cannot be reached, or it refuses.
    pub async fn connect_service(&self, address: &str) -> Result<ServiceConnection, NodeError> {
        let service = self.find_service(address).await?;
        let words = vec![service.machine_by_id()];
        let machine = self.find(&OpenRequest { words, ..OpenRequest::default() }).await?;
        let (stream, _) = self.open(&machine).await?;
        let started = match machine.place() {
            Place::Here => ServiceConnection::start(stream, service.service).await,
            Place::Elsewhere => {
                let redial = machine.redial(self);
                ServiceConnection::start_resumable(stream, service.service, redial, &machine.member.scope)
                    .await
            }
        };
        started.map_err(|error| match error {
            ServiceError::Network(source) => ClusterError::Reach { machine: service.address, source }.into(),
            other => other.into(),
        })
    }

    /// Connects a peer to a service of this device. `resume` is what the peer calls the stream, if it would go on with it
    /// after a lost connection.
    #[cfg(all(feature = "host", unix))]
    pub(super) async fn serve_connect(
        &self,
        member: &Arc<Member>,
        asker: Asker,
        stream: Stream,
        service: ServiceName,
        resume: Option<ResumeToken>,
        ticket: Ticket,
    ) -> Result<(), ServeProblem> {
        let peer = asker.peer;
        if self.has_no_room(member, &peer) {
            self.refuse_busy(member, asker, stream);
            return Ok(());
        }
        let (node, name) = (self.clone(), service.clone());
        let decide = move |loaded: &LoadedCluster| {
            loaded
                .authorize_reach(&peer, &name, &node.ceilings())
                .ok()
                .map(|granted| granted.effect().clone())
        };
        // Another host or port is a right taken away, too.
        let granted = ticket.allow_as_granted(decide, ReachEffect::eq);
        let loaded = member.loaded();
        let alias = member.alias();
        let authorized = match loaded.authorize_reach(&peer, &service, &self.ceilings()) {
            Ok(authorized) => authorized,
            Err(denied) => {
                tracing::warn!(cluster = %alias, %peer, %service, reason = %denied, "denied a service");
                self.record_denial(
                    &loaded,
                    asker,
                    (malai_model::audit::Wanted::Service, Some(service.as_str())),
                    &denied,
                );
                let what = format!("reach the service {service}");
                refuse(stream, denied_to_caller(&what, &denied, loaded.own_name.as_ref())).await;
                return Ok(());
            }
        };
        self.was_granted(member, &loaded, &granted, authorized.effect().clone());
        // Before anything waits: a caller that lost its connection just then shall not hear that nobody knows of it.
        let (kept, linger) = match self.keep(member, peer, resume, &stream) {
            Ok(kept) => kept,
            Err(late) => {
                let wanted = (malai_model::audit::Wanted::Service, Some(service.as_str()));
                self.refuse_late(member, asker, wanted, stream);
                return Err(late.into());
            }
        };
        let begun = match self.begin_service(&loaded, asker, &service).await {
            Ok(begun) => begun,
            Err(told) => {
                drop(kept);
                refuse(stream, told).await;
                return Ok(());
            }
        };
        tracing::info!(cluster = %alias, %peer, %service, "a service is connected");
        let served = serve_service(&authorized, stream, ticket.revoked.clone(), linger).await;
        drop(kept);
        begun.service_closed(&served);
        match served {
            Ok(ServiceOutcome::Closed) => {
                tracing::info!(cluster = %alias, %peer, %service, "a service's connection ended");
            }
            Ok(ServiceOutcome::CallerLost) => {
                tracing::info!(cluster = %alias, %peer, %service, "a service was hung up: its caller is gone");
            }
            Ok(ServiceOutcome::Revoked) => {
                tracing::warn!(cluster = %alias, %peer, %service, "a service was cut off: its right was taken away");
            }
            Err(error) => {
                tracing::info!(cluster = %alias, %peer, %service, %error, "a service could not be connected");
            }
        }
        Ok(())
    }

    #[cfg(not(all(feature = "host", unix)))]
    pub(super) async fn serve_connect(
        &self,
        _member: &Arc<Member>,
        _asker: Asker,
        stream: Stream,
        _service: ServiceName,
        _resume: Option<ResumeToken>,
        _ticket: Ticket,
    ) -> Result<(), ServeProblem> {
        let told = WireError {
            code: ErrorCode::CommandUnsupported,
            message: "connect to a service here: this device does not host any".to_owned(),
            hint: None,
        };
        refuse(stream, told).await;
        Ok(())
    }
}

fn parse(address: &str, known: &[KnownCluster]) -> Result<Wanted, ClusterError> {
    match resolve_service(address, known) {
        Ok(target) => Ok(Wanted {
            cluster: target.cluster,
            machine: target.machine.map(MachineSelector::Name),
            service: Some(target.service),
        }),
        // An id52 is no service's name, but may be a machine's.
        Err(problem @ AddressProblem::Shape { .. }) => match resolve_machine(address, known) {
            Ok(target) => match target.cluster {
                ClusterRef::Known(cluster) => {
                    Ok(Wanted { cluster, machine: Some(target.machine), service: None })
                }
                ClusterRef::Foreign(_) => Err(ClusterError::ForeignCluster(address.to_owned())),
            },
            Err(_) => Err(problem.into()),
        },
        Err(problem) => Err(problem.into()),
    }
}

impl Wanted {
    fn find(&self, loaded: &LoadedCluster) -> Result<ServiceView, ClusterError> {
        let default =
            || DEFAULT_SERVICE.parse::<ServiceName>().map_err(|_| ClusterError::OutOfTurn("a name"));
        match (&self.machine, &self.service) {
            (Some(machine), Some(service)) => loaded.service_of(machine, service),
            (Some(machine), None) => loaded.service_of(machine, &default()?),
            (None, Some(service)) => {
                if let Some(found) = loaded.service_in_cluster(service) {
                    return Ok(found);
                }
                let machine = service.as_str().parse::<MachineName>().map(MachineSelector::Name);
                match machine {
                    Ok(machine) => loaded.service_of(&machine, &default()?),
                    Err(_) => Err(self.unknown(loaded, service)),
                }
                .map_err(|error| match error {
                    ClusterError::UnknownMachine { .. } => self.unknown(loaded, service),
                    other => other,
                })
            }
            (None, None) => Err(ClusterError::OutOfTurn("an address without a name")),
        }
    }

    fn unknown(&self, loaded: &LoadedCluster, service: &ServiceName) -> ClusterError {
        let known: Vec<String> = loaded.services().into_iter().map(|service| service.address).collect();
        ClusterError::UnknownService { cluster: self.cluster.clone(), service: service.to_string(), known }
    }
}
