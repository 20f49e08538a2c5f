//! Where objects are, beyond one primary and one copy: regions, former owners, hot copies; and how much is fetched at once.

use std::time::Duration;

use futures_util::future::{join, join_all};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use shoal_cache::Answer;
use shoal_cluster::NodeState;
use shoal_model::state::{PurgeKind, PurgeScope};

use crate::got::Got;
use crate::origin::reply;
use crate::support::{Town, play};

/// Three nodes here, two in the region that shields the upstream.
const TWO_REGIONS: [(&str, &str); 5] = [("here", ""), ("here", ""), ("here", ""), ("far", ""), ("far", "")];

/// Names of the nodes that an answer passed, the nearest to the origin first.
fn way(status: &str) -> Vec<&str> {
    status.split(", ").map(|member| member.split(';').next().unwrap()).collect()
}

#[test]
fn a_region_asks_the_origin_through_the_region_that_shields_it() {
    play(async || {
        let town = Town::of(&TWO_REGIONS);
        let [primary, _, stranger] = town.roles("/x");
        assert!(primary < 3 && stranger < 3, "each region is a placement of its own");
        town.origin.say(reply("max-age=60", "hello"));
        let first = town.get(stranger, "/x").await;
        assert_eq!(first.text(), "hello");
        let status = first.cache_status();
        let passed = way(&status);
        let (near, here) = (format!("n{}", primary + 1), format!("n{}", stranger + 1));
        assert!(["n4", "n5"].contains(&passed[0]) && passed[1..] == [&near, &here], "{status}");

        // Two copies in either region.
        town.settle(|town| town.sum(|figures| figures.objects) == 4).await;
        for node in 0..5 {
            assert!(town.get(node, "/x").await.is_hit());
        }
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn without_the_shield_region_the_origin_is_asked_from_here() {
    play(async || {
        let town = Town::of(&TWO_REGIONS);
        [3, 4].into_iter().for_each(|node| town.kill(town.nodes[node].id, false));
        let [primary, _, stranger] = town.roles("/x");
        town.origin.say(reply("max-age=60", "hello"));
        assert_eq!(town.get(stranger, "/x").await.text(), "hello", "nobody knows yet");
        [3, 4].into_iter().for_each(|node| town.kill(town.nodes[node].id, true));
        let [primary_y, ..] = town.roles("/y");
        town.origin.say(reply("max-age=60", "hello"));
        assert_eq!(way(&town.get(primary_y, "/y").await.cache_status()).len(), 1);
        assert!(town.get(primary, "/x").await.is_hit());
    });
}

#[test]
fn a_purge_reaches_what_came_through_the_shield() {
    play(async || {
        let town = Town::of(&TWO_REGIONS);
        let [primary, ..] = town.roles("/x");
        town.origin.say(reply("max-age=60", "old"));
        town.get(primary, "/x").await;
        town.settle(|town| town.sum(|figures| figures.objects) == 4).await;
        for node in &town.nodes {
            node.cache.record_purge(5, &[PurgeScope::All], PurgeKind::Hard);
        }
        town.origin.say(reply("max-age=60", "new"));
        for node in 0..5 {
            assert_eq!(town.get(node, "/x").await.text(), "new");
        }
        assert_eq!(town.origin.fetches(), 2);
    });
}

#[test]
fn whoever_becomes_an_owner_asks_those_of_before() {
    play(async || {
        let town = Town::new(3);
        let [primary, second, stranger] = town.roles("/x");
        let (gone, ids) = (primary, [second, stranger].map(|node| town.nodes[node].id));
        town.change(town.nodes[gone].id, |node| node.state = NodeState::Joining);
        assert_eq!(town.nodes[0].cache.locate("http://a.org/x")[0].1.primary, Some(ids[0]));
        // Everybody sees it; the owner of before fills, and there is no copy.
        let mut big = reply("max-age=60", "").with("etag", "\"1\"");
        big.body = vec!["x".repeat(300_000).leak()];
        town.origin.say(big);
        town.get(second, "/x").await;
        town.change(town.nodes[gone].id, |node| node.state = NodeState::Ready);
        let hit = town.get(primary, "/x").await;
        assert_eq!((hit.text().len(), hit.is_hit()), (300_000, true), "{}", hit.cache_status());
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn what_is_asked_for_often_is_kept_by_who_asks() {
    play(async || {
        let (town, [primary, _, stranger]) = Town::with_copies(reply("max-age=600", "hello")).await;
        let detail = |status: &str| status.rsplit("detail=").next().unwrap().to_owned();
        for expected in ["peer", "peer", "local-ram", "local-ram"] {
            assert_eq!(detail(&town.get(stranger, "/x").await.cache_status()), expected);
        }
        assert_eq!(town.sum(|figures| figures.objects), 3);
        let copy = town.get(stranger, "/x").await;
        assert!((50..=60).contains(&lifetime(&copy)), "a copy is not kept for long: {}", copy.cache_status());

        // As everything else, it goes with a purge, and with a change of the resource.
        for node in &town.nodes {
            node.cache.record_purge(5, &[PurgeScope::All], PurgeKind::Hard);
        }
        town.origin.say_always(reply("max-age=600", "new"));
        assert_eq!(town.get(stranger, "/x").await.text(), "new");
        for _ in 0..3 {
            assert!(town.get(stranger, "/x").await.is_hit());
        }
        town.after_unsafe(primary, Method::POST, "/x", StatusCode::OK).await;
        town.origin.say_always(reply("max-age=600", "newer"));
        assert_eq!(town.get(stranger, "/x").await.text(), "newer");
    });
}

#[test]
fn what_is_never_copied_is_on_one_node_whoever_asks() {
    play(async || {
        let mut town = Town::new(3);
        town.take_route("lone");
        let [primary, second, stranger] = town.roles("/lone");
        town.origin.say(reply("max-age=600", "hello"));
        for node in [second, stranger, primary, second, stranger, second, stranger] {
            assert_eq!(town.get(node, "/lone").await.text(), "hello");
        }
        let held = [primary, second, stranger].map(|node| town.held(node));
        assert_eq!((held, town.origin.fetches()), ([1, 0, 0], 1));
        town.nodes[primary].cache.hand_over(u64::MAX).await;
        let held = [second, stranger].map(|node| town.held(node));
        assert_eq!(held[0] + held[1], 1, "its one copy moves");
    });
}

#[test]
fn an_owner_tells_which_objects_are_hot() {
    play(async || {
        // Nobody asks twice within a short while: it is many that ask once.
        let town = Town::new(8);
        let [primary, second, _] = town.roles("/x");
        town.origin.say(reply("max-age=600", "hello"));
        town.get(primary, "/x").await;
        town.settle(|town| town.sum(|figures| figures.objects) == 2).await;
        let strangers: Vec<usize> = (0..8).filter(|node| ![primary, second].contains(node)).collect();
        for node in &strangers {
            town.get(*node, "/x").await;
        }
        let kept: Vec<u64> = strangers.iter().map(|node| town.held(*node)).collect();
        assert_eq!(kept, [0, 0, 0, 1, 1, 1]);
    });
}

#[test]
fn whoever_comes_late_begins_with_what_is_there_on_every_node() {
    play(async || {
        let town = Town::new(3);
        let [primary, second, stranger] = town.roles("/x");
        town.origin.say(reply("max-age=60", "").with("content-length", "6").dripping(vec!["aaa", "bbb"]));
        let mut readers = Vec::new();
        for node in [stranger, primary, second, stranger] {
            let Answer::Response(response) = town.answer(node, Method::GET, "/x", &[]).await else {
                panic!()
            };
            let mut body = response.into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(first, "aaa", "the origin has not sent more yet");
            readers.push(body);
        }
        town.origin.let_go(1);
        for body in readers {
            assert_eq!(body.collect().await.unwrap().to_bytes(), "bbb");
        }
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn an_owner_with_too_much_to_do_is_spared_what_the_other_one_has() {
    play(async || {
        let (town, [primary, second, stranger]) = Town::with_copies(reply("max-age=60", "hello")).await;
        let giver = async || way(&town.get(stranger, "/x").await.cache_status())[0].to_owned();
        assert_eq!(giver().await, format!("n{}", primary + 1));

        let slow = reply("max-age=60", "").with("content-length", "6").dripping(vec!["aaa", "bbb"]);
        let paths = (0..).map(|n| format!("/slow/{n}")).filter(|path| town.roles(path)[0] == primary);
        let mut bodies = Vec::new();
        for path in paths.take(20) {
            town.origin.say(slow.clone());
            let Answer::Response(response) = town.answer(stranger, Method::GET, &path, &[]).await else {
                panic!()
            };
            bodies.push(response.into_body());
        }
        // What is kept here meanwhile is forgotten, so that somebody has to be asked.
        town.forget(stranger, "/x").await;
        assert_eq!(giver().await, format!("n{}", second + 1));
        town.origin.let_go(20);
        for body in bodies {
            assert_eq!(body.collect().await.unwrap().to_bytes(), "aaabbb");
        }
        town.forget(stranger, "/x").await;
        assert_eq!(giver().await, format!("n{}", primary + 1));
    });
}

#[test]
fn one_upstream_gets_so_many_fills_at_once_and_the_others_wait() {
    play(async || {
        let mut town = Town::new(1);
        town.take_route("mill");
        town.origin.hold();
        town.origin.say_always(reply("max-age=60", "hello"));
        let paths: Vec<String> = (0..5).map(|n| format!("/mill/{n}")).collect();
        let crowd = join_all(paths.iter().map(|path| town.get(0, path)));
        let release = async {
            for answered in 0..5 {
                let under_way = (answered + 2).min(5);
                town.until_asked(under_way).await;
                town.settle(|_| true).await;
                assert_eq!(town.origin.fetches(), under_way);
                town.origin.let_go(1);
            }
        };
        let (crowd, ()) = join(crowd, release).await;
        assert!(crowd.iter().all(|got| got.text() == "hello"));
    });
}

#[test]
fn a_fill_that_may_not_wait_is_an_overflow_or_what_is_stale() {
    play(async || {
        let mut town = Town::new(1);
        town.take_route("gate");
        town.origin.say(reply("max-age=0, stale-if-error=60", "old").with("etag", "\"1\""));
        assert_eq!(town.get(0, "/gate/stale").await.text(), "old");
        let drip = reply("max-age=60", "").with("content-length", "6").dripping(vec!["aaa", "bbb"]);
        town.origin.say(drip);
        let Answer::Response(running) = town.answer(0, Method::GET, "/gate/slow", &[]).await else {
            panic!()
        };
        assert_eq!(town.get(0, "/gate/new").await.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(town.get(0, "/gate/stale").await.text(), "old");
        assert_eq!(town.origin.fetches(), 2);
        town.origin.let_go(1);
        assert_eq!(running.into_body().collect().await.unwrap().to_bytes(), "aaabbb");
        town.origin.say(reply("max-age=60", "new"));
        assert_eq!(town.get(0, "/gate/new").await.text(), "new");
    });
}

#[test]
fn who_is_taken_for_the_primary_in_error_does_not_fill() {
    play(async || {
        let town = Town::new(3);
        let [primary, second, stranger] = town.roles("/x");
        // The stranger believes that the primary is gone. Whom it asks instead knows better.
        town.change_for(stranger, town.nodes[primary].id, |node| node.alive = false);
        town.origin.hold();
        town.origin.say_always(reply("max-age=60", "hello"));
        let both = join(town.get(stranger, "/x"), town.get(primary, "/x"));
        let release = town.let_go(2, 2);
        let ((got, filled), ()) = join(both, release).await;
        assert_eq!((got.text(), way(&got.cache_status()).len()), ("hello", 1), "{}", got.cache_status());
        assert_eq!(filled.text(), "hello");
        assert!(town.get(second, "/x").await.is_hit());
        assert_eq!(town.origin.fetches(), 2, "two views, two fetches");
    });
}

#[test]
fn nodes_that_ask_each_other_do_not_wait_for_each_other() {
    play(async || {
        let town = Town::new(3);
        let [primary, _, stranger] = town.roles("/x");
        // It drains, and asks the owners of then; nobody else has heard so yet, and asks it.
        town.change_for(primary, town.nodes[primary].id, |node| node.state = NodeState::Draining);
        town.origin.say_always(reply("max-age=60", "hello"));
        let both = join(town.get(primary, "/x"), town.get(stranger, "/x"));
        let both = tokio::time::timeout(Duration::from_secs(5), both).await;
        let (drained, asked) = both.expect("neither waits for the other");
        assert_eq!((drained.text(), asked.text()), ("hello", "hello"));
        assert!(town.origin.fetches() <= 2, "two views, two fetches: {}", town.origin.fetches());
    });
}

#[test]
fn who_began_anew_gets_its_copies_again() {
    play(async || {
        let (mut town, [primary, second, stranger]) = Town::with_copies(reply("max-age=600", "hello")).await;
        town.start_anew(second);
        assert_eq!(town.sum(|figures| figures.objects), 1);
        assert!(town.get(primary, "/x").await.is_hit());
        town.settle(|town| town.sum(|figures| figures.objects) == 2).await;
        town.kill(town.nodes[primary].id, false);
        assert!(town.get(stranger, "/x").await.is_hit());
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn an_orphan_is_brought_to_its_owners() {
    play(async || {
        let town = Town::new(3);
        let [primary, second, stranger] = town.roles("/x");
        let owners = [primary, second].map(|node| town.nodes[node].id);
        owners.into_iter().for_each(|owner| town.kill(owner, false));
        town.origin.say(reply("max-age=600", "hello").with("etag", "\"1\""));
        assert_eq!(town.get(stranger, "/x").await.text(), "hello");
        let orphan = town.get(stranger, "/x").await;
        assert!(orphan.is_hit() && lifetime(&orphan) <= 60, "{}", orphan.cache_status());

        owners.into_iter().for_each(|owner| town.bring_back(owner));
        town.settle(|town| town.sum(|figures| figures.replicas_received) == 2).await;
        for node in [primary, second] {
            let hit = town.get(node, "/x").await;
            assert!(hit.is_hit() && lifetime(&hit) > 500, "the owners have it for as long as it lives");
        }
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn a_node_that_leaves_hands_over_what_is_used_most() {
    play(async || {
        let town = Town::new(4);
        town.origin.say_always(reply("max-age=600", "hello"));
        let paths: Vec<String> = (0..20).map(|n| format!("/{n}")).collect();
        for path in &paths {
            town.get(town.roles(path)[0], path).await;
        }
        town.settle(|town| town.sum(|figures| figures.objects) == 40).await;
        let leaving = town.roles(&paths[0])[0];
        let held = town.held(leaving);
        town.nodes[leaving].cache.hand_over(u64::MAX).await;
        assert_eq!(town.sum(|figures| figures.objects), 40 + held, "each has two copies without this node");
        town.kill(town.nodes[leaving].id, true);
        for path in &paths {
            for node in (0..4).filter(|node| *node != leaving) {
                assert!(town.get(node, path).await.is_hit(), "{path}");
            }
        }
        assert_eq!(town.origin.fetches(), 20);
    });
}

#[test]
fn a_node_that_leaves_answers_its_peers_to_the_end() {
    play(async || {
        let town = Town::new(3);
        let [primary, _, stranger] = town.roles("/x");
        let drip = reply("max-age=60", "").with("content-length", "6").dripping(vec!["aaa", "bbb"]);
        town.origin.say(drip);
        let Answer::Response(response) = town.answer(stranger, Method::GET, "/x", &[]).await else {
            panic!()
        };
        let leaving = town.nodes[primary].cache.clone();
        assert_eq!(leaving.peers_under_way(), 1);
        town.origin.let_go(1);
        let (body, ()) = join(response.into_body().collect(), leaving.peers_answered()).await;
        assert_eq!(body.unwrap().to_bytes(), "aaabbb");
        assert_eq!(leaving.peers_under_way(), 0);
    });
}

/// Seconds of freshness left.
fn lifetime(got: &Got) -> i64 {
    got.cache_status().split("ttl=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap()
}
