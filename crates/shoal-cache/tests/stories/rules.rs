//! What HTTP says of updating, choosing and keeping responses, and what a route may say beside it.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use shoal_policy::failure::Failure;

use crate::origin::{Reply, reply};
use crate::support::{Town, play};

#[test]
fn a_head_brings_what_is_stored_up_to_date() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=0", "hello").with("etag", "\"1\""));
        town.get(0, "/x").await;
        town.origin.say(reply("max-age=60", "").with("etag", "\"1\"").with("x-new", "yes"));
        let head = town.ask(0, Method::HEAD, "/x", &[]).await;
        assert_eq!((head.text(), head.field("x-new").as_str()), ("", "yes"));
        assert_eq!(head.cache_status(), "n1; fwd=stale; fwd-status=200");
        let asked = town.origin.requests.borrow().last().unwrap().clone();
        assert_eq!(asked.method, Method::HEAD);
        assert!(!asked.headers.contains_key("if-none-match"));
        let hit = town.get(0, "/x").await;
        assert_eq!((hit.text(), hit.is_hit(), hit.field("x-new").as_str()), ("hello", true, "yes"));
        assert_eq!(hit.field("content-length"), "5");
        assert_eq!(town.origin.fetches(), 2);
    });
}

#[test]
fn what_an_update_says_of_choosing_chooses() {
    play(async || {
        const VARY: (&str, &str) = ("vary", "x-lang");
        let french = [("x-lang", "fr")];
        let english = || reply("max-age=60", "hello").with("etag", "\"1\"");
        let in_french = || reply("max-age=60", "salut").with("etag", "\"2\"").with(VARY.0, VARY.1);

        // A HEAD: the version is known to answer this request, and those like it.
        let town = Town::new(1);
        town.origin.say(reply("max-age=0", "hello").with("etag", "\"1\""));
        town.get(0, "/x").await;
        town.origin.say(english().with(VARY.0, VARY.1));
        town.ask(0, Method::HEAD, "/x", &[]).await;
        town.origin.say(in_french());
        assert_eq!(town.get_with(0, "/x", &french).await.text(), "salut");
        assert!(town.get(0, "/x").await.is_hit());
        assert!(town.get_with(0, "/x", &french).await.is_hit());
        assert_eq!(town.origin.fetches(), 3);

        // The rest of a part.
        let town = Town::new(1);
        let part = |range: &str, body: &'static str| {
            let part = reply("max-age=60", body).status(206).with("etag", "\"1\"");
            part.with("content-range", range).with("content-length", &body.len().to_string())
        };
        town.origin.say(part("bytes 0-1/5", "he"));
        town.get_with(0, "/x", &[("range", "bytes=0-1")]).await;
        town.origin.say(part("bytes 2-4/5", "llo").with(VARY.0, VARY.1));
        town.origin.say(english().with(VARY.0, VARY.1).with("content-length", "5"));
        assert_eq!(town.get(0, "/x").await.text(), "hello");
        town.origin.say(in_french());
        assert_eq!(town.get_with(0, "/x", &french).await.text(), "salut");
        assert!(town.get(0, "/x").await.is_hit());
    });
}

#[test]
fn a_head_about_another_version_makes_what_is_stored_stale() {
    play(async || {
        let town = Town::new(1);
        for (name, value) in [("etag", "\"2\""), ("content-length", "6"), ("last-modified", "yesterday")] {
            town.origin.say(reply("max-age=60", "hello").with("etag", "\"1\""));
            town.get(0, "/x").await;
            assert!(town.get(0, "/x").await.is_hit());
            town.origin.say(reply("max-age=60", "").with(name, value));
            town.ask(0, Method::HEAD, "/x", &[("cache-control", "no-cache")]).await;
            town.origin.say(reply("max-age=60", "new").with("etag", "\"2\""));
            let newer = town.get(0, "/x").await;
            assert_eq!((newer.text(), newer.is_hit()), ("new", false), "{name}");
            town.after_unsafe(0, Method::PUT, "/x", StatusCode::OK).await;
        }
    });
}

