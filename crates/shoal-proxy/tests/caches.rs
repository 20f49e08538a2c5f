//! Routes with a cache: the origin is asked once, and what passes by the cache says so.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shoal_proxy::{AskedPurge, Ports, PurgeAnswer, PurgeAsker};
use support::{Origin, Seen, Stage, and_close, serve_raw, site};

fn cacheable(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn the_origin_is_asked_once() {
    let origin = Origin::start(|seen: Seen| cacheable(&seen.number.to_string())).await;
    let stage = Stage::start(&site(&[origin.address], ", cache: {}", ""));
    let mut downstream = stage.connect().await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        downstream.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = downstream.answer().await;
        assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, "0", true));
        for once in ["via", "x-request-id", "cache-status", "age"] {
            let lines = answer.head.lines().filter(|line| line.starts_with(&format!("{once}: ")));
            let lines: Vec<_> = lines.collect();
            let is_fill = once == "age" && statuses.is_empty();
            assert!(is_fill || matches!(*lines, [line] if line.len() > once.len() + 2), "{lines:?}");
        }
        statuses.push(answer.field("cache-status").unwrap().to_owned());
    }
    assert!(statuses[0].starts_with("one; fwd="), "{statuses:?}");
    assert!(statuses[4].starts_with("one; hit"), "{statuses:?}");
    assert_eq!(origin.requests(), 1);
    assert_eq!(stage.metric("shoal_failures_total{reason=\"downstream_reset\"}"), 0);
}

#[tokio::test]
async fn writes_pass_by_and_invalidate() {
    let origin = Origin::start(|seen: Seen| cacheable(&seen.number.to_string())).await;
    let stage = Stage::start(&site(&[origin.address], ", cache: {}", ""));
    let get = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(stage.ask(get).await.text(), "0");
    assert_eq!(stage.ask(get).await.text(), "0");
    let post = stage.ask("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    assert_eq!((post.text().as_str(), post.field("cache-status")), ("1", Some("one; fwd=method")));
    assert_eq!(stage.ask(get).await.text(), "2", "what the POST changed is fetched anew");
}

#[tokio::test]
async fn a_truncated_answer_is_neither_whole_nor_kept() {
    let origin = Origin::start(|seen: Seen| match seen.number {
        0 => and_close("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 9\r\n\r\nhalf"),
        _ => cacheable("all of it").as_str().into(),
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], ", cache: {}", ""));
    let get = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let first = stage.ask(get).await;
    assert!(!(first.status == 200 && first.complete), "{first:?}");
    let second = stage.ask(get).await;
    assert_eq!((second.status, second.text().as_str(), second.complete), (200, "all of it", true));
}

#[tokio::test]
async fn what_nobody_can_tell_to_be_whole_is_passed_on_and_not_kept() {
    let origin = Origin::start(|seen: Seen| {
        and_close(&format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n\r\nanswer {}", seen.number))
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], ", cache: {}", ""));
    for expected in ["answer 0", "answer 1"] {
        let got = stage.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!((got.text().as_str(), got.complete), (expected, true));
    }
    assert_eq!(stage.cache.counters().objects, 0);
}

