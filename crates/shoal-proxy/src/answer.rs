//! The answer to a request: made in one place, and sent from there.

use std::rc::Rc;

use http::Response;
use http::response::Parts;

use crate::body::{Payload, ResponseBody};
use crate::exchange::Exchange;
use crate::listener::Connection;

/// The answer to a request. It is large: it stays where it was begun, and others are told where.
pub(crate) struct Answer {
    pub(crate) head: Parts,
    pub(crate) body: ResponseBody,
}

impl Answer {
    /// Nothing is said yet.
    pub(crate) fn begin(connection: &Rc<Connection>) -> Self {
        let (head, ()) = Response::new(()).into_parts();
        Self { head, body: ResponseBody::of(Exchange::begin(connection)) }
    }

    /// Takes over what was made elsewhere.
    pub(crate) fn put<B>(&mut self, response: Response<B>, payload: impl FnOnce(B) -> Payload) {
        let (head, body) = response.into_parts();
        self.head = head;
        self.body.payload = payload(body);
    }
}
