//! A machine takes a config from its manager.

use std::sync::Arc;

use malai_model::code::ErrorCode;
use malai_model::config::{SignedConfig, SignedConfigProblem, verify_signed};
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
    /// Another process of this home received a newer one meanwhile: that is to be put in force, and this one is refused.
    Overtaken {
        /// What is on disk.
        loaded: Box<LoadedCluster>,
        /// What the manager is told.
        refused: SignedConfigProblem,
    },
}

/// Verifies a personalised config that came from the network and puts it on disk, in this order: signed by the pinned
/// manager over these very bytes, it compiles, for this recipient, newer than the one in force. What another process of
/// this home received meanwhile is never replaced by something older.
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
    let of_machine = |signed: SignedConfig, text| {
        LoadedCluster::of_machine(alias.clone(), current.own_id, signed.config, signed.warnings, text)
    };
    let guard = home.lock_for_writing_blocking()?;
    match home.load_text(&path) {
        Ok(Some(on_disk)) if on_disk == text => {}
        // What somebody edited or broke there is no config, and is in nobody's way.
        Ok(Some(on_disk))
            if let Ok(there) = verify_signed(&on_disk, &manager, &current.own_id, current.serial())
                && there.config.recipient().serial >= signed.config.recipient().serial =>
        {
            let (serial, newest) = (signed.config.recipient().serial, there.config.recipient().serial);
            return Ok(Received::Overtaken {
                loaded: Box::new(of_machine(there, Arc::from(on_disk))),
                refused: SignedConfigProblem::Stale { serial, newest },
            });
        }
        _ => home.write(&guard, &path, text.as_bytes())?,
    }
    Ok(Received::New(Box::new(of_machine(signed, Arc::from(text)))))
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
