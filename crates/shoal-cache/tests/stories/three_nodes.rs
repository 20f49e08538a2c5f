//! What nodes do for each other.

use futures_util::future::{join, join_all};
use http::{Method, StatusCode};
use shoal_cache::Answer;

use crate::got::collect;
use crate::origin::{Reply, reply};
use crate::support::{Town, play};

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
