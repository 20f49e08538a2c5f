//! Early hints (103) of endpoints, on their way to the downstream (RFC 8297).

use std::cell::RefCell;

use http::HeaderMap;

/// What endpoints have hinted at on behalf of one request on a connection. Whoever has the request worked on takes it out as
/// soon as that pauses, before anybody else on this worker has a turn: none of it is another request's.
#[derive(Default)]
pub(crate) struct Hints(RefCell<Vec<HeaderMap>>);

impl Hints {
    pub(crate) fn add(&self, fields: HeaderMap) {
        self.0.borrow_mut().push(fields);
    }

    /// Takes out those that have come; mostly there are none.
    pub(crate) fn take(&self) -> Vec<HeaderMap> {
        self.0.take()
    }
}
