//! Which UDP port is whose, over the real transport on loopback.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use malai_core::api::{
    self, ApiReply, ApiRequest, CreateInviteRequest, JoinClusterRequest, JoinVia, OpenRules,
};
use malai_core::clock::SystemClock;
use malai_core::home::{Create, Home};
use malai_core::identity::FileKeyStore;
use malai_core::model::code::ErrorCode;
use malai_core::node::{Mode, Node, NodeOptions};
use malai_core::p2p::Transport;

use crate::harness::{PATIENCE, alias, company, soon};

/// A port that nobody has; and the socket that keeps it so.
fn port() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let port = socket.local_addr().expect("an address").port();
    (socket, port)
}

async fn node(root: &Path, port: u16, mode: Mode) -> Node {
    let home = Home::open(root.to_owned(), Create::Yes).expect("a home");
    let network = format!("bind = \"127.0.0.1:{port}\"\nrelays = \"none\"\ndiscovery = []\n");
    std::fs::write(home.device_config(), format!("[network]\n{network}")).expect("malai.toml");
    let options = NodeOptions {
        keys: Arc::new(FileKeyStore::new(home.clone())),
        home,
        clock: Arc::new(SystemClock),
        transport: Transport::Quic,
        runtime_dir: None,
        connect_timeout: PATIENCE,
        version: "0.0.0-test",
        own_program: None,
    };
    soon(Node::start(options, mode)).await.expect("the node starts")
}

async fn ask(node: &Node, request: ApiRequest) -> Result<ApiReply, ErrorCode> {
    match soon(api::handle(node, request)).await {
        ApiReply::Failed(failed) => Err(failed.error.code),
        reply => Ok(reply),
    }
}

async fn init(node: &Node, cluster: &str) -> Result<ApiReply, ErrorCode> {
    ask(node, ApiRequest::InitCluster { alias: alias(cluster), cluster_name: None }).await
}

/// Makes an invite to the company, and says whether the node listens on it.
async fn invite(node: &Node) -> (String, bool) {
    let request = CreateInviteRequest {
        cluster: company(),
        label: None,
        expires_in: None,
        max_uses: None,
        groups: Vec::new(),
        open: OpenRules::Refuse,
    };
    match ask(node, ApiRequest::CreateInvite(request)).await {
        Ok(ApiReply::Invite(view)) => (view.invite, view.listening),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fixed_port_stands_in_the_way_of_no_invite_no_second_cluster_and_no_command_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let (sockets, ports): (Vec<_>, Vec<_>) = (0..2).map(|_| port()).unzip();
    drop(sockets);
    let manager = node(&dir.path().join("manager"), ports[0], Mode::Serve).await;
    init(&manager, "company").await.expect("the first has the port");
    init(&manager, "family").await.expect("the second takes another");
    let (word, listening) = invite(&manager).await;
    assert!(listening);

    let home = dir.path().join("web01");
    let web01 = node(&home, ports[1], Mode::Serve).await;
    init(&web01, "own").await.expect("has the port");
    let name = Some("web01".parse().expect("a name"));
    let join = JoinClusterRequest { via: JoinVia::Invite(word), alias: company(), name };
    match ask(&web01, ApiRequest::Join(join)).await {
        Ok(ApiReply::Joined(view)) => assert!(view.waiting.is_none(), "{:?}", view.waiting),
        other => panic!("{other:?}"),
    }
    // A command line of the same home, beside its daemon.
    let command_line = node(&home, ports[1], Mode::Dial).await;
    match ask(&command_line, ApiRequest::Sync { cluster: Some(company()) }).await {
        Ok(ApiReply::Synced { clusters }) => assert_eq!(clusters[0].error, None),
        other => panic!("{other:?}"),
    }
    for node in [command_line, web01, manager] {
        soon(node.close(Duration::ZERO)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_could_not_begin_begins_at_the_next_rescan() {
    let dir = tempfile::tempdir().expect("a directory");
    let (socket, port) = port();
    let manager = node(&dir.path().join("manager"), port, Mode::Serve).await;
    assert_eq!(init(&manager, "company").await.err(), Some(ErrorCode::PeerBind));
    let again = ask(&manager, ApiRequest::Rescan { check: false }).await;
    assert_eq!(again.err(), Some(ErrorCode::PeerBind), "it still cannot");
    drop(socket);
    ask(&manager, ApiRequest::Rescan { check: false }).await.expect("now it can");
    assert!(invite(&manager).await.1);
    soon(manager.close(Duration::ZERO)).await;
}
