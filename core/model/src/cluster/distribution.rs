//! Distribution: who needs a new config, and what became of the last one (`state.json`).
//!
//! Not responsible for sending, nor for the clock and the randomness of the retries: they are parameters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::code::ErrorCode;
use crate::config::{ClusterConfig, Personalised, Personalizer};
use crate::id::Id52;
use crate::name::MachineName;

/// `state.json`: what was distributed to whom. Fields that a newer version wrote are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DistributionState {
    /// What this home calls the cluster.
    #[serde(default)]
    pub cluster_alias: String,
    /// Hex SHA-256 of the applied text that was distributed last.
    #[serde(default)]
    pub master_config_hash: Option<String>,
    /// When that was.
    #[serde(default)]
    pub last_distribution: Option<Timestamp>,
    /// What each machine has.
    #[serde(default)]
    pub machine_states: BTreeMap<Id52, MachineState>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// What one machine has, and how the last attempt to give it more went.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MachineState {
    /// Its name at the time.
    #[serde(default)]
    pub machine_alias: String,
    /// [`Personalised::digest`] of what it accepted last; absent if it has nothing.
    #[serde(default)]
    pub personalized_config_hash: Option<String>,
    /// [`Personalised::digest`] of what was tried last, while that is not what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted_config_hash: Option<String>,
    /// The highest serial that it is known to have; 0 if it has nothing.
    #[serde(default)]
    pub serial: u64,
    /// How the last attempt went.
    #[serde(default)]
    pub sync_status: SyncStatus,
    /// When it accepted a config last.
    #[serde(default)]
    pub last_sync: Option<Timestamp>,
    /// What went wrong last, while something is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Failed attempts since the last success.
    #[serde(default)]
    pub attempts: u32,
    /// Not before this instant; absent: at once, or for a refused config not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Timestamp>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// How the last attempt to deliver went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncStatus {
    /// The machine has it.
    Success,
    /// The machine looked at it and said no; the same text is not offered again by itself.
    Refused,
    /// The machine does not have it yet; a status of a newer version is read as this one.
    #[default]
    #[serde(other)]
    Pending,
}

/// `state.json` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateProblem {
    /// It is no JSON of that shape.
    #[error("state.json is not what malai writes")]
    Malformed(#[source] serde_json::Error),
}

impl StateProblem {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::HomeStorage
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some("move the file away: every machine is then asked anew which config it has".to_owned())
    }
}

/// Waits between attempts: they double from `first` to `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), cap: Duration::from_secs(300) }
    }
}

impl Backoff {
    /// Gives the wait after so many failures, from 1. `jitter` is random: it shortens the wait by up to a half, so that
    /// machines that vanished together are not dialled together.
    pub fn wait(&self, failures: u32, jitter: u16) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1_u32 << doublings).min(self.cap);
        full - (full / 2).mul_f64(f64::from(jitter) / f64::from(u16::MAX))
    }
}

/// One config to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// To whom.
    pub machine: MachineName,
    /// Its identity.
    pub id52: Id52,
    /// Where it may be found: hints.
    pub addresses: Vec<String>,
    /// [`Personalised::digest`]; it goes into the record of what became of the delivery.
    pub digest: String,
    /// The serial to sign it with: above the one that the machine has.
    pub serial: u64,
    /// What to sign and send.
    pub body: Personalised,
}

/// What is to be done now, and when to ask again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// What to send now.
    pub deliveries: Vec<Delivery>,
    /// When the next retry falls due, if one waits.
    pub next_due: Option<Timestamp>,
    /// How many machines do not have what they should, those of `deliveries` included.
    pub outdated: usize,
    /// Machines of the state that the config does not have any more: for [`DistributionState::forget`].
    pub removed: Vec<Id52>,
}

