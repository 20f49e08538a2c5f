//! Interim answers (1xx): what a downstream that waits is told and when, and what an endpoint says in between.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use support::{Downstream, Origin, PATIENCE, Seen, Stage, field, ok, serve_raw, site};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

const WAITING: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
/// So that nothing happens by itself.
const PATIENT: &str = ", timeouts: { expect_continue: 1h, first_byte: 2h }";

/// An origin that reads the whole request and tells what it was sent, after `interim`.
async fn origin(interim: &'static str) -> Origin {
    Origin::start(move |seen: Seen| {
        let expect = seen.field("expect").unwrap_or("nothing").to_owned();
        let body = String::from_utf8(seen.body).unwrap();
        format!("{interim}{}", ok(&format!("{body}, expecting {expect}")))
    })
    .await
}

/// An endpoint whose connections are handed out when the head of a request has come on them.
async fn by_hand() -> (SocketAddr, mpsc::UnboundedReceiver<(String, Downstream<TcpStream>)>) {
    let (sender, asked) = mpsc::unbounded_channel();
    let address = serve_raw(Arc::default(), move |stream, _| {
        let sender = sender.clone();
        async move {
            let mut stream = Downstream::new(stream);
            if let Some(head) = stream.read_head().await {
                sender.send((head, stream)).unwrap();
            }
        }
    })
    .await;
    (address, asked)
}

