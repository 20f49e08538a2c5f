//! What has changed at the origin, and is used nowhere any more.

use futures_util::future::join;
use http::{Method, StatusCode};

use crate::origin::{Reply, reply};
use crate::support::{Town, play};

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
fn an_unsafe_request_spoils_the_fill_that_somebody_insisted_on() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(reply("max-age=60", "old"));
        town.get(0, "/x").await;
        town.origin.hold();
        town.origin.say(reply("max-age=60", "old"));
        let before = town.get_with(0, "/x", &[("cache-control", "no-cache")]);
        let overtaken = async {
            town.until_asked(2).await;
            town.after_unsafe(0, Method::PUT, "/x", StatusCode::NO_CONTENT).await;
            town.origin.let_go(2);
        };
        assert_eq!(join(before, overtaken).await.0.text(), "old");
        town.origin.say(reply("max-age=60", "new"));
        assert_eq!(town.get(0, "/x").await.text(), "new");
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
fn what_a_post_created_elsewhere_is_found_whatever_does_not_count_in_its_url() {
    play(async || {
        let mut town = Town::new(3);
        town.take_route("lists");
        town.origin.say_always(reply("max-age=60", "old"));
        for node in 0..3 {
            assert_eq!(town.get(node, "/lists?utm_a=1").await.text(), "old");
        }
        town.after_creation(1, "/lists?page=2", "/lists?utm_b=2&fbclid").await;
        town.origin.say_always(reply("max-age=60", "new"));
        for node in 0..3 {
            assert_eq!(town.get(node, "/lists?utm_c=3").await.text(), "new");
        }
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