/// Plans the distribution of an applied config: who needs a new file, and may be tried now.
///
/// A machine that could not be reached waits for its next attempt, unless what it should have changed since the last one.
/// One that refused its config waits for a different one. The manager itself is sent nothing: it reads the applied text.
pub fn plan(config: &ClusterConfig, state: &DistributionState, now: Timestamp) -> Plan {
    let personalizer = Personalizer::new(config);
    let mut plan = Plan::default();
    let mut known = BTreeSet::new();
    for (machine, entry) in config.machines() {
        if entry.id52 == config.manager().id52 {
            continue;
        }
        known.insert(entry.id52);
        let Some(body) = personalizer.personalize(machine) else { continue };
        let before = state.machine_states.get(&entry.id52);
        if before.is_some_and(|before| before.has(body.digest())) {
            continue;
        }
        plan.outdated += 1;
        if let Some(before) = before
            && before.attempted_config_hash.as_deref() == Some(body.digest())
        {
            if before.sync_status == SyncStatus::Refused {
                continue;
            }
            if let Some(due) = before.next_attempt.filter(|due| *due > now) {
                plan.next_due = Some(plan.next_due.map_or(due, |earliest| earliest.min(due)));
                continue;
            }
        }
        plan.deliveries.push(Delivery {
            machine: machine.clone(),
            id52: entry.id52,
            addresses: entry.addresses.clone(),
            digest: body.digest().to_owned(),
            serial: before.map_or(0, |before| before.serial).saturating_add(1),
            body,
        });
    }
    plan.removed = state.machine_states.keys().filter(|id52| !known.contains(id52)).copied().collect();
    plan
}

impl MachineState {
    fn has(&self, digest: &str) -> bool {
        self.sync_status == SyncStatus::Success && self.personalized_config_hash.as_deref() == Some(digest)
    }
}

impl DistributionState {
    /// Reads `state.json`.
    ///
    /// # Errors
    /// [`StateProblem::Malformed`]. An empty state is a safe replacement: the machines' serials are learnt again.
    pub fn parse(text: &str) -> Result<Self, StateProblem> {
        serde_json::from_str(text).map_err(StateProblem::Malformed)
    }

    /// Gives the text of `state.json`.
    pub fn to_text(&self) -> String {
        // A map with text keys and no foreign types: writing it cannot fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Notes that the machine has it. One that is known to have a higher serial by now (it asked for it meanwhile) has
    /// that, and nothing is noted.
    pub fn record_success(&mut self, delivery: &Delivery, now: Timestamp) {
        let state = self.entry(delivery);
        if delivery.serial < state.serial {
            return;
        }
        state.personalized_config_hash = Some(delivery.digest.clone());
        state.attempted_config_hash = None;
        state.serial = state.serial.max(delivery.serial);
        state.sync_status = SyncStatus::Success;
        state.last_sync = Some(now);
        state.last_error = None;
        state.attempts = 0;
        state.next_attempt = None;
    }

    /// Notes that it could not be delivered; it is tried again after the back-off's wait. `jitter` is random.
    pub fn record_failure(
        &mut self,
        delivery: &Delivery,
        error: &str,
        now: Timestamp,
        backoff: &Backoff,
        jitter: u16,
    ) {
        let state = self.entry(delivery);
        state.attempted_config_hash = Some(delivery.digest.clone());
        state.sync_status = SyncStatus::Pending;
        state.last_error = Some(error.to_owned());
        state.attempts = state.attempts.saturating_add(1);
        let wait = backoff.wait(state.attempts, jitter);
        state.next_attempt = Some(now.checked_add(wait).unwrap_or(Timestamp::MAX));
    }

    /// Notes that the machine looked at it and said no, for another reason than its serial.
    pub fn record_refused(&mut self, delivery: &Delivery, error: &str) {
        let state = self.entry(delivery);
        state.attempted_config_hash = Some(delivery.digest.clone());
        state.sync_status = SyncStatus::Refused;
        state.last_error = Some(error.to_owned());
        state.attempts = state.attempts.saturating_add(1);
        state.next_attempt = None;
    }

    /// Notes that the machine has a config with a higher serial: the next plan goes on above it, at once. Only for a
    /// serial that stands in a config with the own signature, which the machine returned; its word alone is not enough.
    pub fn record_stale(&mut self, delivery: &Delivery, serial_on_machine: u64) {
        let state = self.entry(delivery);
        state.serial = state.serial.max(serial_on_machine);
        state.sync_status = SyncStatus::Pending;
        state.attempted_config_hash = None;
        state.next_attempt = None;
    }

    /// Makes every waiting or refused delivery due at once: somebody asked for it.
    pub fn retry_all(&mut self) {
        for state in self.machine_states.values_mut() {
            state.attempted_config_hash = None;
            state.next_attempt = None;
        }
    }

    /// Drops machines that left the cluster.
    pub fn forget(&mut self, removed: &[Id52]) {
        for id52 in removed {
            self.machine_states.remove(id52);
        }
    }

    fn entry(&mut self, delivery: &Delivery) -> &mut MachineState {
        let state = self.machine_states.entry(delivery.id52).or_default();
        state.machine_alias = delivery.machine.to_string();
        state
    }
}
