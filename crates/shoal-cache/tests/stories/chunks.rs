//! Objects that lie in chunks: each chunk is fetched once, for whoever asks first, and goes with its object.

use futures_util::future::{join, join3};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use shoal_cache::Answer;
use shoal_model::state::{PurgeKind, PurgeScope};
use shoal_proto::cache::LookupRequest;
use shoal_proto::cache::cache_service_server::CacheService;
use tonic::Request;

use crate::edition::Edition;
use crate::got::Got;
use crate::origin::reply;
use crate::support::{Town, play};

pub const MIB: usize = 1 << 20;
/// Five chunks and a rest.
pub const LENGTH: usize = 5 * MIB + 1000;

/// Letters that are unlike each other in every chunk.
pub fn film(seed: usize) -> &'static str {
    let letter = |n: usize| char::from(b'a' + ((n / MIB * 5 + n / 1000 + n % 7 + seed) % 26) as u8);
    Box::leak((0..LENGTH).map(letter).collect::<String>().into_boxed_str())
}

/// Nodes whose route keeps bodies from 2 MiB on in chunks, and an origin with such a body.
pub fn town(size: u64) -> (Town, &'static str) {
    let mut town = Town::new(size);
    town.take_route("film");
    let text = film(0);
    town.origin.publish(Edition::new(text, "\"1\""));
    (town, text)
}

pub async fn part(town: &Town, node: usize, first: usize, last: usize) -> Got {
    let range = format!("bytes={first}-{last}");
    town.get_with(node, "/film", &[("range", &range)]).await
}

pub fn assert_part(got: &Got, text: &str, first: usize, last: usize) {
    assert_eq!(got.status, StatusCode::PARTIAL_CONTENT, "{first}-{last}");
    assert_eq!(got.field("content-range"), format!("bytes {first}-{last}/{LENGTH}"));
    assert_eq!(got.field("content-length"), (last + 1 - first).to_string());
    assert!(got.text() == &text[first..=last], "other bytes than {first}-{last}");
}

pub fn assert_whole(got: &Got, text: &str) {
    assert_eq!((got.status, got.field("content-length")), (StatusCode::OK, LENGTH.to_string()));
    assert!(got.text() == text, "other bytes: {}", got.text().len());
}

/// What the origin was asked for from its `n`th request on, in chunks; `-` is everything, `*` under a condition.
pub fn asked(town: &Town, n: usize) -> Vec<String> {
    let chunks = |range: &str| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let first: usize = first.parse().ok()?;
        let last = last.parse().map_or(LENGTH, |last: usize| last + 1);
        let is_aligned = first.is_multiple_of(MIB) && (last.is_multiple_of(MIB) || last == LENGTH);
        is_aligned.then(|| format!("{}-{}", first / MIB, (last - 1) / MIB))
    };
    let ranges = town.origin.ranges_from(n);
    let ranges = ranges.iter().map(|(range, condition)| {
        let mark = if condition == "-" { "" } else { "*" };
        format!("{}{mark}", chunks(range).unwrap_or_else(|| range.clone()))
    });
    ranges.collect()
}

/// What operators are told of the body: how long it is, how much of it is held, and whether that is all.
async fn told(town: &Town) -> (u64, Option<u64>, bool) {
    let cache = &town.nodes[0].cache;
    let [(key, _)] = cache.locate("http://a.org/film")[..] else { panic!("the URL has one key") };
    let request = LookupRequest { key: key.to_bytes().to_vec(), everything: true };
    let objects = cache.service().lookup(Request::new(request)).await.unwrap().into_inner().objects;
    let [object] = &objects[..] else { panic!("{objects:?}") };
    (object.body_bytes, object.held_bytes, object.whole)
}

