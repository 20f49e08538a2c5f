//! Ranges, and objects of which only a part is known.

use crate::edition::Edition;
use crate::got::Got;
use crate::origin::{Reply, reply};
use crate::support::{Town, play};
use futures_util::future::{join, join_all};
use http::{Method, StatusCode};
use shoal_model::state::{PurgeKind, PurgeScope};

const TEXT: &str = "0123456789abcdefghij";

fn edition() -> Edition {
    Edition::new(TEXT, "\"1\"")
}

/// An answer with these bytes of the text.
fn assert_part(got: &Got, first: usize, last: usize) {
    assert_eq!((got.status, got.text()), (StatusCode::PARTIAL_CONTENT, &TEXT[first..=last]));
    assert_eq!(got.field("content-range"), format!("bytes {first}-{last}/{}", TEXT.len()));
    assert_eq!(got.field("content-length"), (last + 1 - first).to_string());
}

fn assert_whole(got: &Got) {
    assert_eq!((got.status, got.text()), (StatusCode::OK, TEXT));
    assert_eq!(got.field("content-range"), "");
}

async fn part(town: &Town, node: usize, range: &str) -> Got {
    town.get_with(node, "/x", &[("range", range)]).await
}

fn asked(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(range, condition)| ((*range).to_owned(), (*condition).to_owned())).collect()
}

