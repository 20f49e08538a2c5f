//! RFC 9113 §6 and §7: the kinds of frames, and the codes of errors.

use crate::play::Expected::{Connection, Data, End, Pong, Status, Stream};
use crate::play::{Awaited, Case, Step, case, ping, steps};
use crate::support::frames::{
    ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GET,
    GOAWAY, HEADERS, NO_ERROR, PADDED, PING, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WHOLE, WINDOW_UPDATE, WITH_PRIORITY, block, frame, get, open, setting,
};

const REFUSED: crate::play::Expected = Connection(&[PROTOCOL_ERROR]);
const WRONG_SIZE: crate::play::Expected = Connection(&[FRAME_SIZE_ERROR]);

pub fn cases() -> Vec<Case> {
    [
        data(),
        headers(),
        priority(),
        rst_stream(),
        settings(),
        pings(),
        goaway(),
        window_update(),
        windows(),
        continuation(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn then(more: Vec<u8>) -> Vec<u8> {
    [open(1), more].concat()
}

fn data() -> Vec<Case> {
    let padded = |pad: u8, rest: &[u8]| then(frame(DATA, PADDED | END_STREAM, 1, &[&[pad], rest].concat()));
    vec![
        case("6.1", "DATA", then(frame(DATA, END_STREAM, 1, b"test")), Status(1, 200)),
        case(
            "6.1",
            "DATA in parts",
            then([frame(DATA, 0, 1, b"te"), frame(DATA, END_STREAM, 1, b"st")].concat()),
            Status(1, 200),
        ),
        case("6.1", "padded DATA", padded(5, b"test\0\0\0\0\0"), Status(1, 200)),
        case("6.1", "DATA that is only padding", padded(4, &[0; 4]), Status(1, 200)),
        case("6.1", "DATA on no stream", frame(DATA, 0, 0, b"test"), REFUSED),
        case("6.1", "DATA padded beyond its end", padded(6, b"test"), REFUSED),
        case("6.1", "DATA padded by its whole length", padded(5, b"test"), REFUSED),
        case("6.1", "padded DATA without a length", then(frame(DATA, PADDED, 1, &[])), WRONG_SIZE),
    ]
}

fn headers() -> Vec<Case> {
    let whole = block(&GET);
    let priority = [0, 0, 0, 0, 255];
    let padded = [&[4][..], &whole, &[0; 4]].concat();
    let both = [&[4][..], &priority, &whole, &[0; 4]].concat();
    vec![
        case("6.2", "HEADERS", get(1), Status(1, 200)),
        case("6.2", "padded HEADERS", frame(HEADERS, WHOLE | PADDED, 1, &padded), Status(1, 200)),
        case(
            "6.2",
            "HEADERS with a priority",
            frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[&priority, &whole[..]].concat()),
            Status(1, 200),
        ),
        case(
            "6.2",
            "HEADERS with both",
            frame(HEADERS, WHOLE | PADDED | WITH_PRIORITY, 1, &both),
            Status(1, 200),
        ),
        case("6.2", "HEADERS on no stream", frame(HEADERS, WHOLE, 0, &whole), REFUSED),
        case(
            "6.2",
            "HEADERS padded beyond their end",
            frame(HEADERS, WHOLE | PADDED, 1, &[&[255], &whole[..]].concat()),
            REFUSED,
        ),
        case(
            "6.2",
            "HEADERS padded into the priority",
            frame(HEADERS, WHOLE | PADDED | WITH_PRIORITY, 1, &[3, 0, 0, 0, 0, 255, 0, 0]),
            REFUSED,
        ),
        case("6.2", "padded HEADERS without a length", frame(HEADERS, WHOLE | PADDED, 1, &[]), WRONG_SIZE),
        case(
            "6.2",
            "HEADERS, then a PING",
            [frame(HEADERS, END_STREAM, 1, &whole), ping()].concat(),
            REFUSED,
        ),
    ]
}

fn priority() -> Vec<Case> {
    let on = |stream: u32, bytes: [u8; 5]| frame(PRIORITY, 0, stream, &bytes);
    let well = |bytes: [u8; 5]| [on(1, bytes), ping()].concat();
    vec![
        case("6.3", "a PRIORITY of 1", well([0, 0, 0, 0, 0]), Pong),
        case("6.3", "a PRIORITY of 256", well([0, 0, 0, 0, 255]), Pong),
        case("6.3", "a PRIORITY that depends on a stream", well([0, 0, 0, 3, 255]), Pong),
        case("6.3", "an exclusive PRIORITY", well([0x80, 0, 0, 3, 255]), Pong),
        case("6.3", "PRIORITY on no stream", on(0, [0, 0, 0, 0, 255]), REFUSED),
        case(
            "6.3",
            "PRIORITY too short",
            [get(1), frame(PRIORITY, 0, 1, &[0x80, 0, 0, 1])].concat(),
            Stream(1, FRAME_SIZE_ERROR),
        ),
        case(
            "6.3",
            "PRIORITY too long",
            [get(1), frame(PRIORITY, 0, 1, &[0; 6])].concat(),
            Stream(1, FRAME_SIZE_ERROR),
        ),
    ]
}

fn rst_stream() -> Vec<Case> {
    vec![
        case(
            "6.4",
            "RST_STREAM",
            then([frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()), ping()].concat()),
            Pong,
        ),
        case("6.4", "RST_STREAM on no stream", frame(RST_STREAM, 0, 0, &CANCEL.to_be_bytes()), REFUSED),
        case("6.4", "RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()), REFUSED),
        case("6.4", "RST_STREAM too short", then(frame(RST_STREAM, 0, 1, &[0; 3])), WRONG_SIZE),
        case("6.4", "RST_STREAM too long", then(frame(RST_STREAM, 0, 1, &[0; 5])), WRONG_SIZE),
        case(
            "7",
            "RST_STREAM with an unknown code",
            then([frame(RST_STREAM, 0, 1, &[0, 0, 0, 0xff]), ping()].concat()),
            Pong,
        ),
    ]
}

fn settings() -> Vec<Case> {
    let set = |id: u16, value: u32| frame(SETTINGS, 0, 0, &setting(id, value));
    let well = |id: u16, value: u32| [set(id, value), ping()].concat();
    let overflow = Connection(&[FLOW_CONTROL_ERROR]);
    let mut cases = vec![
        case(
            "6.5",
            "SETTINGS acknowledged with something",
            frame(SETTINGS, ACK, 0, &setting(3, 1)),
            WRONG_SIZE,
        ),
        case("6.5", "SETTINGS acknowledged with a byte", frame(SETTINGS, ACK, 0, &[0]), WRONG_SIZE),
        case("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1, &setting(3, 100)), REFUSED),
        case("6.5", "SETTINGS of an odd length", frame(SETTINGS, 0, 0, &[0, 3, 0]), WRONG_SIZE),
        case("6.5.2", "ENABLE_PUSH 2", set(2, 2), REFUSED),
        case("6.5.2", "INITIAL_WINDOW_SIZE 2^31", set(4, 1 << 31), overflow),
        case("6.5.2", "INITIAL_WINDOW_SIZE 2^32 - 1", set(4, u32::MAX), overflow),
        case("6.5.2", "MAX_FRAME_SIZE 2^14 - 1", set(5, (1 << 14) - 1), REFUSED),
        case("6.5.2", "MAX_FRAME_SIZE 0", set(5, 0), REFUSED),
        case("6.5.2", "MAX_FRAME_SIZE 2^24", set(5, 1 << 24), REFUSED),
        case(
            "6.5.2",
            "a bad value behind good ones",
            frame(SETTINGS, 0, 0, &[setting(3, 9), setting(99, 9), setting(2, 9)].concat()),
            REFUSED,
        ),
        case("8441 3", "ENABLE_CONNECT_PROTOCOL 2", set(8, 2), REFUSED),
        steps(
            "6.5.3",
            "a value twice",
            vec![
                Step::Send(frame(SETTINGS, 0, 0, &[setting(4, 100), setting(4, 1)].concat())),
                Step::Await(Awaited::SettingsAck),
                Step::Send(get(1)),
            ],
            Data(1),
        ),
        steps(
            "6.5.3",
            "SETTINGS are acknowledged",
            vec![Step::Send(set(2, 0)), Step::Await(Awaited::SettingsAck), Step::Send(ping())],
            Pong,
        ),
    ];
    let good = [
        (1, 0),
        (1, 4_096),
        (2, 0),
        (2, 1),
        (3, 0),
        (3, 100),
        (4, (1 << 31) - 1),
        (5, 1 << 14),
        (5, (1 << 24) - 1),
        (6, 100),
        (8, 1),
        (0xffff, 7),
    ];
    cases.extend(good.map(|(id, value)| case("6.5.2", "a good value", well(id, value), Pong)));
    cases
}

fn pings() -> Vec<Case> {
    vec![
        case("6.7", "PING", ping(), Pong),
        case("6.7", "an answer to no PING", [frame(PING, ACK, 0, b"nobodyed"), ping()].concat(), Pong),
        case("6.7", "PING on a stream", frame(PING, 0, 1, &[0; 8]), REFUSED),
        case("6.7", "PING too short", frame(PING, 0, 0, &[0; 6]), WRONG_SIZE),
        case("6.7", "PING too long", frame(PING, 0, 0, &[0; 9]), WRONG_SIZE),
        case("6.7", "an answer too short", frame(PING, ACK, 0, &[0; 7]), WRONG_SIZE),
        case(
            "6.6",
            "PUSH_PROMISE",
            then(frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &block(&GET)].concat())),
            REFUSED,
        ),
        case("6.6", "PUSH_PROMISE on no stream", frame(PUSH_PROMISE, END_HEADERS, 0, &[0, 0, 0, 2]), REFUSED),
        case(
            "8.4",
            "PUSH_PROMISE on an idle stream",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &block(&GET)].concat()),
            REFUSED,
        ),
    ]
}

