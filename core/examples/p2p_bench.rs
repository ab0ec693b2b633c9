//! Bulk and round-trip figures of the credited stream beside the raw QUIC stream, on loopback.
//!
//! `cargo run --release -p malai-core --example p2p_bench --features testing -- [MiB] [round trips]`

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use malai_core::model::id::{Id52, SecretKey};
use malai_core::p2p::{
    Admission, Channel, Connection, Discovery, Endpoint, EndpointOptions, NetworkOptions, P2pError, Protocol,
    Relays, Serve, Stream, Transport,
};
use malai_core::task::Scope;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct Anybody;

impl Admission for Anybody {
    fn admits(&self, _peer: &Id52, _protocol: Protocol) -> bool {
        true
    }
}

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let mib = args.next().transpose()?.unwrap_or(1024);
    let trips = args.next().transpose()?.unwrap_or(5000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(mib, trips))
}

async fn run(mib: usize, trips: usize) -> Outcome<()> {
    let scope = Scope::new();
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = |n: u8, serve| EndpointOptions {
        secret: SecretKey::from_bytes(&[n; 32]),
        network: NetworkOptions {
            bind: loopback,
            discovery: Discovery { local: false, mdns: false, dns: false },
            relays: Relays::None,
            runtime_dir: None,
        },
        serve,
        preferred_port: None,
    };
    let caller = Endpoint::bind(options(1, None), Transport::Quic, &scope).await?;
    let serve = Serve { protocols: vec![Protocol::Member], admission: Arc::new(Anybody) };
    let server = Arc::new(Endpoint::bind(options(2, Some(serve)), Transport::Quic, &scope).await?);
    let hints: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let serving = server.clone();
    let inner = scope.clone();
    scope.spawn_until_stop("serve", async move {
        while let Some(connection) = serving.accept().await {
            let streams = inner.clone();
            inner.spawn_until_stop("connection", async move {
                while let Ok(stream) = connection.accept_stream().await {
                    streams.spawn("request", answer(stream));
                }
            });
        }
    });
    let connection = caller.connect(server.id52(), Protocol::Member, &hints, Duration::from_secs(5)).await?;

    let raw = raw::connect().await?;
    // In turns and small pieces, so that what else the machine does meets both alike.
    let rounds = 16;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut our_trips, mut raw_trips) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(measured(bulk(&connection, mib / rounds)).await?);
        theirs.push(measured(raw.bulk(mib / rounds)).await?);
        our_trips.extend(round_trips(&connection, trips / rounds).await?);
        raw_trips.extend(raw.round_trips(trips / rounds).await?);
    }
    let ((our_rate, our_cpu), (raw_rate, raw_cpu)) = (medians(ours), medians(theirs));
    report(&format!(
        "bulk, median of {rounds}: {our_rate:.0} MB/s, raw {raw_rate:.0}, ratio {:.2}; \
         processor time: {our_cpu:.0} ms, raw {raw_cpu:.0} ms, ratio {:.2}",
        our_rate / raw_rate,
        our_cpu / raw_cpu
    ));
    let ((our_50, our_99), (raw_50, raw_99)) = (percentiles(our_trips), percentiles(raw_trips));
    report(&format!("round trip: p50 {our_50:?} p99 {our_99:?}; raw p50 {raw_50:?} p99 {raw_99:?}"));
    connection.close(malai_core::p2p::CloseReason::normal());
    caller.close().await;
    server.close().await;
    Ok(())
}

/// `"ping"` is answered; `"bulk"` is read to its end.
async fn answer(stream: Stream) -> Result<(), P2pError> {
    let Stream { sender, mut receiver } = stream;
    let Some(asked) = receiver.message::<String>().await? else { return Ok(()) };
    let mut total = 0;
    if asked == "bulk" {
        while let Some(bytes) = receiver.data(Channel::Main).await? {
            total += bytes.len();
        }
    }
    sender.finish_with(&total).await
}

