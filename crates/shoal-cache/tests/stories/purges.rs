//! What a purge makes of what is stored and on its way, and what is trusted while one may have been missed.

use futures_util::future::{join, join_all};
use http::{Method, StatusCode};
use shoal_cache::Answer;
use shoal_model::state::{PurgeKind, PurgeScope};
use shoal_policy::failure::Failure;

use crate::origin::{Reply, reply};
use crate::support::{Town, play};

#[test]
fn purges_are_seen_by_the_next_request() {
    play(async || {
        let town = Town::new(1);
        let cache = &town.nodes[0].cache;
        let mut seq = 0;
        for scope in [
            PurgeScope::All,
            cache.purge_scope_url("http://a.org/x/y").unwrap(),
            cache.purge_scope_prefix("a.org/x").unwrap(),
            cache.purge_scope_prefix("http://a.org/x/").unwrap(),
            cache.purge_scope_prefix("a.org").unwrap(),
            cache.purge_scope_tag("red"),
        ] {
            town.origin.say(reply("max-age=60", "v").with("xkey", "red blue"));
            assert!(!town.get(0, "/x/y").await.is_hit(), "{scope:?}");
            assert!(town.get(0, "/x/y").await.is_hit());
            seq += 1;
            cache.record_purge(seq, &[scope], PurgeKind::Hard);
        }
        town.origin.say(reply("max-age=60", "v").with("etag", "\"1\""));
        town.get(0, "/x/y").await;
        let other = cache.purge_scope_prefix("a.org/xx").unwrap();
        cache.record_purge(seq + 1, &[other], PurgeKind::Hard);
        assert!(town.get(0, "/x/y").await.is_hit(), "somebody else's purge");
        cache.record_purge(seq + 2, &[PurgeScope::All], PurgeKind::Soft);
        town.origin.say(reply("max-age=60", "").with("etag", "\"1\"").status(304));
        let validated = town.get(0, "/x/y").await;
        assert_eq!((validated.text(), validated.is_hit()), ("v", false));
        assert!(town.get(0, "/x/y").await.is_hit());
        assert_eq!(cache.counters().purge_seq, seq + 2);
    });
}

#[test]
fn a_purge_during_a_fill_spares_nobody_who_comes_after_it() {
    play(async || {
        let town = Town::new(1);
        town.origin.hold();
        town.origin.say(reply("max-age=60", "old"));
        town.origin.say(reply("max-age=60", "new"));
        let before = town.get(0, "/");
        let after = async {
            town.until_asked(1).await;
            town.nodes[0].cache.record_purge(7, &[PurgeScope::All], PurgeKind::Hard);
            let late = town.get(0, "/");
            let release = town.let_go(2, 2);
            join(late, release).await.0
        };
        let (before, after) = join(before, after).await;
        assert_eq!((before.text(), after.text()), ("old", "new"));
        let hit = town.get(0, "/").await;
        assert_eq!((hit.text(), hit.is_hit()), ("new", true));
    });
}

#[test]
fn who_asks_after_a_purge_of_a_tag_gets_nothing_that_was_begun_before_it() {
    play(async || {
        let town = Town::new(1);
        let cache = &town.nodes[0].cache;
        town.origin.hold();
        town.origin.say(reply("max-age=60", "old").with("surrogate-key", "red"));
        let before = town.get(0, "/x");
        let after = async {
            town.until_asked(1).await;
            // Nobody knows yet what the answer will be tagged with.
            cache.record_purge(7, &[cache.purge_scope_tag("red")], PurgeKind::Hard);
            let after = town.get(0, "/x");
            let released = async {
                town.settle(|_| cache.counters().purge_seq == 7).await;
                town.origin.let_go(1);
            };
            join(after, released).await.0
        };
        let (before, after) = join(before, after).await;
        assert_eq!(before.text(), "old", "it asked before the purge");
        assert!(after.is_direct, "{}", after.cache_status());
        town.origin.let_go(1);
        town.origin.say(reply("max-age=60", "new").with("surrogate-key", "red"));
        assert_eq!(town.get(0, "/x").await.text(), "new");
    });
}

#[test]
fn tags_are_bytes_and_none_is_lost() {
    play(async || {
        let town = Town::new(1);
        let cache = &town.nodes[0].cache;
        for (seq, tag) in [(7, "product-17"), (9, "café")] {
            town.origin.say(reply("max-age=60", "old").with("cache-tag", "product-17,café"));
            town.get(0, "/x").await;
            assert!(town.get(0, "/x").await.is_hit());
            cache.record_purge(seq, &[cache.purge_scope_tag(tag)], PurgeKind::Hard);
            town.origin.say(reply("max-age=60", "new"));
            assert_eq!(town.get(0, "/x").await.text(), "new", "{tag}");
            cache.record_purge(seq + 1, &[PurgeScope::All], PurgeKind::Hard);
        }
    });
}

