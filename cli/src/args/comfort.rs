//! `malai ping`, `doctor`, `completions` and `man`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::parse_duration;

const PING_HELP: &str = "\
Examples:
  malai ping web01.company
  malai ping -c 1 web01.company && echo it is there

Each ping is a request over a connection that is kept; beside the first stands how long connecting
took.
Exit status: 0 if all were answered, 1 if not.";

#[derive(Debug, ClapArgs)]
#[command(after_help = PING_HELP)]
pub(crate) struct PingArgs {
    /// The machine
    #[arg(value_hint = clap::ValueHint::Hostname)]
    pub(crate) address: String,
    /// How many times; 0: until Ctrl-C
    #[arg(short, long, value_name = "N", default_value_t = 4)]
    pub(crate) count: u64,
    /// How long to wait in between
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub(crate) interval: Duration,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManArgs {
    /// Write a page for malai and for each subcommand there, instead of malai's own to stdout
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}

const COMPLETIONS_HELP: &str = "\
Examples:
  eval \"$(malai completions bash)\"                  for this shell
  malai completions bash > ~/.local/share/bash-completion/completions/malai
  malai completions fish > ~/.config/fish/completions/malai.fish";

#[derive(Debug, ClapArgs)]
#[command(after_help = COMPLETIONS_HELP)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    pub(crate) shell: Shell,
}

/// A shell whose completion is known.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CompleteWordsArgs {
    /// A new word begins behind them
    #[arg(long)]
    pub(crate) next: bool,
    /// What was typed behind `malai`, up to the cursor
    #[arg(last = true)]
    pub(crate) words: Vec<String>,
}

pub(crate) const DOCTOR_HELP: &str = "\
Looks at the home, its files and keys, the daemon, the clock, the network and the disk, and asks
each machine whether it is there. Changes nothing.

Exit status: 0 if there is no problem (warnings may be there), 1 if there is one.";
