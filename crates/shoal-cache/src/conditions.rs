//! What of a request may make the fields of an object, or a few bytes, all that it gets: that it is a HEAD, a condition by
//! which downstream has the body already, its ranges. Nodes say so to each other, and no bytes travel for nothing.

use http::Method;
use http::header::{HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::request::Parts;

use crate::portion::Portion;

/// The fields that there are of them.
pub(crate) const NAMES: [HeaderName; 4] = [IF_NONE_MATCH, IF_MODIFIED_SINCE, RANGE, IF_RANGE];

/// The method of a request, its conditions, and its ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conditions {
    pub(crate) method: Method,
    /// Lines of the fields that [`NAMES`] has.
    pub(crate) fields: HeaderMap,
}

impl Conditions {
    /// Of a request that is about this portion.
    pub(crate) fn of(asked: &Parts, portion: &Portion) -> Self {
        let mut fields = HeaderMap::new();
        let is_meant = |name: &HeaderName| *portion != Portion::Whole || ![RANGE, IF_RANGE].contains(name);
        for name in NAMES.into_iter().filter(is_meant) {
            for value in asked.headers.get_all(&name) {
                fields.append(name.clone(), value.clone());
            }
        }
        Self { method: asked.method.clone(), fields }
    }

    /// Such a request gets the whole, whatever that is.
    pub(crate) fn is_plain(&self) -> bool {
        self.method == Method::GET && self.fields.is_empty()
    }

    /// Gives a request what was taken off it for its way to another node.
    pub(crate) fn restore(self, head: &mut Parts) {
        head.method = self.method;
        NAMES.iter().for_each(|name| _ = head.headers.remove(name));
        head.headers.extend(self.fields);
    }
}
