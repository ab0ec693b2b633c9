//! Local ceilings: what a machine's own `malai.toml [host]` forbids, whatever a cluster's config allows.

use std::collections::BTreeSet;

use super::authorize::DenyReason;
use crate::config::UserName;

/// What no cluster config may allow on this device. The default forbids nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ceilings {
    users: Option<Users>,
    shell: Limit,
    services: Limit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Users {
    allowed: BTreeSet<UserName>,
    own: Option<UserName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Limit {
    #[default]
    AsConfigured,
    Forbidden,
}

impl Ceilings {
    /// Forbids nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Lets commands, shells and services on demand run as these users only (`users = […]`).
    ///
    /// `daemon_user` is who the daemon runs as: a rule without a user name means that one. When it is not known, such a
    /// rule is refused.
    #[must_use]
    pub fn only_users(
        mut self,
        allowed: impl IntoIterator<Item = UserName>,
        daemon_user: Option<UserName>,
    ) -> Self {
        self.users = Some(Users { allowed: allowed.into_iter().collect(), own: daemon_user });
        self
    }

    /// Opens no shells (`shell = false`).
    #[must_use]
    pub fn forbid_shell(mut self) -> Self {
        self.shell = Limit::Forbidden;
        self
    }

    /// Serves nothing (`services = false`).
    #[must_use]
    pub fn forbid_services(mut self) -> Self {
        self.services = Limit::Forbidden;
        self
    }

    pub(super) fn check_user(&self, user: Option<&UserName>) -> Result<(), DenyReason> {
        let Some(users) = &self.users else { return Ok(()) };
        match user.or(users.own.as_ref()) {
            Some(name) if users.allowed.contains(name) => Ok(()),
            name => Err(DenyReason::UserCeiling { user: name.cloned() }),
        }
    }

    pub(super) fn check_shell(&self) -> Result<(), DenyReason> {
        match self.shell {
            Limit::AsConfigured => Ok(()),
            Limit::Forbidden => Err(DenyReason::ShellCeiling),
        }
    }

    pub(super) fn check_services(&self) -> Result<(), DenyReason> {
        match self.services {
            Limit::AsConfigured => Ok(()),
            Limit::Forbidden => Err(DenyReason::ServicesCeiling),
        }
    }
}
