//! What goes wrong, and that it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use shoal_model::NodeId;
use tokio::time::Instant;

use super::seeded::dice;
use super::world::World;

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
        if let Some(node) = strike(world, &mut dice) {
            let away = Duration::from_millis(dice.random_range(50..3000));
            returning.insert(node, Instant::now() + away);
        }
    }
    Ok(())
}

/// One more thing happens. Says who was killed.
fn strike(world: &World, dice: &mut SmallRng) -> Option<NodeId> {
    let nodes = world.nodes();
    let node = nodes[dice.random_range(0..nodes.len())];
    let leader = world.process(node).and_then(|process| process.log.status().leader);
    // Whoever leads is struck more often than others.
    let node = leader.filter(|_| dice.random_range(0..2) == 0).unwrap_or(node);
    let others = || nodes.iter().copied().filter(move |other| *other != node);
    let other = others().nth(dice.random_range(0..nodes.len() - 1)).unwrap_or(node);
    let (network, disk) = (world.network(), world.disk(node));
    match dice.random_range(0..16) {
        0..3 => {
            let runs = world.process(node).is_some();
            world.kill(node);
            world.figures().kills += u64::from(runs);
            return runs.then_some(node);
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
        _ => {
            world.tell(|| "everything passes".to_owned());
            network.mend();
        }
    }
    None
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
    Ok(())
}
