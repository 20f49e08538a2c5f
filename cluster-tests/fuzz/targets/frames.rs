//! Bytes of an HTTP/2 connection, and the frames that answer them: what may not be sent, and floods, are seen in whatever
//! pieces they come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_policy::gate::{ErrorCode, Flood, FrameLimits, FrameScan, Offence, Stopped};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams that somebody has taken up: what is answered on others only the codec has seen.
const TAKEN_UP: u32 = 3;
const LIMITS: FrameLimits = FrameLimits { idle_frames: 200, resets: 40 };
/// How often an input is sent at most: enough to be a flood, if it could be one.
const MOST_TIMES: u8 = 40;
/// Bytes up to which every field block is kept until the codec has read it.
const ALWAYS_KEPT: usize = 16 << 10;
const NOW_MS: u64 = 5;
/// Of what each frame is made that answers.
const ANSWER_BYTES: usize = 3;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const NO_FLOOD: FrameLimits = FrameLimits { idle_frames: u32::MAX, resets: u32::MAX };

fuzz_target!(|bytes: &[u8]| {
    let [piece, times, answers, bytes @ ..] = bytes else { return };
    let (answers, bytes) = bytes.split_at(bytes.len().min(usize::from(*answers) * ANSWER_BYTES));
    let bytes = [PREFACE, &bytes.repeat(usize::from(times % MOST_TIMES) + 1)].concat();
    let piece = usize::from(*piece) + 1;
    let alone = check_received(&bytes, piece);
    check_sent(&bytes, answers, piece, alone);
});

/// Nothing is sent; answers what comes of that.
fn check_received(bytes: &[u8], piece: usize) -> Result<(), Stopped> {
    let mut whole = FrameScan::new(LIMITS);
    let expected = whole.feed(bytes, NOW_MS);
    if let Err(stopped) = expected {
        assert_eq!(FrameScan::new(LIMITS).feed(&bytes[..stopped.good], NOW_MS), Ok(()), "good up to there");
    }
    let mut parts = FrameScan::new(LIMITS);
    check_pieces(&mut parts, bytes, piece, expected, |_| {});
    if expected.is_ok() {
        assert_eq!(format!("{whole:?}"), format!("{parts:?}"), "they go on alike");
    }
    check_names(&whole);
    if bytes.len() <= ALWAYS_KEPT {
        let mut read = FrameScan::new(LIMITS);
        check_pieces(&mut read, bytes, piece, expected, FrameScan::was_read);
        assert_eq!(read.last_stream(), whole.last_stream());
        check_names(&read);
    }
    expected
}

/// What is sent is seen in whatever pieces it is written, and lets nothing pass that is no answer to it; `alone` is what
/// comes of `bytes` without it.
fn check_sent(bytes: &[u8], answers: &[u8], piece: usize, alone: Result<(), Stopped>) {
    let sent: Vec<u8> = answers.chunks_exact(ANSWER_BYTES).flat_map(answer).collect();
    let (mut whole, mut parts) = (FrameScan::new(LIMITS), FrameScan::new(LIMITS));
    let refused = whole.sent(&sent, TAKEN_UP);
    let refused_in_parts: u32 = sent.chunks(piece).map(|part| parts.sent(part, TAKEN_UP)).sum();
    assert_eq!(refused, refused_in_parts, "heads that were refused, by {piece}");
    assert_eq!(format!("{whole:?}"), format!("{parts:?}"), "what is sent, by {piece}");

    let (seen, resets) = (whole.feed(bytes, NOW_MS), made_us_reset(answers));
    if let Err(Stopped { offence: Offence::Flood(Flood::Resets), .. }) = alone {
        assert!(seen.is_err(), "answers are for frames that ask for nothing");
    }
    if resets == 0 {
        let good = |seen: Result<(), Stopped>| seen.map_or_else(|stopped| stopped.good, |()| bytes.len());
        assert!(good(seen) >= good(alone), "nothing else stops because of what is sent");
    }
    if resets > LIMITS.resets && bytes.len() >= PREFACE.len() + 9 {
        assert!(seen.is_err(), "{resets} streams were reset");
    }
    check_talk(bytes, &sent, piece);
}

/// What may not be sent is seen whatever else goes to and fro, and however long it takes.
fn check_talk(bytes: &[u8], sent: &[u8], piece: usize) {
    let breach = FrameScan::new(NO_FLOOD).feed(bytes, NOW_MS);
    let (mut scan, mut answers) = (FrameScan::new(LIMITS), sent.chunks(piece));
    let mut seen = Ok(());
    for (n, part) in bytes.chunks(piece).enumerate() {
        scan.was_read();
        seen = scan.feed(part, NOW_MS + (n * piece) as u64);
        scan.sent(answers.next().unwrap_or_default(), TAKEN_UP);
        match seen {
            Ok(()) => {}
            Err(Stopped { offence: Offence::Flood(_), .. }) => return,
            Err(_) => break,
        }
    }
    if bytes.len() <= ALWAYS_KEPT {
        assert_eq!(seen.is_err(), breach.is_err(), "by {piece}");
    }
}

/// A frame as the codec writes it, DATA or RST_STREAM more often than another.
fn answer(choice: &[u8]) -> Vec<u8> {
    let (kind, length) = match choice[0] % 4 {
        0 => (DATA, u16::from_be_bytes([choice[1] & 7, choice[2]])),
        1 => (RST_STREAM, 4),
        _ => ((choice[0] % 10) | 4, u16::from(choice[1])),
    };
    let [high, low] = length.to_be_bytes();
    let mut frame = vec![0, high, low, kind, 0, 0, 0, 0, 1];
    frame.resize(frame.len() + usize::from(length), choice[0]);
    if kind == RST_STREAM {
        let code = frame.len() - 4;
        frame[code..].copy_from_slice(&[0, 0, 0, choice[2] % 16]);
    }
    frame
}

/// How many streams `answers` reset through no fault of ours.
fn made_us_reset(answers: &[u8]) -> u32 {
    let made = |choice: &&[u8]| choice[0] % 4 == 1 && !matches!(choice[2] % 16, 0 | 2 | 8);
    answers.chunks_exact(ANSWER_BYTES).filter(made).count() as u32
}

/// Feeds `bytes` in pieces of `piece`, and does `after` after each; what is `expected` is what comes of them at once.
fn check_pieces(
    scan: &mut FrameScan,
    bytes: &[u8],
    piece: usize,
    expected: Result<(), Stopped>,
    after: impl Fn(&mut FrameScan),
) {
    let mut last_stream = 0;
    for (n, part) in bytes.chunks(piece).enumerate() {
        let before = n * piece;
        if let Err(stopped) = scan.feed(part, NOW_MS) {
            // What came of the frame in earlier pieces is with the codec already.
            let seen = Stopped { good: before + stopped.good, ..stopped };
            let expected = expected.map_err(|stopped| Stopped { good: stopped.good.max(before), ..stopped });
            assert_eq!(Err(seen), expected, "by {piece}");
            return;
        }
        assert!(scan.last_stream() >= last_stream, "streams count upwards");
        last_stream = scan.last_stream();
        after(scan);
    }
    assert_eq!(expected, Ok(()), "by {piece}");
}

/// Every error of the codec that a downstream may have made has a name, and a field that it calls wrong has one of two.
fn check_names(scan: &FrameScan) {
    for code in 0..16 {
        let name = scan.name_of(code);
        match ErrorCode::numbered(code) {
            Some(ErrorCode::Protocol) => {
                assert!(matches!(name, Some(ErrorCode::Protocol | ErrorCode::Compression)));
            }
            same => assert_eq!(name, same),
        }
    }
}
