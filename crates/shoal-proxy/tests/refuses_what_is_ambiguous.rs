//! What two parsers could read in two ways is refused, its connection closed, and no byte of it reaches an endpoint.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use support::{Downstream, Origin, Stage, ok, site};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HOST: &str = "Host: a\r\n";

#[tokio::test]
async fn smuggling_attempts() {
    let origin = Origin::start(|_| ok("")).await;
    let route = ", hosts: [a]";
    let stage = Stage::start(&site(&[origin.address], route, ""));
    let post = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\n{HOST}{fields}\r\n{body}");
    let chunks = "0\r\n\r\n";
    let table: Vec<(String, u16)> = vec![
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunks), 400),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", chunks), 400),
        (post("Transfer-Encoding: gzip, chunked\r\n", chunks), 400),
        (post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", chunks), 400),
        (post("Transfer-Encoding: chunked, chunked\r\n", chunks), 400),
        (post("Transfer-Encoding: xchunked\r\n", chunks), 400),
        (post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", chunks), 400),
        (post("Content-Length: 5\r\nContent-Length: 6\r\n", "12345"), 400),
        (post("Content-Length: 1, 1\r\n", "1"), 400),
        (post("Content-Length: +1\r\n", "1"), 400),
        (post("Content-Length: 0x1\r\n", "1"), 400),
        (format!("POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{chunks}"), 400),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400),
        (format!("GET / HTTP/1.1\r\n{HOST}Host: b\r\n\r\n"), 400),
        ("GET / HTTP/1.1\r\nHost: a@b c\r\n\r\n".into(), 400),
        (format!("GET http://b/ HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET https://a/ HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("CONNECT a:80 HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET / HTTP/1.1\n{HOST}\r\n"), 400),
        ("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n".into(), 400),
        (format!("GET / HTTP/1.1\r\n{HOST}X : y\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{HOST}X: y\r\n folded\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{HOST}X: a\0b\r\n\r\n"), 400),
        (format!("GET /a\\b HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET /<a> HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET /`a` HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET /%00 HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET /%zz HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{HOST}Connection: host\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{HOST}Connection: Authorization\r\n\r\n"), 400),
        (post("Content-Length: 2\r\nExpect: wonders\r\n", ""), 417),
        (format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "x".repeat(9000)), 414),
        (format!("GET / HTTP/1.1\r\n{HOST}X: {}\r\n\r\n", "x".repeat(40_000)), 431),
        (format!("GET / HTTP/1.1\r\n{HOST}{}\r\n", "X: y\r\n".repeat(101)), 431),
        (format!("GET / HTTP/1.1\r\n{HOST}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"), 400),
    ];
    for (request, status) in table {
        let shown: String = request.chars().take(120).collect();
        let mut downstream = stage.connect().await;
        downstream.send(&request).await;
        let answer = downstream.answer().await;
        assert_eq!(answer.status, status, "{shown:?}");
        let id = answer.field("x-request-id").unwrap_or_else(|| panic!("no id after {shown:?}"));
        assert!(answer.text().contains(&format!("\nrequest id {id}\n")), "{shown:?}: {:?}", answer.text());
        assert_eq!(answer.field("connection"), Some("close"), "{shown:?}");
        assert!(downstream.is_closed().await, "still open after {shown:?}");
    }
    assert_eq!(origin.requests(), 0);
    assert!(stage.metric("shoal_gate_refusals_total{rule=\"length_and_transfer_encoding\"}") >= 2);
    assert!(stage.metric("shoal_gate_refusals_total{rule=\"unparsable\"}") >= 1);
    // CONNECT, an asterisk, and two with characters that no path may have.
    assert_eq!(stage.metric("shoal_gate_refusals_total{rule=\"target\"}"), 4);
}

#[tokio::test]
async fn a_bad_chunk_is_the_downstreams_fault() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&site(&[origin.address], "", ", passive: { consecutive_errors: 1 }"));
    for body in ["zz\r\n", "0x1\r\na\r\n0\r\n\r\n", "ffffffffffffffffff\r\n"] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let answer = stage.ask(&request).await;
        assert_eq!(answer.status, 400, "{body:?}");
    }
    assert_eq!(origin.requests(), 0, "no message may look whole that is not");
    assert_eq!(stage.metric("shoal_failures_total{reason=\"downstream_bad_request\"}"), 3);
    assert_eq!(stage.metric("shoal_failures_total{reason=\"upstream_reset\"}"), 0);
    assert_eq!(stage.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_refused() {
    let origin = Origin::start(|_| ok("")).await;
    let text = site(&[origin.address], "", "")
        .replace("protocol: http }", "protocol: http, limits: { max_body_bytes: 8B } }");
    let stage = Stage::start(&text);
    let sized = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123456789";
    let chunked =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n123456789\r\n0\r\n\r\n";
    for request in [sized, chunked] {
        assert_eq!(stage.ask(request).await.status, 413, "{request:?}");
    }
    let fits = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n12345678";
    assert_eq!(stage.ask(fits).await.status, 200);
}

#[tokio::test]
async fn requests_that_come_back_are_stopped() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let answer = stage.ask("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 shoal-one\r\n\r\n").await;
    assert_eq!((answer.status, origin.requests()), (508, 0));
}

