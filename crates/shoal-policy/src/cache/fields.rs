//! Which response fields are stored (RFC 9111 §3.1), and how fields are asked for by name.

use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};

/// Between name and value, and behind them: bytes.
const LINE_MARKS: usize = 4;

/// Fields, in whatever form they are kept.
pub trait Fields {
    /// The first line of `name`.
    fn line(&self, name: &HeaderName) -> Option<&[u8]>;

    /// All lines of `name`, in order.
    fn lines_of<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]>;

    /// There is a line of `name`.
    fn has(&self, name: &HeaderName) -> bool {
        self.line(name).is_some()
    }
}

impl Fields for HeaderMap {
    fn line(&self, name: &HeaderName) -> Option<&[u8]> {
        self.get(name).map(HeaderValue::as_bytes)
    }

    fn lines_of<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

/// Fields of one connection, or of one proxy's sign-in.
static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    PROXY_AUTHORIZATION,
];

/// Everything but hop-by-hop fields, those that `Connection` names, and `without`. Lines keep their order.
pub fn stored_fields(fields: &HeaderMap, without: &[HeaderName]) -> HeaderMap {
    let named = connection_names(fields);
    let mut stored = HeaderMap::with_capacity(fields.keys_len() + 2);
    for (name, value) in fields {
        if !HOP_BY_HOP.contains(name) && !named.contains(name) && !without.contains(name) {
            stored.append(name.clone(), value.clone());
        }
    }
    stored
}

/// What the lines of `fields` take up in a head, bytes.
pub fn lines_bytes(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + LINE_MARKS).sum()
}

/// It belongs to one connection and never travels further.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

fn connection_names(fields: &HeaderMap) -> Vec<HeaderName> {
    let lines = fields.get_all(CONNECTION).iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}
