//! HTTP/2 frames written by hand: every protocol error gets the answer of RFC 9113, every flood an end.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use support::{Origin, Stage, ok, site};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const WHOLE: u8 = END_STREAM | END_HEADERS;
const PADDED: u8 = 8;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What came of it: the first thing that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Status(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
    Closed,
}

use Outcome::{GoAway, Reset, Status};

/// Error codes of RFC 9113 §7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field block in which every field is a literal (RFC 7541 §6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else { return block.push(length as u8) };
    block.push(127);
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest >>= 7;
    }
    block.push(rest as u8);
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

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
    let fields = [&[(":method", "POST")], &GET[1..], more].concat();
    [frame(HEADERS, END_HEADERS, 1, &block(&fields)), frame(DATA, END_STREAM, 1, body)].concat()
}

/// Sends `bytes` after a preface and settings; answers what comes of it.
async fn send(stage: &Stage, bytes: &[u8]) -> Outcome {
    send_raw(stage, [PREFACE, &frame(SETTINGS, 0, 0, &[]), bytes].concat()).await
}

async fn send_raw(stage: &Stage, bytes: Vec<u8>) -> Outcome {
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let writing = tokio::spawn(async move {
        // The other side may close before everything was sent.
        let _ = write.write_all(&bytes).await;
        write
    });
    let outcome = tokio::time::timeout(support::PATIENCE, outcome(&mut read)).await;
    drop(writing);
    outcome.expect("nothing came of it")
}

async fn outcome(read: &mut (impl AsyncReadExt + Unpin)) -> Outcome {
    loop {
        let mut head = [0; 9];
        if read.read_exact(&mut head).await.is_err() {
            return Outcome::Closed;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if read.read_exact(&mut payload).await.is_err() {
            return Outcome::Closed;
        }
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match head[3] {
            HEADERS => return Status(status(&payload)),
            RST_STREAM => return Reset(code(0)),
            GOAWAY => return GoAway(code(4)),
            _ => {}
        }
    }
}

/// `:status`, the first field of a response: an entry of the static table, or a literal named by one.
fn status(block: &[u8]) -> u16 {
    let block = if block[0] >> 5 == 1 { &block[1..] } else { block };
    let known = [(0x88, 200), (0x89, 204), (0x8a, 206), (0x8b, 304), (0x8c, 400), (0x8d, 404), (0x8e, 500)];
    if let Some((_, status)) = known.iter().find(|(byte, _)| *byte == block[0]) {
        return *status;
    }
    let text = &block[2..2 + usize::from(block[1] & 127)];
    if block[1] & 128 == 0 {
        return std::str::from_utf8(text).unwrap().parse().unwrap();
    }
    // Huffman: 0 to 2 have five bits, 3 to 9 six, from 25 on (RFC 7541 appendix B).
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut digit = || {
        let five = (0..5).fold(0, |code, _| code << 1 | bits.next().unwrap());
        if five < 3 { five } else { (five << 1 | bits.next().unwrap()) - 22 }
    };
    digit() * 100 + digit() * 10 + digit()
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
    let setting = |id: u8, value: u32| [&[0, id][..], &value.to_be_bytes()].concat();
    let open = frame(HEADERS, END_HEADERS, 1, &block(&[&[(":method", "POST")], &GET[1..]].concat()));
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
        ("an unknown frame", [frame(0x77, 0xff, 7, b"what"), request(&GET)].concat(), Status(200)),
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
async fn floods_end_the_connection() {
    let (stage, origin) = stage().await;
    let resets: Vec<u8> = (0..5_000)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            [frame(HEADERS, WHOLE, stream, &block(&GET)), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
                .concat()
        })
        .collect();
    // We have to reset each of them (CVE-2025-8671).
    let post = block(&[&[(":method", "POST")], &GET[1..]].concat());
    let broken: Vec<u8> = (0..1_000)
        .flat_map(|n| {
            let grow = frame(WINDOW_UPDATE, 0, 2 * n + 1, &((1u32 << 31) - 1).to_be_bytes());
            [frame(HEADERS, END_HEADERS, 2 * n + 1, &post), grow].concat()
        })
        .collect();
    let beyond: Vec<u8> = (0..5_000).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &post)).collect();
    let begun = frame(HEADERS, END_STREAM, 1, &block(&GET));
    let open = frame(HEADERS, END_HEADERS, 1, &block(&[&[(":method", "POST")], &GET[1..]].concat()));
    let empty = frame(CONTINUATION, 0, 1, &[]).repeat(50_000);
    let table = [
        ("rapid reset", resets),
        (
            "CONTINUATION",
            [begun.clone(), frame(CONTINUATION, 0, 1, &block(&[("x", "y")])).repeat(50_000)].concat(),
        ),
        ("empty CONTINUATION", [begun, empty].concat()),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(5_000)),
        ("PING", frame(PING, 0, 0, &[7; 8]).repeat(5_000)),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]).repeat(5_000)),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(5_000)),
        (
            "WINDOW_UPDATE of a stream",
            [open.clone(), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]).repeat(5_000)].concat(),
        ),
        ("streams beyond the limit", beyond),
        ("empty DATA", [open, frame(DATA, 0, 1, &[]).repeat(5_000)].concat()),
        ("unknown frames", frame(0x77, 0, 0, &[]).repeat(5_000)),
        ("streams broken on purpose", broken),
    ];
    let floods = table.len();
    for (what, bytes) in table {
        // What is answered before it is noticed is not what is asked here.
        let ended = ended(&stage, &bytes).await;
        assert_eq!(ended, GoAway(ENHANCE_YOUR_CALM), "{what}");
        assert_eq!(send(&stage, &request(&GET)).await, Status(200), "another downstream after {what}");
    }
    // A connection is closed before it is counted.
    let ended_by = |limit: &str| stage.metric(&format!("shoal_limits_reached_total{{limit=\"{limit}\"}}"));
    // Which of two limits is reached first where both apply is a matter of how much is read at once.
    let limits = ["h2_max_idle_frames", "h2_max_resets", "h2_codec"];
    let counted = || limits.iter().map(|limit| ended_by(limit)).sum::<u64>() == floods as u64;
    support::wait_until("the count of the floods", counted).await;
    // By whomever they were ended.
    let calm =
        || stage.metric("shoal_h2_connection_errors_total{code=\"ENHANCE_YOUR_CALM\"}") == floods as u64;
    support::wait_until("the count of their code", calm).await;
    assert!(ended_by("h2_max_idle_frames") >= 4 && ended_by("h2_codec") >= 1);
    assert!(origin.requests() < 1_000, "{} of the taken back requests came through", origin.requests());
}