#[test]
fn a_head_stores_nothing_and_an_error_to_it_says_nothing() {
    play(async || {
        let town = Town::new(1);
        assert!(town.ask(0, Method::HEAD, "/x", &[]).await.is_direct);
        assert_eq!(town.sum(|figures| figures.objects), 0);
        town.origin.say(reply("max-age=0, stale-if-error=60", "hello").with("etag", "\"1\""));
        town.get(0, "/x").await;
        for trouble in [reply("", "").status(503), Reply::failed(Failure::UpstreamReset)] {
            town.origin.say(trouble);
            let head = town.ask(0, Method::HEAD, "/x", &[]).await;
            assert_eq!((head.status, head.field("etag").as_str()), (StatusCode::OK, "\"1\""));
        }
        town.origin.say(reply("max-age=60", "").status(404));
        assert_eq!(town.ask(0, Method::HEAD, "/x", &[]).await.status, StatusCode::NOT_FOUND);
        town.origin.say(reply("max-age=60", "").with("etag", "\"1\"").status(304));
        assert_eq!(town.get(0, "/x").await.text(), "hello");
    });
}

#[test]
fn a_head_does_not_bring_back_what_was_changed_meanwhile() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=0", "old").with("etag", "\"1\""));
        town.get(0, "/x").await;
        town.origin.hold();
        town.origin.say(reply("max-age=60", "").with("etag", "\"1\""));
        let head = town.ask(0, Method::HEAD, "/x", &[]);
        let overtaken = async {
            town.until_asked(2).await;
            town.after_unsafe(0, Method::PUT, "/x", StatusCode::NO_CONTENT).await;
            town.origin.let_go(2);
        };
        futures_util::future::join(head, overtaken).await;
        town.origin.say(reply("max-age=60", "new"));
        assert_eq!(town.get(0, "/x").await.text(), "new");
    });
}

#[test]
fn a_304_speaks_of_all_variants_of_its_version() {
    play(async || {
        let town = Town::new(1);
        let variant = |tag: &str| reply("max-age=0", "hello").with("vary", "x-kind").with("etag", tag);
        for (kind, tag) in [("a", "\"1\""), ("b", "\"1\""), ("c", "\"2\""), ("d", "W/\"1\"")] {
            town.origin.say(variant(tag));
            town.get_with(0, "/x", &[("x-kind", kind)]).await;
        }
        let confirmed = reply("max-age=60", "").with("vary", "x-kind").with("etag", "\"1\"").status(304);
        town.origin.say(confirmed.with("x-new", "yes"));
        town.get_with(0, "/x", &[("x-kind", "a")]).await;
        for kind in ["a", "b"] {
            let hit = town.get_with(0, "/x", &[("x-kind", kind)]).await;
            assert_eq!((hit.is_hit(), hit.field("x-new").as_str()), (true, "yes"), "{kind}");
        }
        for kind in ["c", "d"] {
            town.origin.say(variant("\"9\""));
            assert!(!town.get_with(0, "/x", &[("x-kind", kind)]).await.is_hit(), "{kind}");
        }
    });
}

#[test]
fn a_304_about_something_else_is_not_believed() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=0", "old").with("etag", "\"1\""));
        town.get(0, "/x").await;
        town.origin.say(reply("max-age=60", "").with("etag", "\"2\"").status(304));
        town.origin.say(reply("max-age=60", "new").with("etag", "\"2\""));
        assert_eq!(town.get(0, "/x").await.text(), "new");
        assert!(!town.origin.requests.borrow()[2].headers.contains_key("if-none-match"));
    });
}

