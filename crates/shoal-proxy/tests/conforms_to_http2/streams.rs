//! RFC 9113 §5.1: what may be sent on a stream that is idle, half closed or closed.

use crate::play::Expected::{Connection, Data, Pong, Refused, Status, Stream};
use crate::play::{Awaited, Case, Expected, Step, case, ping, steps};
use crate::support::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, HEADERS, NO_ERROR, POST, PRIORITY,
    PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED, WHOLE, WINDOW_UPDATE, block, frame,
    get, open, setting,
};

pub fn cases() -> Vec<Case> {
    [idle(), half_closed(), reset(), closed(), identifiers()].into_iter().flatten().collect()
}

fn reset_of(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

fn update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

const LEAF: [u8; 5] = [0, 0, 0, 0, 255];

fn idle() -> Vec<Case> {
    let refused = Connection(&[PROTOCOL_ERROR]);
    vec![
        case("5.1", "DATA while idle", frame(DATA, END_STREAM, 1, b"test"), refused),
        case(
            "5.1",
            "DATA beyond the last stream",
            [get(1), frame(DATA, END_STREAM, 3, b"test")].concat(),
            refused,
        ),
        case("5.1", "RST_STREAM while idle", reset_of(1), refused),
        case("5.1", "WINDOW_UPDATE while idle", update(1, 100), refused),
        case("5.1", "CONTINUATION while idle", frame(CONTINUATION, END_HEADERS, 1, &block(&GET)), refused),
        case("5.1", "DATA on a stream of ours", frame(DATA, END_STREAM, 2, b"test"), refused),
        case("5.1", "RST_STREAM on a stream of ours", reset_of(2), refused),
        case("5.1", "WINDOW_UPDATE on a stream of ours", update(2, 1), refused),
        case("5.1", "PRIORITY while idle", [frame(PRIORITY, 0, 1, &LEAF), ping()].concat(), Pong),
        case(
            "5.1",
            "PRIORITY while idle, then HEADERS",
            [frame(PRIORITY, 0, 3, &LEAF), get(1)].concat(),
            Status(1, 200),
        ),
    ]
}

/// What comes after a whole request whose response has no room yet.
fn unanswered(rule: &'static str, what: &'static str, then: Vec<u8>, expected: Expected) -> Case {
    let no_room = frame(SETTINGS, 0, 0, &setting(4, 0));
    let sent = [no_room, get(1), then].concat();
    steps(rule, what, vec![Step::Send(sent)], expected)
}

fn half_closed() -> Vec<Case> {
    let late = Stream(1, STREAM_CLOSED);
    let trailers = frame(HEADERS, WHOLE, 1, &block(&[("x", "y")]));
    let ended = |body: Vec<u8>, more: Vec<u8>| [open(1), body, more].concat();
    vec![
        unanswered("5.1", "DATA while half closed", frame(DATA, END_STREAM, 1, b"test"), late),
        unanswered("5.1", "empty DATA while half closed", frame(DATA, 0, 1, b""), late),
        unanswered("5.1", "HEADERS while half closed", get(1), late),
        unanswered("5.1", "trailers while half closed", trailers.clone(), late),
        unanswered(
            "5.1",
            "CONTINUATION while half closed",
            frame(CONTINUATION, END_HEADERS, 1, &block(&GET)),
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        case(
            "5.1",
            "DATA after the last DATA",
            ended(frame(DATA, END_STREAM, 1, b"x"), frame(DATA, 0, 1, b"x")),
            late,
        ),
        case("5.1", "DATA after trailers", ended(trailers.clone(), frame(DATA, 0, 1, b"x")), late),
        case("5.1", "trailers after trailers", ended(trailers.clone(), trailers), late),
        unanswered("5.1", "WINDOW_UPDATE while half closed", update(1, 1), Data(1)),
        unanswered(
            "5.1",
            "PRIORITY while half closed",
            [frame(PRIORITY, 0, 1, &LEAF), update(1, 2)].concat(),
            Data(2),
        ),
        unanswered("5.1", "RST_STREAM while half closed", [reset_of(1), ping()].concat(), Pong),
    ]
}

fn reset() -> Vec<Case> {
    let late = Stream(1, STREAM_CLOSED);
    let after = |then: Vec<u8>| [open(1), reset_of(1), then].concat();
    vec![
        case("5.1", "DATA after RST_STREAM", after(frame(DATA, END_STREAM, 1, b"test")), late),
        case("5.1", "HEADERS after RST_STREAM", after(get(1)), late),
        case(
            "5.1",
            "trailers after RST_STREAM",
            after(frame(HEADERS, WHOLE, 1, &block(&[("x", "y")]))),
            late,
        ),
        case(
            "5.1",
            "CONTINUATION after RST_STREAM",
            after(frame(CONTINUATION, END_HEADERS, 1, &block(&[("x", "y")]))),
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        case(
            "5.1",
            "PRIORITY after RST_STREAM",
            after([frame(PRIORITY, 0, 1, &LEAF), ping()].concat()),
            Pong,
        ),
        case("5.1", "WINDOW_UPDATE after RST_STREAM", after([update(1, 1), ping()].concat()), Pong),
        case("5.1", "RST_STREAM twice", after([reset_of(1), ping()].concat()), Pong),
    ]
}

/// What comes after a response was received.
fn answered(what: &'static str, then: Vec<u8>, expected: Expected) -> Case {
    steps("5.1", what, vec![Step::Send(get(1)), Step::Await(Awaited::End(1)), Step::Send(then)], expected)
}

fn closed() -> Vec<Case> {
    let late = Connection(&[STREAM_CLOSED]);
    vec![
        answered("DATA when closed", frame(DATA, END_STREAM, 1, b"test"), late),
        answered("HEADERS when closed", get(1), late),
        answered(
            "CONTINUATION when closed",
            frame(CONTINUATION, END_HEADERS, 1, &block(&GET)),
            Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        answered("PRIORITY when closed", [frame(PRIORITY, 0, 1, &LEAF), ping()].concat(), Pong),
        answered("WINDOW_UPDATE when closed", [update(1, 5), ping()].concat(), Pong),
        answered("RST_STREAM when closed", [reset_of(1), ping()].concat(), Pong),
        answered("the next request", get(3), Status(3, 200)),
        // An upload that is refused is reset; what was on its way then is no error.
        steps(
            "5.1",
            "DATA after our RST_STREAM",
            vec![
                Step::Send(frame(HEADERS, END_HEADERS, 1, &block(&[&POST[..], &[("host", "b")]].concat()))),
                Step::Await(Awaited::End(1)),
                Step::Send([frame(DATA, END_STREAM, 1, b"late"), get(3)].concat()),
            ],
            Status(3, 200),
        ),
    ]
}

fn identifiers() -> Vec<Case> {
    let refused = Connection(&[PROTOCOL_ERROR]);
    let many: Vec<u8> = (0..129).flat_map(|n| open(2 * n + 1)).collect();
    vec![
        case("5.1.1", "an even stream", get(2), refused),
        case("5.1.1", "a smaller stream", [get(5), get(3)].concat(), refused),
        case("5.1.1", "a stream that was skipped", [get(1), get(7), get(5)].concat(), refused),
        case("5.1.1", "HEADERS twice", [get(5), get(5)].concat(), Stream(5, STREAM_CLOSED)),
        case("5.1.1", "the stream 0", get(0), refused),
        case("5.1.1", "a large stream", get((1 << 31) - 1), Status((1 << 31) - 1, 200)),
        case("5.1.2", "more streams than announced", many, Refused(257, REFUSED_STREAM)),
        case(
            "5.1.2",
            "a stream that was refused, ended",
            {
                let many: Vec<u8> = (0..129).flat_map(|n| open(2 * n + 1)).collect();
                [many, frame(RST_STREAM, 0, 257, &NO_ERROR.to_be_bytes())].concat()
            },
            Refused(257, REFUSED_STREAM),
        ),
    ]
}
