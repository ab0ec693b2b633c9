//! Which services of others this device may reach, and which machines host them.

use malai_model::acl::{Reach, authorize};
use malai_model::address::MachineSelector;
use malai_model::config::{ProtocolKind, ServiceProtocol};
use malai_model::id::Id52;
use malai_model::name::{MachineName, ServiceName};
use malai_model::wire::local::ServiceView;

use super::{ClusterError, LoadedCluster, Rules};

impl LoadedCluster {
    /// Finds the machine that hosts a service with a cluster-wide name; `None` if this device knows of none.
    pub fn host_of(&self, service: &ServiceName) -> Option<(Option<MachineName>, Id52)> {
        match &self.rules {
            Rules::Master { config } => {
                let entry = config.services().get(service)?;
                let machine = config.machines().get(&entry.machine)?;
                Some((Some(entry.machine.clone()), machine.id52))
            }
            Rules::Own { config, .. } if config.hosted_services().contains_key(service) => {
                Some((self.own_name.clone(), self.own_id))
            }
            Rules::Own { config, .. } => {
                let entry = config.directory().services().get(service)?;
                Some((Some(entry.machine.clone()), entry.id52))
            }
            Rules::Absent => None,
        }
    }

    /// Finds a service with a name within a machine.
    ///
    /// # Errors
    /// When this device knows of no such machine. Whether it has the service, it says itself.
    pub fn service_of(
        &self,
        machine: &MachineSelector,
        service: &ServiceName,
    ) -> Result<ServiceView, ClusterError> {
        let target = self.target(machine)?;
        let shown = target.name.as_ref().map_or_else(|| target.id52.to_string(), ToString::to_string);
        Ok(ServiceView {
            address: format!("{service}.{shown}.{}", self.alias),
            cluster: self.alias.clone(),
            machine: target.name,
            id52: target.id52,
            service: service.clone(),
            protocol: None,
        })
    }

    /// Finds a service with a cluster-wide name.
    pub fn service_in_cluster(&self, service: &ServiceName) -> Option<ServiceView> {
        let (machine, id52) = self.host_of(service)?;
        Some(self.cluster_wide(service, machine, id52, None))
    }

    /// The services of other machines that this device may reach, by address.
    pub fn services(&self) -> Vec<ServiceView> {
        let mut all = match &self.rules {
            Rules::Master { .. } => self.services_by_rules(),
            Rules::Own { .. } => self.services_by_directory(),
            Rules::Absent => Vec::new(),
        };
        all.retain(|service| service.id52 != self.own_id);
        all.sort_by(|a, b| a.address.cmp(&b.address));
        all
    }

    fn services_by_rules(&self) -> Vec<ServiceView> {
        let (Rules::Master { config }, Some(policy)) = (&self.rules, self.policy()) else {
            return Vec::new();
        };
        let may = |machine: &MachineName, service: &ServiceName| {
            authorize(policy, &self.own_id, machine, Reach { service: service.clone() }).is_ok()
        };
        let mut all = Vec::new();
        for (machine, entry) in config.machines() {
            for (name, service) in entry.services.iter().filter(|(name, _)| may(machine, name)) {
                let kind = kind(&service.protocol);
                all.push(self.within_machine(name, machine, entry.id52, kind));
            }
        }
        for (name, service) in config.services() {
            if let Some(host) = config.machines().get(&service.machine)
                && may(&service.machine, name)
            {
                let machine = Some(service.machine.clone());
                all.push(self.cluster_wide(name, machine, host.id52, Some(kind(&service.protocol))));
            }
        }
        all
    }

    fn services_by_directory(&self) -> Vec<ServiceView> {
        let Rules::Own { config, .. } = &self.rules else { return Vec::new() };
        let directory = config.directory();
        let mut all = Vec::new();
        for (machine, entry) in directory.machines() {
            let services = entry.services.iter();
            all.extend(services.map(|(name, kind)| self.within_machine(name, machine, entry.id52, *kind)));
        }
        for (name, service) in directory.services() {
            let machine = Some(service.machine.clone());
            all.push(self.cluster_wide(name, machine, service.id52, Some(service.protocol)));
        }
        all
    }

    fn within_machine(
        &self,
        service: &ServiceName,
        machine: &MachineName,
        id52: Id52,
        kind: ProtocolKind,
    ) -> ServiceView {
        ServiceView {
            address: format!("{service}.{machine}.{}", self.alias),
            cluster: self.alias.clone(),
            machine: Some(machine.clone()),
            id52,
            service: service.clone(),
            protocol: Some(word(kind).to_owned()),
        }
    }

    fn cluster_wide(
        &self,
        service: &ServiceName,
        machine: Option<MachineName>,
        id52: Id52,
        kind: Option<ProtocolKind>,
    ) -> ServiceView {
        ServiceView {
            address: format!("{service}.{}", self.alias),
            cluster: self.alias.clone(),
            machine,
            id52,
            service: service.clone(),
            protocol: kind.map(|kind| word(kind).to_owned()),
        }
    }
}

fn kind(protocol: &ServiceProtocol) -> ProtocolKind {
    match protocol {
        ServiceProtocol::Tcp => ProtocolKind::Tcp,
        ServiceProtocol::Http { .. } => ProtocolKind::Http,
    }
}

fn word(kind: ProtocolKind) -> &'static str {
    match kind {
        ProtocolKind::Tcp => "tcp",
        ProtocolKind::Http => "http",
    }
}
