//! Where lines and heads end.

use memchr::memchr_iter;

/// Whether the bytes from `searched` on bring an empty line to its end.
pub(super) fn ends_within(arrived: &[u8], searched: usize) -> bool {
    let new = arrived.get(searched.saturating_sub(2)..).unwrap_or_default();
    new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

/// Whether a line does not end in CR LF.
pub(super) fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr_iter(b'\n', head).any(|end| end == 0 || head[end - 1] != b'\r')
}
