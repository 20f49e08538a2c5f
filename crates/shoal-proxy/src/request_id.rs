//! Ids for requests: unique, short, and cheap.

use std::cell::{Cell, RefCell};

use http::HeaderValue;

/// The ids of one worker: a random beginning, then a count.
pub(crate) struct RequestIds {
    text: RefCell<[u8; 24]>,
    count: Cell<u64>,
}

impl RequestIds {
    pub(crate) fn new(seed: u64) -> Self {
        let mut text = [b'0'; 24];
        write_hex(&mut text[..14], seed);
        Self { text: RefCell::new(text), count: Cell::new(0) }
    }

    pub(crate) fn next(&self) -> HeaderValue {
        let count = self.count.get();
        self.count.set(count.wrapping_add(1));
        let mut text = self.text.borrow_mut();
        write_hex(&mut text[14..], count);
        HeaderValue::from_bytes(&*text).unwrap_or_else(|_| HeaderValue::from_static("0"))
    }
}

fn write_hex(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ_and_count() {
        let ids = RequestIds::new(0xabcd_ef01_2345_6789);
        assert_eq!(ids.next(), "cdef01234567890000000000");
        assert_eq!(ids.next(), "cdef01234567890000000001");
        ids.count.set(u64::MAX);
        assert_eq!(ids.next(), "cdef0123456789ffffffffff");
    }
}
