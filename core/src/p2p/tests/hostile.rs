//! A peer with a right to connect that does not keep the protocol, or cannot.

use bytes::{Bytes, BytesMut};
use malai_model::wire::frame::{Head, Lane, MAX_DATA, encode};

use super::*;

/// An admitted member that speaks raw QUIC.
struct Hostile {
    scope: Scope,
    server: Endpoint,
    raw: iroh::Endpoint,
    ours: iroh::endpoint::Connection,
    theirs: Connection,
}

impl Hostile {
    async fn new() -> Self {
        let scope = Scope::new();
        let serve = serving(vec![key(1).id52()]);
        let options = EndpointOptions { secret: key(2), network: offline(), serve, preferred_port: None };
        let server = Endpoint::bind(options, Transport::Quic, &scope).await.expect("binds");
        let raw = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
            .relay_mode(iroh::RelayMode::Disabled)
            .secret_key(iroh::SecretKey::from_bytes(&key(1).to_bytes()))
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")
            .expect("is an address")
            .bind()
            .await
            .expect("binds");
        let id = iroh::PublicKey::from_bytes(server.id52().as_bytes()).expect("is a key");
        let address = iroh::EndpointAddr::new(id).with_ip_addr(server.addresses()[0]);
        let (ours, theirs) =
            soon(async { tokio::join!(raw.connect(address, Protocol::Member.alpn()), server.accept()) })
                .await;
        Self { scope, server, raw, ours: ours.expect("connects"), theirs: theirs.expect("accepts") }
    }

    /// Sends bytes on a stream of their own, and gives the server's end of it.
    async fn send(&self, bytes: &[u8]) -> (iroh::endpoint::SendStream, iroh::endpoint::RecvStream, Stream) {
        let (mut send, recv) = self.ours.open_bi().await.expect("opens");
        // May fail half-way when the server stops the stream.
        let _written = send.write_all(bytes).await;
        (send, recv, soon(self.theirs.accept_stream()).await.expect("accepts"))
    }

    /// Shows that the connection lives: an honest exchange on it.
    async fn still_answers(&self) {
        let mut bytes = message("ping", 0);
        ends(&mut bytes, [6, 0, 0]);
        let (_send, mut recv, stream) = self.send(&bytes).await;
        let Stream { sender, mut receiver } = stream;
        let asked = soon(receiver.message::<String>()).await.expect("receives");
        assert_eq!(asked.as_deref(), Some("ping"));
        let answer = async {
            let mut answer = [0; 64];
            recv.read(&mut answer).await.expect("reads")
        };
        let (sent, answer) = soon(async { tokio::join!(sender.send_message("pong"), answer) }).await;
        sent.expect("sends");
        assert!(answer.is_some());
    }

    async fn end(self) {
        self.raw.close().await;
        self.server.close().await;
        drop(self.theirs);
        self.scope.shutdown(PATIENCE).await;
    }
}

