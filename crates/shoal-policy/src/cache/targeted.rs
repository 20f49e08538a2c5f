//! Targeted cache control (RFC 9213): fields for caches like ours alone, in the strict syntax of Structured Fields.

use http::header::{HeaderMap, HeaderName};

use super::directives::{Directives, Extent, MAX_SECONDS};
use super::structured::{Item, read_dictionary};

/// What an origin says to our caches alone.
pub const SHOAL_CACHE_CONTROL: HeaderName = HeaderName::from_static("shoal-cache-control");
/// Our target list: the first usable field decides (RFC 9213 §2.2).
static TARGETS: [HeaderName; 2] = [SHOAL_CACHE_CONTROL, HeaderName::from_static("cdn-cache-control")];

/// What the first usable targeted field says; `None` = there is none, and `Cache-Control` counts.
pub fn read_targeted(fields: &HeaderMap) -> Option<Directives> {
    TARGETS.iter().find_map(|name| directives(&read_dictionary(fields, name)?))
}

/// A syntax error, an empty field or a known directive of the wrong type makes all of it unusable.
fn directives(members: &[(String, Item)]) -> Option<Directives> {
    let mut read = Directives::default();
    for (key, item) in members {
        match key.as_bytes() {
            b"max-age" => read.max_age = Some(seconds(item)?),
            b"s-maxage" => read.s_maxage = Some(seconds(item)?),
            b"stale-while-revalidate" => read.stale_while_revalidate = Some(seconds(item)?),
            b"stale-if-error" => read.stale_if_error = Some(seconds(item)?),
            b"no-store" => read.no_store = flag(item)?,
            b"public" => read.public = flag(item)?,
            b"must-revalidate" => read.must_revalidate = flag(item)?,
            b"proxy-revalidate" => read.proxy_revalidate = flag(item)?,
            b"must-understand" => read.must_understand = flag(item)?,
            b"no-cache" => read.no_cache = extent(item)?,
            b"private" => read.private = extent(item)?,
            _ => {}
        }
    }
    Some(read)
}

fn seconds(item: &Item) -> Option<u32> {
    match item {
        Item::Integer(value) => Some((*value).clamp(0, i64::from(MAX_SECONDS)) as u32),
        Item::Boolean(_) | Item::Text(_) | Item::List(_) | Item::Other => None,
    }
}

const fn flag(item: &Item) -> Option<bool> {
    match item {
        Item::Boolean(value) => Some(*value),
        Item::Integer(_) | Item::Text(_) | Item::List(_) | Item::Other => None,
    }
}

/// A list of fields is taken for the whole response: the stricter reading.
const fn extent(item: &Item) -> Option<Extent> {
    match item {
        Item::Boolean(true) | Item::Text(_) => Some(Extent::Everything),
        Item::Boolean(false) => Some(Extent::Nothing),
        Item::Integer(_) | Item::List(_) | Item::Other => None,
    }
}
