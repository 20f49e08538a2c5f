//! Dead, slow, lying and breaking endpoints: what can be repeated is, what cannot is told apart, nothing looks whole
//! that is not.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shoal_proxy::HealthEvent;
use support::{Downstream, Origin, Reply, Seen, Stage, and_close, nowhere, ok, serve_raw, site};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let origin = Origin::start(|_| ok("alive")).await;
    let stage = Stage::start(&site(&[nowhere().await, origin.address], "", ""));
    let mut downstream = stage.connect().await;
    for request in [GET, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"].repeat(10) {
        downstream.send(request).await;
        assert_eq!(downstream.answer().await.text(), "alive");
    }
    assert_eq!(origin.requests(), 20);
    assert!(stage.metric("shoal_upstream_retries_total{upstream=\"app\"}") >= 1);
}

#[tokio::test]
async fn all_endpoints_dead_is_a_502() {
    let stage = Stage::start(&site(&[nowhere().await, nowhere().await], "", ""));
    let answer = stage.ask(GET).await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("upstream_connect_failed"), "{}", answer.text());
}

#[tokio::test]
async fn an_endpoint_that_fails_is_ejected_and_told_of() {
    let (dead, origin) = (nowhere().await, Origin::start(|_| ok("")).await);
    let mut stage = Stage::start(&site(
        &[dead, origin.address],
        "",
        ", passive: { consecutive_errors: 2, base_ejection: 1h, max_ejection: 1h }",
    ));
    for _ in 0..12 {
        assert_eq!(stage.ask(GET).await.status, 200);
    }
    assert!(matches!(stage.events.recv().await, Some(HealthEvent::Ejected { .. })));
    let endpoint = format!("shoal_endpoint_up{{upstream=\"app\",endpoint=\"{dead}\",source=\"local\"}}");
    assert_eq!(stage.metric(&endpoint), 0);
    assert_eq!(stage.metric("shoal_upstream_retries_total{upstream=\"app\"}"), 2);
}

