//! What is tried on another endpoint, and how often; what waits for one, and what is too much for it.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{join_all, select_all};
use support::numbered::{addresses, numbered};
use support::{Origin, Reply, Seen, Stage, ok, site};
use tokio::sync::Semaphore;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An origin that does not answer.
async fn silent() -> Origin {
    Origin::start(|_| Reply { bytes: Vec::new(), close: false }).await
}

#[tokio::test]
async fn chosen_statuses_are_tried_elsewhere() {
    let bad = Origin::start(|_| "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy").await;
    let good = Origin::start(|seen: Seen| ok(&String::from_utf8(seen.body).unwrap())).await;
    let both = [bad.address, good.address];
    let passive = ", passive: { consecutive_errors: 0 }";
    let check = async |endpoints: &[SocketAddr], rule: &str, request: &str, expected: &[u16]| {
        let stage = Stage::start(&site(endpoints, rule, passive));
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            let answer = stage.ask(request).await;
            assert!(answer.complete, "{rule}");
            assert_eq!(
                answer.text(),
                match (answer.status, request.contains("hello")) {
                    (503, _) => "busy",
                    (_, true) => "hello",
                    (_, false) => "",
                }
            );
            seen.insert(answer.status);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected, "{rule} {request:?}");
    };
    let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    check(&both, "", GET, &[200, 503]).await;
    check(&both, ", retry: { on: [503] }", GET, &[200]).await;
    check(&both, ", retry: { on: [gateway_error] }", GET, &[200]).await;
    check(&both, ", retry: { on: [502] }", GET, &[200, 503]).await;
    check(&both, ", retry: { on: [503], attempts: 1 }", GET, &[200, 503]).await;
    check(&both, ", retry: { on: [503] }", put, &[200]).await;
    check(&both, ", retry: { on: [503] }", chunked, &[200]).await;
    check(&both, ", retry: { on: [503], max_replay_bytes: 4 }", put, &[200, 503]).await;
    check(&both, ", retry: { on: [503], max_replay_bytes: 4 }", chunked, &[200, 503]).await;
    check(&both, ", retry: { on: [503] }", post, &[200, 503]).await;
    check(&both, ", retry: { on: [503], methods: [POST] }", post, &[200]).await;
    // Nobody else is there: the answer goes on as it came.
    check(&[bad.address], ", retry: { on: [503] }", GET, &[503]).await;
}

#[tokio::test]
async fn retries_are_paid_from_a_budget() {
    let mut busy = Vec::new();
    for _ in 0..4 {
        busy.push(
            Origin::start(|_| "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy").await,
        );
    }
    let rule = ", retry: { on: [503], attempts: 4 }";
    let stage = Stage::start(&site(&addresses(&busy), rule, ", passive: { consecutive_errors: 0 }"));
    // Workers save up by themselves: one connection is served by one of them.
    let mut downstream = stage.connect().await;
    let began = Instant::now();
    const REQUESTS: usize = 200;
    for _ in 0..REQUESTS {
        downstream.send(GET).await;
        let answer = downstream.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (503, "busy"));
    }
    let elapsed = began.elapsed().as_secs_f64();
    let tries: usize = busy.iter().map(Origin::requests).sum();
    let retries = tries - REQUESTS;
    assert_eq!(stage.metric("shoal_upstream_retries_total{upstream=\"app\"}"), retries as u64);
    // Each of them would have been tried three times more. Ten are there at first, a fifth of the requests is earned, and
    // ten a second; the last one may not be whole yet.
    let earned = 10 + REQUESTS / 5;
    let most = earned + (10.0 * elapsed).ceil() as usize + 1;
    assert!((earned - 1..=most).contains(&retries), "{retries} retries in {elapsed} s");
    assert!(retries < 3 * REQUESTS, "the budget was never used up");
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_given_up_for_another() {
    let (silent, good) = (silent().await, numbered(1).await.remove(0));
    let rule = ", retry: { per_try_timeout: 100ms }";
    let stage = Stage::start(&site(&[silent.address, good.address], rule, ""));
    for _ in 0..4 {
        assert_eq!(stage.ask(GET).await.status, 200);
    }
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let mut statuses = BTreeSet::new();
    for _ in 0..4 {
        statuses.insert(stage.ask(post).await.status);
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [200, 504], "what was sent is not sent twice");
}

#[tokio::test]
async fn a_full_endpoint_is_waited_for_and_not_for_ever() {
    let gate = Arc::new(Semaphore::new(0));
    let connections = Arc::default();
    let opened = gate.clone();
    let origin = support::serve_raw(connections, move |stream, _| {
        let gate = opened.clone();
        async move {
            let mut stream = support::Downstream::new(stream);
            while stream.read_head().await.is_some() {
                gate.acquire().await.unwrap().forget();
                stream.send(ok("done")).await;
            }
        }
    })
    .await;
    let limits = ", max_requests: 1, queue_timeout: 20s, max_pending_requests: 4";
    let stage = Stage::start(&site(&[origin], "", limits));
    let mut downstreams = Vec::new();
    for _ in 0..4 {
        let mut downstream = stage.connect().await;
        downstream.send(GET).await;
        downstreams.push(downstream);
    }
    gate.add_permits(4);
    let mut statuses = Vec::new();
    for downstream in &mut downstreams {
        statuses.push(downstream.answer().await.status);
    }
    // Each worker has one under way, which counts as pending while it connects, and lets one or two wait; which worker
    // has how many is the kernel's choice.
    assert!(statuses.iter().filter(|status| **status == 200).count() >= 2, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");

    gate.forget_permits(4);
    // Of three requests on two workers one must wait, and its answer is the first to come.
    let impatient = Stage::start(&site(&[origin], "", ", max_requests: 1, queue_timeout: 50ms"));
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut downstream = impatient.connect().await;
        downstream.send(GET).await;
        held.push(downstream);
    }
    let answers = held.iter_mut().map(|downstream| Box::pin(downstream.answer()));
    let (first, _, others) = select_all(answers).await;
    assert_eq!(first.status, 503);
    assert!(first.text().contains("node_overflow"), "{}", first.text());
    gate.add_permits(others.len());
    let statuses: Vec<u16> = join_all(others).await.iter().map(|answer| answer.status).collect();
    assert!(statuses.contains(&200), "{statuses:?}");
}

#[tokio::test]
async fn answers_with_5xx_eject_where_the_site_says_so() {
    let bad = Origin::start(|_| "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
    let good = numbered(1).await.remove(0);
    let check = async |passive: &str, expected: usize| {
        let before = bad.requests();
        let stage = Stage::start(&site(&[bad.address, good.address], "", passive));
        // One connection: one worker, whose turns are known.
        let mut downstream = stage.connect().await;
        for _ in 0..12 {
            downstream.send(GET).await;
            downstream.answer().await;
        }
        assert_eq!(bad.requests() - before, expected, "{passive}");
    };
    check("", 6).await;
    check(", passive: { consecutive_5xx: 2, base_ejection: 1h, max_ejection: 1h }", 2).await;
}
