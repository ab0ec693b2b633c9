//! Options of sessions.

use clap::Args as ClapArgs;
use malai_core::model::wire::SessionId;

use crate::terminal::EscapeChar;

pub(crate) const SHELL_HELP: &str = "\
A shell is a session: it lives on its machine, and goes on when the connection or this terminal
is lost.

Examples:
  malai web01.company                          open a shell; so does `malai shell web01.company`
  malai shell web01.company --attach           come back to the only one, or the only free one
  malai shell web01.company --attach k3fq7aab  come back to this one, wherever it is attached
  malai shell web01.company --watch k3fq7aab   look on, without typing
  malai sessions web01.company                 list them

At the beginning of a line: ~. hangs up, ~d detaches, ~? shows the rest.";

pub(crate) const SESSIONS_HELP: &str = "\
Only your own sessions are shown: nobody else's can be seen, attached to or ended.

Examples:
  malai sessions web01.company
  malai sessions web01.company --json
  malai sessions web01.company --end k3fq7aab";

/// How a program is run, before the address.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct SessionOptions {
    /// Run the program under a terminal, as a session
    #[arg(short = 't', long = "tty")]
    pub(crate) tty: bool,
    /// Start it as a session, print its id, and leave it
    #[arg(long)]
    pub(crate) detach: bool,
    /// What begins a word to malai at the beginning of a line, or `none` [default: ~]
    #[arg(long, value_name = "CHAR")]
    pub(crate) escape: Option<EscapeChar>,
}

impl SessionOptions {
    /// Whether any of them was given.
    pub(crate) fn any(&self) -> bool {
        self.tty || self.detach || self.escape.is_some()
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ShellArgs {
    /// The machine
    pub(crate) address: Option<String>,
    /// Attach to a session; without an id, to the only one that nobody is attached to, or the only one
    #[arg(long, value_name = "ID", num_args = 0..=1, conflicts_with = "watch")]
    pub(crate) attach: Option<Option<String>>,
    /// Look on at a session, without typing
    #[arg(long, value_name = "ID", num_args = 0..=1)]
    pub(crate) watch: Option<Option<String>>,
    /// Start the shell, print its id, and leave it
    #[arg(long, conflicts_with_all = ["attach", "watch"])]
    pub(crate) detach: bool,
    /// What begins a word to malai at the beginning of a line, or `none` [default: ~]
    #[arg(long, value_name = "CHAR")]
    pub(crate) escape: Option<EscapeChar>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SessionsArgs {
    /// The machine
    pub(crate) address: String,
    /// End this session: its programs are hung up
    #[arg(long, value_name = "ID")]
    pub(crate) end: Option<SessionId>,
}
