//! Users of this device, as its password database has them.

use std::ffi::CString;
use std::path::PathBuf;
use std::{fs, io};

use nix::libc;
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
    /// All groups, the primary one among them; empty for the user that this process runs as, whose groups it has.
    pub groups: Vec<u32>,
    /// The umask that a login would give; for the user that this process runs as, its own umask counts instead.
    pub umask: u32,
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
            Ok(Some(user)) => {
                let mut user = Self::from_entry(user);
                if !user.is_own() {
                    user.groups = groups_of(&user.name, user.gid)?;
                }
                Ok(user)
            }
            Ok(None) => Err(HostError::UnknownUser { name: name.to_owned() }),
            Err(error) => Err(HostError::Users(error.into())),
        }
    }

    fn from_entry(user: User) -> Self {
        let login_defs = read_login_defs();
        let shell = if user.shell.as_os_str().is_empty() { "/bin/sh".into() } else { user.shell };
        Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir,
            shell,
            path: login_path(&login_defs, user.uid.is_root()),
            groups: Vec::new(),
            umask: umask_of_login_defs(&login_defs).unwrap_or(USUAL_UMASK),
        }
    }

    /// Says whether this process runs as this user already.
    pub fn is_own(&self) -> bool {
        self.uid == effective_uid()
    }

    /// Checks that this process may start another as this user.
    ///
    /// # Errors
    /// [`HostError::ForeignUser`].
    pub fn check_switch(&self) -> Result<(), HostError> {
        if self.is_own() || Uid::effective().is_root() {
            return Ok(());
        }
        let own = Self::current().map_or_else(|_| Uid::effective().to_string(), |own| own.name);
        Err(HostError::ForeignUser { wanted: self.name.clone(), own })
    }
}

/// What a login's umask is where nothing says otherwise.
const USUAL_UMASK: u32 = 0o022;

/// Everything that is asked of a user's groups asks at most for so many.
const MOST_GROUPS: usize = 65_536;

/// A process of macOS has no more groups than these; whoever has more is asked about by other ways.
const MOST_SET: usize = if cfg!(target_os = "macos") { 16 } else { MOST_GROUPS };

/// All groups of a user. Asked before a process is copied: it may ask the network, and takes memory.
fn groups_of(name: &str, gid: u32) -> Result<Vec<u32>, HostError> {
    let name = CString::new(name).map_err(|_| HostError::UnknownUser { name: name.to_owned() })?;
    let mut room = 64;
    loop {
        let mut groups = vec![0; room];
        let mut count = libc::c_int::try_from(room).unwrap_or(libc::c_int::MAX);
        #[expect(unsafe_code, reason = "nix lacks the call on macOS")]
        // SAFETY: the name ends with a zero; the list has as much room as `count` says.
        let result =
            unsafe { libc::getgrouplist(name.as_ptr(), gid as _, groups.as_mut_ptr(), &raw mut count) };
        let found = usize::try_from(count).unwrap_or(0);
        if result >= 0 {
            groups.truncate(found.min(MOST_SET));
            #[cfg_attr(
                not(target_os = "macos"),
                expect(clippy::unnecessary_cast, reason = "macOS has signed numbers here")
            )]
            return Ok(groups.into_iter().map(|group| group as u32).collect());
        }
        // Some systems say how many there are, others do not.
        room = found.max(room * 2);
        if room > MOST_GROUPS {
            return Err(HostError::Users(io::Error::other("the user has too many groups")));
        }
    }
}

/// The system's settings of logins; empty where there are none.
fn read_login_defs() -> String {
    if cfg!(target_os = "macos") {
        String::new()
    } else {
        fs::read_to_string("/etc/login.defs").unwrap_or_default()
    }
}

/// The search path that a login gives on this system.
fn login_path(login_defs: &str, root: bool) -> String {
    let written = if cfg!(target_os = "macos") {
        fs::read_to_string("/etc/paths")
            .ok()
            .map(|text| text.split_whitespace().collect::<Vec<_>>().join(":"))
    } else {
        path_of_login_defs(login_defs, root)
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
    let value = setting(text, if root { "ENV_SUPATH" } else { "ENV_PATH" })?;
    Some(value.strip_prefix("PATH=").unwrap_or(value).to_owned())
}

/// Reads `UMASK`, an octal number.
fn umask_of_login_defs(text: &str) -> Option<u32> {
    let umask = u32::from_str_radix(setting(text, "UMASK")?, 8).ok()?;
    (umask <= 0o777).then_some(umask)
}

fn setting<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    text.lines().rev().find_map(|line| {
        let (key, value) = line.trim().split_once(char::is_whitespace)?;
        (key == wanted).then_some(value.trim())
    })
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
        assert_eq!(umask_of_login_defs(text), Some(0o022));
        for odd in ["", "UMASK\n", "UMASK 9\n", "UMASK 7777\n", "UMASK -1\n"] {
            assert_eq!(umask_of_login_defs(odd), None, "{odd}");
        }
    }
}
