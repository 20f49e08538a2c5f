//! What one node does with its store, its fills and its origin.

use futures_util::future::join;
use http::{Method, StatusCode};
use shoal_cache::{Answer, Bypass, Lookup};
use shoal_policy::failure::Failure;

use crate::got::collect;
use crate::origin::{Reply, reply};
use crate::support::{Town, play};

#[test]
fn what_is_stored_is_served_with_its_age_and_its_node() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=60", "hello").with("etag", "\"v1\"").with("surrogate-key", "red"));
        let first = town.get(0, "/a").await;
        assert_eq!((first.status, first.text()), (StatusCode::OK, "hello"));
        assert_eq!(first.cache_status(), "n1; fwd=uri-miss; fwd-status=200; stored");
        assert_eq!(first.field("surrogate-key"), "", "tags are for us");

        for _ in 0..200 {
            let hit = town.get(0, "/a").await;
            assert_eq!(hit.text(), "hello");
            assert!(hit.cache_status().starts_with("n1; hit; ttl="), "{}", hit.cache_status());
            assert!(hit.cache_status().ends_with("; detail=local-ram"));
            assert_eq!((hit.field("content-length").as_str(), hit.field("etag").as_str()), ("5", "\"v1\""));
            assert!(!hit.field("age").is_empty() && !hit.field("date").is_empty());
        }
        assert_eq!(town.origin.fetches(), 1);
        assert_eq!(town.sum(|counters| counters.hits), 200);

        let head = town.ask(0, Method::HEAD, "/a", &[]).await;
        assert_eq!((head.text(), head.field("content-length").as_str()), ("", "5"));
        let known = town.get_with(0, "/a", &[("if-none-match", "W/\"v1\"")]).await;
        assert_eq!((known.status, known.text()), (StatusCode::NOT_MODIFIED, ""));
        let part = town.get_with(0, "/a", &[("range", "bytes=1-3")]).await;
        assert_eq!((part.status, part.text()), (StatusCode::PARTIAL_CONTENT, "ell"));
        assert_eq!(part.field("content-range"), "bytes 1-3/5");
        let beyond = town.get_with(0, "/a", &[("range", "bytes=9-")]).await;
        assert_eq!(
            (beyond.status, beyond.field("content-range").as_str()),
            (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */5")
        );
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn what_is_not_a_matter_for_the_cache_passes_by() {
    play(async || {
        let town = Town::new(1);
        for (method, fields, why) in [
            (Method::POST, &[][..], Bypass::Method),
            (Method::GET, &[("if-match", "\"a\"")][..], Bypass::Request),
        ] {
            let Answer::Direct { cache_status } = town.answer(0, method, "/a", fields).await else {
                panic!()
            };
            let expected = if why == Bypass::Method { "n1; fwd=method" } else { "n1; fwd=bypass" };
            assert_eq!(cache_status, expected);
        }
        let only = town.get_with(0, "/a", &[("cache-control", "only-if-cached")]).await;
        assert_eq!(only.status, StatusCode::GATEWAY_TIMEOUT);
        assert!(town.ask(0, Method::HEAD, "/a", &[]).await.is_direct, "HEAD never fills");
        assert_eq!(town.origin.fetches(), 0);
    });
}

#[test]
fn variants_live_side_by_side() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=60", "deutsch").with("vary", "accept-language"));
        town.origin.say(reply("max-age=60", "english").with("vary", "accept-language"));
        let (de, en) = (("accept-language", "de"), ("accept-language", "en"));
        assert_eq!(town.get_with(0, "/", &[de]).await.text(), "deutsch");
        let second = town.get_with(0, "/", &[en]).await;
        assert_eq!(
            (second.text(), second.cache_status().as_str()),
            ("english", "n1; fwd=vary-miss; fwd-status=200; stored")
        );
        for _ in 0..2 {
            assert_eq!(town.get_with(0, "/", &[de]).await.text(), "deutsch");
            assert_eq!(town.get_with(0, "/", &[en]).await.text(), "english");
        }
        assert_eq!(town.origin.fetches(), 2);
    });
}

