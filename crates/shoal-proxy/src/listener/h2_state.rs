//! What is known of a downstream connection on HTTP/2 beside its codec.

use std::cell::Cell;

use shoal_policy::gate::ErrorCode;

/// Of one connection.
pub(crate) struct H2State {
    /// When bytes came last.
    pub(super) heard_ms: Cell<u64>,
    /// The error that the connection ends with, counted from 1 (0 = none).
    error: Cell<u8>,
    /// The highest stream that was looked at when a frame ended the connection.
    pub(super) last_stream: Cell<u32>,
    /// The highest stream that was taken up; they are in their order.
    pub(super) taken_up: Cell<u32>,
    /// How many heads the codec has refused that nobody took up.
    refused: Cell<u32>,
}

impl H2State {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            heard_ms: Cell::new(now_ms),
            error: Cell::new(0),
            last_stream: Cell::new(0),
            taken_up: Cell::new(0),
            refused: Cell::new(0),
        }
    }

    /// The connection ends, or has ended, with this error.
    pub(super) fn end_with_error(&self, code: ErrorCode) {
        self.error.set(code as u8 + 1);
    }

    /// The error that ends the connection.
    pub(super) fn error(&self) -> Option<ErrorCode> {
        let place = self.error.get().checked_sub(1)?;
        ErrorCode::ALL.get(usize::from(place)).copied()
    }

    /// The codec has refused so many heads more by itself.
    pub(super) fn refused_heads(&self, count: u32) {
        if count > 0 {
            self.refused.set(self.refused.get().saturating_add(count));
        }
    }

    /// How many heads the codec has refused since this was asked last.
    pub(super) fn take_refused_heads(&self) -> u32 {
        self.refused.take()
    }
}
