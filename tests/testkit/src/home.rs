//! One device.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{Daemon, Invocation, Output, TerminalCommand, TestNet};

/// What a test's `malai.toml` says: no relays, no DNS, no multicast, a port that nobody else has.
const MALAI_TOML: &str = "[network]\nbind = \"127.0.0.1:0\"\nrelays = \"none\"\ndiscovery = [\"local\"]\n";

/// A `MALAI_HOME` in a [`TestNet`]. Cloning gives another handle to the same folder.
#[derive(Debug, Clone)]
pub struct TestHome {
    net: TestNet,
    name: String,
    path: PathBuf,
}

impl TestHome {
    /// Makes a home with a `malai.toml` that keeps everything on loopback.
    ///
    /// # Panics
    ///
    /// When the net has a home of that name already.
    pub fn new(net: &TestNet, name: &str) -> Self {
        let path = net.path().join(name);
        std::fs::create_dir(&path).expect("makes the home");
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("sets the home's mode");
        net.add_home(&path);
        let home = Self { net: net.clone(), name: name.to_owned(), path };
        home.write("malai.toml", MALAI_TOML);
        home
    }

    /// Returns the net that it is in.
    pub fn net(&self) -> &TestNet {
        &self.net
    }

    /// Returns its name in the net.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a file in `clusters/<alias>/`.
    pub fn in_cluster(&self, alias: &str, file: &str) -> PathBuf {
        self.path.join("clusters").join(alias).join(file)
    }

    /// Writes a file of the home, mode 0600.
    pub fn write(&self, file: impl AsRef<Path>, text: &str) {
        let path = self.path.join(file);
        std::fs::write(&path, text).unwrap_or_else(|source| panic!("writes {}: {source}", path.display()));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("sets the file's mode");
    }

    /// Reads a file of the home; `None` if it is not there.
    pub fn read(&self, file: impl AsRef<Path>) -> Option<String> {
        std::fs::read_to_string(self.path.join(file)).ok()
    }

    /// Adds text to the end of `malai.toml`.
    pub fn add_to_malai_toml(&self, text: &str) {
        let before = self.read("malai.toml").unwrap_or_default();
        self.write("malai.toml", &format!("{before}\n{text}\n"));
    }

    /// Returns the master config of a cluster that this home manages.
    pub fn cluster_toml(&self, alias: &str) -> String {
        let path = self.in_cluster(alias, "cluster.toml");
        std::fs::read_to_string(&path).unwrap_or_else(|source| panic!("reads {}: {source}", path.display()))
    }

    /// Replaces the master config by what the function makes of it.
    pub fn edit_cluster_toml(&self, alias: &str, edit: impl FnOnce(String) -> String) {
        let text = edit(self.cluster_toml(alias));
        self.write(self.in_cluster(alias, "cluster.toml"), &text);
    }

    /// Adds lines to the section `[machine.<name>]` of the master config, which must have it.
    pub fn add_to_machine(&self, alias: &str, machine: &str, lines: &str) {
        self.edit_cluster_toml(alias, |text| {
            let head = format!("\n[machine.{machine}]\n");
            let (before, after) =
                text.split_once(&head).unwrap_or_else(|| panic!("no {head:?} in cluster.toml:\n{text}"));
            format!("{before}{head}{lines}\n{after}")
        });
    }

    /// Prepares a command line of malai.
    pub fn command<I, S>(&self, args: I) -> Invocation
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        Invocation::new(self, args)
    }

    /// Returns the plain command with this home's environment, for measuring: nothing reads its pipes, nothing limits
    /// its time, and nothing ends it.
    pub fn plain_command<I, S>(&self, args: I) -> std::process::Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = std::process::Command::new(self.net.binary());
        command.args(args).env_clear().envs(self.net.environment(&self.path)).current_dir(self.net.path());
        command
    }

    /// Prepares malai on a terminal of its own.
    pub fn terminal<I, S>(&self, args: I) -> TerminalCommand
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        TerminalCommand::new(self, self.net.binary(), args)
    }

    /// Prepares another program, in this home's environment, on a terminal of its own.
    pub fn terminal_of<I, S>(&self, program: &str, args: I) -> TerminalCommand
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        TerminalCommand::new(self, Path::new(program), args)
    }

    /// Runs malai to its end with an empty stdin.
    ///
    /// # Panics
    ///
    /// When it takes longer than [`crate::DEADLINE`].
    pub fn malai<I, S>(&self, args: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.command(args).run()
    }

    /// Starts this home's daemon in the foreground and waits until it answers.
    ///
    /// # Panics
    ///
    /// When it ends or does not answer in time.
    pub fn start_daemon(&self) -> Daemon {
        let mut daemon = self.spawn_daemon();
        daemon.await_ready();
        daemon
    }

    /// Starts this home's daemon without waiting for it.
    pub fn spawn_daemon(&self) -> Daemon {
        Daemon::spawn(self)
    }
}
