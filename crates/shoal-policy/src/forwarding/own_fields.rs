//! The fields that this node adds to a request that has none of them: the same for nearly all requests of a connection,
//! and so made, and written out, once.

use std::cell::OnceCell;

use http::header::{FORWARDED, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};
use shoal_model::site::HeaderCase;

use super::Caller;
use super::request::{CDN_LOOP, OwnName, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REAL_IP};
use crate::http1::write_fields;

/// Fields to be added to a request.
#[derive(Debug)]
pub struct OwnFields {
    fields: [(HeaderName, HeaderValue); 7],
    text: Box<[u8]>,
    /// With capitals, where they were asked for.
    title: OnceCell<Box<[u8]>>,
}

/// Bytes of their lines: a guess that saves growing.
const TEXT_BYTES: usize = 512;

/// Where `Via` and `X-Forwarded-Host` stand among them.
const VIA_AT: usize = 5;
const HOST_AT: usize = 2;

impl OwnFields {
    pub(super) fn new(caller: &Caller, host: HeaderValue, via: &HeaderValue, own: &OwnName) -> Self {
        let forwarded = caller.forwarded(&host);
        let fields = [
            (X_FORWARDED_FOR, caller.text().clone()),
            (X_FORWARDED_PROTO, HeaderValue::from_static(caller.scheme())),
            (X_FORWARDED_HOST, host),
            (X_REAL_IP, caller.text().clone()),
            (FORWARDED, forwarded),
            (VIA, via.clone()),
            (CDN_LOOP, own.cdn_loop().clone()),
        ];
        let text = lines(&fields, HeaderCase::Lower);
        Self { fields, text, title: OnceCell::new() }
    }

    pub(super) fn is_for(&self, host: &HeaderValue, via: &HeaderValue) -> bool {
        self.fields[HOST_AT].1 == *host && self.fields[VIA_AT].1 == *via
    }

    /// As field lines of HTTP/1.1, the names spelled by `case`.
    pub fn text(&self, case: HeaderCase) -> &[u8] {
        match case {
            HeaderCase::Lower => &self.text,
            HeaderCase::Title => self.title.get_or_init(|| lines(&self.fields, case)),
        }
    }

    /// The value of one of them; `name` is in lower case.
    pub fn get(&self, name: &str) -> Option<&HeaderValue> {
        self.fields.iter().find(|(own, _)| own.as_str() == name).map(|(_, value)| value)
    }

    /// Adds them to `headers`, which have none of them.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        headers.reserve(self.fields.len());
        for (name, value) in &self.fields {
            headers.insert(name.clone(), value.clone());
        }
    }
}

fn lines(fields: &[(HeaderName, HeaderValue)], case: HeaderCase) -> Box<[u8]> {
    let mut text = Vec::with_capacity(TEXT_BYTES);
    write_fields(&mut text, fields.iter().map(|(name, value)| (name, value)), case);
    text.into()
}
