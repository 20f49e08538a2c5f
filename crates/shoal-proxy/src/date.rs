//! The time of day as HTTP writes it (RFC 9110 §5.6.7), written out once a second.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

/// A date, for answers that have none.
#[derive(Default)]
pub(crate) struct HttpDate {
    /// Which second, since 1970, and its text.
    latest: Cell<(u64, [u8; 29])>,
}

impl HttpDate {
    pub(crate) fn now(&self) -> [u8; 29] {
        let second = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let (known, text) = self.latest.get();
        if known == second {
            return text;
        }
        let text = write(second);
        self.latest.set((second, text));
        text
    }
}

fn write(second: u64) -> [u8; 29] {
    let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
    text.as_bytes().try_into().unwrap_or(*b"Thu, 01 Jan 1970 00:00:00 GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_as_http_does() {
        assert_eq!(write(784_111_777), *b"Sun, 06 Nov 1994 08:49:37 GMT");
        let now = HttpDate::default();
        assert!(now.now().ends_with(b" GMT"));
    }
}
