//! GOAWAY: what an HTTP/2 connection is told at its end (RFC 9113 §6.8).

const BYTES: usize = 17;
/// No stream is above it: whatever is asked before this is heard will be answered.
pub(super) const ANY_STREAM: u32 = u32::MAX >> 1;
/// Length, kind, flags and stream of one without debug data.
const HEAD: [u8; 9] = [0, 0, 8, 7, 0, 0, 0, 0, 0];

/// The frame that ends a connection with the error `code`; nothing above the stream `last` was looked at.
pub(super) fn goaway(last: u32, code: u32) -> [u8; BYTES] {
    let mut frame = [0; BYTES];
    frame[..9].copy_from_slice(&HEAD);
    frame[9..13].copy_from_slice(&last.to_be_bytes());
    frame[13..].copy_from_slice(&code.to_be_bytes());
    frame
}

/// The code of the GOAWAY with which `frames` end, if they do.
pub(super) fn code_at_end(frames: &mut [u8]) -> Option<&mut [u8; 4]> {
    let frame: &mut [u8; BYTES] = frames.last_chunk_mut()?;
    if frame[..9] == HEAD { frame.last_chunk_mut() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_found_where_it_is_written() {
        let check = |before: &[u8], after: &[u8], expected: Option<[u8; 4]>| {
            let mut frames = [before, &goaway(0x0102_0304, 0x0506_0708), after].concat();
            assert_eq!(code_at_end(&mut frames).copied(), expected, "{before:?} {after:?}");
        };
        check(&[], &[], Some([5, 6, 7, 8]));
        check(&[0; 30], &[], Some([5, 6, 7, 8]));
        check(&[], &[0], None);
        assert_eq!(code_at_end(&mut [0; 16]), None);
        assert_eq!(code_at_end(&mut []), None);
    }
}
