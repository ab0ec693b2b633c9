//! `malai info` and `malai status`.

use super::{Context, Outcome};
use crate::view;

pub(crate) async fn info(context: &Context) -> Outcome {
    let info = context.client().await?.info().await?;
    if !context.global.json {
        for cluster in &info.clusters {
            context.output.diagnostics(&cluster.warnings);
        }
    }
    Ok(context.show(&info, view::info))
}

pub(crate) async fn status(context: &Context) -> Outcome {
    let status = context.client().await?.status().await?;
    Ok(context.show(&status, view::status))
}
