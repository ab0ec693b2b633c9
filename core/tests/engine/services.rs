//! Services over minimal TCP streams: bytes and ends both ways, who may, and what ends an open connection.

use std::time::Duration;

use malai_core::Bytes;
use malai_core::api::{ServiceConnection, ServiceOutput};
use malai_core::model::code::ErrorCode;
use malai_core::p2p::{P2pError, stream_code};
use malai_core::service::ServiceError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::*;

/// A TCP server of the test's own.
struct Backend(TcpListener);

impl Backend {
    async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("binds"))
    }

    fn port(&self) -> u16 {
        self.0.local_addr().expect("an address").port()
    }

    async fn accept(&self) -> TcpStream {
        soon(self.0.accept()).await.expect("somebody connects").0
    }

    /// Whether nobody has connected, and nobody is about to.
    async fn is_untouched(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.0.accept()).await.is_err()
    }
}

fn rule(port: u16, more: &str) -> String {
    format!("\n[machine.web01.tcp.ssh]\nport = {port}\n{more}\n")
}

/// A company whose laptop may reach the service of web01 and do nothing else there, while db01 may not.
async fn serving(backend: &Backend) -> Company {
    serving_with(backend.port(), "").await
}

/// As [`serving`], with something in the `malai.toml` of web01.
async fn serving_with(port: u16, toml: &str) -> Company {
    let company = Company::with_devices(&[("web01", toml), ("laptop", ""), ("db01", "")]).await;
    company
        .manager
        .apply(|text| {
            // Admitted for a command, so that a denial is one of the service's own rule.
            let other = "\n[machine.web01.command.uptime]\nallow_from = \"db01\"\n";
            format!("{}{}{other}", deny(&text, "laptop"), rule(port, "allow_from = \"laptop\""))
        })
        .await;
    company
}

async fn connect(node: &TestNode, address: &str) -> Result<ServiceConnection, ErrorCode> {
    soon(node.node.connect_service(address)).await.map_err(|error| error.code())
}

