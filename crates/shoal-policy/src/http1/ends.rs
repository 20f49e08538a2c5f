//! Where lines and heads end.

/// Whether the bytes from `searched` on bring an empty line to its end.
pub(super) fn ends_within(arrived: &[u8], searched: usize) -> bool {
    let new = arrived.get(searched.saturating_sub(2)..).unwrap_or_default();
    new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

/// Whether one of so many `lines` does not end in CR LF. The parser has left no LF but those at their ends.
pub(super) fn has_bare_line_feed(head: &[u8], lines: usize) -> bool {
    head.windows(2).filter(|pair| *pair == b"\r\n").count() != lines
}
