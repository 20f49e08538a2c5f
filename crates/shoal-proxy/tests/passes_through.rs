//! Requests and responses reach the other side whole, and nothing of one hop leaks into the next.

mod support;

use support::{Downstream, Origin, Seen, Stage, nowhere, ok, site};
use tokio::net::UnixListener;

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let origin = Origin::start(|seen: Seen| ok(&format!("{} on {}", seen.path(), seen.connection))).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    for n in 0..20 {
        downstream.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = downstream.answer().await;
        assert_eq!((answer.status, answer.text()), (200, format!("/{n} on 0")));
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(stage.metric("shoal_route_requests_total{route=\"all\",code_class=\"2xx\"}"), 20);
    assert_eq!(stage.metric("shoal_upstream_requests_total{upstream=\"app\",code_class=\"2xx\"}"), 20);
    assert_eq!(stage.metric("shoal_failures_total{reason=\"downstream_reset\"}"), 0);
    assert_eq!(stage.metric("shoal_requests_in_flight"), 0);
    assert_eq!(stage.metric("shoal_upstream_retries_total{upstream=\"app\"}"), 0);
}

#[tokio::test]
async fn fields_of_this_hop_stay_here() {
    let origin = Origin::start(|seen: Seen| {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\nx-end: 1";
        format!("{answer}\r\nx-seen: {}\r\n\r\n", seen.head.replace("\r\n", "|"))
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let answer = stage
        .ask("GET /a/../b?q=1 HTTP/1.1\r\nHost: Shop.Example\r\nConnection: x-mine\r\nX-Mine: 1\r\nX-Kept: 1\r\nX-Forwarded-For: 6.6.6.6\r\nTE: trailers\r\nHTTP2-Settings: AAMAAABk\r\nProxy: http://evil\r\n\r\n")
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("x-end"), Some("1"));
    assert!(answer.field("via").unwrap().contains("shoal-one"));
    assert_eq!(answer.field("x-hop"), None);
    assert_eq!(answer.field("keep-alive"), None);
    assert!(answer.field("date").is_some());
    let seen = answer.field("x-seen").unwrap().replace('|', "\r\n");
    assert!(seen.starts_with("GET /b?q=1 HTTP/1.1\r\n"), "{seen}");
    let forwarded = |name| support::field(&seen, name);
    assert_eq!(forwarded("host"), Some("shop.example"));
    assert_eq!(forwarded("x-kept"), Some("1"));
    assert_eq!(forwarded("x-mine"), None);
    assert_eq!(forwarded("te"), None);
    assert_eq!(forwarded("http2-settings"), None, "without an upgrade, too");
    assert_eq!(forwarded("proxy"), None, "programs run as CGI would believe it");
    assert_eq!(forwarded("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(forwarded("x-forwarded-proto"), Some("http"));
    assert_eq!(forwarded("x-request-id"), answer.field("x-request-id"));
}

/// RFC 9110 §7.6.2.
#[tokio::test]
async fn an_options_or_trace_goes_as_far_as_it_says() {
    let origin = Origin::start(|seen: Seen| {
        let method = seen.head.split(' ').next().unwrap();
        ok(&format!("{method} {}", seen.field("max-forwards").unwrap_or("without")))
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    for (method, hops, status, expected) in [
        ("TRACE", "0", 501, None),
        ("TRACE", "1", 200, Some("TRACE 0")),
        ("TRACE", "1O", 200, Some("TRACE 1O")),
        ("OPTIONS", "0", 200, None),
        ("OPTIONS", "1", 200, Some("OPTIONS 0")),
        ("OPTIONS", "-1", 200, Some("OPTIONS -1")),
        ("GET", "0", 200, Some("GET 0")),
    ] {
        let before = origin.requests();
        let answer =
            stage.ask(&format!("{method} /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: {hops}\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{method} {hops}");
        assert_eq!(answer.text(), expected.unwrap_or_default(), "{method} {hops}");
        assert_eq!(origin.requests() - before, usize::from(expected.is_some()), "{method} {hops}");
    }
}

#[tokio::test]
async fn queries_may_have_what_others_let_pass_in_them() {
    let origin = Origin::start(|seen: Seen| ok(seen.path())).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    for (query, expected) in [
        (&b"{\"a\":[1]}"[..], "/?{%22a%22:[1]}"),
        (b"<a>|^`\\{}", "/?%3Ca%3E|^`\\{}"),
        ("caf\u{e9}".as_bytes(), "/?caf\u{e9}"),
    ] {
        downstream.send([b"GET /?", query, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).await;
        assert_eq!(downstream.answer().await.text(), expected);
    }
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let origin = Origin::start(|seen: Seen| {
        let body = String::from_utf8(seen.body).unwrap();
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let body = "0123456789abcdef".repeat(256 << 10);
    let sized = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for request in [sized, chunked] {
        let downstream = tokio::net::TcpStream::connect(stage.address("web")).await.unwrap();
        let (read, mut write) = downstream.into_split();
        let sender = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            write.write_all(request.as_bytes()).await.unwrap();
            write
        });
        let mut downstream = Downstream::new(tokio::io::join(read, tokio::io::sink()));
        let answer = downstream.answer().await;
        assert_eq!((answer.status, answer.body.len(), answer.complete), (200, body.len(), true));
        assert!(answer.body == body.as_bytes());
        drop(sender.await.unwrap());
    }
}

#[tokio::test]
async fn a_get_keeps_its_chunked_body() {
    let origin = Origin::start(|seen: Seen| ok(&String::from_utf8(seen.body).unwrap())).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let answer = stage
        .ask("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert_eq!(answer.text(), "abc");
}

#[tokio::test]
async fn trailers_pass_where_the_route_says_so() {
    let origin = Origin::start(|seen: Seen| {
        let upward = seen.trailers.replace("\r\n", "|");
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nx-upward: {upward}\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n"
        )
    })
    .await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: x-up\r\n\r\n2\r\nyo\r\n0\r\nx-up: 9\r\n\r\n";
    for (route, upward, downward) in
        [("", Some(""), ""), (", trailers: true", Some("x-up: 9|"), "x-sum: 7\r\n")]
    {
        let stage = Stage::start(&site(&[origin.address], route, ""));
        let answer = stage.ask(request).await;
        assert_eq!((answer.text().as_str(), answer.complete), ("hi", true));
        assert_eq!(answer.field("x-upward"), upward, "{route}");
        assert_eq!(answer.trailers, downward, "{route}");
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let origin = Origin::start(|seen: Seen| match seen.path() {
        "/none" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "/same" => "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n".to_owned(),
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n".to_owned(),
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = downstream.read_head().await.unwrap();
    assert_eq!(support::field(&head, "content-length"), Some("1234"));
    for (path, status) in [("/none", 204), ("/same", 304)] {
        downstream.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(downstream.answer().await.status, status);
    }
    assert_eq!(origin.connections(), 1, "answers without a body leave the connection usable");
}

#[tokio::test]
async fn old_downstreams_are_served() {
    let origin = Origin::start(|seen: Seen| {
        let host = seen.field("host").unwrap().to_owned();
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-host: {host}\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = downstream.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
    assert_eq!(answer.field("transfer-encoding"), None);
    assert_eq!(answer.field("x-host"), Some(stage.address("web").to_string().as_str()));
}

#[tokio::test]
async fn routes_are_found_and_missed() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&site(&[origin.address], ", hosts: [a.example], path_prefix: /shop", ""));
    for (request, status) in [
        ("GET /shop/1 HTTP/1.1\r\nHost: A.example:80\r\n\r\n", 200),
        ("GET /shopping HTTP/1.1\r\nHost: a.example\r\n\r\n", 404),
        ("GET /x/%2e%2e/shop HTTP/1.1\r\nHost: a.example\r\n\r\n", 200),
        ("GET /shop HTTP/1.1\r\nHost: b.example\r\n\r\n", 404),
    ] {
        let answer = stage.ask(request).await;
        assert_eq!(answer.status, status, "{request}");
        if status == 404 {
            assert!(answer.text().contains("node_no_route"));
            assert!(answer.text().contains(answer.field("x-request-id").unwrap()));
        }
    }
}

#[tokio::test]
async fn names_of_fields_have_capitals_where_a_site_wants_them() {
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |request: Seen| {
        sender.send(request.head).unwrap();
        "HTTP/1.1 200 OK\r\nx-ORIGINAL-case: a-b\r\ncontent-length: 0\r\n\r\n"
    })
    .await;
    let capitals = |name: &str| {
        let part = |part: &str| part[..1].to_uppercase() + &part[1..];
        name.split('-').map(part).collect::<Vec<_>>().join("-")
    };
    let check = |what: &str, head: &str, title: bool| {
        let names: Vec<&str> =
            head.lines().skip(1).filter_map(|line| Some(line.split_once(": ")?.0)).collect();
        assert!(names.len() > 1, "{what}: {head}");
        for name in names {
            let lower = name.to_lowercase();
            assert_eq!(name, if title { capitals(&lower) } else { lower }, "{what}: {head}");
        }
    };
    for (listener, upstream) in [(false, false), (true, false), (false, true), (true, true)] {
        let setting = |title: bool| if title { ", header_case: title" } else { "" };
        let site = site(&[origin.address], "", setting(upstream))
            .replace("protocol: http", &format!("protocol: http{}", setting(listener)));
        let stage = Stage::start(&site);
        let request = "GET / HTTP/1.1\r\nHOST: a\r\naccept-LANGUAGE: en\r\n\r\n";
        check("an answer", &stage.ask(request).await.head, listener);
        check("a request", &seen.recv().await.unwrap(), upstream);
        check("a refusal", &stage.ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await.head, listener);
        check("what was never heard", &stage.ask("GET / HTTP/1.1\r\nHost a\r\n\r\n").await.head, listener);
    }
}

#[tokio::test]
async fn names_keep_the_case_they_came_in_where_asked() {
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |request: Seen| {
        sender.send(request.head).unwrap();
        "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nX-ABc: d\r\nSet-cookie: a\r\nset-COOKIE: b\r\ncontent-LENGTH: 0\r\n\r\n"
    })
    .await;
    let names = |head: &str| -> Vec<String> {
        let names = head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_owned()));
        names.collect()
    };
    let setting = |keeps: bool| if keeps { ", header_case: preserve" } else { "" };
    for (listener, upstream) in [(true, false), (false, true)] {
        let site = site(&[origin.address], "", setting(upstream))
            .replace("protocol: http", &format!("protocol: http{}", setting(listener)));
        let stage = Stage::start(&site);
        let mut downstream = stage.connect().await;
        // Again and again: heads like those before are read in another way.
        for number in 0..5 {
            let request =
                format!("GET /{number} HTTP/1.1\r\nHOST: a\r\nSOAPAction: {number}\r\nx-MiXed: y\r\n\r\n");
            downstream.send(request).await;
            let answer = names(&downstream.answer().await.head);
            let request = names(&seen.recv().await.unwrap());
            let kept = |names: &[String], name: &str| names.iter().any(|known| known == name);
            for name in ["ETag", "X-ABc", "Set-cookie", "content-LENGTH", "Date"] {
                let name = if listener { name.to_owned() } else { name.to_lowercase() };
                assert!(kept(&answer, &name), "{name} in {answer:?}");
            }
            for name in ["HOST", "SOAPAction", "x-MiXed", "Via", "X-Request-Id"] {
                let name = if upstream { name.to_owned() } else { name.to_lowercase() };
                assert!(kept(&request, &name), "{name} in {request:?}");
            }
        }
    }
}

#[tokio::test]
async fn unix_sockets_are_endpoints_like_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = Downstream::new(stream);
                while let Some(head) = stream.read_head().await {
                    stream.send(ok(head.lines().next().unwrap())).await;
                }
            });
        }
    });
    let anywhere = nowhere().await;
    let at = |path: &str| site(&[anywhere], "", "").replace(&anywhere.to_string(), &format!("unix:{path}"));
    let stage = Stage::start(&at(path.to_str().unwrap()));
    let answer = stage.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "GET /x HTTP/1.1"));
    drop(directory);
    let gone = Stage::start(&at("/nonexistent/app.sock"));
    assert_eq!(gone.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 502);
}
