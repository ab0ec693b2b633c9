//! Users of this device, as its password database has them.

use std::fs;
use std::path::PathBuf;

use nix::unistd::{Uid, User};

use super::HostError;

/// A user of this device: what a command of theirs gets for its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalUser {
    /// The login name.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The primary group's id.
    pub gid: u32,
    /// The home directory.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
    /// The search path that a login would give, directories between colons.
    pub path: String,
}

/// The user id that this process acts as.
pub fn effective_uid() -> u32 {
    nix::unistd::Uid::effective().as_raw()
}

impl LocalUser {
    /// Finds the user that this process runs as. Not from the environment: a daemon may have another's. May
    /// block, where users come from the network.
    ///
    /// # Errors
    /// [`HostError::NoUser`], [`HostError::Users`].
    pub fn current() -> Result<Self, HostError> {
        let uid = Uid::effective();
        match User::from_uid(uid) {
            Ok(Some(user)) => Ok(Self::from_entry(user)),
            Ok(None) => Err(HostError::NoUser { uid: uid.as_raw() }),
            Err(error) => Err(HostError::Users(error.into())),
        }
    }

    /// Finds a user by name. May block, where users come from the network.
    ///
    /// # Errors
    /// [`HostError::UnknownUser`], [`HostError::Users`].
    pub fn named(name: &str) -> Result<Self, HostError> {
        match User::from_name(name) {
            Ok(Some(user)) => Ok(Self::from_entry(user)),
            Ok(None) => Err(HostError::UnknownUser { name: name.to_owned() }),
            Err(error) => Err(HostError::Users(error.into())),
        }
    }

    fn from_entry(user: User) -> Self {
        let shell = if user.shell.as_os_str().is_empty() { "/bin/sh".into() } else { user.shell };
        Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir,
            shell,
            path: login_path(user.uid.is_root()),
        }
    }
}

/// The search path that a login gives on this system.
fn login_path(root: bool) -> String {
    let written = if cfg!(target_os = "macos") {
        fs::read_to_string("/etc/paths")
            .ok()
            .map(|text| text.split_whitespace().collect::<Vec<_>>().join(":"))
    } else {
        fs::read_to_string("/etc/login.defs").ok().and_then(|text| path_of_login_defs(&text, root))
    };
    let usual = if root {
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    } else {
        "/usr/local/bin:/usr/bin:/bin"
    };
    written.filter(|path| !path.is_empty()).unwrap_or_else(|| usual.to_owned())
}

/// Reads `ENV_PATH` or, for root, `ENV_SUPATH`; the value may begin with `PATH=`.
fn path_of_login_defs(text: &str, root: bool) -> Option<String> {
    let wanted = if root { "ENV_SUPATH" } else { "ENV_PATH" };
    let value = text.lines().rev().find_map(|line| {
        let (key, value) = line.trim().split_once(char::is_whitespace)?;
        (key == wanted).then_some(value.trim())
    })?;
    Some(value.strip_prefix("PATH=").unwrap_or(value).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_user_is_the_effective_one() {
        let user = LocalUser::current().expect("a user");
        assert_eq!(user.uid, Uid::effective().as_raw());
        assert!(user.home.is_absolute() && user.shell.is_absolute() && user.path.contains("/bin"));
        assert_eq!(LocalUser::named(&user.name).expect("a user").uid, user.uid);
    }

    #[test]
    fn a_user_that_is_not_there_is_named() {
        let error = LocalUser::named("no-such-user-7").expect_err("is not there");
        assert_eq!(error.code().as_str(), "command.user");
        assert!(error.to_string().contains("no-such-user-7"));
    }

    #[test]
    fn the_path_of_login_defs_is_read_for_root_and_others() {
        let text = "# ENV_PATH PATH=/no\nENV_SUPATH\tPATH=/sbin:/bin\nENV_PATH  /bin\nUMASK 022\n";
        assert_eq!(path_of_login_defs(text, true).as_deref(), Some("/sbin:/bin"));
        assert_eq!(path_of_login_defs(text, false).as_deref(), Some("/bin"));
        assert_eq!(path_of_login_defs("UMASK 022", false), None);
    }
}