#[test]
fn what_downstream_has_is_asked_about_too() {
    play(async || {
        let town = Town::new(1);
        let has = |tag| [("if-none-match", tag)];
        town.origin.say(reply("max-age=0", "old").with("etag", "\"1\""));
        town.get(0, "/x").await;
        town.origin.say(reply("max-age=60", "").with("etag", "\"2\"").status(304));
        let known = town.get_with(0, "/x", &has("\"2\"")).await;
        assert_eq!((known.status, known.field("etag").as_str()), (StatusCode::NOT_MODIFIED, "\"2\""));
        let asked = town.origin.requests.borrow()[1].headers.clone();
        let tags: Vec<_> = asked.get_all("if-none-match").iter().collect();
        assert_eq!(tags, ["\"1\"", "\"2\""]);

        // What is confirmed is not what downstream has.
        town.origin.say(reply("max-age=0", "").with("etag", "\"1\"").status(304));
        let whole = town.get_with(0, "/x", &has("\"2\"")).await;
        assert_eq!((whole.status, whole.text()), (StatusCode::OK, "old"));
        town.origin.say(reply("max-age=60", "").with("etag", "\"1\"").status(304));
        assert_eq!(town.get_with(0, "/x", &has("\"1\"")).await.status, StatusCode::NOT_MODIFIED);
        assert!(town.get(0, "/x").await.is_hit());
    });
}

#[test]
fn a_request_that_stores_nothing_takes_nothing_from_others() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=0", "hello").with("etag", "\"1\""));
        town.get(0, "/x").await;
        town.origin.say(reply("max-age=60", "").with("etag", "\"1\"").status(304));
        assert_eq!(town.get_with(0, "/x", &[("cache-control", "no-store")]).await.text(), "hello");
        town.origin.say(reply("max-age=60", "").with("etag", "\"1\"").status(304));
        assert_eq!(town.get(0, "/x").await.text(), "hello", "it is still there to be asked about");
        assert!(town.get(0, "/x").await.is_hit());
    });
}

#[test]
fn what_does_not_say_by_what_it_was_chosen_was_chosen_as_the_others_are() {
    play(async || {
        let town = Town::new(1);
        let (a, b) = (("x-kind", "a"), ("x-kind", "b"));
        town.origin.say(reply("max-age=60", "for a").with("vary", "x-kind"));
        town.get_with(0, "/x", &[a]).await;
        town.origin.say(reply("max-age=60", "for b"));
        town.get_with(0, "/x", &[b]).await;
        assert_eq!(town.get_with(0, "/x", &[a]).await.text(), "for a");
        assert_eq!(town.get_with(0, "/x", &[b]).await.text(), "for b");
        town.origin.say(reply("max-age=60", "for nobody"));
        assert_eq!(town.get(0, "/x").await.text(), "for nobody");
        assert_eq!(town.origin.fetches(), 3);
    });
}

#[test]
fn variants_reach_other_nodes_as_they_are() {
    play(async || {
        let town = Town::new(3);
        let [primary, _, stranger] = town.roles("/x");
        for (kind, body) in [("a", "for a"), ("b", "for b")] {
            town.origin.say(reply("max-age=60", body).with("vary", "x-kind"));
            assert_eq!(town.get_with(stranger, "/x", &[("x-kind", kind)]).await.text(), body);
        }
        for node in [primary, stranger] {
            for (kind, body) in [("a", "for a"), ("b", "for b")] {
                assert_eq!(town.get_with(node, "/x", &[("x-kind", kind)]).await.text(), body);
            }
        }
        assert_eq!(town.origin.fetches(), 2);
    });
}

#[test]
fn errors_are_kept_where_the_route_says_so() {
    play(async || {
        let mut town = Town::new(1);
        town.take_route("lists");
        for (status, is_kept) in [(404, true), (503, true), (400, false), (403, false)] {
            let path = format!("/kept/{status}");
            town.origin.say(reply("", "sorry").status(status));
            assert_eq!(town.get(0, &path).await.status, status);
            if !is_kept {
                town.origin.say(reply("", "sorry").status(status));
            }
            let again = town.get(0, &path).await;
            assert_eq!((again.status.as_u16(), again.is_hit()), (status, is_kept));
        }
        town.origin.say(reply("max-age=60", "sorry").status(400));
        town.get(0, "/bad").await;
        assert!(!town.get(0, "/bad").await.is_hit(), "anybody can cause it");
    });
}

