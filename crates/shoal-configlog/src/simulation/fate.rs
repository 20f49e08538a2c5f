//! What goes wrong, and that it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use shoal_model::NodeId;
use tokio::time::Instant;

use super::seeded::dice;
use super::world::{ADDRESS, LOOK_AGAIN, Process, RECOVERY, World};
use crate::log::ConfigLog;

/// Lets things go wrong for so long.
pub async fn storm(world: &World, length: Duration) -> Result<(), String> {
    let mut dice = dice();
    let began = Instant::now();
    let mut returning: BTreeMap<NodeId, Instant> = BTreeMap::new();
    while began.elapsed() < length {
        tokio::time::sleep(Duration::from_millis(dice.random_range(50..600))).await;
        let due: Vec<NodeId> =
            returning.iter().filter(|(_, at)| **at <= Instant::now()).map(|(node, _)| *node).collect();
        for node in due {
            returning.remove(&node);
            world.start(node).await?;
        }
        for node in strike(world, &mut dice) {
            let away = Duration::from_millis(dice.random_range(50..3000));
            returning.insert(node, Instant::now() + away);
        }
    }
    Ok(())
}

/// One more thing happens. Says who was killed.
fn strike(world: &World, dice: &mut SmallRng) -> Vec<NodeId> {
    let nodes = world.nodes();
    let node = nodes[dice.random_range(0..nodes.len())];
    let leader = world.process(node).and_then(|process| process.log.status().leader);
    // Whoever leads is struck more often than others.
    let node = leader.filter(|_| dice.random_range(0..2) == 0).unwrap_or(node);
    let others = || nodes.iter().copied().filter(move |other| *other != node);
    let other = others().nth(dice.random_range(0..nodes.len() - 1)).unwrap_or(node);
    let (network, disk) = (world.network(), world.disk(node));
    match dice.random_range(0..19) {
        0..3 => {
            let runs = world.process(node).is_some();
            world.kill(node);
            world.figures().kills += u64::from(runs);
            return if runs { vec![node] } else { Vec::new() };
        }
        3 => {
            world.tell(|| format!("{node} stops"));
            network.lull(node);
            world.figures().lulls += 1;
        }
        4 => {
            world.tell(|| format!("{node} is cut off"));
            others().for_each(|other| {
                network.cut(node, other);
                network.cut(other, node);
            });
            world.figures().cuts += 1;
        }
        5 => {
            world.tell(|| format!("{node} and {other} do not hear each other"));
            network.cut(node, other);
            network.cut(other, node);
            world.figures().cuts += 1;
        }
        6 => {
            world.tell(|| format!("nobody hears {node}"));
            others().for_each(|other| network.cut(node, other));
            world.figures().one_way += 1;
        }
        7 => {
            world.tell(|| format!("{node} hears nobody"));
            others().for_each(|other| network.cut(other, node));
            world.figures().one_way += 1;
        }
        8 => {
            let per_cent = dice.random_range(5..40);
            world.tell(|| format!("{per_cent} % are lost"));
            network.set_loss(per_cent);
            world.figures().losses += 1;
        }
        9 => {
            let is_slow = dice.random_range(0..3) > 0;
            world.tell(|| format!("the disk of {node} is slow: {is_slow}"));
            disk.set_slow(is_slow);
            world.figures().slow_disks += u64::from(is_slow);
        }
        10 => {
            world.tell(|| format!("the disk of {node} fails"));
            disk.fail();
            world.figures().failed_disks += 1;
        }
        11 => {
            if let Some(process) = world.process(node) {
                world.tell(|| format!("{node} compacts its log"));
                world.figures().snapshots += 1;
                tokio::spawn(async move { process.log.trigger_snapshot().await });
            }
        }
        12 => {
            if let Some(process) = leader.and_then(|leader| world.process(leader)) {
                world.tell(|| format!("{} hands over", process.log.node_id()));
                world.figures().transfers += 1;
                tokio::spawn(async move { Box::pin(process.log.hand_over()).await });
            }
        }
        13..15 => {
            if let Some(process) = leader.and_then(|leader| world.process(leader)) {
                change_membership(world, process, dice);
            }
        }
        15 => {
            world.tell(|| "the power fails everywhere".to_owned());
            let running = nodes.into_iter().filter(|node| world.process(*node).is_some());
            let running: Vec<NodeId> = running.collect();
            running.iter().for_each(|node| world.kill(*node));
            world.figures().blackouts += 1;
            return running;
        }
        _ => {
            world.tell(|| "everything passes".to_owned());
            network.mend();
        }
    }
    Vec::new()
}