fn data(lane: Lane, offset: u64, body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode(&Head::Data { lane, offset, length: body.len() }, &mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

fn message(text: &str, offset: u64) -> BytesMut {
    data(Lane::Messages, offset, format!("{text:?}").as_bytes())
}

fn ends(bytes: &mut BytesMut, offsets: [u64; 3]) {
    for (lane, offset) in Lane::ALL.into_iter().zip(offsets) {
        encode(&Head::End { lane, offset }, bytes);
    }
}

#[tokio::test]
async fn what_is_no_frame_ends_its_stream_and_nothing_else() {
    let hostile = Hostile::new().await;
    let mut after_end = BytesMut::new();
    encode(&Head::End { lane: Lane::Main, offset: 0 }, &mut after_end);
    after_end.extend_from_slice(&data(Lane::Main, 0, b"more"));
    let mut twice = BytesMut::new();
    ends(&mut twice, [0, 0, 0]);
    ends(&mut twice, [0, 0, 0]);
    let mut grant = BytesMut::new();
    encode(&Head::Window { lane: Lane::Main, consumed: 1, allowance: 1, window: 1 }, &mut grant);
    let cases: [(&str, &[u8]); 8] = [
        ("unknown type", &[0x42, 0, 0, 1, 0]),
        ("oversized", &[1, 0xff, 0xff, 0xff]),
        ("unknown lane", &[1, 0, 0, 10, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("an offset out of place", &data(Lane::Main, 5, b"x")),
        ("data after the end", &after_end),
        ("an end at the wrong place", &[3, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("ends twice", &twice),
        ("a grant for what was not sent", &grant),
    ];
    for (counted, (case, bytes)) in (1..).zip(cases) {
        let (_send, mut recv, mut stream) = hostile.send(bytes).await;
        let error = loop {
            match soon(stream.receiver.next()).await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    // Complete before the breach came: the reset shows it.
                    break P2pError::Malformed { reason: "after the end".to_owned() };
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(error, P2pError::Malformed { .. }), "{case}: {error:?}");
        assert_eq!(error.code().as_str(), "wire.malformed");
        let mut rest = [0; 64];
        let ended = soon(async { while let Ok(Some(_)) = recv.read(&mut rest).await {} }).await;
        assert_eq!(ended, (), "{case}: the hostile side's stream ended");
        assert_eq!(hostile.server.counters().malformed(), counted, "{case}");
        hostile.still_answers().await;
    }
    hostile.end().await;
}

#[tokio::test]
async fn more_than_the_credit_ends_its_stream_and_nothing_else() {
    let hostile = Hostile::new().await;
    for (exceeded, body) in [(1, vec![0; MAX_DATA]), (2, vec![0; 1])] {
        let mut bytes = message("first", 0);
        let mut offset = 0;
        // One frame more than the initial allowance, whatever a frame costs.
        let cost = body.len().max(2048) as u64;
        for _ in 0..=Lane::Main.initial_window() / cost {
            bytes.extend_from_slice(&data(Lane::Main, offset, &body));
            offset += body.len() as u64;
        }
        let (_send, _recv, mut stream) = hostile.send(&bytes).await;
        // Nobody takes the data; taking the message alone must do for the breach to be noticed.
        let _first = soon(stream.receiver.message::<String>()).await;
        let error = soon(async {
            loop {
                if let Err(error) = stream.sender.send(Channel::Main, Bytes::from_static(b"x")).await {
                    return error;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(matches!(error, P2pError::Malformed { .. }), "{error:?}");
        assert_eq!(hostile.server.counters().credit_exceeded(), exceeded);
        hostile.still_answers().await;
    }
    hostile.end().await;
}

#[tokio::test]
async fn a_stream_that_stops_within_a_frame_is_an_error_not_an_end() {
    let hostile = Hostile::new().await;
    let bytes = data(Lane::Main, 0, b"half of it");
    let (mut send, _recv, mut stream) = hostile.send(&bytes[..bytes.len() - 4]).await;
    send.finish().expect("finishes");
    let mut got = Vec::new();
    let error = loop {
        match soon(stream.receiver.data(Channel::Main)).await {
            Ok(Some(bytes)) => got.extend_from_slice(&bytes),
            Ok(None) => panic!("a clean end after {got:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("within a frame"), "{error}");
    hostile.still_answers().await;
    hostile.end().await;
}

#[tokio::test]
async fn a_thousand_stalled_streams_do_not_keep_another_from_being_served() {
    let hostile = Hostile::new().await;
    let mut bytes = message("stalls", 0);
    bytes.extend_from_slice(&data(Lane::Main, 0, &[0; MAX_DATA]));
    bytes.extend_from_slice(&data(Lane::Main, MAX_DATA as u64, &[0; MAX_DATA]));
    let open = async {
        let mut held = Vec::new();
        for _ in 0..1000 {
            let (mut send, recv) = hostile.ours.open_bi().await.expect("opens");
            send.write_all(&bytes).await.expect("writes");
            held.push((send, recv));
        }
        held
    };
    let accept = async {
        let mut held = Vec::new();
        for _ in 0..1000 {
            let mut stream = hostile.theirs.accept_stream().await.expect("accepts");
            assert!(stream.receiver.message::<String>().await.expect("receives").is_some());
            held.push(stream);
        }
        held
    };
    let held = soon(async { tokio::join!(open, accept) }).await;
    hostile.still_answers().await;
    assert_eq!(hostile.server.counters().credit_exceeded(), 0, "they stayed within their credit");
    drop(held);
    hostile.end().await;
}

/// What the stack of a stopped process does, and one behind a lost packet: it takes packets and nobody reads.
#[tokio::test]
async fn small_writes_to_a_peer_that_reads_nothing_do_not_cost_the_connection() {
    let hostile = Hostile::new().await;
    let mut bytes = message("go", 0);
    // The whole window at once, as after a while of honest reading.
    let window = Lane::Main.window();
    encode(&Head::Window { lane: Lane::Main, consumed: 0, allowance: window, window: 1 << 20 }, &mut bytes);
    let (_send, mut recv, mut stream) = hostile.send(&bytes).await;
    soon(stream.receiver.message::<String>()).await.expect("receives");
    soon(async {
        for _ in 0..4000 {
            stream
                .sender
                .send(Channel::Main, Bytes::from(vec![b'x'; 100]))
                .await
                .expect("the connection holds");
            // Lets the transport make a packet of it: together they would be harmless.
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    hostile.still_answers().await;
    let Stream { sender, receiver: _receiver } = stream;
    let finish = async { sender.finish().await };
    let read = async {
        let mut arrived = 0;
        let mut buffer = vec![0; 64 * 1024];
        while arrived < 400_000 {
            arrived += recv.read(&mut buffer).await.expect("reads").expect("goes on");
        }
    };
    let (finished, ()) = soon(async { tokio::join!(finish, read) }).await;
    finished.expect("everything is handed over");
    hostile.end().await;
}

#[tokio::test]
async fn finish_does_not_hang_when_the_peer_finishes_without_granting() {
    let hostile = Hostile::new().await;
    let mut bytes = message("go", 0);
    ends(&mut bytes, [4, 0, 0]);
    let (mut send, _recv, stream) = hostile.send(&bytes).await;
    let Stream { sender, mut receiver } = stream;
    assert!(soon(receiver.message::<String>()).await.expect("receives").is_some());
    let flood = async {
        let blocked = sender.send(Channel::Main, Bytes::from(vec![0; 4 << 20])).await;
        (blocked, sender.finish().await)
    };
    let finish = async {
        tokio::task::yield_now().await;
        send.finish()
    };
    let ((blocked, finished), ended) = soon(async { tokio::join!(flood, finish) }).await;
    ended.expect("finishes");
    assert!(matches!(blocked, Err(P2pError::StreamReset { .. })), "{blocked:?}");
    // What was accepted is handed over; the unread rest is the peer's loss.
    drop(receiver);
    drop(finished);
    hostile.still_answers().await;
    hostile.end().await;
}

#[tokio::test]
async fn frames_of_a_later_version_are_skipped() {
    let hostile = Hostile::new().await;
    let mut bytes = BytesMut::from(&[0xc0, 0, 0, 3, 1, 2, 3][..]);
    bytes.extend_from_slice(&message("ping", 0));
    let (_send, _recv, mut stream) = hostile.send(&bytes).await;
    let asked = soon(stream.receiver.message::<String>()).await.expect("receives");
    assert_eq!(asked.as_deref(), Some("ping"));
    drop(stream);
    hostile.end().await;
}

/// A stranger's endpoint.
async fn stranger(n: u8) -> iroh::Endpoint {
    iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
        .relay_mode(iroh::RelayMode::Disabled)
        .secret_key(iroh::SecretKey::from_bytes(&key(n).to_bytes()))
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .expect("is an address")
        .bind()
        .await
        .expect("binds")
}

#[tokio::test]
async fn callers_that_stop_within_the_handshake_keep_nobody_out() {
    let two = Two::quic().await;
    let id = iroh::PublicKey::from_bytes(two.server.id52().as_bytes()).expect("is a key");
    let server = two.server.addresses()[0];
    for n in 3..143 {
        // The caller's first packet reaches the server from an address that answers nothing.
        let trap = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let mute = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let address = iroh::EndpointAddr::new(id).with_ip_addr(trap.local_addr().expect("an address"));
        let caller = stranger(n).await;
        let pass_on = async {
            let mut packet = [0; 2048];
            let length = trap.recv(&mut packet).await.expect("receives");
            mute.send_to(&packet[..length], server).await.expect("sends");
        };
        tokio::select! {
            _ = caller.connect(address, Protocol::Member.alpn()) => panic!("nobody answers it"),
            () = pass_on => {}
        }
    }
    let hints = two.hints();
    // Half of what a stalled handshake may take.
    let patience = crate::timeouts::HANDSHAKE / 2;
    let calling = two.caller.connect(two.server.id52(), Protocol::Member, &hints, patience);
    let (ours, theirs) = soon(async { tokio::join!(calling, two.server.accept()) }).await;
    drop((ours.expect("connects"), theirs));
    two.end().await;
}

#[tokio::test]
async fn a_stranger_at_an_invite_cannot_make_it_hold_much() {
    struct Anybody;
    impl Admission for Anybody {
        fn admits(&self, _peer: &Id52, _protocol: Protocol) -> bool {
            true
        }
    }
    let scope = Scope::new();
    let serve = Some(Serve { protocols: vec![Protocol::Invite], admission: Arc::new(Anybody) });
    let options = EndpointOptions { secret: key(2), network: offline(), serve, preferred_port: None };
    let invite = Endpoint::bind(options, Transport::Quic, &scope).await.expect("binds");
    let id = iroh::PublicKey::from_bytes(invite.id52().as_bytes()).expect("is a key");
    let address = iroh::EndpointAddr::new(id).with_ip_addr(invite.addresses()[0]);
    let caller = stranger(1).await;
    let (ours, theirs) =
        soon(async { tokio::join!(caller.connect(address, Protocol::Invite.alpn()), invite.accept()) }).await;
    let (ours, theirs) = (ours.expect("connects"), theirs.expect("accepts"));
    let mut taken = 0;
    let mut held = Vec::new();
    let block = vec![0; 16 * 1024];
    // Until nothing is taken for a while: the streams are never accepted.
    let stuck = Duration::from_millis(500);
    while let Ok(Ok((mut send, recv))) = tokio::time::timeout(stuck, ours.open_bi()).await {
        while let Ok(Ok(count)) = tokio::time::timeout(stuck, send.write(&block)).await {
            taken += count;
        }
        assert!(taken < 1024 * 1024, "{taken} bytes of a stranger are held");
        // It stays open; its end would give room back.
        held.push((send, recv));
    }
    assert!(taken > 0 && taken < 256 * 1024, "{taken} bytes of a stranger are held");
    drop((ours, theirs, held));
    caller.close().await;
    invite.close().await;
    scope.shutdown(PATIENCE).await;
}

#[test]
fn what_a_peer_says_at_the_end_cannot_act_on_a_terminal() {
    let hostile = "\u{1b}]0;title\u{7}\r\nerror: \u{202e}".to_owned();
    for error in [P2pError::Lost { reason: hostile.clone() }, P2pError::Malformed { reason: hostile }] {
        let shown = error.to_string();
        assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
    }
}
