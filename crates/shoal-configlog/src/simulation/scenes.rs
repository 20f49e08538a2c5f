//! Single things that go wrong, with what is promised of each.

use std::time::Duration;

use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use serde::Serialize;
use shoal_model::state::{Command, Reply, SiteText};
use shoal_model::{NodeId, Revision};
use shoal_proto::raft as proto;
use tokio::time::Instant;

use super::clients::publish;
use super::world::{LOOK_AGAIN, Process, RECOVERY, World, scene};
use crate::log::ProposeError;
use crate::network::encode;
use crate::timings::Timings;
use crate::types::{TypeConfig, Vote};

/// No election takes so long.
const LONG: Duration = Duration::from_secs(20);

/// A node that does not lead.
fn follower(world: &World, leader: NodeId) -> Result<(NodeId, Process), String> {
    let node = world.nodes().into_iter().find(|node| *node != leader).ok_or("nobody else is there")?;
    Ok((node, world.process(node).ok_or("it does not run")?))
}

/// For how long nothing is written elsewhere, once the leader hears nobody while everybody hears it.
async fn outlive_a_deaf_leader(world: &World, leader: NodeId) -> Result<Duration, String> {
    let others = world.nodes().into_iter().filter(|node| *node != leader);
    others.for_each(|other| world.network().cut(other, leader));
    let since = Instant::now();
    // What it still takes must not keep it in its place either.
    if let Some(deaf) = world.process(leader) {
        tokio::spawn(async move { Box::pin(deaf.log.propose(publish(1, None))).await.is_ok() });
    }
    let (_, other) = follower(world, leader)?;
    while Box::pin(other.log.propose(publish(2, None))).await.is_err() {
        if since.elapsed() > RECOVERY {
            return Err(format!("not within {RECOVERY:?}: {:?}", other.log.status()));
        }
    }
    Ok(since.elapsed())
}