#[test]
fn a_304_refreshes_and_errors_are_bridged() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=0, stale-if-error=60", "v1").with("etag", "\"1\""));
        assert_eq!(town.get(0, "/").await.text(), "v1");

        for (trouble, told) in [
            (reply("max-age=0, stale-if-error=60", "").status(503), "fwd=stale; fwd-status=503; ttl="),
            (Reply::failed(Failure::UpstreamConnectFailed), "fwd=stale; ttl="),
        ] {
            town.origin.say(trouble);
            let bridged = town.get(0, "/").await;
            assert_eq!((bridged.status, bridged.text()), (StatusCode::OK, "v1"));
            assert!(bridged.cache_status().contains(told), "{}", bridged.cache_status());
        }

        town.origin.say(reply("max-age=60", "").with("etag", "\"1\"").with("x-new", "yes").status(304));
        let refreshed = town.get(0, "/").await;
        assert_eq!(
            (refreshed.status, refreshed.text(), refreshed.field("x-new").as_str()),
            (StatusCode::OK, "v1", "yes")
        );
        let asked = town.origin.requests.borrow().last().unwrap().headers["if-none-match"].clone();
        assert_eq!(asked, "\"1\"");
        assert!(town.get(0, "/").await.is_hit());
        assert_eq!(town.origin.fetches(), 4);

        town.origin.say(reply("max-age=60", "v2"));
        assert_eq!(town.get_with(0, "/", &[("cache-control", "no-cache")]).await.text(), "v2");
        assert_eq!(town.get(0, "/").await.text(), "v2");
    });
}

#[test]
fn an_error_is_bridged_for_those_who_want_that() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=0", "old").with("etag", "\"1\""));
        assert_eq!(town.get(0, "/").await.text(), "old");
        town.origin.hold();
        for _ in 0..2 {
            town.origin.say(reply("no-store", "sorry").status(503));
        }
        let wish = [("cache-control", "stale-if-error=60")];
        let wanting = town.get_with(0, "/", &wish);
        let joining = async {
            town.until_asked(2).await;
            join(town.get(0, "/"), async { town.origin.let_go(2) }).await.0
        };
        let (wanting, other) = join(wanting, joining).await;
        assert_eq!((wanting.status, wanting.text()), (StatusCode::OK, "old"));
        assert!(wanting.cache_status().contains("fwd=stale; fwd-status=503"), "{}", wanting.cache_status());
        assert!(other.is_direct, "who did not ask for it goes to the origin: {}", other.cache_status());
    });
}

#[test]
fn stale_while_revalidate_blocks_nobody_and_asks_once() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=0, stale-while-revalidate=60", "old"));
        assert_eq!(town.get(0, "/").await.text(), "old");
        town.origin.hold();
        town.origin.say(reply("max-age=60", "new"));
        for _ in 0..10 {
            assert_eq!(town.get(0, "/").await.text(), "old");
        }
        town.origin.let_go(1);
        town.settle(|town| town.origin.fetches() == 2 && town.held(0) == 1).await;
        loop {
            let got = town.get(0, "/").await;
            if got.text() == "new" {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(town.origin.fetches(), 2);
    });
}

#[test]
fn a_body_that_breaks_off_is_an_error_and_is_not_stored() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=60", "hel").broken());
        let got = town.get(0, "/").await;
        assert_eq!((got.status, got.body), (StatusCode::OK, None), "never a clean end");
        town.origin.say(reply("max-age=60", "short").with("content-length", "9"));
        assert_eq!(town.get(0, "/").await.body, None);
        town.origin.say(reply("max-age=60", "hello"));
        assert_eq!(town.get(0, "/").await.text(), "hello");
        assert!(town.get(0, "/").await.is_hit());
    });
}

