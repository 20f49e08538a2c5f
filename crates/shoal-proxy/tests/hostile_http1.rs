//! HTTP/1 bytes written by hand: what hides behind a request stays hidden, and paths are what they seem to be.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use support::{Origin, Seen, Stage, ok, site};

/// The endpoint tells which path it was asked for.
async fn echo(limits: &str) -> (Stage, Origin) {
    let origin = Origin::start(|seen: Seen| ok(seen.path())).await;
    let text = site(&[origin.address], "", "");
    (Stage::start(&text.replace("protocol: http }", &format!("protocol: http{limits} }}"))), origin)
}

#[tokio::test]
async fn nothing_hides_behind_a_request_of_unclear_length() {
    let (stage, origin) = echo("").await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let smuggled = format!("0\r\n\r\n{hidden}");
    let length = smuggled.len();
    let table = [
        ("CL.TE", format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n")),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n".to_owned()),
        ("CL.CL", format!("Content-Length: {length}\r\nContent-Length: 0\r\n")),
        ("CL list", "Content-Length: 0, 0\r\n".to_owned()),
        ("CL hidden by a tab", format!("Content-Length:\t{length}\r\nTransfer-Encoding:\tchunked\r\n")),
        ("CL negative", "Content-Length: -1\r\n".to_owned()),
        ("CL beyond u64", "Content-Length: 18446744073709551616\r\n".to_owned()),
        ("TE.TE", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n".to_owned()),
        ("TE with a space", "Transfer-Encoding : chunked\r\n".to_owned()),
        ("TE folded", "Transfer-Encoding:\r\n chunked\r\n".to_owned()),
        ("TE after a folded field", "X: y\r\n Transfer-Encoding: chunked\r\n".to_owned()),
        ("TE quoted", "Transfer-Encoding: \"chunked\"\r\n".to_owned()),
        ("TE with a vertical tab", "Transfer-Encoding: \x0bchunked\r\n".to_owned()),
        ("TE with parameters", "Transfer-Encoding: chunked;q=1\r\n".to_owned()),
        ("TE after a bare CR", "X: y\rTransfer-Encoding: chunked\r\n".to_owned()),
        ("TE after a bare LF", "X: y\nTransfer-Encoding: chunked\r\n".to_owned()),
        ("TE with an underscore", "Transfer_Encoding: chunked\r\n".to_owned()),
        (
            "TE named by Connection",
            "Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n".to_owned(),
        ),
    ];
    for (what, fields) in table {
        let mut downstream = stage.connect().await;
        downstream.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{smuggled}")).await;
        assert_eq!(downstream.answer().await.status, 400, "{what}");
        assert!(downstream.is_closed().await, "{what}: more was answered");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn bad_chunks_are_the_end_of_the_connection() {
    let (stage, origin) = echo("").await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for chunks in [
        format!("5\r\nabcde0\r\n\r\n{hidden}"),
        format!("-1\r\n\r\n{hidden}"),
        format!("0x0\r\n\r\n{hidden}"),
        format!("fffffffffffffffff\r\n{hidden}"),
        format!("0;{}\r\n\r\n{hidden}", "x".repeat(70_000)),
        // Much beside little: extensions in all, chunks of a byte, trailers by their bytes and by their number.
        format!("{}0\r\n\r\n{hidden}", format!("1;{}\r\na\r\n", "x".repeat(4_000)).repeat(5)),
        format!("{}0\r\n\r\n{hidden}", "1\r\na\r\n".repeat(20_000)),
        format!("0\r\nX: {}\r\n\r\n{hidden}", "x".repeat(17_000)),
        format!("0\r\n{}\r\n{hidden}", "X: y\r\n".repeat(65)),
    ] {
        let mut downstream = stage.connect().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        downstream.send(format!("{head}{chunks}")).await;
        let shown: String = chunks.chars().take(40).collect();
        assert_eq!(downstream.answer().await.status, 400, "{shown:?}");
        assert!(downstream.is_closed().await, "{shown:?}: more was answered");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn no_byte_behind_a_refused_upgrade_is_relayed() {
    let (stage, origin) = echo("").await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    // The endpoint answers 200: it is an ordinary response, and what came behind the request closes the connection.
    let mut downstream = stage.connect().await;
    let asked =
        format!("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{key}\r\n");
    downstream.send(format!("{asked}{hidden}")).await;
    let answer = downstream.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "/ws"));
    assert!(downstream.is_closed().await, "more was answered");
    // h2c is never spoken this way.
    let answer = stage
        .ask("GET /h2c HTTP/1.1\r\nHost: a\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
        .await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "/h2c"));
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn paths_are_brought_into_one_form_or_refused() {
    let (stage, _origin) = echo("").await;
    // The policy: unreserved escapes decoded, others in upper case, dot segments removed and never above the root, empty
    // segments and parameters kept, `%2F` and `%5C` not decoded; NUL, `\`, bad escapes and fragments refused.
    let table: [(&str, Option<&str>); 22] = [
        ("/", Some("/")),
        ("//", Some("//")),
        ("//a//b", Some("//a//b")),
        ("/a/../b", Some("/b")),
        ("/../../etc/passwd", Some("/etc/passwd")),
        ("/a/%2e%2E/b", Some("/b")),
        ("/a/.%2e/b", Some("/b")),
        ("/./a/.", Some("/a/")),
        ("/a/..", Some("/")),
        ("/a%2fb", Some("/a%2Fb")),
        ("/a/..%2f..%2fb", Some("/a/..%2F..%2Fb")),
        ("/a%5c..", Some("/a%5C..")),
        ("/a;x=1/../b", Some("/b")),
        ("/a/..;/b", Some("/a/..;/b")),
        ("/%61%7e", Some("/a~")),
        ("/a%252e", Some("/a%252e")),
        ("/a?/../b", Some("/a?/../b")),
        ("/a\\..\\b", None),
        ("/a%00", None),
        ("/a%", None),
        ("/a%4", None),
        ("/a#b", None),
    ];
    for (target, expected) in table {
        let answer = stage.ask(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let seen = answer.text();
        assert_eq!((answer.status == 200).then_some(seen.as_str()), expected, "{target}");
        assert!(matches!(answer.status, 200 | 400), "{target}: {}", answer.status);
    }
}

#[tokio::test]
async fn a_target_names_no_other_place() {
    let (stage, origin) = echo("").await;
    let table = [
        ("GET http://a/x HTTP/1.1\r\nHost: a\r\n", 200),
        ("GET HTTP://A:80/x HTTP/1.1\r\nHost: a\r\n", 200),
        ("GET http://b/x HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET http://a@b/x HTTP/1.1\r\nHost: b\r\n", 400),
        ("GET http://a:80@b/x HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET https://a/x HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET ftp://a/x HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET x HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET @b/ HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET /x HTTP/1.1\r\nHost: a/b\r\n", 400),
        ("GET /x HTTP/1.1\r\nHost: a#\r\n", 400),
        ("GET /x HTTP/1.1\r\nHost: a,b\r\n", 400),
        ("GET /x HTTP/1.1\r\nHost: a:b\r\n", 400),
        ("GET /x HTTP/1.1\r\nHost:\r\n", 400),
        ("GET /x HTTP/1.1\r\nhost: a\r\nHOST: b\r\n", 400),
        ("GET /x HTTP/1.1\r\n Host: a\r\n", 400),
        ("GET  /x HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET /x HTTP/1.2\r\nHost: a\r\n", 400),
        ("GET /x HTTP/9.1\r\nHost: a\r\n", 400),
        ("G(T /x HTTP/1.1\r\nHost: a\r\n", 400),
    ];
    let good = table.iter().filter(|(_, status)| *status == 200).count();
    let mut wrong = Vec::new();
    for (head, expected) in table {
        let status = stage.ask(&format!("{head}\r\n")).await.status;
        if status != expected {
            wrong.push(format!("{head:?}: {status} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(origin.requests(), good);
}

#[tokio::test]
async fn slow_heads_are_cut_off_beside_quick_ones() {
    let (stage, _origin) = echo(", limits: { header_timeout: 500ms }").await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut downstream = stage.connect().await;
        downstream.send("GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
        slow.push(downstream);
    }
    assert_eq!(stage.ask("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "/quick");
    for downstream in &mut slow {
        assert_eq!(downstream.answer().await.status, 408);
        assert!(downstream.is_closed().await);
    }
    support::wait_until("the end of all", || stage.proxy.open_connections() == 0).await;
}

#[tokio::test]
async fn an_empty_line_after_a_body_is_no_head() {
    let (stage, _origin) = echo(", limits: { header_timeout: 300ms }").await;
    let mut downstream = stage.connect().await;
    downstream.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\n").await;
    assert_eq!(downstream.answer().await.text(), "/a");
    let more = tokio::time::timeout(std::time::Duration::from_secs(1), downstream.read_until(b"\n")).await;
    assert!(more.is_err(), "nothing was asked, and nothing is answered: {more:?}");
    downstream.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(downstream.answer().await.text(), "/b");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_like_the_rest_wherever_it_stands() {
    let (stage, origin) = echo("").await;
    let good = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
    let table = [
        ("GET /x HTTP/1.1\r\nX : y\r\n\r\n".to_owned(), 400, "downstream_bad_request: unparsable"),
        (format!("GET /x HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40_000)), 431, "downstream_head_too_large"),
        (
            format!("GET /x HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200)),
            431,
            "downstream_head_too_large",
        ),
    ];
    for (bad, status, reason) in &table {
        for before in 0..3 {
            for at_once in [true, false] {
                let mut downstream = stage.connect().await;
                let all = format!("{}{bad}", good.repeat(before));
                if at_once {
                    downstream.send(all).await;
                }
                for _ in 0..before {
                    if !at_once {
                        downstream.send(good).await;
                    }
                    assert_eq!(downstream.answer().await.text(), "/good");
                }
                if !at_once {
                    downstream.send(bad).await;
                }
                let answer = downstream.answer().await;
                assert_eq!((answer.status, answer.complete), (*status, true), "after {before}");
                assert!(answer.text().contains(&format!("{reason}\nrequest id ")), "{}", answer.text());
                assert!(answer.field("via").is_some() && answer.field("date").is_some(), "{}", answer.head);
                assert!(downstream.is_closed().await);
            }
        }
    }
    assert_eq!(origin.requests(), table.len() * 6);
    assert_eq!(stage.metric("shoal_gate_refusals_total{rule=\"unparsable\"}"), 6);
    assert_eq!(stage.metric("shoal_failures_total{reason=\"downstream_head_too_large\"}"), 12);
}

#[tokio::test]
async fn tls_on_a_plain_port_is_told_so() {
    let (stage, _origin) = echo("").await;
    let mut downstream = stage.connect().await;
    downstream.send([22, 3, 1, 0, 5, 1, 0, 0, 1, 3]).await;
    let answer = downstream.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (400, Some("close")));
    assert!(answer.text().contains("TLS was sent to a port that speaks plain HTTP"), "{}", answer.text());
    assert!(downstream.is_closed().await);
    let line = &stage.log_of(1).await[0];
    assert_eq!(
        (line["rule"].as_str(), line["client_addr"].as_str()),
        (Some("tls_on_plain_port"), Some("127.0.0.1"))
    );
    assert_eq!(stage.metric("shoal_gate_refusals_total{rule=\"tls_on_plain_port\"}"), 1);
}
