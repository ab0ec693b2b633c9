use bytes::Bytes;

use super::*;

/// One message and its answer.
async fn exchange(ours: &Connection, theirs: &Connection) {
    let ask = async {
        let Stream { sender, mut receiver } = ours.open_stream().await.expect("opens");
        sender.finish_with("ping").await.expect("sends");
        receiver.message::<String>().await.expect("receives")
    };
    let answer = async {
        let Stream { sender, mut receiver } = theirs.accept_stream().await.expect("accepts");
        let asked = receiver.message::<String>().await.expect("receives");
        sender.finish_with("pong").await.expect("sends");
        asked
    };
    let (answer, asked) = soon(async { tokio::join!(ask, answer) }).await;
    assert_eq!((asked.as_deref(), answer.as_deref()), (Some("ping"), Some("pong")));
}

#[tokio::test]
async fn a_message_and_its_answer_cross_loopback() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    assert_eq!((ours.peer(), theirs.peer()), (two.server.id52(), two.caller.id52()));
    exchange(&ours, &theirs).await;
    drop((ours, theirs));
    two.end().await;
}

#[tokio::test]
async fn a_message_and_its_answer_cross_memory() {
    let (two, _network) = Two::memory().await;
    let (ours, theirs) = two.connected().await;
    exchange(&ours, &theirs).await;
    drop((ours, theirs));
    two.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_arrives_as_it_was_sent() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    let total: usize = 64 << 20;
    let block: Bytes =
        (0..1_048_573_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<u8>>().into();
    let send = async {
        let Stream { sender, receiver: _receiver } = ours.open_stream().await.expect("opens");
        let mut left = total;
        while left > 0 {
            let piece = block.slice(..left.min(block.len()));
            left -= piece.len();
            sender.send(Channel::Main, piece).await.expect("sends");
        }
        sender.finish().await.expect("finishes");
    };
    let receive = async {
        let Stream { sender: _sender, mut receiver } = theirs.accept_stream().await.expect("accepts");
        let mut offset = 0;
        while let Some(bytes) = receiver.data(Channel::Main).await.expect("receives") {
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                let at = offset % block.len();
                let length = bytes.len().min(block.len() - at);
                assert!(bytes[..length] == block[at..at + length], "differs near {offset}");
                bytes = &bytes[length..];
                offset += length;
            }
        }
        offset
    };
    let ((), received) = soon(async { tokio::join!(send, receive) }).await;
    assert_eq!(received, total);
    drop((ours, theirs));
    two.end().await;
}

#[tokio::test]
async fn a_stranger_is_refused_and_no_stream_of_it_is_accepted() {
    let two = Two::quic().await;
    let options = EndpointOptions { secret: key(9), network: offline(), serve: None, preferred_port: None };
    let stranger = Endpoint::bind(options, Transport::Quic, &two.scope).await.expect("binds");
    let connection = soon(stranger.connect(two.server.id52(), Protocol::Member, &two.hints(), PATIENCE))
        .await
        .expect("connects");
    let refused = soon(async {
        let Stream { sender, mut receiver } = connection.open_stream().await?;
        // May be written before the refusal arrives.
        let _written = sender.send_message("let me in").await;
        receiver.message::<String>().await
    })
    .await
    .expect_err("is refused");
    assert!(matches!(refused, P2pError::NotAdmitted { peer } if peer == two.server.id52()), "{refused:?}");
    assert_eq!(refused.code().as_str(), "p2p.not_admitted");
    assert!(refused.to_string().contains("unknown to this machine, or no rights on it"), "{refused}");
    let again = soon(connection.open_stream()).await.expect_err("stays refused");
    assert!(matches!(again, P2pError::NotAdmitted { .. }), "{again:?}");
    assert_eq!(two.server.counters().refused(), 1);
    // Whoever is admitted comes first out of the accept queue: the stranger never got there.
    let (ours, theirs) = two.connected().await;
    assert_eq!(theirs.peer(), two.caller.id52());
    stranger.close().await;
    drop((ours, theirs, connection));
    two.end().await;
}

