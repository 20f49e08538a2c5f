//! Reads the frames that go out to a downstream on HTTP/2: what it may answer to them, and what it has made us say.

/// Bytes of a frame's head (RFC 9113 §4.1), and of one with the code of an RST_STREAM.
const HEAD_BYTES: usize = 9;
const RESET_BYTES: usize = 13;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;

/// A frame that says something of the downstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// HEADERS of this stream.
    Head(u32),
    /// DATA with so many bytes.
    Data(u32),
    /// RST_STREAM with this code.
    Reset(u32),
}

/// Reads frames as they are written, in parts of any size.
#[derive(Debug, Default)]
pub(super) struct SentFrames {
    /// Bytes until the next head.
    skip: u32,
    head: [u8; RESET_BYTES],
    have: u8,
}

impl SentFrames {
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut see: impl FnMut(Sent)) {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            let have = usize::from(self.have);
            let taken = bytes.len().min(self.wanted() - have);
            self.head[have..have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken as u8;
            bytes = &bytes[taken..];
            // The code is wanted when it is known that there is one.
            if usize::from(self.have) == self.wanted() {
                self.end_head(&mut see);
            }
        }
    }

    /// Bytes of the present frame that are to be read.
    fn wanted(&self) -> usize {
        let is_reset = usize::from(self.have) >= HEAD_BYTES && self.head[3] == RST_STREAM;
        if is_reset { RESET_BYTES } else { HEAD_BYTES }
    }

    fn end_head(&mut self, see: &mut impl FnMut(Sent)) {
        self.have = 0;
        let [high, middle, low, kind, _, stream @ .., a, b, c, d] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        match kind {
            HEADERS => see(Sent::Head(u32::from_be_bytes(stream))),
            DATA => see(Sent::Data(length)),
            RST_STREAM => return see(Sent::Reset(u32::from_be_bytes([a, b, c, d]))),
            _ => {}
        }
        self.skip = length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_seen_in_whatever_parts_they_are_written() {
        let frame = |kind: u8, payload: &[u8]| {
            [&[0, 0, payload.len() as u8, kind, 0, 0, 0, 0, 1][..], payload].concat()
        };
        let check = |frames: &[(u8, &[u8])], expected: &[Sent]| {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
            for part in [1, 4, 9, 10, 13, 1_000] {
                let (mut sent, mut seen) = (SentFrames::default(), Vec::new());
                bytes.chunks(part).for_each(|part| sent.feed(part, |frame| seen.push(frame)));
                assert_eq!(seen, expected, "{frames:?} by {part}");
                assert_eq!((sent.skip, sent.have), (0, 0), "{frames:?} by {part}");
            }
        };
        let (headers, settings) = ((1, &[0x88][..]), (4, &[][..]));
        check(&[settings, settings, headers], &[Sent::Head(1)]);
        check(&[headers, (DATA, b"hello"), headers], &[Sent::Head(1), Sent::Data(5), Sent::Head(1)]);
        check(&[(DATA, &[]), (DATA, &[3; 200])], &[Sent::Data(0), Sent::Data(200)]);
        let resets = [(RST_STREAM, &[0, 0, 0, 7][..]), (RST_STREAM, &[1, 2, 3, 4]), headers];
        check(&resets, &[Sent::Reset(7), Sent::Reset(0x0102_0304), Sent::Head(1)]);
    }
}
