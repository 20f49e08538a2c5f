//! The fields that this node adds to a request that has none of them: the same for nearly all requests of a connection,
//! and so written out once.

use std::cell::OnceCell;
use std::ops::Range;

use bytes::Bytes;
use http::header::{FORWARDED, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};
use shoal_model::site::HeaderCase;

use super::Caller;
use super::request::{CDN_LOOP, OwnName, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REAL_IP};
use crate::http1::{Spelling, write_fields};

/// Fields to be added to a request.
#[derive(Debug)]
pub struct OwnFields {
    /// As field lines.
    text: Bytes,
    places: [Place; FIELDS],
    /// Made where they are asked for: few requests are sent on as anything but text.
    fields: OnceCell<Box<[(HeaderName, HeaderValue)]>>,
    /// With capitals, where they were asked for.
    title: OnceCell<Box<[u8]>>,
}

/// A field, and where its value is in the text.
type Place = (HeaderName, Range<usize>);

const FIELDS: usize = 7;
/// Where `Via` and `X-Forwarded-Host` stand among them.
const HOST_AT: usize = 2;
const VIA_AT: usize = 5;
/// Bytes of their lines beside the host: a guess that saves growing.
const TEXT_BYTES: usize = 384;

impl OwnFields {
    pub(super) fn new(caller: &Caller, host: &HeaderValue, via: &HeaderValue, own: &OwnName) -> Self {
        let mut text = Vec::with_capacity(TEXT_BYTES + 2 * host.len());
        let mut add = |name: HeaderName, write: &dyn Fn(&mut Vec<u8>)| {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            let start = text.len();
            write(&mut text);
            let end = text.len();
            text.extend_from_slice(b"\r\n");
            (name, start..end)
        };
        let address = caller.text().as_bytes();
        let forwarded = caller.element(host);
        let places = [
            add(X_FORWARDED_FOR, &|text| text.extend_from_slice(address)),
            add(X_FORWARDED_PROTO, &|text| text.extend_from_slice(caller.scheme().as_bytes())),
            add(X_FORWARDED_HOST, &|text| text.extend_from_slice(host.as_bytes())),
            add(X_REAL_IP, &|text| text.extend_from_slice(address)),
            add(FORWARDED, &|text| forwarded.write(text)),
            add(VIA, &|text| text.extend_from_slice(via.as_bytes())),
            add(CDN_LOOP, &|text| text.extend_from_slice(own.cdn_loop().as_bytes())),
        ];
        Self { text: text.into(), places, fields: OnceCell::new(), title: OnceCell::new() }
    }

    pub(super) fn is_for(&self, host: &HeaderValue, via: &HeaderValue) -> bool {
        let value = |at: usize| &self.text[self.places[at].1.clone()];
        value(HOST_AT) == host.as_bytes() && value(VIA_AT) == via.as_bytes()
    }

    /// As field lines of HTTP/1.1, the names spelled by `case`.
    pub fn text(&self, case: HeaderCase) -> &[u8] {
        match case {
            HeaderCase::Lower => &self.text,
            HeaderCase::Title | HeaderCase::Preserve => self.title.get_or_init(|| {
                let mut text = Vec::with_capacity(self.text.len());
                write_fields(
                    &mut text,
                    self.fields().iter().map(|(name, value)| (name, value)),
                    Spelling::Title,
                );
                text.into()
            }),
        }
    }

    /// The value of one of them; `name` is in lower case.
    pub fn get(&self, name: &str) -> Option<&HeaderValue> {
        self.fields().iter().find(|(own, _)| own.as_str() == name).map(|(_, value)| value)
    }

    /// Adds them to `headers`, which have none of them.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        headers.reserve(FIELDS);
        for (name, value) in self.fields() {
            headers.insert(name.clone(), value.clone());
        }
    }

    fn fields(&self) -> &[(HeaderName, HeaderValue)] {
        self.fields.get_or_init(|| {
            let value = |place: &Range<usize>| HeaderValue::from_maybe_shared(self.text.slice(place.clone()));
            // All were made of values.
            self.places.iter().filter_map(|(name, place)| Some((name.clone(), value(place).ok()?))).collect()
        })
    }
}
