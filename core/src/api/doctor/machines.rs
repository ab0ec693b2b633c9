//! Whether the machines answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::super::{Client, ClientOptions, Severity};
use super::Findings;
use super::files::some_of;
use crate::cluster::LoadedCluster;
use crate::task::Scope;

/// How long a machine may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many are asked at once.
const AT_ONCE: usize = 256;

/// Asks every machine that this device may reach whether it is there, many at once.
pub(super) async fn look_at_machines(
    options: ClientOptions,
    clusters: &[LoadedCluster],
    findings: &mut Findings,
) {
    let patience = PATIENCE.min(options.connect_timeout);
    let mut addresses = Vec::new();
    for loaded in clusters {
        let machines = loaded.known_machines().into_iter().filter(|(_, id52)| *id52 != loaded.own_id);
        addresses.extend(machines.map(|(name, _)| format!("{name}.{}", loaded.alias)));
    }
    if addresses.is_empty() {
        return findings.ok("machines", "there are none that this device may reach".to_owned());
    }
    let client = match Client::open(options).await {
        Ok(client) => Arc::new(client),
        Err(error) => {
            return findings.failure("machines", error.to_string(), error.code(), error.hint());
        }
    };
    let scope = Scope::new();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let asked: Vec<_> = addresses
        .into_iter()
        .map(|address| {
            let (client, places) = (Arc::clone(&client), Arc::clone(&places));
            let asking = scope.spawn_until_stop("ping", {
                let address = address.clone();
                async move {
                    let _place = places.acquire_owned().await;
                    client.ping(address, Some(patience)).await
                }
            });
            (address, asking)
        })
        .collect();
    let mut answering = Vec::new();
    for (address, asking) in asked {
        match asking.await {
            Ok(Some(Some(Ok(view)))) => {
                let way = if view.relayed { ", relayed" } else { "" };
                let rtt = Duration::from_micros(view.rtt_us).as_secs_f64() * 1000.0;
                answering.push(format!("{address} ({rtt:.1} ms{way})"));
            }
            Ok(Some(Some(Err(error)))) => {
                let what = format!("malai fails to {}", error.to_wire().message);
                findings.add(Severity::Warning, "machines", what, error.hint(), Some(error.code()));
            }
            Ok(_) | Err(_) => {}
        }
    }
    if !answering.is_empty() {
        let names: Vec<&str> = answering.iter().map(String::as_str).collect();
        findings.ok("machines", format!("{} answer: {}", names.len(), some_of(&names)));
    }
    client.close().await;
}
