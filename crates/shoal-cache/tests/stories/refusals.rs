//! What is not stored says why, wherever it was judged.

use crate::origin::{Reply, reply};
use crate::support::{Town, play};

#[test]
fn an_answer_that_is_not_stored_says_why() {
    play(async || {
        let town = Town::new(1);
        let check = async |reply: Reply, fields: &[(&'static str, &str)], expected: &str| {
            let path = format!("/{expected}");
            town.origin.say(reply.clone());
            let got = town.get_with(0, &path, fields).await;
            let status = format!("n1; fwd=uri-miss; fwd-status={}; {expected}", reply.status);
            assert_eq!(got.cache_status(), status);
        };
        let fresh = || reply("max-age=60", "hello");
        let large = (4 << 20).to_string();
        check(reply("no-store", ""), &[], "detail=no-store").await;
        check(reply("private", ""), &[], "detail=private").await;
        check(reply("", ""), &[], "detail=no-lifetime").await;
        check(fresh().with("set-cookie", "a=b"), &[], "detail=set-cookie").await;
        check(fresh().with("vary", "accept, *"), &[], "detail=vary").await;
        check(fresh().with("vary", "user-agent"), &[], "detail=vary").await;
        check(fresh(), &[("authorization", "Basic eA==")], "detail=authorization").await;
        check(reply("max-age=60, must-understand", "").status(299), &[], "detail=status").await;
        check(reply("max-age=60", "part").status(206), &[], "detail=part").await;
        check(fresh().until_close(), &[], "detail=until-close").await;
        check(fresh().with("content-length", &large), &[], "detail=too-large").await;
        let tags = |count| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>().join(" ");
        check(fresh().with("surrogate-key", &tags(65)), &[], "detail=too-many-tags").await;
        check(fresh().with("surrogate-key", &tags(64)), &[], "stored").await;
    });
}

#[test]
fn who_asks_past_the_cache_is_told_what_is_known() {
    play(async || {
        let town = Town::new(1);
        let no_store = town.get_with(0, "/x", &[("cache-control", "no-store")]).await;
        assert_eq!(
            (no_store.is_direct, no_store.cache_status().as_str()),
            (true, "n1; fwd=request; detail=request-no-store")
        );
        town.origin.hold();
        town.origin.say(reply("private", "mine"));
        let crowd = futures_util::future::join_all((0..3).map(|_| town.get(0, "/")));
        let release = async {
            town.settle(|town| town.origin.fetches() == 1).await;
            town.origin.let_go(1);
        };
        let (crowd, ()) = futures_util::future::join(crowd, release).await;
        let mut told: Vec<_> = crowd.iter().map(|got| (got.is_direct, got.cache_status())).collect();
        told.sort();
        let told: Vec<_> = told.iter().map(|(is_direct, status)| (*is_direct, &**status)).collect();
        let direct = (true, "n1; fwd=uri-miss; detail=private");
        assert_eq!(told, [(false, "n1; fwd=uri-miss; fwd-status=200; detail=private"), direct, direct]);
        let next = town.get(0, "/").await;
        assert_eq!((next.is_direct, &*next.cache_status()), direct);
    });
}

#[test]
fn a_node_passes_on_what_the_owner_says() {
    play(async || {
        let town = Town::new(3);
        let [primary, _, stranger] = town.roles("/x");
        let (p, s) = (primary + 1, stranger + 1);
        town.origin.say(reply("max-age=60", "mine").with("set-cookie", "a=b"));
        let own = town.get(stranger, "/x").await;
        let told = "fwd=uri-miss; fwd-status=200; detail=set-cookie";
        assert_eq!(own.cache_status(), format!("n{p}; {told}, n{s}; {told}"));
        assert!(!own.fields.keys().any(|name| name.as_str().starts_with("shoal-")), "{own:?}");
        for node in [stranger, primary] {
            let next = town.get(node, "/x").await;
            assert!(next.is_direct);
            assert_eq!(next.cache_status(), format!("n{}; fwd=uri-miss; detail=set-cookie", node + 1));
        }

        // One that only the owner remembers.
        let [primary, second, stranger] = town.roles("/y");
        town.origin.say(reply("no-store", "mine"));
        town.get(second, "/y").await;
        assert!(town.get(primary, "/y").await.is_direct);
        let told = town.get(stranger, "/y").await;
        assert!(told.is_direct);
        assert_eq!(told.cache_status(), format!("n{}; fwd=uri-miss; detail=no-store", stranger + 1));
    });
}

#[test]
fn what_one_request_may_not_share_is_no_reason_for_the_next() {
    play(async || {
        let town = Town::new(3);
        let [primary, _, stranger] = town.roles("/x");
        let (p, s) = (primary + 1, stranger + 1);
        town.origin.say(reply("max-age=60", "mine"));
        let own = town.get_with(stranger, "/x", &[("authorization", "Basic eA==")]).await;
        let told = "fwd=uri-miss; fwd-status=200; detail=authorization";
        assert_eq!(own.cache_status(), format!("n{p}; {told}, n{s}; {told}"));
        town.origin.say(reply("max-age=60", "ours"));
        assert_eq!(town.get(stranger, "/x").await.text(), "ours");
        assert!(town.get(primary, "/x").await.is_hit());
    });
}
