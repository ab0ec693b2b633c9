//! Is a machine there, and how far away?

use std::time::Duration;

use malai_model::wire::{Notice, Request};
use tokio::time::Instant;

use super::{OpenRequest, Opened, PingView, Place, Route};
use crate::cluster::ClusterError;
use crate::error::Error;
use crate::node::NodeError;
use crate::p2p::P2pError;
use crate::timeouts;

/// Reaches a machine and asks whether it is there. The connection stays for what follows.
pub(super) async fn ping(
    route: &Route,
    address: String,
    patience: Option<Duration>,
) -> Result<PingView, Error> {
    let begun = Instant::now();
    let request = OpenRequest { words: vec![address], connect_timeout: patience, ..OpenRequest::default() };
    let mut opened = Box::pin(route.open(&request)).await?;
    let connect = begun.elapsed();
    let patience = patience.map_or(timeouts::REPLY, |patience| patience.saturating_sub(connect));
    let begun = Instant::now();
    let version = match tokio::time::timeout(patience, ask(&mut opened)).await {
        Ok(answer) => answer?,
        Err(_) => {
            let tried = vec![format!("the connection to {}", opened.view.address)];
            let peer = opened.view.id52;
            return Err(opened.failed(P2pError::Unreachable { peer, tried, after: patience }));
        }
    };
    let rtt = begun.elapsed();
    let view = opened.view;
    Ok(PingView {
        cluster: view.cluster,
        machine: view.machine,
        id52: view.id52,
        local: view.place == Place::Here,
        rtt_us: micros(rtt),
        connect_us: micros(connect),
        address: view.address,
        relayed: view.relayed,
        version,
    })
}

/// Asks, and returns the peer's version.
async fn ask(opened: &mut Opened) -> Result<String, Error> {
    let sent = opened.stream.sender.send_message(&Request::Ping {}).await;
    sent.map_err(|error| opened.failed(error))?;
    let answer = opened.stream.receiver.message::<Notice>().await;
    let problem = match answer.map_err(|error| opened.failed(error))? {
        Some(Notice::Pong { version }) => return Ok(version),
        Some(Notice::Failed(error)) => ClusterError::Remote(error),
        Some(_) | None => ClusterError::OutOfTurn("it did not answer a ping"),
    };
    Err(NodeError::from(problem).into())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
