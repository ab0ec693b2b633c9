//! What the command line takes from its surroundings: read once, here, and passed down.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;

/// The environment that matters to malai.
#[derive(Debug, Clone)]
pub(crate) struct Env {
    /// `MALAI_HOME`.
    pub(crate) malai_home: Option<PathBuf>,
    /// `MALAI_SSH_AGENT`: the socket of the daemon to use.
    pub(crate) agent: Option<PathBuf>,
    /// The user's home directory.
    pub(crate) user_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// `NOTIFY_SOCKET`: where systemd wants to hear of readiness.
    pub(crate) notify_socket: Option<std::ffi::OsString>,
    /// `TERM`, `LANG` and `LC_*`, for remote commands.
    pub(crate) locale: BTreeMap<String, String>,
    /// `MALAI_RESTRICTED`: a rule says which words this program may be given.
    pub(crate) restricted: bool,
    /// Whether stderr is a terminal.
    pub(crate) stderr_is_terminal: bool,
    /// Colours on stderr are welcome.
    pub(crate) colour: bool,
    /// Colours on stdout are welcome.
    pub(crate) stdout_colour: bool,
}

impl Env {
    pub(crate) fn read() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let locale = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name == "TERM" || name == "LANG" || name.starts_with("LC_"))
            .collect();
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            malai_home: path("MALAI_HOME"),
            agent: path("MALAI_SSH_AGENT"),
            user_home: path("HOME"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            notify_socket: std::env::var_os("NOTIFY_SOCKET"),
            locale,
            restricted: std::env::var_os(malai_core::host::RESTRICTED).is_some(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            colour: colours && std::io::stderr().is_terminal(),
            stdout_colour: colours && std::io::stdout().is_terminal(),
        }
    }

    /// The words of a copy, if this process was started as the program at the other end of one.
    pub(crate) fn copy_words(&self) -> Option<Vec<std::ffi::OsString>> {
        let mut words = std::env::args_os();
        let name = PathBuf::from(words.next()?);
        (name.file_name()? == malai_core::api::COPY_PROGRAM).then(|| words.collect())
    }

    /// The home: `--home`, `MALAI_HOME`, else the platform's place for application data.
    pub(crate) fn home(&self, option: Option<&PathBuf>) -> Option<PathBuf> {
        let chosen = option.or(self.malai_home.as_ref()).cloned();
        chosen.or_else(|| self.user_home.as_ref().map(|home| home.join(".local/share/malai")))
    }

    /// Where processes of this user on this machine find each other.
    pub(crate) fn rendezvous(&self) -> PathBuf {
        match &self.runtime_dir {
            Some(dir) => dir.join("malai"),
            None => std::env::temp_dir().join(format!("malai-{}", malai_core::host::effective_uid())),
        }
    }
}