#[test]
fn what_is_confirmed_with_more_tags_than_are_kept_is_stored_no_longer() {
    play(async || {
        let town = Town::new(1);
        let cache = &town.nodes[0].cache;
        let old = || reply("max-age=60", "old").with("etag", "\"1\"");
        let unchanged = || reply("max-age=60", "").with("etag", "\"1\"").status(304);
        let ask = async || town.get_with(0, "/x", &[("cache-control", "no-cache")]).await;
        let tags = (0..65).map(|n| format!("t{n}")).collect::<Vec<_>>().join(", ");

        // What says nothing of tags leaves them, also where it names groups.
        let grouped = || old().with("xkey", "red").with("cache-groups", "\"g\"");
        town.origin.say(grouped());
        town.get(0, "/x").await;
        town.origin.say(unchanged().with("cache-groups", "\"g\""));
        assert_eq!(ask().await.text(), "old");
        assert!(town.get(0, "/x").await.is_hit());
        cache.record_purge(7, &[cache.purge_scope_tag("red")], PurgeKind::Hard);
        town.origin.say(old());
        assert!(!town.get(0, "/x").await.is_hit());

        town.origin.say(unchanged().with("cache-tag", &tags));
        assert_eq!(ask().await.text(), "old");
        town.origin.say(old());
        assert!(!town.get(0, "/x").await.is_hit(), "a purge of t64 would not have found it");

        town.origin.say(
            reply("max-age=60", "")
                .with("etag", "\"1\"")
                .with("content-length", "3")
                .with("cache-tag", &tags),
        );
        town.ask(0, Method::HEAD, "/x", &[("cache-control", "no-cache")]).await;
        town.origin.say(old());
        assert!(!town.get(0, "/x").await.is_hit(), "neither would it after a HEAD");
    });
}

