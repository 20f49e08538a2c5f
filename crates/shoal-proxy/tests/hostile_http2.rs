//! HTTP/2 frames written by hand: every protocol error gets the answer of RFC 9113.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use support::frames::{
    ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR, GET, GOAWAY, HEADERS, PADDED, PING, POST, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE,
    RST_STREAM, SETTINGS, STREAM_CLOSED, UNKNOWN, WHOLE, WINDOW_UPDATE, block, frame, get, greeting, length,
    open, setting,
};
use support::outcome::Outcome::{self, GoAway, Reset, Status};
use support::outcome::{outcome, send};
use support::{Origin, Stage, ok, site};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A request that is whole: these pseudo-fields and fields.
fn request(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &block(fields))
}

/// A good GET with these fields besides.
fn get_with(more: &[(&str, &str)]) -> Vec<u8> {
    request(&[&GET[..], more].concat())
}

/// A POST with these fields besides and this body.
fn post_with(more: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let fields = [&POST[..], more].concat();
    [frame(HEADERS, END_HEADERS, 1, &block(&fields)), frame(DATA, END_STREAM, 1, body)].concat()
}

async fn stage() -> (Stage, Origin) {
    let origin = Origin::start(|_| ok("")).await;
    (Stage::start(&site(&[origin.address], "", "")), origin)
}

