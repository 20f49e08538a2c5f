//! Requests that two readers could understand differently are refused before they are routed.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, Origin, Ports, SiteFile, fetch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What is sent, and the statuses that may come back; 0 = the connection ends without an answer.
const CASES: &[(&str, &str, &[u16])] = &[
    ("a plain request", "GET /case HTTP/1.1\r\nHost: a.example\r\n\r\n", &[200]),
    ("the host in capitals", "GET /case HTTP/1.1\r\nHost: A.EXAMPLE\r\n\r\n", &[200]),
    (
        "an absolute target that agrees",
        "GET http://a.example/case HTTP/1.1\r\nHost: a.example\r\n\r\n",
        &[200],
    ),
    (
        "two equal lengths",
        "POST /case HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        &[200, 400],
    ),
    ("no host", "GET /case HTTP/1.1\r\n\r\n", &[400]),
    ("two hosts", "GET /case HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &[400]),
    ("two equal hosts", "GET /case HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", &[400]),
    ("an empty host", "GET /case HTTP/1.1\r\nHost: \r\n\r\n", &[400]),
    ("a host with a space", "GET /case HTTP/1.1\r\nHost: a b\r\n\r\n", &[400]),
    ("a host with user information", "GET /case HTTP/1.1\r\nHost: u@a\r\n\r\n", &[400]),
    ("a host with a path", "GET /case HTTP/1.1\r\nHost: a/b\r\n\r\n", &[400]),
    ("a host with a bad port", "GET /case HTTP/1.1\r\nHost: a:99999\r\n\r\n", &[400]),
    ("an absolute target that disagrees", "GET http://b/case HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    (
        "both framings",
        "POST /case HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "both framings, the other way round",
        "POST /case HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "a coding under chunked",
        "POST /case HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "chunked twice",
        "POST /case HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "chunked in two fields",
        "POST /case HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "identity, then chunked",
        "POST /case HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "a coding nobody knows",
        "POST /case HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "chunked on HTTP/1.0",
        "POST /case HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "two lengths",
        "POST /case HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        &[400],
    ),
    ("a list of lengths", "POST /case HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", &[400]),
    ("a signed length", "POST /case HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", &[400]),
    ("a length in hexadecimal", "POST /case HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", &[400]),
    (
        "a length beyond 64 bits",
        "POST /case HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        &[400],
    ),
    ("a space before the colon", "GET /case HTTP/1.1\r\nHost: a\r\nX-A : 1\r\n\r\n", &[400]),
    ("a folded field", "GET /case HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n 2\r\n\r\n", &[400]),
    ("a bare return in a value", "GET /case HTTP/1.1\r\nHost: a\r\nX-A: 1\r2\r\n\r\n", &[400]),
    ("a NUL in a value", "GET /case HTTP/1.1\r\nHost: a\r\nX-A: 1\x002\r\n\r\n", &[400]),
    (
        "a framing field in disguise",
        "POST /case HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        &[400],
    ),
    ("Connection names Host", "GET /case HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", &[400]),
    (
        "Connection names Authorization",
        "GET /case HTTP/1.1\r\nHost: a\r\nConnection: authorization\r\nAuthorization: b\r\n\r\n",
        &[400],
    ),
    ("a broken escape", "GET /case%zz HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("an escaped NUL", "GET /case%00 HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 400]),
    ("a backslash", "GET /case\\x HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("out of the root", "GET /../../case HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 400]),
    ("another version", "GET /case HTTP/1.2\r\nHost: a\r\n\r\n", &[400, 505]),
    ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", &[400, 405, 501]),
    ("an asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    (
        "another expectation",
        "POST /case HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: wonders\r\n\r\n",
        &[417],
    ),
    ("HTTP/0.9", "GET /case\r\n\r\n", &[400, 0]),
    ("noise", "\x01\x02\x03\x04 noise\r\n\r\n", &[400, 0]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_case_has_its_status_and_none_reaches_the_origin() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let origin = Origin::of_patterns(20, "no-store").await?;
    cluster.apply(0, &SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;
    cluster.serves("a", "/").await?;
    let address = cluster.nodes[0].at(Ports::HTTP);

    let mut wrong = Vec::new();
    for (what, bytes, expected) in CASES {
        let before = origin.count_below("/");
        // A second request behind the first one: a smuggled one would be answered or reach the origin.
        let text = format!("{bytes}GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answers = statuses(&raw(address, text.as_bytes()).await?);
        let first = answers.first().copied().unwrap_or(0);
        let refused = first != 200;
        if !expected.contains(&first) {
            wrong.push(format!("{what}: {first}, not {expected:?}"));
        } else if refused && (answers.len() > 1 || origin.count_below("/") > before) {
            wrong.push(format!("{what}: refused, and yet it went on: {answers:?}"));
        }
    }
    heads_out_of_bounds(address, &mut wrong).await?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let answer = fetch(address, "a", "/after").await?;
    ensure!(answer.status == 200, "the node is hurt: {answer:?}");
    Ok(())
}

/// Too many fields, too large a head, too long a target.
async fn heads_out_of_bounds(address: SocketAddr, wrong: &mut Vec<String>) -> Result<()> {
    let fields: String = (0..400).map(|n| format!("X-{n}: 1\r\n")).collect();
    let cases = [
        ("many fields", format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), [431, 431]),
        (
            "a large head",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "x".repeat(100_000)),
            [431, 431],
        ),
        ("a long target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(10_000)), [414, 431]),
    ];
    for (what, text, expected) in cases {
        let answers = statuses(&raw(address, text.as_bytes()).await?);
        let first = answers.first().copied().unwrap_or(0);
        if !expected.contains(&first) {
            wrong.push(format!("{what}: {first}, not {expected:?}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_body_is_the_downstreams_fault() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let origin = Origin::of_patterns(20, "no-store").await?;
    cluster.apply(0, &SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;
    cluster.serves("a", "/").await?;
    let address = cluster.nodes[0].at(Ports::HTTP);
    let head = "POST /broken HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    // More often than passive ejection needs: a stranger may not eject our endpoints.
    for chunk in
        ["zz\r\nhello\r\n", "5\r\nhelloX", "ffffffffffffffffff\r\n", "0x5\r\nhello\r\n", "-5\r\nhello\r\n"]
            .repeat(3)
    {
        let answers = statuses(&raw(address, format!("{head}{chunk}").as_bytes()).await?);
        let first = answers.first().copied().unwrap_or(0);
        ensure!([0, 400].contains(&first), "{chunk:?} is answered with {first}");
    }
    let answer = fetch(address, "a", "/after").await?;
    ensure!(answer.status == 200, "the endpoint was ejected by a stranger: {answer:?}");
    Ok(())
}

/// Sends bytes on a connection of its own and reads until the node ends it.
async fn raw(address: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    // The node may refuse and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
        }
    };
    tokio::time::timeout(Duration::from_secs(15), reading).await.context("the connection stays open")?;
    Ok(answer)
}

/// The status of every answer on the connection.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok()).collect()
}