#[test]
fn the_fill_goes_on_without_the_one_who_began_it() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=60", "hello"));
        let Answer::Response(response) = town.answer(0, Method::GET, "/", &[]).await else { panic!() };
        drop(response);
        town.settle(|town| town.held(0) == 1).await;
        assert!(town.get(0, "/").await.is_hit());
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn what_outgrows_the_limit_streams_on_but_is_not_stored() {
    play(async || {
        let town = Town::new(1);
        let piece: &'static str = Box::leak("x".repeat(64 * 1024).into_boxed_str());
        let mut large = reply("max-age=60", "");
        large.body = vec![piece; 64];
        town.origin.say_always(large);
        assert_eq!(town.get(0, "/").await.text().len(), 4 << 20);
        assert!(town.get(0, "/").await.is_direct, "nobody waits for it again");
        let announced = town.origin.always_with("content-length", &(4 << 20).to_string());
        town.origin.say_always(announced);
        let got = town.get(0, "/announced").await;
        assert_eq!(
            (got.text().len(), got.cache_status().as_str()),
            (4 << 20, "n1; fwd=uri-miss; fwd-status=200; detail=too-large")
        );
        assert_eq!(town.sum(|counters| counters.objects), 0);
    });
}

#[test]
fn a_crowd_before_something_uncacheable_is_let_go_at_once() {
    play(async || {
        let town = Town::new(1);
        town.origin.hold();
        town.origin.say(reply("no-store", "mine"));
        let crowd = futures_util::future::join_all((0..20).map(|_| town.get(0, "/")));
        let release = town.let_go(1, 1);
        let (crowd, ()) = join(crowd, release).await;
        assert_eq!(crowd.iter().filter(|got| got.is_direct).count(), 19);
        assert_eq!(crowd.iter().find(|got| !got.is_direct).unwrap().text(), "mine");
        assert!(town.get(0, "/").await.is_direct, "the next wave does not queue");
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn hits_are_answered_without_waiting() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=60", "hello"));
        town.get(0, "/").await;
        let request = town.plain("/");
        let Lookup::Fresh(response) = town.nodes[0].worker.hit(&town.request(&request)) else { panic!() };
        assert_eq!(collect(response).await.text(), "hello");
    });
}

#[test]
fn what_a_304_says_to_one_request_is_not_kept_for_others() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=60, no-cache", "hello").with("etag", "\"1\""));
        assert_eq!(town.get(0, "/x").await.text(), "hello");
        let personal = reply("max-age=60, private=\"x-user\"", "").status(304);
        town.origin.say(personal.with("etag", "\"1\"").with("x-user", "7"));
        assert_eq!(town.get(0, "/x").await.text(), "hello");
        let hit = town.get(0, "/x").await;
        assert_eq!((hit.is_hit(), hit.text(), hit.field("x-user").as_str()), (true, "hello", ""));
    });
}

#[test]
fn what_ends_with_its_connection_is_passed_on_and_never_stored() {
    play(async || {
        let town = Town::new(1);
        for body in ["perhaps all of it", "perhaps not"] {
            town.origin.say(reply("max-age=60", body).until_close());
            let got = town.get(0, "/x").await;
            assert_eq!((got.text(), got.is_hit()), (body, false));
        }
        assert_eq!(town.sum(|figures| figures.objects), 0);
    });
}

#[test]
fn a_range_that_leaves_nothing_out_fills() {
    play(async || {
        let town = Town::new(1);
        let everything = [("range", "bytes=0-")];
        town.origin.say(reply("max-age=60", "hello").with("content-length", "5"));
        let first = town.get_with(0, "/x", &everything).await;
        assert_eq!((first.status, first.text()), (StatusCode::PARTIAL_CONTENT, "hello"));
        assert_eq!(first.field("content-range"), "bytes 0-4/5");
        assert!(!town.origin.requests.borrow()[0].headers.contains_key("range"));
        let part = town.get_with(0, "/x", &[("range", "bytes=1-2")]).await;
        assert_eq!((part.text(), part.is_hit()), ("el", true));

        town.origin.say(reply("no-store", "mine").with("content-length", "4"));
        let own = town.get_with(0, "/z", &everything).await;
        assert_eq!(own.text(), "mine");
        town.origin.say(reply("no-store", "").status(404));
        assert_eq!(town.get_with(0, "/none", &everything).await.status, StatusCode::NOT_FOUND);
    });
}
