//! `malai cluster …`.

use malai_core::api::{CreateInviteRequest, OpenRules};
use malai_core::model::name::ClusterAlias;

use super::{Context, Outcome};
use crate::args::ClusterCommand;
use crate::output::DONE;
use crate::view;

pub(crate) async fn cluster(context: &Context, command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Init { alias, name } => init(context, alias, name).await,
        ClusterCommand::CreateInvite { cluster, alias, expires, max_uses, groups, open } => {
            let client = context.client().await?;
            let open = if open { OpenRules::Accept } else { OpenRules::Refuse };
            let request =
                CreateInviteRequest { cluster, label: alias, expires_in: expires, max_uses, groups, open };
            let created = client.create_invite(request).await?;
            if !created.listening {
                context.output.note("note: machines can join with it while `malai daemon` runs here");
            }
            Ok(context.show(&created, |created| vec![created.invite.clone()]))
        }
        ClusterCommand::ListInvites { cluster } => {
            let invites = context.client().await?.list_invites(cluster).await?;
            Ok(context.show(&invites, |invites| view::invites(invites)))
        }
        ClusterCommand::RevokeInvite { cluster, invite } => {
            let ended = context.client().await?.revoke_invite(cluster, invite).await?;
            Ok(context.show(&ended, |ended| view::revoked(ended)))
        }
        ClusterCommand::List => {
            let info = context.client().await?.info().await?;
            Ok(context.show(&info.clusters, |clusters| view::cluster_list(clusters)))
        }
    }
}

pub(crate) async fn init(context: &Context, alias: ClusterAlias, name: Option<String>) -> Outcome {
    let client = context.client().await?;
    let cluster = client.init_cluster(alias, name).await?;
    context.show(&cluster, |cluster| vec![cluster.id52.to_string()]);
    if !context.global.json {
        context.output.note(&format!(
            "You manage {alias} now; above is its root's id52.\n\
             Next: `malai daemon`, then `malai cluster create-invite {alias}` for each machine that shall join.",
            alias = cluster.alias
        ));
    }
    Ok(DONE)
}
