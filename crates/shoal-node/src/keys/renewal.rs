//! Keeps this node's certificate fresh: another member signs a new one long before it ends, for the same key, and connections
//! are made with it from then on.

use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::identity::{Identity, random_number};
use shoal_cluster::join::{RenewError, renew, renewed};
use shoal_cluster::tls::Credentials;
use shoal_model::NodeId;
use shoal_model::units::Period;
use shoal_policy::renewal::{Alarm, Life};
use tokio::time::Instant;
use tonic::Code;

use super::{OwnCertificate, life_of};
use crate::node::{Node, now_ms};

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Between two tries to write something down, as on a disk that is full.
const KEEP_AGAIN: Duration = Duration::from_secs(5);
/// Members that are asked in one try.
const MAX_ASKED: usize = 5;
/// Bounds of the patience with one of them; in between it is a part of the life of a certificate.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);
const LONGEST_PATIENCE: Duration = Duration::from_secs(10);
/// A life that is longer than the cluster has agreed on, or was given by an authority that has a successor, is over within so
/// long for each member, so that not all ask at once.
const SPREAD_A_MEMBER: Duration = Duration::from_secs(1);
/// The same for all of them at most.
const LONGEST_SPREAD: Duration = Duration::from_secs(60);
/// A life counts as longer than agreed from this on: clocks differ, and seconds are rounded.
const LIFE_SLACK: Duration = Duration::from_secs(2);
/// A time of day that is further from what it should be by now was set.
const CLOCK_SLACK: Duration = Duration::from_secs(600);

/// Renews it whenever that is due, for as long as it is polled.
pub async fn keep(node: Arc<Node>) {
    let (mut plan, clock) = (Plan::default(), Clock::read());
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = node.another_succession() => {}
        }
        let identity = node.peers.credentials().identity();
        let Some(life) = life_of(&identity) else { continue };
        node.own_certificate.look(life);
        if let Some(succession) = node.succession_with(&identity.ca_der)
            && succession != identity.succession
        {
            let believing = Identity { succession, ..identity.as_ref().clone() };
            match keep_identity(&node, believing).await {
                Ok(()) => {
                    tracing::info!("the authorities that this node believes have changed");
                    // What could not be believed before may have been the only trouble.
                    plan.retry_at = Instant::now();
                }
                Err(why) => {
                    tracing::error!(why, "the authorities that this node believes cannot be kept");
                    tokio::time::sleep(KEEP_AGAIN).await;
                }
            }
            continue;
        }
        let terms = Terms::of(&node, &identity);
        if !plan.is_due(life, &terms) {
            continue;
        }
        match renew_now(&node, life, &clock).await {
            Ok(()) => plan = Plan::after(terms.agreed),
            Err(why) => {
                plan.failed(life, &terms);
                // Where it presses, it is tried every few seconds.
                if plan.failures.is_power_of_two() {
                    let left = Period::seconds(life.left(now_ms()).as_secs());
                    tracing::warn!(%why, %left, tries = plan.failures, "this node's certificate was not renewed yet");
                }
                node.own_certificate.with(|state| {
                    state.failed += 1;
                    state.trouble = why;
                });
            }
        }
    }
}

/// The time of day when this process began, and how long ago that is by a clock that nobody sets.
struct Clock {
    began_ms: u64,
    began: Instant,
}

impl Clock {
    fn read() -> Self {
        Self { began_ms: now_ms(), began: Instant::now() }
    }

    /// The time of day has moved by more than time has passed.
    fn was_set(&self) -> bool {
        let expected_ms = self.began_ms + self.began.elapsed().as_millis() as u64;
        now_ms().abs_diff(expected_ms) > CLOCK_SLACK.as_millis() as u64
    }
}

/// What the cluster has agreed on.
struct Terms {
    /// The life of a certificate.
    agreed: Duration,
    /// The authority has a successor.
    is_succeeded: bool,
    /// Nodes that all have to ask anew do so within this time.
    spread: Duration,
}

