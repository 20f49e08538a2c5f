//! Config logs of several nodes agree, survive each other, and come back.
#![expect(clippy::unwrap_used, reason = "a broken assumption fails the test")]

mod support;

use std::time::{Duration, Instant};

use shoal_configlog::{Compaction, ProposeError, SiteChange, TransferError};
use shoal_model::state::{Command, PurgeKind, PurgeScope, Reply};
use shoal_model::{NodeId, Revision};

use support::{Cluster, TIMINGS, publish, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_may_die() {
    let mut cluster = Cluster::of(3, 3, Compaction::default()).await;
    let follower = cluster.follower().await;
    let first = follower.propose(publish("a", "{}")).await.unwrap();
    assert_eq!(first.reply, Reply::Published(Revision(1)));
    cluster.wait_for_revision(1).await;
    assert!(follower.read_index().await.unwrap() >= first.index);

    let leader = cluster.leader().await.node_id();
    cluster.stop(leader).await;
    let survivor = cluster.running().next().unwrap().1.log().clone();
    let started = Instant::now();
    let second = survivor.propose(publish("b", "{ }")).await.unwrap();
    assert_eq!(second.reply, Reply::Published(Revision(2)));
    assert!(started.elapsed() < Duration::from_secs(8), "took {:?}", started.elapsed());
    let again = survivor.propose(publish("b", "{ }")).await.unwrap();
    assert_eq!(again.reply, Reply::Published(Revision(2)), "the same request is applied once");

    cluster.start(leader).await;
    cluster.wait_for_revision(2).await;
    let told = cluster.nodes[&leader].told.lock().unwrap().join("; ");
    assert!(told.contains("snapshot at revision 1; revision 2 { }"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_knows_everything_and_writes_nothing() {
    let mut cluster = Cluster::of(3, 3, Compaction::default()).await;
    let scopes = vec![PurgeScope::Tag(7)];
    let purge = Command::Purge { request_id: "p".into(), scopes, kind: PurgeKind::Soft, at_ms: 1 };
    let follower = cluster.follower().await;
    let purged = follower.propose(purge).await.unwrap();
    assert_eq!(purged.reply, Reply::Purged { seq: purged.index });
    follower.propose(publish("a", "{}")).await.unwrap();
    cluster.wait_for_revision(1).await;
    let committed = purged.index + 1;
    // The last entry's commit index reaches the disk a moment later.
    let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
    for id in &ids {
        cluster.stop(*id).await;
    }
    drop(follower);

    let alone = ids[1];
    cluster.start(alone).await;
    let log = cluster.nodes[&alone].log().clone();
    assert_eq!(cluster.nodes[&alone].revision(), 1);
    assert!(*log.applied().borrow() >= committed);
    assert_eq!(log.with_state(|state| state.purges.newest), purged.index);
    let status = log.status();
    assert!(!status.quorum && status.staleness > Duration::ZERO, "{status:?}");
    assert_eq!(status.voters.len(), 3);

    let started = Instant::now();
    let refused = log.propose(publish("b", "{ }")).await;
    assert!(matches!(refused, Err(ProposeError::NoQuorum { .. })), "{refused:?}");
    // It waits for three silences, and looks now and then.
    let patience = TIMINGS.silence() * 3;
    assert!(started.elapsed() < patience + TIMINGS.silence(), "took {:?}", started.elapsed());
    assert!(log.try_read_index().await.is_err());
    let again = Instant::now();
    let refused = log.propose(publish("b", "{ }")).await;
    assert!(matches!(refused, Err(ProposeError::NoQuorum { .. })), "{refused:?}");
    assert!(log.read_index().await.is_err());
    assert!(again.elapsed() < patience, "waits for nothing: {:?}", again.elapsed());

    cluster.start(ids[0]).await;
    // Who is back is asked for a vote, which is worth the wait.
    assert_eq!(log.propose(publish("c", "{ }")).await.unwrap().reply, Reply::Published(Revision(2)));
    cluster.stop(ids[0]).await;
    wait_until("the loss of the quorum is noticed", || !log.status().quorum).await;
    let refused = log.propose(publish("d", "{}")).await;
    assert!(matches!(refused, Err(ProposeError::NoQuorum { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_says_who_has_not_asked_for_long() {
    let mut cluster = Cluster::of(3, 3, Compaction::default()).await;
    let (leader, asking) = (cluster.leader().await, cluster.follower().await);
    let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
    let silent = *ids.iter().find(|id| ![leader.node_id(), asking.node_id()].contains(id)).unwrap();
    cluster.nodes[&silent].log().read_index().await.unwrap();
    let before = Instant::now();
    cluster.stop(silent).await;
    wait_until("some time has passed", || before.elapsed() > Duration::from_millis(300)).await;
    let asked = Instant::now();
    asking.read_index().await.unwrap();
    for log in [&leader, &asking] {
        let (scopes, request_id) = (vec![PurgeScope::Tag(7)], format!("p{}", log.node_id()));
        let purge = Command::Purge { request_id, scopes, kind: PurgeKind::Hard, at_ms: 1 };
        let silences = log.propose(purge).await.unwrap().silences;
        assert_eq!(silences.keys().copied().collect::<Vec<_>>(), ids);
        assert!(silences[&silent] >= Duration::from_millis(300), "{silences:?}");
        assert!(silences[&asking.node_id()] <= asked.elapsed(), "{silences:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_knows_when_the_one_before_was_last_confirmed() {
    let mut cluster = Cluster::of(3, 3, Compaction::default()).await;
    let (lost, asking) = (cluster.leader().await.node_id(), cluster.follower().await);
    let before = Instant::now();
    asking.read_index().await.unwrap();
    cluster.stop(lost).await;
    let purge = |id: &str| Command::Purge {
        request_id: id.into(),
        scopes: vec![PurgeScope::All],
        kind: PurgeKind::Hard,
        at_ms: 1,
    };
    // Nobody leads yet: it is held until somebody does.
    let mut silences = asking.propose(purge("a")).await.unwrap().silences;
    let elected = Instant::now();
    for n in 0.. {
        // A voter that was late to say when it confirmed a leader last is asked again with the next purge; after an election's
        // time the answer would prove nothing.
        if silences[&lost] >= TIMINGS.election_max || elected.elapsed() > TIMINGS.election_max / 2 {
            break;
        }
        silences = asking.propose(purge(&format!("a{n}"))).await.unwrap().silences;
    }
    let silent = silences[&lost];
    // The other two have not confirmed it for the time that an election takes.
    assert!(silent >= TIMINGS.election_max && silent <= before.elapsed(), "{silences:?}, {before:?}");
    let again = cluster.leader().await.propose(purge("b")).await.unwrap().silences;
    assert!(again[&lost] >= silent && again[&lost] <= before.elapsed(), "{again:?} after {silences:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_gets_a_snapshot_of_what_was_compacted() {
    let compaction = Compaction { after_entries: 20, kept_entries: 5 };
    let mut cluster = Cluster::of_one(compaction).await;
    let log = cluster.log(1);
    for n in 1..=40 {
        log.propose(publish(&format!("r{n}"), "{}")).await.unwrap();
    }
    let large = format!("{{\"padding\":{:?}}}", "\"ö\\".repeat(200_000));
    let change = SiteChange { request_id: "large".into(), text: large.clone(), ..SiteChange::default() };
    assert_eq!(log.propose_site(change).await.unwrap().reply, Reply::Published(Revision(41)));
    log.trigger_snapshot().await;

    let newcomer = cluster.join().await;
    cluster.wait_for_revision(41).await;
    let node = &cluster.nodes[&newcomer];
    assert_eq!(node.log().with_state(|state| state.revisions.active().1), large.as_str().into());
    let told = node.told.lock().unwrap().clone();
    assert!(
        told.iter().any(|line| line.starts_with("snapshot at revision") && !line.ends_with(" 0")),
        "{told:?}"
    );

    cluster.stop(newcomer).await;
    cluster.start(newcomer).await;
    assert_eq!(cluster.nodes[&newcomer].revision(), 41);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sites_that_were_given_up_are_in_nobodys_way() {
    let cluster = Cluster::of(3, 3, Compaction::default()).await;
    let asking = cluster.follower().await;
    let text = format!("{{\"padding\":{:?}}}", "x".repeat(8 << 20));
    let change = |id: &str| SiteChange { request_id: id.into(), text: text.clone(), ..SiteChange::default() };
    // More than there is room for at once.
    for n in 0..18 {
        let before = *asking.applied().borrow();
        let mut applied = asking.applied();
        tokio::select! {
            biased;
            some = applied.wait_for(|index| *index > before + 1) => drop(some.unwrap()),
            done = asking.propose_site(change(&format!("given up {n}"))) => panic!("{done:?}"),
        }
    }
    let kept = cluster.leader().await.propose_site(change("kept")).await.unwrap();
    assert_eq!(kept.reply, Reply::Published(Revision(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_voter_is_replaced_and_a_removed_node_leaves() {
    let mut cluster = Cluster::of(4, 3, Compaction::default()).await;
    let leader = cluster.leader().await;
    let status = leader.status();
    let dead = *status.voters.iter().find(|id| **id != leader.node_id()).unwrap();
    let reserve = status.learners[0];
    cluster.stop(dead).await;
    wait_until("the learner votes in its place", || {
        let voters = leader.status().voters;
        voters.contains(&reserve) && !voters.contains(&dead) && voters.len() == 3
    })
    .await;

    leader.propose(Command::RemoveNode { node_id: dead }).await.unwrap();
    wait_until("the removed node has left the membership", || {
        let status = leader.status();
        !status.voters.contains(&dead) && !status.learners.contains(&dead)
    })
    .await;
    assert!(leader.has_left(dead) && !leader.has_left(reserve) && !leader.has_left(NodeId(u64::MAX)));

    leader.transfer_leader(None).await.unwrap();
    assert_ne!(cluster.leader().await.node_id(), leader.node_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_asked_the_leader_hands_over() {
    let cluster = Cluster::of(4, 3, Compaction::default()).await;
    let leader = cluster.leader().await;
    let before = leader.status();
    let followers: Vec<NodeId> = before.voters.iter().copied().filter(|id| *id != leader.node_id()).collect();
    let learner = *cluster.nodes.keys().find(|id| !before.voters.contains(id)).unwrap();
    let (heir, asked) = (followers[0], cluster.nodes[&followers[1]].log());

    let refused = asked.request_transfer(Some(learner)).await.unwrap_err();
    assert!(matches!(&refused, TransferError::Unfit(why) if why.contains("does not vote")), "{refused}");
    assert_eq!(leader.status().leader, Some(leader.node_id()));

    let led = asked.request_transfer(Some(heir)).await.unwrap();
    assert!(led.leader == heir && led.term > before.term, "{led:?} after {before:?}");
    let next = asked.propose(publish("a", "{}")).await.unwrap();
    assert_eq!(next.reply, Reply::Published(Revision(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_stands_aside_and_says_why() {
    let mut cluster = Cluster::of(1, 1, Compaction::default()).await;
    let id = NodeId(1);
    cluster.log(1).propose(publish("a", "{}")).await.unwrap();
    cluster.log(1).trigger_snapshot().await;
    let dir = cluster.nodes[&id].dir.path().to_owned();
    let snapshot = || {
        let mut files = std::fs::read_dir(dir.join("snapshots")).unwrap().map(|file| file.unwrap().path());
        files.find(|file| file.extension().is_some_and(|extension| extension == "snapshot"))
    };
    wait_until("there is a snapshot", || snapshot().is_some()).await;
    cluster.stop(id).await;

    let path = snapshot().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut bad = whole.clone();
    *bad.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bad).unwrap();
    cluster.start(id).await;
    let log = cluster.nodes[&id].log().clone();
    let status = log.status();
    assert!(status.broken.contains(path.to_str().unwrap()), "{}", status.broken);
    assert!(status.broken.contains("away and join"), "{}", status.broken);
    assert!(!status.quorum);
    assert!(matches!(log.propose(publish("b", "{}")).await, Err(ProposeError::Broken { .. })));
    assert!(matches!(log.read_index().await, Err(ProposeError::Broken { .. })));
    cluster.stop(id).await;
    assert_eq!(std::fs::read(&path).unwrap(), bad, "what is damaged is left to the operator");

    std::fs::write(&path, &whole).unwrap();
    cluster.start(id).await;
    wait_until("the repaired log takes part", || cluster.log(1).status().quorum).await;
    assert_eq!(cluster.log(1).with_state(|state| state.revisions.active().0), Revision(1));
}