#[tokio::test]
async fn at_most_half_of_the_endpoints_are_ejected() {
    let mut origins = vec![Origin::start(|_| ok("")).await];
    for _ in 0..3 {
        origins.push(Origin::start(|_| "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await);
    }
    let endpoints: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    // Percentage of endpoints that may be ejected, and how many of the three that are bad are.
    for (percent, expected) in [("", 2), (", max_ejected_percent: 24", 0), (", max_ejected_percent: 100", 3)]
    {
        let passive = format!("consecutive_errors: 1, base_ejection: 1h, max_ejection: 1h{percent}");
        let never = ", panic_threshold_percent: 0";
        let stage = Stage::start(&site(&endpoints, "", &format!(", passive: {{ {passive} }}{never}")));
        let mut downstream = stage.connect().await;
        let mut ask = async || {
            downstream.send(GET).await;
            downstream.answer().await.status
        };
        for _ in 0..12 {
            ask().await;
        }
        let is_up = |endpoint| {
            let up =
                format!("shoal_endpoint_up{{upstream=\"app\",endpoint=\"{endpoint}\",source=\"local\"}}");
            stage.metric(&up) == 1
        };
        let ejected = endpoints.iter().filter(|endpoint| !is_up(**endpoint)).count();
        assert_eq!(ejected, expected, "{percent}");
        // Those that stayed go on in turn, the bad ones too.
        let stayed = endpoints.len() - expected;
        let mut bad = 0;
        for _ in 0..12 {
            bad += usize::from(ask().await == 503);
        }
        assert_eq!(bad, 12 * (3 - expected) / stayed, "{percent}");
    }
}

#[tokio::test]
async fn who_fails_its_trial_is_ejected_for_longer() {
    let busy = || Reply::from("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
    trials_of(busy, "").await;
}

#[tokio::test]
async fn who_does_not_answer_its_trial_in_time_is_ejected_for_longer() {
    let silent = || Reply { bytes: Vec::new(), close: false };
    trials_of(silent, ", retry: { per_try_timeout: 50ms }").await;
}

/// One of two endpoints fails always, by `failure`: how long it is left alone doubles with each trial, up to the most.
async fn trials_of(failure: fn() -> Reply, rule: &str) {
    let (seen, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (times, count) = (seen.clone(), asked.clone());
    let bad = Origin::start(move |_| {
        times.lock().expect("no thread has panicked").push(Instant::now());
        count.fetch_add(1, Ordering::SeqCst);
        failure()
    });
    let (bad, good) = (bad.await, Origin::start(|_| ok("")).await);
    let passive = ", passive: { consecutive_errors: 1, base_ejection: 300ms, max_ejection: 600ms }";
    let stage = Stage::start(&site(&[bad.address, good.address], rule, passive));
    let mut downstream = stage.connect().await;
    let deadline = Instant::now() + support::PATIENCE;
    while asked.load(Ordering::SeqCst) < 4 {
        assert!(Instant::now() < deadline, "no trial");
        downstream.send(GET).await;
        downstream.answer().await;
    }
    let seen = seen.lock().expect("no thread has panicked");
    for (n, least_ms) in [300, 600, 600].into_iter().enumerate() {
        let pause = seen[n + 1] - seen[n];
        // The clock of the workers may be a tick behind.
        assert!(pause >= Duration::from_millis(least_ms - 100), "{pause:?} after failure {n}");
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_more_often_than_the_others_is_ejected() {
    let mut endpoints = Vec::new();
    for n in 0..4 {
        // One that is never wrong twice in a row.
        let answer = move |seen: Seen| match n == 2 && seen.number.is_multiple_of(2) {
            true => "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_owned(),
            false => ok(""),
        };
        endpoints.push(Origin::start(answer).await.address);
    }
    let rate = "{ interval: 200ms, min_hosts: 4, min_requests: 4, stdev_factor: 1.5 }";
    let mut stage = Stage::start(&site(
        &endpoints,
        "",
        &format!(", passive: {{ success_rate: {rate}, base_ejection: 1h, max_ejection: 1h }}"),
    ));
    let mut downstream = stage.connect().await;
    let began = Instant::now();
    let event = loop {
        assert!(began.elapsed() < support::PATIENCE, "nothing was ejected");
        downstream.send(GET).await;
        downstream.answer().await;
        if let Ok(event) = stage.events.try_recv() {
            break event;
        }
    };
    assert!(matches!(event, HealthEvent::Ejected { .. }));
    for (n, endpoint) in endpoints.iter().enumerate() {
        let up = format!("shoal_endpoint_up{{upstream=\"app\",endpoint=\"{endpoint}\",source=\"local\"}}");
        assert_eq!(stage.metric(&up), u64::from(n != 2), "endpoint {n}");
    }
    for _ in 0..20 {
        downstream.send(GET).await;
        assert_eq!(downstream.answer().await.status, 200);
    }
}

#[tokio::test]
async fn failures_without_an_answer_eject_by_themselves() {
    let (dead, origin) = (nowhere().await, Origin::start(|_| ok("")).await);
    let mut stage = Stage::start(&site(
        &[dead, origin.address],
        "",
        ", passive: { consecutive_errors: 0, consecutive_local_failures: 3, base_ejection: 1h, max_ejection: 1h }",
    ));
    for _ in 0..16 {
        assert_eq!(stage.ask(GET).await.status, 200);
    }
    assert!(matches!(stage.events.recv().await, Some(HealthEvent::Ejected { .. })));
    assert_eq!(stage.metric("shoal_upstream_retries_total{upstream=\"app\"}"), 3);
}

#[tokio::test]
async fn a_stale_connection_is_replaced_for_what_can_be_repeated() {
    // Every connection answers once and dies as soon as it sees a second request.
    let origin = Origin::start(|seen: Seen| match seen.number % 3 {
        0 | 2 => Reply { bytes: ok(&seen.number.to_string()).into_bytes(), close: false },
        _ => Reply { bytes: Vec::new(), close: true },
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send(GET).await;
    assert_eq!(downstream.answer().await.text(), "0");
    downstream.send(GET).await;
    assert_eq!(downstream.answer().await.text(), "2", "sent again on a fresh connection");
    assert_eq!(origin.connections(), 2);

    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    downstream.send(GET).await;
    assert_eq!(downstream.answer().await.status, 200);
    downstream.send(post).await;
    let answer = downstream.answer().await;
    assert_eq!(answer.status, 502, "a POST that was sent is not sent again");
    assert!(answer.text().contains("upstream_reset"));
}

#[tokio::test]
async fn slow_endpoints_are_a_504() {
    let origin = Origin::start(|seen: Seen| match seen.path() {
        "/never" => Reply { bytes: Vec::new(), close: false },
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".into(),
    })
    .await;
    let timeouts = ", timeouts: { first_byte: 200ms, idle: 200ms }";
    let stage = Stage::start(&site(&[origin.address], timeouts, ""));
    let never = stage.ask("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(never.status, 504);
    assert!(never.text().contains("upstream_response_timeout"));
    let half = stage.ask("GET /half HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((half.status, half.text().as_str(), half.complete), (200, "half", false));
    assert_eq!(stage.log_of(2).await[1]["detail"], serde_json::Value::Null, "an answer has begun");

    for (times, ran_out) in [
        ("timeouts: { first_byte: 200ms }", "first_byte"),
        ("timeouts: { total: 200ms }", "total"),
        ("retry: { per_try_timeout: 200ms, attempts: 1 }", "per_try_timeout"),
    ] {
        let stage = Stage::start(&site(&[origin.address], &format!(", {times}"), ""));
        assert_eq!(stage.ask("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 504);
        assert_eq!(stage.log_of(1).await[0]["detail"], ran_out, "{times}");
    }
}

#[tokio::test]
async fn answers_that_are_not_http_are_a_502() {
    let origin = Origin::start(|seen: Seen| {
        let head = match seen.path() {
            "/cow" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, cow\r\n\r\n",
            "/both" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "/lengths" => "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
            "/switch" => "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            "/old" => "hello",
            "/folded" => "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
        };
        and_close(head)
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ", passive: { consecutive_errors: 0 }"));
    for path in ["/cow", "/both", "/lengths", "/switch", "/old", "/folded", "/nul"] {
        let answer = stage.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(answer.status, 502, "{path}");
        assert!(answer.text().contains("upstream_protocol"), "{path}: {}", answer.text());
    }
    assert_eq!(origin.connections(), origin.requests(), "no such connection is used again");
}

#[tokio::test]
async fn no_answer_hides_behind_another() {
    let hidden = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhidden";
    let length = hidden.len();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n";
    // What the endpoint sends, and what comes of it.
    let table: [(&str, String, u16, &str); 11] = [
        ("behind a sized one", format!("{}{hidden}", ok("first")), 200, "first"),
        ("behind a chunked one", format!("{chunked}{hidden}"), 200, "first"),
        ("behind an empty one", format!("{}{hidden}", ok("")), 200, ""),
        ("behind a 204", format!("HTTP/1.1 204 No Content\r\n\r\n{hidden}"), 204, ""),
        (
            "in the body of a 204",
            format!("HTTP/1.1 204 No Content\r\ncontent-length: {length}\r\n\r\n{hidden}"),
            204,
            "",
        ),
        (
            "in the body of a 304",
            format!("HTTP/1.1 304 Not Modified\r\ncontent-length: {length}\r\n\r\n{hidden}"),
            304,
            "",
        ),
        (
            "in a field with a bare CR",
            "HTTP/1.1 200 OK\r\nx: a\rcontent-length: 0\r\rHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
            502,
            "upstream_protocol",
        ),
        (
            "by a negative length",
            format!("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{hidden}"),
            502,
            "upstream_protocol",
        ),
        (
            "by a signed length",
            format!("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nfirst{hidden}"),
            502,
            "upstream_protocol",
        ),
        (
            "by a space before the colon",
            format!("HTTP/1.1 200 OK\r\ncontent-length : 5\r\n\r\nfirst{hidden}"),
            200,
            "first",
        ),
        (
            "by two codings",
            format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n{hidden}"
            ),
            502,
            "upstream_protocol",
        ),
    ];
    for (what, bytes, status, text) in table {
        let origin = Origin::start(move |seen: Seen| match seen.path() {
            "/first" => bytes.clone(),
            path => ok(path),
        })
        .await;
        let stage = Stage::start(&site(&[origin.address], "", ", passive: { consecutive_errors: 0 }"));
        let mut downstream = stage.connect().await;
        downstream.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let first = downstream.answer().await;
        assert_eq!(first.status, status, "{what}: {first:?}");
        assert!(first.text().contains(text) && !first.text().contains("hidden"), "{what}: {first:?}");
        // Whoever asks next, here or elsewhere, gets an answer to what was asked.
        for path in ["/second", "/third"] {
            let answer = stage.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, path), "{what}");
        }
        downstream.send("GET /fourth HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let fourth = downstream.answer().await;
        assert_eq!((fourth.status, fourth.text().as_str()), (200, "/fourth"), "{what}");
    }
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_whatever_the_endpoint_sends() {
    let origin = Origin::start(|seen: Seen| ok(seen.path())).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    for path in ["/second", "/third"] {
        downstream.send("HEAD /first HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(downstream.read_head().await.unwrap().starts_with("HTTP/1.1 200"));
        downstream.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(downstream.answer().await.text(), path);
    }
}

#[tokio::test]
async fn a_truncated_body_never_looks_whole() {
    let origin = Origin::start(|seen: Seen| match seen.path() {
        "/sized" => and_close("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"),
        "/chunked" => and_close("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        _ => and_close("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf"),
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ", passive: { consecutive_errors: 0 }"));
    for path in ["/sized", "/chunked", "/chunk"] {
        let answer = stage.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!((answer.status, answer.complete), (200, false), "{path}");
    }
    assert_eq!(stage.metric("shoal_failures_total{reason=\"upstream_reset\"}"), 3);
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_whole() {
    let origin = Origin::start(|_| and_close("HTTP/1.1 200 OK\r\n\r\nall of it")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let answer = stage.ask(GET).await;
    assert_eq!((answer.text().as_str(), answer.complete), ("all of it", true));
    assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
}

#[tokio::test]
async fn an_early_answer_closes_the_endpoints_connection() {
    let (closed, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = closed.clone();
    let address = serve_raw(connections, move |mut stream, _| {
        let counted = counted.clone();
        async move {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let answer = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig";
            stream.write_all(answer.as_bytes()).await.unwrap();
            while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
            counted.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let stage = Stage::start(&site(&[address], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbeginning").await;
    let answer = downstream.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (413, "big"));
    support::wait_until("the end of the connection", || closed.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_slow_downstream_is_not_the_endpoints_fault() {
    let origin = Origin::start(|_| ok("")).await;
    let slow = site(&[origin.address], ", timeouts: { first_byte: 100ms }", "")
        .replace("protocol: http }", "protocol: http, limits: { body_idle_timeout: 700ms } }");
    let stage = Stage::start(&slow);
    let answer = stage.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await;
    assert_eq!(answer.status, 408);
    assert!(answer.text().contains("downstream_timeout"), "{}", answer.text());
}

#[tokio::test]
async fn a_downstream_that_leaves_takes_its_request_along() {
    let (closed, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = closed.clone();
    let address = serve_raw(connections.clone(), move |mut stream, _| {
        let counted = counted.clone();
        async move {
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
            counted.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let stage = Stage::start(&site(&[address], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send(GET).await;
    support::wait_until("the request", || connections.load(Ordering::SeqCst) == 1).await;
    drop(downstream);
    support::wait_until("the end of the connection", || closed.load(Ordering::SeqCst) == 1).await;
    support::wait_until("the count", || {
        stage.metric("shoal_failures_total{reason=\"downstream_reset\"}") == 1
    })
    .await;
    assert_eq!(stage.metric("shoal_failures_total{reason=\"upstream_reset\"}"), 0);
}

#[tokio::test]
async fn every_balance_spreads_or_sticks() {
    for (balance, spreads) in
        [("round_robin", true), ("least_requests", true), ("p2c_ewma", true), ("consistent_hash", false)]
    {
        let origins = [Origin::start(|_| ok("")).await, Origin::start(|_| ok("")).await];
        let addresses = [origins[0].address, origins[1].address];
        let stage = Stage::start(&site(&addresses, "", &format!(", balance: {balance}")));
        let mut downstream = stage.connect().await;
        for _ in 0..100 {
            downstream.send(GET).await;
            assert_eq!(downstream.answer().await.status, 200);
        }
        let shares = origins.map(|origin| origin.requests());
        assert_eq!(shares.iter().sum::<usize>(), 100);
        assert_eq!(shares.iter().all(|share| *share > 0), spreads, "{balance}: {shares:?}");
    }
}

#[tokio::test]
async fn a_flood_of_interim_answers_ends() {
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let origin = Origin::start(move |seen: Seen| {
        let count: usize = seen.path()[1..].parse().unwrap();
        // The codec skips empty lines before an answer: they must hide none.
        let empty = if count == 11 { "\r\n" } else { "" };
        empty.to_owned() + &format!("{hints}{empty}").repeat(count) + &ok("at last")
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    for (count, status) in [(0, 200), (10, 200), (11, 502), (10, 200), (5000, 502)] {
        downstream.send(format!("GET /{count} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let mut answer = downstream.answer().await;
        while answer.status == 103 {
            answer = downstream.answer().await;
        }
        assert_eq!(answer.status, status, "{count}");
    }
}

#[tokio::test]
async fn an_upstream_takes_only_so_many_connections() {
    let silent = serve_raw(Default::default(), |stream, _| async move {
        Downstream::new(stream).read_to_end().await;
    })
    .await;
    let stage = Stage::start(&site(&[silent], "", ", max_connections: 1"));
    let ask = || stage.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // Each of the two workers has a share of one.
    let answer =
        tokio::select! { answer = ask() => answer, answer = ask() => answer, answer = ask() => answer };
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("node_overflow"), "{}", answer.text());
    assert!(stage.metric("shoal_upstream_overflow_total{upstream=\"app\"}") >= 1);
}
