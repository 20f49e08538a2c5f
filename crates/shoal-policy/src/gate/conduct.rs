//! What a downstream may send on HTTP/2, frame by frame (RFC 9113 §3.4, §4 to §6).
//!
//! The codec knows most of these rules, too, but answers several with another code than the RFC asks for, or not at all. It
//! never gets to see a frame that is refused here. Fields are not decompressed: what cannot be read is left to the codec, and
//! only named ([`Conduct::name_of_unreadable`]).

use super::ErrorCode;
use super::field_block::{self, Flaw};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

/// Largest payload: we announce no other (RFC 9113 §6.5.2).
const MAX_FRAME: u32 = 1 << 14;
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Streams with a body under way that are remembered; what is older than that is left to the codec.
const MAX_OPEN: usize = 1_024;
/// Bytes of field blocks that are kept until the codec has read them.
const MAX_KEPT: usize = 16 << 10;
/// What a quiet connection may keep of that room.
const MAX_SPARE: usize = 1 << 10;

/// The head of a frame, without its reserved bit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// One connection, as far as its downstream is answerable for it.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    /// SETTINGS have come.
    greeted: bool,
    /// Highest stream that was opened, and the highest below it that was left out.
    last: u32,
    skipped: u32,
    /// Streams that the downstream has opened and not ended, and the highest that is not remembered.
    open: Vec<u32>,
    forgotten: u32,
    /// The stream whose field block goes on in the next frame, and whether it holds trailers.
    block: Option<(u32, bool)>,
    head: Head,
    /// First bytes of the payload, or of a setting, that say something.
    first: [u8; 6],
    have: u8,
    /// Bytes of the payload so far.
    seen: u32,
    /// Bytes of padding at the end of the payload.
    padding: u32,
    blocks: Blocks,
}

/// Field blocks that the codec may not have read yet.
#[derive(Debug, Default)]
struct Blocks {
    bytes: Vec<u8>,
    /// Where each block that is whole ends.
    ends: Vec<u32>,
    /// There was more than is kept.
    is_cut: bool,
}

/// What a stream is to the downstream.
#[derive(PartialEq, Eq)]
enum Side {
    Idle,
    Open,
    Ended,
    /// Nobody knows any more.
    Forgotten,
}

impl Conduct {
    /// Highest stream that was opened.
    pub(super) fn last_stream(&self) -> u32 {
        self.last
    }

    /// The codec has read everything that it got: its field blocks were good.
    pub(super) fn forget_blocks(&mut self) {
        let blocks = &mut self.blocks;
        // What is left is the beginning of a block that goes on.
        let read = blocks.ends.last().map_or(0, |end| *end as usize);
        blocks.bytes.drain(..read);
        blocks.ends.clear();
        if blocks.bytes.is_empty() {
            blocks.is_cut = false;
            if blocks.bytes.capacity() > MAX_SPARE {
                blocks.bytes = Vec::new();
            }
        }
    }

    /// The codec could not read a field block. It says no more than that; this tells a field that may not be there from one
    /// that cannot be decompressed. The table of the codec is not known here: an entry that was asked for in vain is what
    /// is left when nothing else is wrong.
    pub(super) fn name_of_unreadable(&self) -> ErrorCode {
        let mut begin = 0;
        let mut suspect = self.blocks.is_cut;
        for end in &self.blocks.ends {
            let end = *end as usize;
            match field_block::flaw(&self.blocks.bytes[begin..end]) {
                Flaw::Unreadable => return ErrorCode::Compression,
                Flaw::Malformed => return ErrorCode::Protocol,
                Flaw::Unknown => suspect = true,
                Flaw::None => {}
            }
            begin = end;
        }
        if suspect { ErrorCode::Compression } else { ErrorCode::Protocol }
    }

    /// A frame begins.
    pub(super) fn begin(&mut self, head: Head) -> Result<(), ErrorCode> {
        (self.head, self.have, self.seen, self.padding) = (head, 0, 0, 0);
        if head.length > MAX_FRAME {
            return Err(ErrorCode::FrameSize);
        }
        if let Some((stream, _)) = self.block
            && (head.kind, head.stream) != (CONTINUATION, stream)
        {
            return Err(ErrorCode::Protocol);
        }
        if !self.greeted && (head.kind != SETTINGS || head.has(ACK)) {
            return Err(ErrorCode::Protocol);
        }
        match head.kind {
            DATA => self.begin_data(),
            HEADERS => self.begin_headers(),
            PRIORITY if head.stream == 0 => Err(ErrorCode::Protocol),
            PRIORITY => size(head.length == 5),
            RST_STREAM if head.stream == 0 || self.side(head.stream) == Side::Idle => {
                Err(ErrorCode::Protocol)
            }
            RST_STREAM => {
                self.end(head.stream);
                size(head.length == 4)
            }
            // A client pushes nothing.
            PUSH_PROMISE => Err(ErrorCode::Protocol),
            SETTINGS | PING | GOAWAY if head.stream != 0 => Err(ErrorCode::Protocol),
            SETTINGS => {
                self.greeted = true;
                size(head.length.is_multiple_of(6) && (head.length == 0 || !head.has(ACK)))
            }
            PING => size(head.length == 8),
            GOAWAY => size(head.length >= 8),
            WINDOW_UPDATE if head.stream != 0 && self.side(head.stream) == Side::Idle => {
                Err(ErrorCode::Protocol)
            }
            WINDOW_UPDATE => size(head.length == 4),
            CONTINUATION if self.block.is_none() => Err(ErrorCode::Protocol),
            CONTINUATION if head.length == 0 => self.end_fragment(),
            _ => Ok(()),
        }
    }

