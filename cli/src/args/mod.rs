//! The command line's grammar.

mod audit;
mod comfort;
mod run;
mod session;
mod ssh;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand};
use malai_core::model::name::{ClusterAlias, GroupName, MachineName};

pub(crate) use self::audit::{AuditCommand, ShowArgs as AuditShowArgs};
pub(crate) use self::comfort::{CompleteWordsArgs, CompletionsArgs, ManArgs, PingArgs, Shell};
pub(crate) use self::run::RunArgs;
use self::session::{SESSIONS_HELP, SHELL_HELP};
pub(crate) use self::session::{SessionOptions, SessionsArgs, ShellArgs};
pub(crate) use self::ssh::{RshArgs, SshConfigArgs, StdioArgs};

const AFTER_HELP: &str = "\
Examples:
  malai cluster init company                         make a cluster; this device manages it
  malai daemon                                       take requests and hand out the config
  malai cluster create-invite company                print an invite for a new machine
  malai machine init <invite> company --name web01   join, on the new machine
  malai web01.company ps aux                         run a program on web01
  malai run 'web*.company' -- uptime                 run one on many machines
  malai web01.company                                open a shell there (-t: a program under a terminal)
  malai cp -r site web01.company:/srv/               copy files and trees, either way
  tar c . | malai web01.company tar x -C /srv        stdin, stdout and the status are the program's

Options of malai stand before the address; everything after it belongs to the program.
Exit status: the program's own; 128+N if signal N killed it; 255 if malai itself failed.
For other subcommands: 0 done, 1 failed, 2 wrong usage.";

/// Remote access to your machines, without a VPN, an SSH port or a server in the middle.
#[derive(Debug, Parser)]
#[command(name = "malai", version, about, after_help = AFTER_HELP, arg_required_else_help = true)]
#[command(subcommand_precedence_over_arg = false, disable_help_subcommand = true)]
#[command(override_usage = "malai [OPTIONS] <ADDRESS> [PROGRAM]...\n       malai [OPTIONS] <COMMAND>")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(flatten)]
    pub(crate) session: SessionOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Reads the words that the process was started with, and says which one named the subcommand.
    pub(crate) fn read(words: Vec<OsString>) -> Result<(Self, Option<String>), clap::Error> {
        if let Some(address) = Self::of_address(&words) {
            return Ok(address);
        }
        let matches = Self::command().try_get_matches_from(words)?;
        Ok((Self::from_arg_matches(&matches)?, matches.subcommand_name().map(str::to_owned)))
    }

    /// `malai web01.company …` without the grammar, which takes longer to build than all else of the start: a word with a
    /// dot that is no option is no subcommand, and what is behind an address is not malai's.
    fn of_address(words: &[OsString]) -> Option<(Self, Option<String>)> {
        let typed: Option<Vec<String>> =
            words.get(1..)?.iter().map(|word| word.to_str().map(str::to_owned)).collect();
        let typed = typed?;
        let address = typed.first()?;
        if address.starts_with('-') || !address.contains('.') {
            return None;
        }
        let word = Some(address.clone());
        let (global, session) = (Global::default(), SessionOptions::default());
        Some((Self { global, session, command: Command::Address(typed) }, word))
    }
}

