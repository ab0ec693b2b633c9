//! `malai stdio`, `malai ssh-config` and `malai rsh`: what SSH's own tools call.

use clap::Args as ClapArgs;
use malai_core::model::name::ClusterAlias;

pub(crate) const STDIO_HELP: &str = "\
A machine's address means its service `ssh`, so that ssh and all that builds on it go through malai:
  ssh -o ProxyCommand='malai stdio %h' web01.company
  malai stdio mysql.company < request > answer

Exit status: 0 when both sides have ended; 255 if malai itself failed.";

pub(crate) const CONFIG_HELP: &str = "\
Example:
  malai ssh-config company > ~/.ssh/malai-company.conf
and this line at the top of ~/.ssh/config:
  Include malai-company.conf";

pub(crate) const RSH_HELP: &str = "\
Examples:
  rsync -a -e 'malai rsh' site/ web01.company:/srv/site/
  GIT_SSH_COMMAND='malai rsh' git clone web01.company:/srv/app.git
  scp -S malai-rsh file web01.company:              (malai-rsh: a symbolic link to malai)

The command is split as a shell would, and run without one: what needs a shell (pipes, variables, globs) is refused. As \
whom it runs is the machine's config to say: `user@` and -l are ignored. Options about keys, ciphers, ports and \
multiplexing are ignored too; -v says which.";

/// `malai stdio`.
#[derive(Debug, ClapArgs)]
pub(crate) struct StdioArgs {
    /// The service, such as mysql.company or ssh.web01.company; or a machine
    pub(crate) address: String,
}

/// `malai ssh-config`.
#[derive(Debug, ClapArgs)]
pub(crate) struct SshConfigArgs {
    /// Only this cluster
    pub(crate) cluster: Option<ClusterAlias>,
}

/// `malai rsh`.
#[derive(Debug, ClapArgs)]
pub(crate) struct RshArgs {
    /// What ssh takes: options, the machine, the command
    // A `--` is one of them: it ends ssh's options, not this program's.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "SSH ARGUMENTS"
    )]
    pub(crate) words: Vec<String>,
}