#[test]
fn a_leader_that_hears_nobody_makes_room() {
    let outlive = |seed| {
        let outlived = scene(seed, async |world, leader| outlive_a_deaf_leader(world, leader).await);
        outlived.unwrap_or_else(|why| panic!("seed {seed}: {why}"))
    };
    let longest = (1..=20).map(outlive).max().unwrap_or_default();
    println!("nothing was written for {longest:?} at most");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

/// What it has sent to the others is committed, or may be, but it has not flushed it.
async fn come_back_with_less(world: &World, leader: NodeId) -> Result<(), String> {
    let (_, other) = follower(world, leader)?;
    world.disk(leader).set_slow(true);
    let leading = world.process(leader).ok_or("it leads")?;
    tokio::spawn(async move { Box::pin(leading.log.propose(publish(1, None))).await.is_ok() });
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.kill(leader);
    world.disk(leader).set_slow(false);
    world.start(leader).await?;
    while Box::pin(other.log.propose(publish(2, None))).await.is_err() {}
    world.recovers().await?;
    world.agrees().await
}

#[test]
fn a_leader_that_comes_back_with_less_does_not_lead_on() {
    for seed in 1..=20 {
        let outcome = scene(seed, async |world, leader| come_back_with_less(world, leader).await);
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}

/// Its own flush of what it has sent to the leader is the one that fails: it knows less than before, not that nothing happened.
async fn lose_the_disk_on_the_way(world: &World, leader: NodeId) -> Result<(), String> {
    let (node, process) = follower(world, leader)?;
    world.disk(node).fail();
    let proposed = Box::pin(process.log.propose(publish(1, None))).await;
    let written = Box::pin(world.process(leader).ok_or("it leads")?.log.propose(publish(1, None))).await;
    let written = matches!(written.map(|written| written.reply), Ok(Reply::Published(_)));
    match proposed {
        Ok(_) | Err(ProposeError::OutcomeUnknown { .. }) if written => Ok(()),
        proposed => Err(format!("{node} says {proposed:?}; written: {written}")),
    }
}

#[test]
fn a_node_whose_disk_fails_on_the_way_denies_nothing() {
    for seed in 1..=20 {
        let outcome = scene(seed, async |world, leader| lose_the_disk_on_the_way(world, leader).await);
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}

/// The largest minority with `first`, and without the leader unless that is it, is cut off for long.
async fn refuse_what_is_known_to_be_in_vain(
    world: &World,
    leader: NodeId,
    first: NodeId,
) -> Result<(), String> {
    let mut inside = vec![first];
    inside.extend(world.nodes().into_iter().filter(|node| ![first, leader].contains(node)));
    let outside = inside.split_off(world.nodes().len() / 2);
    for near in &inside {
        for far in outside.iter().copied().chain([leader]).filter(|far| !inside.contains(far)) {
            world.network().cut(*near, far);
            world.network().cut(far, *near);
        }
    }
    tokio::time::sleep(LONG).await;
    for node in &inside {
        let process = world.process(*node).ok_or("it does not run")?;
        let since = Instant::now();
        let proposed = Box::pin(process.log.propose(publish(node.0, None))).await;
        let read = Box::pin(process.log.read_index()).await;
        let took = since.elapsed();
        for refused in [proposed.map(|proposed| proposed.index), read] {
            match refused {
                Err(ProposeError::NoQuorum { lost_for, .. }) if lost_for > LONG / 2 => {}
                other => return Err(format!("{node} says {other:?}")),
            }
        }
        // One more attempt at an election each.
        if took > Timings::LAN.silence() + Timings::LAN.election_max {
            return Err(format!("{node} says so after {took:?}"));
        }
    }
    // Whoever is back is worth the wait.
    world.network().mend();
    for node in &inside {
        let process = world.process(*node).ok_or("it does not run")?;
        let proposed = Box::pin(process.log.propose(publish(10 + node.0, None))).await;
        proposed.map_err(|error| format!("{node} is back and says {error}"))?;
    }
    world.agrees().await
}

#[test]
fn who_has_been_without_a_quorum_for_long_refuses_at_once() {
    for seed in 1..=20 {
        let outcome = scene(seed, async |world, leader| {
            refuse_what_is_known_to_be_in_vain(world, leader, leader).await
        });
        assert_eq!(outcome, Ok(()), "with the leader, seed {seed}");
        let outcome = scene(seed, async |world, leader| {
            let (follower, _) = follower(world, leader)?;
            refuse_what_is_known_to_be_in_vain(world, leader, follower).await
        });
        assert_eq!(outcome, Ok(()), "without the leader, seed {seed}");
    }
}

/// It has heard no other leader for long when another one begins to lead.
async fn hand_over(world: &World, leader: NodeId) -> Result<(), String> {
    tokio::time::sleep(LONG).await;
    let process = world.process(leader).ok_or("it leads")?;
    let leading = process.clone();
    tokio::spawn(async move { Box::pin(leading.log.transfer_leader(None)).await.is_ok() });
    let since = Instant::now();
    while process.log.status().leader == Some(leader) && since.elapsed() < RECOVERY {
        tokio::time::sleep(LOOK_AGAIN / 20).await;
    }
    match process.log.status() {
        status if status.leader == Some(leader) || status.staleness > Timings::LAN.silence() => {
            Err(format!("{status:?}"))
        }
        _ => Ok(()),
    }
}

#[test]
fn who_led_a_moment_ago_has_not_been_without_a_quorum_for_long() {
    for seed in 1..=20 {
        let outcome = scene(seed, async |world, leader| hand_over(world, leader).await);
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}

/// What it decides by itself while it is cut off, also in the moment before it knows, is not written when it is back; what
/// somebody has asked it for is.
async fn come_back_with_decisions(world: &World, leader: NodeId) -> Result<(), String> {
    let deposed = world.process(leader).ok_or("it leads")?;
    for other in world.nodes().into_iter().filter(|node| *node != leader) {
        world.network().cut(leader, other);
        world.network().cut(other, leader);
    }
    let decide = |value| {
        let log = deposed.log.clone();
        tokio::spawn(async move { Box::pin(log.propose_as_leader(publish(value, None))).await })
    };
    let early = decide(1);
    let (_, other) = follower(world, leader)?;
    while Box::pin(other.log.propose(publish(2, None))).await.is_err() {}
    let late = decide(3);
    let log = deposed.log.clone();
    let asked = tokio::spawn(async move { Box::pin(log.propose(publish(4, None))).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.network().mend();
    for decided in [early, late] {
        match decided.await.map_err(|error| error.to_string())? {
            Err(ProposeError::NoQuorum { .. } | ProposeError::OutcomeUnknown { .. }) => {}
            decided => return Err(format!("what it has decided by itself: {decided:?}")),
        }
    }
    let asked = asked.await.map_err(|error| error.to_string())?;
    asked.map_err(|error| format!("what it was asked for: {error}"))?;
    world.recovers().await?;
    world.agrees().await?;
    let (revision, text) = other.log.with_state(|state| state.revisions.active());
    if revision == Revision(2) { Ok(()) } else { Err(format!("revision {revision} is {text}")) }
}

#[test]
fn a_leader_that_was_cut_off_comes_back_with_decisions_in_vain() {
    for seed in 1..=20 {
        let outcome = scene(seed, async |world, leader| come_back_with_decisions(world, leader).await);
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}

/// A node has the leader asked to write a site that is none.
async fn pass_on_what_nobody_can_read(world: &World, leader: NodeId) -> Result<(), String> {
    let (_, process) = follower(world, leader)?;
    let mut command = publish(1, None);
    if let Command::Publish { site, .. } = &mut command {
        *site = SiteText::Inline("not json".to_owned());
    }
    match Box::pin(process.log.propose(command)).await {
        Err(ProposeError::Refused { .. }) => world.agrees().await,
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn what_nobody_can_read_is_not_written_for_another_node() {
    let outcome = scene(1, async |world, leader| pass_on_what_nobody_can_read(world, leader).await);
    assert_eq!(outcome, Ok(()));
}

/// One of them says in all that it can say that it is in the last term but one.
async fn hear_of_the_last_term(world: &World, leader: NodeId) -> Result<(), String> {
    let term = u64::MAX - 1;
    let (liar, process) = follower(world, leader)?;
    let (leads, asks) = (Vote::new_committed(term, liar.0), Vote::new(term, liar.0));
    for to in world.nodes().into_iter().filter(|node| *node != liar) {
        let mut raft = world.network().peers(liar, 1).raft(to).map_err(|error| error.to_string())?;
        let append = AppendEntriesRequest::<TypeConfig> {
            vote: leads,
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        let append = proto::AppendEntriesRequest { payload: payload(&append)? };
        let ask = payload(&VoteRequest::<TypeConfig>::new(asks, None))?;
        let transfer = payload(&TransferLeaderRequest::<TypeConfig>::new(leads, to.0, None))?;
        let answers = [
            raft.append_entries(append).await.err(),
            raft.vote(proto::VoteRequest { payload: ask.clone() }).await.err(),
            raft.pre_vote(proto::PreVoteRequest { payload: ask }).await.err(),
            raft.transfer_leader(proto::TransferLeaderRequest { payload: transfer }).await.err(),
            raft.last_confirmed(proto::LastConfirmedRequest { term }).await.err(),
        ];
        for (n, answer) in answers.into_iter().enumerate() {
            if answer.is_none_or(|refused| !refused.message().contains("is not believed")) {
                return Err(format!("{to} believes message {n}"));
            }
        }
    }
    world.kill(leader);
    while Box::pin(process.log.propose(publish(1, None))).await.is_err() {}
    world.start(leader).await?;
    world.recovers().await?;
    world.agrees().await?;
    let reached = process.log.status().term;
    if reached < 99 { Ok(()) } else { Err(format!("term {reached}")) }
}

fn payload<T: Serialize>(message: &T) -> Result<Vec<u8>, String> {
    encode(message).map_err(|status| status.message().to_owned())
}

#[test]
fn nobody_is_led_to_the_last_term() {
    for seed in 1..=20 {
        let outcome = scene(seed, async |world, leader| hear_of_the_last_term(world, leader).await);
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}
