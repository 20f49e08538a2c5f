//! Bytes of an HTTP/2 connection: what may not be sent, and floods, are seen in whatever pieces they come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_policy::gate::{ErrorCode, FrameLimits, FrameScan, Stopped};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LIMITS: FrameLimits = FrameLimits { idle_frames: 200, resets: 40 };
/// How often an input is sent at most: enough to be a flood, if it could be one.
const MOST_TIMES: u8 = 40;
/// Bytes up to which every field block is kept until the codec has read it.
const ALWAYS_KEPT: usize = 16 << 10;
const NOW_MS: u64 = 5;

fuzz_target!(|bytes: &[u8]| {
    let [piece, times, bytes @ ..] = bytes else { return };
    let bytes = [PREFACE, &bytes.repeat(usize::from(times % MOST_TIMES) + 1)].concat();
    let mut whole = FrameScan::new(LIMITS);
    let expected = whole.feed(&bytes, NOW_MS);
    if let Err(stopped) = expected {
        assert_eq!(FrameScan::new(LIMITS).feed(&bytes[..stopped.good], NOW_MS), Ok(()), "good up to there");
    }
    let piece = usize::from(*piece) + 1;
    let mut parts = FrameScan::new(LIMITS);
    check_pieces(&mut parts, &bytes, piece, expected, |_| {});
    if expected.is_ok() {
        assert_eq!(format!("{whole:?}"), format!("{parts:?}"), "they go on alike");
    }
    check_names(&whole);
    if bytes.len() <= ALWAYS_KEPT {
        let mut read = FrameScan::new(LIMITS);
        check_pieces(&mut read, &bytes, piece, expected, FrameScan::was_read);
        assert_eq!(read.last_stream(), whole.last_stream());
        check_names(&read);
    }
});

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
