//! What nodes do with what they have on disk.

use std::fs;
use std::path::Path;

use http::{Method, StatusCode};
use shoal_model::state::{PurgeKind, PurgeScope};

use crate::origin::{Reply, reply};
use crate::support::{Town, play};

/// Letters that are unlike each other in every piece.
fn letters(length: usize) -> &'static str {
    let text = (0..length).map(|n| char::from(b'a' + ((n / 1000 + n % 7) % 26) as u8));
    Box::leak(text.collect::<String>().into_boxed_str())
}

fn tagged(body: &'static str) -> Reply {
    reply("max-age=60", body).with("etag", "\"v1\"")
}

#[test]
fn what_was_in_memory_before_a_restart_is_on_disk_after_it() {
    play(async || {
        let directory = tempfile::tempdir().unwrap();
        let mut town = Town::on_disk(1, directory.path()).await;
        town.origin.say(tagged("hello"));
        assert_eq!(town.get(0, "/a").await.text(), "hello");
        town.restart(0).await;

        let first = town.get(0, "/a").await;
        assert_eq!(first.text(), "hello");
        assert!(first.cache_status().starts_with("n1; hit; ttl="), "{}", first.cache_status());
        assert!(first.cache_status().ends_with("; detail=local-disk"), "{}", first.cache_status());
        assert_eq!(first.field("etag"), "\"v1\"");
        let second = town.get(0, "/a").await;
        assert!(second.cache_status().ends_with("; detail=local-ram"), "{}", second.cache_status());
        assert_eq!((town.origin.fetches(), town.sum(|figures| figures.disk_hits)), (1, 1));

        town.restart(0).await;
        let head = town.ask(0, Method::HEAD, "/a", &[]).await;
        assert_eq!((head.text(), head.field("content-length").as_str()), ("", "5"));
        town.restart(0).await;
        let known = town.get_with(0, "/a", &[("if-none-match", "\"v1\"")]).await;
        assert_eq!(known.status, StatusCode::NOT_MODIFIED);
        town.restart(0).await;
        let part = town.get_with(0, "/a", &[("range", "bytes=1-3")]).await;
        assert_eq!((part.status, part.text()), (StatusCode::PARTIAL_CONTENT, "ell"));
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn what_was_out_of_use_while_things_changed_is_not_used_again() {
    play(async || {
        let directory = tempfile::tempdir().unwrap();
        let mut town = Town::on_disk(1, directory.path()).await;
        town.origin.say(tagged("old"));
        town.get(0, "/a").await;
        town.nodes[0].cache.close_disk().await;
        shoal_cache::distrust_disk(&directory.path().join("1"));
        for _ in 0..2 {
            town.restart(0).await;
            town.origin.say(tagged("new"));
            assert_eq!(town.get(0, "/a").await.text(), "new");
        }
        assert_eq!(town.origin.fetches(), 2, "what came after it is there again");
    });
}

#[test]
fn every_variant_comes_back_and_only_for_whom_it_is() {
    play(async || {
        let directory = tempfile::tempdir().unwrap();
        let mut town = Town::on_disk(1, directory.path()).await;
        for (language, text) in [("de", "deutsch"), ("en", "english")] {
            town.origin.say(reply("max-age=60", text).with("vary", "accept-language"));
            town.get_with(0, "/", &[("accept-language", language)]).await;
        }
        town.restart(0).await;
        for (language, text) in [("de", "deutsch"), ("en", "english")] {
            assert_eq!(town.get_with(0, "/", &[("accept-language", language)]).await.text(), text);
        }
        town.origin.say(reply("max-age=60", "francais").with("vary", "accept-language"));
        assert_eq!(town.get_with(0, "/", &[("accept-language", "fr")]).await.text(), "francais");
        assert_eq!(town.origin.fetches(), 3);
    });
}

#[test]
fn what_is_stale_on_disk_is_asked_about_and_keeps_its_body() {
    play(async || {
        let directory = tempfile::tempdir().unwrap();
        let mut town = Town::on_disk(1, directory.path()).await;
        town.origin.say(reply("max-age=0", "body").with("etag", "\"v1\""));
        town.get(0, "/a").await;
        town.restart(0).await;
        town.origin.say(reply("max-age=60", "").with("etag", "\"v1\"").status(304));
        let validated = town.get(0, "/a").await;
        assert_eq!((validated.status, validated.text()), (StatusCode::OK, "body"));
        assert_eq!(town.origin.requests.borrow()[1].headers["if-none-match"], "\"v1\"");
        town.restart(0).await;
        let fresh = town.get(0, "/a").await;
        assert!(fresh.is_hit() && fresh.text() == "body", "{fresh:?}");
        assert_eq!(town.origin.fetches(), 2);
    });
}

#[test]
fn large_bodies_stay_on_disk() {
    play(async || {
        let directory = tempfile::tempdir().unwrap();
        let mut town = Town::on_disk(1, directory.path()).await;
        let text = letters(700_000);
        town.origin.say(tagged(text));
        town.get(0, "/large").await;
        assert_eq!(town.sum(|figures| figures.disk_written), 0, "nobody has asked for it again");
        town.get(0, "/large").await;
        town.settle(|town| town.sum(|figures| figures.bytes) < 10_000).await;
        for _ in 0..2 {
            let whole = town.get(0, "/large").await;
            assert!(whole.text() == text, "other bytes");
            assert!(whole.cache_status().ends_with("; detail=local-disk"), "{}", whole.cache_status());
            for (first, last) in [(0, 0), (262_143, 262_144), (300_000, 699_999), (699_999, 699_999)] {
                let range = format!("bytes={first}-{last}");
                let part = town.get_with(0, "/large", &[("range", &range)]).await;
                assert!(part.text() == &text[first..=last], "{range}");
            }
            let parts = town.get_with(0, "/large", &[("range", "bytes=262143-262144,0-1,-2")]).await;
            assert_eq!(parts.status, StatusCode::PARTIAL_CONTENT);
            assert!(parts.field("content-type").starts_with("multipart/byteranges; boundary="));
            assert_eq!(parts.field("content-length"), parts.text().len().to_string());
            for (first, last) in [(262_143, 262_144), (0, 1), (699_998, 699_999)] {
                let part = format!(
                    "Content-Range: bytes {first}-{last}/700000\r\n\r\n{}\r\n--",
                    &text[first..=last]
                );
                assert!(parts.text().contains(&part), "{}", parts.text());
            }
            town.restart(0).await;
        }
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn what_the_disk_has_lost_of_a_body_comes_from_the_origin_or_not_at_all() {
    const LENGTH: usize = 3_000_000;
    // Where the piece that is damaged begins.
    const DAMAGED: usize = 7 * 256 * 1024;
    let text = letters(LENGTH);
    let check =
        |etag: &'static str, range: Option<&'static str>, answer: Option<Reply>, expected: Option<&str>| {
            play(async || {
                let directory = tempfile::tempdir().unwrap();
                let mut town = Town::on_disk(1, directory.path()).await;
                town.move_inside();
                town.origin.say(reply("max-age=60", text).with("etag", etag));
                town.get(0, "/large").await;
                town.get(0, "/large").await;
                town.settle(|town| town.sum(|figures| figures.bytes) < 10_000).await;
                damage(&directory.path().join("1"), LENGTH - DAMAGED - 1000);
                let (asked, fetches) = (answer.is_some(), town.origin.fetches());
                answer.into_iter().for_each(|answer| town.origin.say(answer));
                let fields: Vec<_> = range.map(|range| ("range", range)).into_iter().collect();
                let got = town.get_with(0, "/large", &fields).await;
                assert!(
                    got.body.as_deref() == expected,
                    "{etag} {range:?}: {:?}",
                    got.body.map(|body| body.len())
                );
                assert_eq!(town.origin.fetches() - fetches, usize::from(asked));
                if asked {
                    let begin = DAMAGED;
                    let range = range.map_or(format!("bytes={begin}-"), |_| format!("bytes={begin}-2000000"));
                    assert_eq!(town.origin.ranges_from(fetches), [(range, etag.to_owned())]);
                }
            });
        };
    let rest = |last: usize, etag| {
        let range: &'static str = format!("bytes {DAMAGED}-{last}/{LENGTH}").leak();
        let part = reply("max-age=60", &text[DAMAGED..=last]).with("etag", etag);
        Some(part.with("content-range", range).status(206))
    };
    check("\"v1\"", None, rest(LENGTH - 1, "\"v1\""), Some(text));
    let range = Some("bytes=1000000-2000000");
    check("\"v1\"", range, rest(2_000_000, "\"v1\""), Some(&text[1_000_000..=2_000_000]));
    check("\"v1\"", None, Some(reply("max-age=60", text).with("etag", "\"v1\"")), Some(text));
    check("\"v1\"", None, Some(reply("max-age=60", text).with("etag", "\"v2\"")), None);
    check("\"v1\"", None, rest(LENGTH - 1, "\"v2\""), None);
    check("\"v1\"", None, Some(reply("", "gone").status(404)), None);
    check("W/\"v1\"", None, None, None);
}

/// Changes a byte so many before the end of the largest file.
fn damage(directory: &Path, from_end: usize) {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let largest = files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    fs::write(&largest, bytes).unwrap();
}

#[test]
fn what_was_forgotten_or_purged_does_not_come_back() {
    play(async || {
        let directory = tempfile::tempdir().unwrap();
        let mut town = Town::on_disk(1, directory.path()).await;
        for path in ["/changed", "/purged", "/kept"] {
            town.origin.say(tagged("old"));
            town.get(0, path).await;
        }
        town.after_unsafe(0, Method::POST, "/changed", StatusCode::OK).await;
        town.restart(0).await;
        let cache = town.nodes[0].cache.clone();
        let scope = cache.purge_scope_url("http://a.org/purged").unwrap();
        cache.record_purge(5, &[scope], PurgeKind::Hard);
        town.origin.say_always(tagged("new"));
        for (path, expected) in [("/changed", "new"), ("/purged", "new"), ("/kept", "old")] {
            assert_eq!(town.get(0, path).await.text(), expected, "{path}");
        }
        cache.record_purge(6, &[PurgeScope::All], PurgeKind::Hard);
        town.restart(0).await;
        // This node has not heard of that purge yet: what was filled after the fifth is of a time it does not know.
        assert_eq!(town.get(0, "/purged").await.text(), "new");
        assert_eq!(town.origin.fetches(), 6);
    });
}

#[test]
fn what_has_no_place_in_the_next_version_is_gone_with_it() {
    play(async || {
        let directory = tempfile::tempdir().unwrap();
        let mut town = Town::on_disk(1, directory.path()).await;
        town.origin.say(reply("max-age=0", "old").with("etag", "\"v1\""));
        town.get(0, "/a").await;
        town.origin.say(reply("no-store", "secret"));
        assert_eq!(town.get(0, "/a").await.text(), "secret");
        town.restart(0).await;
        town.origin.say(reply("no-store", "secret"));
        town.get(0, "/a").await;
        assert!(
            !town.origin.requests.borrow()[2].headers.contains_key("if-none-match"),
            "it is not there any more"
        );
    });
}

#[test]
fn an_owner_answers_its_peers_from_disk() {
    play(async || {
        let directory = tempfile::tempdir().unwrap();
        let mut town = Town::on_disk(3, directory.path()).await;
        let [primary, _, stranger] = town.roles("/a");
        town.origin.say(tagged("hello"));
        town.get(stranger, "/a").await;
        town.settle(|town| town.sum(|figures| figures.disk_written) == 2).await;
        for node in 0..3 {
            town.restart(node).await;
        }
        let answer = town.get(stranger, "/a").await;
        assert_eq!((answer.text(), town.origin.fetches()), ("hello", 1));
        let members = answer.cache_status();
        assert!(members.starts_with(&format!("n{}; hit", primary + 1)), "{members}");
        assert!(members.contains("detail=local-disk") && members.ends_with("detail=peer"), "{members}");
    });
}