#[test]
fn a_range_fetches_the_chunks_it_lies_in_and_only_those_that_are_missing() {
    play(async || {
        let (town, text) = town(1);
        let first = part(&town, 0, 3 * MIB + 5, 3 * MIB + 9).await;
        assert_part(&first, text, 3 * MIB + 5, 3 * MIB + 9);
        assert_eq!(first.cache_status(), "n1; fwd=uri-miss; fwd-status=206; stored");
        for (first, last) in [(3 * MIB, 4 * MIB - 1), (3 * MIB + 7, 3 * MIB + 7), (4 * MIB - 1, 4 * MIB - 1)]
        {
            let got = part(&town, 0, first, last).await;
            assert!(got.is_hit(), "{}", got.cache_status());
            assert_part(&got, text, first, last);
        }
        assert_eq!(asked(&town, 0), ["3-3"]);

        let next = part(&town, 0, 3 * MIB + 5, 4 * MIB + 5).await;
        assert_part(&next, text, 3 * MIB + 5, 4 * MIB + 5);
        assert_eq!(next.cache_status(), "n1; fwd=partial; fwd-status=206; stored");
        assert_eq!(asked(&town, 1), ["4-4*"]);
        assert_eq!(told(&town).await, (LENGTH as u64, Some(2 * MIB as u64), false));

        let whole = town.get(0, "/film").await;
        assert_whole(&whole, text);
        assert_eq!(whole.cache_status(), "n1; fwd=partial; fwd-status=206; stored");
        assert_eq!(asked(&town, 2), ["0-2*", "5-5*"]);
        assert_eq!(told(&town).await, (LENGTH as u64, Some(LENGTH as u64), true));
        for _ in 0..2 {
            let hit = town.get(0, "/film").await;
            assert_whole(&hit, text);
            assert!(hit.is_hit(), "{}", hit.cache_status());
        }
        assert!(part(&town, 0, LENGTH - 3, LENGTH - 1).await.is_hit());
        assert_eq!((town.origin.fetches(), town.sum(|figures| figures.objects)), (4, 7));
        assert!(town.sum(|figures| figures.bytes) as usize > LENGTH);
    });
}