#[tokio::test]
async fn a_stranger_is_refused_in_memory_too() {
    let (two, network) = Two::memory().await;
    let options = EndpointOptions { secret: key(9), network: offline(), serve: None, preferred_port: None };
    let stranger = Endpoint::bind(options, Transport::Memory(network), &two.scope).await.expect("binds");
    let connection =
        stranger.connect(two.server.id52(), Protocol::Member, &[], PATIENCE).await.expect("connects");
    let refused = connection.open_stream().await.expect_err("is refused");
    assert!(matches!(refused, P2pError::NotAdmitted { .. }), "{refused:?}");
    two.end().await;
}

#[tokio::test]
async fn an_unknown_peer_is_unreachable_at_once() {
    let two = Two::quic().await;
    let error =
        two.caller.connect(key(7).id52(), Protocol::Member, &[], PATIENCE).await.expect_err("is nowhere");
    assert!(error.to_string().contains("no address of it is known"), "{error}");
    assert_eq!(error.code().as_str(), "p2p.unreachable");
    two.end().await;
}

#[tokio::test]
async fn a_silent_address_is_unreachable_within_the_deadline_and_named() {
    let two = Two::quic().await;
    // Bound, so that nobody else gets the port, and never answering.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let address = silent.local_addr().expect("has an address").to_string();
    let hints = [address.clone(), "no-such-host.invalid:1".to_owned()];
    let deadline = Duration::from_millis(600);
    let begun = std::time::Instant::now();
    let error = soon(two.caller.connect(key(7).id52(), Protocol::Member, &hints, deadline))
        .await
        .expect_err("no answer");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let P2pError::Unreachable { tried, .. } = &error else { panic!("{error:?}") };
    assert!(tried.iter().any(|tried| tried.contains(&address)), "{tried:?}");
    assert!(tried.iter().any(|tried| tried.contains("no-such-host.invalid")), "{tried:?}");
    two.end().await;
}

#[tokio::test]
async fn another_identity_at_the_address_is_not_taken_for_the_peer() {
    let two = Two::quic().await;
    let deadline = Duration::from_millis(1500);
    let outcome = soon(two.caller.connect(key(7).id52(), Protocol::Member, &two.hints(), deadline)).await;
    assert!(matches!(outcome, Err(P2pError::Unreachable { .. })), "{outcome:?}");
    two.end().await;
}

#[tokio::test]
async fn a_protocol_that_is_not_served_is_incompatible() {
    let two = Two::quic().await;
    let outcome = soon(two.caller.connect(two.server.id52(), Protocol::Invite, &two.hints(), PATIENCE)).await;
    assert!(matches!(outcome, Err(P2pError::Incompatible { .. })), "{outcome:?}");
    let oneself = two.caller.connect(two.caller.id52(), Protocol::Member, &[], PATIENCE).await;
    assert!(matches!(oneself, Err(P2pError::SelfConnect(_))), "{oneself:?}");
    two.end().await;
}

#[tokio::test]
async fn processes_of_one_user_find_each_other_without_hints() {
    let home = tempfile::tempdir().expect("a directory");
    let mut network = offline();
    network.discovery.local = true;
    network.runtime_dir = Some(home.path().join("run"));
    let scope = Scope::new();
    let options =
        |n, serve| EndpointOptions { secret: key(n), network: network.clone(), serve, preferred_port: None };
    let caller = Endpoint::bind(options(1, None), Transport::Quic, &scope).await.expect("binds");
    let serve = serving(vec![caller.id52()]);
    let server = Endpoint::bind(options(2, serve), Transport::Quic, &scope).await.expect("binds");
    let calling = caller.connect(server.id52(), Protocol::Member, &[], PATIENCE);
    let (ours, theirs) = soon(async { tokio::join!(calling, server.accept()) }).await;
    let (ours, theirs) = (ours.expect("connects"), theirs.expect("accepts"));
    assert_eq!(ours.remote_address().as_ref(), server.addresses().first());
    exchange(&ours, &theirs).await;
    server.close().await;
    let gone = soon(caller.connect(server.id52(), Protocol::Member, &[], PATIENCE)).await;
    assert!(matches!(gone, Err(P2pError::Unreachable { .. })), "its entry went with it: {gone:?}");
    caller.close().await;
}

