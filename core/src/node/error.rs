//! What can go wrong in a node: the umbrella over the layers beneath it.

use malai_model::code::{ErrorCode, ErrorKind};
use malai_model::diagnostic::Diagnostic;
use malai_model::wire::WireError;

use crate::cluster::ClusterError;
use crate::exec::ExecError;
use crate::home::HomeError;
use crate::identity::IdentityError;
use crate::p2p::P2pError;
use crate::service::ServiceError;

/// Whatever a node failed with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The home directory.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Private keys.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network.
    #[error(transparent)]
    Network(#[from] P2pError),
    /// Clusters: config, invites, joining, distribution.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Commands.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// Services.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Starting programs on this device.
    #[cfg(all(feature = "host", unix))]
    #[error(transparent)]
    Host(#[from] crate::host::HostError),
}

impl NodeError {
    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Home(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::Network(error) => error.code(),
            Self::Cluster(error) => error.code(),
            Self::Exec(error) => error.code(),
            Self::Service(error) => error.code(),
            #[cfg(feature = "host")]
            Self::Host(error) => error.code(),
        }
    }

    /// Returns what sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.code().kind()
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::Identity(error) => error.hint(),
            Self::Network(error) => error.hint(),
            Self::Cluster(error) => error.hint(),
            Self::Exec(error) => error.hint(),
            Self::Service(error) => error.hint(),
            #[cfg(feature = "host")]
            Self::Host(error) => error.hint(),
        }
    }

    /// Returns what is wrong with files, if that is why.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        match self {
            Self::Cluster(error) => error.diagnostics(),
            _ => Vec::new(),
        }
    }

    /// Turns it into what crosses the wire and the daemon's socket: the causes are folded into the message.
    pub fn to_wire(&self) -> WireError {
        WireError::of(self.code(), self, self.hint())
    }
}