impl Terms {
    fn of(node: &Node, identity: &Identity) -> Self {
        let agreed = node.node_validity();
        let members = node.log.with_state(|state| u32::try_from(state.nodes.len()).unwrap_or(u32::MAX));
        let spread = SPREAD_A_MEMBER.saturating_mul(members).min(LONGEST_SPREAD).min(agreed / 10);
        Self { agreed, is_succeeded: node.is_succeeded(identity), spread }
    }
}

/// When the certificate is renewed.
struct Plan {
    entropy: u64,
    /// Tries that have failed in a row, and when the next one is, by a clock that nobody sets.
    failures: u32,
    retry_at: Instant,
    /// The life agreed on under which it was renewed last: whoever signed it may not know of that.
    settled: Option<Duration>,
    /// A life that is too long, and when it was noticed.
    outlasts: Option<(Duration, u64)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            entropy: random_number(),
            failures: 0,
            retry_at: Instant::now(),
            settled: None,
            outlasts: None,
        }
    }
}

impl Plan {
    /// The one for what was given when `agreed` was agreed on.
    fn after(agreed: Duration) -> Self {
        Self { settled: Some(agreed), ..Self::default() }
    }

    /// What it has is not what it should have by now, whatever is left of it.
    fn is_pressing(&self, life: Life, terms: &Terms) -> bool {
        let outlasts = life.length() > terms.agreed + LIFE_SLACK && self.settled != Some(terms.agreed);
        outlasts || terms.is_succeeded
    }

    fn is_due(&mut self, life: Life, terms: &Terms) -> bool {
        let mut due = life.renewed_at_ms(self.entropy);
        if self.is_pressing(life, terms) {
            let (of, since) = *self.outlasts.get_or_insert((terms.agreed, now_ms()));
            if of != terms.agreed {
                self.outlasts = None;
            }
            due = due.min(since + self.entropy % (terms.spread.as_millis() as u64 + 1));
        }
        Instant::now() >= self.retry_at && now_ms() >= due
    }

    fn failed(&mut self, life: Life, terms: &Terms) {
        self.failures += 1;
        let wait = life.no_longer_than(terms.agreed).retry_after(self.failures, random_number());
        // Somebody may wait for all to have what they should have.
        let longest = if self.is_pressing(life, terms) { terms.spread } else { Duration::MAX };
        self.retry_at = Instant::now() + wait.min(longest);
    }
}

/// What came of asking the others.
enum Asked {
    Renewed(Box<Identity>),
    /// Somebody who can tell has said no.
    Refused(String),
    /// Nobody could.
    Unanswered(String),
}

async fn renew_now(node: &Arc<Node>, life: Life, clock: &Clock) -> Result<(), String> {
    let has_ended = life.alarm(now_ms()) == Alarm::Ended;
    let others = others(node);
    let is_alone = others.is_empty();
    let new = match ask(node, life, others).await {
        Asked::Renewed(new) => *new,
        Asked::Refused(why) if has_ended && !life.is_renewed_late(now_ms()) => {
            return Err(format!(
                "{why}: take this node out (`shoal node remove {}` on another one), and let its machine join with an \
                 empty --data-dir and a new --token",
                node.identity.name
            ));
        }
        // Where all have ended nobody can be called, and each begins with itself: its log says that it is a member, and it has
        // what any member signs with. But where only the clock says so, which somebody has set, it has not ended, and what is
        // signed by that clock would be believed by nobody.
        Asked::Unanswered(_) if is_alone || (has_ended && !clock.was_set()) => sign_for_itself(node)?,
        Asked::Refused(why) | Asked::Unanswered(why) => return Err(why),
    };
    take(node, new).await
}

/// Whom to ask, the leader first, and those that are heard before those that are not.
fn others(node: &Node) -> Vec<NodeId> {
    let leader = node.log.status().leader;
    let view = node.gossip.view().load_full();
    let mut others: Vec<NodeId> = node.members().into_keys().filter(|id| *id != node.id()).collect();
    let turn = random_number() as usize % others.len().max(1);
    others.rotate_left(turn);
    others.sort_by_key(|id| (leader != Some(*id), !view.node(*id).is_some_and(|node| node.alive)));
    others.truncate(MAX_ASKED);
    others
}

