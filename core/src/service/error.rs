//! What can go wrong with a connection to a service.

use malai_model::code::ErrorCode;
use malai_model::name::ServiceName;
use malai_model::wire::WireError;

use crate::p2p::P2pError;

/// Why a service could not be connected, or its connection did not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The hosting machine refused it, or failed.
    #[error("{}", .0.shown_message())]
    Remote(WireError),
    /// The connection to the hosting machine failed.
    #[error(transparent)]
    Network(#[from] P2pError),
    /// The hosting machine said something that does not belong here.
    #[error("understand the machine: {0}")]
    OutOfTurn(&'static str),
    /// The hosting machine accepted the request and says nothing.
    #[error("hear of the service: the machine does not answer")]
    Unanswered,
    /// The service does not answer on the machine that hosts it.
    #[error("connect to the service {service}: it does not answer on its machine")]
    Unreachable {
        /// Which.
        service: ServiceName,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The service's own connection broke.
    #[error("go on with the service {service}: its connection broke")]
    Broken {
        /// Which.
        service: ServiceName,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The service is started on demand, which this version cannot do.
    #[error("connect to the service {0}: it is to be started on demand, which is not supported yet")]
    OnDemand(ServiceName),
    /// The service speaks HTTP, whose heads malai would have to read.
    #[error("connect to the service {0}: http services are not supported yet")]
    Http(ServiceName),
}

impl ServiceError {
    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Remote(error) => error.code,
            Self::Network(error) => error.code(),
            Self::OutOfTurn(_) => ErrorCode::WireMalformed,
            Self::Unanswered => ErrorCode::Timeout,
            Self::Unreachable { .. } | Self::Broken { .. } => ErrorCode::ServiceUnreachable,
            Self::OnDemand(_) | Self::Http(_) => ErrorCode::WireUnsupported,
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Remote(error) => error.shown_hint(),
            Self::Network(error) => error.hint(),
            Self::OutOfTurn(_) => Some("is malai on both machines of the same version?".to_owned()),
            Self::Unanswered => Some("it may be overloaded: its malai.log may say more".to_owned()),
            Self::Unreachable { .. } => Some(
                "does it run there, and are its host and port in the cluster's config the right ones?".to_owned(),
            ),
            Self::Broken { .. } => Some("did the service end? its own log on that machine may say why".to_owned()),
            Self::OnDemand(_) => {
                Some("until then: start it by other means and leave `command` out of its section".to_owned())
            }
            Self::Http(_) => Some(
                "what adds the caller's identity to requests is not there yet; protocol = \"tcp\" passes bytes on as \
                 they are"
                    .to_owned(),
            ),
        }
    }
}
