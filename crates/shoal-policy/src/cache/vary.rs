//! What a response says of the request fields that choose it (RFC 9111 §4.1).

use http::header::{COOKIE, HeaderMap, HeaderName, USER_AGENT, VARY};

/// A response that varies over more fields than this is not stored.
pub const MAX_VARY_FIELDS: usize = 8;

/// What `Vary` says, all lines together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// These fields choose, in the order of their names; none = every request fits.
    Fields(Vec<HeaderName>),
    /// `*`, something that is no field name, or too much: no other request ever fits.
    Anything,
}

impl Vary {
    /// Reads every `Vary` line.
    pub fn read(fields: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for member in fields.get_all(VARY).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            match HeaderName::from_bytes(member) {
                Ok(name) if name != "*" => names.push(name),
                Ok(_) | Err(_) => return Self::Anything,
            }
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        if names.len() > MAX_VARY_FIELDS { Self::Anything } else { Self::Fields(names) }
    }
}

/// Nearly every request has another value of this field: storing the variants would be in vain.
pub fn is_hopeless(name: &HeaderName) -> bool {
    name == COOKIE || name == USER_AGENT
}
