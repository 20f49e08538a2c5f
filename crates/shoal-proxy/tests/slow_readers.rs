//! Who takes a response slowly gets it all the same; who does not take it is not waited for.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::time::Duration;

use support::frames::{
    DATA, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, WHOLE, WINDOW_UPDATE, frame, setting,
};
use support::{Origin, Seen, Stage, ok, site, wait_until};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout};

const INITIAL_WINDOW_SIZE: u16 = 4;

/// What is asked for.
const LENGTH: usize = 64 << 10;
/// GET, http and / of the static table; `:authority: a`.
const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x01, 1, b'a'];

fn open(stream: u32, step: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &step.to_be_bytes())
}

/// A connection on HTTP/2 on whose streams `asked` is said first, each of which begins with a window of so many bytes.
async fn greet(stage: &Stage, window: u32, asked: &[u8]) -> (OwnedReadHalf, OwnedWriteHalf) {
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (read, mut write) = stream.into_split();
    let settings = frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW_SIZE, window));
    write.write_all(&[PREFACE, &settings, asked].concat()).await.unwrap();
    (read, write)
}

/// The next frame: kind, flags, stream, bytes of its payload; `None` = the connection has ended.
async fn next(read: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, u32, usize)> {
    let mut head = [0; 9];
    read.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    read.read_exact(&mut vec![0; length]).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), length))
}

/// Asks for a body on HTTP/2, with a window of 16 KiB that is opened by `step` bytes ten times a second; answers how much
/// came and whether it was all.
async fn download(stage: &Stage, step: u32) -> (usize, bool) {
    let (mut read, mut write) = greet(stage, 16 << 10, &frame(HEADERS, WHOLE, 1, &GET)).await;
    let opening = tokio::spawn(async move {
        while write.write_all(&[open(0, step), open(1, step)].concat()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut received = 0;
    let whole = loop {
        match next(&mut read).await {
            None | Some((RST_STREAM, ..)) => break false,
            Some((DATA, flags, _, length)) => {
                received += length;
                if flags & END_STREAM != 0 {
                    break true;
                }
            }
            Some(_) => {}
        }
    };
    opening.abort();
    (received, whole)
}

async fn stage(limits: &str) -> (Stage, Origin) {
    let origin = Origin::start(|_: Seen| ok(&"x".repeat(LENGTH))).await;
    let limits = format!("protocol: http, limits: {{ {limits} }} }}");
    (Stage::start(&site(&[origin.address], "", "").replace("protocol: http }", &limits)), origin)
}

#[tokio::test]
async fn a_stream_lives_as_long_as_it_is_read() {
    let (stage, _origin) = stage("write_idle_timeout: 1500ms, min_rate: 1KiB").await;
    let patient = |step| timeout(3 * support::PATIENCE, download(&stage, step));
    // 48 KiB at 10 KiB a second; and at ten bytes a second.
    let (slow, dripping) = tokio::join!(patient(1 << 10), patient(1));
    assert_eq!(slow.unwrap(), (LENGTH, true));
    let (received, whole) = dripping.unwrap();
    assert!(!whole && received < 20 << 10, "{received}");
}

/// Asks on stream 1 with a window of `window` bytes that is never opened, and `beside` it, until the end of that, on one
/// stream after the other with windows that are opened; answers how much of the first came, and how many of the others were
/// whole before it was reset.
async fn stall(stage: &Stage, window: u32, beside: bool) -> (usize, usize) {
    let ask = |stream| frame(HEADERS, WHOLE, stream, &GET);
    // The window of the connection is never what is missing.
    let begin = [open(0, 1 << 30), ask(1)].concat();
    let (mut read, mut write) = greet(stage, window, &begin).await;
    let more = |stream: u32| [ask(stream), open(stream, LENGTH as u32)].concat();
    let mut asked = 1;
    let (mut received, mut others) = (0, 0);
    if beside {
        asked += 2;
        write.write_all(&more(asked)).await.unwrap();
    }
    loop {
        match next(&mut read).await.expect("the connection goes on") {
            (RST_STREAM, _, 1, _) => return (received, others),
            (DATA, _, 1, length) => received += length,
            (DATA, flags, stream, _) if flags & END_STREAM != 0 => {
                assert_eq!(stream, asked);
                others += 1;
                asked += 2;
                tokio::time::sleep(Duration::from_millis(50)).await;
                write.write_all(&more(asked)).await.unwrap();
            }
            (RST_STREAM, _, stream, _) => panic!("stream {stream} was reset"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_reset() {
    let (stage, _origin) = stage("write_idle_timeout: 1s").await;
    let count = || stage.metric("shoal_limits_reached_total{limit=\"write_idle_timeout\"}");
    let check = async |window: u32, beside: bool| {
        let (began, before) = (Instant::now(), count());
        let stalled = timeout(support::PATIENCE, stall(&stage, window, beside)).await;
        let (received, others) = stalled.unwrap_or_else(|_| panic!("{window}, {beside}: it goes on"));
        assert_eq!(received, window as usize);
        assert!(began.elapsed() >= Duration::from_secs(1), "{window}, {beside}: too early");
        assert_eq!(others > 0, beside, "{window}: the others are served");
        wait_until("the count of it", || count() > before).await;
        // Nothing of it is left at the endpoint, and in the books.
        wait_until("the end of the request", || stage.metric("shoal_requests_in_flight") == 0).await;
    };
    // From the start, and after a while.
    for window in [0, 20_000] {
        check(window, false).await;
        check(window, true).await;
    }
}

#[tokio::test]
async fn streams_that_take_nothing_give_their_endpoint_back() {
    let (stage, origin) = stage("write_idle_timeout: 1s").await;
    let asked: Vec<u8> = (0..100).flat_map(|n| frame(HEADERS, WHOLE, 2 * n + 1, &GET)).collect();
    let (mut read, _write) = greet(&stage, 0, &asked).await;
    let mut reset = 0;
    while reset < 100 {
        let frame = timeout(support::PATIENCE, next(&mut read)).await.expect("they go on");
        reset += usize::from(matches!(frame, Some((RST_STREAM, ..))));
        assert!(frame.is_some(), "the connection goes on");
    }
    assert_eq!(origin.requests(), 100);
    wait_until("the end of the requests", || stage.metric("shoal_requests_in_flight") == 0).await;
    assert_eq!(stage.metric("shoal_limits_reached_total{limit=\"write_idle_timeout\"}"), 100);
}
