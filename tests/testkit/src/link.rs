//! A way over UDP that can be cut, mended and slowed down.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a thread that waits for packets looks whether the link is still there.
const LOOK_UP: Duration = Duration::from_millis(100);
/// The largest packet.
const PACKET: usize = 64 * 1024;

/// Passes packets on between whoever sends to its address and one target, as a NAT between the two would. Every sender
/// gets a port of its own at the target. Dropping the link ends it.
///
/// QUIC finds shorter ways by itself: put one end on `127.0.0.1` and the other on `[::1]`
/// ([`UdpLink::between_families`]), so that there is none.
#[derive(Debug)]
pub struct UdpLink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cut: AtomicBool,
    ended: AtomicBool,
    delay: Mutex<Duration>,
    passed: AtomicU64,
    /// How often the addresses were changed.
    generation: AtomicU64,
    under_way: Mutex<VecDeque<Packet>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct Packet {
    due: Instant,
    bytes: Vec<u8>,
    from: Arc<UdpSocket>,
    to: SocketAddr,
}

impl UdpLink {
    /// Makes a link to a target, with an address of the same family on loopback.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub fn new(target: SocketAddr) -> Self {
        let here: SocketAddr =
            if target.is_ipv4() { ([127, 0, 0, 1], 0).into() } else { (Ipv6Addr::LOCALHOST, 0).into() };
        Self::at(here, target)
    }

    /// Makes a link with an address on `127.0.0.1` to a target on `[::1]`; `None` where there is no IPv6.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub fn between_families(port: u16) -> Option<Self> {
        UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).ok()?;
        Some(Self::at(([127, 0, 0, 1], 0).into(), (Ipv6Addr::LOCALHOST, port).into()))
    }

    fn at(here: SocketAddr, target: SocketAddr) -> Self {
        let front = Arc::new(socket(here));
        let address = front.local_addr().expect("has an address");
        let shared = Arc::new(Shared {
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            delay: Mutex::new(Duration::ZERO),
            passed: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            under_way: Mutex::default(),
            arrived: Condvar::new(),
        });
        let late = Arc::clone(&shared);
        std::thread::spawn(move || late.deliver());
        let forward = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut ways: HashMap<(SocketAddr, u64), Arc<UdpSocket>> = HashMap::new();
            forward.receive(
                &front.clone(),
                || true,
                |sender| {
                    let generation = forward.generation.load(Ordering::SeqCst);
                    let way = ways.entry((sender, generation)).or_insert_with(|| {
                        let any = if target.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
                        let way = Arc::new(socket(any.parse().expect("is an address")));
                        let (back, shared, front) =
                            (Arc::clone(&way), Arc::clone(&forward), Arc::clone(&front));
                        std::thread::spawn(move || {
                            let is_now = || shared.generation.load(Ordering::SeqCst) == generation;
                            shared.receive(&back, is_now, |_| (Arc::clone(&front), sender));
                        });
                        way
                    });
                    (Arc::clone(way), target)
                },
            );
        });
        Self { address, shared }
    }

    /// Returns the address to send to: what goes into a machine's `addresses`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops every packet, both ways, until [`UdpLink::mend`].
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        self.shared.lock().clear();
    }

    /// Passes packets again.
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }

    /// Makes every packet take so long, one way: a round trip takes twice as long.
    pub fn delay(&self, one_way: Duration) {
        *self.shared.delay.lock().unwrap_or_else(PoisonError::into_inner) = one_way;
    }

    /// Has every packet of the calling side come from another port from now on, as behind a router that forgot it; what
    /// is still sent to the old ones is lost.
    pub fn change_addresses(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns how many packets have passed, both ways together.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

impl Drop for UdpLink {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.arrived.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Packet>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Takes packets from a socket and passes each on by the socket and to the address that `route` gives for its sender.
    /// As long as `goes_on` says so.
    fn receive(
        &self,
        socket: &UdpSocket,
        goes_on: impl Fn() -> bool,
        mut route: impl FnMut(SocketAddr) -> (Arc<UdpSocket>, SocketAddr),
    ) {
        let mut packet = vec![0; PACKET];
        while !self.has_ended() && goes_on() {
            // Nothing for a while, or word that nobody listens where the last packet went: neither ends a link.
            let Ok((length, sender)) = socket.recv_from(&mut packet) else { continue };
            if self.cut.load(Ordering::SeqCst) || !goes_on() {
                continue;
            }
            self.passed.fetch_add(1, Ordering::Relaxed);
            let (from, to) = route(sender);
            let delay = *self.delay.lock().unwrap_or_else(PoisonError::into_inner);
            if delay.is_zero() {
                let _lost_as_packets_are = from.send_to(&packet[..length], to);
                continue;
            }
            let bytes = packet[..length].to_vec();
            self.lock().push_back(Packet { due: Instant::now() + delay, bytes, from, to });
            self.arrived.notify_all();
        }
    }

    /// Delivers what was held up.
    fn deliver(&self) {
        let mut under_way = self.lock();
        while !self.has_ended() {
            let wait = match under_way.front() {
                None => LOOK_UP,
                Some(packet) => packet.due.saturating_duration_since(Instant::now()),
            };
            if !wait.is_zero() {
                under_way =
                    self.arrived.wait_timeout(under_way, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if let Some(packet) = under_way.pop_front() {
                drop(under_way);
                let _lost_as_packets_are = packet.from.send_to(&packet.bytes, packet.to);
                under_way = self.lock();
            }
        }
    }
}

fn socket(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap_or_else(|source| panic!("binds {address}: {source}"));
    socket.set_read_timeout(Some(LOOK_UP)).expect("sets a timeout");
    socket
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// Sends a packet until an answer comes, or for so long.
    fn ask(client: &UdpSocket, link: &UdpLink, at_most: Duration) -> Option<Duration> {
        client.set_read_timeout(Some(at_most)).expect("sets a timeout");
        let sent = Instant::now();
        client.send_to(b"ping", link.address()).expect("sends");
        let mut answer = [0; 16];
        let (length, _) = client.recv_from(&mut answer).ok()?;
        assert_eq!(&answer[..length], b"ping");
        Some(sent.elapsed())
    }

    #[test]
    fn packets_pass_both_ways_late_and_not_at_all_as_it_is_told() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let link = UdpLink::new(server.local_addr().expect("has an address"));
        std::thread::spawn(move || {
            let mut packet = [0; 16];
            while let Ok((length, from)) = server.recv_from(&mut packet) {
                let _sent = server.send_to(&packet[..length], from);
            }
        });
        let client = UdpSocket::bind("127.0.0.1:0").expect("binds");
        assert!(ask(&client, &link, SOON).is_some());
        link.delay(Duration::from_millis(40));
        let took = ask(&client, &link, SOON).expect("is answered");
        assert!(took >= Duration::from_millis(80), "{took:?}");
        link.delay(Duration::ZERO);
        link.cut();
        assert!(ask(&client, &link, Duration::from_millis(50)).is_none());
        link.mend();
        assert!(ask(&client, &link, SOON).is_some());
        assert_eq!(link.passed(), 6);
    }
}