/// Options that every subcommand takes.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct Global {
    /// The home directory [default: $MALAI_HOME, else ~/.local/share/malai]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Print data as JSON, with a versioned schema
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How long reaching a machine may take, such as 500ms, 5s or 1m [default: 5s]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) connect_timeout: Option<Duration>,
    /// Say on stderr what malai does; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make and manage clusters
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Make this device a machine of a cluster
    #[command(subcommand)]
    Machine(MachineCommand),
    /// Run a program on a machine (the same as `malai <address> <program> …`)
    #[command(after_help = "Example:\n  malai exec web01.company systemctl status nginx")]
    Exec(ExecArgs),
    /// Run a program on many machines at once
    Run(RunArgs),
    /// Ask a machine whether it is there, and how far away
    Ping(PingArgs),
    /// Open a shell on a machine, or come back to one (the same as `malai <address>`)
    #[command(after_help = SHELL_HELP)]
    Shell(ShellArgs),
    /// List or end your sessions on a machine
    #[command(after_help = SESSIONS_HELP)]
    Sessions(SessionsArgs),
    /// Copy files and trees to, from or between machines
    #[command(after_help = CP_HELP)]
    Cp(CpArgs),
    /// The other end of `malai cp`, on stdin and stdout
    #[command(hide = true, name = "malai-cp")]
    CopyEnd {
        /// What to send or receive
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<std::ffi::OsString>,
    },
    /// Take requests, hand out and receive configs, in the background
    #[command(visible_alias = "d", after_help = DAEMON_HELP)]
    Daemon(DaemonArgs),
    /// Put edited files in force, all or nothing
    #[command(
        after_help = "Example:\n  $EDITOR ~/.local/share/malai/clusters/company/cluster.toml\n  malai rescan --check && malai rescan"
    )]
    Rescan {
        /// Only validate; change nothing
        #[arg(long)]
        check: bool,
    },
    /// Ask managers for this device's config
    Sync {
        /// Only this cluster
        cluster: Option<ClusterAlias>,
    },
    /// Show this device's clusters, roles, identities and sync state
    Info,
    /// Show what the daemon does now: where it listens, connections, running requests
    Status,
    /// Find out what is wrong on this device, and what to do about it
    #[command(after_help = comfort::DOCTOR_HELP)]
    Doctor,
    /// Show what was recorded on this device: commands, shells, denials, configs
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print what makes a shell complete malai's commands and your machines' names
    Completions(CompletionsArgs),
    /// Print malai's manual page
    Man(ManArgs),
    /// What the shells' scripts ask
    #[command(hide = true)]
    CompleteWords(CompleteWordsArgs),
    /// Connect stdin and stdout to a service, such as a machine's sshd
    #[command(after_help = ssh::STDIO_HELP)]
    Stdio(StdioArgs),
    /// Print the Host blocks for ssh, so that it reaches machines through malai
    #[command(after_help = ssh::CONFIG_HELP)]
    SshConfig(SshConfigArgs),
    /// Stand in for ssh where rsync, git, scp, sftp or ansible call it
    #[command(after_help = ssh::RSH_HELP)]
    Rsh(RshArgs),
    /// The old spelling of `malai cluster init`
    #[command(hide = true, alias = "create-cluster")]
    InitCluster {
        /// What to call the cluster
        #[arg(long)]
        alias: ClusterAlias,
        /// What it calls itself
        #[arg(long)]
        name: Option<String>,
    },
    /// The old spelling of `malai machine init`
    #[command(hide = true, name = "init", alias = "create-machine")]
    OldInit(JoinArgs),
    /// Make a key pair: the id52 on stderr, the private key on stdout or in a file
    #[command(hide = true)]
    Keygen {
        /// Write the private key there, mode 0600; an existing file is never replaced
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    #[command(external_subcommand)]
    Address(Vec<String>),
}

const CP_HELP: &str = "\
A place is a local path, or address:path; paths on machines are relative to the home of the user that commands run as. A \
local path with a colon is written ./a:b.

Trees need no option. Modes, times and symbolic links are kept; owners, hard links and set-user bits are not. Files that \
are the same (size and time) are not sent again. A copy that was interrupted goes on where it stopped when it is run \
again, and until a file is whole the old one stays. The right needed on each machine is that to a command `malai-cp`.

Examples:
  malai cp site.tar web01.company:/srv/             a file into a directory
  malai cp src notes.txt web01.company:             several, into the home
  malai cp web01.company:/var/log/nginx logs        a tree, the other way
  malai cp db01.company:/backup web01.company:/b    from machine to machine, through this one
  malai cp --delete site/. web01.company:/srv/site  make /srv/site equal to site

Exit status: 0 all copied, 1 something could not be, 2 wrong usage, 255 malai itself failed or was refused.";

const DAEMON_HELP: &str = "\
Everything is loaded and validated before it goes to the background; if something is wrong, all of it is listed and \
nothing runs.