async fn read_to_end(output: &mut ServiceOutput) -> Result<Vec<u8>, ErrorCode> {
    let mut all = Vec::new();
    while let Some(bytes) = soon(output.next()).await.map_err(|error| error.code())? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

async fn rest_of(tcp: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    soon(tcp.read_to_end(&mut all)).await?;
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_both_ways_and_each_direction_ends_for_itself() {
    let backend = Backend::new().await;
    let company = serving(&backend).await;
    let laptop = company.machine("laptop");

    // The caller ends first; the service answers after that.
    let mut connection = connect(laptop, "ssh.web01.company").await.expect("is allowed");
    let mut tcp = backend.accept().await;
    soon(connection.input.write(Bytes::from_static(b"question"))).await.expect("is sent");
    connection.input.end().await.expect("ends");
    assert_eq!(rest_of(&mut tcp).await.expect("reads"), b"question");
    soon(tcp.write_all(b"answer")).await.expect("writes");
    drop(tcp);
    assert_eq!(read_to_end(&mut connection.output).await.as_deref(), Ok(&b"answer"[..]));
    soon(connection.output.closed()).await.expect("both have ended");

    // The service ends first; the caller goes on after that. A machine's address means its ssh.
    let mut connection = connect(laptop, "web01.company").await.expect("is allowed");
    let mut tcp = backend.accept().await;
    soon(tcp.write_all(b"hello")).await.expect("writes");
    soon(tcp.shutdown()).await.expect("ends");
    assert_eq!(read_to_end(&mut connection.output).await.as_deref(), Ok(&b"hello"[..]));
    let large = vec![7; 3 << 20];
    let sending = async {
        soon(connection.input.write(Bytes::from(large.clone()))).await.expect("is sent");
        connection.input.end().await.expect("ends");
    };
    let (read, ()) = tokio::join!(rest_of(&mut tcp), sending);
    assert!(read.expect("reads") == large);
    soon(connection.output.closed()).await.expect("everything has arrived");
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_does_not_read_makes_its_caller_wait_and_nobody_else() {
    let backend = Backend::new().await;
    let company = serving(&backend).await;
    let laptop = company.machine("laptop");
    let mut stuck = connect(laptop, "ssh.web01.company").await.expect("is allowed");
    let mut slow = backend.accept().await;
    let total = 64 << 20;
    let mut writing = std::pin::pin!(async {
        stuck.input.write(Bytes::from(vec![1; total])).await.expect("is sent in the end");
        stuck.input.end().await.expect("ends");
    });
    let others = async {
        for round in 0..20_u8 {
            let mut other = connect(laptop, "ssh.web01.company").await.expect("is allowed");
            let mut tcp = backend.accept().await;
            soon(tcp.write_all(&[round])).await.expect("writes");
            drop(tcp);
            assert_eq!(read_to_end(&mut other.output).await.as_deref(), Ok(&[round][..]));
        }
    };
    tokio::select! {
        () = &mut writing => panic!("64 MiB fit into no buffer between"),
        () = others => {}
    }
    let (read, ()) = tokio::join!(rest_of(&mut slow), soon(writing));
    assert_eq!(read.expect("reads").len(), total);
    drop(slow);
    soon(stuck.output.closed()).await.expect("both have ended");
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_right_reaches_nothing_and_is_not_told_what_there_is() {
    let backend = Backend::new().await;
    let company = serving(&backend).await;
    let web01 = company.machine("web01").machine_id();
    for address in ["ssh.web01.company", "nothing.web01.company"] {
        let denied = connect(company.machine("db01"), address).await.err();
        assert_eq!(denied, Some(ErrorCode::AclDenied), "{address}");
    }
    // The right to a service is a right to no command, and to no other service.
    let laptop = company.machine("laptop");
    assert_eq!(laptop.run(&["web01.company", "uptime"]).await.err(), Some(ErrorCode::AclDenied));
    assert_eq!(connect(laptop, "web.web01.company").await.err(), Some(ErrorCode::AclDenied));
    // The manager has no rights of its own.
    let by_id = format!("{web01}.company");
    assert_eq!(connect(&company.manager, &by_id).await.err(), Some(ErrorCode::AclDenied));
    assert_eq!(connect(laptop, "mysql.company").await.err(), Some(ErrorCode::AddressUnknownMachine));
    assert!(backend.is_untouched().await);
    connect(laptop, &by_id).await.expect("is allowed");
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_taken_away_or_led_elsewhere_ends_open_connections_at_once() {
    let (backend, other) = (Backend::new().await, Backend::new().await);
    let company = serving(&backend).await;
    let laptop = company.machine("laptop");
    let mut moved = connect(laptop, "ssh.web01.company").await.expect("is allowed");
    let mut tcp = backend.accept().await;
    let (from, to) = (format!("port = {}", backend.port()), format!("port = {}", other.port()));
    company.manager.apply(|text| text.replace(&from, &to)).await;
    assert_eq!(read_to_end(&mut moved.output).await, Err(ErrorCode::AclRevoked));
    let broken = rest_of(&mut tcp).await.expect_err("not an end that could be taken for one");
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);

    let mut ends = connect(laptop, "ssh.web01.company").await.expect("is allowed");
    let _held = other.accept().await;
    let mut stays = connect(laptop, "ssh.web01.company").await.expect("is allowed");
    let mut tcp = other.accept().await;
    // An edit that leaves the right as it is ends nothing.
    company.manager.apply(|text| format!("{text}\n[group.ops]\nmembers = \"laptop\"\n")).await;
    soon(tcp.write_all(b"still here")).await.expect("writes");
    assert_eq!(soon(stays.output.next()).await.expect("reads").as_deref(), Some(&b"still here"[..]));
    company.manager.edit(|text| deny(&text, "laptop")).await;
    for output in [&mut ends.output, &mut stays.output] {
        assert_eq!(read_to_end(output).await, Err(ErrorCode::AclRevoked));
    }
    until("the refusal", || async { connect(laptop, "ssh.web01.company").await.is_err() }).await;
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_down_is_told_with_its_cure() {
    // Its port is taken, so that nobody else gets it, and nobody listens there.
    let down = tokio::net::TcpSocket::new_v4().expect("a socket");
    down.bind("127.0.0.1:0".parse().expect("an address")).expect("binds");
    let port = down.local_addr().expect("an address").port();
    let company = serving_with(port, "").await;
    let laptop = company.machine("laptop");
    let error = soon(laptop.node.connect_service("ssh.web01.company")).await.expect_err("nobody listens");
    assert_eq!(error.code(), ErrorCode::ServiceUnreachable);
    assert!(error.hint().is_some_and(|hint| hint.contains("does it run there")), "{error}");
    assert!(!error.to_string().contains(&port.to_string()), "where rules lead is not the caller's: {error}");
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_supported_yet_is_refused_by_name() {
    let backend = Backend::new().await;
    let company = serving(&backend).await;
    let port = backend.port();
    company
        .manager
        .apply(|text| {
            let http = format!("\n[machine.web01.http.web]\nport = {port}\nallow_from = \"laptop\"\n");
            let on_demand = format!(
                "\n[machine.web01.tcp.lazy]\nport = {port}\nallow_from = \"laptop\"\ncommand = \"true\"\n"
            );
            format!("{text}{http}{on_demand}")
        })
        .await;
    for (address, word) in [("web.web01.company", "http"), ("lazy.web01.company", "on demand")] {
        let error =
            soon(company.machine("laptop").node.connect_service(address)).await.expect_err("is refused");
        assert_eq!(error.code(), ErrorCode::WireUnsupported, "{error}");
        assert!(
            error.to_string().contains(word) && error.to_string().contains("not supported yet"),
            "{error}"
        );
    }
    assert!(backend.is_untouched().await);
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machines_own_ceiling_holds_against_any_config() {
    let backend = Backend::new().await;
    let devices = [("web01", "[host]\nservices = false\n"), ("laptop", "")];
    let company = Company::with_devices(&devices).await;
    let added = rule(backend.port(), "allow_from = \"laptop\"");
    company.manager.apply(|text| format!("{text}{added}")).await;
    let laptop = company.machine("laptop");
    let error = soon(laptop.node.connect_service("web01.company")).await.expect_err("is forbidden");
    assert_eq!(error.code(), ErrorCode::AclDenied);
    assert!(error.hint().is_some_and(|hint| hint.contains("malai.toml of web01")), "{:?}", error.hint());
    assert!(backend.is_untouched().await);
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_is_lost_breaks_the_services_connection_off() {
    let backend = Backend::new().await;
    let company = serving(&backend).await;
    let connection = connect(company.machine("laptop"), "ssh.web01.company").await.expect("is allowed");
    let mut tcp = backend.accept().await;
    soon(connection.input.write(Bytes::from_static(b"half of"))).await.expect("is sent");
    let mut half = [0; 7];
    soon(tcp.read_exact(&mut half)).await.expect("reads");
    drop(connection);
    let broken = rest_of(&mut tcp).await.expect_err("not an end that could be taken for one");
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_again_and_again_goes_on_with_the_exact_bytes() {
    let backend = Backend::new().await;
    let company = serving(&backend).await;
    let (laptop, network) = (company.machine("laptop"), &company.world.network);
    let (a, b) = (company.machine("web01").machine_id(), laptop.machine_id());
    let connection = connect(laptop, "ssh.web01.company").await.expect("is allowed");
    let ServiceConnection { input, mut output } = connection;
    let mut tcp = backend.accept().await;
    let echo = async {
        let (mut from, mut to) = tcp.split();
        tokio::io::copy(&mut from, &mut to).await.expect("hears of no loss");
        to.shutdown().await.expect("ends");
    };
    let body: Vec<u8> = (0..6_usize << 20).map(|n| ((n * 31 + n / 1000) % 251) as u8).collect();
    let fed = body.clone();
    let feed = async {
        // Each connection carries so much, both ways together, before it breaks.
        for (n, piece) in fed.chunks(512 * 1024).enumerate() {
            network.cut_after(a, b, 100_000 + n * 50_021);
            soon(input.write(Bytes::copy_from_slice(piece))).await.expect("is taken");
        }
        network.cut(a, b);
        soon(input.end()).await.expect("ends");
    };
    let ((), (), back) = tokio::join!(soon(echo), feed, read_to_end(&mut output));
    let back = back.expect("goes on to its end");
    assert!(back == body, "{} of {} bytes", back.len(), body.len());
    soon(output.closed()).await.expect("both have ended");
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_taken_away_while_the_caller_is_away_breaks_the_services_connection_off() {
    let backend = Backend::new().await;
    let company = serving(&backend).await;
    let (laptop, network) = (company.machine("laptop"), &company.world.network);
    let mut connection = connect(laptop, "ssh.web01.company").await.expect("is allowed");
    let mut tcp = backend.accept().await;
    let (a, b) = (company.machine("web01").machine_id(), laptop.machine_id());
    network.partition(a, b);
    network.cut(a, b);
    company.manager.edit(|text| deny(&text, "laptop")).await;
    let broken = rest_of(&mut tcp).await.expect_err("not an end that could be taken for one");
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
    network.heal(a, b);
    let error = read_to_end(&mut connection.output).await.expect_err("is over");
    let told = [ErrorCode::AclRevoked, ErrorCode::PeerNotAdmitted, ErrorCode::StreamUnknown];
    assert!(told.contains(&error), "{error:?}");
    assert!(backend.is_untouched().await, "nothing is connected a second time");
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_away_for_longer_than_the_machine_waits_has_lost_the_connection() {
    for (toml, away) in [("[limits]\nresume = \"0s\"\n", false), ("[limits]\nresume = \"1s\"\n", true)] {
        let backend = Backend::new().await;
        let company = serving_with(backend.port(), toml).await;
        let (laptop, network) = (company.machine("laptop"), &company.world.network);
        let mut connection = connect(laptop, "ssh.web01.company").await.expect("is allowed");
        let mut tcp = backend.accept().await;
        let (a, b) = (company.machine("web01").machine_id(), laptop.machine_id());
        if away {
            network.partition(a, b);
        }
        network.cut(a, b);
        assert_eq!(read_to_end(&mut connection.output).await, Err(ErrorCode::PeerLost));
        let broken = rest_of(&mut tcp).await.expect_err("not an end that could be taken for one");
        assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
        company.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_cannot_go_on_is_promised_nothing() {
    let backend = Backend::new().await;
    let company = serving(&backend).await;
    let web01 = company.machine("web01").machine_id();
    // The laptop by its key, as an older version of malai asks.
    company.machine("laptop").stop().await;
    let laptop = company.world.endpoint(company.machine("laptop").machine_secret()).await;
    let connection = connected(&laptop, web01).await;
    let mut stream = soon(connection.open_stream()).await.expect("opens");
    let asked = serde_json::json!({ "type": "connect", "service": "ssh" });
    soon(stream.sender.send_message(&asked)).await.expect("sends");
    let told = soon(stream.receiver.message::<serde_json::Value>()).await.expect("is answered");
    assert_eq!(told, Some(serde_json::json!({ "type": "started" })));
    let mut tcp = backend.accept().await;
    company.world.network.cut(laptop.id52(), web01);
    let broken = rest_of(&mut tcp).await.expect_err("not an end that could be taken for one");
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_breaks_off_is_told_from_one_that_ends() {
    let backend = Backend::new().await;
    let company = serving(&backend).await;
    let mut connection = connect(company.machine("laptop"), "ssh.web01.company").await.expect("is allowed");
    let tcp = backend.accept().await;
    tcp.set_zero_linger().expect("sets it");
    drop(tcp);
    assert_eq!(read_to_end(&mut connection.output).await, Err(ErrorCode::ServiceUnreachable));
    match soon(connection.input.write(Bytes::from_static(b"x"))).await {
        Ok(()) | Err(ServiceError::Network(P2pError::StreamReset { code: stream_code::CANCELLED })) => {}
        other => panic!("{other:?}"),
    }
    company.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_a_cluster_wide_name_is_found_by_it_alone() {
    let backend = Backend::new().await;
    let company = Company::new(&["web01", "laptop"]).await;
    let port = backend.port();
    company
        .manager
        .apply(|text| {
            let service =
                format!("\n[service.mysql]\nmachine = \"web01\"\nprotocol = \"tcp\"\nport = {port}\n");
            // No right on the machine itself: the directory names it as a service's host only.
            format!("{}{service}allow_from = \"laptop, cluster-manager\"\n", deny(&text, "laptop"))
        })
        .await;
    for node in [company.machine("laptop"), &company.manager] {
        connect(node, "mysql.company").await.expect("is allowed");
        backend.accept().await;
    }
    company.stop().await;
}
