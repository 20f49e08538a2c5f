//! Floods of HTTP/2 frames: each ends its connection, and nobody else's.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use support::frames::{
    CONTINUATION, DATA, END_STREAM, ENHANCE_YOUR_CALM, GET, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM,
    SETTINGS, UNKNOWN, WINDOW_UPDATE, block, frame, get, greeting, open,
};
use support::outcome::Outcome::{self, GoAway, Reset, Status};
use support::outcome::{next, outcome, send};
use support::{Origin, Stage, ok, site};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn floods_end_the_connection() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let resets: Vec<u8> = (0..5_000)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            [get(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .collect();
    // We have to reset each of them (CVE-2025-8671).
    let broken: Vec<u8> = (0..1_000)
        .flat_map(|n| {
            let grow = frame(WINDOW_UPDATE, 0, 2 * n + 1, &((1u32 << 31) - 1).to_be_bytes());
            [open(2 * n + 1), grow].concat()
        })
        .collect();
    let beyond: Vec<u8> = (0..5_000).flat_map(|n| open(2 * n + 1)).collect();
    let begun = frame(HEADERS, END_STREAM, 1, &block(&GET));
    let open = open(1);
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
        ("unknown frames", frame(UNKNOWN, 0, 0, &[]).repeat(5_000)),
        ("streams broken on purpose", broken),
    ];
    let floods = table.len();
    for (what, bytes) in table {
        // What is answered before it is noticed is not what is asked here.
        let ended = ended(&stage, &bytes).await;
        assert_eq!(ended, GoAway(ENHANCE_YOUR_CALM), "{what}");
        assert_eq!(send(&stage, &get(1)).await, Status(200), "another downstream after {what}");
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
        [get(2 * n + 1), taken_back].concat()
    };
    let asks = get(101);
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
    stream.write_all(&greeting()).await.unwrap();
    for n in 0..100 {
        stream.write_all(&get(2 * n + 1)).await.unwrap();
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
        let (kind, payload) = next(read).await.expect("the connection goes on");
        assert!(![RST_STREAM, GOAWAY].contains(&kind), "{kind} {payload:?}");
        if kind == DATA && !payload.is_empty() {
            return payload.len();
        }
    }
}

/// How the connection ended on which `bytes` were sent.
async fn ended(stage: &Stage, bytes: &[u8]) -> Outcome {
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let bytes = [&greeting()[..], bytes].concat();
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
