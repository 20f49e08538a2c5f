//! What endpoints say before their answers (1xx), on its way to the downstream (RFC 9110 §15.2): early hints, mostly.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Context;

use http::{HeaderMap, StatusCode};

/// What endpoints have said so far on behalf of one request on a connection. Whoever has the request worked on takes it out as
/// soon as that pauses, before anybody else on this worker has a turn: none of it is another request's.
#[derive(Default)]
pub(crate) struct Hints(RefCell<Vec<(StatusCode, HeaderMap)>>);

impl Hints {
    pub(crate) fn add(&self, status: StatusCode, fields: HeaderMap) {
        self.0.borrow_mut().push((status, fields));
    }

    /// Takes out those that have come; mostly there are none.
    pub(crate) fn take(&self) -> Vec<(StatusCode, HeaderMap)> {
        self.0.take()
    }
}

/// Does `work`, and calls `pass_on` before and after each turn of it.
pub(crate) async fn pass_on_during<T>(
    work: impl Future<Output = T>,
    mut pass_on: impl FnMut(&Context<'_>),
) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        pass_on(cx);
        let polled = work.as_mut().poll(cx);
        pass_on(cx);
        polled
    })
    .await
}
