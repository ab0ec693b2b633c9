//! `malai machine …`.

use malai_core::api::{JoinClusterRequest, JoinVia};
use malai_core::model::id::Id52;

use super::{Context, Outcome};
use crate::args::JoinArgs;
use crate::output::DONE;
use crate::view;

pub(crate) async fn init(context: &Context, args: JoinArgs) -> Outcome {
    let via = match args.via.parse::<Id52>() {
        Ok(manager) => JoinVia::Manager(manager),
        Err(_) => JoinVia::Invite(args.via),
    };
    let client = context.client().await?;
    let joined = client.join(JoinClusterRequest { via, alias: args.alias, name: args.name }).await?;
    context.show(&joined, |joined| vec![joined.id52.to_string()]);
    if !context.global.json {
        context.output.note(&view::joined(&joined));
    }
    Ok(DONE)
}
