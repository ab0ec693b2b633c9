//! What malai stands on: time, network, disk, limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use malai_model::config::{NetworkConfig, Relays};
use tokio::net::{TcpStream, UdpSocket};

use super::Findings;
use crate::clock::Clock;
use crate::home::Home;

/// The first year that malai could run in, and one that it will not see.
const YEARS: std::ops::Range<i16> = 2025..2125;
/// How far in the future a file may seem to have been written.
const CLOCK_SLACK: Duration = Duration::from_secs(120);
const UDP_PATIENCE: Duration = Duration::from_secs(1);
const RELAY_PATIENCE: Duration = Duration::from_secs(3);
/// Free space in bytes: below the first nothing can be written soon, below the second it gets tight.
#[cfg(unix)]
const DISK: (u64, u64) = (16 * 1024 * 1024, 256 * 1024 * 1024);
/// Open files: below the first a daemon cannot work, below the second not for many callers.
#[cfg(unix)]
const FILES: (u64, u64) = (128, 1024);

/// The clock is right enough: invites and certificates go by it. What malai wrote here cannot be from the future.
pub(super) fn look_at_clock(home: &Home, clock: &dyn Clock, findings: &mut Findings) {
    let cure = "set the clock: timedatectl set-ntp true".to_owned();
    let now = clock.now();
    let year = now.to_zoned(jiff::tz::TimeZone::UTC).year();
    if !YEARS.contains(&year) {
        return findings.problem("clock", format!("it says that it is {now:.0}"), cure);
    }
    let limit = SystemTime::from(now) + CLOCK_SLACK;
    let folders = [home.root().to_owned(), home.clusters_dir()];
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let newest = entries
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .filter(|(written, _)| *written > limit)
        .max();
    match newest {
        Some((_, path)) => findings.warning(
            "clock",
            format!("it says that it is {now:.0}, but {} was written later than that", path.display()),
            cure,
        ),
        None => findings.ok("clock", format!("it says that it is {now:.0}")),
    }
}

/// UDP can be bound where the config says, and packets pass on this device.
pub(super) async fn look_at_udp(network: Option<&NetworkConfig>, findings: &mut Findings) {
    if let Some(network) = network {
        // A port that is written is the daemon's, if it runs: only the address is tried.
        let address = SocketAddr::new(network.bind.ip(), 0);
        if let Err(error) = UdpSocket::bind(address).await {
            return findings.problem(
                "network",
                format!("UDP cannot be bound to {}: {error}", address.ip()),
                "write an address of this device as bind under [network] in malai.toml".to_owned(),
            );
        }
    }
    let pass = async {
        let (one, two) = (loopback().await?, loopback().await?);
        one.send_to(b"malai", two.local_addr()?).await?;
        let mut packet = [0; 16];
        let (length, from) = two.recv_from(&mut packet).await?;
        Ok::<_, std::io::Error>(&packet[..length] == b"malai" && from == one.local_addr()?)
    };
    let cure = "look at the firewall: nft list ruleset".to_owned();
    match tokio::time::timeout(UDP_PATIENCE, pass).await {
        Ok(Ok(true)) => findings.ok("network", "UDP works on this device".to_owned()),
        Ok(Ok(false)) => {
            findings.problem("network", "UDP packets are changed on this device".to_owned(), cure)
        }
        Ok(Err(error)) => findings.problem("network", format!("UDP does not work here: {error}"), cure),
        Err(_) => findings.problem("network", "UDP packets do not pass on this device".to_owned(), cure),
    }
}

async fn loopback() -> std::io::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Relays take connections, if any are used.
pub(super) async fn look_at_relays(relays: &Relays, findings: &mut Findings) {
    let urls = match relays {
        Relays::None => return findings.ok("relays", "none are used, as malai.toml says".to_owned()),
        Relays::Custom(urls) => urls.clone(),
        Relays::Default => crate::p2p::default_relays(),
    };
    let mut failures = Vec::new();
    let mut good = 0;
    for (url, attempt) in connect_all(&urls).await {
        match attempt {
            Ok(()) => good += 1,
            Err(error) => failures.push(format!("{url} ({error})")),
        }
    }
    let cure = "is the internet there, and does a firewall let TCP out? Else write others, or \"none\", as relays \
                under [network] in malai.toml";
    if !failures.is_empty() {
        let first = failures.first().map_or("", String::as_str);
        let more = match failures.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let what = format!("{good} of {} relays take connections; not {first}{more}", urls.len());
        findings.warning("relays", what, cure.to_owned());
    } else {
        findings.ok("relays", format!("{good} take connections"));
    }
}

async fn connect_all(urls: &[String]) -> Vec<(&String, Result<(), String>)> {
    let scope = crate::task::Scope::new();
    let attempts: Vec<_> = urls
        .iter()
        .map(|url| {
            let place = place_of(url);
            let attempt = async move {
                let place = place.ok_or_else(|| "no URL".to_owned())?;
                match tokio::time::timeout(RELAY_PATIENCE, TcpStream::connect(place)).await {
                    Ok(connected) => connected.map(|_| ()).map_err(|error| error.to_string()),
                    Err(_) => Err("no answer".to_owned()),
                }
            };
            (url, scope.spawn_until_stop("relay", attempt))
        })
        .collect();
    let mut all = Vec::new();
    for (url, attempt) in attempts {
        let outcome = attempt.await.ok().flatten().flatten();
        all.push((url, outcome.unwrap_or_else(|| Err("not tried".to_owned()))));
    }
    all
}

