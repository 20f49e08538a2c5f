//! URLs that a response makes equal (`No-Vary-Search`).

use futures_util::future::join;
use http::{Method, StatusCode};
use shoal_model::state::PurgeKind;

use crate::origin::{Reply, reply};
use crate::support::{Town, play};

/// What is called `utm` does not count, nor does the order.
fn equal(body: &'static str) -> Reply {
    reply("max-age=60", body).with("no-vary-search", "params=(\"utm\"), key-order")
}

/// Three nodes: one has learnt of a path and has an object of it, another one has not; those two.
async fn half_learnt() -> (Town, usize, usize) {
    let town = Town::new(3);
    let [learnt, _, stranger] = town.roles("/x?utm=1");
    town.origin.say_always(equal("old"));
    town.get(learnt, "/x?utm=1").await;
    assert!(town.get(learnt, "/x?utm=2").await.is_hit());
    (town, learnt, stranger)
}

#[test]
fn equal_urls_share_an_object() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(equal("one"));
        assert_eq!(town.get(0, "/x?utm=1&b=2&a=1").await.text(), "one");
        assert_eq!(
            town.origin.requests.borrow()[0].uri,
            "/x?utm=1&b=2&a=1",
            "the origin sees what was asked for"
        );
        for path in ["/x?utm=1&b=2&a=1", "/x?utm=2&b=2&a=1", "/x?a=1&b=2", "/x?b=2&%75tm&a=1"] {
            let again = town.get(0, path).await;
            assert!(again.is_hit() && again.text() == "one", "{path}: {}", again.cache_status());
            assert_eq!(again.field("no-vary-search"), "params=(\"utm\"), key-order");
        }
        assert_eq!(town.ask(0, Method::HEAD, "/x?b=2&a=1&utm", &[]).await.field("content-length"), "3");
        for path in ["/x", "/x?utm=1", "/x?a=1", "/x?a=1&b=2&c=3", "/x?a=1&b=2&b=2", "/y?utm=1&b=2&a=1"] {
            town.origin.say(equal("other"));
            assert_eq!(town.get(0, path).await.is_hit(), path == "/x?utm=1", "{path}");
        }
    });
}

#[test]
fn the_newest_word_of_a_path_counts_and_is_believed_of_its_own_object_alone() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(equal("equal"));
        town.get(0, "/x?utm=1").await;
        town.origin.say(reply("max-age=60", "its own"));
        town.get(0, "/x?a=1&utm=1").await;
        for (path, text) in [("/x?a=1", "a"), ("/x?utm=1", "utm")] {
            town.origin.say(reply("max-age=60", text));
            assert_eq!(town.get(0, path).await.text(), text, "the rule is forgotten");
        }
        // It comes back, while an object is there that says nothing of the kind.
        town.origin.say(equal("b"));
        town.get(0, "/x?b").await;
        town.origin.say(reply("max-age=60", "a and utm"));
        assert_eq!(town.get(0, "/x?a=1&utm=2").await.text(), "a and utm");
    });
}

#[test]
fn an_answer_that_says_otherwise_is_for_whoever_asked_alone() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(equal("first"));
        town.get(0, "/x").await;
        town.after_unsafe(0, Method::PUT, "/x?utm=7", StatusCode::OK).await;
        town.origin.hold();
        town.origin.say(reply("max-age=60", "for two"));
        let two = town.get(0, "/x?utm=2");
        let three = town.get(0, "/x?utm=3");
        let released = town.let_go(2, 2);
        let ((two, three), ()) = join(join(two, three), released).await;
        assert_eq!(two.text(), "for two");
        assert!(three.is_direct, "it asks for itself");
        town.origin.say(reply("max-age=60", "plain"));
        assert_eq!(town.get(0, "/x").await.text(), "plain");
    });
}

#[test]
fn one_fetch_is_enough_for_equal_urls() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(equal("old").with("etag", "\"1\""));
        town.get(0, "/x?a").await;
        town.origin.hold();
        town.origin.say(equal("new"));
        let (one, other) = (town.get(0, "/x?utm=1"), town.get(0, "/x?utm=2"));
        let released = town.let_go(2, 1);
        let ((one, other), ()) = join(join(one, other), released).await;
        assert_eq!((one.text(), other.text(), town.origin.fetches()), ("new", "new", 2));
    });
}

