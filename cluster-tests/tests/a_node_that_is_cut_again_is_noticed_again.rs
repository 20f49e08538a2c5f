//! A node that is cut off again as soon as it is back is noticed as fast as the first time.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, Network, wait_until};

/// Deadline of anything that takes a moment.
const MOMENT: Duration = Duration::from_secs(60);
/// Eight gaps of half a second, the time until the others say so, and a busy machine.
const AT_MOST: Duration = Duration::from_secs(8);

#[test]
fn as_fast_as_the_first_time() -> Result<()> {
    Network::around("as_fast_as_the_first_time", async |mut network| {
        let cluster = Cluster::start_in(&mut network, 3, &[]).await?;
        let far = (cluster.leader_seen_by(0).await? + 1) % 3;
        let seen_dead = async |count: usize| {
            for node in (0..3).filter(|node| *node != far) {
                let dead = cluster.metric(node, "shoal_gossip_dead_members", "").await;
                if !dead.is_ok_and(|dead| dead == count as f64) {
                    return false;
                }
            }
            true
        };
        for time in 1..=3 {
            network.isolate(far)?;
            let took = wait_until("the others have noticed", MOMENT, async || seen_dead(1).await).await?;
            eprintln!("cut off for the {time}. time: noticed after {took:?}");
            ensure!(took < AT_MOST, "the {time}. time it took {took:?}");
            network.rejoin(far)?;
            wait_until("it is heard again", MOMENT, async || seen_dead(0).await).await?;
        }
        Ok(())
    })
}
