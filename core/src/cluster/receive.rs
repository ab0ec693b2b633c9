//! A machine takes a config from its manager.

use std::sync::Arc;

use malai_model::code::ErrorCode;
use malai_model::config::{SignedConfigProblem, verify_signed};
use malai_model::id::Id52;

use super::{ClusterError, LoadedCluster, Rules};
use crate::home::Home;

/// What came of a config from the network.
#[derive(Debug)]
pub enum Received {
    /// It is on disk, and is to be put in force.
    New(Box<LoadedCluster>),
    /// It is the very text that is in force.
    Known {
        /// Its serial.
        serial: u64,
    },
}

/// Verifies a personalised config that came from the network and puts it on disk, in this order: signed by the pinned
/// manager over these very bytes, for this recipient, newer than the one in force, and it compiles.
///
/// # Errors
/// When any of that does not hold: then nothing has changed.
pub fn receive_config(home: &Home, current: &LoadedCluster, text: &str) -> Result<Received, ClusterError> {
    let Some(manager) = current.manager else {
        // A home that pinned nobody takes config from nobody.
        return Err(ClusterError::NoConfig(current.alias.clone()));
    };
    // What is in force already comes again when the manager pushed it while this device asked for it.
    if let Rules::Own { config, text: in_force } = &current.rules
        && **in_force == *text
    {
        return Ok(Received::Known { serial: config.recipient().serial });
    }
    let alias = &current.alias;
    let path = home.machine_config(alias);
    let signed = verify_signed(text, &manager, &current.own_id, current.serial())?;
    let guard = home.lock_for_writing_blocking()?;
    // Another process of this home may have taken a newer one meanwhile.
    if let Some(on_disk) = home.load_text(&path)?
        && let Ok(newer) = verify_signed(&on_disk, &manager, &current.own_id, current.serial())
        && newer.config.recipient().serial >= signed.config.recipient().serial
    {
        let serial = signed.config.recipient().serial;
        return Err(SignedConfigProblem::Stale { serial, newest: newer.config.recipient().serial }.into());
    }
    home.write(&guard, &path, text.as_bytes())?;
    let text = Arc::from(text);
    let loaded =
        LoadedCluster::of_machine(alias.clone(), current.own_id, signed.config, signed.warnings, text);
    Ok(Received::New(Box::new(loaded)))
}

/// The signed text in force, for a manager whose serial is behind; empty if there is none or the refusal has another
/// reason.
pub fn signed_config_in_force(current: &LoadedCluster, refusal: ErrorCode) -> Arc<str> {
    match &current.rules {
        Rules::Own { text, .. } if refusal == ErrorCode::ConfigStale => Arc::clone(text),
        _ => Arc::from(""),
    }
}

/// Says whether a peer is the manager that this device pinned.
pub fn is_manager(current: &LoadedCluster, peer: &Id52) -> bool {
    current.manager == Some(*peer)
}
