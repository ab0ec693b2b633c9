//! `malai machine …`.

use std::io::{BufRead, BufReader, Read};

use malai_core::api::{JoinClusterRequest, JoinVia};
use malai_core::model::id::Id52;

use super::{Context, Outcome};
use crate::args::JoinArgs;
use crate::error::Failure;
use crate::output::DONE;
use crate::view;

/// The longest line that can be an invite.
const LINE: u64 = 4096;

/// Reads an invite where no other user of this device sees it, as they would in the list of processes.
fn from_stdin() -> Result<String, Failure> {
    let mut line = String::new();
    BufReader::new(std::io::stdin().lock().take(LINE))
        .read_line(&mut line)
        .map_err(|error| Failure::local("read the invite from stdin", &error))?;
    Ok(line.trim().to_owned())
}

pub(crate) async fn init(context: &Context, args: JoinArgs) -> Outcome {
    let via = if args.via == "-" { from_stdin()? } else { args.via };
    let via = match via.parse::<Id52>() {
        Ok(manager) => JoinVia::Manager(manager),
        Err(_) => JoinVia::Invite(via),
    };
    let client = context.client().await?;
    let joined = client.join(JoinClusterRequest { via, alias: args.alias, name: args.name }).await?;
    context.show(&joined, |joined| vec![joined.id52.to_string()]);
    if !context.global.json {
        context.output.note(&view::joined(&joined));
    }
    Ok(DONE)
}
