//! Second copies of what lies in chunks: each chunk that is used has one, and it is found wherever it is.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, join, select};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use shoal_cache::Answer;
use shoal_cluster::NodeState;
use shoal_model::state::{PurgeKind, PurgeScope};
use tokio::time::timeout;

use crate::chunks::{LENGTH, MIB, asked, assert_part, assert_whole, film, part, town};
use crate::edition::Edition;
use crate::support::{Town, play};

/// The chunks from `first` to `last` are asked for at `node` until the other owner has them, too.
async fn use_chunks(town: &Town, node: usize, other: usize, first: usize, last: usize) {
    let count = (last - first + 1) as u64;
    for _ in 0..3 {
        part(town, node, first * MIB, (last + 1) * MIB - 1).await;
    }
    town.settle(|town| town.held(other) == count + 1).await;
}

/// Three nodes, of which the first owner has one chunk of the film, and the second one the film without any.
pub async fn with_one_chunk() -> (Town, &'static str, [usize; 3]) {
    let (town, text) = town(3);
    let roles = town.roles("/film");
    part(&town, roles[0], 3 * MIB, 3 * MIB).await;
    town.settle(|town| town.held(roles[1]) == 1).await;
    (town, text, roles)
}

/// The film as `node` gives it while `victim` dies, which nobody knows yet.
async fn read_while_one_dies(town: &Town, node: usize, victim: usize) -> Vec<u8> {
    let Answer::Response(response) = town.answer(node, Method::GET, "/film", &[]).await else { panic!() };
    let mut body = response.into_body();
    let begin = body.frame().await.unwrap().unwrap().into_data().unwrap();
    town.kill(town.nodes[victim].id, false);
    let rest = body.collect().await.expect("the other owner goes on").to_bytes();
    [&begin[..], &rest[..]].concat()
}

#[test]
fn both_owners_have_the_chunks_that_are_used() {
    play(async || {
        let (town, text) = town(3);
        let [primary, second, stranger] = town.roles("/film");
        part(&town, primary, 3 * MIB, 5 * MIB - 1).await;
        town.settle(|town| town.held(second) == 1).await;
        assert_eq!(town.held(primary), 3, "the object, and two chunks");
        use_chunks(&town, primary, second, 3, 4).await;

        // Nobody has noticed yet.
        town.kill(town.nodes[primary].id, false);
        for node in [second, stranger] {
            let got = part(&town, node, 3 * MIB + 5, 4 * MIB + 5).await;
            assert_part(&got, text, 3 * MIB + 5, 4 * MIB + 5);
            assert!(got.is_hit(), "{}", got.cache_status());
        }
        assert_eq!(asked(&town, 0), ["3-4"]);
        assert_whole(&town.get(stranger, "/film").await, text);
        assert_eq!(asked(&town, 1), ["0-2*", "5-5*"], "only what nobody has");
        town.kill(town.nodes[primary].id, true);
        assert_whole(&town.get(stranger, "/film").await, text);
        assert_eq!(town.origin.fetches(), 3);
        assert_eq!(town.held(stranger), 7, "it is the other owner now, and keeps what it passes on");
    });
}

#[test]
fn the_second_owner_asks_the_first_one_for_chunks_and_keeps_them() {
    play(async || {
        let (town, text, [primary, second, _]) = with_one_chunk().await;
        for expected in ["detail=peer", "detail=local-ram"] {
            let got = part(&town, second, 3 * MIB + 5, 3 * MIB + 9).await;
            assert_part(&got, text, 3 * MIB + 5, 3 * MIB + 9);
            assert!(got.is_hit() && got.cache_status().ends_with(expected), "{}", got.cache_status());
            town.settle(|town| town.held(second) == 2).await;
        }
        assert_eq!(town.origin.fetches(), 1);
        // What neither has is fetched by the first one, and both have it.
        let got = part(&town, second, 4 * MIB, 4 * MIB + 9).await;
        assert_part(&got, text, 4 * MIB, 4 * MIB + 9);
        assert_eq!(asked(&town, 1), ["4-4*"]);
        town.settle(|town| [primary, second].iter().all(|node| town.held(*node) == 3)).await;
        assert_whole(&town.get(second, "/film").await, text);
        assert_eq!(asked(&town, 2), ["0-2*", "5-5*"]);
        town.kill(town.nodes[primary].id, true);
        assert_whole(&town.get(second, "/film").await, text);
        assert_eq!(town.origin.fetches(), 4);
    });
}

#[test]
fn all_of_a_body_is_fetched_once_wherever_it_is_asked_for() {
    play(async || {
        let (town, text, [primary, second, stranger]) = with_one_chunk().await;
        for node in [second, stranger, primary] {
            assert_whole(&town.get(node, "/film").await, text);
        }
        assert_eq!(asked(&town, 1), ["0-2*", "4-5*"], "by the first owner, what it lacks");
        assert_eq!([town.held(primary), town.held(second)], [7, 7]);
    });
}

