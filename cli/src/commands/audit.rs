//! `malai audit …`.

use malai_core::api::AuditQuery;
use malai_core::model::text::escape_json;

use super::{Context, Outcome};
use crate::args::{AuditCommand, AuditShowArgs};
use crate::output::{DONE, FAILED};
use crate::view;

pub(crate) async fn audit(context: &Context, command: AuditCommand) -> Outcome {
    match command {
        AuditCommand::Show(args) => show(context, args).await,
        AuditCommand::Verify { known } => {
            let checked = context.client().await?.verify_audit(known).await?;
            context.show(&checked, view::audit_check);
            Ok(if checked.whole { DONE } else { FAILED })
        }
    }
}

async fn show(context: &Context, args: AuditShowArgs) -> Outcome {
    let client = context.client().await?;
    let mut records = client.audit_records(AuditQuery { since: args.since, peer: args.peer });
    while let Some(line) = records.next().await? {
        if context.global.json {
            context.output.line(&escape_json(&line.raw));
        } else {
            context.output.line(&view::audit_line(&line));
        }
    }
    Ok(DONE)
}