/// Nothing has come on `downstream`.
fn was_told_nothing(downstream: &Downstream<TcpStream>) -> bool {
    matches!(downstream.stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[tokio::test]
async fn what_is_refused_is_refused_before_its_body() {
    let origin = origin("").await;
    let text = site(&[origin.address], ", path: /known", "")
        .replace("protocol: http }", "protocol: http, limits: { max_body_bytes: 8 } }");
    let stage = Stage::start(&text);
    let check = async |target: &str, length: usize, expect: &str, expected: u16| {
        let mut downstream = stage.connect().await;
        let fields = format!("Host: a\r\nContent-Length: {length}\r\nExpect: {expect}");
        downstream.send(format!("POST {target} HTTP/1.1\r\n{fields}\r\n\r\n")).await;
        let answer = downstream.answer().await;
        assert_eq!(answer.status, expected, "{target} {length} {expect}: the first answer");
    };
    check("/known", 9, "100-continue", 413).await;
    check("/known", 8, "wonders", 417).await;
    check("/unknown", 8, "100-continue", 404).await;
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_downstream_goes_on_when_the_endpoint_says_so() {
    let (address, mut asked) = by_hand().await;
    let stage = Stage::start(&site(&[address], PATIENT, ""));
    let mut downstream = stage.connect().await;
    downstream.send(WAITING).await;
    let (head, mut endpoint) = asked.recv().await.unwrap();
    assert_eq!(field(&head, "expect"), Some("100-continue"));
    assert!(was_told_nothing(&downstream), "before the endpoint was asked");
    // What else it says in between changes nothing.
    endpoint.send("HTTP/1.1 102 Processing\r\n\r\n").await;
    assert_eq!(downstream.answer().await.status, 102);
    endpoint.send(CONTINUE).await;
    assert_eq!(downstream.answer().await.status, 100);
    downstream.send("body").await;
    assert_eq!(endpoint.read_body(&head).await.0, b"body");
    endpoint.send(ok("done")).await;
    assert_eq!(downstream.answer().await.text(), "done");
    // Both connections go on.
    downstream.send(WAITING).await;
    assert!(endpoint.read_head().await.is_some());
}

#[tokio::test]
async fn an_answer_at_once_is_the_only_one() {
    let (address, mut asked) = by_hand().await;
    let stage = Stage::start(&site(&[address], PATIENT, ""));
    for status in [401, 417] {
        let mut downstream = stage.connect().await;
        downstream.send(WAITING).await;
        let (_, mut endpoint) = asked.recv().await.unwrap();
        endpoint.send(format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno")).await;
        let answer = downstream.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (status, "no"));
        assert_eq!(answer.field("connection"), Some("close"), "the body is not waited for");
        assert!(endpoint.is_closed().await, "without a byte of the body");
        assert!(downstream.is_closed().await);
    }
}

#[tokio::test]
async fn endpoints_that_say_nothing_get_the_body_in_the_end() {
    let origin = origin("").await;
    // As long as the body waits, nobody is late.
    for timeouts in ["expect_continue: 50ms", "expect_continue: 2s, first_byte: 1s"] {
        let before = origin.connections();
        let stage = Stage::start(&site(&[origin.address], &format!(", timeouts: {{ {timeouts} }}"), ""));
        let mut downstream = stage.connect().await;
        downstream.send(WAITING).await;
        assert_eq!(downstream.answer().await.status, 100, "{timeouts}");
        downstream.send("body").await;
        assert_eq!(downstream.answer().await.text(), "body, expecting 100-continue", "{timeouts}");
        // Others take a body that they have not asked for for the next request: nobody follows on that connection.
        downstream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(downstream.answer().await.status, 200, "{timeouts}");
        assert_eq!(origin.connections(), before + 2, "{timeouts}");
    }
}

#[tokio::test]
async fn endpoints_are_not_asked_where_the_site_says_so_or_nobody_waits() {
    let origin = origin("").await;
    let stage = Stage::start(&site(&[origin.address], ", timeouts: { expect_continue: 0s }", ""));
    let mut downstream = stage.connect().await;
    downstream.send(WAITING).await;
    assert_eq!(downstream.answer().await.status, 100);
    downstream.send("body").await;
    assert_eq!(downstream.answer().await.text(), "body, expecting nothing");

    let stage = Stage::start(&site(&[origin.address], PATIENT, ""));
    let answer = stage.ask("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(answer.text(), ", expecting nothing", "there is no body");
    let answer = stage.ask(&format!("{}body", WAITING.replace("HTTP/1.1", "HTTP/1.0"))).await;
    assert_eq!(answer.text(), "body, expecting nothing", "HTTP/1.0 knows no 100");
}

#[tokio::test]
async fn a_body_that_nobody_has_asked_for_goes_to_the_next_endpoint() {
    let (address, mut asked) = by_hand().await;
    let (other, mut asked_next) = by_hand().await;
    let retry = format!("{PATIENT}, retry: {{ on: [reset, 417], max_replay_bytes: 1 }}");
    let refusals = ["", "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"];
    let stage = Stage::start(&site(&[address, other], &retry, ", passive: { consecutive_errors: 0 }"));
    for refusal in refusals {
        let mut downstream = stage.connect().await;
        downstream.send(WAITING.replace("POST", "PUT")).await;
        // Whichever is asked first refuses.
        let (first, second) = tokio::select! {
            first = asked.recv() => (first, &mut asked_next),
            first = asked_next.recv() => (first, &mut asked),
        };
        let (_, mut endpoint) = first.unwrap();
        endpoint.send(refusal).await;
        drop(endpoint);
        let (head, mut endpoint) = second.recv().await.unwrap();
        assert_eq!(field(&head, "expect"), Some("100-continue"));
        assert!(was_told_nothing(&downstream));
        endpoint.send(CONTINUE).await;
        assert_eq!(downstream.answer().await.status, 100);
        downstream.send("body").await;
        assert_eq!(endpoint.read_body(&head).await.0, b"body");
        endpoint.send(ok("done")).await;
        assert_eq!(downstream.answer().await.text(), "done", "{refusal}");
    }
}

/// A request on HTTP/2 that waits, as its caller has it.
struct Waiting {
    answer: h2::client::ResponseFuture,
    body: h2::SendStream<Bytes>,
}

impl Waiting {
    async fn begin(stage: &Stage) -> Self {
        let stream = TcpStream::connect(stage.address("web")).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://a/").header("expect", "100-continue").body(()).unwrap();
        let (answer, body) = sender.send_request(request, false).unwrap();
        Self { answer, body }
    }

    /// The next interim answer; `None` = there is none before the answer.
    async fn interim(&mut self) -> Option<u16> {
        let told = timeout(PATIENCE, poll_fn(|cx| self.answer.poll_informational(cx))).await.unwrap();
        told.map(|told| told.unwrap().status().as_u16())
    }

    /// The endpoint asks for the body, has it, and answers.
    async fn goes_on(mut self, mut endpoint: Downstream<TcpStream>, head: &str) {
        endpoint.send(CONTINUE).await;
        assert_eq!(self.interim().await, Some(100));
        self.body.send_data(Bytes::from_static(b"body"), true).unwrap();
        assert_eq!(endpoint.read_body(head).await.0, b"body");
        endpoint.send(ok("done")).await;
        assert_eq!(self.answer().await, (200, "done".to_owned()));
    }

    async fn answer(self) -> (u16, String) {
        let answer = timeout(PATIENCE, self.answer).await.unwrap().unwrap();
        let status = answer.status().as_u16();
        let told = answer.into_body().data().await.unwrap().unwrap();
        (status, String::from_utf8(told.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn streams_of_http2_go_on_when_the_endpoint_says_so() {
    let (address, mut asked) = by_hand().await;
    let stage = Stage::start(&site(&[address], PATIENT, ""));
    let waiting = Waiting::begin(&stage).await;
    let (head, endpoint) = asked.recv().await.unwrap();
    assert_eq!(field(&head, "expect"), Some("100-continue"));
    waiting.goes_on(endpoint, &head).await;
}

#[tokio::test]
async fn streams_of_http2_that_are_refused_are_told_nothing_else() {
    let (address, mut asked) = by_hand().await;
    let stage = Stage::start(&site(&[address], PATIENT, ""));
    let mut refused = Waiting::begin(&stage).await;
    let (_, mut endpoint) = asked.recv().await.unwrap();
    endpoint.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno").await;
    assert_eq!(refused.interim().await, None, "the answer comes first");
    assert_eq!(refused.answer().await, (403, "no".to_owned()));
    assert!(endpoint.is_closed().await, "without a byte of the body");
}

#[tokio::test]
async fn streams_of_http2_need_not_wait() {
    let origin = origin("").await;
    let stage = Stage::start(&site(&[origin.address], ", timeouts: { expect_continue: 50ms }", ""));
    let mut waiting = Waiting::begin(&stage).await;
    waiting.body.send_data(Bytes::from_static(b"body"), true).unwrap();
    assert_eq!(waiting.answer().await, (200, "body, expecting 100-continue".to_owned()));
}

#[tokio::test]
async fn on_http2_to_the_endpoint_the_node_says_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let expects = request.headers().contains_key("expect");
                        let body = request.body_mut().data().await.unwrap().unwrap();
                        let mut answer = respond.send_response(Response::new(()), false).unwrap();
                        let told = format!("{} {expects}", String::from_utf8_lossy(&body));
                        answer.send_data(told.into(), true).unwrap();
                    });
                }
            });
        }
    });
    let stage = Stage::start(&site(&[address], PATIENT, ", protocol: h2c"));
    let mut downstream = stage.connect().await;
    downstream.send(WAITING).await;
    assert_eq!(downstream.answer().await.status, 100);
    downstream.send("body").await;
    assert_eq!(downstream.answer().await.text(), "body false");

    let mut waiting = Waiting::begin(&stage).await;
    assert_eq!(waiting.interim().await, Some(100));
    waiting.body.send_data(Bytes::from_static(b"body"), true).unwrap();
    assert_eq!(waiting.answer().await, (200, "body false".to_owned()));
}