#[test]
fn an_owner_that_dies_in_the_middle_of_a_body_is_not_missed() {
    play(async || {
        let (town, text) = town(3);
        let [primary, second, stranger] = town.roles("/film");
        use_chunks(&town, primary, second, 0, 5).await;
        assert!(read_while_one_dies(&town, stranger, primary).await == text.as_bytes());
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn of_what_the_other_owner_has_in_part_only_the_rest_is_fetched() {
    play(async || {
        let (town, text) = town(3);
        let [primary, second, stranger] = town.roles("/film");
        use_chunks(&town, primary, second, 2, 3).await;
        part(&town, primary, 0, LENGTH - 1).await;
        assert_eq!(town.held(primary), 7);
        let fetches = town.origin.fetches();
        assert!(read_while_one_dies(&town, stranger, primary).await == text.as_bytes());
        let asked = asked(&town, fetches);
        assert!(!asked.is_empty() && asked.iter().all(|run| run.ends_with('*')), "{asked:?}");
        assert!(asked.iter().all(|run| !run.contains('2') && !run.contains('3')), "{asked:?}");
    });
}

#[test]
fn who_leaves_hands_its_chunks_over() {
    play(async || {
        let (town, text) = town(3);
        let [primary, second, stranger] = town.roles("/film");
        assert_whole(&town.get(primary, "/film").await, text);
        // The last one is small: it is copied at once.
        town.settle(|town| town.held(second) == 2).await;
        town.nodes[primary].cache.hand_over(u64::MAX).await;
        assert_eq!([town.held(second), town.held(stranger)], [7, 7]);
        town.kill(town.nodes[primary].id, true);
        for node in [second, stranger] {
            let got = town.get(node, "/film").await;
            assert_whole(&got, text);
            assert!(got.is_hit(), "{}", got.cache_status());
        }
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn who_comes_back_with_nothing_asks_the_others_for_chunks() {
    play(async || {
        let (mut town, text) = town(3);
        let [primary, second, stranger] = town.roles("/film");
        use_chunks(&town, primary, second, 2, 4).await;
        town.start_anew(primary);
        for (first, last, expected, objects) in [
            (3 * MIB + 5, 3 * MIB + 9, "detail=peer", 2),
            (3 * MIB + 50, 3 * MIB + 99, "detail=local-ram", 2),
            (2 * MIB, 3 * MIB - 1, "detail=peer", 3),
            (2 * MIB, 4 * MIB - 1, "detail=local-ram", 3),
        ] {
            let got = part(&town, primary, first, last).await;
            assert_part(&got, text, first, last);
            assert!(
                got.is_hit() && got.cache_status().ends_with(expected),
                "{first}-{last} {}",
                got.cache_status()
            );
            town.settle(|town| town.held(primary) == objects).await;
        }
        let got = part(&town, stranger, 4 * MIB + 5, 4 * MIB + 6).await;
        assert_part(&got, text, 4 * MIB + 5, 4 * MIB + 6);
        assert_eq!(asked(&town, 0), ["2-4"]);
        assert_whole(&town.get(primary, "/film").await, text);
        assert_eq!(asked(&town, 1), ["0-1*", "5-5*"], "only what nobody has");
    });
}

#[test]
fn a_copy_does_not_come_back_after_a_purge() {
    play(async || {
        let (town, text, [primary, second, _]) = with_one_chunk().await;
        // The first owner has not heard of the purge yet.
        town.nodes[second].cache.record_purge(1, &[PurgeScope::All], PurgeKind::Hard);
        for _ in 0..3 {
            part(&town, primary, 3 * MIB, 3 * MIB).await;
        }
        let received = |town: &Town| town.sum(|figures| figures.replicas_received);
        assert_eq!(received(&town), 1, "that of the object alone");
        town.nodes[primary].cache.record_purge(1, &[PurgeScope::All], PurgeKind::Hard);
        let new = film(11);
        town.origin.publish(Edition::new(new, "\"2\""));
        for node in [second, primary] {
            assert_part(&part(&town, node, 3 * MIB, 3 * MIB + 9).await, new, 3 * MIB, 3 * MIB + 9);
        }
        assert_ne!(text, new);
    });
}

#[test]
fn a_copy_from_after_a_purge_finds_no_chunks_from_before_it() {
    play(async || {
        let (town, _) = town(3);
        let [primary, second, _] = town.roles("/film");
        use_chunks(&town, primary, second, 3, 3).await;
        // Other bytes under the same tag: only the purge keeps the two apart, and the second owner has not heard of it yet.
        let new = film(11);
        town.origin.publish(Edition::new(new, "\"1\""));
        town.nodes[primary].cache.record_purge(1, &[PurgeScope::All], PurgeKind::Hard);
        for _ in 0..3 {
            assert_part(&part(&town, primary, 3 * MIB, 3 * MIB + 9).await, new, 3 * MIB, 3 * MIB + 9);
        }
        town.nodes[second].cache.record_purge(1, &[PurgeScope::All], PurgeKind::Hard);
        // That it came too early is not held against the copy.
        let received = |town: &Town| town.sum(|figures| figures.replicas_received);
        let before = received(&town);
        for _ in 0..3 {
            part(&town, primary, 3 * MIB, 3 * MIB + 9).await;
        }
        town.settle(|town| received(town) >= before + 2).await;
        for node in [second, primary] {
            assert_part(&part(&town, node, 3 * MIB, 3 * MIB + 9).await, new, 3 * MIB, 3 * MIB + 9);
            assert_whole(&town.get(node, "/film").await, new);
        }
    });
}

#[test]
fn a_copy_of_another_version_takes_no_chunks_over() {
    play(async || {
        let (town, _) = town(3);
        let [primary, second, stranger] = town.roles("/film");
        use_chunks(&town, primary, second, 3, 3).await;
        let new = film(11);
        town.origin.publish(Edition::new(new, "\"2\""));
        town.after_unsafe(primary, Method::PUT, "/film", StatusCode::OK).await;
        let (one, other) =
            join(part(&town, second, 3 * MIB, 3 * MIB + 9), part(&town, stranger, 3 * MIB, 3 * MIB + 9))
                .await;
        assert_part(&one, new, 3 * MIB, 3 * MIB + 9);
        assert_part(&other, new, 3 * MIB, 3 * MIB + 9);
        for node in [primary, second, stranger] {
            assert_whole(&town.get(node, "/film").await, new);
        }
    });
}

#[test]
fn a_region_asks_the_one_that_shields_the_upstream_for_chunks() {
    play(async || {
        let mut town = Town::of(&[("near", ""), ("near", ""), ("far", ""), ("far", "")]);
        town.take_route("show");
        let text = film(0);
        town.origin.publish(Edition::new(text, "\"1\""));
        for (chunk, objects, fetches) in [(3, 2, ["3-3"].as_slice()), (4, 3, &["3-3", "4-4*"])] {
            let (first, last) = (chunk * MIB + 5, chunk * MIB + 9);
            let range = format!("bytes={first}-{last}");
            for node in [0, 1, 2, 3] {
                let got = town.get_with(node, "/show", &[("range", &range)]).await;
                assert_part(&got, text, first, last);
            }
            assert_eq!(asked(&town, 0), fetches, "one fetch for both regions");
            for region in [[0, 1], [2, 3]] {
                town.settle(|town| region.iter().any(|node| town.held(*node) == objects)).await;
            }
        }
    });
}

#[test]
fn nodes_that_ask_each_other_for_a_chunk_do_not_wait_for_each_other() {
    play(async || {
        let (town, text, [primary, second, _]) = with_one_chunk().await;
        // It drains, and nobody else has heard so yet.
        town.change_for(primary, town.nodes[primary].id, |node| node.state = NodeState::Draining);
        let both =
            join(part(&town, primary, 4 * MIB, 4 * MIB + 9), part(&town, second, 4 * MIB, 4 * MIB + 9));
        let both = timeout(Duration::from_secs(5), both).await;
        let (drained, asked) = both.expect("neither waits for the other");
        assert_part(&drained, text, 4 * MIB, 4 * MIB + 9);
        assert_part(&asked, text, 4 * MIB, 4 * MIB + 9);
        assert!(town.origin.fetches() <= 3, "two views, two fetches more: {}", town.origin.fetches());
    });
}

#[test]
fn who_looks_for_what_is_there_waits_for_nobody_who_fetches_it() {
    play(async || {
        let directory = tempfile::tempdir().unwrap();
        let mut town = Town::on_disk(3, directory.path()).await;
        town.take_route("film");
        let text = film(0);
        town.origin.publish(Edition::new(text, "\"1\""));
        let [primary, second, stranger] = town.roles("/film");
        use_chunks(&town, primary, second, 0, 5).await;
        town.settle(|town| town.nodes[primary].cache.counters().disk_objects == 7).await;
        town.restart(primary).await;

        // Both are answered from disk, chunk by chunk, as fast as they read.
        let only = [("cache-control", "only-if-cached")];
        let looking = town.answer(stranger, Method::GET, "/film", &only).await;
        let from = format!("bytes={MIB}-");
        let reading = town.answer(primary, Method::GET, "/film", &[("range", &from)]).await;
        let (Answer::Response(looking), Answer::Response(reading)) = (looking, reading) else { panic!() };
        town.forget_everything(primary).await;
        town.origin.hold();
        let mut reading = reading.into_body();
        let mut begin = Vec::new();
        let reads_on = async {
            while let Some(frame) = reading.frame().await {
                begin.extend(frame.unwrap().into_data().unwrap());
            }
        };
        let asks = town.settle(|town| town.origin.fetches() == 2);
        let has_asked = matches!(select(pin!(asks), pin!(reads_on)).await, Either::Left(_));
        assert!(has_asked, "it asks for what it does not find any more");
        let looking = timeout(Duration::from_secs(5), looking.into_body().collect()).await;
        let looking = looking.expect("nobody waits for the origin").expect("the other owner goes on");
        assert!(looking.to_bytes() == text.as_bytes());
        assert_eq!(town.origin.fetches(), 2);
        town.origin.let_go(9);
        begin.extend(reading.collect().await.unwrap().to_bytes());
        assert!(begin == text.as_bytes()[MIB..]);
    });
}