#[tokio::test]
async fn what_a_caller_says_of_itself_poisons_no_object() {
    let origin = Origin::start(|seen: Seen| cacheable(&seen.head)).await;
    let stage = Stage::start(&site(&[origin.address], ", cache: {}", ""));
    let forged = [
        "Forwarded: host=evil;proto=evil",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Proto: evil",
        "X-Forwarded-Scheme: evil",
        "X-Forwarded-Port: evil",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Server: evil",
        "X-Forwarded-For: evil",
        "X-Forwarded: evil",
        "X-Real-IP: evil",
        "X-Host: evil",
        "X-Original-Host: evil",
        "X-HTTP-Host-Override: evil",
        "X-Original-URL: /evil",
        "X-Rewrite-URL: /evil",
        "X-HTTP-Method-Override: EVIL",
        "X-HTTP-Method: EVIL",
        "X-Method-Override: EVIL",
        "Shoal-Url: http://evil/",
    ];
    for (n, field) in forged.iter().enumerate() {
        let forged = stage.ask(&format!("GET /{n} HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n")).await;
        assert_eq!(forged.status, 200, "{field}: {forged:?}");
        let seen = forged.text().to_ascii_lowercase();
        assert!(!seen.contains("evil"), "{field}: {seen}");
        assert!(seen.contains("x-forwarded-host: a\r\n") || seen.ends_with("x-forwarded-host: a"), "{seen}");
        let next = stage.ask(&format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert!(next.field("cache-status").unwrap().contains("; hit"), "{next:?}");
        assert_eq!(next.body, forged.body);
    }
}

#[tokio::test]
async fn fetches_of_the_cache_count_as_traffic_of_the_upstream() {
    let origin = Origin::start(|_| cacheable("hello")).await;
    let stage = Stage::start(&site(&[origin.address], ", cache: {}", ""));
    for _ in 0..3 {
        assert_eq!(stage.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "hello");
    }
    let requests = "shoal_upstream_requests_total{upstream=\"app\",code_class=\"2xx\"}";
    support::wait_until("the end of the fetch", || stage.metric(requests) == 1).await;
    assert_eq!(stage.metric("shoal_upstream_response_bytes_total{upstream=\"app\"}"), 5);
}

#[tokio::test]
async fn a_drain_waits_for_fills_that_nobody_here_waits_for() {
    let (asked, connections) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let gate = Arc::new(tokio::sync::Notify::new());
    let (counted, opened) = (asked.clone(), gate.clone());
    let address = serve_raw(connections, move |stream, _| {
        let (counted, opened) = (counted.clone(), opened.clone());
        async move {
            let mut stream = support::Downstream::new(stream);
            stream.read_head().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            opened.notified().await;
            stream.send(cacheable("hello")).await;
            stream.read_to_end().await;
        }
    })
    .await;
    let stage = Stage::start(&site(&[address], ", cache: {}", ""));
    let mut downstream = stage.connect().await;
    downstream.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    support::wait_until("the fetch", || asked.load(Ordering::SeqCst) == 1).await;
    drop(downstream);
    support::wait_until("the end of the connection", || stage.proxy.open_connections() == 0).await;
    let mut drain = std::pin::pin!(stage.proxy.drain(Duration::from_secs(20), Ports::Closed));
    let early = tokio::time::timeout(Duration::from_millis(400), &mut drain).await;
    assert!(early.is_err(), "a node that drains still brings in what it has begun");
    gate.notify_one();
    assert_eq!(drain.await, 0);
    assert_eq!(stage.cache.counters().objects, 1);
}

/// Asks `get` until the answer is another one than `old`.
async fn until_fetched_anew(stage: &Stage, get: &str, old: &str) {
    let anew = async {
        while stage.ask(get).await.text() == old {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, anew).await.expect("the old answer is given for long");
}

#[tokio::test]
async fn a_write_whose_answer_nobody_waits_for_invalidates_all_the_same() {
    let writes = Arc::new(AtomicUsize::new(0));
    let (counted, reads) = (writes.clone(), Arc::new(AtomicUsize::new(0)));
    let address = serve_raw(Arc::default(), move |stream, _| {
        let (counted, reads) = (counted.clone(), reads.clone());
        async move {
            let mut stream = support::Downstream::new(stream);
            while let Some(head) = stream.read_head().await {
                if !head.starts_with("GET") {
                    counted.fetch_add(1, Ordering::SeqCst);
                    // It is changed, and nobody is ever told so.
                    stream.read_to_end().await;
                    return;
                }
                stream.send(cacheable(&reads.fetch_add(1, Ordering::SeqCst).to_string())).await;
            }
        }
    })
    .await;
    let stage = Stage::start(&site(&[address], ", cache: {}", ""));
    let get = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let stored = async || {
        let first = stage.ask(get).await.text();
        assert_eq!(stage.ask(get).await.text(), first, "it is stored");
        first
    };
    for (before, method) in ["POST", "PUT", "DELETE"].into_iter().enumerate() {
        let old = stored().await;
        let stream = tokio::net::TcpStream::connect(stage.address("web")).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::builder().method(method).uri("http://a/x").body(()).unwrap();
        let (_answer, mut body) = sender.send_request(request, true).unwrap();
        support::wait_until("the write", || writes.load(Ordering::SeqCst) == before + 1).await;
        body.send_reset(h2::Reason::CANCEL);
        until_fetched_anew(&stage, get, &old).await;
        connection.abort();
    }
    let old = stored().await;
    let mut downstream = stage.connect().await;
    downstream.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    support::wait_until("the write", || writes.load(Ordering::SeqCst) == 4).await;
    // No polite end, but a reset.
    socket2::SockRef::from(&downstream.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(downstream);
    until_fetched_anew(&stage, get, &old).await;
}

#[tokio::test]
async fn groups_are_forgotten_before_a_write_is_answered() {
    let origin = Origin::start(|seen: Seen| {
        let field = match seen.head.split(' ').take(2).collect::<Vec<_>>()[..] {
            ["POST", "/bad"] => return "HTTP/1.1 409 Conflict\r\ncache-group-invalidation: \"red\"\r\ncontent-length: 0\r\n\r\n".to_owned(),
            ["POST", _] => "cache-group-invalidation: \"red\", \"green\"",
            [_, "/red"] => "cache-groups: \"red\"",
            _ => "cache-groups: \"Red\", \"blue\"",
        };
        let body = seen.number.to_string();
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n{field}\r\ncontent-length: {length}\r\n\r\n{body}")
    })
    .await;
    let mut stage = Stage::start(&site(&[origin.address], ", cache: {}", ""));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    for _ in 0..2 {
        assert_eq!(stage.ask(&get("/red")).await.text(), "0");
    }
    for _ in 0..2 {
        assert_eq!(stage.ask(&get("/blue")).await.text(), "1");
    }
    assert_eq!(stage.ask(&post("/bad")).await.status, 409, "an error changes nothing");
    assert!(stage.purges.try_recv().is_err());

    let (_, never) = tokio::sync::mpsc::channel(1);
    let mut purges = std::mem::replace(&mut stage.purges, never);
    let (cache, is_forgotten) = (stage.cache.clone(), Arc::new(AtomicUsize::new(0)));
    let forgotten = is_forgotten.clone();
    tokio::spawn(async move {
        let AskedPurge { scopes, asker, kind, wait_complete, answer } = purges.recv().await.unwrap();
        assert_eq!((scopes.len(), wait_complete), (2, true));
        assert!(matches!(asker, PurgeAsker::Origin { .. }));
        cache.record_purge(9, &scopes, kind);
        forgotten.store(1, Ordering::SeqCst);
        answer.send(PurgeAnswer { status: http::StatusCode::OK, json: String::new() }).unwrap();
    });
    assert_eq!(stage.ask(&post("/z")).await.text(), "3");
    assert_eq!(is_forgotten.load(Ordering::SeqCst), 1, "it was answered before that");
    assert_eq!(stage.ask(&get("/red")).await.text(), "4");
    assert_eq!(stage.ask(&get("/blue")).await.text(), "1", "it is in no such group");
}

#[tokio::test]
async fn an_answer_to_a_post_that_shows_what_a_get_would_is_kept() {
    let origin = Origin::start(|seen: Seen| {
        let shown = match seen.head.split(' ').nth(1) {
            Some("/elsewhere") => "/x",
            _ => "/shown",
        };
        let body = seen.number.to_string();
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-location: {shown}\r\ncontent-length: {length}\r\n\r\n{body}")
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], ", cache: {}", ""));
    let ask = async |method: &str, path: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        stage.ask(&request).await.text()
    };
    assert_eq!(ask("POST", "/shown").await, "0");
    assert_eq!(ask("GET", "/shown").await, "0");
    assert_eq!(ask("POST", "/shown").await, "1", "a POST goes through");
    assert_eq!(ask("GET", "/shown").await, "1");
    assert_eq!(ask("POST", "/elsewhere").await, "2");
    assert_eq!(ask("GET", "/elsewhere").await, "3", "it shows something else");
    assert_eq!(ask("POST", "/other").await, "4", "what it names has changed");
    assert_eq!(ask("GET", "/shown").await, "5");
}

#[tokio::test]
async fn an_answer_to_head_updates_what_is_stored_or_makes_it_stale() {
    let origin = Origin::start(|seen: Seen| {
        let (etag, color) = match seen.number {
            0 => ("\"a\"", "red"),
            1 => ("\"a\"", "blue"),
            _ => ("\"b\"", "green"),
        };
        let body = if seen.head.starts_with("HEAD") { "" } else { "one" };
        let fields =
            format!("cache-control: max-age=60\r\netag: {etag}\r\nx-color: {color}\r\ncontent-length: 3");
        format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}")
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], ", cache: { request_directives: honor }", ""));
    let color = async || {
        let answer = stage.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        (answer.field("x-color").unwrap().to_owned(), answer.text())
    };
    let head = async || {
        let mut downstream = stage.connect().await;
        downstream.send("HEAD /x HTTP/1.1\r\nHost: a\r\nCache-Control: no-cache\r\n\r\n").await;
        downstream.read_head().await.unwrap()
    };
    assert_eq!(color().await, ("red".to_owned(), "one".to_owned()));
    assert!(head().await.contains("x-color: blue"));
    assert_eq!(color().await, ("blue".to_owned(), "one".to_owned()));
    assert_eq!(origin.requests(), 2);
    assert!(head().await.contains("x-color: green"));
    assert_eq!(color().await.0, "green", "another one: it is asked for anew");
    assert_eq!(origin.requests(), 4);
}