#[test]
fn an_error_is_not_kept_in_the_place_of_what_bridges_it() {
    play(async || {
        let mut town = Town::new(1);
        town.take_route("lists");
        town.origin.say(reply("max-age=0, stale-if-error=60", "good"));
        town.get(0, "/x").await;
        for _ in 0..2 {
            town.origin.say(reply("", "sorry").status(503));
            assert_eq!(town.get(0, "/x").await.text(), "good");
        }
    });
}

#[test]
fn what_does_not_count_does_not_reach_the_origin() {
    play(async || {
        let mut town = Town::new(1);
        town.take_route("lists");
        town.origin.say(reply("max-age=60", "hello").with("vary", "cookie"));
        let first = town.get_with(0, "/x?utm_a=1&b=2", &[("cookie", "sid=1; kind=a")]).await;
        assert_eq!(first.text(), "hello");
        let asked = town.origin.requests.borrow()[0].clone();
        assert_eq!(
            (asked.uri.to_string().as_str(), &asked.headers["cookie"]),
            ("/x?b=2", &"kind=a".parse().unwrap())
        );
        let hit = town.get_with(0, "/x?b=2&fbclid=7", &[("cookie", "kind=a; sid=2")]).await;
        assert_eq!((hit.text(), hit.is_hit()), ("hello", true));
        for (path, cookie) in [("/x?b=2", "kind=b"), ("/x?b=3", "kind=a")] {
            town.origin.say(reply("max-age=60", "other"));
            assert_eq!(town.get_with(0, path, &[("cookie", cookie)]).await.text(), "other");
        }
        town.after_unsafe(0, Method::POST, "/x?b=2&utm_b=1", StatusCode::OK).await;
        town.origin.say(reply("max-age=60", "new"));
        assert_eq!(town.get_with(0, "/x?b=2", &[("cookie", "kind=a")]).await.text(), "new");
    });
}

#[test]
fn only_what_chooses_a_response_is_told_where_the_route_is_strict() {
    play(async || {
        let mut town = Town::new(1);
        town.take_route("strict");
        let evil = [("x-evil", "1"), ("x-tenant", "7"), ("authorization", "Basic Zm9v"), ("accept", "*/*")];
        town.origin.say(reply("max-age=60", "hello"));
        town.get_with(0, "/x", &evil).await;
        let asked = town.origin.requests.borrow()[0].clone();
        let told =
            ["x-evil", "x-tenant", "authorization", "accept"].map(|name| asked.headers.contains_key(name));
        assert_eq!(told, [false, true, false, true]);

        // What the response depends on after all is told, before anybody gets an answer that was made without it.
        town.origin.say(reply("max-age=60", "for nobody").with("vary", "x-kind"));
        town.origin.say(reply("max-age=60", "for a").with("vary", "x-kind"));
        assert_eq!(town.get_with(0, "/y", &[("x-kind", "a")]).await.text(), "for a");
        assert_eq!(town.origin.requests.borrow()[2].headers["x-kind"], "a");
        assert!(town.get_with(0, "/y", &[("x-kind", "a")]).await.is_hit());
        town.origin.say(reply("max-age=60", "for b").with("vary", "x-kind"));
        assert_eq!(town.get_with(0, "/y", &[("x-kind", "b")]).await.text(), "for b");
        assert_eq!(town.origin.fetches(), 4, "now it is known");
    });
}

#[test]
fn a_page_is_not_kept_because_its_path_ends_like_a_file() {
    play(async || {
        let mut town = Town::new(1);
        town.take_route("files");
        assert!(town.get(0, "/account").await.is_direct);
        for _ in 0..2 {
            town.origin.say(reply("max-age=60", "your account").with("content-type", "text/html"));
            assert_eq!(town.get(0, "/account/x.css").await.text(), "your account");
        }
        town.origin.say(reply("max-age=60", "body {}").with("content-type", "text/css"));
        town.get(0, "/a.css").await;
        assert!(town.get(0, "/a.css").await.is_hit());
    });
}