    fn begin_data(&mut self) -> Result<(), ErrorCode> {
        let head = self.head;
        if head.stream == 0 {
            return Err(ErrorCode::Protocol);
        }
        match self.side(head.stream) {
            Side::Idle => return Err(ErrorCode::Protocol),
            Side::Ended => return Err(ErrorCode::StreamClosed),
            Side::Open | Side::Forgotten => {}
        }
        if head.has(END_STREAM) {
            self.end(head.stream);
        }
        size(head.length > 0 || !head.has(PADDED))
    }

    fn begin_headers(&mut self) -> Result<(), ErrorCode> {
        let head = self.head;
        if head.stream.is_multiple_of(2) {
            return Err(ErrorCode::Protocol);
        }
        let side = self.side(head.stream);
        match side {
            Side::Idle => self.open(head.stream),
            Side::Open | Side::Forgotten => {}
            Side::Ended if head.stream <= self.skipped => return Err(ErrorCode::Protocol),
            Side::Ended => return Err(ErrorCode::StreamClosed),
        }
        if head.has(END_STREAM) && side != Side::Idle {
            self.end(head.stream);
        }
        self.block = Some((head.stream, side == Side::Open));
        size(head.length >= self.prefix() && (head.length > 0 || !head.has(PADDED)))?;
        if head.length == 0 { self.end_fragment() } else { Ok(()) }
    }

    /// Bytes of the payload before a field block, or before data.
    fn prefix(&self) -> u32 {
        let padding = u32::from(self.head.has(PADDED) && self.head.kind != CONTINUATION);
        let priority = if self.head.kind == HEADERS && self.head.has(WITH_PRIORITY) { 5 } else { 0 };
        padding + priority
    }

