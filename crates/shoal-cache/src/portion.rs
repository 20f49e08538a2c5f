//! What of a representation a request is about.

use http::header::{IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method};
use shoal_policy::cache::range::{ByteRange, asks_for_everything, read_ranges};

/// What of a representation a request is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Portion {
    /// All of it.
    Whole,
    /// One range, and the condition under which it will do.
    Part { range: ByteRange, if_range: Option<HeaderValue> },
    /// Several ranges: they are answered from what is here, or by the origin.
    Several,
    /// Only what there is to know of it: how large it is, and of which version. No request asks for that; requests for
    /// different ranges wait for it.
    Description,
}

impl Portion {
    /// What a request asks for. A range that nobody reads, and one of a HEAD, are none (RFC 9110 §14.2).
    pub(crate) fn of(method: &Method, fields: &HeaderMap) -> Self {
        if method != Method::GET || asks_for_everything(fields) {
            return Self::Whole;
        }
        match read_ranges(fields).as_deref() {
            None => Self::Whole,
            Some([range]) => Self::Part { range: *range, if_range: fields.get(IF_RANGE).cloned() },
            Some(_) => Self::Several,
        }
    }

    /// Makes a request for the whole ask for this of it.
    pub(crate) fn write(&self, asked: &HeaderMap, fields: &mut HeaderMap) {
        match self {
            Self::Part { .. } => {
                for name in [RANGE, IF_RANGE] {
                    if let Some(value) = asked.get(&name) {
                        fields.insert(name, value.clone());
                    }
                }
            }
            Self::Whole | Self::Several | Self::Description => {}
        }
    }
}