#[tokio::test]
async fn how_much_is_a_flood_is_a_setting() {
    let origin = Origin::start(|_| ok("hello")).await;
    let limits = "protocol: http, limits: { h2_max_idle_frames: 20, h2_max_resets: 2 } }";
    let stage = Stage::start(&site(&[origin.address], "", "").replace("protocol: http }", limits));
    let reset = |n: u32| {
        let taken_back = frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]);
        [frame(HEADERS, WHOLE, 2 * n + 1, &block(&GET)), taken_back].concat()
    };
    let asks = frame(HEADERS, WHOLE, 101, &block(&GET));
    // The settings of the greeting are one of them.
    let pings = |count: usize| frame(PING, 0, 0, &[7; 8]).repeat(count);
    let resets = |count: u32| (0..count).flat_map(reset).collect::<Vec<u8>>();
    let check = async |what: &str, bytes: Vec<u8>, expected: Outcome| {
        assert_eq!(send(&stage, &[bytes, asks.clone()].concat()).await, expected, "{what}");
    };
    check("19 PINGs", pings(19), Status(200)).await;
    check("20 PINGs", pings(20), GoAway(ENHANCE_YOUR_CALM)).await;
    check("2 resets", resets(2), Status(200)).await;
    check("3 resets", resets(3), GoAway(ENHANCE_YOUR_CALM)).await;
    let reached = |limit: &str| stage.metric(&format!("shoal_limits_reached_total{{limit=\"{limit}\"}}"));
    let counted = || reached("h2_max_idle_frames") == 1 && reached("h2_max_resets") == 1;
    support::wait_until("the count of both", counted).await;
    let calm = || stage.metric("shoal_h2_connection_errors_total{code=\"ENHANCE_YOUR_CALM\"}") == 2;
    support::wait_until("the count of the code", calm).await;
}

#[tokio::test]
async fn who_opens_windows_for_what_it_gets_goes_on() {
    // Some hundred times as many windows are opened as may be for nothing.
    let origin = Origin::start(|_| ok(&"x".repeat(200))).await;
    let limits = "protocol: http, limits: { h2_max_idle_frames: 16 } }";
    let stage = Stage::start(&site(&[origin.address], "", "").replace("protocol: http }", limits));
    let mut stream = TcpStream::connect(stage.address("web")).await.unwrap();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    for n in 0..100 {
        let asks = frame(HEADERS, WHOLE, 2 * n + 1, &block(&GET));
        stream.write_all(&asks).await.unwrap();
        let answered = tokio::time::timeout(support::PATIENCE, data(&mut stream)).await.unwrap();
        assert_eq!(answered, 200, "{n}");
        // Both windows, as far as they were used, and how far away the other side is.
        let step = 200u32.to_be_bytes();
        let opens = [frame(WINDOW_UPDATE, 0, 0, &step), frame(WINDOW_UPDATE, 0, 2 * n + 1, &step)];
        stream.write_all(&[opens.concat(), frame(PING, 0, 0, &[1; 8])].concat()).await.unwrap();
    }
}

/// Bytes of the next DATA frame that has some.
async fn data(read: &mut (impl AsyncReadExt + Unpin)) -> usize {
    loop {
        let mut head = [0; 9];
        read.read_exact(&mut head).await.expect("the connection goes on");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        read.read_exact(&mut payload).await.unwrap();
        assert!(![RST_STREAM, GOAWAY].contains(&head[3]), "{head:?}");
        if head[3] == DATA && !payload.is_empty() {
            return payload.len();
        }
    }
}

/// How the connection ended on which `bytes` were sent.
async fn ended(stage: &Stage, bytes: &[u8]) -> Outcome {
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), bytes].concat();
    let writing = tokio::spawn(async move {
        // It is to be closed while this is being written.
        let _ = write.write_all(&bytes).await;
        write
    });
    let ended = async {
        loop {
            match outcome(&mut read).await {
                Status(_) | Reset(_) => {}
                ended => return ended,
            }
        }
    };
    let ended = tokio::time::timeout(support::PATIENCE, ended).await.expect("it goes on");
    drop(writing);
    ended
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
async fn what_the_gate_refuses_ends_one_stream() {
    let (stage, origin) = stage().await;
    let mut stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let on = |stream: u32, more: &[(&str, &str)]| {
        frame(HEADERS, WHOLE, stream, &block(&[&GET[..], more].concat()))
    };
    let unread = block(&[&[(":method", "POST")], &GET[1..], &[("host", "b")]].concat());
    let requests = [
        [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat(),
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