Examples:
  malai daemon                    in the background
  malai daemon --foreground       for systemd (Type=notify) and containers
  eval \"$(malai daemon -e)\"       start it if needed and set the shell's variables";

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make a cluster; this device becomes its manager
    #[command(after_help = "Example:\n  malai cluster init company")]
    Init {
        /// What this device calls it
        alias: ClusterAlias,
        /// What the cluster calls itself [default: the alias]
        #[arg(long)]
        name: Option<String>,
    },
    /// Print an invite for new machines
    #[command(
        after_help = "Examples:\n  malai cluster create-invite company\n  malai cluster create-invite company --alias conf-2025 --expires 30d --max-uses 50"
    )]
    CreateInvite {
        /// The cluster
        cluster: ClusterAlias,
        /// What to call the invite in lists
        #[arg(long, value_name = "LABEL")]
        alias: Option<String>,
        /// How long it holds [default: 7d]
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        expires: Option<Duration>,
        /// How many machines may join with it [default: 1]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        max_uses: Option<u32>,
        /// Add machines that join to this group (may be repeated)
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<GroupName>,
        /// Make it although a rule says `*`, so that whoever joins has rights at once
        #[arg(long)]
        open: bool,
    },
    /// List a cluster's invites
    ListInvites {
        /// The cluster
        cluster: ClusterAlias,
    },
    /// End an invite at once
    RevokeInvite {
        /// The cluster
        cluster: ClusterAlias,
        /// The invite, its id52 or its label
        invite: String,
    },
    /// List this device's clusters
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    /// Join a cluster, by an invite or by the manager's id52
    #[command(
        after_help = "Examples:\n  malai machine init <invite> company --name web01\n  malai machine init - company < invite         the invite is in no list of processes\n  malai machine init <manager-id52> company     then paste what it prints into cluster.toml"
    )]
    Init(JoinArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JoinArgs {
    /// The invite that the manager gave, or the manager's id52; `-` reads it from stdin, where no other user sees it
    #[arg(value_name = "INVITE|ID52")]
    pub(crate) via: String,
    /// What this device calls the cluster
    pub(crate) alias: ClusterAlias,
    /// The name that this machine would like to have
    #[arg(long)]
    pub(crate) name: Option<MachineName>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) session: SessionOptions,
    /// The machine, the program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ADDRESS PROGRAM"
    )]
    pub(crate) words: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CpArgs {
    /// What to copy, then where to
    #[arg(required = true, num_args = 2.., value_name = "SOURCE")]
    pub(crate) paths: Vec<std::ffi::OsString>,
    /// Delete at the destination what the source does not have, in the tree that is copied
    #[arg(long)]
    pub(crate) delete: bool,
    /// Compare by content, not by size and time
    #[arg(short, long)]
    pub(crate) checksum: bool,
    /// Copy what symbolic links lead to, not the links
    #[arg(short = 'L', long)]
    pub(crate) follow: bool,
    /// Over how many streams, 1 to 16 [default: 4 for a large copy over a long round trip, else 1]
    #[arg(long, value_name = "N", value_parser = parse_streams)]
    pub(crate) streams: Option<std::num::NonZeroU8>,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// What is done anyway
    #[arg(short = 'r', short_alias = 'R', long = "recursive", hide = true)]
    pub(crate) recursive: bool,
    /// What is done anyway
    #[arg(short = 'p', long = "preserve", hide = true)]
    pub(crate) preserve: bool,
    /// What is done anyway
    #[arg(short = 'a', long = "archive", hide = true)]
    pub(crate) archive: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DaemonArgs {
    /// Stay in the foreground
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Print `export` lines for eval, starting the daemon if needed
    #[arg(short = 'e', conflicts_with = "foreground")]
    pub(crate) env: bool,
    /// How `malai daemon` starts its own background half
    #[arg(long, hide = true, requires = "foreground")]
    pub(crate) detached: bool,
}

fn parse_streams(text: &str) -> Result<std::num::NonZeroU8, String> {
    let number = text.parse().ok().filter(|number: &std::num::NonZeroU8| number.get() <= 16);
    number.ok_or_else(|| "a number from 1 to 16".to_owned())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    malai_core::model::duration::parse_duration(text).map_err(|problem| problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_without_the_grammar_is_what_the_grammar_says() {
        let behind = [
            "true",
            "--",
            "-t",
            "--json",
            "--help",
            "-h",
            "-V",
            "",
            "a b",
            "web02.company",
            "-",
            "help",
            "exec",
        ];
        let mut cases: Vec<Vec<&str>> = vec![vec!["malai", "web01.company"], vec!["malai", ".", "x"]];
        for first in behind {
            cases.push(vec!["malai", "web01.company", first]);
            cases.extend(behind.iter().map(|second| vec!["malai", "a.b.c", first, second, "last"]));
        }
        for words in cases {
            let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
            let (read, word) = Args::of_address(&words).expect("is an address");
            let matches = Args::command().try_get_matches_from(&words).expect("is one to the grammar");
            let parsed = Args::from_arg_matches(&matches).expect("is one to the grammar");
            assert_eq!(format!("{read:?}"), format!("{parsed:?}"));
            assert_eq!(word.as_deref(), matches.subcommand_name());
        }
    }

    #[test]
    fn what_may_be_anything_else_is_left_to_the_grammar() {
        let names: Vec<String> =
            Args::command().get_subcommands().map(|found| found.get_name().to_owned()).collect();
        assert!(names.iter().all(|name| !name.contains('.')), "{names:?}");
        for words in [
            &["malai"][..],
            &["malai", "-t", "web01.company"],
            &["malai", "--json", "a.b"],
            &["malai", "web"],
        ] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert!(Args::of_address(&words).is_none(), "{words:?}");
        }
    }
}