fn goaway() -> Vec<Case> {
    let with = |code: u32| [[0; 4], code.to_be_bytes()].concat();
    vec![
        case("6.8", "GOAWAY", frame(GOAWAY, 0, 0, &[&with(NO_ERROR)[..], b"bye"].concat()), End),
        case("6.8", "GOAWAY on a stream", frame(GOAWAY, 0, 1, &with(NO_ERROR)), REFUSED),
        case(
            "6.8",
            "GOAWAY after a request",
            [get(1), frame(GOAWAY, 0, 0, &with(NO_ERROR))].concat(),
            Status(1, 200),
        ),
        case("7", "GOAWAY with an unknown code", frame(GOAWAY, 0, 0, &with(0xff)), End),
    ]
}

const MAX: u32 = (1 << 31) - 1;

fn update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn window_update() -> Vec<Case> {
    vec![
        case("6.9", "WINDOW_UPDATE of the connection", [update(0, 1), ping()].concat(), Pong),
        case("6.9", "WINDOW_UPDATE of a stream", then([update(1, 1), ping()].concat()), Pong),
        case("6.9", "WINDOW_UPDATE by nothing", update(0, 0), REFUSED),
        case("6.9", "WINDOW_UPDATE of a stream by nothing", then(update(1, 0)), Stream(1, PROTOCOL_ERROR)),
        case("6.9", "WINDOW_UPDATE by a reserved bit", update(0, 1 << 31), REFUSED),
        case("6.9", "WINDOW_UPDATE too short", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), WRONG_SIZE),
        case(
            "6.9",
            "WINDOW_UPDATE of a stream too long",
            then(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1, 0])),
            WRONG_SIZE,
        ),
    ]
}