async fn bulk(connection: &Connection, mib: usize) -> Outcome<f64> {
    let Stream { sender, mut receiver } = connection.open_stream().await?;
    let begun = Instant::now();
    sender.send_message("bulk").await?;
    for _ in 0..mib * 16 {
        // A new block each time, as a reader of a pipe makes it.
        sender.send(Channel::Main, Bytes::from(vec![7_u8; 64 * 1024])).await?;
    }
    sender.finish().await?;
    let total = receiver.message::<usize>().await?;
    if total != Some(mib << 20) {
        return Err(format!("{total:?} bytes arrived").into());
    }
    Ok((mib << 20) as f64 / 1e6 / begun.elapsed().as_secs_f64())
}

async fn round_trips(connection: &Connection, trips: usize) -> Outcome<Vec<Duration>> {
    let mut took = Vec::with_capacity(trips);
    for _ in 0..trips {
        let begun = Instant::now();
        let Stream { sender, mut receiver } = connection.open_stream().await?;
        sender.finish_with("ping").await?;
        receiver.message::<usize>().await?;
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// MB/s, and the processor time of the whole process in ms.
async fn measured(transfer: impl Future<Output = Outcome<f64>>) -> Outcome<(f64, f64)> {
    let before = processor_ms();
    let rate = transfer.await?;
    Ok((rate, processor_ms() - before))
}

/// All threads' time so far; 0 where the system does not say.
fn processor_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10.0
}

/// The median rate, and the sum of processor times.
fn medians(mut all: Vec<(f64, f64)>) -> (f64, f64) {
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    (all[all.len() / 2].0, all.iter().map(|one| one.1).sum())
}

fn percentiles(mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

#[expect(clippy::print_stdout, reason = "a program whose purpose is to print figures")]
fn report(line: &str) {
    println!("{line}");
}

/// The same over iroh as it is.
mod raw {
    use super::*;

    pub(super) struct Raw {
        connection: iroh::endpoint::Connection,
        _endpoints: [iroh::Endpoint; 2],
    }

    pub(super) async fn connect() -> Outcome<Raw> {
        let bind = || async {
            let builder = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
                .relay_mode(iroh::RelayMode::Disabled)
                .alpns(vec![b"bench".to_vec()])
                .clear_ip_transports()
                .bind_addr("127.0.0.1:0")?;
            Outcome::Ok(builder.bind().await?)
        };
        let (caller, server) = (bind().await?, bind().await?);
        let mut address = iroh::EndpointAddr::new(server.id());
        for socket in server.bound_sockets() {
            address = address.with_ip_addr(socket);
        }
        let serving = server.clone();
        let scope = Scope::new();
        let inner = scope.clone();
        scope.spawn("serve", async move {
            let incoming = serving.accept().await?;
            let connection = incoming.await.ok()?;
            while let Ok((send, recv)) = connection.accept_bi().await {
                inner.spawn("request", answer(send, recv));
            }
            Some(())
        });
        let connection = caller.connect(address, b"bench").await?;
        Ok(Raw { connection, _endpoints: [caller, server] })
    }

    async fn answer(
        mut send: iroh::endpoint::SendStream,
        mut recv: iroh::endpoint::RecvStream,
    ) -> Outcome<()> {
        let mut buffer = vec![0_u8; 128 * 1024];
        let mut total = 0_usize;
        while let Some(read) = recv.read(&mut buffer).await? {
            total += read;
        }
        send.write_all(&total.to_be_bytes()).await?;
        send.finish()?;
        send.stopped().await?;
        Ok(())
    }

    impl Raw {
        pub(super) async fn bulk(&self, mib: usize) -> Outcome<f64> {
            let (mut send, mut recv) = self.connection.open_bi().await?;
            let begun = Instant::now();
            for _ in 0..mib * 16 {
                send.write_chunk(Bytes::from(vec![7_u8; 64 * 1024])).await?;
            }
            send.finish()?;
            recv.read_to_end(8).await?;
            Ok((mib << 20) as f64 / 1e6 / begun.elapsed().as_secs_f64())
        }

        pub(super) async fn round_trips(&self, trips: usize) -> Outcome<Vec<Duration>> {
            let mut took = Vec::with_capacity(trips);
            for _ in 0..trips {
                let begun = Instant::now();
                let (mut send, mut recv) = self.connection.open_bi().await?;
                send.write_all(b"ping").await?;
                send.finish()?;
                recv.read_to_end(8).await?;
                took.push(begun.elapsed());
            }
            Ok(took)
        }
    }
}
