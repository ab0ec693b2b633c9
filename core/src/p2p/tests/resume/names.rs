//! What streams are kept as: whose a name is, how many a peer may have, and those that were said to be unknown.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_a_peer_was_told_to_be_unknown_does_not_begin_afterwards() {
    let scope = Scope::new();
    let (peer, other, own) = (key(1).id52(), key(3).id52(), key(2).id52());
    let resumables = Resumables::default();
    let (asking, asked) = Stream::pair(&scope, peer, own).expect("makes a pair");
    let unknown = resumables.resume(&peer, &token(1), asked, &[LaneState::default(); 3]);
    assert!(matches!(unknown, Err(P2pError::StreamUnknown)), "{unknown:?}");
    let (late, its) = Stream::pair(&scope, peer, own).expect("makes a pair");
    let keep = |of, name, linger| resumables.keep(of, token(name), &its, linger);
    for linger in [LINGER, Duration::ZERO] {
        assert!(matches!(keep(peer, 1, linger), Err(P2pError::StreamUnknown)));
    }
    // That name of that peer alone, and not for ever.
    assert!(keep(peer, 2, LINGER).expect("begins").is_some());
    assert!(keep(other, 1, LINGER).expect("begins").is_some());
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(keep(peer, 1, LINGER).expect("begins").is_some());
    for name in 0..=255 {
        let (_asking, asked) = Stream::pair(&scope, peer, own).expect("makes a pair");
        _ = resumables.resume(&peer, &token(name), asked, &[LaneState::default(); 3]);
    }
    assert!((0..=255).all(|name| keep(peer, name, LINGER).is_err()));
    assert!(!resumables.has(&peer) && !resumables.has(&other), "what is unknown is nothing to go on with");
    drop((asking, late, its));
    scope.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn another_peer_cannot_go_on_with_a_stream_though_it_knows_the_token() {
    let resuming = Resuming::new(LINGER).await;
    let (mut opened, handle, theirs, _kept) = resuming.stream(1).await;
    resuming.cut();
    soon(handle.lost()).await.expect("is lost");
    // The registry is what tells peers apart; the connection says who it is.
    let stranger = key(9).id52();
    let (mine, its) = Stream::pair(&resuming.scope, stranger, resuming.server.id52()).expect("makes a pair");
    let lanes = [LaneState::default(); 3];
    let refused = resuming.resumables.resume(&stranger, &token(1), its, &lanes);
    assert!(matches!(refused, Err(P2pError::StreamUnknown)), "{refused:?}");
    let Stream { sender: _sender, mut receiver } = mine;
    let told = soon(receiver.message::<String>()).await;
    assert!(matches!(told, Err(P2pError::StreamReset { code: stream_code::UNKNOWN })), "{told:?}");
    // Its owner can.
    soon(handle.resume_over(resuming.fresh().await, token(1))).await.expect("goes on");
    soon(theirs.sender.send_message("still yours")).await.expect("sends");
    let got = soon(opened.receiver.message::<String>()).await.expect("receives");
    assert_eq!(got.as_deref(), Some("still yours"));
    drop((opened, theirs));
    resuming.end().await;
}

#[tokio::test]
async fn a_peer_may_have_so_many_streams_kept_and_no_name_twice() {
    let scope = Scope::new();
    let (peer, own) = (key(1).id52(), key(2).id52());
    let resumables = Resumables::default();
    let (_mine, its) = Stream::pair(&scope, peer, own).expect("makes a pair");
    let kept: Vec<Option<Kept>> = (0..1025_u32)
        .map(|n| {
            let mut name = [0; 16];
            name[..4].copy_from_slice(&n.to_be_bytes());
            resumables.keep(peer, ResumeToken::from_random(name), &its, LINGER).expect("is no late one")
        })
        .collect();
    assert!(kept[..1024].iter().all(Option::is_some) && kept[1024].is_none());
    drop(kept);
    assert!(!resumables.has(&peer));
    let first = resumables.keep(peer, token(1), &its, LINGER).expect("is no late one");
    assert!(first.is_some());
    assert!(resumables.keep(peer, token(1), &its, LINGER).expect("is no late one").is_none());
    drop(first);
    drop((_mine, its));
    scope.shutdown(PATIENCE).await;
}
