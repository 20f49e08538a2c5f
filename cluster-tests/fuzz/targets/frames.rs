//! Bytes of an HTTP/2 connection: floods are seen in whatever pieces they come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_policy::gate::{FrameLimits, FrameScan};

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    // Enough of it to be a flood if any of it could be one.
    let bytes = bytes.repeat(40);
    let limits = FrameLimits { idle_frames: 1_000, resets: 200 };
    let mut whole = FrameScan::new(limits);
    let mut parts = FrameScan::new(limits);
    // Where it stops depends on where the pieces begin.
    let expected = whole.feed(&bytes, 5).map_err(|stopped| stopped.offence);
    let seen = bytes.chunks(usize::from(*piece) + 1).try_for_each(|part| parts.feed(part, 5).map_err(|stopped| stopped.offence));
    assert_eq!(seen, expected);
    if expected.is_ok() {
        assert_eq!(format!("{whole:?}"), format!("{parts:?}"), "they go on alike");
    }
});
