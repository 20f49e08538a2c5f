//! Whatever happens to the leader of three nodes, or to the network between them: what was acknowledged is kept, whoever asks
//! for what is agreed sees no less than anybody before, changes go on soon, and requests do not notice.

#[path = "../asking/mod.rs"]
mod asking;
mod register;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::{
    Bar, Cluster, Crowd, HOST, Load, Network, Origin, Ports, SiteFile, pattern, skip, wait_until,
};
use histories::{Answer, Asked, Picture, Violation};

use register::{Register, gather, judge};

const BODY: usize = 2000;
/// Deadline of anything that takes a moment.
const MOMENT: Duration = Duration::from_secs(60);
/// For so long it is watched what becomes of a fault.
const WATCH: Duration = Duration::from_secs(4);
/// What happens to the leader; the others are its followers.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Stopped,
    CutOff,
    OnlySends,
    OnlyReceives,
    OneLinkCut,
    /// Not to the leader.
    FollowersPart,
    FollowerKilled,
}

impl Fault {
    /// For how long nothing may be acknowledged then.
    fn bar(self) -> Bar {
        match self {
            Self::Killed => Bar::of_ms(1500, 1180),
            Self::Stopped => Bar::of_ms(2000, 1170),
            Self::CutOff => Bar::of_ms(2500, 1310),
            Self::OnlySends => Bar::of_ms(3000, 1380),
            Self::OnlyReceives => Bar::of_ms(3000, 1180),
            Self::OneLinkCut => Bar::of_ms(2500, 130),
            Self::FollowersPart => Bar::of_ms(100, 150),
            Self::FollowerKilled => Bar::of_ms(100, 280),
        }
    }

    /// Who is not there for requests.
    fn is_down(self, node: usize, [leader, follower, _]: [usize; 3]) -> bool {
        match self {
            Self::Killed | Self::Stopped => node == leader,
            Self::FollowerKilled => node == follower,
            _ => false,
        }
    }

    fn happens(self, network: &Network, cluster: &mut Cluster, nodes: [usize; 3]) -> Result<()> {
        let [leader, follower, other] = nodes;
        match self {
            Self::Killed => cluster.nodes[leader].kill9(),
            Self::Stopped => cluster.nodes[leader].stop(),
            Self::FollowerKilled => cluster.nodes[follower].kill9(),
            Self::CutOff => network.isolate(leader),
            Self::OnlySends => network.cut(follower, leader).and_then(|()| network.cut(other, leader)),
            Self::OnlyReceives => network.cut(leader, follower).and_then(|()| network.cut(leader, other)),
            Self::OneLinkCut => network.cut(follower, leader).and_then(|()| network.cut(leader, follower)),
            Self::FollowersPart => network.cut(follower, other).and_then(|()| network.cut(other, follower)),
        }
    }

    fn is_mended(self, network: &Network, cluster: &mut Cluster, nodes: [usize; 3]) -> Result<()> {
        let [leader, follower, other] = nodes;
        match self {
            Self::Killed => cluster.restart(leader),
            Self::Stopped => cluster.nodes[leader].cont(),
            Self::FollowerKilled => cluster.restart(follower),
            Self::CutOff => network.rejoin(leader),
            Self::OnlySends => network.mend(follower, leader).and_then(|()| network.mend(other, leader)),
            Self::OnlyReceives => network.mend(leader, follower).and_then(|()| network.mend(leader, other)),
            Self::OneLinkCut => network.mend(follower, leader).and_then(|()| network.mend(leader, follower)),
            Self::FollowersPart => network.mend(follower, other).and_then(|()| network.mend(other, follower)),
        }
    }
}

#[test]
fn the_leader_is_lost() -> Result<()> {
    suffers("the_leader_is_lost", &[Fault::Killed, Fault::Stopped, Fault::CutOff, Fault::FollowerKilled])
}

#[test]
fn links_fail_one_way_and_one_by_one() -> Result<()> {
    let faults = [Fault::OnlySends, Fault::OnlyReceives, Fault::OneLinkCut, Fault::FollowersPart];
    suffers("links_fail_one_way_and_one_by_one", &faults)
}