#[test]
fn a_part_is_stored_and_answers_what_lies_in_it() {
    play(async || {
        let town = Town::new(1);
        town.origin.publish(edition());
        let first = part(&town, 0, "bytes=2-7").await;
        assert_part(&first, 2, 7);
        assert_eq!(first.cache_status(), "n1; fwd=uri-miss; fwd-status=206; stored");
        for (range, first, last) in [("bytes=2-7", 2, 7), ("bytes=3-3", 3, 3), ("bytes=5-7", 5, 7)] {
            let got = part(&town, 0, range).await;
            assert!(got.is_hit(), "{}", got.cache_status());
            assert_part(&got, first, last);
            assert!(!got.field("age").is_empty());
        }
        let known = town.get_with(0, "/x", &[("range", "bytes=3-4"), ("if-none-match", "\"1\"")]).await;
        assert_eq!((known.status, known.is_hit()), (StatusCode::NOT_MODIFIED, true));
        assert_eq!(town.origin.ranges_from(0), asked(&[("bytes=2-7", "-")]));

        assert!(town.ask(0, Method::HEAD, "/x", &[]).await.is_direct, "a part is no whole");
        let only = [("cache-control", "only-if-cached")];
        assert_eq!(town.get_with(0, "/x", &only).await.status, StatusCode::GATEWAY_TIMEOUT);
        let only = [("range", "bytes=0-1"), ("cache-control", "only-if-cached")];
        assert_eq!(town.get_with(0, "/x", &only).await.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn what_is_missing_is_fetched_and_the_object_completed() {
    play(async || {
        let town = Town::new(1);
        town.origin.publish(edition());
        part(&town, 0, "bytes=4-7").await;
        let more = part(&town, 0, "bytes=4-11").await;
        assert_part(&more, 4, 11);
        assert_eq!(more.cache_status(), "n1; fwd=partial; fwd-status=206; stored");
        assert_part(&part(&town, 0, "bytes=2-9").await, 2, 9);
        let suffix = part(&town, 0, "bytes=-3").await;
        assert_part(&suffix, 17, 19);
        assert_eq!(
            town.origin.ranges_from(1),
            asked(&[("bytes=8-11", "\"1\""), ("bytes=2-3", "\"1\""), ("bytes=17-", "\"1\"")])
        );
        assert!(part(&town, 0, "bytes=2-11").await.is_hit());
        assert!(part(&town, 0, "bytes=18-").await.is_hit());

        // Nothing lies before the first byte that is here but what comes now.
        part(&town, 0, "bytes=0-1").await;
        let whole = town.get(0, "/x").await;
        assert_whole(&whole);
        assert_eq!(whole.cache_status(), "n1; fwd=partial; fwd-status=206; stored");
        assert_eq!(town.origin.ranges_from(4), asked(&[("bytes=0-1", "\"1\""), ("bytes=12-16", "\"1\"")]));
        let hit = town.get(0, "/x").await;
        assert_whole(&hit);
        assert!(hit.is_hit());
        assert_eq!(town.ask(0, Method::HEAD, "/x", &[]).await.field("content-length"), "20");
        assert_eq!(town.origin.fetches(), 6);
    });
}

#[test]
fn more_than_was_asked_for_completes_it_as_well() {
    play(async || {
        let town = Town::new(1);
        town.origin.publish(edition());
        let answer = |first: usize, last: usize| {
            let range = format!("bytes {first}-{last}/{}", TEXT.len());
            let answer = reply("max-age=60", &TEXT[first..=last]).status(206).with("etag", "\"1\"");
            answer.with("content-length", &(last + 1 - first).to_string()).with("content-range", &range)
        };
        part(&town, 0, "bytes=4-7").await;
        // From before what is missing on, to behind it, and in pieces that end within it.
        town.origin.say(answer(4, 11));
        assert_part(&part(&town, 0, "bytes=6-11").await, 6, 11);
        town.origin.say(answer(10, 19));
        assert_part(&part(&town, 0, "bytes=8-13").await, 8, 13);
        let mut pieces = answer(0, 19);
        pieces.body = vec![&TEXT[..2], &TEXT[2..9], &TEXT[9..]];
        town.origin.say(pieces);
        assert_part(&part(&town, 0, "bytes=1-5").await, 1, 5);
        let expected = [("bytes=8-11", "\"1\""), ("bytes=12-13", "\"1\""), ("bytes=1-3", "\"1\"")];
        assert_eq!(town.origin.ranges_from(1), asked(&expected));
        assert_part(&part(&town, 0, "bytes=1-13").await, 1, 13);
        assert_eq!(town.origin.fetches(), 4);

        // What ends before the end of what it announces is as broken as ever.
        let mut short = answer(12, 19);
        short.body = vec![&TEXT[12..15]];
        town.origin.say(short);
        assert_eq!(part(&town, 0, "bytes=10-17").await.body, None);
    });
}

#[test]
fn a_whole_in_return_takes_the_place_of_the_part() {
    play(async || {
        let town = Town::new(1);
        town.origin.publish(edition());
        for range in [None, Some("bytes=6-9")] {
            part(&town, 0, "bytes=0-3").await;
            town.origin
                .say(reply("max-age=60", "another text").with("etag", "\"2\"").with("content-length", "12"));
            let got = match range {
                None => town.get(0, "/x").await,
                Some(range) => part(&town, 0, range).await,
            };
            let expected = if range.is_some() { "r te" } else { "another text" };
            assert_eq!(got.text(), expected);
            let hit = town.get(0, "/x").await;
            assert_eq!((hit.text(), hit.is_hit()), ("another text", true));
            town.nodes[0].cache.record_purge(1, &[PurgeScope::All], PurgeKind::Hard);
        }
    });
}

#[test]
fn two_versions_are_never_put_together() {
    play(async || {
        let wrong = |tag: &str, range: &str| {
            reply("max-age=60", "XXXX").status(206).with("etag", tag).with("content-range", range)
        };
        for reply in [
            wrong("\"2\"", "bytes 4-7/20"),
            wrong("W/\"1\"", "bytes 4-7/20"),
            wrong("\"1\"", "bytes 5-8/20"),
            wrong("\"1\"", "bytes 4-7/21"),
            reply("max-age=60", "").status(416).with("content-range", "bytes */3"),
        ] {
            let town = Town::new(1);
            town.origin.publish(edition());
            part(&town, 0, "bytes=0-3").await;
            town.origin.say(reply);
            assert_part(&part(&town, 0, "bytes=2-7").await, 2, 7);
            assert_eq!(
                town.origin.ranges_from(1),
                asked(&[("bytes=4-7", "\"1\""), ("bytes=2-7", "-")]),
                "it is asked for again as a whole range"
            );
            assert!(!part(&town, 0, "bytes=0-3").await.is_hit(), "what was there is not trusted any more");
            assert_whole(&town.get(0, "/x").await);
        }
    });
}

#[test]
fn without_a_strong_validator_a_part_stands_alone() {
    play(async || {
        for tag in ["W/\"1\"", ""] {
            let town = Town::new(1);
            town.origin.publish(Edition::new(TEXT, tag));
            part(&town, 0, "bytes=0-3").await;
            assert!(part(&town, 0, "bytes=1-2").await.is_hit());
            assert_part(&part(&town, 0, "bytes=4-7").await, 4, 7);
            assert!(part(&town, 0, "bytes=4-7").await.is_hit());
            assert!(!part(&town, 0, "bytes=0-3").await.is_hit(), "it took the place of the other one");
            assert_whole(&town.get(0, "/x").await);
            let asked_for = town.origin.ranges_from(0);
            assert!(asked_for.iter().all(|(_, condition)| condition == "-"), "{asked_for:?}");
            assert_eq!(asked_for.last().unwrap().0, "-");
        }
    });
}

#[test]
fn a_part_of_something_of_unknown_length_answers_what_lies_in_it() {
    play(async || {
        let town = Town::new(1);
        town.origin.publish(edition().of_unknown_length());
        let first = part(&town, 0, "bytes=2-7").await;
        assert_eq!((first.text(), first.field("content-range").as_str()), ("234567", "bytes 2-7/*"));
        let hit = part(&town, 0, "bytes=3-4").await;
        assert_eq!((hit.is_hit(), hit.field("content-range").as_str()), (true, "bytes 3-4/*"));
        for range in ["bytes=5-", "bytes=-2"] {
            assert!(!part(&town, 0, range).await.is_hit());
        }
        assert!(part(&town, 0, "bytes=2-19").await.is_hit(), "parts of one version are one all the same");
        town.origin.publish(edition());
        assert_whole(&town.get(0, "/x").await);
    });
}

#[test]
fn what_broke_off_is_gone_on_with() {
    play(async || {
        let town = Town::new(1);
        let broken =
            || reply("max-age=60", &TEXT[..8]).with("etag", "\"1\"").with("content-length", "20").broken();
        town.origin.publish(edition());
        town.origin.say(broken());
        assert_eq!(town.get(0, "/x").await.body, None);
        assert_part(&part(&town, 0, "bytes=2-7").await, 2, 7);
        assert_eq!(town.origin.fetches(), 1, "what has come is here");
        assert_whole(&town.get(0, "/x").await);
        assert_eq!(town.origin.ranges_from(1), asked(&[("bytes=8-", "\"1\"")]));
        assert!(town.get(0, "/x").await.is_hit());

        // What is missing may break off, too.
        town.nodes[0].cache.record_purge(1, &[PurgeScope::All], PurgeKind::Hard);
        town.origin.say(broken());
        town.get(0, "/x").await;
        let rest = reply("max-age=60", &TEXT[8..12]).status(206).with("etag", "\"1\"");
        town.origin.say(rest.with("content-range", "bytes 8-19/20").broken());
        assert_eq!(town.get(0, "/x").await.body, None);
        assert_whole(&town.get(0, "/x").await);
        assert_eq!(town.origin.ranges_from(4), asked(&[("bytes=12-", "\"1\"")]));

        // Without a strong validator or a length there is nothing to go on with.
        for (path, reply) in [
            ("/weak", reply("max-age=60", "0123").with("etag", "W/\"1\"").with("content-length", "20")),
            ("/endless", reply("max-age=60", "0123").with("etag", "\"1\"")),
        ] {
            let fetches = town.origin.fetches();
            town.origin.say(reply.broken());
            assert_eq!(town.get(0, path).await.body, None);
            assert_whole(&town.get(0, path).await);
            assert_eq!(town.origin.ranges_from(fetches + 1), asked(&[("-", "-")]), "{path}");
        }
    });
}

#[test]
fn a_stale_part_is_validated_as_a_part() {
    play(async || {
        let town = Town::new(1);
        town.origin.publish(edition().under("max-age=0"));
        part(&town, 0, "bytes=2-7").await;
        let inside = part(&town, 0, "bytes=3-5").await;
        assert_part(&inside, 3, 5);
        assert!(inside.cache_status().starts_with("n1; fwd=stale"), "{}", inside.cache_status());
        let asked_for = town.origin.requests.borrow()[1].headers.clone();
        assert_eq!(asked_for["if-none-match"], "\"1\"");
        assert_eq!(asked_for["range"], "bytes=3-5");
        assert_part(&part(&town, 0, "bytes=3-9").await, 3, 9);
        assert_eq!(town.origin.ranges_from(2), asked(&[("bytes=8-9", "\"1\"")]));
        town.origin.publish(Edition::new("ABCDEFGHIJabcdefghij", "\"2\""));
        let changed = part(&town, 0, "bytes=3-5").await;
        assert_eq!((changed.status, changed.text()), (StatusCode::PARTIAL_CONTENT, "DEF"));
        assert!(part(&town, 0, "bytes=3-5").await.is_hit());
        assert!(!part(&town, 0, "bytes=3-6").await.is_hit());
    });
}

#[test]
fn one_range_is_one_fetch_however_many_ask() {
    play(async || {
        let town = Town::new(1);
        town.origin.publish(edition());
        town.origin.hold();
        let crowd = join_all((0..20).map(|_| part(&town, 0, "bytes=2-7")));
        let release = town.let_go(1, 1);
        let (crowd, ()) = join(crowd, release).await;
        crowd.iter().for_each(|got| assert_part(got, 2, 7));
        assert_eq!(town.origin.fetches(), 1);
        let crowd = join_all((0..20).map(|_| part(&town, 0, "bytes=4-9")));
        let release = town.let_go(2, 1);
        let (crowd, ()) = join(crowd, release).await;
        crowd.iter().for_each(|got| assert_part(got, 4, 9));
        assert_eq!(town.origin.ranges_from(1), asked(&[("bytes=8-9", "\"1\"")]));
    });
}

#[test]
fn a_range_waits_for_the_whole_that_is_on_its_way() {
    play(async || {
        let town = Town::new(1);
        let whole = reply("max-age=60", "").with("content-length", "20");
        town.origin.say(whole.dripping(vec![&TEXT[..5], &TEXT[5..]]));
        let range = async {
            town.until_asked(1).await;
            tokio::task::yield_now().await;
            let range = part(&town, 0, "bytes=4-7");
            let release = async { town.origin.let_go(1) };
            join(range, release).await.0
        };
        let (whole, range) = join(town.get(0, "/x"), range).await;
        assert_whole(&whole);
        assert_part(&range, 4, 7);
        assert!(range.cache_status().ends_with("; collapsed"), "{}", range.cache_status());
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn several_ranges_are_answered_from_what_is_here() {
    play(async || {
        let town = Town::new(1);
        town.origin.publish(edition());
        assert!(part(&town, 0, "bytes=0-1,4-5").await.is_direct, "the origin answers, and nothing is stored");
        part(&town, 0, "bytes=0-9").await;
        for is_whole in [false, true] {
            let got = part(&town, 0, "bytes=8-9,0-1,2-3").await;
            assert_eq!((got.status, got.is_hit()), (StatusCode::PARTIAL_CONTENT, true));
            let content_type = got.field("content-type");
            let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
            let expected = format!(
                "--{boundary}\r\nContent-Range: bytes 8-9/20\r\n\r\n89\r\n\
                 --{boundary}\r\nContent-Range: bytes 0-3/20\r\n\r\n0123\r\n--{boundary}--\r\n"
            );
            assert_eq!(got.text(), expected);
            assert_eq!(got.field("content-length"), expected.len().to_string());
            assert_eq!(got.field("content-range"), "");
            let joined = part(&town, 0, "bytes=2-3,0-1").await;
            assert_part(&joined, 0, 3);
            if !is_whole {
                assert!(part(&town, 0, "bytes=0-1,15-16").await.is_direct);
                assert_whole(&town.get(0, "/x").await);
            }
        }
        let beyond = part(&town, 0, "bytes=30-40,50-60").await;
        assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(beyond.field("content-range"), "bytes */20");
        assert_eq!(town.origin.fetches(), 2);
    });
}

#[test]
fn other_units_head_and_a_failed_if_range_are_about_the_whole() {
    play(async || {
        let town = Town::new(1);
        town.origin.publish(edition());
        for fields in [
            &[("range", "lines=1-2")][..],
            &[("range", "bytes=7-3")],
            &[("range", "bytes=1-2"), ("if-range", "\"0\"")],
            &[("range", "bytes=1-2"), ("if-range", "W/\"1\"")],
            &[("range", "bytes=1-2"), ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT")],
        ] {
            for expect_hit in [false, true] {
                let got = town.get_with(0, "/x", fields).await;
                assert_whole(&got);
                assert_eq!(got.is_hit(), expect_hit, "{fields:?}");
            }
            let head = town.ask(0, Method::HEAD, "/x", &[("range", "bytes=1-2")]).await;
            assert_eq!((head.status, head.field("content-length").as_str()), (StatusCode::OK, "20"));
            town.after_unsafe(0, Method::PUT, "/x", StatusCode::OK).await;
        }
        let matching = [("range", "bytes=1-2"), ("if-range", "\"1\"")];
        assert_part(&town.get_with(0, "/x", &matching).await, 1, 2);
        assert_eq!(town.origin.ranges_from(town.origin.fetches() - 1), asked(&[("bytes=1-2", "\"1\"")]));
        assert!(town.get_with(0, "/x", &matching).await.is_hit());
        // A part is no answer to who has another version.
        assert_whole(&town.get_with(0, "/x", &[("range", "bytes=1-2"), ("if-range", "\"0\"")]).await);
    });
}

#[test]
fn an_answer_in_several_parts_and_a_416_are_passed_on_and_not_stored() {
    play(async || {
        let town = Town::new(1);
        let parts = reply("max-age=60", "--x--").status(206);
        town.origin.say(parts.with("content-type", "multipart/byteranges; boundary=x"));
        let got = part(&town, 0, "bytes=0-3").await;
        assert_eq!((got.status, got.text()), (StatusCode::PARTIAL_CONTENT, "--x--"));
        assert!(!got.cache_status().contains("stored"));
        town.origin.publish(edition());
        let beyond = part(&town, 0, "bytes=30-").await;
        assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(town.sum(|figures| figures.objects), 0);
        let got = town.get(0, "/x").await;
        assert_whole(&got);
        assert!(!got.is_hit());
    });
}

#[test]
fn a_part_goes_with_what_is_purged_or_changed() {
    play(async || {
        let town = Town::new(1);
        town.origin.publish(edition());
        part(&town, 0, "bytes=0-3").await;
        town.nodes[0].cache.record_purge(1, &[PurgeScope::All], PurgeKind::Hard);
        assert_part(&part(&town, 0, "bytes=2-7").await, 2, 7);
        assert_eq!(town.origin.ranges_from(1), asked(&[("bytes=2-7", "-")]), "nothing of before is used");
        town.after_unsafe(0, Method::PUT, "/x", StatusCode::OK).await;
        assert!(!part(&town, 0, "bytes=2-7").await.is_hit());
        assert!(part(&town, 0, "bytes=2-7").await.is_hit());

        // A part of before the purge does not join one of after it.
        town.origin.hold();
        let late = async {
            town.until_asked(4).await;
            town.nodes[0].cache.record_purge(2, &[PurgeScope::All], PurgeKind::Hard);
            town.origin.let_go(1);
        };
        join(part(&town, 0, "bytes=8-9"), late).await;
        town.origin.let_go(100);
        assert!(!part(&town, 0, "bytes=8-9").await.is_hit());
    });
}

#[test]
fn errors_do_not_take_the_place_of_a_part() {
    play(async || {
        let town = Town::new(1);
        town.origin.publish(edition());
        part(&town, 0, "bytes=0-3").await;
        for range in [None, Some("bytes=2-7")] {
            town.origin.say(reply("", "sorry").status(503));
            let got = match range {
                Some(range) => part(&town, 0, range).await,
                None => town.get(0, "/x").await,
            };
            assert_eq!((got.status.as_u16(), got.text()), (503, "sorry"));
            town.origin.say(Reply::failed(shoal_policy::failure::Failure::UpstreamConnectFailed));
            let got = match range {
                Some(range) => part(&town, 0, range).await,
                None => town.get(0, "/x").await,
            };
            assert_eq!(got.status.as_u16(), 502, "a part is not served as the whole, even now");
            assert!(part(&town, 0, "bytes=0-3").await.is_hit());
        }
    });
}

#[test]
fn nodes_ask_each_other_for_parts_and_take_none_for_the_whole() {
    play(async || {
        let town = Town::new(3);
        town.origin.publish(edition());
        let [primary, second, stranger] = town.roles("/x");
        let first = part(&town, stranger, "bytes=2-7").await;
        assert_part(&first, 2, 7);
        assert!(first.cache_status().contains("fwd-status=206; stored"), "{}", first.cache_status());
        for node in [stranger, second, primary] {
            let got = part(&town, node, "bytes=3-5").await;
            assert_part(&got, 3, 5);
            assert!(got.is_hit(), "{}", got.cache_status());
        }
        assert_eq!(town.origin.fetches(), 1);
        assert_eq!(town.held(second), 0, "a part is not copied");
        assert_eq!(town.held(stranger), 0);

        assert_part(&part(&town, second, "bytes=4-9").await, 4, 9);
        assert_eq!(town.origin.ranges_from(1), asked(&[("bytes=8-9", "\"1\"")]));
        for node in [stranger, second, primary] {
            assert_whole(&town.get(node, "/x").await);
        }
        town.settle(|town| town.held(second) == 1).await;
        town.kill(town.nodes[primary].id, true);
        for node in [stranger, second] {
            let got = town.get(node, "/x").await;
            assert_whole(&got);
            assert!(got.is_hit(), "{}", got.cache_status());
            assert_part(&part(&town, node, "bytes=-5").await, 15, 19);
        }
    });
}
