//! Huffman's code of field strings (RFC 7541 §5.2, appendix B).
//!
//! Only read where the codec has failed already: bit by bit, so that it is short.

/// End of a string: never in one.
const END: u16 = 256;
const SYMBOLS: usize = 257;
const LONGEST: usize = 30;

/// Bits of each symbol's code. The codes follow from that: within one length they count up with the symbols, and each
/// length goes on where the one before has ended.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6,
    12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15,
    5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20,
    22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22,
    23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26,
    27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// What is written in `bytes`, if it can be read.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(bytes.len() * 8 / 5);
    let (mut code, mut length) = (0, 0);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |place| u32::from(byte >> place & 1))) {
        (code, length) = (code << 1 | bit, length + 1);
        if length > LONGEST {
            return None;
        }
        if let Some(symbol) = symbol_of(code, length) {
            if symbol == END {
                return None;
            }
            text.push(symbol as u8);
            (code, length) = (0, 0);
        }
    }
    // What is left is the beginning of the code for the end, and shorter than a byte.
    (length < 8 && code == (1 << length) - 1).then_some(text)
}

fn symbol_of(code: u32, length: usize) -> Option<u16> {
    let place = code.checked_sub(CODES.first[length])? as usize;
    let begin = CODES.begin[length];
    CODES.symbols[begin..CODES.begin[length + 1]].get(place).copied()
}

/// The codes by their lengths.
struct Codes {
    /// The first code of each length.
    first: [u32; LONGEST + 1],
    /// All symbols, by length and then by number, and where those of each length begin.
    symbols: [u16; SYMBOLS],
    begin: [usize; LONGEST + 2],
}

static CODES: Codes = {
    let mut codes = Codes { first: [0; LONGEST + 1], symbols: [0; SYMBOLS], begin: [0; LONGEST + 2] };
    let (mut length, mut place) = (0, 0);
    while length <= LONGEST {
        codes.begin[length] = place;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                codes.symbols[place] = symbol as u16;
                place += 1;
            }
            symbol += 1;
        }
        if length < LONGEST {
            let count = (place - codes.begin[length]) as u32;
            codes.first[length + 1] = (codes.first[length] + count) << 1;
        }
        length += 1;
    }
    codes.begin[LONGEST + 1] = place;
    codes
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_rfc_has_written() {
        let check = |bytes: &[u8], expected: Option<&str>| {
            let seen = decode(bytes);
            assert_eq!(seen.as_deref(), expected.map(str::as_bytes), "{bytes:02x?}");
        };
        check(&[], Some(""));
        // Appendix C.4 and C.6.
        check(
            &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
            Some("www.example.com"),
        );
        check(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], Some("no-cache"));
        check(&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], Some("custom-key"));
        check(&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], Some("custom-value"));
        check(&[0x64, 0x02], Some("302"));
        check(&[0xae, 0xc3, 0x77, 0x1a, 0x4b], Some("private"));
        check(
            &[
                0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81,
                0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
            ],
            Some("Mon, 21 Oct 2013 20:13:21 GMT"),
        );
        check(&[0xfc], Some("X"));
        // Padding of eight bits, of zeros, and the end within.
        check(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf, 0xff], None);
        check(&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x00], None);
        check(&[0xff, 0xff, 0xff, 0xff], None);
    }
}