/// Every case on a connection of its own; none reaches the endpoint, except those that are answered with 200.
async fn check(table: Vec<(&str, Vec<u8>, Outcome)>) {
    let (stage, origin) = stage().await;
    let good = table.iter().filter(|(_, _, expected)| *expected == Status(200)).count();
    let mut wrong = Vec::new();
    for (what, bytes, expected) in table {
        let outcome = send(&stage, &bytes).await;
        if !satisfies(outcome, expected) {
            wrong.push(format!("{what}: {outcome:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(origin.requests(), good);
}

/// A stream error may be treated as one of the connection (RFC 9113 §5.4.2), and the codec does so where a name or a
/// value may not be in any field.
fn satisfies(outcome: Outcome, expected: Outcome) -> bool {
    outcome == expected || matches!(expected, Reset(code) if outcome == GoAway(code))
}

#[tokio::test]
async fn malformed_requests() {
    let malformed = Reset(PROTOCOL_ERROR);
    let without = |name: &str| -> Vec<u8> {
        let rest: Vec<_> = GET.into_iter().filter(|(known, _)| *known != name).collect();
        request(&rest)
    };
    let with = |name: &str, value: &'static str| -> Vec<u8> {
        let other = GET.map(|(known, old)| (known, if known == name { value } else { old }));
        request(&other)
    };
    check(vec![
        ("a good one", get_with(&[]), Status(200)),
        ("te: trailers", get_with(&[("te", "trailers")]), Status(200)),
        ("a good length", post_with(&[("content-length", "3")], b"abc"), Status(200)),
        ("upper case", get_with(&[("X-Up", "1")]), malformed),
        ("a space in a name", get_with(&[("x y", "1")]), malformed),
        ("a colon in a name", get_with(&[("x:y", "1")]), malformed),
        ("line ends in a name", get_with(&[("x\r\ny", "1")]), malformed),
        ("line ends in a value", get_with(&[("x", "1\r\nhost: b")]), malformed),
        ("a line feed in a value", get_with(&[("x", "1\ny")]), malformed),
        ("NUL in a value", get_with(&[("x", "1\0")]), malformed),
        ("a space before a value", get_with(&[("x", " 1")]), malformed),
        ("a space behind a value", get_with(&[("x", "1 ")]), malformed),
        ("a tab behind a value", get_with(&[("x", "1\t")]), malformed),
        ("spaces within a value", get_with(&[("x", "1 \t2")]), Status(200)),
        ("connection", get_with(&[("connection", "close")]), malformed),
        ("keep-alive", get_with(&[("keep-alive", "5")]), malformed),
        ("proxy-connection", get_with(&[("proxy-connection", "close")]), malformed),
        ("transfer-encoding", post_with(&[("transfer-encoding", "chunked")], b"0\r\n\r\n"), malformed),
        ("upgrade", get_with(&[("upgrade", "h2c")]), malformed),
        ("te", get_with(&[("te", "gzip")]), malformed),
        ("no method", without(":method"), malformed),
        ("no scheme", without(":scheme"), malformed),
        ("no path", without(":path"), malformed),
        ("an empty path", with(":path", ""), malformed),
        ("a path twice", get_with(&[(":path", "/b")]), malformed),
        (
            "a pseudo-field late",
            request(&[&GET[..3], &[("x", "1"), (":authority", "a")]].concat()),
            malformed,
        ),
        ("an unknown pseudo-field", request(&[&GET[..], &[(":origin", "x")]].concat()), malformed),
        ("a response's pseudo-field", request(&[&GET[..], &[(":status", "200")]].concat()), malformed),
        ("too long a length", post_with(&[("content-length", "5")], b"abc"), malformed),
        ("too short a length", post_with(&[("content-length", "2")], b"abc"), malformed),
        ("a length, no body", get_with(&[("content-length", "2")]), malformed),
        ("no length at all", post_with(&[("content-length", "x")], b"abc"), malformed),
    ])
    .await;
}

#[tokio::test]
async fn the_gate_is_the_same_as_on_http1() {
    let with = |name: &str, value: &'static str| -> Vec<u8> {
        let other = GET.map(|(known, old)| (known, if known == name { value } else { old }));
        request(&other)
    };
    let bomb: Vec<_> = std::iter::repeat_n(("cookie", "x"), 101).collect();
    check(vec![
        ("another host", get_with(&[("host", "b")]), Status(400)),
        ("two hosts", get_with(&[("host", "a"), ("host", "a")]), Status(400)),
        ("no authority", request(&GET[..3]), Status(400)),
        ("the other scheme", with(":scheme", "https"), Status(400)),
        ("NUL in the path", with(":path", "/%00"), Status(400)),
        ("a bad escape", with(":path", "/%zz"), Status(400)),
        ("an asterisk", with(":path", "*"), Status(400)),
        ("CONNECT", request(&[(":method", "CONNECT"), (":authority", "a:80")]), Status(400)),
        ("an underscore", get_with(&[("content_length", "5")]), Status(400)),
        ("a wonder", post_with(&[("expect", "wonders")], b""), Status(417)),
        ("many crumbs", get_with(&bomb), Status(431)),
    ])
    .await;
}

#[tokio::test]
async fn frames_that_break_the_protocol() {
    let open = open(1);
    let then = |more: Vec<u8>| [open.clone(), more].concat();
    let whole = block(&GET);
    let increment = |by: u32| by.to_be_bytes();
    let refused = GoAway(PROTOCOL_ERROR);
    let wrong_size = GoAway(FRAME_SIZE_ERROR);
    check(vec![
        ("DATA on no stream", frame(DATA, 0, 0, b"x"), refused),
        ("DATA on an idle stream", frame(DATA, 0, 1, b"x"), refused),
        ("DATA padded beyond its end", then(frame(DATA, PADDED, 1, &[9, 1])), refused),
        ("HEADERS on no stream", frame(HEADERS, WHOLE, 0, &whole), refused),
        ("HEADERS on an even stream", frame(HEADERS, WHOLE, 2, &whole), refused),
        ("HEADERS padded beyond their end", frame(HEADERS, WHOLE | PADDED, 1, &[255, 0]), refused),
        (
            "HEADERS, then something else",
            {
                let begun = frame(HEADERS, END_STREAM, 1, &whole);
                [begun, frame(PING, 0, 0, &[0; 8])].concat()
            },
            refused,
        ),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &whole), refused),
        (
            "CONTINUATION on another stream",
            {
                let begun = frame(HEADERS, END_STREAM, 1, &whole);
                [begun, frame(CONTINUATION, END_HEADERS, 3, &[])].concat()
            },
            refused,
        ),
        ("an index out of the table", frame(HEADERS, WHOLE, 1, &[0xff, 0x70]), GoAway(COMPRESSION_ERROR)),
        ("index 0", frame(HEADERS, WHOLE, 1, &[0x80]), GoAway(COMPRESSION_ERROR)),
        ("a field cut off", frame(HEADERS, WHOLE, 1, &[0, 5, b'x']), GoAway(COMPRESSION_ERROR)),
        ("PRIORITY on no stream", frame(PRIORITY, 0, 0, &[0; 5]), refused),
        ("RST_STREAM on no stream", frame(RST_STREAM, 0, 0, &[0; 4]), refused),
        ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), refused),
        ("RST_STREAM too short", then(frame(RST_STREAM, 0, 1, &[0; 3])), wrong_size),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), refused),
        ("SETTINGS of an odd length", frame(SETTINGS, 0, 0, &[0; 5]), wrong_size),
        ("SETTINGS acknowledged at length", frame(SETTINGS, ACK, 0, &setting(3, 1)), wrong_size),
        ("ENABLE_PUSH 2", frame(SETTINGS, 0, 0, &setting(2, 2)), refused),
        ("too large a window", frame(SETTINGS, 0, 0, &setting(4, 1 << 31)), GoAway(FLOW_CONTROL_ERROR)),
        ("too small frames", frame(SETTINGS, 0, 0, &setting(5, 100)), refused),
        ("too large frames", frame(SETTINGS, 0, 0, &setting(5, 1 << 24)), refused),
        ("PUSH_PROMISE", then(frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])), refused),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8]), refused),
        ("PING too short", frame(PING, 0, 0, &[0; 7]), wrong_size),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), refused),
        ("WINDOW_UPDATE by nothing", frame(WINDOW_UPDATE, 0, 0, &increment(0)), refused),
        ("WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 1, &increment(1)), refused),
        ("WINDOW_UPDATE too short", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), wrong_size),
        (
            "WINDOW_UPDATE beyond 2^31",
            { frame(WINDOW_UPDATE, 0, 0, &increment((1 << 31) - 1)).repeat(2) },
            GoAway(FLOW_CONTROL_ERROR),
        ),
        (
            "WINDOW_UPDATE of a stream beyond 2^31",
            { then(frame(WINDOW_UPDATE, 0, 1, &increment((1 << 31) - 1)).repeat(2)) },
            Reset(FLOW_CONTROL_ERROR),
        ),
        ("too large a frame", frame(DATA, 0, 1, &[0; 16_385]), wrong_size),
        (
            "DATA after the end",
            {
                let ended = then(frame(DATA, END_STREAM, 1, b""));
                [ended, frame(DATA, 0, 1, b"late")].concat()
            },
            GoAway(STREAM_CLOSED),
        ),
        ("an unknown frame", [frame(UNKNOWN, 0xff, 7, b"what"), request(&GET)].concat(), Status(200)),
        (
            "an unknown setting",
            { [frame(SETTINGS, 0, 0, &setting(99, 1)), request(&GET)].concat() },
            Status(200),
        ),
    ])
    .await;
}