/// The object that [`the_cache_asks_an_origin_once`] is about.
const TAGGED: &str = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nage: 70\r\netag: \"a\"\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn the_cache_asks_an_origin_once() {
    for (directive, expected) in [("max-age=60", 200), ("max-age=60, must-revalidate", 502)] {
        let origin = Origin::start(move |seen: Seen| match seen.number {
            0 => TAGGED.replace("max-age=60", directive).as_str().into(),
            // It has read the request, and has nothing to say to it.
            1 => and_close(""),
            _ => cacheable("asked again").as_str().into(),
        })
        .await;
        let stage = Stage::start(&site(&[origin.address], ", cache: {}", ""));
        let get = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut downstream = stage.connect().await;
        downstream.send(get).await;
        assert_eq!(downstream.answer().await.text(), "hello");
        downstream.send(get).await;
        let second = downstream.answer().await;
        assert_eq!(second.status, expected, "{directive}");
        assert_eq!((origin.requests(), origin.connections()), (2, 1), "{directive}");
        let error = (expected == 502).then_some("shoal-one; error=connection_terminated");
        assert_eq!(second.field("proxy-status"), error);
    }
}

#[tokio::test]
async fn an_origin_is_asked_about_a_tag_once() {
    let origin = Origin::start(|seen: Seen| {
        let tags: Vec<&str> = seen.head.lines().filter(|line| line.starts_with("if-none-match")).collect();
        if tags.is_empty() { TAGGED.to_owned() } else { cacheable(&tags.join("; ")) }
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], ", cache: {}", ""));
    for (path, tags, expected) in [
        ("/same", "\"a\"", "if-none-match: \"a\""),
        ("/weak", "W/\"a\"", "if-none-match: \"a\""),
        ("/other", "\"b\", \"a\"", "if-none-match: \"a\"; if-none-match: \"b\", \"a\""),
    ] {
        stage.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let get = format!("GET {path} HTTP/1.1\r\nHost: a\r\nIf-None-Match: {tags}\r\n\r\n");
        assert_eq!(stage.ask(&get).await.text(), expected);
    }
}

#[tokio::test]
async fn a_word_to_the_cache_of_a_browser_is_not_for_this_one() {
    let fresh =
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\netag: \"a\"\r\ncontent-length: 5\r\n\r\nhello";
    let origin = Origin::start(move |_: Seen| fresh.to_owned()).await;
    let stage = Stage::start(&site(&[origin.address], ", cache: {}", ""));
    stage.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let none = "If-None-Match: \"a\"";
    for (fields, status, requests) in [
        (format!("{none}\r\nPragma: no-cache\r\nCache-Control: no-cache"), 304, 1),
        (
            "If-Range: \"a\"\r\nRange: bytes=0-1\r\nPragma: no-cache\r\nCache-Control: no-cache".to_owned(),
            206,
            1,
        ),
        (format!("{none}\r\nCache-Control: no-cache"), 304, 2),
        ("Pragma: no-cache\r\nCache-Control: no-cache".to_owned(), 200, 3),
        (format!("{none}\r\nPragma: no-cache\r\nCache-Control: no-cache, max-age=0"), 304, 4),
    ] {
        let answer = stage.ask(&format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")).await;
        assert_eq!((answer.status, origin.requests()), (status, requests), "{fields}");
    }
}
