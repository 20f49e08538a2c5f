//! Of what lies in chunks an owner gives other nodes no more than answers a request: the fields alone to what asks for no
//! bytes, and of several ranges just those.

use std::time::{Duration, SystemTime};

use futures_util::future::join;
use http::{Method, StatusCode};
use shoal_model::state::{PurgeKind, PurgeScope};

use crate::chunk_copies::with_one_chunk;
use crate::chunks::{LENGTH, MIB, asked, assert_part, assert_whole, film, part, town};
use crate::edition::Edition;
use crate::support::{Town, play};

/// The heads of as many answers as any story here has.
const HEADS: usize = 32 * 1024;

/// What a request without bytes gets of the film, which none of them asks the origin for.
async fn ask_for_fields(town: &Town, node: usize) {
    let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
    let beyond = format!("bytes={LENGTH}-");
    let only = ("cache-control", "only-if-cached");
    let (fetches, _) = (town.origin.fetches(), town.carried());
    for (method, fields, expected) in [
        (Method::HEAD, vec![], StatusCode::OK),
        (Method::HEAD, vec![("range", "bytes=0-9")], StatusCode::OK),
        (Method::HEAD, vec![only], StatusCode::OK),
        (Method::HEAD, vec![("if-none-match", "\"1\"")], StatusCode::NOT_MODIFIED),
        (Method::GET, vec![("if-none-match", "\"1\"")], StatusCode::NOT_MODIFIED),
        (Method::GET, vec![("if-none-match", "\"0\", W/\"1\"")], StatusCode::NOT_MODIFIED),
        (Method::GET, vec![("if-none-match", "\"1\""), only], StatusCode::NOT_MODIFIED),
        (Method::GET, vec![("if-none-match", "\"1\""), ("range", "bytes=0-9")], StatusCode::NOT_MODIFIED),
        (Method::GET, vec![("if-modified-since", &*later)], StatusCode::NOT_MODIFIED),
        (Method::GET, vec![("range", &*beyond)], StatusCode::RANGE_NOT_SATISFIABLE),
        (Method::GET, vec![("range", &*beyond), ("if-range", "\"1\"")], StatusCode::RANGE_NOT_SATISFIABLE),
        (Method::GET, vec![("range", &*beyond), only], StatusCode::RANGE_NOT_SATISFIABLE),
    ] {
        let what = format!("{method} {fields:?}");
        let got = town.ask(node, method.clone(), "/film", &fields).await;
        assert_eq!((got.status, got.is_direct), (expected, false), "{what}");
        assert!(got.is_hit() && got.cache_status().ends_with("; detail=peer"), "{}", got.cache_status());
        assert_eq!((got.field("etag").as_str(), got.text()), ("\"1\"", ""), "{what}");
        match expected {
            StatusCode::OK => assert_eq!(got.field("content-length"), LENGTH.to_string()),
            StatusCode::NOT_MODIFIED => assert_eq!(got.field("content-length"), ""),
            _ => assert_eq!(got.field("content-range"), format!("bytes */{LENGTH}")),
        }
    }
    assert_eq!(town.origin.fetches(), fetches);
    let carried = town.carried();
    assert!(carried < HEADS, "{carried} bytes between nodes");
}

#[test]
fn an_owner_tells_the_fields_of_what_it_has_in_part() {
    play(async || {
        let (town, text, [primary, _, stranger]) = with_one_chunk().await;
        ask_for_fields(&town, stranger).await;
        assert_eq!(town.held(stranger), 0);

        // The condition of a range that does not hold asks for everything, one that does for those bytes.
        let range = format!("bytes={}-{}", 3 * MIB, 3 * MIB + 9);
        let holds = [("range", range.as_str()), ("if-range", "\"1\"")];
        assert_part(&town.get_with(stranger, "/film", &holds).await, text, 3 * MIB, 3 * MIB + 9);
        assert!(town.carried() < HEADS);
        assert_eq!(town.origin.fetches(), 1);

        let fails = [("range", range.as_str()), ("if-range", "\"0\"")];
        assert_whole(&town.get_with(stranger, "/film", &fails).await, text);
        assert_whole(&town.get_with(stranger, "/film", &[("if-none-match", "\"0\"")]).await, text);
        assert_eq!(asked(&town, 1), ["0-2*", "4-5*"]);

        // The other owner knows as much. Nobody has noticed yet.
        town.kill(town.nodes[primary].id, false);
        ask_for_fields(&town, stranger).await;
    });
}

#[test]
fn whoever_wants_bytes_does_not_go_without_for_somebody_who_wants_none() {
    play(async || {
        let (town, text) = town(3);
        let [primary, _, stranger] = town.roles("/film");
        assert_whole(&town.get(primary, "/film").await, text);
        let known = [("if-none-match", "\"1\"")];
        for _ in 0..2 {
            let (one, other) =
                join(town.get_with(stranger, "/film", &known), town.get(stranger, "/film")).await;
            assert_eq!(one.status, StatusCode::NOT_MODIFIED);
            assert_whole(&other, text);
            let (one, other) =
                join(town.get(stranger, "/film"), town.get_with(stranger, "/film", &known)).await;
            assert_eq!(other.status, StatusCode::NOT_MODIFIED);
            assert_whole(&one, text);
        }
        assert_eq!(town.origin.fetches(), 1);
    });
}