#[tokio::test]
async fn the_port_of_last_time_is_used_unless_it_is_taken() {
    let scope = Scope::new();
    let bind = |n, port| {
        let options = EndpointOptions {
            secret: key(n),
            network: offline(),
            serve: serving(vec![]),
            preferred_port: port,
        };
        Endpoint::bind(options, Transport::Quic, &scope)
    };
    let first = bind(1, None).await.expect("binds");
    let port = first.addresses()[0].port();
    let second = bind(2, Some(port)).await.expect("binds to another");
    assert_ne!(second.addresses()[0].port(), port);
    first.close().await;
    drop(first);
    // The transport's tasks let go of the socket shortly after.
    soon(async {
        while std::net::UdpSocket::bind(("127.0.0.1", port)).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let third = bind(3, Some(port)).await.expect("binds");
    assert_eq!(third.addresses()[0].port(), port);
}

#[tokio::test]
async fn a_closed_endpoint_ends_what_waits_on_it() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    let Stream { sender, mut receiver } = ours.open_stream().await.expect("opens");
    sender.send_message("hello").await.expect("sends");
    let accepted = soon(theirs.accept_stream()).await.expect("accepts");
    two.server.close().await;
    assert!(soon(two.server.accept()).await.is_none());
    assert!(soon(theirs.accept_stream()).await.is_err());
    let lost = soon(receiver.message::<String>()).await.expect_err("is lost");
    assert!(matches!(lost, P2pError::Lost { .. }), "{lost:?}");
    soon(ours.closed()).await;
    assert!(ours.is_closed());
    drop(accepted);
    two.end().await;
}

#[tokio::test]
async fn many_callers_at_once_share_one_pooled_connection_and_a_dead_one_is_replaced() {
    let two = Two::quic().await;
    let Two { scope, caller, server } = two;
    let hints: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let pool = Pool::new(Arc::new(caller), &scope);
    let got = soon(async {
        tokio::join!(
            pool.get(server.id52(), &hints, PATIENCE),
            pool.get(server.id52(), &hints, PATIENCE),
            server.accept()
        )
    })
    .await;
    let (first, second, theirs) =
        (got.0.expect("connects"), got.1.expect("connects"), got.2.expect("accepts"));
    exchange(&first, &theirs).await;
    exchange(&second, &theirs).await;
    assert_eq!(pool.connections().len(), 1);
    theirs.close(CloseReason { code: 7, text: "enough".to_owned() });
    assert_eq!(soon(first.closed()).await, CloseReason { code: 7, text: "enough".to_owned() });
    assert!(pool.connections().is_empty());
    let again =
        soon(async { tokio::join!(pool.get(server.id52(), &hints, PATIENCE), server.accept()) }).await;
    exchange(&again.0.expect("connects"), &again.1.expect("accepts")).await;
    server.close().await;
}

#[tokio::test]
async fn a_peer_whose_rights_end_learns_that_it_is_not_admitted() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    let Stream { sender: _sender, mut receiver } = ours.open_stream().await.expect("opens");
    theirs.close(CloseReason::not_admitted());
    let refused = soon(receiver.message::<String>()).await.expect_err("is refused");
    assert!(matches!(refused, P2pError::NotAdmitted { .. }), "{refused:?}");
    drop((ours, theirs, receiver, _sender));
    two.end().await;
}
