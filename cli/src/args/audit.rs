//! `malai audit`.

use clap::{Args as ClapArgs, Subcommand};
use malai_core::api::Since;
use malai_core::model::audit::Head;

const SHOW_HELP: &str = "\
Each line of the log is a JSON object; --json prints them as they are. What a program was given beside \
its own name is never recorded.

Examples:
  malai audit show --since 1h
  malai audit show --since 2026-11-29 --peer laptop
  malai audit show --json | jq 'select(.event == \"denied\")'";

const VERIFY_HELP: &str = "\
Each line carries the digest of the line before, so that a line that was changed, removed, added or \
moved shows. Nothing can show that lines were removed from the end, unless the end is known: keep what \
is printed as `end` on another device, and pass it later as --known.

Examples:
  malai audit verify
  malai audit verify --known 812:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

Exit status: 0 if the chain holds, 1 if not.";

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print what is recorded, the oldest first
    #[command(after_help = SHOW_HELP)]
    Show(ShowArgs),
    /// Check that nobody changed what is recorded
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// A record that has to be there: the end that an earlier check printed
        #[arg(long, value_name = "NUMBER:DIGEST")]
        known: Option<Head>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ShowArgs {
    /// Only what happened since then: 90m, 7d, 2026-11-29 or 2026-11-29T10:30:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Since>,
    /// Only what names this peer: its id52, the beginning of that, or its machine's name
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
}
