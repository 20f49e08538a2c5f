//! What nodes do for each other.

use crate::got::collect;
use crate::origin::{Reply, reply};
use crate::support::{Town, play};
use futures_util::future::{join, join_all};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use shoal_cache::Answer;
use shoal_model::state::{PurgeKind, PurgeScope};
use shoal_policy::failure::Failure;

#[test]
fn fifty_requests_on_three_nodes_are_one_fetch() {
    play(async || {
        let town = Town::new(3);
        town.origin.hold();
        town.origin.say(reply("max-age=60", "hello"));
        let crowd = join_all((0..50).map(|n| town.get(n % 3, "/cold")));
        let release = town.let_go(1, 1);
        let (crowd, ()) = join(crowd, release).await;
        assert!(crowd.iter().all(|got| got.status == StatusCode::OK && got.text() == "hello"));
        assert_eq!(town.origin.fetches(), 1);
        for node in 0..3 {
            let again = town.get(node, "/cold").await;
            assert!(again.is_hit(), "{}", again.cache_status());
        }
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn what_a_head_finds_changed_is_used_nowhere() {
    play(async || {
        let town = Town::new(3);
        let [primary, secondary, stranger] = town.roles("/x");
        town.origin.say(reply("max-age=60", "old").with("etag", "\"1\""));
        for node in [stranger, primary, secondary] {
            assert_eq!(town.get(node, "/x").await.text(), "old");
        }
        assert_eq!(town.origin.fetches(), 1);
        town.origin.say_always(reply("max-age=60", "newer").with("etag", "\"2\""));
        let head = town.ask(primary, Method::HEAD, "/x", &[("cache-control", "no-cache")]).await;
        assert_eq!((head.field("etag").as_str(), town.origin.fetches()), ("\"2\"", 2));
        for node in [secondary, stranger, primary] {
            assert_eq!(town.get(node, "/x").await.text(), "newer");
        }
        // What is as it was is told to nobody.
        let fetches = town.origin.fetches();
        town.ask(primary, Method::HEAD, "/x", &[("cache-control", "no-cache")]).await;
        assert!(town.get(secondary, "/x").await.is_hit());
        assert_eq!(town.origin.fetches(), fetches + 1);
    });
}

#[test]
fn a_stranger_names_both_nodes() {
    play(async || {
        let town = Town::new(3);
        let [primary, _, stranger] = town.roles("/x");
        town.origin.say(reply("max-age=60", "mine").with("set-cookie", "a=b"));
        let own = town.get(stranger, "/x").await;
        assert_eq!((own.text(), own.field("set-cookie").as_str()), ("mine", "a=b"), "one detour, one fetch");
        for node in [stranger, primary] {
            assert!(town.get(node, "/x").await.is_direct, "what proved uncacheable takes no detour again");
        }

        let [primary, _, stranger] = town.roles("/y");
        let (p, s) = (primary + 1, stranger + 1);
        town.origin.say(reply("max-age=60", "hello"));
        let first = town.get(stranger, "/y").await;
        let filled = format!(
            "n{p}; fwd=uri-miss; fwd-status=200; stored, n{s}; fwd=uri-miss; fwd-status=200; detail=peer"
        );
        assert_eq!(first.cache_status(), filled);
        let second = town.get(stranger, "/y").await;
        let status = second.cache_status();
        assert!(status.starts_with(&format!("n{p}; hit; ttl=")), "{status}");
        assert!(
            status.contains(&format!("n{s}; hit; ttl=")) && status.ends_with("; detail=peer"),
            "{status}"
        );
        assert!(!second.field("age").is_empty());
        assert!(second.fields.keys().all(|name| !name.as_str().starts_with("shoal-")));
        assert_eq!(town.ask(stranger, Method::HEAD, "/y", &[]).await.field("content-length"), "5");
        let part = town.get_with(stranger, "/y", &[("range", "bytes=1-2")]).await;
        assert_eq!((part.status, part.text()), (StatusCode::PARTIAL_CONTENT, "el"));
    });
}

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
fn a_purged_object_does_not_come_back_from_a_peer_that_has_not_heard() {
    play(async || {
        let (town, [_, _, stranger]) = Town::with_copies(reply("max-age=60", "old")).await;
        town.nodes[stranger].cache.record_purge(5, &[PurgeScope::All], PurgeKind::Hard);
        town.origin.say(reply("max-age=60", "new"));
        assert_eq!(town.get(stranger, "/x").await.text(), "new");
    });
}

#[test]
fn an_unsafe_request_is_felt_on_every_node() {
    play(async || {
        let (town, [primary, second, stranger]) = Town::with_copies(reply("max-age=60", "old")).await;
        town.after_unsafe(stranger, Method::POST, "/x", StatusCode::INTERNAL_SERVER_ERROR).await;
        assert!(town.get(second, "/x").await.is_hit());
        town.after_unsafe(stranger, Method::POST, "/x", StatusCode::OK).await;
        town.origin.say(reply("max-age=60", "new"));
        for node in [second, primary, stranger] {
            assert_eq!(town.get(node, "/x").await.text(), "new");
        }
        assert_eq!(town.origin.fetches(), 2);
    });
}

#[test]
fn a_crowd_everywhere_before_something_uncacheable_is_let_go() {
    play(async || {
        let town = Town::new(3);
        town.origin.hold();
        town.origin.say(reply("private", "mine"));
        let crowd = join_all((0..30).map(|n| town.get(n % 3, "/")));
        let release = town.let_go(1, 1);
        let (crowd, ()) = join(crowd, release).await;
        assert_eq!(crowd.iter().filter(|got| got.is_direct).count(), 29);
        assert_eq!(crowd.iter().find(|got| !got.is_direct).unwrap().text(), "mine");
        for node in 0..3 {
            assert!(town.get(node, "/").await.is_direct);
        }
        assert_eq!(town.origin.fetches(), 1);
    });
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
fn an_unsafe_request_spoils_the_fill_it_overtakes() {
    play(async || {
        let town = Town::new(3);
        let [primary, second, stranger] = town.roles("/x");
        town.origin.hold();
        town.origin.say(reply("max-age=60", "old"));
        let before = town.get(stranger, "/x");
        let overtaken = async {
            town.until_asked(1).await;
            town.after_unsafe(second, Method::DELETE, "/x", StatusCode::NO_CONTENT).await;
            town.origin.let_go(2);
        };
        assert_eq!(join(before, overtaken).await.0.text(), "old");
        town.origin.say(reply("max-age=60", "new"));
        for node in [primary, second, stranger] {
            assert_eq!(town.get(node, "/x").await.text(), "new");
        }
        assert_eq!(town.origin.fetches(), 2);
    });
}

#[test]
fn what_is_only_for_the_first_request_does_not_travel() {
    play(async || {
        let town = Town::new(3);
        let [primary, _, stranger] = town.roles("/x");
        let personal = reply("max-age=60, private=\"x-user\"", "hello").with("x-user", "7");
        town.origin.say_always(personal);
        assert_eq!(town.get(primary, "/x").await.field("x-user"), "7");
        for node in [primary, stranger] {
            let hit = town.get(node, "/x").await;
            assert_eq!((hit.is_hit(), hit.field("x-user").as_str()), (true, ""));
        }
        let [_, _, stranger] = town.roles("/y");
        assert!(town.get(stranger, "/y").await.is_direct, "it asks the origin for itself");
        assert!(town.get(stranger, "/y").await.is_hit(), "this once");
    });
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
fn a_connection_that_carried_what_is_not_stored_is_used_again() {
    play(async || {
        let town = Town::new(3);
        let [_, _, stranger] = town.roles("/x");
        town.origin.say_always(reply("no-store", "no").status(404));
        for _ in 0..5 {
            assert_eq!(town.get(stranger, "/x").await.text(), "no");
        }
        // To the primary, and from there to the second owner; a primary that takes its time is not the only one asked.
        assert!(town.connections() <= 3, "{}", town.connections());
    });
}

#[test]
fn an_owner_that_has_forgotten_takes_nothing_older_from_one_that_has_not() {
    play(async || {
        let old = reply("max-age=60", "old").with("etag", "\"1\"");
        let (town, [primary, second, _]) = Town::with_copies(old.clone()).await;
        town.origin.say_always(old);
        // The second owner is told of the change, the primary is not yet.
        town.forget(second, "/x").await;
        assert_eq!(town.get(second, "/x").await.text(), "old", "the primary has not heard");
        town.forget(primary, "/x").await;
        town.origin.say_always(reply("max-age=60", "new"));
        assert_eq!(town.get(second, "/x").await.text(), "new");
    });
}

#[test]
fn a_reader_that_does_not_read_does_not_slow_the_others() {
    play(async || {
        let mut town = Town::new(3);
        town.move_inside();
        let [_, _, stranger] = town.roles("/big");
        let piece: &'static str = "x".repeat(256 * 1024).leak();
        town.origin.hold();
        town.origin.say(Reply { body: vec![piece; 12], ..reply("max-age=60", "") });
        let (idle, eager) = (
            town.answer(stranger, Method::GET, "/big", &[]),
            town.answer(stranger, Method::GET, "/big", &[]),
        );
        let release = town.let_go(1, 1);
        let (idle, eager, ()) = futures_util::future::join3(idle, eager, release).await;
        let (Answer::Response(idle), Answer::Response(eager)) = (idle, eager) else { panic!() };
        for response in [eager, idle] {
            let reading = tokio::time::timeout(std::time::Duration::from_secs(20), collect(response));
            let got = reading.await.expect("nobody waits for somebody else's reader");
            assert_eq!(got.text().len(), 12 * piece.len());
        }
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn an_older_copy_never_overtakes_a_newer_one_of_the_same_second() {
    play(async || {
        let town = Town::new(3);
        let [primary, second, _] = town.roles("/x");
        let version = |body| {
            reply("max-age=60", body).with("date", &httpdate::fmt_http_date(std::time::SystemTime::now()))
        };
        town.origin.hold();
        let (old, new) = (version("old"), version("new"));
        let new = Reply { fields: old.fields.clone(), ..new };
        town.origin.say(old);
        let first = async {
            town.until_asked(1).await;
            let gate = town.hold_connection();
            town.origin.let_go(1);
            gate
        };
        let (got, gate) = join(town.get(primary, "/x"), first).await;
        assert_eq!(got.text(), "old");
        town.origin.say(new);
        town.origin.let_go(1);
        let got = town.get_with(primary, "/x", &[("cache-control", "no-cache")]).await;
        assert_eq!(got.text(), "new");
        gate.add_permits(1);
        town.settle(|town| town.sum(|figures| figures.replicas_sent) == 2).await;
        let hit = town.get(second, "/x").await;
        assert_eq!((hit.is_hit(), hit.text()), (true, "new"));
    });
}

#[test]
fn a_node_that_was_out_of_reach_hears_later_of_what_changed() {
    play(async || {
        let (town, [_, second, stranger]) = Town::with_copies(reply("max-age=60", "old")).await;
        town.kill(town.nodes[second].id, false);
        town.after_unsafe(stranger, Method::POST, "/x", StatusCode::OK).await;
        assert!(town.get(second, "/x").await.is_hit(), "it has not heard yet");
        town.bring_back(town.nodes[second].id);
        town.settle(|town| town.held(second) == 0).await;
        town.origin.say(reply("max-age=60", "new"));
        assert_eq!(town.get(second, "/x").await.text(), "new");
    });
}

#[test]
fn a_node_without_a_lease_takes_the_word_of_one_that_has_one() {
    play(async || {
        let hello = reply("max-age=60", "hello").with("etag", "\"1\"");
        let (town, [primary, second, stranger]) = Town::with_copies(hello).await;
        town.nodes[second].cache.set_lease(0);
        assert_eq!(town.get(second, "/x").await.text(), "hello");
        assert_eq!(town.origin.fetches(), 1, "the primary knows");

        // The other way round, the primary asks the origin before it gives anything.
        town.nodes[second].cache.set_lease(u64::MAX);
        town.nodes[primary].cache.set_lease(0);
        town.origin.say(reply("max-age=60", "").with("etag", "\"1\"").status(304));
        assert_eq!(town.get(stranger, "/x").await.text(), "hello");
        assert_eq!(town.origin.fetches(), 2);
        town.origin.say(Reply::failed(Failure::UpstreamConnectFailed));
        assert_eq!(town.get(stranger, "/x").await.status, StatusCode::GATEWAY_TIMEOUT);
    });
}

#[test]
fn a_node_that_missed_more_than_can_be_remembered_forgets_everything() {
    play(async || {
        let (town, [primary, second, stranger]) = Town::with_copies(reply("max-age=60", "old")).await;
        town.kill(town.nodes[second].id, false);
        for n in 0..10_000 {
            town.after_unsafe(stranger, Method::POST, &format!("/{n}"), StatusCode::OK).await;
        }
        town.after_unsafe(stranger, Method::POST, "/x", StatusCode::OK).await;
        assert!(town.get(second, "/x").await.is_hit(), "it has not heard yet");
        town.bring_back(town.nodes[second].id);
        town.settle(|town| town.held(second) == 0).await;
        town.origin.say(reply("max-age=60", "new"));
        for node in [second, primary, stranger] {
            assert_eq!(town.get(node, "/x").await.text(), "new");
        }
    });
}

#[test]
fn what_a_post_created_elsewhere_is_found_however_it_is_written() {
    play(async || {
        let town = Town::new(1);
        for location in ["/%7eu", "http://A.org./~u", "http://a.org:80/x/../~u"] {
            town.origin.say(reply("max-age=60", "old"));
            town.get(0, "/~u").await;
            assert!(town.get(0, "/~u").await.is_hit());
            town.after_creation(0, "/post", location).await;
            town.origin.say(reply("max-age=60", "new"));
            assert!(!town.get(0, "/~u").await.is_hit(), "{location}");
            town.forget(0, "/~u").await;
        }
    });
}

#[test]
fn an_unsafe_request_that_nobody_waits_for_is_felt_all_the_same() {
    play(async || {
        let (town, [primary, second, stranger]) = Town::with_copies(reply("max-age=60", "old")).await;
        town.origin.say_always(reply("max-age=60", "old"));
        let objects = |town: &Town| town.sum(|figures| figures.objects);

        town.begin_unsafe(stranger, Method::POST, "/x").spare();
        town.begin_unsafe(stranger, Method::OPTIONS, "/x").assume().await;
        drop(town.begin_unsafe(stranger, Method::OPTIONS, "/x"));
        assert!(town.get(second, "/x").await.is_hit());
        town.begin_unsafe(stranger, Method::POST, "/x").assume().await;
        assert_eq!(objects(&town), 0);

        town.get(primary, "/x").await;
        assert!(town.get(primary, "/x").await.is_hit());
        drop(town.begin_unsafe(stranger, Method::POST, "/x"));
        town.settle(|town| objects(town) == 0).await;
        // The origin may be at work on it still: what was fetched meanwhile does not stay, either.
        town.get(primary, "/x").await;
        assert!(town.get(primary, "/x").await.is_hit());
        town.settle(|town| objects(town) == 0).await;
    });
}