fn windows() -> Vec<Case> {
    let initial = |value: u32| frame(SETTINGS, 0, 0, &setting(4, value));
    let overflow = Connection(&[FLOW_CONTROL_ERROR]);
    vec![
        case("6.9.1", "a window of the connection beyond 2^31", update(0, MAX).repeat(2), overflow),
        case(
            "6.9.1",
            "a window of a stream beyond 2^31",
            then(update(1, MAX).repeat(2)),
            Stream(1, FLOW_CONTROL_ERROR),
        ),
        case("6.9.1", "a small window", [initial(1), get(1)].concat(), Data(1)),
        steps(
            "6.9.2",
            "a window that grows",
            vec![
                Step::Send(initial(0)),
                Step::Await(Awaited::SettingsAck),
                Step::Send([get(1), initial(1)].concat()),
            ],
            Data(1),
        ),
        steps(
            "6.9.2",
            "a window below nothing",
            vec![
                Step::Send(initial(3)),
                Step::Await(Awaited::SettingsAck),
                Step::Send(get(1)),
                Step::Await(Awaited::Data),
                Step::Send(initial(2)),
                Step::Await(Awaited::SettingsAck),
                Step::Send(update(1, 2)),
            ],
            Data(1),
        ),
        case("6.9.2", "an initial window beyond 2^31", initial(1 << 31), overflow),
        case(
            "6.9.2",
            "a window beyond 2^31 by SETTINGS",
            then([update(1, MAX - 65_535), initial(65_536)].concat()),
            overflow,
        ),
    ]
}

fn continuation() -> Vec<Case> {
    let begun = |bytes: &[u8]| frame(HEADERS, END_STREAM, 1, bytes);
    let more = |flags: u8| frame(CONTINUATION, flags, 1, &block(&[("x", "y")]));
    let whole = block(&GET);
    vec![
        case("6.10", "CONTINUATION", [begun(&whole), more(END_HEADERS)].concat(), Status(1, 200)),
        case(
            "6.10",
            "CONTINUATION twice",
            [begun(&whole), more(0), more(END_HEADERS)].concat(),
            Status(1, 200),
        ),
        case(
            "6.10",
            "HEADERS without anything, and CONTINUATION",
            [begun(&[]), frame(CONTINUATION, END_HEADERS, 1, &whole)].concat(),
            Status(1, 200),
        ),
        case(
            "6.10",
            "CONTINUATION, then DATA",
            [begun(&whole), more(0), frame(DATA, END_STREAM, 1, b"x")].concat(),
            REFUSED,
        ),
        case(
            "6.10",
            "CONTINUATION on no stream",
            [begun(&whole), frame(CONTINUATION, END_HEADERS, 0, &[])].concat(),
            REFUSED,
        ),
        case(
            "6.10",
            "CONTINUATION on another stream",
            [begun(&whole), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            REFUSED,
        ),
        case("6.10", "CONTINUATION after END_HEADERS", then(more(END_HEADERS)), REFUSED),
        case(
            "6.10",
            "CONTINUATION after CONTINUATION with END_HEADERS",
            [begun(&whole), more(END_HEADERS), more(END_HEADERS)].concat(),
            REFUSED,
        ),
        case(
            "6.10",
            "CONTINUATION after DATA",
            then([frame(DATA, 0, 1, b"x"), more(END_HEADERS)].concat()),
            REFUSED,
        ),
    ]
}
