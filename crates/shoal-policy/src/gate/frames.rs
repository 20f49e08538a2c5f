//! Reads the frames of a downstream on HTTP/2 before the codec does: whether it may send them, and how many of those that ask
//! for nothing, which are cheap for it, and not for us.

use super::ErrorCode;
use super::conduct::{Conduct, Head};
use super::sent::{Sent, SentFrames};

/// Over which frames are counted.
const WINDOW_MS: u64 = 10_000;

/// Bytes of the connection preface (RFC 9113 §3.4).
const PREFACE_BYTES: u32 = 24;
/// Bytes of a frame's head (RFC 9113 §4.1).
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// The bit of a stream's number that says nothing.
const RESERVED: u32 = 1 << 31;
/// On DATA; of SETTINGS and PING the same bit says that they answer ours.
const END_STREAM_OR_ACK: u8 = 1;

/// What a downstream may answer to a DATA frame: its windows, of the stream and of the connection, and a PING to measure
/// how far away we are.
const ANSWERS_TO_DATA: u32 = 3;
/// Bytes of DATA in each of which it may open its windows once more, because it takes them one by one.
const BYTES_AN_ANSWER: u32 = 2 << 10;
/// A stream may begin with windows that are larger than agreed.
const ANSWERS_TO_STREAM: u32 = 2;

/// Why we reset streams, where it is not the downstream that makes us: NO_ERROR, INTERNAL_ERROR, CANCEL.
const OWN_RESETS: [u32; 3] = [0, 2, 8];

/// A downstream sends far too much of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Frames that ask for nothing.
    IdleFrames,
    /// Requests that are taken back.
    Resets,
}

/// Why a connection goes on no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// Too much of something.
    Flood(Flood),
    /// A frame that may not be sent, or not now.
    Breach(ErrorCode),
}

impl Offence {
    /// As the downstream is told it.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Flood(_) => ErrorCode::EnhanceYourCalm,
            Self::Breach(code) => code,
        }
    }
}

/// Where a connection goes on no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Bytes before the frame with which it stops, of those that were fed last.
    pub good: usize,
    /// What is wrong with that frame.
    pub offence: Offence,
}

/// What is well in ten seconds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Frames that ask for nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, unknown ones (CVE-2019-9511 and
    /// those that followed); not those that answer DATA.
    pub idle_frames: u32,
    /// Streams that the downstream resets (CVE-2023-44487), or makes us reset (CVE-2025-8671).
    pub resets: u32,
}

/// Reads frames as bytes arrive, in parts of any size.
#[derive(Debug)]
pub struct FrameScan {
    /// Bytes until the next head: the preface, or a payload.
    skip: u32,
    head: [u8; HEAD_BYTES],
    have: u8,
    window_since_ms: u64,
    idle_frames: u32,
    resets: u32,
    /// WINDOW_UPDATE and PING that are still due for what was sent, or opened.
    answers: u32,
    limits: FrameLimits,
    conduct: Conduct,
    sent: SentFrames,
}

