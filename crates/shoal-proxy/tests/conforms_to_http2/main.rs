//! What RFC 9113 and RFC 7541 demand of a server, rule by rule: frames that are sent, and what has to come of them.
//!
//! Every case has a connection of its own, once with all bytes at once and once with five at a time.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod fields;
mod framing;
mod kinds;
mod messages;
mod play;
mod streams;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use play::{Case, Expected, Manner, case, play};
use support::frames::{self, DATA, FRAME_SIZE_ERROR, HEADERS, PING, WHOLE, frame, get};
use support::{Origin, Stage, ok, site, wait_until};

/// Plays every case; answers how many there are.
async fn check(cases: Vec<Case>) {
    let origin = Origin::start(|_| ok("hello")).await;
    let stage = Arc::new(Stage::start(&site(&[origin.address], "", "")));
    let mut plays = Vec::new();
    for case in cases {
        let case = Arc::new(case);
        for manner in [Manner::AtOnce, Manner::InPieces] {
            let (stage, case) = (stage.clone(), case.clone());
            plays.push(tokio::spawn(async move {
                let seen = play(stage.address("web"), &case, manner).await;
                seen.map_err(|seen| {
                    format!("{} {}, {manner:?}: {seen} instead of {:?}", case.rule, case.what, case.expected)
                })
            }));
        }
    }
    let count = plays.len();
    let mut wrong = Vec::new();
    for play in plays {
        wrong.extend(play.await.unwrap().err());
    }
    assert!(wrong.is_empty(), "{} of {count}: {wrong:#?}", wrong.len());
}

#[tokio::test]
async fn framing() {
    check(framing::cases()).await;
}

#[tokio::test]
async fn stream_states() {
    check(streams::cases()).await;
}

#[tokio::test]
async fn kinds_of_frames() {
    check(kinds::cases()).await;
}

#[tokio::test]
async fn messages() {
    check(messages::cases()).await;
}

#[tokio::test]
async fn field_compression() {
    check(fields::cases()).await;
}

#[tokio::test]
async fn errors_of_connections_are_counted_by_code() {
    let origin = Origin::start(|_| ok("hello")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let end = |bytes: Vec<u8>, code: &'static [u32]| case("7", "an error", bytes, Expected::Connection(code));
    let cases = [
        end(frame(PING, 0, 0, &[0; 7]), &[FRAME_SIZE_ERROR]),
        end(frame(PING, 0, 0, &[0; 9]), &[FRAME_SIZE_ERROR]),
        end([get(1), frame(DATA, 0, 1, b"x")].concat(), &[frames::STREAM_CLOSED]),
        end(frame(HEADERS, WHOLE, 1, &[0x80]), &[frames::COMPRESSION_ERROR]),
        end(frames::open(2), &[frames::PROTOCOL_ERROR]),
        case("7", "no error", get(1), Expected::Status(1, 200)),
    ];
    for case in cases {
        play(stage.address("web"), &case, Manner::AtOnce).await.unwrap();
    }
    for (code, count) in [
        ("FRAME_SIZE_ERROR", 2),
        ("STREAM_CLOSED", 1),
        ("COMPRESSION_ERROR", 1),
        ("PROTOCOL_ERROR", 1),
        ("FLOW_CONTROL_ERROR", 0),
    ] {
        let counter = format!("shoal_h2_connection_errors_total{{code=\"{code}\"}}");
        wait_until(&counter, || stage.metric(&counter) == count).await;
    }
}
