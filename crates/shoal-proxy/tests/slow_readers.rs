//! Who takes a response slowly gets it all the same; who does not take it is not waited for.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::time::Duration;

use support::{Origin, Seen, Stage, ok, site};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const INITIAL_WINDOW_SIZE: u8 = 4;
const END_STREAM: u8 = 1;
const END_STREAM_AND_HEADERS: u8 = 5;

/// What is asked for.
const LENGTH: usize = 64 << 10;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Asks for a body on HTTP/2, with a window of 16 KiB that is opened by `step` bytes ten times a second; answers how much
/// came and whether it was all.
async fn download(stage: &Stage, step: u32) -> (usize, bool) {
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    // GET, http and / of the static table; `:authority: a`.
    let head = [0x82, 0x86, 0x84, 0x01, 1, b'a'];
    let window = [&[0, INITIAL_WINDOW_SIZE][..], &(16u32 << 10).to_be_bytes()].concat();
    let asked = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &window),
        frame(HEADERS, END_STREAM_AND_HEADERS, 1, &head),
    ];
    write.write_all(&asked.concat()).await.unwrap();
    let opening = tokio::spawn(async move {
        let open = |stream| frame(WINDOW_UPDATE, 0, stream, &step.to_be_bytes());
        while write.write_all(&[open(0), open(1)].concat()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut received = 0;
    let whole = loop {
        let mut head = [0; 9];
        if read.read_exact(&mut head).await.is_err() {
            break false;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        read.read_exact(&mut payload).await.unwrap();
        match head[3] {
            DATA => received += length,
            RST_STREAM => break false,
            _ => {}
        }
        if head[3] == DATA && head[4] & END_STREAM != 0 {
            break true;
        }
    };
    opening.abort();
    (received, whole)
}

#[tokio::test]
async fn a_stream_lives_as_long_as_it_is_read() {
    let origin = Origin::start(|_: Seen| ok(&"x".repeat(LENGTH))).await;
    let limits = "protocol: http, limits: { write_idle_timeout: 1500ms, min_rate: 1KiB } }";
    let stage = Stage::start(&site(&[origin.address], "", "").replace("protocol: http }", limits));
    let patient = |step| tokio::time::timeout(3 * support::PATIENCE, download(&stage, step));
    // 48 KiB at 10 KiB a second; and at ten bytes a second.
    let (slow, dripping) = tokio::join!(patient(1 << 10), patient(1));
    assert_eq!(slow.unwrap(), (LENGTH, true));
    let (received, whole) = dripping.unwrap();
    assert!(!whole && received < 20 << 10, "{received}");
}
