//! `malai run`.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::parse_duration;

const HELP: &str = "\
Targets: a machine (web01.company), a pattern ('web*.company', with * and ?), a group
(@admins.company), an alias of one machine. They mean what this device may reach; each machine is
run on once.

Examples:
  malai run 'web*.company' @admins.company -- uptime
  malai run -j 1 --fail-fast 'web*.company' -- sudo systemctl restart nginx
  malai --json run '*.company' -- df -h /

Every line is preceded by its machine's name; a summary on stderr ends it.
Exit status: 0 if it is 0 on every machine, 1 if not; 2 wrong usage; 255 if nothing could be tried;
130 after Ctrl-C, which hangs up what runs.";

#[derive(Debug, ClapArgs)]
#[command(after_help = HELP)]
pub(crate) struct RunArgs {
    /// Machines, patterns, groups
    #[arg(required = true, value_name = "TARGET", value_hint = clap::ValueHint::Hostname)]
    pub(crate) targets: Vec<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<String>,
    /// How many programs may run at once [default: 128]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) concurrency: Option<u32>,
    /// How long it may run on each machine, such as 30s or 5m; then it is hung up
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// After the first failure begin no other, and hang up those that run
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Show all of one machine, then all of the next
    #[arg(long)]
    pub(crate) order: bool,
    /// Give what comes on stdin, at most 16 MiB, to each of them
    #[arg(long)]
    pub(crate) stdin: bool,
}