#[test]
fn a_purge_and_a_write_mean_the_url_they_speak_of() {
    play(async || {
        let town = Town::new(1);
        let cache = &town.nodes[0].cache;
        town.origin.say(equal("one"));
        town.get(0, "/x?utm=1").await;
        for (seq, purged) in [(1, "/x?utm=2"), (2, "/x")] {
            assert!(town.get(0, purged).await.is_hit());
            let scope = cache.purge_scope_url(&format!("http://a.org{purged}")).unwrap();
            cache.record_purge(seq, &[scope], PurgeKind::Hard);
            town.origin.say(equal("newer"));
            let after = town.get(0, purged).await;
            assert_eq!((after.text(), after.is_hit()), ("newer", false), "{purged}");
            assert_eq!(town.get(0, "/x?utm=3").await.text(), "newer", "what came of it is for all");
        }
        town.after_unsafe(0, Method::POST, "/x?utm=9", StatusCode::OK).await;
        town.origin.say(equal("written"));
        assert_eq!(town.get(0, "/x?utm=3").await.text(), "written");
    });
}

#[test]
fn nodes_learn_from_each_other() {
    play(async || {
        let town = Town::new(3);
        town.origin.say_always(equal("hello"));
        for round in 0..2 {
            for node in 0..3 {
                assert_eq!(town.get(node, &format!("/x?utm={round}{node}")).await.text(), "hello");
            }
        }
        let fetches = town.origin.fetches();
        assert!(fetches <= 3, "{fetches}: each node has to hear it once");
        for node in 0..3 {
            let hit = town.get(node, &format!("/x?utm=new{node}")).await;
            assert!(hit.is_hit(), "{}", hit.cache_status());
        }
        assert_eq!(town.origin.fetches(), fetches);
        // A write through a node that knows of it reaches what the others have.
        town.after_unsafe(1, Method::PUT, "/x?utm=5", StatusCode::OK).await;
        for node in 0..3 {
            town.get(node, "/x?utm=6").await;
        }
        assert_eq!(town.origin.fetches(), fetches + 1);
    });
}

#[test]
fn a_write_through_a_node_that_has_not_learnt_reaches_what_others_have() {
    play(async || {
        let (town, learnt, writer) = half_learnt().await;
        town.after_unsafe(writer, Method::POST, "/x?utm=2", StatusCode::NO_CONTENT).await;
        assert_eq!(town.held(learnt), 0, "it knows that this is the same");
        town.origin.say_always(equal("new"));
        for node in [learnt, 0, 1, 2] {
            town.crowd_out_changes(node).await;
            assert_eq!(town.get(node, "/x?utm=2").await.text(), "new");
        }
    });
}

#[test]
fn a_node_that_hears_of_a_write_later_knows_what_it_means() {
    play(async || {
        let (town, learnt, writer) = half_learnt().await;
        town.kill(town.nodes[learnt].id, false);
        town.after_unsafe(writer, Method::POST, "/x?utm=2", StatusCode::NO_CONTENT).await;
        assert!(town.get(learnt, "/x?utm=2").await.is_hit(), "it has not heard yet");
        town.bring_back(town.nodes[learnt].id);
        town.settle(|town| town.held(learnt) == 0).await;
    });
}

#[test]
fn a_write_that_nobody_waits_for_reaches_what_others_have() {
    play(async || {
        let (town, learnt, writer) = half_learnt().await;
        drop(town.begin_unsafe(writer, Method::POST, "/x?utm=2"));
        town.settle(|town| town.held(learnt) == 0).await;
    });
}

#[test]
fn what_was_written_while_the_rule_was_not_known_is_not_answered_from_what_is_older() {
    play(async || {
        let town = Town::new(1);
        town.origin.say(equal("old"));
        town.get(0, "/x?utm=1").await;
        town.origin.say(reply("max-age=60", "its own"));
        town.get(0, "/x?a=1&utm=1").await;
        town.after_unsafe(0, Method::POST, "/x?utm=2", StatusCode::NO_CONTENT).await;
        town.origin.hold();
        town.origin.say(equal("begun before"));
        let before = town.get(0, "/x?b=1");
        let written = async {
            town.until_asked(3).await;
            town.after_unsafe(0, Method::POST, "/x?b=1&utm=2", StatusCode::NO_CONTENT).await;
            town.origin.let_go(1);
        };
        assert_eq!(join(before, written).await.0.text(), "begun before");
        town.crowd_out_changes(0).await;
        // The rule is known again.
        for path in ["/x?utm=2", "/x?b=1&utm=2"] {
            town.origin.let_go(1);
            town.origin.say(equal("new"));
            assert_eq!(town.get(0, path).await.text(), "new", "{path}");
        }
    });
}

#[test]
fn a_route_may_ignore_it() {
    play(async || {
        let mut town = Town::new(1);
        town.take_route("literal");
        for n in 1..3 {
            town.origin.say(equal("hello"));
            assert!(!town.get(0, &format!("/literal?utm={n}")).await.is_hit());
        }
        assert!(town.get(0, "/literal?utm=1").await.is_hit());
    });
}