#[tokio::test]
async fn what_comes_before_an_answer_goes_on_to_whom_the_cache_asks_for() {
    let (address, mut asked) = by_hand().await;
    let stage = Stage::start(&site(&[address], ", cache: {}", ""));
    let mut downstream = stage.connect().await;
    downstream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (_, mut endpoint) = asked.recv().await.unwrap();
    for (said, heard) in [
        ("HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 102 Processing"),
        (CONTINUE, ""),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: </a>"),
        ("HTTP/1.1 199 Odd\r\n\r\n", "HTTP/1.1 199"),
    ] {
        endpoint.send(said).await;
        if !heard.is_empty() {
            assert_eq!(downstream.read_head().await.unwrap(), heard);
        }
    }
    endpoint.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\ndone").await;
    assert_eq!(downstream.answer().await.text(), "done");
    downstream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let hit = downstream.answer().await;
    assert_eq!((hit.status, hit.text().as_str()), (200, "done"), "none of it is kept");
}

#[tokio::test]
async fn early_hints_go_on() {
    let fields = "Link: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 3\r\nShoal-Peer: 1\r\n";
    let hints = format!("HTTP/1.1 103 Early Hints\r\n{fields}\r\n");
    let (address, mut asked) = by_hand().await;
    let stage = Stage::start(&site(&[address], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (_, mut endpoint) = asked.recv().await.unwrap();
    // Before anything else is there, and with the answer.
    for (said, then) in [(&hints, ""), (&hints, &ok("done")[..])] {
        endpoint.send(format!("{CONTINUE}HTTP/1.1 102 Processing\r\n\r\n{said}{then}")).await;
        assert_eq!(downstream.read_head().await.unwrap(), "HTTP/1.1 102 Processing");
        let head = downstream.read_head().await.unwrap();
        assert_eq!(head, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload");
    }
    assert_eq!(downstream.answer().await.text(), "done");

    let mut old = stage.connect().await;
    old.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    let mut endpoint = tokio::select! {
        asked = asked.recv() => asked.unwrap().1,
        _ = endpoint.read_head() => endpoint,
    };
    endpoint.send(format!("{hints}{}", ok("done"))).await;
    assert_eq!(old.answer().await.text(), "done", "HTTP/1.0 knows none");
}

#[tokio::test]
async fn early_hints_go_on_to_their_stream() {
    let (address, mut asked) = by_hand().await;
    let stage = Stage::start(&site(&[address], PATIENT, ""));
    let mut waiting = Waiting::begin(&stage).await;
    let (head, mut endpoint) = asked.recv().await.unwrap();
    endpoint.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: close\r\n\r\n").await;
    assert_eq!(waiting.interim().await, Some(103));
    waiting.goes_on(endpoint, &head).await;
}

#[tokio::test]
async fn so_many_early_hints_go_on_and_none_that_are_large() {
    let hints = |length: usize| format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(length));
    let origin = Origin::start(move |seen: Seen| match seen.path() {
        "/many" => hints(1).repeat(10) + &ok("many"),
        _ => hints(9000) + &ok("large"),
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    for (path, count) in [("many", 8), ("large", 0)] {
        downstream.send(format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        for _ in 0..count {
            assert_eq!(downstream.answer().await.status, 103);
        }
        assert_eq!(downstream.answer().await.text(), path);
    }
    assert_eq!(origin.connections(), 1, "its connection goes on");
}
