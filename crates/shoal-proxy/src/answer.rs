//! The answer to a request: made in one place, and sent from there.

use std::rc::Rc;

use http::response::Parts;
use http::{HeaderName, HeaderValue, Response};
use shoal_cache::Ready;
use shoal_policy::http1::SharedFields;

use crate::body::{Payload, ResponseBody};
use crate::exchange::Exchange;
use crate::listener::Connection;

/// The answer to a request. It is large: it stays where it was begun, and others are told where.
pub(crate) struct Answer {
    pub(crate) head: Parts,
    /// Fields beside those of the head.
    pub(crate) shared: Option<Rc<SharedFields>>,
    /// What `x-request-id` says beside those.
    pub(crate) request_id: Option<HeaderValue>,
    pub(crate) body: ResponseBody,
}

impl Answer {
    /// Nothing is said yet.
    pub(crate) fn begin(connection: &Rc<Connection>) -> Self {
        let (head, ()) = Response::new(()).into_parts();
        Self { head, shared: None, request_id: None, body: ResponseBody::of(Exchange::begin(connection)) }
    }

    /// Takes over what was made elsewhere.
    pub(crate) fn put<B>(&mut self, response: Response<B>, payload: impl FnOnce(B) -> Payload) {
        let (head, body) = response.into_parts();
        (self.head, self.shared) = (head, None);
        self.body.payload = payload(body);
    }

    /// Takes over an answer that lay ready; nothing was said before. As `lines`, its fields are not even copied.
    pub(crate) fn put_ready(&mut self, ready: Ready, lines: bool) {
        self.head.status = ready.status;
        if lines {
            self.shared = Some(ready.fields);
        } else {
            self.head.headers = ready.fields.map().clone();
        }
        self.body.payload = Payload::Cache(ready.body);
    }

    /// What the last line of the field `name` says.
    pub(crate) fn last_field(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let own = self.head.headers.get_all(name).iter().next_back();
        own.or_else(|| self.shared.as_ref()?.map().get_all(name).iter().next_back())
    }
}