#[test]
fn a_whole_body_comes_in_one_answer_and_is_kept_in_chunks() {
    play(async || {
        let (town, text) = town(1);
        let whole = town.get(0, "/film").await;
        assert_whole(&whole, text);
        assert_eq!(whole.cache_status(), "n1; fwd=uri-miss; fwd-status=200; stored");
        assert_eq!(town.sum(|figures| figures.objects), 7);
        assert_part(&part(&town, 0, MIB - 1, 4 * MIB).await, text, MIB - 1, 4 * MIB);

        let head = town.ask(0, Method::HEAD, "/film", &[]).await;
        assert_eq!((head.status, head.field("content-length")), (StatusCode::OK, LENGTH.to_string()));
        assert!(head.is_hit());
        let known = town.get_with(0, "/film", &[("if-none-match", "\"1\"")]).await;
        assert_eq!((known.status, known.is_hit()), (StatusCode::NOT_MODIFIED, true));
        let beyond = part(&town, 0, LENGTH, LENGTH + 5).await;
        assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(beyond.field("content-range"), format!("bytes */{LENGTH}"));
        let other = [("range", "bytes=0-5"), ("if-range", "\"0\"")];
        assert_whole(&town.get_with(0, "/film", &other).await, text);
        let last = town.get_with(0, "/film", &[("range", "bytes=-3")]).await;
        assert_part(&last, text, LENGTH - 3, LENGTH - 1);

        let several = [("range", "bytes=1048574-1048577,5-6")];
        let several = town.get_with(0, "/film", &several).await;
        assert_eq!((several.status, several.is_hit()), (StatusCode::PARTIAL_CONTENT, true));
        assert!(several.text().contains(&text[MIB - 2..MIB + 2]) && several.text().contains(&text[5..7]));
        assert!(several.text().contains(&format!("bytes 1048574-1048577/{LENGTH}")));
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn fields_are_enough_for_what_asks_for_no_bytes() {
    play(async || {
        let (town, _) = town(1);
        part(&town, 0, 3 * MIB, 3 * MIB).await;
        let head = town.ask(0, Method::HEAD, "/film", &[]).await;
        assert!(head.is_hit() && head.field("content-length") == LENGTH.to_string());
        let known = town.get_with(0, "/film", &[("if-none-match", "\"1\"")]).await;
        assert_eq!((known.status, known.is_hit()), (StatusCode::NOT_MODIFIED, true));
        let beyond = part(&town, 0, LENGTH, LENGTH).await;
        assert_eq!((beyond.status, beyond.is_hit()), (StatusCode::RANGE_NOT_SATISFIABLE, true));
        let several = [("range", "bytes=3145728-3145729,5-6")];
        assert!(town.get_with(0, "/film", &several).await.is_direct, "one of them is not here");
        let only = [("cache-control", "only-if-cached")];
        assert_eq!(town.get_with(0, "/film", &only).await.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn a_range_that_small_bodies_have_too_shows_how_large_the_whole_is() {
    play(async || {
        let (town, text) = town(1);
        let first = part(&town, 0, 5, 9).await;
        assert_part(&first, text, 5, 9);
        assert_eq!(asked(&town, 0), ["bytes=5-9", "0-0*"]);
        assert!(part(&town, 0, 0, MIB - 1).await.is_hit());

        town.nodes[0].cache.record_purge(1, &[PurgeScope::All], PurgeKind::Hard);
        let suffix = town.get_with(0, "/film", &[("range", "bytes=-7")]).await;
        assert_part(&suffix, text, LENGTH - 7, LENGTH - 1);
        assert_eq!(asked(&town, 2), ["bytes=-7", "5-5*"]);
    });
}

#[test]
fn two_at_once_are_one_fetch_whatever_ranges_they_ask_for() {
    play(async || {
        let (town, text) = town(1);
        town.origin.hold();
        for (fetches, chunk) in [(1, 3), (2, 4)] {
            let at = chunk * MIB;
            let release = async {
                town.until_asked(fetches).await;
                tokio::task::yield_now().await;
                town.origin.let_go(1);
            };
            let (one, other, ()) =
                join3(part(&town, 0, at, at + 9), part(&town, 0, at + 100, at + 199), release).await;
            assert_part(&one, text, at, at + 9);
            assert_part(&other, text, at + 100, at + 199);
            assert_eq!(town.origin.fetches(), fetches);
        }
        // One wants more than the other brings.
        let release = town.let_go(3, 9);
        let (one, other, ()) =
            join3(part(&town, 0, MIB, 2 * MIB - 1), part(&town, 0, MIB + 5, 3 * MIB - 1), release).await;
        assert_part(&one, text, MIB, 2 * MIB - 1);
        assert_part(&other, text, MIB + 5, 3 * MIB - 1);
        assert_eq!(asked(&town, 2), ["1-1*", "2-2*"]);
    });
}

#[test]
fn a_crowd_for_the_whole_is_one_fetch() {
    play(async || {
        let (town, text) = town(1);
        town.origin.hold();
        let release = town.let_go(1, 1);
        let (one, other, ()) = join3(town.get(0, "/film"), town.get(0, "/film"), release).await;
        assert_whole(&one, text);
        assert_whole(&other, text);
        assert_eq!(town.origin.fetches(), 1, "{:?}", asked(&town, 0));
    });
}

#[test]
fn another_version_is_answered_with_while_nothing_was_sent() {
    play(async || {
        for range in [None, Some((5, 9)), Some((4 * MIB, 4 * MIB + 9))] {
            let (town, _) = town(1);
            part(&town, 0, 3 * MIB, 3 * MIB).await;
            let new = film(11);
            town.origin.publish(Edition::new(new, "\"2\""));
            let got = match range {
                None => town.get(0, "/film").await,
                Some((first, last)) => part(&town, 0, first, last).await,
            };
            match range {
                None => assert_whole(&got, new),
                Some((first, last)) => assert_part(&got, new, first, last),
            }
            assert_eq!(got.field("etag"), "\"2\"");
            assert_part(&part(&town, 0, 3 * MIB, 3 * MIB + 5).await, new, 3 * MIB, 3 * MIB + 5);
        }
    });
}

#[test]
fn another_version_breaks_off_what_has_begun() {
    play(async || {
        let (town, text) = town(1);
        for chunk in [0, 3] {
            part(&town, 0, chunk * MIB, chunk * MIB + MIB).await;
        }
        // Chunks 0, 1, 3 and 4 are here: what comes in between is still there, what comes behind them is not.
        let between = reply("max-age=60", &text[2 * MIB..3 * MIB]).status(206).with("etag", "\"1\"");
        town.origin
            .say(between.with("content-range", &format!("bytes {}-{}/{LENGTH}", 2 * MIB, 3 * MIB - 1)));
        let new = film(11);
        town.origin.publish(Edition::new(new, "\"2\""));
        let fetches = town.origin.fetches();
        let broken = town.get(0, "/film").await;
        assert_eq!((broken.field("etag").as_str(), broken.body.is_none()), ("\"1\"", true));
        assert_eq!(asked(&town, fetches), ["2-2*", "5-5*"]);
        assert_whole(&town.get(0, "/film").await, new);
    });
}

#[test]
fn chunks_go_with_their_object() {
    play(async || {
        let (town, text) = town(1);
        let ask = async |expected: &[&str]| {
            let fetches = town.origin.fetches();
            assert_part(&part(&town, 0, 3 * MIB, 3 * MIB + 5).await, text, 3 * MIB, 3 * MIB + 5);
            assert_eq!(asked(&town, fetches), expected);
        };
        ask(&["3-3"]).await;
        let cache = town.nodes[0].cache.clone();
        cache.record_purge(1, &[cache.purge_scope_url("http://a.org/film").unwrap()], PurgeKind::Hard);
        ask(&["3-3"]).await;
        ask(&[]).await;
        town.after_unsafe(0, Method::PUT, "/film", StatusCode::OK).await;
        ask(&["3-3"]).await;

        // What is only stale is asked about, and its chunks stay.
        cache.record_purge(2, &[PurgeScope::All], PurgeKind::Soft);
        ask(&["bytes=3145728-3145733"]).await;
        let validation = town.origin.requests.borrow().last().unwrap().headers.clone();
        assert_eq!(validation["if-none-match"], "\"1\"");
        ask(&[]).await;
        cache.record_purge(3, &[PurgeScope::All], PurgeKind::Soft);
        let fetches = town.origin.fetches();
        assert_part(&part(&town, 0, 3 * MIB, 4 * MIB).await, text, 3 * MIB, 4 * MIB);
        assert_eq!(asked(&town, fetches).last().unwrap(), "4-4*");
        assert_eq!(town.origin.fetches(), fetches + 2);
    });
}

#[test]
fn what_is_asked_about_each_time_keeps_its_chunks() {
    play(async || {
        let (town, text) = town(1);
        town.origin.publish(Edition::new(text, "\"1\"").under("no-cache"));
        part(&town, 0, 3 * MIB, 3 * MIB + 5).await;
        for _ in 0..2 {
            let fetches = town.origin.fetches();
            let got = part(&town, 0, 3 * MIB, 3 * MIB + 5).await;
            assert_part(&got, text, 3 * MIB, 3 * MIB + 5);
            assert!(
                got.cache_status().starts_with("n1; fwd=stale; fwd-status=304"),
                "{}",
                got.cache_status()
            );
            assert_eq!(town.origin.fetches(), fetches + 1);
        }
        let fetches = town.origin.fetches();
        assert_part(&part(&town, 0, 3 * MIB, 4 * MIB).await, text, 3 * MIB, 4 * MIB);
        assert_eq!(asked(&town, fetches).last().unwrap(), "4-4*");
        town.origin.publish(Edition::new(film(11), "\"2\""));
        assert_part(&part(&town, 0, 3 * MIB, 3 * MIB + 5).await, film(11), 3 * MIB, 3 * MIB + 5);
    });
}

#[test]
fn what_breaks_off_is_gone_on_with_as_long_as_it_gets_anywhere() {
    play(async || {
        let (town, text) = town(1);
        let broken = reply("max-age=60", &text[..2 * MIB + 500]).with("etag", "\"1\"");
        town.origin.say(broken.with("content-length", &LENGTH.to_string()).broken());
        assert_whole(&town.get(0, "/film").await, text);
        assert_eq!(asked(&town, 1), ["2-5*"]);

        town.nodes[0].cache.record_purge(1, &[PurgeScope::All], PurgeKind::Hard);
        let fetches = town.origin.fetches();
        part(&town, 0, 3 * MIB, 3 * MIB).await;
        for _ in 0..3 {
            let broken = reply("max-age=60", &text[4 * MIB..4 * MIB + 500]).status(206).with("etag", "\"1\"");
            let range = format!("bytes {}-{}/{LENGTH}", 4 * MIB, 5 * MIB - 1);
            town.origin.say(broken.with("content-range", &range).broken());
        }
        let range = format!("bytes={}-{}", 4 * MIB, 5 * MIB - 1);
        let got = town.get_with(0, "/film", &[("range", &range)]).await;
        assert!(got.body.is_none());
        assert_eq!(asked(&town, fetches), ["3-3", "4-4*", "4-4*", "4-4*"]);
        assert!(part(&town, 0, 3 * MIB, 4 * MIB - 1).await.is_hit());
        assert_part(&part(&town, 0, 4 * MIB, 5 * MIB - 1).await, text, 4 * MIB, 5 * MIB - 1);
    });
}

#[test]
fn whoever_leaves_takes_no_chunk_with_him() {
    play(async || {
        let (town, text) = town(1);
        let slow = reply("max-age=60", "").with("etag", "\"1\"").with("content-length", &LENGTH.to_string());
        town.origin.say(slow.dripping(vec![&text[..MIB / 2], &text[MIB / 2..MIB + 7], &text[MIB + 7..]]));
        let Answer::Response(response) = town.answer(0, Method::GET, "/film", &[]).await else { panic!() };
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        town.origin.let_go(9);
        town.settle(|town| town.nodes[0].worker.running_fills() == 0).await;
        assert!(part(&town, 0, 0, MIB - 1).await.is_hit());
        assert_whole(&town.get(0, "/film").await, text);
        let begun = asked(&town, 1);
        assert!(begun == ["1-5*"] || begun == ["2-5*"], "{begun:?}");
    });
}

#[test]
fn who_is_slow_keeps_nobody_waiting() {
    play(async || {
        let (town, text) = town(1);
        // It reads nothing at all.
        let slow = town.answer(0, Method::GET, "/film", &[]).await;
        town.settle(|town| town.sum(|figures| figures.objects) >= 3).await;
        assert_whole(&town.get(0, "/film").await, text);
        let Answer::Response(slow) = slow else { panic!() };
        let all = slow.into_body().collect().await.unwrap().to_bytes();
        assert!(all == text.as_bytes());
        assert!(town.origin.fetches() <= 2, "{:?}", asked(&town, 0));
    });
}

#[test]
fn without_a_strong_validator_nothing_is_kept_in_chunks() {
    play(async || {
        let (town, text) = town(1);
        for tag in ["W/\"1\"", ""] {
            town.origin.publish(Edition::new(text, tag));
            for known in [false, true] {
                let fetches = town.origin.fetches();
                let at = 3 * MIB + usize::from(known) * 100;
                assert_part(&part(&town, 0, at, at + 9).await, text, at, at + 9);
                let asked = asked(&town, fetches);
                let exact = format!("bytes={at}-{}", at + 9);
                assert_eq!(asked.last().unwrap(), &exact);
            }
            town.after_unsafe(0, Method::PUT, "/film", StatusCode::OK).await;
        }
        assert_eq!(asked(&town, 0).iter().filter(|asked| *asked == "3-3").count(), 1, "once is enough");
        town.origin.publish(Edition::new(text, "\"1\"").under("no-store"));
        let got = part(&town, 0, 4 * MIB, 4 * MIB + 9).await;
        assert_part(&got, text, 4 * MIB, 4 * MIB + 9);
        assert!(!got.cache_status().contains("stored"));
    });
}

#[test]
fn nobody_gets_more_than_the_range_that_was_asked_for() {
    play(async || {
        let (town, text) = town(1);
        let range = format!("bytes {}-{}/{LENGTH}", 4 * MIB, 5 * MIB - 1);
        let chunk = reply("max-age=60", &text[4 * MIB..5 * MIB]).status(206).with("etag", "\"1\"");
        // It ends with its connection: nobody could tell whether it is whole.
        town.origin.say(chunk.with("content-range", &range).until_close());
        assert_part(&part(&town, 0, 4 * MIB + 5, 4 * MIB + 9).await, text, 4 * MIB + 5, 4 * MIB + 9);
        assert_eq!(asked(&town, 0), ["4-4", &format!("bytes={}-{}", 4 * MIB + 5, 4 * MIB + 9)]);
    });
}

#[test]
fn a_route_says_what_a_range_of_nothing_does() {
    play(async || {
        let (mut town, text) = town(1);
        town.take_route("reel");
        let got = town.get_with(0, "/reel", &[("range", "bytes=3145728-3145730")]).await;
        assert_part(&got, text, 3 * MIB, 3 * MIB + 2);
        assert!(town.get_with(0, "/reel", &[("range", "bytes=5-7")]).await.is_hit());
        assert_eq!(asked(&town, 0), ["-"], "the whole is fetched");
        town.take_route("clip");
        let range = [("range", "bytes=3145728-3145730")];
        assert!(town.get_with(0, "/clip", &range).await.is_direct, "it is passed on");
        town.get(0, "/clip").await;
        assert!(town.get_with(0, "/clip", &range).await.is_hit());
    });
}

#[test]
fn chunks_are_on_disk_after_a_restart() {
    play(async || {
        let directory = tempfile::tempdir().unwrap();
        let mut town = Town::on_disk(1, directory.path()).await;
        town.take_route("film");
        let text = film(0);
        town.origin.publish(Edition::new(text, "\"1\""));
        for _ in 0..2 {
            part(&town, 0, 3 * MIB, 5 * MIB - 1).await;
        }
        town.settle(|town| town.sum(|figures| figures.disk_objects) == 3).await;
        town.restart(0).await;
        let got = part(&town, 0, 3 * MIB + 5, 4 * MIB + 5).await;
        assert_part(&got, text, 3 * MIB + 5, 4 * MIB + 5);
        assert!(got.is_hit(), "{}", got.cache_status());
        assert!(got.cache_status().ends_with("; detail=local-disk"), "{}", got.cache_status());
        assert_eq!(town.origin.fetches(), 1);
        town.restart(0).await;
        let only = [("range", "bytes=3145728-3145729"), ("cache-control", "only-if-cached")];
        assert_part(&town.get_with(0, "/film", &only).await, text, 3 * MIB, 3 * MIB + 1);
        assert_whole(&town.get(0, "/film").await, text);
        assert_eq!(asked(&town, 1), ["0-2*", "5-5*"]);

        town.restart(0).await;
        town.after_unsafe(0, Method::PUT, "/film", StatusCode::OK).await;
        town.restart(0).await;
        assert!(!part(&town, 0, 3 * MIB, 3 * MIB).await.is_hit(), "what was forgotten does not come back");
        assert_eq!(asked(&town, 3), ["3-3"]);
    });
}

#[test]
fn owners_keep_the_chunks_and_others_ask_them() {
    play(async || {
        let (town, text) = town(3);
        let [primary, second, stranger] = town.roles("/film");
        let first = part(&town, stranger, 3 * MIB + 5, 3 * MIB + 9).await;
        assert_part(&first, text, 3 * MIB + 5, 3 * MIB + 9);
        for node in [primary, second, stranger] {
            let got = part(&town, node, 3 * MIB + 50, 3 * MIB + 99).await;
            assert_part(&got, text, 3 * MIB + 50, 3 * MIB + 99);
            assert!(got.is_hit(), "{}", got.cache_status());
        }
        assert_eq!(asked(&town, 0), ["3-3"]);
        assert_eq!(town.held(stranger), 0);
        let (one, other) =
            join(part(&town, second, 4 * MIB, 4 * MIB + 9), part(&town, stranger, 4 * MIB + 9, 5 * MIB - 1))
                .await;
        assert_part(&one, text, 4 * MIB, 4 * MIB + 9);
        assert_part(&other, text, 4 * MIB + 9, 5 * MIB - 1);
        assert_eq!(asked(&town, 1), ["4-4*"]);
        assert_whole(&town.get(stranger, "/film").await, text);
        assert_eq!(asked(&town, 2), ["0-2*", "5-5*"]);

        town.kill(town.nodes[primary].id, true);
        for node in [stranger, second] {
            assert_whole(&town.get(node, "/film").await, text);
        }
    });
}
