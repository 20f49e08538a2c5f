//! Copies of request heads, kept until an answer comes, so that a request lost on a stale connection can be sent again.

use std::cell::RefCell;

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri};

use crate::body::RequestBody;

/// Field lists kept for later copies.
const MAX_SPARE: usize = 64;

/// Where copies get their memory from, and give it back to.
#[derive(Default)]
pub(super) struct Copies {
    spare: RefCell<Vec<Vec<(HeaderName, HeaderValue)>>>,
}

/// A request head that can be sent again.
pub(super) struct HeadCopy<'a> {
    method: Method,
    uri: Uri,
    fields: Vec<(HeaderName, HeaderValue)>,
    home: &'a Copies,
}

impl Copies {
    /// Copies `head`. Names and values are only counted references to the bytes that came in.
    pub(super) fn of(&self, head: &Parts) -> HeadCopy<'_> {
        let mut fields = self.spare.borrow_mut().pop().unwrap_or_default();
        fields.extend(head.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        HeadCopy { method: head.method.clone(), uri: head.uri.clone(), fields, home: self }
    }
}

impl HeadCopy<'_> {
    /// The request once more; it has no body, or it could not be replayed.
    pub(super) fn request(&self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.reserve(self.fields.len());
        for (name, value) in &self.fields {
            headers.append(name.clone(), value.clone());
        }
        request
    }
}

impl Drop for HeadCopy<'_> {
    fn drop(&mut self) {
        let mut spare = self.home.spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            let mut fields = std::mem::take(&mut self.fields);
            fields.clear();
            spare.push(fields);
        }
    }
}
