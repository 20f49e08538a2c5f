//! RFC 9113 §8: requests, their fields, and how long their bodies are.

use crate::play::Expected::{Status, Stream};
use crate::play::{Case, Expected, case};
use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, GET, HEADERS, POST, PROTOCOL_ERROR, WHOLE, block, frame, length, open,
};

const MALFORMED: Expected = Stream(1, PROTOCOL_ERROR);
const FINE: Expected = Status(1, 200);

pub fn cases() -> Vec<Case> {
    [requests(), trailers(), names(), pseudo_fields(), connection_fields(), lengths()]
        .into_iter()
        .flatten()
        .collect()
}

fn request(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &block(fields))
}

fn get_with(more: &[(&str, &str)]) -> Vec<u8> {
    request(&[&GET[..], more].concat())
}

/// A good GET in which one pseudo-field has another value.
fn get_where(name: &str, value: &str) -> Vec<u8> {
    request(&GET.map(|(known, old)| (known, if known == name { value } else { old })))
}

fn requests() -> Vec<Case> {
    let body = |more: &[(&str, &str)]| {
        let head = frame(HEADERS, END_HEADERS, 1, &block(&[&POST[..], more].concat()));
        [head, frame(DATA, END_STREAM, 1, b"test")].concat()
    };
    vec![
        case("8.1", "GET", get_with(&[]), FINE),
        case("8.1", "HEAD", get_where(":method", "HEAD"), FINE),
        case("8.1", "POST", body(&[]), FINE),
        case("8.1", "POST with a length", body(&[("content-length", "4")]), FINE),
    ]
}

fn trailers() -> Vec<Case> {
    let after_body = |flags: u8, block: &[u8]| {
        [open(1), frame(DATA, 0, 1, b"test"), frame(HEADERS, flags, 1, block)].concat()
    };
    let ended = |fields: &[(&str, &str)]| after_body(WHOLE, &block(fields));
    vec![
        case("8.1", "trailers", ended(&[("x-test", "ok")]), FINE),
        case(
            "8.1",
            "trailers without END_STREAM",
            after_body(END_HEADERS, &block(&[("x-test", "ok")])),
            MALFORMED,
        ),
        case("8.1", "a pseudo-field in trailers", ended(&[(":method", "POST")]), MALFORMED),
        case(
            "8.1",
            "a pseudo-field behind a field in trailers",
            ended(&[("x", "y"), (":path", "/")]),
            MALFORMED,
        ),
        case("8.1", "a pseudo-field in trailers by its index", after_body(WHOLE, &[0x82]), MALFORMED),
        case(
            "8.1",
            "a pseudo-field in trailers named by an index",
            after_body(WHOLE, &[0x04, 1, b'/']),
            MALFORMED,
        ),
        case(
            "8.1",
            "a pseudo-field in trailers in Huffman's code",
            after_body(WHOLE, &[0x00, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 1, b'/']),
            MALFORMED,
        ),
        case(
            "8.1",
            "a pseudo-field in trailers without END_STREAM",
            after_body(END_HEADERS, &block(&[(":method", "POST")])),
            MALFORMED,
        ),
        case("8.2.1", "upper case in trailers", ended(&[("X-Test", "ok")]), MALFORMED),
        case("8.2.2", "connection in trailers", ended(&[("connection", "close")]), MALFORMED),
    ]
}

fn names() -> Vec<Case> {
    let literal = |name: &[u8], value: &[u8]| {
        let mut bytes = block(&GET);
        bytes.push(0);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend(text);
        }
        frame(HEADERS, WHOLE, 1, &bytes)
    };
    vec![
        case("8.2.1", "upper case", get_with(&[("X-TEST", "ok")]), MALFORMED),
        case(
            "8.2.1",
            "upper case in Huffman's code",
            frame(HEADERS, WHOLE, 1, &[block(&GET), vec![0, 0x81, 0xfc, 1, b'x']].concat()),
            MALFORMED,
        ),
        case("8.2.1", "a name without a letter", literal(b"", b"x"), MALFORMED),
        case("8.2.1", "a space in a name", literal(b"x y", b"x"), MALFORMED),
        case("8.2.1", "a colon in a name", literal(b"x:y", b"x"), MALFORMED),
        case("8.2.1", "a byte that is no text in a name", literal(b"x\xff", b"x"), MALFORMED),
        case("8.2.1", "NUL in a value", literal(b"x", b"a\0b"), MALFORMED),
        case("8.2.1", "CR in a value", literal(b"x", b"a\rb"), MALFORMED),
        case("8.2.1", "LF in a value", literal(b"x", b"a\nb"), MALFORMED),
        case("8.2.1", "a value of bytes", literal(b"x", b"\xc3\xa4\tx"), FINE),
        case("8.2.1", "a tab at the end of a value", literal(b"x", b"a\t"), MALFORMED),
        case("8.2.1", "a space before a value", literal(b"x", b" a"), MALFORMED),
    ]
}

