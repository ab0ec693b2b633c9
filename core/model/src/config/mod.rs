//! Config files, compiled in passes: text → `Document` → `RawConfig` → [`ClusterConfig`] or `MachineConfig`.
//!
//! Responsible for everything that a file's text can get wrong. Not for who may do what (`crate::acl`).

mod cluster;
mod personalize;
mod signed;

pub use cluster::{
    AclTest, AclTestCase, ArgGlob, ArgsRule, ClusterConfig, CommandRule, MachineEntry, ManagerEntry,
    OnDemand, PrincipalList, PrincipalRef, RestartPolicy, ServiceEntry, ServiceProtocol, UserName,
};
pub use personalize::{Personalised, Personalizer, personalize};
pub use signed::{SignedConfigProblem, check_signature};
