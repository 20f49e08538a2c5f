//! Those who read and write the register that the site is: at each node one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use histories::{Answer, Asked};
use rand::RngExt;
use rand::rngs::SmallRng;
use shoal_model::state::{Command, Refusal, Reply, SiteText, Terms};
use shoal_model::{NodeId, Revision};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::seeded::dice;
use super::world::{Process, World};
use crate::log::ProposeError;

/// For what is agreed to arrive where it was asked for.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How often a write is proposed, at most, while it is not known what became of it.
const TRIES: usize = 4;

/// From now on somebody asks at each node.
pub fn gather(world: &World) -> Vec<JoinHandle<()>> {
    let next_value = Arc::new(AtomicU64::new(1));
    let ask = |node| tokio::spawn(ask(world.clone(), node, dice(), next_value.clone()));
    world.nodes().into_iter().map(ask).collect()
}

async fn ask(world: World, home: NodeId, mut dice: SmallRng, next_value: Arc<AtomicU64>) {
    let mut seen = None;
    while !world.has_ended() {
        tokio::time::sleep(Duration::from_millis(dice.random_range(20..400))).await;
        if dice.random_range(0..2) == 0 {
            if let Some(process) = world.process(home) {
                seen = read(&world, &process).await.or(seen);
            }
        } else {
            let value = next_value.fetch_add(1, Ordering::Relaxed);
            let over = seen.filter(|_| dice.random_range(0..4) == 0);
            write(&world, home, value, over, &mut dice).await;
        }
    }
}

/// A linearizable read: the revision, if there is an answer.
pub async fn read(world: &World, process: &Process) -> Option<u64> {
    let ticket = world.history().call(Asked::Read);
    let reading = async {
        let index = Box::pin(process.log.read_index()).await.ok()?;
        let (applied, since) = (process.log.applied(), Instant::now());
        while *applied.borrow() < index {
            if since.elapsed() > CATCH_UP {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        process.log.with_state(|state| {
            let (Revision(revision), text) = state.revisions.active();
            Some((revision, if revision == 0 { 0 } else { value_of(&text)? }))
        })
    };
    let (revision, value) = process.unless_killed(reading).await??;
    world.history().answer(ticket, Answer::Read { revision, value });
    Some(revision)
}

/// Writes `value`, at `home` first, then elsewhere as long as it is not known what became of it.
async fn write(world: &World, home: NodeId, value: u64, over: Option<u64>, dice: &mut SmallRng) {
    let ticket = world.history().call(Asked::Write { value, over });
    let nodes = world.nodes();
    let mut may_be_done = false;
    for turn in 0..dice.random_range(1..=TRIES) {
        let node = nodes[(home.0 as usize - 1 + turn) % nodes.len()];
        if let Some(process) = world.process(node) {
            let proposed = process.unless_killed(process.log.propose(publish(value, over))).await;
            match proposed {
                Some(Ok(proposed)) => {
                    return world.history().answer(
                        ticket,
                        match proposed.reply {
                            Reply::Published(Revision(revision)) => Answer::Wrote { revision },
                            Reply::Refused(Refusal::RevisionConflict { .. }) => Answer::Nothing,
                            other => unreachable!("a site was published: {other:?}"),
                        },
                    );
                }
                Some(Err(
                    ProposeError::NoQuorum { .. } | ProposeError::TooManyHops | ProposeError::Broken { .. },
                )) if !may_be_done => {
                    return world.history().answer(ticket, Answer::Nothing);
                }
                Some(Err(_)) | None => may_be_done = true,
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.random_range(10..200))).await;
    }
}

/// The command that writes `value`.
pub fn publish(value: u64, over: Option<u64>) -> Command {
    Command::Publish {
        request_id: format!("value-{value}"),
        expected: over.map(Revision),
        site: SiteText::Inline(site_of(value)),
        author: String::new(),
        message: String::new(),
        at_ms: 1,
        counts: [0, 1, 0],
        terms: Terms::default(),
    }
}

/// A site that says it: what nobody can read is not passed on.
fn site_of(value: u64) -> String {
    format!(r#"{{"upstreams":{{"v{value}":{{"endpoints":["h:1"]}}}}}}"#)
}

fn value_of(site: &str) -> Option<u64> {
    site.split('"').nth(3)?.strip_prefix('v')?.parse().ok()
}