fn suffers(test: &str, faults: &[Fault]) -> Result<()> {
    Network::around(test, async |mut network| {
        let mut cluster = Cluster::start_in(&mut network, 3, &[]).await?;
        let origin = Origin::of_patterns_in_network(BODY, "no-store").await?;
        cluster.put_in_force(&SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;
        let register = Arc::new(Register::of(&cluster).await?);
        let crowd = gather(&register);
        let mut missed = Vec::new();
        for fault in faults {
            let gap = suffer(*fault, &network, &mut cluster, &crowd).await?;
            missed.extend(fault.bar().hold(&format!("nothing was acknowledged, {fault:?}"), gap).err());
        }
        crowd.leave().await?;
        eprintln!("{test}: {}", judge(&register).await?);
        ensure!(missed.is_empty(), "{missed:#?}");
        Ok(())
    })
}

/// For how long nothing was acknowledged.
async fn suffer(fault: Fault, network: &Network, cluster: &mut Cluster, crowd: &Crowd) -> Result<Duration> {
    let leader = cluster.leader_seen_by(0).await?;
    let nodes = [leader, (leader + 1) % 3, (leader + 2) % 3];
    let up: Vec<usize> = (0..3).filter(|node| !fault.is_down(*node, nodes)).collect();
    let addresses: Vec<SocketAddr> = up.iter().map(|node| cluster.nodes[*node].at(Ports::HTTP)).collect();
    let paths = (0..20).map(|n| format!("/{n}")).collect();
    let load = Load::start(&addresses, 2, HOST, paths, |path| Some(pattern(path, BODY)));
    wait_until("requests are answered", MOMENT, async || load.good() > 50).await?;

    let happened = Instant::now();
    fault.happens(network, cluster, nodes)?;
    wait_until("changes are acknowledged again", MOMENT, async || {
        happened.elapsed() > WATCH && crowd.goes_on(Duration::from_millis(300))
    })
    .await?;
    let gap = crowd.longest_gap(happened);

    wait_until("enough was asked for", MOMENT, async || load.good() > 200).await?;
    let report = load.finish().await;
    for (node, target) in up.iter().zip(&report.targets) {
        let failed = target.wrong() + target.connection_errors();
        ensure!(failed == 0, "{fault:?}: {failed} requests failed on n{}: {}", node + 1, target.faults());
    }
    fault.is_mended(network, cluster, nodes)?;
    for node in nodes {
        cluster.answers(node).await?;
    }
    cluster.settle().await?;
    Ok(gap)
}

/// Reads that ask nobody are what the checks are there to find: both of them do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_ask_nobody_are_found_out() -> Result<()> {
    if std::env::var_os("SHOAL_BIN").is_some() || !cfg!(debug_assertions) {
        skip("reads_that_ask_nobody_are_found_out", "this build cannot be made to read without asking");
        return Ok(());
    }
    let cluster = Cluster::start_planted(3, "SHOAL_PLANT_UNCONFIRMED_READS").await?;
    let origin = Origin::of_patterns(BODY, "no-store").await?;
    cluster.apply(0, &SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;
    let register = Register::of(&cluster).await?;
    let leader = cluster.leader_seen_by(0).await?;
    let found = wait_until("a stale read is found", MOMENT, async || {
        let written = register.write(leader, None).await;
        let read = register.read((leader + 1) % 3).await;
        written.is_ok()
            && read.is_some()
            && matches!(histories::revisions::check(&register.operations()), Err(Violation::Stale { .. }))
    });
    let took = found.await?;

    let operations = register.operations();
    let mut values = Picture::default().values;
    values.insert(operations.start.0, operations.start.1);
    values.extend(operations.all.iter().filter_map(|operation| {
        match (operation.asked, operation.answered) {
            (Asked::Write { value, .. }, Some((_, Answer::Wrote { revision }))) => Some((revision, value)),
            _ => None,
        }
    }));
    let picture = Picture { values, ..Picture::default() };
    let searched = histories::search::check(&operations, &picture, operations.all.len());
    ensure!(matches!(searched, Err(Violation::NoOrder { .. })), "the search found an order: {searched:?}");
    eprintln!("a stale read was found after {took:?}, among {} operations", operations.all.len());
    Ok(())
}
