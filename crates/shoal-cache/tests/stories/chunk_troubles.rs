//! Objects in chunks where the origin does not do what is asked of it, and where it cannot be asked.

use std::time::Duration;

use futures_util::future::join3;
use http::{Method, StatusCode};
use shoal_cache::Answer;
use shoal_model::state::{PurgeKind, PurgeScope};
use shoal_policy::failure::Failure;
use tokio::time::timeout;

use crate::chunks::{LENGTH, MIB, asked, assert_part, assert_whole, film, part, town};
use crate::edition::Edition;
use crate::got::{Got, collect};
use crate::origin::{Reply, reply};
use crate::support::{Town, play};

#[test]
fn an_origin_that_sends_other_ranges_than_it_is_asked_for_is_asked_for_what_is_wanted() {
    play(async || {
        for at in [5, 3 * MIB + 5] {
            for is_capped in [false, true] {
                let (town, text) = town(1);
                let edition = Edition::new(text, "\"1\"");
                town.origin.publish(match is_capped {
                    true => edition.by(MIB / 2),
                    false => edition.ignoring_if_range(),
                });
                let first = part(&town, 0, at, at + 9).await;
                if is_capped || at < MIB {
                    assert!(first.is_direct, "{} {}", first.status, first.cache_status());
                } else {
                    assert_part(&first, text, at, at + 9);
                    continue;
                }
                let (fetches, next) = (town.origin.fetches(), at + 50);
                assert_part(&part(&town, 0, next, next + 9).await, text, next, next + 9);
                assert_eq!(
                    asked(&town, fetches),
                    [format!("bytes={next}-{}", next + 9)],
                    "once, and no more"
                );
                assert_whole(&town.get(0, "/film").await, text);
            }
        }
    });
}

#[test]
fn a_version_that_comes_between_two_questions_is_what_downstream_gets() {
    play(async || {
        let (town, text) = town(1);
        let old = reply("max-age=60", &text[5..10]).status(206).with("etag", "\"1\"");
        town.origin.say(old.with("content-range", &format!("bytes 5-9/{LENGTH}")));
        let new = film(11);
        town.origin.publish(Edition::new(new, "\"2\""));
        assert!(part(&town, 0, 5, 9).await.is_direct, "it asks the origin for itself");
        assert_eq!(asked(&town, 0), ["bytes=5-9", "0-0*"]);
        assert_part(&part(&town, 0, 5, 9).await, new, 5, 9);
    });
}

/// A node that has chunks 3 and 4, stale and kept under these terms, on disk and nowhere else.
async fn town_on_disk(directory: &std::path::Path, terms: &'static str) -> (Town, &'static str) {
    let mut town = Town::on_disk(1, directory).await;
    town.take_route("film");
    let text = film(0);
    town.origin.publish(Edition::new(text, "\"1\"").under(terms));
    for _ in 0..2 {
        part(&town, 0, 3 * MIB, 5 * MIB - 1).await;
    }
    town.settle(|town| town.sum(|figures| figures.disk_objects) == 3).await;
    town.restart(0).await;
    town.nodes[0].cache.record_purge(1, &[PurgeScope::All], PurgeKind::Soft);
    (town, text)
}

#[test]
fn chunks_on_disk_bridge_an_error() {
    play(async || {
        let directory = tempfile::tempdir().unwrap();
        let (town, text) = town_on_disk(directory.path(), "max-age=60, stale-if-error=60").await;
        let troubles = [reply("", "sorry").status(503), Reply::failed(Failure::UpstreamConnectFailed)];
        for (n, trouble) in troubles.into_iter().enumerate() {
            town.origin.say(trouble);
            let at = 3 * MIB + 5 + n;
            assert_part(&part(&town, 0, at, at + MIB).await, text, at, at + MIB);
            assert_eq!(town.sum(|figures| figures.hits), 0, "what is stale is no hit");
        }
        assert_eq!(town.sum(|figures| figures.stale), 2);
        // Of what is not all here, nothing takes the place of an error.
        town.origin.say(Reply::failed(Failure::UpstreamConnectFailed));
        assert_eq!(part(&town, 0, 2 * MIB, 4 * MIB).await.status, StatusCode::BAD_GATEWAY);
    });
}

#[test]
fn chunks_on_disk_are_used_while_the_origin_is_asked_about_them() {
    play(async || {
        let directory = tempfile::tempdir().unwrap();
        let (town, text) = town_on_disk(directory.path(), "max-age=60, stale-while-revalidate=60").await;
        town.origin.hold();
        let fetches = town.origin.fetches();
        let soon = async |at| timeout(Duration::from_secs(5), part(&town, 0, at, at + MIB)).await;
        for at in [3 * MIB + 5, 3 * MIB + 6] {
            let got: Got = soon(at).await.expect("nobody waits for the origin");
            assert_part(&got, text, at, at + MIB);
        }
        town.settle(|town| town.origin.fetches() > fetches).await;
        assert_eq!(town.origin.fetches(), fetches + 1);
        town.origin.let_go(9);
    });
}

#[test]
fn a_tag_that_became_weak_is_no_ground_to_add_to_what_is_here() {
    play(async || {
        let (town, text) = town(1);
        town.origin.publish(Edition::new(text, "\"1\"").under("no-cache"));
        part(&town, 0, 3 * MIB, 3 * MIB + 5).await;
        town.origin.say(reply("max-age=60", "").with("etag", "W/\"1\"").status(304));
        assert_part(&part(&town, 0, 3 * MIB, 3 * MIB + 5).await, text, 3 * MIB, 3 * MIB + 5);
        for (first, last) in [(4 * MIB, 4 * MIB + 9), (3 * MIB, 4 * MIB + 9)] {
            assert_part(&part(&town, 0, first, last).await, text, first, last);
        }
        assert_whole(&town.get(0, "/film").await, text);
    });
}

#[test]
fn who_asks_for_a_range_does_not_wait_for_what_is_not_kept_in_chunks() {
    play(async || {
        let (town, text) = town(1);
        town.origin.publish(Edition::new(text, "W/\"1\""));
        let at = 3 * MIB;
        let range = |last: usize| format!("bytes {at}-{last}/{LENGTH}");
        let weak = |body, last| {
            let part = reply("max-age=60", body).status(206).with("etag", "W/\"1\"");
            part.with("content-range", &range(last))
        };
        town.origin.say(weak(&text[at..at + MIB], at + MIB - 1));
        let slow = weak("", at + 9).with("content-length", "10");
        town.origin.say(slow.dripping(vec![&text[at..at + 5], &text[at + 5..at + 10]]));
        let range = format!("bytes={at}-{}", at + 9);
        let fields = [("range", range.as_str())];
        town.origin.hold();
        let release = async {
            town.until_asked(1).await;
            tokio::task::yield_now().await;
            town.origin.let_go(1);
            // Both ask for what they want, and the body of the first one stays away.
            town.let_go(3, 2).await;
        };
        let first = town.answer(0, Method::GET, "/film", &fields);
        let (first, other, ()) = join3(first, part(&town, 0, 4 * MIB, 4 * MIB + 9), release).await;
        assert_part(&other, text, 4 * MIB, 4 * MIB + 9);
        town.origin.let_go(1);
        let Answer::Response(first) = first else { panic!() };
        assert_part(&collect(first).await, text, at, at + 9);
    });
}