    /// More of the payload.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), ErrorCode> {
        match self.head.kind {
            DATA if self.head.has(PADDED) => self.take_prefix(bytes).map(|_| ()),
            HEADERS => {
                let rest = self.take_prefix(bytes)?;
                self.take_fields(rest)
            }
            CONTINUATION => {
                self.seen += bytes.len() as u32;
                self.take_fields(bytes)
            }
            SETTINGS => self.take_settings(bytes),
            WINDOW_UPDATE => self.take_increment(bytes),
            _ => Ok(()),
        }
    }

    /// Reads what comes before the block; answers the rest of `bytes`.
    fn take_prefix<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], ErrorCode> {
        let prefix = self.prefix();
        let missing = (prefix.saturating_sub(self.seen) as usize).min(bytes.len());
        self.seen += bytes.len() as u32;
        if missing == 0 {
            return Ok(bytes);
        }
        let have = usize::from(self.have);
        self.first[have..have + missing].copy_from_slice(&bytes[..missing]);
        self.have += missing as u8;
        if u32::from(self.have) == prefix {
            let is_padded = self.head.has(PADDED);
            self.padding = if is_padded { self.first[0].into() } else { 0 };
            if prefix + self.padding > self.head.length {
                return Err(ErrorCode::Protocol);
            }
            let dependency = &self.first[usize::from(is_padded)..];
            if prefix >= 5 && number(dependency) & MAX_WINDOW == self.head.stream {
                // RFC 7540 §5.3.1. The codec would not read its block, and misunderstand those that follow.
                return Err(ErrorCode::Protocol);
            }
        }
        Ok(&bytes[missing..])
    }

    /// Keeps a part of a field block, without padding.
    fn take_fields(&mut self, bytes: &[u8]) -> Result<(), ErrorCode> {
        let left = self.head.length - self.seen;
        let fields = bytes.len().saturating_sub(self.padding.saturating_sub(left) as usize);
        let blocks = &mut self.blocks;
        // Nothing is kept behind a gap: the two sides of one are no block.
        let room = if blocks.is_cut { 0 } else { MAX_KEPT - blocks.bytes.len() };
        blocks.bytes.extend_from_slice(&bytes[..fields.min(room)]);
        blocks.is_cut |= fields > room;
        if left == 0 { self.end_fragment() } else { Ok(()) }
    }

    fn end_fragment(&mut self) -> Result<(), ErrorCode> {
        if !self.head.has(END_HEADERS) {
            return Ok(());
        }
        let blocks = &mut self.blocks;
        let begin = blocks.ends.last().map_or(0, |end| *end as usize);
        if let Some((_, true)) = self.block.take()
            // The codec drops them without a word.
            && field_block::has_pseudo_field(&blocks.bytes[begin..])
        {
            return Err(ErrorCode::Protocol);
        }
        blocks.ends.push(blocks.bytes.len() as u32);
        Ok(())
    }

    fn take_settings(&mut self, bytes: &[u8]) -> Result<(), ErrorCode> {
        for byte in bytes {
            self.first[usize::from(self.have)] = *byte;
            self.have += 1;
            if self.have == 6 {
                self.have = 0;
                check_setting(u16::from_be_bytes([self.first[0], self.first[1]]), number(&self.first[2..]))?;
            }
        }
        Ok(())
    }

    fn take_increment(&mut self, bytes: &[u8]) -> Result<(), ErrorCode> {
        for byte in bytes {
            self.first[usize::from(self.have)] = *byte;
            self.have += 1;
        }
        let is_nothing = self.have == 4 && number(&self.first) & MAX_WINDOW == 0;
        if is_nothing { Err(ErrorCode::Protocol) } else { Ok(()) }
    }

    fn side(&self, stream: u32) -> Side {
        match () {
            () if stream.is_multiple_of(2) || stream > self.last => Side::Idle,
            () if self.open.contains(&stream) => Side::Open,
            () if stream <= self.forgotten => Side::Forgotten,
            () => Side::Ended,
        }
    }

    fn open(&mut self, stream: u32) {
        let next = if self.last == 0 { 1 } else { self.last + 2 };
        if stream > next {
            self.skipped = stream - 2;
        }
        self.last = stream;
        if self.head.has(END_STREAM) {
            return;
        }
        if self.open.len() >= MAX_OPEN {
            self.forgotten = self.open.remove(0);
        }
        self.open.push(stream);
    }

    fn end(&mut self, stream: u32) {
        if let Some(place) = self.open.iter().position(|open| *open == stream) {
            // In order, as the oldest are forgotten first.
            self.open.remove(place);
        }
    }
}