#[test]
fn routes_to_different_places_share_no_object_but_every_purge() {
    play(async || {
        let mut town = Town::new(1);
        town.origin.say(reply("max-age=60", "for everybody"));
        assert_eq!(town.get(0, "/x").await.text(), "for everybody");
        town.move_inside();
        town.origin.say(reply("max-age=60", "for us"));
        let inside = town.get(0, "/x").await;
        assert_eq!((inside.text(), inside.is_hit()), ("for us", false));
        for expected in ["for everybody", "for us"] {
            town.move_inside();
            let hit = town.get(0, "/x").await;
            assert_eq!((hit.text(), hit.is_hit()), (expected, true), "they live side by side");
        }

        // What is uncacheable in one place is not so in the other.
        town.origin.hold();
        town.origin.say(reply("no-store", "mine"));
        let crowd = join(town.get(0, "/y"), town.get(0, "/y"));
        let release = town.let_go(3, 1);
        join(crowd, release).await;
        assert!(town.get(0, "/y").await.is_direct);
        town.origin.let_go(100);
        town.move_inside();
        town.origin.say(reply("max-age=60", "hello"));
        assert_eq!(town.get(0, "/y").await.text(), "hello");

        let cache = &town.nodes[0].cache;
        cache.record_purge(5, &[cache.purge_scope_url("http://a.org/x").unwrap()], PurgeKind::Hard);
        for body in ["new", "newer"] {
            town.origin.say(reply("max-age=60", body));
            assert_eq!(town.get(0, "/x").await.text(), body, "a URL means all its routes");
            town.move_inside();
        }
        town.after_unsafe(0, Method::POST, "/x", StatusCode::OK).await;
        for body in ["newest", "last"] {
            town.origin.say(reply("max-age=60", body));
            assert_eq!(town.get(0, "/x").await.text(), body);
            town.move_inside();
        }
        let cache = &town.nodes[0].cache;
        cache.record_purge(6, &[cache.purge_scope_prefix("a.org/x").unwrap()], PurgeKind::Hard);
        town.origin.say(reply("max-age=60", "after all"));
        assert_eq!(town.get(0, "/x").await.text(), "after all");
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
fn without_a_lease_the_route_says_what_becomes_of_hits() {
    play(async || {
        let mut town = Town::new(1);
        let object = || reply("max-age=60", "hello").with("etag", "\"1\"");
        let unchanged = || reply("max-age=60", "").with("etag", "\"1\"").status(304);
        for route in ["shop", "kiosk", "vault"] {
            town.take_route(route);
            town.origin.say(object());
            town.get(0, "/x").await;
            for _ in 0..3 {
                assert!(town.get(0, "/x").await.is_hit(), "the worker has it ready");
            }
        }
        town.nodes[0].cache.set_lease(0);

        town.take_route("shop");
        for _ in 0..2 {
            town.origin.say(unchanged());
            let asked = town.get(0, "/x").await;
            assert_eq!((asked.status, asked.text(), asked.is_hit()), (StatusCode::OK, "hello", false));
            assert!(town.origin.requests.borrow().last().unwrap().headers.contains_key("if-none-match"));
        }
        town.origin.say(Reply::failed(Failure::UpstreamConnectFailed));
        let refused = town.answer(0, Method::GET, "/x", &[]).await;
        assert!(matches!(refused, Answer::Failed(Failure::Unverified)), "a purge cannot be ruled out");
        town.origin.say(reply("max-age=60", "new").with("etag", "\"2\""));
        assert_eq!(town.get(0, "/x").await.text(), "new");
        town.origin.say(object());
        assert_eq!(town.get(0, "/other").await.text(), "hello", "misses go on as ever");

        let fetches = town.origin.fetches();
        town.take_route("kiosk");
        for _ in 0..3 {
            let hit = town.get(0, "/x").await;
            assert!(hit.cache_status().ends_with("; detail=purge-unverified"), "{}", hit.cache_status());
            assert_eq!((hit.text(), hit.is_hit()), ("hello", true));
        }
        town.take_route("vault");
        let refused = town.answer(0, Method::GET, "/x", &[]).await;
        assert!(matches!(refused, Answer::Failed(Failure::Unverified)));
        assert_eq!(town.origin.fetches(), fetches);

        town.nodes[0].cache.set_lease(u64::MAX);
        for (route, body) in [("shop", "new"), ("kiosk", "hello"), ("vault", "hello")] {
            town.take_route(route);
            let hit = town.get(0, "/x").await;
            assert_eq!((hit.text(), hit.is_hit()), (body, true), "{route}");
            assert!(hit.cache_status().ends_with("; detail=local-ram"), "{}", hit.cache_status());
        }
        assert_eq!(town.origin.fetches(), fetches);
    });
}

#[test]
fn an_error_is_not_bridged_by_what_may_have_been_purged() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=0, stale-if-error=60", "old").with("etag", "\"1\""));
        town.get(0, "/x").await;
        town.nodes[0].cache.set_lease(0);
        town.origin.say(reply("no-store", "sorry").status(503));
        assert_eq!(town.get(0, "/x").await.text(), "sorry");
        town.origin.say(Reply::failed(Failure::UpstreamReset));
        let refused = town.answer(0, Method::GET, "/x", &[]).await;
        assert!(matches!(refused, Answer::Failed(Failure::Unverified)));
        town.nodes[0].cache.set_lease(u64::MAX);
        town.origin.say(Reply::failed(Failure::UpstreamReset));
        assert_eq!(town.get(0, "/x").await.text(), "old");
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
fn without_a_lease_a_crowd_is_still_one_fetch_at_first() {
    play(async || {
        // What began a moment ago is of after every purge that has been acknowledged.
        let town = Town::new(1);
        town.nodes[0].cache.set_lease(0);
        town.origin.hold();
        town.origin.say_always(reply("max-age=60", "hello"));
        let crowd = join_all((0..20).map(|_| town.get(0, "/x")));
        let release = town.let_go(1, 1);
        let (crowd, ()) = join(crowd, release).await;
        assert!(crowd.iter().all(|got| got.text() == "hello"));
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn without_a_lease_everybody_asks_the_owner_for_himself() {
    for (has_lease, expected) in [(true, 1), (false, 2)] {
        play(async || {
            let town = Town::new(3);
            let [primary, _, stranger] = town.roles("/x");
            if !has_lease {
                town.nodes[stranger].cache.set_lease(0);
            }
            town.origin.hold();
            town.origin.say(reply("max-age=60", "hello"));
            let first = town.get(stranger, "/x");
            let second = async {
                town.until_asked(1).await;
                let asks = join(town.get(stranger, "/x"), async {
                    let asked = |town: &Town| town.nodes[primary].cache.peers_under_way();
                    town.settle(|town| asked(town) == expected).await;
                    town.origin.let_go(1);
                });
                asks.await.0
            };
            let (first, second) = join(first, second).await;
            assert_eq!((first.text(), second.text()), ("hello", "hello"));
            assert_eq!(town.origin.fetches(), 1);
        });
    }
}
