//! The manager's standing work: every machine gets its part, soon, and again until it has it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use malai_model::cluster::{Backoff, Delivery, DistributionState, plan};
use malai_model::config::{Personalizer, root_digest, text_digest, verify_signed};
use malai_model::id::Id52;
use malai_model::wire::ConfigHave;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::{Member, Node};
use crate::cluster::{self, ClusterError, DeliveryOutcome, LoadedCluster, Rules};
use crate::identity::{KeyRef, make_random};
use crate::p2p::CloseReason;

/// How many machines are sent their config at once.
const AT_ONCE: usize = 128;
/// How often the plan is looked at when nothing happens.
const AT_LEAST: Duration = Duration::from_secs(60);
/// How often what became of deliveries is written, at most, while many are under way.
const SAVE_EVERY: Duration = Duration::from_millis(500);

/// How long after a delivery that changed the plan it is made anew; others may have ended by then.
const PLAN_SOON: Duration = Duration::from_millis(50);
/// How long after a failure of this device's own it is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Deliveries from the first that begins until none is under way.
#[derive(Default)]
struct Round {
    under_way: BTreeSet<Id52>,
    /// Of those, who should have something newer already.
    again: BTreeSet<Id52>,
    tried: usize,
    taken: usize,
    saved: Option<Instant>,
    unsaved: bool,
}

/// What a delivery's end means for the plan.
enum Next {
    AsPlanned,
    PlanSoon,
}

/// The highest serial: TOML's integers are signed.
const MAX_SERIAL: u64 = i64::MAX as u64;

/// What became of one delivery.
enum Outcome {
    Accepted,
    Behind { serial: u64 },
    Refused(String),
    Unreachable(String),
}

