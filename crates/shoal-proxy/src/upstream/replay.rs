//! Copies of requests, kept until an answer comes, so that what was lost or refused can be sent again.

use std::cell::RefCell;
use std::rc::Rc;

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri};

use crate::body::RequestBody;
use crate::recording::Recording;

/// Field lists kept for later copies.
const MAX_SPARE: usize = 64;

/// Where copies get their memory from, and give it back to.
#[derive(Default)]
pub(super) struct Copies {
    spare: RefCell<Vec<Vec<(HeaderName, HeaderValue)>>>,
}

/// A request that can be sent again.
pub(super) struct Copy<'a> {
    method: Method,
    uri: Uri,
    fields: Vec<(HeaderName, HeaderValue)>,
    /// `None` = it has no body.
    body: Option<Rc<Recording>>,
    home: &'a Copies,
}

impl Copies {
    /// Copies `head`. Names and values are only counted references to the bytes that came in.
    pub(super) fn of(&self, head: &Parts, body: Option<Rc<Recording>>) -> Copy<'_> {
        let mut fields = self.spare.borrow_mut().pop().unwrap_or_default();
        fields.extend(head.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        Copy { method: head.method.clone(), uri: head.uri.clone(), fields, body, home: self }
    }
}

impl Copy<'_> {
    /// Nothing of the request is gone.
    pub(super) fn is_whole(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_whole())
    }

    /// The request once more.
    pub(super) fn request(&self) -> Request<RequestBody> {
        let body = self.body.as_ref().map_or(RequestBody::Empty, Recording::read);
        let mut request = Request::new(body);
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

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        let mut spare = self.home.spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            let mut fields = std::mem::take(&mut self.fields);
            fields.clear();
            spare.push(fields);
        }
    }
}
