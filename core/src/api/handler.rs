//! An operation, done by a node. The daemon's socket and a client without a daemon both end here.

use malai_model::name::ClusterAlias;

use super::{ApiReply, ApiRequest, FailedView, SyncView};
use crate::cluster::{self, ClusterError};
use crate::node::{Node, NodeError};

/// Does what is asked. Failing is an answer too.
pub async fn handle(node: &Node, request: ApiRequest) -> ApiReply {
    // Boxed: the futures beneath are large and deep, and nobody above should carry their layout.
    match Box::pin(answer(node, request)).await {
        Ok(reply) => reply,
        Err(error) => ApiReply::Failed(failed(&error)),
    }
}

/// What a front is told of a failure.
pub(crate) fn failed(error: &NodeError) -> FailedView {
    FailedView::of(error.code(), error, error.hint(), error.diagnostics())
}

async fn answer(node: &Node, request: ApiRequest) -> Result<ApiReply, NodeError> {
    Ok(match request {
        ApiRequest::InitCluster { alias, cluster_name } => {
            ApiReply::Cluster(init_cluster(node, alias, cluster_name).await?)
        }
        ApiRequest::CreateInvite(request) => ApiReply::Invite(node.create_invite(request).await?),
        ApiRequest::ListInvites { cluster } => {
            let member = node.member(&cluster)?;
            ApiReply::Invites { invites: node.list_invites(&member).await? }
        }
        ApiRequest::RevokeInvite { cluster, invite } => {
            let member = node.member(&cluster)?;
            ApiReply::Invites { invites: node.revoke_invite(&member, invite).await? }
        }
        ApiRequest::Join(request) => ApiReply::Joined(node.join(request).await?),
        ApiRequest::Rescan { check } => ApiReply::Rescanned(node.rescan(check).await?),
        ApiRequest::Sync { cluster } => ApiReply::Synced { clusters: sync(node, cluster).await? },
        ApiRequest::FindService { address } => ApiReply::Service(node.find_service(&address).await?),
        ApiRequest::ListServices { cluster } => {
            ApiReply::Services { services: node.services(cluster.as_ref())? }
        }
        ApiRequest::Info {} => ApiReply::Info(node.info().await?),
        ApiRequest::Status {} => ApiReply::Status(node.status()),
        // It needs the socket that it came over: the daemon's end of that takes it before it comes here.
        ApiRequest::Open(_) | ApiRequest::OpenAndRun(_) => {
            return Err(ClusterError::OutOfTurn("a stream without a socket").into());
        }
    })
}

async fn init_cluster(
    node: &Node,
    alias: ClusterAlias,
    cluster_name: Option<String>,
) -> Result<super::ClusterView, NodeError> {
    let wanted = alias.clone();
    let loaded = node
        .blocking(move |node| {
            let name = cluster_name.as_deref().unwrap_or(wanted.as_str());
            cluster::init_cluster(node.home(), node.keys().as_ref(), &wanted, name)
        })
        .await?;
    let view = node.cluster_view(&loaded)?;
    node.begin_managing(loaded).await?;
    Ok(view)
}

async fn sync(node: &Node, cluster: Option<ClusterAlias>) -> Result<Vec<SyncView>, NodeError> {
    let members = match cluster {
        Some(alias) => vec![node.member(&alias)?],
        None => node.all_members()?,
    };
    let mut synced = Vec::new();
    for member in members {
        if member.loaded().is_managed_here() {
            continue;
        }
        let outcome = node.sync_or_join(&member).await;
        synced.push(SyncView {
            alias: member.alias().clone(),
            serial: member.loaded().serial(),
            changed: matches!(outcome, Ok(true)),
            error: outcome.err().map(|error: NodeError| error.to_wire()),
        });
    }
    Ok(synced)
}
