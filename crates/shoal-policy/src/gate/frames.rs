//! Counts what a downstream may send on HTTP/2 without asking for anything: cheap for it, and not for us.

/// Frames that ask for nothing, in one [`WINDOW_MS`]: PING, SETTINGS, PRIORITY, empty DATA, unknown ones (CVE-2019-9511
/// and those that followed).
const MAX_IDLE_FRAMES: u32 = 1_000;
/// Streams that the downstream resets in one [`WINDOW_MS`] (CVE-2023-44487).
const MAX_RESETS: u32 = 200;
/// Over which frames are counted.
const WINDOW_MS: u64 = 10_000;

/// Bytes of the connection preface (RFC 9113 §3.4).
const PREFACE_BYTES: u32 = 24;
/// Bytes of a frame's head (RFC 9113 §4.1).
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
/// On DATA; of SETTINGS and PING the same bit says that they answer ours.
const END_STREAM_OR_ACK: u8 = 1;

/// A downstream sends far too much of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Frames that ask for nothing.
    IdleFrames,
    /// Requests that are taken back.
    Resets,
}

/// Reads the heads of frames as bytes arrive, in parts of any size.
#[derive(Debug)]
pub struct FrameScan {
    /// Bytes until the next head: the preface, or a payload.
    skip: u32,
    head: [u8; HEAD_BYTES],
    have: u8,
    window_since_ms: u64,
    idle_frames: u32,
    resets: u32,
}

impl Default for FrameScan {
    fn default() -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            have: 0,
            window_since_ms: 0,
            idle_frames: 0,
            resets: 0,
        }
    }
}

impl FrameScan {
    /// More bytes of the connection. Err = enough is enough.
    ///
    /// WINDOW_UPDATE is not counted: who takes fast downloads sends thousands. CONTINUATION is bounded by the codec.
    pub fn feed(&mut self, mut bytes: &[u8], now_ms: u64) -> Result<(), Flood> {
        if now_ms.saturating_sub(self.window_since_ms) >= WINDOW_MS {
            (self.window_since_ms, self.idle_frames, self.resets) = (now_ms, 0, 0);
        }
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            let have = usize::from(self.have);
            let taken = bytes.len().min(HEAD_BYTES - have);
            self.head[have..have + taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            self.have += taken as u8;
            if usize::from(self.have) == HEAD_BYTES {
                self.have = 0;
                self.count()?;
            }
        }
        Ok(())
    }

    /// The head is whole.
    fn count(&mut self) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = u32::from_be_bytes([0, high, middle, low]);
        let is_marked = flags & END_STREAM_OR_ACK != 0;
        let is_idle = match kind {
            DATA => self.skip == 0 && !is_marked,
            SETTINGS | PING => !is_marked,
            PRIORITY => true,
            _ => kind > CONTINUATION,
        };
        self.idle_frames += u32::from(is_idle);
        self.resets += u32::from(kind == RST_STREAM);
        match () {
            () if self.idle_frames > MAX_IDLE_FRAMES => Err(Flood::IdleFrames),
            () if self.resets > MAX_RESETS => Err(Flood::Resets),
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD_BYTES + length, kind);
        frame
    }

    #[test]
    fn what_asks_for_nothing_is_counted() {
        // A thousand of a frame are well, one more is not, in whatever parts they come; unless it counts for nothing.
        let check = |kind: u8, flags: u8, length: usize, limit: Option<(usize, Flood)>| {
            let whole = frame(kind, flags, length);
            for part in [1, 7, 4096] {
                let mut scan = FrameScan::default();
                let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
                let count = limit.map_or(5_000, |(count, _)| count);
                bytes.extend(whole.repeat(count));
                let fed = bytes.chunks(part).try_for_each(|part| scan.feed(part, 5));
                assert_eq!(fed, Ok(()), "{count} of kind {kind}");
                if let Some((_, flood)) = limit {
                    assert_eq!(scan.feed(&whole, 5), Err(flood), "one more of kind {kind}");
                }
            }
        };
        let idle = Some((MAX_IDLE_FRAMES as usize, Flood::IdleFrames));
        check(PING, 0, 8, idle);
        check(PING, END_STREAM_OR_ACK, 8, None);
        check(SETTINGS, 0, 6, idle);
        check(SETTINGS, END_STREAM_OR_ACK, 0, None);
        check(PRIORITY, 0, 5, idle);
        check(DATA, 0, 0, idle);
        check(DATA, 0, 300, None);
        check(DATA, END_STREAM_OR_ACK, 0, None);
        check(8, 0, 4, None);
        check(0x77, 0, 3, idle);
        check(RST_STREAM, 0, 4, Some((MAX_RESETS as usize, Flood::Resets)));
    }

    #[test]
    fn time_forgives() {
        let mut scan = FrameScan { skip: 0, ..FrameScan::default() };
        let ping = frame(PING, 0, 8).repeat(MAX_IDLE_FRAMES as usize);
        for now_ms in [1, 10_001, 20_001] {
            assert_eq!(scan.feed(&ping, now_ms), Ok(()), "{now_ms}");
        }
        assert_eq!(scan.feed(&ping, 20_002), Err(Flood::IdleFrames));
    }
}