#[tokio::test]
async fn nothing_on_http2_becomes_another_request_on_http1() {
    let hidden = "/ HTTP/1.1\r\nhost: a\r\n\r\nGET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";
    let with = |name: &str, value: &str| -> Vec<u8> {
        let other = GET.map(|(known, old)| (known, if known == name { value } else { old }));
        request(&other)
    };
    let chunks = b"0\r\n\r\nGET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = chunks.len().to_string();
    let long = (chunks.len() + 10).to_string();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("a request in the path", with(":path", hidden)),
        ("a space in the path", with(":path", "/ HTTP/1.1")),
        ("a tab in the path", with(":path", "/\tHTTP/1.1")),
        ("a line feed in the path", with(":path", "/\nx: y")),
        ("another place in the path", with(":path", "http://b/")),
        ("a request in the method", with(":method", "GET /hidden HTTP/1.1\r\nhost: a\r\n\r\nGET")),
        ("a space in the method", with(":method", "GET /")),
        ("a field in the authority", with(":authority", "a\r\nx: y")),
        ("a path in the authority", with(":authority", "a/b")),
        ("somebody in the authority", with(":authority", "a@b")),
        ("a field in the scheme", with(":scheme", "http\r\nx: y")),
        ("a field in a field", get_with(&[("x", "y\r\ntransfer-encoding: chunked")])),
        ("a field in a name", get_with(&[("x: y\r\ntransfer-encoding", "chunked")])),
        ("H2.TE", post_with(&[("transfer-encoding", "chunked")], chunks)),
        ("H2.TE in disguise", post_with(&[("transfer_encoding", "chunked")], chunks)),
        ("H2.TE with a space", post_with(&[("transfer-encoding ", "chunked")], chunks)),
        ("H2.CL too short", post_with(&[("content-length", "0")], chunks)),
        ("H2.CL too long", post_with(&[("content-length", &long)], chunks)),
        ("H2.CL twice", post_with(&[("content-length", &length), ("content-length", "0")], chunks)),
        ("H2.CL in a list", post_with(&[("content-length", &format!("{length}, {length}"))], chunks)),
        ("H2.CL signed", post_with(&[("content-length", &format!("+{length}"))], chunks)),
        ("an upgrade", get_with(&[("upgrade", "websocket"), ("connection", "upgrade")])),
        ("h2c", get_with(&[("http2-settings", "AAMAAABk"), ("connection", "http2-settings")])),
    ];
    let (stage, origin) = stage().await;
    let mut wrong = Vec::new();
    for (what, bytes) in table {
        let outcome = send(&stage, &bytes).await;
        if !matches!(outcome, Status(400) | Reset(PROTOCOL_ERROR) | GoAway(PROTOCOL_ERROR)) {
            wrong.push(format!("{what}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_small_block_that_becomes_a_large_head_is_refused() {
    let (stage, origin) = stage().await;
    // One entry of 3,000 bytes goes into the table, and is named 2,000 times.
    let mut bomb = block(&GET);
    bomb.push(0x40);
    for text in ["x".to_owned(), "y".repeat(3_000)] {
        length(&mut bomb, text.len());
        bomb.extend(text.as_bytes());
    }
    bomb.extend([0xbe; 2_000]);
    let outcome = send(&stage, &frame(HEADERS, WHOLE, 1, &bomb)).await;
    assert!(matches!(outcome, Status(431) | GoAway(_) | Reset(_)), "{outcome:?}");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused_and_counted() {
    let (stage, origin) = stage().await;
    let large = "x".repeat(8_000);
    let fields: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| (*name, large.as_str())).collect();
    // In as many frames as it takes.
    let too_large = |stream: u32, flags: u8, method: &[(&str, &str)]| {
        let block = block(&[method, &fields].concat());
        let (first, rest) = block.split_at(16_000);
        let begun = frame(HEADERS, flags, stream, first);
        let more: Vec<_> = rest.chunks(16_000).map(|part| frame(CONTINUATION, 0, stream, part)).collect();
        [begun, more.concat(), frame(CONTINUATION, END_HEADERS, stream, &[])].concat()
    };
    for (flags, fields, is_reset) in [(END_STREAM, GET, false), (0, POST, true)] {
        let mut stream = TcpStream::connect(stage.address("web")).await.unwrap();
        let mut next = async |bytes: Vec<u8>| {
            stream.write_all(&bytes).await.unwrap();
            tokio::time::timeout(support::PATIENCE, outcome(&mut stream)).await.unwrap()
        };
        assert_eq!(next([greeting(), get(1)].concat()).await, Status(200));
        assert_eq!(next(too_large(3, flags, &fields)).await, Status(431));
        if is_reset {
            // What would follow is not wanted.
            assert_eq!(next(Vec::new()).await, Reset(PROTOCOL_ERROR));
        }
        assert_eq!(next(get(5)).await, Status(200));
    }
    let count = || stage.metric("shoal_limits_reached_total{limit=\"max_header_bytes\"}");
    assert_eq!(count(), 2);
    // How many fields there may be is another limit.
    let many: Vec<_> = std::iter::repeat_n(("cookie", "x"), 101).collect();
    assert_eq!(send(&stage, &get_with(&many)).await, Status(431));
    assert_eq!((count(), origin.requests()), (2, 4));
    assert_eq!(stage.metric("shoal_failures_total{reason=\"downstream_head_too_large\"}"), 1);
}

#[tokio::test]
async fn what_the_gate_refuses_ends_one_stream() {
    let (stage, origin) = stage().await;
    let mut stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let on = |stream: u32, more: &[(&str, &str)]| {
        frame(HEADERS, WHOLE, stream, &block(&[&GET[..], more].concat()))
    };
    let unread = block(&[&POST[..], &[("host", "b")]].concat());
    let requests = [
        greeting(),
        on(1, &[("host", "b")]),
        // Its body never comes: the stream is reset without an error after the answer (RFC 9113 §8.1).
        frame(HEADERS, END_HEADERS, 3, &unread),
    ];
    stream.write_all(&requests.concat()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(tokio::time::timeout(support::PATIENCE, outcome(&mut stream)).await.unwrap());
    }
    seen.sort_by_key(|outcome| matches!(outcome, Reset(_)));
    assert_eq!(seen, [Status(400), Status(400), Reset(0)]);
    stream.write_all(&on(5, &[])).await.unwrap();
    let next = tokio::time::timeout(support::PATIENCE, outcome(&mut stream)).await.unwrap();
    assert_eq!(next, Status(200));
    assert_eq!(origin.requests(), 1);
}