/// The host and port of a URL.
fn place_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let has_port = host.rsplit_once(':').is_some_and(|(before, port)| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && (!before.contains(':') || before.ends_with(']'))
    });
    match scheme {
        _ if host.is_empty() => None,
        _ if has_port => Some(host.to_owned()),
        // A name may end in a dot, which says that it is whole.
        "http" => Some(format!("{host}:80")),
        "https" => Some(format!("{host}:443")),
        _ => None,
    }
}

/// Room on the disk, and open files.
#[cfg(unix)]
pub(super) fn look_at_limits(home: &Home, findings: &mut Findings) {
    use nix::sys::resource::{Resource, getrlimit};
    match nix::sys::statvfs::statvfs(home.root()) {
        Ok(disk) => {
            // The widths differ between systems.
            #[expect(
                clippy::useless_conversion,
                clippy::unnecessary_cast,
                reason = "they are wider elsewhere"
            )]
            let free = u64::from(disk.blocks_available()).saturating_mul(disk.fragment_size() as u64);
            judge_disk(free, findings);
        }
        Err(error) => {
            findings.warning("disk", format!("its free space is not known: {error}"), "df".to_owned())
        }
    }
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((files, _)) => judge_files(files, findings),
        Err(error) => {
            findings.warning(
                "limits",
                format!("the limit of open files is not known: {error}"),
                "ulimit -n".to_owned(),
            );
        }
    }
}

#[cfg(unix)]
fn judge_disk(free: u64, findings: &mut Findings) {
    let what = format!("{} MiB are free where the home is", free / (1024 * 1024));
    let cure = "make room there: configs, keys and logs could not be written".to_owned();
    match free {
        _ if free < DISK.0 => findings.problem("disk", what, cure),
        _ if free < DISK.1 => findings.warning("disk", what, cure),
        _ => findings.ok("disk", what),
    }
}

#[cfg(unix)]
fn judge_files(files: u64, findings: &mut Findings) {
    let what = format!("{files} files may be open at once");
    let cure = "ulimit -n 65536, or LimitNOFILE=65536 in the unit of the daemon".to_owned();
    match files {
        _ if files < FILES.0 => findings.problem("limits", what, cure),
        _ if files < FILES.1 => findings.warning("limits", what, cure),
        _ => findings.ok("limits", what),
    }
}

#[cfg(test)]
mod tests {
    use malai_model::wire::local::Severity;

    use super::*;

    fn severity(look: impl FnOnce(&mut Findings)) -> Severity {
        let mut findings = Findings::default();
        look(&mut findings);
        assert_eq!(findings.0.len(), 1);
        assert_eq!(findings.0[0].severity == Severity::Ok, findings.0[0].cure.is_none());
        findings.0[0].severity
    }

    #[test]
    fn a_url_has_a_place() {
        for (url, place) in [
            ("https://relay.example.com", Some("relay.example.com:443")),
            ("https://relay.example.com./path?x#y", Some("relay.example.com.:443")),
            ("http://127.0.0.1:3340", Some("127.0.0.1:3340")),
            ("https://[::1]", Some("[::1]:443")),
            ("https://[::1]:8443/", Some("[::1]:8443")),
            ("relay.example.com", None),
            ("ftp://relay.example.com", None),
            ("https://", None),
        ] {
            assert_eq!(place_of(url).as_deref(), place, "{url}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn little_room_is_a_warning_and_none_a_problem() {
        assert_eq!(severity(|findings| judge_disk(0, findings)), Severity::Problem);
        assert_eq!(severity(|findings| judge_disk(100 << 20, findings)), Severity::Warning);
        assert_eq!(severity(|findings| judge_disk(1 << 40, findings)), Severity::Ok);
        assert_eq!(severity(|findings| judge_files(64, findings)), Severity::Problem);
        assert_eq!(severity(|findings| judge_files(256, findings)), Severity::Warning);
        assert_eq!(severity(|findings| judge_files(1024, findings)), Severity::Ok);
    }

    #[test]
    fn a_clock_that_is_behind_what_was_written_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("h"), crate::home::Create::Yes).expect("opens");
        let at =
            |seconds| crate::clock::ManualClock::new(jiff::Timestamp::from_second(seconds).expect("a time"));
        let now = jiff::Timestamp::now().as_second();
        assert_eq!(severity(|findings| look_at_clock(&home, &at(now), findings)), Severity::Ok);
        assert_eq!(severity(|findings| look_at_clock(&home, &at(0), findings)), Severity::Problem);
        let before = at(now - 3600);
        assert_eq!(severity(|findings| look_at_clock(&home, &before, findings)), Severity::Warning);
    }

    #[tokio::test]
    async fn a_relay_that_takes_no_connection_is_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let good = format!("http://{}", listener.local_addr().expect("an address"));
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let bad = format!("http://{}", gone.local_addr().expect("an address"));
        drop(gone);
        let mut findings = Findings::default();
        look_at_relays(&Relays::Custom(vec![good.clone()]), &mut findings).await;
        look_at_relays(&Relays::Custom(vec![good, bad.clone()]), &mut findings).await;
        look_at_relays(&Relays::None, &mut findings).await;
        let severities: Vec<Severity> = findings.0.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, [Severity::Ok, Severity::Warning, Severity::Ok]);
        assert!(findings.0[1].what.starts_with(&format!("1 of 2 relays take connections; not {bad}")));
    }
}