async fn ask(node: &Node, life: Life, others: Vec<NodeId>) -> Asked {
    let patience = (life.length() / 20).clamp(SHORTEST_PATIENCE, LONGEST_PATIENCE);
    let mut outcome = Asked::Unanswered("there is no other member".to_owned());
    for other in others {
        let called = node.log.with_state(|state| state.called(other));
        match tokio::time::timeout(patience, renew(&node.peers, other)).await {
            Ok(Ok(new)) => return Asked::Renewed(Box::new(new)),
            Ok(Err(RenewError::Refused(status))) if status.code() == Code::PermissionDenied => {
                outcome = Asked::Refused(format!("{called} says: {}", status.message()));
            }
            Ok(Err(error)) if !matches!(outcome, Asked::Refused(_)) => {
                outcome = Asked::Unanswered(format!("{called}: {error}"));
            }
            Err(_) if !matches!(outcome, Asked::Refused(_)) => {
                outcome = Asked::Unanswered(format!("{called} did not answer within {patience:?}"));
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
    outcome
}

fn sign_for_itself(node: &Node) -> Result<Identity, String> {
    let identity = node.peers.credentials().identity();
    let csr = identity.certificate_request().map_err(|error| error.to_string())?;
    let (_, answer) = node.sign(&csr).map_err(|status| status.message().to_owned())?;
    renewed(&identity, answer).map_err(|error| error.to_string())
}

/// On disk first: a process that begins anew must not have less. Nothing comes there that no process could begin with.
async fn keep_identity(node: &Node, new: Identity) -> Result<(), String> {
    Credentials::new(new.clone()).map_err(|error| error.to_string())?;
    let (dir, saved) = (node.settings.data_dir.clone(), new.clone());
    let saving = tokio::task::spawn_blocking(move || saved.save(&dir)).await;
    saving.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    node.peers.credentials().replace(new).map_err(|error| error.to_string())
}

async fn take(node: &Arc<Node>, new: Identity) -> Result<(), String> {
    // What another authority has signed is shown with what makes it believed by those who do not know that one yet.
    let succession = node.succession_with(&new.ca_der).unwrap_or_else(|| new.succession.clone());
    let new = Identity { succession, ..new };
    let life = life_of(&new);
    keep_identity(node, new).await?;
    let lasts = life.map(|life| Period::seconds(life.length().as_secs()).to_string());
    tracing::info!(lasts, "this node's certificate was renewed");
    node.own_certificate.with(|state| {
        state.renewed += 1;
        state.trouble.clear();
    });
    Ok(())
}

impl OwnCertificate {
    /// Says so when less is left than before. At half of a life nobody need do anything.
    fn look(&self, life: Life) {
        let now_ms = now_ms();
        let alarm = life.alarm(now_ms);
        let before = self.with(|state| std::mem::replace(&mut state.alarm, alarm));
        if alarm <= before {
            return;
        }
        let left = Period::seconds(life.left(now_ms).as_secs());
        match alarm {
            Alarm::None => {}
            Alarm::Half => {
                tracing::info!(%left, "half of the life of this node's certificate is over: it is renewed soon")
            }
            Alarm::Fifth => tracing::warn!(%left, "a fifth of the life of this node's certificate is left"),
            Alarm::Tenth => tracing::error!(%left, "a tenth of the life of this node's certificate is left"),
            Alarm::Ended => tracing::error!("this node's certificate has ended: no other node talks to it"),
        }
    }

    /// What somebody may have to look after.
    pub fn problem(&self, life: Option<Life>) -> Option<String> {
        if let Some(why) = self.with(|state| state.stranded.clone()) {
            return Some(why);
        }
        let life = life?;
        let (now_ms, trouble) = (now_ms(), self.with(|state| state.trouble.clone()));
        let why = if trouble.is_empty() { "it is being renewed" } else { &trouble };
        let left = Period::seconds(life.left(now_ms).as_secs());
        match life.alarm(now_ms) {
            Alarm::None | Alarm::Half => None,
            Alarm::Fifth | Alarm::Tenth => Some(format!("its certificate ends in {left}: {why}")),
            Alarm::Ended => Some(format!("its certificate has ended, and no other node talks to it: {why}")),
        }
    }
}