#[tokio::test]
async fn whoever_says_nothing_is_sent_away() {
    let origin = Origin::start(|_| ok("")).await;
    let limits = "protocol: http, limits: { header_timeout: 300ms, keepalive_timeout: 300ms, body_idle_timeout: 300ms } }";
    let stage = Stage::start(&site(&[origin.address], "", "").replace("protocol: http }", limits));
    let mut silent = stage.connect().await;
    let mut half_a_head_later = stage.connect().await;
    half_a_head_later.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(half_a_head_later.answer().await.status, 200);
    half_a_head_later.send("GET / HT").await;
    let mut slow_head = stage.connect().await;
    slow_head.send("GET / HTTP/1.1\r\nHo").await;
    let mut idle = stage.connect().await;
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(idle.answer().await.status, 200);
    let mut slow_body = stage.connect().await;
    slow_body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
    for slow in [&mut slow_head, &mut half_a_head_later, &mut slow_body] {
        let answer = slow.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (408, Some("close")));
        assert!(answer.text().contains("downstream_timeout\nrequest id "), "{}", answer.text());
    }
    for mut connection in [silent, slow_head, half_a_head_later, idle, slow_body] {
        assert!(connection.is_closed().await);
    }
    assert_eq!(stage.metric("shoal_failures_total{reason=\"downstream_timeout\"}"), 3);
    silent = stage.connect().await;
    silent.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(silent.answer().await.status, 200);
}

#[tokio::test]
async fn whoever_sends_all_before_reading_still_gets_the_answer() {
    let origin = Origin::start(|_| ok("")).await;
    let limited = site(&[origin.address], "", "")
        .replace("protocol: http }", "protocol: http, limits: { max_body_bytes: 8B } }");
    let stage = Stage::start(&limited);
    let mut downstream = stage.connect().await;
    let mut request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n".to_vec();
    request.resize(request.len() + 8_000_000, b'x');
    downstream.send(request).await;
    let answer = downstream.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (413, Some("close")));
    assert!(downstream.is_closed().await);
}

#[tokio::test]
async fn what_is_refused_first_is_refused_later_too() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let first = [
        "GET /first HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\n\n\n\n",
        "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n0\r\n\r\n",
    ];
    let second = [
        "GET /second HTTP/1.1\nHost: a\r\n\r\n",
        "\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "POST /second HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ];
    for first in first {
        for second in second {
            let mut downstream = stage.connect().await;
            downstream.send(format!("{first}{first}{second}")).await;
            for expected in [200, 200, 400] {
                assert_eq!(downstream.answer().await.status, expected, "{first:?} {second:?}");
            }
            assert!(downstream.is_closed().await);
        }
    }
    assert_eq!(origin.requests(), 2 * first.len() * second.len());
}

#[tokio::test]
async fn whoever_trickles_is_sent_away() {
    let origin = Origin::start(|_| ok("")).await;
    let limits = "protocol: http, limits: { min_rate: 10KiB, min_rate_window: 300ms } }";
    let stage = Stage::start(&site(&[origin.address], "", "").replace("protocol: http }", limits));
    let mut downstream = stage.connect().await;
    downstream.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n").await;
    trickle(downstream).await;
}

/// Sends a byte of a body now and then, until that is refused.
async fn trickle(downstream: Downstream<TcpStream>) {
    let (read, mut write) = downstream.stream.into_split();
    tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let mut answer = String::new();
    tokio::io::BufReader::new(read).read_line(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_pause_after_a_quick_beginning_is_forgiven_and_a_dripping_tail_is_not() {
    let origin = Origin::start(|_| ok("")).await;
    let limits = "protocol: http, limits: { min_rate: 10KiB, min_rate_window: 1s } }";
    let stage = Stage::start(&site(&[origin.address], "", "").replace("protocol: http }", limits));
    let begin = async || {
        let mut downstream = stage.connect().await;
        downstream.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n").await;
        downstream.send(vec![b'x'; 50_000]).await;
        downstream
    };
    let mut pausing = begin().await;
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    pausing.send([b'x'; 10]).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    pausing.send(vec![b'x'; 9_990]).await;
    assert_eq!(pausing.answer().await.status, 200);

    trickle(begin().await).await;
}
