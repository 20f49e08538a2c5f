//! RFC 7541: how fields are compressed, and what cannot be read. The strings in Huffman's code are of its appendix C.

use crate::play::Expected::{Connection, Status};
use crate::play::{Case, case};
use crate::support::frames::{
    COMPRESSION_ERROR, CONTINUATION, END_HEADERS, END_STREAM, GET, HEADERS, WHOLE, block, frame, get,
};

/// `custom-key`.
const NAME: [u8; 9] = [0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f];
/// `custom-value`.
const VALUE: [u8; 10] = [0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf];

pub fn cases() -> Vec<Case> {
    [readable(), unreadable()].into_iter().flatten().collect()
}

/// A good request with these bytes at the end of its block.
fn with(rest: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &[&block(&GET), rest].concat())
}

/// The same, with them at the beginning.
fn after(first: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &[first, &block(&GET)].concat())
}

fn literal(first: u8, rest: &[&[u8]]) -> Vec<u8> {
    [&[first], rest.concat().as_slice()].concat()
}

const PLAIN_NAME: &[u8] = b"\x06x-test";
const PLAIN_VALUE: &[u8] = b"\x02ok";

fn readable() -> Vec<Case> {
    let fine = Status(1, 200);
    let mut cases = vec![
        case("H2.3.3", "an entry of the static table", with(&[0xba]), fine),
        case(
            "H2.3.3",
            "an entry of the dynamic table",
            with(&[literal(0x40, &[PLAIN_NAME, PLAIN_VALUE]), vec![0xbe]].concat()),
            fine,
        ),
        case(
            "H2.3.3",
            "a request by indexes",
            frame(HEADERS, WHOLE, 1, &[0x82, 0x86, 0x84, 0x41, 1, b'a']),
            fine,
        ),
        case("H4.2", "two changes of size", after(&[0x20, 0x3f, 0xe1, 0x1f]), fine),
        case("H6.3", "a change of size to 0", after(&[0x20]), fine),
        case("H6.3", "a change of size to the most", after(&[0x3f, 0xe1, 0x1f]), fine),
        case(
            "H2.2",
            "an entry that a request before made",
            {
                let first = frame(
                    HEADERS,
                    WHOLE,
                    1,
                    &[block(&GET), literal(0x40, &[PLAIN_NAME, PLAIN_VALUE])].concat(),
                );
                let second = frame(HEADERS, WHOLE, 3, &[block(&GET), vec![0xbe]].concat());
                [first, second].concat()
            },
            Status(3, 200),
        ),
    ];
    for first in [0x40, 0x00, 0x10] {
        for name in [PLAIN_NAME, &NAME[..]] {
            for value in [PLAIN_VALUE, &VALUE[..]] {
                cases.push(case(
                    "H6.2",
                    "a literal with a new name",
                    with(&literal(first, &[name, value])),
                    fine,
                ));
            }
        }
    }
    // `user-agent` is number 58: within the prefix of the first kind, beyond that of the others.
    for first in [&[0x7a][..], &[0x0f, 0x2b], &[0x1f, 0x2b]] {
        for value in [PLAIN_VALUE, &VALUE[..]] {
            cases.push(case("H6.2", "a literal with an indexed name", with(&[first, value].concat()), fine));
        }
    }
    cases
}

fn unreadable() -> Vec<Case> {
    let unreadable = Connection(&[COMPRESSION_ERROR]);
    let value = |bytes: &[u8]| with(&literal(0, &[PLAIN_NAME, &[0x80 | bytes.len() as u8], bytes]));
    vec![
        case("4.3", "a field without its name", with(&[0x40]), unreadable),
        case(
            "4.3",
            "a block that is only the beginning of a field",
            frame(HEADERS, WHOLE, 1, &[0x40]),
            unreadable,
        ),
        case("H2.3.3", "an index beyond both tables", with(&[0xff, 0x70]), unreadable),
        case("H2.3.3", "the first index beyond both tables", with(&[0xbe]), unreadable),
        case("H2.3.3", "a name beyond both tables", with(&[0x7e, 2, b'o', b'k']), unreadable),
        case("H2.3.3", "a name far beyond both tables", with(&[0x0f, 0xff, 0x07, 2, b'o', b'k']), unreadable),
        case("H4.2", "a change of size at the end", with(&[0x21]), unreadable),
        case("H4.2", "a change of size in the middle", with(&[0x21, 0x82]), unreadable),
        case(
            "H4.3",
            "an entry that was evicted",
            {
                let first = frame(
                    HEADERS,
                    WHOLE,
                    1,
                    &[block(&GET), literal(0x40, &[PLAIN_NAME, PLAIN_VALUE])].concat(),
                );
                let second = frame(HEADERS, WHOLE, 3, &[vec![0x20], block(&GET), vec![0xbe]].concat());
                [first, second].concat()
            },
            unreadable,
        ),
        case(
            "H5.1",
            "an integer without an end",
            with(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]),
            unreadable,
        ),
        case("H5.1", "an integer that is cut off", with(&[0xff, 0x80]), unreadable),
        case("H5.2", "a string that is cut off", with(b"\x00\x06x-test\x05ok"), unreadable),
        case("H5.2", "a name that is cut off", with(b"\x00\x09x-test"), unreadable),
        case(
            "H5.2",
            "padding of more than 7 bits",
            value(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf, 0xff]),
            unreadable,
        ),
        case(
            "H5.2",
            "padding of zeros",
            value(&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x00]),
            unreadable,
        ),
        case("H5.2", "the end of strings within one", value(&[0xff, 0xff, 0xff, 0xff]), unreadable),
        case("H6.1", "index 0", with(&[0x80]), unreadable),
        case("H6.3", "a size above the most", after(&[0x3f, 0xe2, 0x1f]), unreadable),
        case("H6.3", "a size far above the most", after(&[0x3f, 0xe1, 0xff, 0x03]), unreadable),
        case(
            "4.3",
            "the second of two requests",
            [get(1), frame(HEADERS, WHOLE, 3, &[0x80])].concat(),
            unreadable,
        ),
        case(
            "4.3",
            "a block in two fragments",
            [frame(HEADERS, END_STREAM, 1, &block(&GET)), frame(CONTINUATION, END_HEADERS, 1, &[0x80])]
                .concat(),
            unreadable,
        ),
    ]
}
