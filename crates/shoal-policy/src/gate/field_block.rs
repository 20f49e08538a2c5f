//! Field blocks as they are written (RFC 7541 §6), without the table that their reader keeps.

use http::{HeaderName, HeaderValue, Method};

use super::huffman;

/// Largest table: we announce no other (RFC 9113 §6.5.2).
const MAX_TABLE: u32 = 4_096;
/// Entries of the static table; what is beyond it is for the reader's own one to know.
const STATIC: u32 = 61;
/// The pseudo-fields among them.
const STATIC_PSEUDO: u32 = 14;
/// Most bytes of an integer: the codec reads no longer one.
const MAX_INTEGER: u32 = 5;

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// It cannot be decompressed.
    Unreadable,
    /// It can be, and has a field that no message may have.
    Malformed,
    /// Nothing that is seen here, but it names entries of the reader's table, which may not be there.
    Unknown,
}

/// Looks for the first flaw of `block`.
pub(super) fn flaw(block: &[u8]) -> Flaw {
    let mut rest = Rest(block);
    let mut may_resize = true;
    let mut names_entries = false;
    while !rest.0.is_empty() {
        let Some(piece) = rest.piece() else { return Flaw::Unreadable };
        match piece {
            Piece::Resize(size) if may_resize && size <= MAX_TABLE => continue,
            Piece::Resize(_) | Piece::Entry(0) => return Flaw::Unreadable,
            Piece::Entry(place) => names_entries |= place > STATIC,
            Piece::Literal(name, value) => {
                let Some(value) = value.decode() else { return Flaw::Unreadable };
                let is_good = match name {
                    Name::Entry(place) => {
                        names_entries |= place > STATIC;
                        may_have(place, &value)
                    }
                    Name::New(text) => match text.decode() {
                        Some(name) => is_field(&name, &value),
                        None => return Flaw::Unreadable,
                    },
                };
                if !is_good {
                    return Flaw::Malformed;
                }
            }
        }
        may_resize = false;
    }
    if names_entries { Flaw::Unknown } else { Flaw::None }
}

/// Whether `block` has a pseudo-field, unless only the reader's table says so.
pub(super) fn has_pseudo_field(block: &[u8]) -> bool {
    let mut rest = Rest(block);
    while let Some(piece) = rest.piece() {
        let is_pseudo = match piece {
            Piece::Resize(_) => false,
            Piece::Entry(place) | Piece::Literal(Name::Entry(place), _) => {
                (1..=STATIC_PSEUDO).contains(&place)
            }
            Piece::Literal(Name::New(name), _) => name.begins_with_colon(),
        };
        if is_pseudo {
            return true;
        }
    }
    false
}

/// Whether the field whose name is at `place` may have this value.
fn may_have(place: u32, value: &[u8]) -> bool {
    match place {
        2 | 3 => Method::from_bytes(value).is_ok(),
        8..=STATIC_PSEUDO => is_status(value),
        1 | 4..=7 => std::str::from_utf8(value).is_ok(),
        _ => HeaderValue::from_bytes(value).is_ok(),
    }
}

/// Whether that is a field, or a pseudo-field that there is.
fn is_field(name: &[u8], value: &[u8]) -> bool {
    match name {
        b":method" => Method::from_bytes(value).is_ok(),
        b":status" => is_status(value),
        b":authority" | b":path" | b":protocol" | b":scheme" => std::str::from_utf8(value).is_ok(),
        _ => HeaderName::from_lowercase(name).is_ok() && HeaderValue::from_bytes(value).is_ok(),
    }
}

fn is_status(value: &[u8]) -> bool {
    http::StatusCode::from_bytes(value).is_ok()
}

/// What a block is made of.
enum Piece<'a> {
    Entry(u32),
    Literal(Name<'a>, Text<'a>),
    Resize(u32),
}

enum Name<'a> {
    Entry(u32),
    New(Text<'a>),
}

/// A string, perhaps in Huffman's code.
struct Text<'a> {
    bytes: &'a [u8],
    is_coded: bool,
}

