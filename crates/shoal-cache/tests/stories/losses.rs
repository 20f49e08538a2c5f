//! Nodes that die, fall silent or get into trouble, and an origin that fails.

use futures_util::future::join;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use shoal_cache::Answer;
use shoal_policy::failure::Failure;

use crate::origin::{Reply, reply};
use crate::support::{Town, play};

#[test]
fn any_node_may_die_and_no_object_is_lost() {
    for victim in 0..3 {
        for seen in [false, true] {
            play(async || {
                let town = Town::new(3);
                town.origin.say_always(reply("max-age=60", "hello").with("vary", "accept-language"));
                let paths: Vec<String> = (0..30).map(|n| format!("/{n}")).collect();
                for (n, path) in paths.iter().enumerate() {
                    town.get_with(n % 3, path, &[("accept-language", "de")]).await;
                }
                town.settle(|town| town.sum(|counters| counters.objects) == 60).await;
                let fetches = town.origin.fetches();
                assert_eq!(fetches, 30);

                town.kill(town.nodes[victim].id, seen);
                for path in &paths {
                    for node in (0..3).filter(|node| *node != victim) {
                        let got = town.get_with(node, path, &[("accept-language", "de")]).await;
                        assert_eq!(got.text(), "hello");
                        assert!(got.is_hit(), "{}", got.cache_status());
                    }
                }
                assert_eq!(town.origin.fetches(), fetches);
            });
        }
    }
}

#[test]
fn the_copy_is_made_again_after_a_loss() {
    play(async || {
        let (town, [primary, second, stranger]) = Town::with_copies(reply("max-age=60", "hello")).await;
        town.kill(town.nodes[primary].id, true);
        assert!(town.get(second, "/x").await.is_hit());
        town.settle(|town| town.held(stranger) == 1).await;
        town.kill(town.nodes[second].id, true);
        assert!(town.get(stranger, "/x").await.is_hit());
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn an_owner_that_dies_in_mid_body_is_replaced_only_by_the_same_bytes() {
    let whole = |etag| {
        reply("max-age=60", "").with("content-length", "6").with("etag", etag).dripping(vec!["aaa", "bbb"])
    };
    let rest =
        |etag, range| reply("max-age=60", "bbb").status(206).with("etag", etag).with("content-range", range);
    let tag = "\"1\"";
    for (first, then, expected) in [
        (whole(tag), Some(rest(tag, "bytes 3-5/6")), Some("aaabbb")),
        (whole(tag), Some(whole(tag)), Some("aaabbb")),
        (whole(tag), Some(whole("\"2\"")), None),
        (whole(tag), Some(rest("\"2\"", "bytes 3-5/6")), None),
        (whole(tag), Some(rest(tag, "bytes 2-4/6")), None),
        (whole(tag), Some(Reply::failed(Failure::UpstreamConnectFailed)), None),
        (whole("W/\"1\""), None, None),
    ] {
        play(async || {
            let town = Town::new(3);
            let [primary, _, stranger] = town.roles("/x");
            town.origin.say(first);
            let Answer::Response(response) = town.answer(stranger, Method::GET, "/x", &[]).await else {
                panic!()
            };
            let mut body = response.into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "aaa");
            let asks_again = then.is_some();
            then.into_iter().for_each(|then| town.origin.say(then));
            town.kill(town.nodes[primary].id, true);
            let reading = async {
                town.settle(|town| !asks_again || town.origin.fetches() == 2).await;
                town.origin.let_go(10);
            };
            let (rest, ()) = join(body.collect(), reading).await;
            let whole =
                rest.ok().map(|rest| format!("aaa{}", std::str::from_utf8(&rest.to_bytes()).unwrap()));
            assert_eq!(whole.as_deref(), expected);
            assert_eq!(town.origin.fetches(), if asks_again { 2 } else { 1 });
            if asks_again {
                let asked = &town.origin.requests.borrow()[1].headers;
                assert_eq!(asked["range"], "bytes=3-", "the rest alone");
                assert_eq!(asked["if-range"], tag);
            }
        });
    }
}

#[test]
fn a_silent_owner_hides_nothing_that_the_other_one_has() {
    play(async || {
        let (town, [primary, _, stranger]) = Town::with_copies(reply("max-age=60", "hello")).await;
        town.silence(town.nodes[primary].id);
        let hit = town.get(stranger, "/x").await;
        assert_eq!((hit.is_hit(), hit.text(), town.origin.fetches()), (true, "hello", 1));
    });
}

#[test]
fn a_silent_second_owner_does_not_keep_the_primary_from_the_origin() {
    play(async || {
        let town = Town::new(3);
        let [primary, second, _] = town.roles("/x");
        town.silence(town.nodes[second].id);
        town.origin.say(reply("max-age=60", "hello"));
        assert_eq!(town.get(primary, "/x").await.text(), "hello");
    });
}

#[test]
fn an_owner_in_trouble_of_its_own_is_passed_over() {
    for failure in [Failure::Internal, Failure::Overflow, Failure::NoEndpoint] {
        play(async || {
            let town = Town::new(3);
            let [_, _, stranger] = town.roles("/x");
            town.origin.say(Reply::failed(failure));
            town.origin.say(reply("max-age=60", "hello"));
            assert_eq!(town.get(stranger, "/x").await.text(), "hello", "{failure:?}");
        });
    }
}

#[test]
fn the_origins_failure_is_told_once() {
    play(async || {
        let town = Town::new(3);
        let [_, _, stranger] = town.roles("/x");
        town.origin.say(Reply::failed(Failure::UpstreamConnectFailed));
        assert_eq!(town.get(stranger, "/x").await.status, StatusCode::BAD_GATEWAY);
        assert_eq!(town.origin.fetches(), 1, "no second try behind the route's back");
        town.origin.say(reply("max-age=60", "hel").broken());
        assert_eq!(town.get(stranger, "/x").await.body, None, "a broken body is broken everywhere");
    });
}

#[test]
fn an_error_is_bridged_for_nobody_elsewhere_who_does_not_want_that() {
    play(async || {
        let town = Town::new(3);
        let [primary, _, stranger] = town.roles("/x");
        town.origin.say(reply("max-age=0", "old").with("etag", "\"1\""));
        assert_eq!(town.get(primary, "/x").await.text(), "old");
        town.origin.hold();
        town.origin.say_always(reply("no-store", "sorry").status(503));
        let wanting = town.get_with(primary, "/x", &[("cache-control", "stale-if-error=60")]);
        let joining = async {
            town.until_asked(2).await;
            let release = async {
                town.settle(|town| town.nodes[primary].cache.peers_under_way() == 1).await;
                town.origin.let_go(2);
            };
            join(town.get(stranger, "/x"), release).await.0
        };
        let (wanting, other) = join(wanting, joining).await;
        assert_eq!((wanting.status, wanting.text()), (StatusCode::OK, "old"));
        assert!(other.is_direct, "who did not ask for it goes to the origin: {}", other.cache_status());
        assert_eq!(town.origin.fetches(), 2, "they waited for one answer");
    });
}