/// Who leads gives votes to some and takes them from others, leaves one out who has none, or takes back whoever is outside. As
/// the autopilot never does, it does not care who is there, but never leaves itself out.
fn change_membership(world: &World, leading: Process, dice: &mut SmallRng) {
    let log = leading.log;
    let Some(known) = log.replication() else { return };
    let others = world.nodes().into_iter().filter(|node| *node != log.node_id());
    let outside: BTreeMap<NodeId, String> = others
        .clone()
        .filter(|node| !known.voters.contains(node) && !known.learners.contains(node))
        .map(|node| (node, ADDRESS.to_owned()))
        .collect();
    let learner = known.learners.first().copied();
    let voters: BTreeSet<NodeId> = others
        .filter(|node| !outside.contains_key(node) && dice.random_range(0..2) == 0)
        .chain([log.node_id()])
        .collect();
    world.figures().memberships += 1;
    let choice = dice.random_range(0..4);
    world.tell(|| format!("{} changes who takes part: {known:?}, {choice} of {voters:?}", log.node_id()));
    tokio::spawn(async move {
        // It may be refused, or never come to an end.
        _ = match (choice, learner) {
            (0, Some(learner)) => Box::pin(log.remove(BTreeSet::from([learner]))).await,
            (0 | 1, _) if !outside.is_empty() => Box::pin(log.add_learners(outside)).await,
            _ => Box::pin(log.set_voters(voters)).await,
        };
    });
}

/// Everybody votes again, soon.
async fn restore_membership(world: &World) -> Result<(), String> {
    let since = Instant::now();
    let all: BTreeSet<NodeId> = world.nodes().into_iter().collect();
    loop {
        let logs: Vec<ConfigLog> = all.iter().filter_map(|node| Some(world.process(*node)?.log)).collect();
        let leader = logs.into_iter().find_map(|log| Some((log.replication()?, log)));
        if let Some((known, log)) = leader {
            if !known.joint && known.voters == all {
                return Ok(());
            }
            let inside = |node: &&NodeId| known.voters.contains(node) || known.learners.contains(node);
            let outside: BTreeMap<NodeId, String> =
                all.iter().filter(|node| !inside(node)).map(|node| (*node, ADDRESS.to_owned())).collect();
            // What fails is tried again.
            _ = match () {
                () if known.joint => Box::pin(log.finish_membership_change()).await,
                () if !outside.is_empty() => Box::pin(log.add_learners(outside)).await,
                () => Box::pin(log.set_voters(all.clone())).await,
            };
        }
        // A change may be waited for in vain for most of that time.
        if since.elapsed() > 2 * RECOVERY {
            return Err(format!("not everybody votes again within {:?}", 2 * RECOVERY));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Nothing is wrong any more: whoever does not run is started, and whoever takes no part is started again.
pub async fn calm(world: &World) -> Result<(), String> {
    world.tell(|| "calm".to_owned());
    world.network().mend();
    for node in world.nodes() {
        world.disk(node).set_slow(false);
        let takes_part = world.process(node).is_some_and(|process| process.log.status().broken.is_empty());
        if !takes_part || world.disk(node).is_failing() {
            world.kill(node);
            world.start(node).await?;
        }
    }
    restore_membership(world).await
}
