//! RFC 9113 §3 to §4, §5.3 to §5.5: prefaces, frames, sizes, blocks, extensions.

use crate::play::Expected::{Connection, Hangup, Pong, Settings, Status, Stream};
use crate::play::{Case, Step, case, ping};
use crate::support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_SIZE_ERROR, GET, GOAWAY, HEADERS, PING, POST,
    PREFACE, PRIORITY, PROTOCOL_ERROR, SETTINGS, UNKNOWN, WHOLE, WITH_PRIORITY, block, frame, get, greeting,
    open, setting,
};

fn raw(rule: &'static str, what: &'static str, bytes: Vec<u8>, expected: crate::play::Expected) -> Case {
    Case { rule, what, steps: vec![Step::Send(bytes)], expected, greets: false }
}

pub fn cases() -> Vec<Case> {
    [prefaces(), sizes(), blocks(), extensions()].into_iter().flatten().collect()
}

fn prefaces() -> Vec<Case> {
    let refused = Connection(&[PROTOCOL_ERROR]);
    let after = |first: Vec<u8>| [PREFACE, &first].concat();
    vec![
        raw("3.4", "a preface and SETTINGS", greeting(), Settings),
        raw("3.4", "a preface alone", PREFACE.to_vec(), Settings),
        raw("3.4", "a request at once", [greeting(), get(1)].concat(), Status(1, 200)),
        case("3.4", "a ping", ping(), Pong),
        raw("3.4", "no preface", b"INVALID CONNECTION PREFACE\r\n\r\n".to_vec(), Hangup),
        raw("3.4", "half a preface", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(), Hangup),
        raw("3.4", "PING before SETTINGS", after(ping()), refused),
        raw("3.4", "HEADERS before SETTINGS", after(get(1)), refused),
        raw("3.4", "an answer before SETTINGS", after(frame(SETTINGS, ACK, 0, &[])), refused),
    ]
}

fn sizes() -> Vec<Case> {
    let wrong = Connection(&[FRAME_SIZE_ERROR]);
    let long = [block(&GET), block(&[("x", &"y".repeat(16_384))])].concat();
    let body = |bytes: usize| [open(1), frame(DATA, END_STREAM, 1, &vec![0; bytes])].concat();
    vec![
        case("4.1", "an unknown kind", [frame(UNKNOWN, 0, 0, &[0; 8]), ping()].concat(), Pong),
        case(
            "4.1",
            "an unknown kind on a stream",
            [frame(UNKNOWN, 0xff, 7, b"x"), get(1)].concat(),
            Status(1, 200),
        ),
        case("4.1", "flags without a meaning", [frame(PING, 0x16, 0, &[0; 8]), ping()].concat(), Pong),
        case(
            "4.1",
            "a reserved bit",
            {
                let mut bytes = ping();
                bytes[5] |= 0x80;
                bytes
            },
            Pong,
        ),
        case(
            "4.1",
            "a reserved bit of a stream",
            frame(HEADERS, WHOLE, 1 << 31 | 1, &block(&GET)),
            Status(1, 200),
        ),
        case("4.2", "the largest DATA", body(16_384), Status(1, 200)),
        case("4.2", "too large DATA", body(16_385), wrong),
        case("4.2", "too large HEADERS", frame(HEADERS, WHOLE, 1, &long), wrong),
        case("4.2", "too large SETTINGS", frame(SETTINGS, 0, 0, &setting(99, 0).repeat(2_731)), wrong),
        case("4.2", "too large an unknown frame", frame(UNKNOWN, 0, 0, &[0; 16_385]), wrong),
        case(
            "4.2",
            "HEADERS too short for a priority",
            frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[0; 4]),
            wrong,
        ),
        case("4.2", "GOAWAY too short", frame(GOAWAY, 0, 0, &[0; 7]), wrong),
    ]
}

fn blocks() -> Vec<Case> {
    let refused = Connection(&[PROTOCOL_ERROR]);
    let begun = |stream| frame(HEADERS, END_STREAM, stream, &block(&GET));
    let within = |other: Vec<u8>| {
        [begun(1), other, frame(CONTINUATION, END_HEADERS, 1, &block(&[("x", "y")]))].concat()
    };
    vec![
        case("4.3", "PRIORITY within a block", within(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255])), refused),
        case("4.3", "other HEADERS within a block", within(get(3)), refused),
        case("4.3", "the same HEADERS within a block", within(get(1)), refused),
        case("4.3", "DATA within a block", within(frame(DATA, 0, 1, b"x")), refused),
        case("4.3", "SETTINGS within a block", within(frame(SETTINGS, 0, 0, &[])), refused),
        case("4.3", "an empty fragment", within(Vec::new()), Status(1, 200)),
        case(
            "4.3",
            "a field in two fragments",
            {
                let whole = block(&POST);
                let (first, second) = whole.split_at(5);
                [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, second)].concat()
            },
            Status(1, 200),
        ),
        case(
            "5.3.1",
            "HEADERS that depend on themselves",
            {
                let priority = [0, 0, 0, 1, 15];
                frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[&priority[..], &block(&GET)].concat())
            },
            Stream(1, PROTOCOL_ERROR),
        ),
        case(
            "5.3.1",
            "PRIORITY that depends on itself",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 15]),
            Stream(1, PROTOCOL_ERROR),
        ),
        case(
            "5.3.1",
            "exclusive HEADERS that depend on themselves",
            {
                let priority = [0x80, 0, 0, 1, 15];
                frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[&priority[..], &block(&GET)].concat())
            },
            Stream(1, PROTOCOL_ERROR),
        ),
        case("5.4.1", "an error and then a request", [frame(PING, 0, 3, &[0; 8]), get(1)].concat(), refused),
    ]
}

fn extensions() -> Vec<Case> {
    let refused = Connection(&[PROTOCOL_ERROR]);
    let begun = frame(HEADERS, END_STREAM, 1, &block(&GET));
    vec![
        case("5.5", "an extension", [frame(0x16, 0, 0, &[0; 8]), ping()].concat(), Pong),
        case("5.5", "an extension within a block", [begun, frame(0x16, 0, 0, &[0; 8])].concat(), refused),
        case("5.5", "an unknown setting", [frame(SETTINGS, 0, 0, &setting(0xff, 1)), ping()].concat(), Pong),
    ]
}