fn pseudo_fields() -> Vec<Case> {
    let without = |name: &str| {
        let rest: Vec<_> = GET.into_iter().filter(|(known, _)| *known != name).collect();
        request(&rest)
    };
    vec![
        case("8.3", "an unknown pseudo-field", get_with(&[(":test", "ok")]), MALFORMED),
        case("8.3", "a pseudo-field of responses", get_with(&[(":status", "200")]), MALFORMED),
        case(
            "8.3",
            "a pseudo-field behind a field",
            request(&[&[("x-test", "ok")], &GET[..]].concat()),
            MALFORMED,
        ),
        case(
            "8.3",
            "the last pseudo-field behind a field",
            request(&[&GET[..3], &[("x", "y"), GET[3]]].concat()),
            MALFORMED,
        ),
        case("8.3.1", "an empty path", get_where(":path", ""), MALFORMED),
        case("8.3.1", "no method", without(":method"), MALFORMED),
        case("8.3.1", "no scheme", without(":scheme"), MALFORMED),
        case("8.3.1", "no path", without(":path"), MALFORMED),
        case("8.3.1", "no authority, but a host", request(&[&GET[..3], &[("host", "a")]].concat()), FINE),
        case("8.3.1", "two methods", get_with(&[(":method", "GET")]), MALFORMED),
        case("8.3.1", "two schemes", get_with(&[(":scheme", "http")]), MALFORMED),
        case("8.3.1", "two paths", get_with(&[(":path", "/")]), MALFORMED),
        case("8.3.1", "two authorities", get_with(&[(":authority", "a")]), MALFORMED),
        case("8.3.1", "a method that is none", get_where(":method", "G T"), MALFORMED),
        case("8.3.1", "nothing", frame(HEADERS, WHOLE, 1, &[]), MALFORMED),
    ]
}

fn connection_fields() -> Vec<Case> {
    let mut cases = vec![
        case("8.2.2", "te: trailers, deflate", get_with(&[("te", "trailers, deflate")]), MALFORMED),
        case("8.2.2", "te: gzip", get_with(&[("te", "gzip")]), MALFORMED),
        case("8.2.2", "te: trailers", get_with(&[("te", "trailers")]), FINE),
    ];
    let forbidden = [
        ("connection", "keep-alive"),
        ("proxy-connection", "keep-alive"),
        ("keep-alive", "max=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "foo/2"),
    ];
    cases.extend(forbidden.map(|(name, value)| case("8.2.2", name, get_with(&[(name, value)]), MALFORMED)));
    cases
}

fn lengths() -> Vec<Case> {
    let head = |value: &str| {
        frame(HEADERS, END_HEADERS, 1, &block(&[&POST[..], &[("content-length", value)]].concat()))
    };
    let with = |value: &str, rest: Vec<u8>| [head(value), rest].concat();
    let whole = |bytes: &[u8]| frame(DATA, END_STREAM, 1, bytes);
    let parts = || [frame(DATA, 0, 1, b"test"), whole(b"test")].concat();
    vec![
        case("8.1.1", "a length too small", with("1", whole(b"test")), MALFORMED),
        case("8.1.1", "a length too large", with("5", whole(b"test")), MALFORMED),
        case("8.1.1", "a length too small for two parts", with("1", parts()), MALFORMED),
        case("8.1.1", "a length too large for two parts", with("9", parts()), MALFORMED),
        case("8.1.1", "a length of two parts", with("8", parts()), FINE),
        case(
            "8.1.1",
            "a length too large before trailers",
            with("5", [frame(DATA, 0, 1, b"test"), frame(HEADERS, WHOLE, 1, &block(&[("x", "y")]))].concat()),
            MALFORMED,
        ),
        case("8.1.1", "a length and no body", get_with(&[("content-length", "4")]), MALFORMED),
        case("8.1.1", "a length that is no number", with("four", whole(b"test")), MALFORMED),
        case(
            "8.1.1",
            "two lengths",
            [
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &block(&[&POST[..], &[("content-length", "4"), ("content-length", "5")]].concat()),
                ),
                whole(b"test"),
            ]
            .concat(),
            MALFORMED,
        ),
    ]
}