#[test]
fn what_has_to_be_validated_first_is_and_its_bytes_stay_where_they_are() {
    play(async || {
        let (town, _, [_, _, stranger]) = with_one_chunk().await;
        for seq in 1..=2 {
            town.nodes
                .iter()
                .for_each(|node| node.cache.record_purge(seq, &[PurgeScope::All], PurgeKind::Soft));
            town.carried();
            let fetches = town.origin.fetches();
            let got = town.get_with(stranger, "/film", &[("if-none-match", "\"1\"")]).await;
            assert_eq!(got.status, StatusCode::NOT_MODIFIED, "{}", got.cache_status());
            assert_eq!(town.origin.fetches(), fetches + 1);
            assert!(town.carried() < HEADS);
        }
        ask_for_fields(&town, stranger).await;
        // It is gone: what others were told of it does not come back.
        town.after_unsafe(stranger, Method::PUT, "/film", StatusCode::OK).await;
        town.origin.publish(Edition::new(film(11), "\"2\""));
        assert!(town.ask(stranger, Method::HEAD, "/film", &[]).await.is_direct);
        let got = town.get_with(stranger, "/film", &[("if-none-match", "\"1\"")]).await;
        assert_whole(&got, film(11));
    });
}

#[test]
fn a_region_is_told_by_the_one_that_shields_the_upstream() {
    play(async || {
        let mut town = Town::of(&[("near", ""), ("near", ""), ("far", ""), ("far", "")]);
        town.take_route("show");
        let text = film(0);
        town.origin.publish(Edition::new(text, "\"1\""));
        let (at, range) = (3 * MIB, [("range", "bytes=3145728-3145737")]);
        for node in [2, 3] {
            assert_part(&town.get_with(node, "/show", &range).await, text, at, at + 9);
        }
        town.carried();
        for node in [0, 1] {
            for _ in 0..2 {
                let got = town.get_with(node, "/show", &[("if-none-match", "\"1\"")]).await;
                assert_eq!(got.status, StatusCode::NOT_MODIFIED);
            }
            assert!(town.ask(node, Method::HEAD, "/show", &[]).await.is_hit());
        }
        assert!(town.carried() < HEADS);
        for node in [0, 1] {
            assert_part(&town.get_with(node, "/show", &range).await, text, at, at + 9);
        }
        assert_eq!(asked(&town, 0), ["3-3"]);
    });
}

#[test]
fn an_owner_puts_several_ranges_together_for_the_others() {
    play(async || {
        let (town, text) = town(3);
        let [primary, _, stranger] = town.roles("/film");
        part(&town, primary, 3 * MIB, 5 * MIB - 1).await;
        town.carried();
        let only = ("cache-control", "only-if-cached");
        let (one, other) =
            (format!("{}-{}", 3 * MIB, 3 * MIB + 9), format!("{}-{}", 4 * MIB + 5, 4 * MIB + 7));
        let range = format!("bytes={one},{other}");
        for fields in [vec![("range", &*range)], vec![("range", &*range), only]] {
            let got = town.get_with(stranger, "/film", &fields).await;
            assert_eq!(
                (got.status, got.is_hit()),
                (StatusCode::PARTIAL_CONTENT, true),
                "{}",
                got.cache_status()
            );
            assert!(got.field("content-type").starts_with("multipart/byteranges; boundary="));
            assert_eq!(got.field("content-length"), got.text().len().to_string());
            for (range, bytes) in [(&one, 3 * MIB..3 * MIB + 10), (&other, 4 * MIB + 5..4 * MIB + 8)] {
                let part = format!("Content-Range: bytes {range}/{LENGTH}\r\n\r\n{}\r\n", &text[bytes]);
                assert!(got.text().contains(&part), "{}", got.text());
            }
        }
        let touching = format!("bytes={}-{},{}-{}", 3 * MIB, 3 * MIB + 4, 3 * MIB + 5, 3 * MIB + 9);
        let got = town.get_with(stranger, "/film", &[("range", &touching)]).await;
        assert_part(&got, text, 3 * MIB, 3 * MIB + 9);
        let beyond = format!("bytes={LENGTH}-,{}-", LENGTH + 5);
        let got = town.get_with(stranger, "/film", &[("range", &beyond)]).await;
        assert_eq!((got.status, got.is_hit()), (StatusCode::RANGE_NOT_SATISFIABLE, true));
        assert!(town.carried() < HEADS);

        // One of them is nowhere.
        let lacking = format!("bytes=0-9,{other}");
        assert!(town.get_with(stranger, "/film", &[("range", &lacking)]).await.is_direct);
        assert_whole(&town.get(primary, "/film").await, text);
        assert_eq!(
            town.get_with(stranger, "/film", &[("range", &lacking)]).await.status,
            StatusCode::PARTIAL_CONTENT
        );
        assert_eq!(asked(&town, 0), ["3-4", "0-2*", "5-5*"]);
    });
}