impl Text<'_> {
    fn decode(&self) -> Option<Vec<u8>> {
        if self.is_coded { huffman::decode(self.bytes) } else { Some(self.bytes.to_vec()) }
    }

    fn begins_with_colon(&self) -> bool {
        // In Huffman's code the first seven bits of the name.
        match self.bytes.first() {
            Some(first) if self.is_coded => first >> 1 == 0x5c,
            first => first == Some(&b':'),
        }
    }
}

/// What is left of a block.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// The next piece; `None` = there is none, or it is cut off.
    fn piece(&mut self) -> Option<Piece<'a>> {
        let first = *self.0.first()?;
        if first & 0x80 != 0 {
            return self.integer(7).map(Piece::Entry);
        }
        if first & 0xe0 == 0x20 {
            return self.integer(5).map(Piece::Resize);
        }
        let prefix = if first & 0x40 != 0 { 6 } else { 4 };
        let name = match self.integer(prefix)? {
            0 => Name::New(self.text()?),
            place => Name::Entry(place),
        };
        Some(Piece::Literal(name, self.text()?))
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// An integer whose first byte has it in the low `prefix` bits (RFC 7541 §5.1).
    fn integer(&mut self, prefix: u32) -> Option<u32> {
        let most = (1 << prefix) - 1;
        let mut value = u32::from(self.byte()?) & most;
        if value < most {
            return Some(value);
        }
        for place in 0..MAX_INTEGER - 1 {
            let byte = self.byte()?;
            value += u32::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn text(&mut self) -> Option<Text<'a>> {
        let is_coded = *self.0.first()? & 0x80 != 0;
        let length = self.integer(7)? as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Text { bytes, is_coded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flaws_are_told_apart() {
        let check = |block: &[u8], expected: Flaw| assert_eq!(flaw(block), expected, "{block:02x?}");
        check(&[], Flaw::None);
        check(&[0x82, 0x86, 0x84, 0x41, 1, b'a'], Flaw::None);
        check(&[0x20, 0x3f, 0xe1, 0x1f, 0x82], Flaw::None);
        check(b"\x00\x01x\x01y", Flaw::None);
        check(b"\x0f\x2b\x01y", Flaw::None);
        check(&[0xbe], Flaw::Unknown);
        check(&[0x82, 0x7e, 1, b'y'], Flaw::Unknown);
        check(&[0x80], Flaw::Unreadable);
        check(&[0x40], Flaw::Unreadable);
        check(&[0xff, 0x80], Flaw::Unreadable);
        check(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x01], Flaw::Unreadable);
        check(b"\x00\x02x", Flaw::Unreadable);
        check(b"\x00\x01x\x02y", Flaw::Unreadable);
        check(b"\x00\x01x\x84\xff\xff\xff\xff", Flaw::Unreadable);
        check(&[0x82, 0x20], Flaw::Unreadable);
        check(&[0x3f, 0xe2, 0x1f], Flaw::Unreadable);
        check(b"\x00\x01X\x01y", Flaw::Malformed);
        check(b"\x00\x81\xfc\x01y", Flaw::Malformed);
        check(b"\x00\x00\x01y", Flaw::Malformed);
        check(b"\x00\x02:x\x01y", Flaw::Malformed);
        check(b"\x00\x01x\x01\n", Flaw::Malformed);
        check(b"\x02\x01 ", Flaw::Malformed);
        check(b"\xbe\x00\x01X\x01y", Flaw::Malformed);
        check(b"\x00\x07:method\x03GET", Flaw::None);
    }

    #[test]
    fn pseudo_fields_are_seen() {
        let check =
            |block: &[u8], expected: bool| assert_eq!(has_pseudo_field(block), expected, "{block:02x?}");
        check(&[], false);
        check(b"\x00\x01x\x01y", false);
        check(b"\x20\x00\x01x\x01y\x90", false);
        check(&[0x82], true);
        check(&[0x8e], true);
        check(&[0x8f], false);
        check(b"\x04\x01/", true);
        check(b"\x44\x01/", true);
        check(b"\x00\x01x\x01y\x00\x05:path\x01/", true);
        check(&[0x00, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 1, b'/'], true);
        check(&[0xbe], false);
    }
}