fn size(is_right: bool) -> Result<(), ErrorCode> {
    if is_right { Ok(()) } else { Err(ErrorCode::FrameSize) }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// RFC 9113 §6.5.2, and RFC 8441 §3.
fn check_setting(id: u16, value: u32) -> Result<(), ErrorCode> {
    match id {
        2 | 8 if value > 1 => Err(ErrorCode::Protocol),
        4 if value > MAX_WINDOW => Err(ErrorCode::FlowControl),
        5 if !(MAX_FRAME..1 << 24).contains(&value) => Err(ErrorCode::Protocol),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Frame<'a> = (u8, u8, u32, &'a [u8]);

    const FIELDS: &[u8] = &[0x83, 0x86, 0x84];
    const OPEN: Frame<'_> = (HEADERS, END_HEADERS, 1, FIELDS);
    const GET: Frame<'_> = (HEADERS, END_HEADERS | END_STREAM, 1, FIELDS);

    /// What comes of `frames`, their payloads in pieces of `piece` bytes, after SETTINGS.
    fn feed(frames: &[Frame<'_>], piece: usize) -> (Conduct, Result<(), ErrorCode>) {
        let mut conduct = Conduct::default();
        let mut fed = Ok(());
        for (kind, flags, stream, payload) in [&[(SETTINGS, 0, 0, &[][..])], frames].concat() {
            let head = Head { length: payload.len() as u32, kind, flags, stream };
            fed = fed.and_then(|()| conduct.begin(head));
            fed = fed.and_then(|()| payload.chunks(piece).try_for_each(|piece| conduct.take(piece)));
        }
        (conduct, fed)
    }

    fn check(frames: &[Frame<'_>], expected: Result<(), ErrorCode>) {
        for piece in [1, 3, 1_000] {
            assert_eq!(feed(frames, piece).1, expected, "{frames:02x?} by {piece}");
        }
    }

    #[test]
    fn streams_have_states() {
        let closed = Err(ErrorCode::StreamClosed);
        let wrong = Err(ErrorCode::Protocol);
        let data: Frame<'_> = (DATA, 0, 1, b"x");
        let last: Frame<'_> = (DATA, END_STREAM, 1, b"x");
        let reset: Frame<'_> = (RST_STREAM, 0, 1, &[0; 4]);
        let trailers: Frame<'_> = (HEADERS, END_HEADERS | END_STREAM, 1, b"\x00\x01x\x01y");
        check(&[OPEN, data, data, last], Ok(()));
        check(&[OPEN, data, trailers], Ok(()));
        check(&[data], wrong);
        check(&[reset], wrong);
        check(&[GET, data], closed);
        check(&[GET, GET], closed);
        check(&[OPEN, last, data], closed);
        check(&[OPEN, trailers, trailers], closed);
        check(&[OPEN, reset, data], closed);
        check(&[OPEN, reset, reset, (WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])], Ok(()));
        let on = |stream| (HEADERS, END_HEADERS | END_STREAM, stream, FIELDS);
        check(&[on(1), on(3), on(9), on(11)], Ok(()));
        check(&[on(5), on(3)], wrong);
        check(&[on(1), on(7), on(1)], wrong);
        check(&[on(3), on(5), on(7), on(5)], closed);
        check(&[on(2)], wrong);
    }

    #[test]
    fn only_so_many_streams_are_remembered() {
        let opened: Vec<_> =
            (0..=MAX_OPEN as u32).map(|n| (HEADERS, END_HEADERS, 2 * n + 1, FIELDS)).collect();
        let (mut conduct, fed) = feed(&opened, 9);
        assert_eq!((fed, conduct.open.len()), (Ok(()), MAX_OPEN));
        let mut data = |stream| conduct.begin(Head { length: 0, kind: DATA, flags: END_STREAM, stream });
        // Nobody knows of the first one; the others are known to have ended only when they have.
        let seen = [data(1), data(1), data(3), data(5), data(5)];
        assert_eq!(seen, [Ok(()), Ok(()), Ok(()), Ok(()), Err(ErrorCode::StreamClosed)]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        // Two blocks that the codec had read before, and these that it has not.
        let check = |blocks: &[&[u8]], expected: ErrorCode| {
            for piece in [1, 3, 1_000] {
                let (mut conduct, fed) = feed(&[GET, (HEADERS, END_HEADERS | END_STREAM, 3, &[0x80])], piece);
                fed.unwrap();
                conduct.forget_blocks();
                for (n, block) in blocks.iter().enumerate() {
                    // In a fragment with padding, and another.
                    let (first, second) = block.split_at(block.len() / 2);
                    let padded = [&[2], first, &[0, 0]].concat();
                    let stream = 2 * n as u32 + 5;
                    for (kind, flags, payload) in
                        [(HEADERS, PADDED, &padded[..]), (CONTINUATION, END_HEADERS, second)]
                    {
                        conduct.begin(Head { length: payload.len() as u32, kind, flags, stream }).unwrap();
                        payload.chunks(piece).try_for_each(|piece| conduct.take(piece)).unwrap();
                    }
                }
                assert_eq!(conduct.name_of_unreadable(), expected, "{blocks:02x?} by {piece}");
            }
        };
        check(&[], ErrorCode::Protocol);
        check(&[FIELDS], ErrorCode::Protocol);
        check(&[FIELDS, &[0x80]], ErrorCode::Compression);
        check(&[&[0xbe]], ErrorCode::Compression);
        check(&[b"\x00\x01X\x01y", &[0x80]], ErrorCode::Protocol);
        check(&[&[0xbe], b"\x00\x01X\x01y"], ErrorCode::Protocol);
        check(&[b"\x00\x04x"], ErrorCode::Compression);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let field = [b"\x00\x01x\x7f\x81\x7d".as_slice(), &[b'y'; 16_000]].concat();
        let blocks: Vec<_> = (0..4).map(|n| (HEADERS, END_HEADERS, 2 * n + 1, &field[..])).collect();
        let (mut conduct, fed) = feed(&blocks, 1_000);
        assert_eq!(fed, Ok(()));
        assert!(conduct.blocks.bytes.len() <= MAX_KEPT);
        assert_eq!(conduct.name_of_unreadable(), ErrorCode::Compression, "it may be in what was not kept");
        conduct.forget_blocks();
        assert!(conduct.blocks.bytes.capacity() <= MAX_SPARE);
    }

    #[test]
    fn nothing_is_kept_behind_a_gap() {
        // Of the last piece of 1000 bytes there is no room for the end of a value. What comes later would be taken for it,
        // and in the middle of another value for a pseudo-field.
        let (value, rest) = ([b'y'; 16_368], [[b'y'; 374].as_slice(), b"\x82yy"].concat());
        let first = [b"\x00\x01x\x7f\xf1\x7e", &value[..], b"\x00\x01z\x7f\xfe\x01yyyy"].concat();
        let trailers = (HEADERS, END_STREAM, 1, &first[..]);
        check(&[OPEN, trailers, (CONTINUATION, END_HEADERS, 1, &rest)], Ok(()));
    }
}