impl FrameScan {
    /// From the first byte of a connection.
    pub fn new(limits: FrameLimits) -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            have: 0,
            window_since_ms: 0,
            idle_frames: 0,
            resets: 0,
            answers: 0,
            limits,
            conduct: Conduct::default(),
            sent: SentFrames::default(),
        }
    }

    /// The codec has read all that it got.
    pub fn was_read(&mut self) {
        self.conduct.forget_blocks();
    }

    /// The codec has given up on what it got, and calls that `code`: what it is called by the RFC.
    pub fn name_of(&self, code: u32) -> Option<ErrorCode> {
        match ErrorCode::numbered(code)? {
            ErrorCode::Protocol => Some(self.conduct.name_of_unreadable()),
            code => Some(code),
        }
    }

    /// Highest stream that the downstream has opened.
    pub fn last_stream(&self) -> u32 {
        self.conduct.last_stream()
    }

    /// Bytes that the downstream is sent. Who takes fast downloads opens windows thousands of times; who was sent nothing has
    /// no reason to.
    ///
    /// Streams up to `taken_up` have been handed on by the codec. It answers by itself where a head is too large, and nobody
    /// sees that request: answers how many such answers are among the bytes. One that had to wait until a later stream was
    /// taken up goes unnoticed.
    pub fn sent(&mut self, bytes: &[u8], taken_up: u32) -> u32 {
        let Self { sent, answers, resets, .. } = self;
        let mut refused = 0;
        sent.feed(bytes, |frame| match frame {
            Sent::Head(stream) => refused += u32::from(stream > taken_up),
            Sent::Data(0) => {}
            Sent::Data(length) => {
                *answers = answers.saturating_add(ANSWERS_TO_DATA + length / BYTES_AN_ANSWER);
            }
            Sent::Reset(code) => *resets += u32::from(!OWN_RESETS.contains(&code)),
        });
        refused
    }

    /// More bytes of the connection. Err = it goes on no longer, and nothing more is to be fed.
    ///
    /// CONTINUATION is bounded by the codec.
    pub fn feed(&mut self, bytes: &[u8], now_ms: u64) -> Result<(), Stopped> {
        if now_ms.saturating_sub(self.window_since_ms) >= WINDOW_MS {
            (self.window_since_ms, self.idle_frames, self.resets) = (now_ms, 0, 0);
        }
        // Where the present frame begins.
        let mut begin = 0;
        let mut place = 0;
        while place < bytes.len() {
            if self.skip > 0 {
                let skipped = (bytes.len() - place).min(self.skip as usize);
                self.skip -= skipped as u32;
                let payload = &bytes[place..place + skipped];
                self.conduct
                    .take(payload)
                    .map_err(|code| Stopped { good: begin, offence: Offence::Breach(code) })?;
                place += skipped;
                continue;
            }
            let have = usize::from(self.have);
            if have == 0 {
                begin = place;
            }
            let taken = (bytes.len() - place).min(HEAD_BYTES - have);
            self.head[have..have + taken].copy_from_slice(&bytes[place..place + taken]);
            place += taken;
            self.have += taken as u8;
            if usize::from(self.have) == HEAD_BYTES {
                self.have = 0;
                self.begin().map_err(|offence| Stopped { good: begin, offence })?;
            }
        }
        Ok(())
    }

    /// The head of a frame is whole.
    fn begin(&mut self) -> Result<(), Offence> {
        let [high, middle, low, kind, flags, stream @ ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        let stream = u32::from_be_bytes(stream) & !RESERVED;
        self.skip = length;
        self.count(kind, flags).map_err(Offence::Flood)?;
        self.conduct.begin(Head { length, kind, flags, stream }).map_err(Offence::Breach)
    }

    fn count(&mut self, kind: u8, flags: u8) -> Result<(), Flood> {
        let is_marked = flags & END_STREAM_OR_ACK != 0;
        let is_idle = match kind {
            DATA => self.skip == 0 && !is_marked,
            HEADERS => {
                self.answers = self.answers.saturating_add(ANSWERS_TO_STREAM);
                false
            }
            SETTINGS => !is_marked,
            PING => !is_marked && !self.is_answer(),
            WINDOW_UPDATE => !self.is_answer(),
            PRIORITY => true,
            _ => kind > CONTINUATION,
        };
        self.idle_frames += u32::from(is_idle);
        self.resets += u32::from(kind == RST_STREAM);
        match () {
            () if self.idle_frames > self.limits.idle_frames => Err(Flood::IdleFrames),
            () if self.resets > self.limits.resets => Err(Flood::Resets),
            () => Ok(()),
        }
    }

    /// One more of those that may answer what was sent.
    fn is_answer(&mut self) -> bool {
        let is_due = self.answers > 0;
        self.answers = self.answers.saturating_sub(1);
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FrameLimits = FrameLimits { idle_frames: 1_000, resets: 200 };

    /// A frame where one of its kind may be: on no stream, or on the first one.
    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let stream = u8::from(!matches!(kind, SETTINGS | PING));
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, stream];
        frame.resize(HEAD_BYTES + length, kind);
        frame
    }

    /// A connection on which a POST has begun, before the window that is counted.
    fn opened() -> FrameScan {
        let mut scan = FrameScan::new(LIMITS);
        let begin = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &frame(SETTINGS, 0, 0),
            b"\0\0\x01\x01\x04\0\0\0\x01\x83",
        ];
        assert_eq!(scan.feed(&begin.concat(), 0), Ok(()));
        // What may come with its beginning has come.
        scan.answers = 0;
        scan
    }

    #[test]
    fn what_asks_for_nothing_is_counted() {
        // A thousand of a frame are well, one more is not, in whatever parts they come; unless it counts for nothing.
        let check = |kind: u8, flags: u8, length: usize, limit: Option<(usize, Flood)>| {
            let whole = frame(kind, flags, length);
            for part in [1, 7, 4096] {
                let mut scan = opened();
                let count = limit.map_or(5_000, |(count, _)| count);
                let bytes = whole.repeat(count);
                let fed = bytes.chunks(part).try_for_each(|part| scan.feed(part, 10_005));
                assert_eq!(fed, Ok(()), "{count} of kind {kind}");
                if let Some((_, flood)) = limit {
                    let stopped = Stopped { good: 0, offence: Offence::Flood(flood) };
                    assert_eq!(scan.feed(&whole, 10_005), Err(stopped), "one more of kind {kind}");
                }
            }
        };
        let idle = Some((LIMITS.idle_frames as usize, Flood::IdleFrames));
        check(PING, 0, 8, idle);
        check(PING, END_STREAM_OR_ACK, 8, None);
        check(SETTINGS, 0, 6, idle);
        check(SETTINGS, END_STREAM_OR_ACK, 0, None);
        check(PRIORITY, 0, 5, idle);
        check(DATA, 0, 0, idle);
        check(DATA, 0, 300, None);
        check(WINDOW_UPDATE, 0, 4, idle);
        check(0x77, 0, 3, idle);
        check(RST_STREAM, 0, 4, Some((LIMITS.resets as usize, Flood::Resets)));
    }

    #[test]
    fn what_answers_is_not_counted() {
        // How many windows and PINGs in a row are well after this was sent, beside those that are well anyway.
        let check = |sent: &[u8], answers: usize| {
            for kind in [WINDOW_UPDATE, PING] {
                let answer = if kind == PING { frame(PING, 0, 8) } else { frame(kind, 0, 4) };
                let mut scan = opened();
                scan.sent(sent, 1);
                let well = answer.repeat(answers + LIMITS.idle_frames as usize);
                assert_eq!(scan.feed(&well, 10_005), Ok(()), "{answers} of kind {kind}");
                let stopped = Stopped { good: 0, offence: Offence::Flood(Flood::IdleFrames) };
                assert_eq!(scan.feed(&answer, 10_005), Err(stopped), "one more of kind {kind}");
            }
        };
        check(&[], 0);
        check(&frame(DATA, 0, 0), 0);
        check(&frame(HEADERS, 4, 100), 0);
        check(&frame(DATA, 0, 20), 3);
        check(&frame(DATA, 0, 20).repeat(5_000), 15_000);
        check(&frame(DATA, 0, 16 << 10), 11);
        let mut scan = opened();
        let request = b"\0\0\x01\x01\x05\0\0\0\x03\x83";
        scan.feed(request, 10_005).unwrap();
        scan.feed(&frame(WINDOW_UPDATE, 0, 4).repeat(2), 10_005).unwrap();
        assert_eq!(scan.idle_frames, 0, "a stream begins with its windows");
    }

    #[test]
    fn streams_that_we_have_to_reset_are_counted() {
        let check = |code: u8, counted: u32| {
            let mut scan = opened();
            let reset = [&frame(RST_STREAM, 0, 4)[..HEAD_BYTES], &[0, 0, 0, code]].concat();
            scan.sent(&reset.repeat(5), 1);
            assert_eq!(scan.resets, counted, "{code}");
        };
        for code in OWN_RESETS {
            check(code as u8, 0);
        }
        for code in [1, 3, 5, 7, 11] {
            check(code, 5);
        }
        let mut scan = opened();
        scan.resets = LIMITS.resets + 1;
        let stopped = Stopped { good: 0, offence: Offence::Flood(Flood::Resets) };
        assert_eq!(scan.feed(&frame(DATA, 0, 1), 0), Err(stopped), "it is told at its next frame");
    }

    #[test]
    fn heads_that_only_the_codec_has_seen_are_counted() {
        let heads = frame(HEADERS, 5, 3).repeat(4);
        for (taken_up, refused) in [(0, 4), (1, 0), (3, 0)] {
            for part in [1, 10, 100] {
                let mut scan = opened();
                let seen: u32 = heads.chunks(part).map(|part| scan.sent(part, taken_up)).sum();
                assert_eq!(seen, refused, "{taken_up} by {part}");
            }
        }
    }

    #[test]
    fn time_forgives() {
        let mut scan = opened();
        let ping = frame(PING, 0, 8).repeat(LIMITS.idle_frames as usize);
        for now_ms in [10_001, 20_001, 30_001] {
            assert_eq!(scan.feed(&ping, now_ms), Ok(()), "{now_ms}");
        }
        let flood = Offence::Flood(Flood::IdleFrames);
        assert_eq!(scan.feed(&ping, 30_002), Err(Stopped { good: 0, offence: flood }));
    }

    #[test]
    fn it_stops_before_the_frame_that_is_wrong() {
        let (ping, wrong) = (frame(PING, 0, 8), frame(PING, 0, 7));
        let bytes = [&ping[..], &ping, &wrong, &ping].concat();
        let breach = Offence::Breach(ErrorCode::FrameSize);
        // How many bytes come first, and how many of the others are good.
        let check = |first: usize, good: usize| {
            let mut scan = opened();
            assert_eq!(scan.feed(&bytes[..first], 1), Ok(()), "{first}");
            assert_eq!(scan.feed(&bytes[first..], 1), Err(Stopped { good, offence: breach }), "{first}");
        };
        check(0, 2 * ping.len());
        check(5, 2 * ping.len() - 5);
        check(ping.len() + 10, ping.len() - 10);
        check(2 * ping.len(), 0);
        check(2 * ping.len() + 3, 0);
    }
}
