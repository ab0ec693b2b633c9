//! `malai rescan` and `malai sync`.

use malai_core::model::name::ClusterAlias;

use super::{Context, Outcome, hidden};
use crate::output::{DONE, FAILED};
use crate::view;

pub(crate) async fn rescan(context: &Context, check: bool) -> Outcome {
    let client = context.client().await?;
    let mut found = client.rescan(check).await?;
    found.warnings.extend(hidden::aliases(context).iter().map(|alias| hidden::diagnostic(context, alias)));
    if !context.global.json {
        context.output.diagnostics(&found.warnings);
    }
    Ok(context.show(&found, |found| view::rescanned(found, check)))
}

pub(crate) async fn sync(context: &Context, cluster: Option<ClusterAlias>) -> Outcome {
    let client = context.client().await?;
    let clusters = client.sync(cluster).await?;
    context.show(&clusters, |clusters| view::synced(clusters));
    client.close().await;
    Ok(if clusters.iter().any(|cluster| cluster.error.is_some()) { FAILED } else { DONE })
}