impl Node {
    /// Runs until the member stops. Each machine is served by itself: one that does not answer holds up nobody else.
    pub(super) async fn distribute(&self, member: Arc<Member>) {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        // This function's own: dropped with it, they are aborted.
        let mut sending = JoinSet::new();
        let mut round = Round::default();
        loop {
            let wait = match self.send_due(&member, &permits, &mut sending, &mut round).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::error!(cluster = %member.alias(), %error, "configs could not be distributed");
                    AFTER_FAILURE
                }
            };
            let mut due = Instant::now() + wait;
            // A plan costs more the more machines there are: one that took its config is no reason for another.
            loop {
                let unsaved = round.unsaved;
                tokio::select! {
                    () = member.wake.notified() => break,
                    () = tokio::time::sleep_until(due) => break,
                    () = tokio::time::sleep(SAVE_EVERY), if unsaved => {
                        if let Err(error) = self.save_round(&member, &mut round).await {
                            tracing::error!(cluster = %member.alias(), %error, "what was distributed could not be kept");
                        }
                    }
                    Some(sent) = sending.join_next() => {
                        match self.sent(&member, sent, &mut round, sending.is_empty()).await {
                            Ok(Next::AsPlanned) => {}
                            Ok(Next::PlanSoon) => due = due.min(Instant::now() + PLAN_SOON),
                            Err(error) => {
                                tracing::error!(cluster = %member.alias(), %error, "a delivery could not be recorded");
                                due = due.min(Instant::now() + AFTER_FAILURE);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Begins what is due. Returns how long nothing more will be due; the plan is made anew from what is in force.
    async fn send_due(
        &self,
        member: &Arc<Member>,
        permits: &Arc<Semaphore>,
        sending: &mut JoinSet<(Delivery, Outcome)>,
        round: &mut Round,
    ) -> Result<Duration, ClusterError> {
        let loaded = member.loaded();
        let Rules::Master { config } = &loaded.rules else { return Ok(AT_LEAST) };
        let plan = {
            let mut state = self.state(member).await?;
            let plan = plan(config, &state, self.now());
            if !plan.removed.is_empty() {
                state.forget(&plan.removed);
                self.save(member, &state).await?;
            }
            plan
        };
        for delivery in plan.deliveries {
            // What a machine is sent now may be old already: when it is through, the next plan says so.
            if !round.under_way.insert(delivery.id52) {
                round.again.insert(delivery.id52);
                continue;
            }
            let (node, member, permits) = (self.clone(), Arc::clone(member), Arc::clone(permits));
            sending.spawn(async move {
                let _permit = permits.acquire_owned().await;
                let outcome = node.send_one(&member, &delivery).await;
                (delivery, outcome.unwrap_or_else(|error| Outcome::Unreachable(error.to_string())))
            });
        }
        let wait =
            plan.next_due.map(|due| Duration::try_from(due.duration_since(self.now())).unwrap_or_default());
        Ok(wait.unwrap_or(AT_LEAST).clamp(Duration::from_millis(50), AT_LEAST))
    }

    /// Records what became of a delivery.
    async fn sent(
        &self,
        member: &Arc<Member>,
        sent: Result<(Delivery, Outcome), JoinError>,
        round: &mut Round,
        last: bool,
    ) -> Result<Next, ClusterError> {
        let (delivery, outcome) = match sent {
            Ok(sent) => sent,
            Err(panic) => {
                // Whose it was is unknown: all may be tried again.
                round.under_way.clear();
                return Err(ClusterError::Panicked(panic.to_string()));
            }
        };
        round.under_way.remove(&delivery.id52);
        let next = match outcome {
            Outcome::Accepted if !round.again.remove(&delivery.id52) => Next::AsPlanned,
            _ => Next::PlanSoon,
        };
        round.tried += 1;
        round.taken += usize::from(matches!(outcome, Outcome::Accepted));
        let mut state = self.state(member).await?;
        self.record(member, &mut state, &delivery, &outcome)?;
        drop(state);
        round.unsaved = true;
        if last || round.saved.is_none_or(|saved| saved.elapsed() > SAVE_EVERY) {
            self.save_round(member, round).await?;
        }
        if last {
            tracing::info!(
                cluster = %member.alias(), role = "cluster-manager",
                "Config distributed to {} of {} machines", round.taken, round.tried
            );
            *round = Round::default();
        }
        Ok(next)
    }

    async fn save_round(&self, member: &Arc<Member>, round: &mut Round) -> Result<(), ClusterError> {
        round.unsaved = false;
        round.saved = Some(Instant::now());
        let state = self.state(member).await?;
        self.save(member, &state).await
    }

    async fn send_one(&self, member: &Arc<Member>, delivery: &Delivery) -> Result<Outcome, ClusterError> {
        let connection = match self.connect(member, &delivery.id52, &delivery.addresses).await {
            Ok(connection) => connection,
            Err(error) => {
                self.ask_back(member, &delivery.id52);
                return Ok(Outcome::Unreachable(error.to_string()));
            }
        };
        let text = self.signed_text(member, delivery)?;
        match cluster::deliver(&connection, &text, self.device().limits.config_bytes).await? {
            DeliveryOutcome::Accepted { .. } => Ok(Outcome::Accepted),
            DeliveryOutcome::Refused(error) => Ok(Outcome::Refused(error.message)),
            DeliveryOutcome::Behind { text } => {
                // Only what this root signed for that machine may move the serial.
                let theirs = verify_signed(&text, &member.own_id(), &delivery.id52, None)?;
                Ok(Outcome::Behind { serial: theirs.config.recipient().serial })
            }
        }
    }

    /// A machine that cannot be dialled may have dialled this manager all the same: from behind a NAT, or at the very
    /// moment when it was dialled itself. Its connection is closed, unless it is in use, and so it asks anew.
    fn ask_back(&self, member: &Arc<Member>, machine: &Id52) {
        if self.inner.work.is_idle(machine) {
            for connection in member.inbound().into_iter().filter(|open| open.peer() == *machine) {
                tracing::debug!(cluster = %member.alias(), %machine, "closed a connection, so that the machine asks");
                connection.close(CloseReason::normal());
            }
        }
    }

    fn signed_text(&self, member: &Arc<Member>, delivery: &Delivery) -> Result<String, ClusterError> {
        let alias = member.alias().clone();
        let root = cluster::load_key(self.keys().as_ref(), KeyRef::ClusterRoot(alias.clone()), &alias)?;
        let next = cluster::load_key(self.keys().as_ref(), KeyRef::NextRoot(alias.clone()), &alias)?.id52();
        Ok(delivery.body.sign(delivery.serial, &root_digest(&next), &root))
    }

    fn record(
        &self,
        member: &Arc<Member>,
        state: &mut DistributionState,
        delivery: &Delivery,
        outcome: &Outcome,
    ) -> Result<(), ClusterError> {
        let (alias, name, now) = (member.alias(), &delivery.machine, self.now());
        match outcome {
            Outcome::Accepted => {
                tracing::debug!(cluster = %alias, machine = %name, serial = delivery.serial, "a machine has its config");
                state.record_success(delivery, now);
            }
            Outcome::Behind { serial } => {
                tracing::warn!(cluster = %alias, machine = %name, serial, "a machine has a newer serial: going on above it");
                state.record_stale(delivery, *serial);
            }
            Outcome::Refused(reason) => {
                let reason = malai_model::text::escape_control(reason);
                tracing::warn!(cluster = %alias, machine = %name, "a machine refused its config: {reason}");
                state.record_refused(delivery, &reason);
            }
            Outcome::Unreachable(reason) => {
                tracing::info!(cluster = %alias, machine = %name, "a machine waits for its config: {reason}");
                let jitter = u16::from_le_bytes(make_random()?);
                state.record_failure(delivery, reason, now, &Backoff::default(), jitter);
            }
        }
        Ok(())
    }

    /// What a machine that asks should get, and what to note when it confirms. The text is a function of config, serial
    /// and keys, so what a machine has can be compared without being stored.
    pub(super) async fn delivery_for(
        &self,
        member: &Arc<Member>,
        peer: &Id52,
        have: Option<&ConfigHave>,
    ) -> Result<PullAnswer, ClusterError> {
        let loaded = member.loaded();
        let Rules::Master { config } = &loaded.rules else {
            return Err(ClusterError::NotManager(loaded.alias.clone()));
        };
        let found = config.machine_of(peer).and_then(|(name, entry)| {
            let body = Personalizer::new(config).personalize(name)?;
            Some((name.clone(), entry, body))
        });
        let Some((machine, entry, body)) = found else {
            return Err(ClusterError::NoConfig(loaded.alias.clone()));
        };
        let state = self.state(member).await?;
        let before = state.machine_states.get(peer);
        let last = before.map_or(0, |before| before.serial);
        let unchanged =
            before.is_some_and(|before| before.personalized_config_hash.as_deref() == Some(body.digest()));
        drop(state);
        let mut delivery = Delivery {
            machine,
            id52: *peer,
            addresses: entry.addresses.clone(),
            digest: body.digest().to_owned(),
            serial: if unchanged { last } else { last.saturating_add(1) },
            body,
        };
        if let Some(have) = have {
            // What it has may be what we sent without hearing of it.
            let same = Delivery { serial: have.serial, ..delivery.clone() };
            if have.digest == text_digest(&self.signed_text(member, &same)?) {
                return Ok(PullAnswer { text: None, delivery: same });
            }
            // Above what it has, within what TOML can hold; one that claims more gets what it cannot take.
            delivery.serial = delivery.serial.max(have.serial.saturating_add(1)).min(MAX_SERIAL);
        }
        let text = self.signed_text(member, &delivery)?;
        Ok(PullAnswer { text: Some(text), delivery })
    }

    /// Notes that a machine confirmed its config when it asked.
    pub(super) async fn confirmed(
        &self,
        member: &Arc<Member>,
        delivery: &Delivery,
    ) -> Result<(), ClusterError> {
        let mut state = self.state(member).await?;
        let known = state.machine_states.get(&delivery.id52).is_some_and(|machine| {
            machine.serial == delivery.serial
                && machine.personalized_config_hash.as_deref() == Some(&delivery.digest)
                && machine.next_attempt.is_none()
        });
        if !known {
            state.record_success(delivery, self.now());
            self.save(member, &state).await?;
        }
        Ok(())
    }

    /// What was distributed to whom; read when it is first needed, held in memory from then on.
    async fn state<'m>(
        &self,
        member: &'m Arc<Member>,
    ) -> Result<tokio::sync::MappedMutexGuard<'m, DistributionState>, ClusterError> {
        let mut state = member.distribution.lock().await;
        if state.is_none() {
            let alias = member.alias().clone();
            *state = Some(self.blocking(move |node| cluster::load_state(node.home(), &alias)).await?);
        }
        Ok(tokio::sync::MutexGuard::map(state, |state| state.get_or_insert_default()))
    }

    async fn save(&self, member: &Arc<Member>, state: &DistributionState) -> Result<(), ClusterError> {
        let (alias, state) = (member.alias().clone(), state.clone());
        self.blocking(move |node| cluster::save_state(node.home(), &alias, &state)).await
    }

    /// Forgets what failed before, so that everything outdated is tried at once: somebody asked for it.
    pub(super) async fn retry_all(&self, member: &Arc<Member>) -> Result<(), ClusterError> {
        if member.loaded().is_managed_here() {
            self.state(member).await?.retry_all();
        }
        Ok(())
    }

    /// How many machines would get a new config under these rules.
    pub(super) fn count_deliveries(&self, loaded: &LoadedCluster) -> Result<usize, ClusterError> {
        let Rules::Master { config } = &loaded.rules else { return Ok(0) };
        let state = cluster::load_state(self.home(), &loaded.alias)?;
        Ok(plan(config, &state, self.now()).outdated)
    }
}

/// The answer to a machine that asks for its config.
pub(super) struct PullAnswer {
    /// The text that it needs; `None` if it has it.
    pub(super) text: Option<String>,
    /// What to note once it has it.
    pub(super) delivery: Delivery,
}