#[test]
fn what_is_in_use_is_fetched_again_before_it_expires() {
    play(async || {
        let town = Town::new(1);
        town.origin.hold();
        town.origin.say(reply("max-age=1", "old"));
        let (first, ()) = futures_util::future::join(town.get(0, "/x"), async {
            let asked = Instant::now();
            town.settle(|town| town.origin.fetches() == 1 && asked.elapsed() >= SLOW).await;
            town.origin.let_go(1);
        })
        .await;
        assert_eq!(first.text(), "old");
        town.origin.say(reply("max-age=60", "new"));
        while town.origin.fetches() == 1 {
            let hit = town.get(0, "/x").await;
            assert_eq!((hit.text(), hit.is_hit()), ("old", true), "nobody waits");
            tokio::task::yield_now().await;
        }
        town.origin.let_go(1);
        town.settle(|town| town.nodes[0].cache.counters().origin_fetches == 2).await;
        while town.get(0, "/x").await.text() == "old" {
            tokio::task::yield_now().await;
        }
        assert!(town.get(0, "/x").await.is_hit());
        assert_eq!(town.origin.fetches(), 2, "once");
    });
}

#[test]
fn a_post_that_shows_what_a_get_would_is_kept_for_gets() {
    play(async || {
        let town = Town::new(3);
        let [primary, second, stranger] = town.roles("/x");
        town.origin.say(reply("max-age=60", "before"));
        town.get(primary, "/x").await;
        let shown =
            |body| reply("max-age=60", body).with("content-location", "/x").with("content-length", "5");
        town.origin.say(shown("after"));
        let answer = town.post(primary, "/x").await;
        assert_eq!((answer.text(), answer.is_direct), ("after", false));
        assert!(
            answer.cache_status().ends_with("; fwd=method; fwd-status=200; stored"),
            "{}",
            answer.cache_status()
        );
        for node in [primary, second, stranger] {
            let hit = town.get(node, "/x").await;
            assert_eq!((hit.text(), hit.is_hit()), ("after", true), "{node}");
        }
        town.origin.say(shown("again"));
        assert_eq!(town.post(primary, "/x").await.text(), "again", "a POST is never answered from here");
        assert_eq!(town.get(primary, "/x").await.text(), "again");

        town.origin.say(reply("max-age=60", "created").with("content-location", "/y"));
        assert!(town.post(primary, "/x").await.is_direct);
        town.origin.say(reply("max-age=60", "asked"));
        assert_eq!(town.get(primary, "/x").await.text(), "asked");
    });
}

#[test]
fn what_a_post_shows_is_not_kept_when_somebody_else_changed_it_too() {
    play(async || {
        let town = Town::new(1);
        town.origin.hold();
        let shown = || reply("max-age=60", "mine").with("content-location", "/x");
        town.origin.say(shown());
        let post = town.post(0, "/x");
        let overtaken = async {
            town.until_asked(1).await;
            town.after_unsafe(0, Method::PUT, "/x", StatusCode::OK).await;
            town.origin.let_go(10);
        };
        assert!(futures_util::future::join(post, overtaken).await.0.is_direct);
        town.origin.say(reply("max-age=60", "theirs"));
        assert_eq!(town.get(0, "/x").await.text(), "theirs");

        // While its body is on the way, too.
        town.origin.say(reply("max-age=60", "").with("content-location", "/z").dripping(vec!["mi", "ne"]));
        let post = town.post(0, "/z");
        let overtaken = async {
            town.until_asked(3).await;
            tokio::task::yield_now().await;
            town.after_unsafe(0, Method::PUT, "/z", StatusCode::OK).await;
            town.origin.let_go(10);
        };
        futures_util::future::join(post, overtaken).await;
        town.origin.say(reply("max-age=60", "theirs"));
        assert_eq!(town.get(0, "/z").await.text(), "theirs");
    });
}

/// So slow is the origin.
const SLOW: Duration = Duration::from_millis(300);
